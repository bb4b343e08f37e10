"""Errors a user can cause. Each message names what was wrong, where, and what to do about it."""

import operator


class PcmrefError(Exception):
    """The base of every error pcmref raises on purpose.

    >>> try:
    ...     pcmref.PCMModel.joshi2020().drift(25.0, 0.05, t_s=1.0)
    ... except pcmref.PcmrefError as error:
    ...     print(error)
    t_s must be a time from t_0 = 20.0 s after programming on, got 1.0
    """


class ShapeError(PcmrefError, ValueError):
    """An array has the wrong shape, layout, dtype or content."""


class StateError(PcmrefError, ValueError):
    """A state dict does not fit the network: missing, extra or misshapen entries."""


class DeviceError(PcmrefError, ValueError):
    """A device quantity is outside the model's domain (time before t_0, negative conductance, ...)."""


class SettingError(PcmrefError, ValueError):
    """A setting of a command, a study or a training run is outside its range."""


class FileError(PcmrefError, ValueError):
    """A file is missing, truncated, oversized, corrupted or not what it claims to be."""


class MissingExtraError(PcmrefError, ImportError):
    """An optional dependency is needed for what was asked."""


def printable(text: str) -> str:
    """A text from a file as a terminal may have it: what is no plain character is escaped, line breaks included."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def check_array(what: str, value, error: type[PcmrefError]):
    """value as it is; `error` where NumPy would make something else of it: a masked array would lose its mask."""
    if hasattr(value, "mask") and hasattr(value, "filled"):
        raise error(f"{what} is a masked array, whose mask nothing here knows: value.filled(...) makes it a plain one")
    if hasattr(value, "detach"):
        raise error(f"{what} is a torch tensor: value.detach().cpu().numpy() makes it a NumPy array")
    return value


def whole_number(name: str, value, low: int | None = None, high: int | None = None) -> int:
    """value as an int, Python's or NumPy's; SettingError where it is none (True is none) or outside low..high."""
    try:
        number = operator.index(value)
    except TypeError:
        number = None
    if number is None or isinstance(value, bool) or (low is not None and number < low) or (high is not None and number > high):
        bounds = "" if low is None else f" from {low}" if high is None else f" from {low} to {high}"
        raise SettingError(f"{name} must be a whole number{bounds}, got {value!r}")
    return number
