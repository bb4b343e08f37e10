"""Errors a user can cause. Each message names what was wrong, where, and what to do about it."""


class PcmrefError(Exception):
    """The base of every error pcmref raises on purpose."""


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
