"""What a network's description, its state and its images must be: every guard, so that none stands between the equations."""

import numpy as np

from pcmref.errors import SettingError, ShapeError, StateError, check_array, whole_number


def check_description(net) -> None:
    """SettingError where a network's description is none; whole numbers in it become Python's."""
    for name in ("in_channels", "num_classes"):
        object.__setattr__(net, name, whole_number(f"ResNet: {name}", getattr(net, name), 1, 65_536))
    for name, high in (("widths", 65_536), ("blocks", 1000)):
        object.__setattr__(net, name, tuple(whole_number(f"ResNet: each of {name}", v, 1, high) for v in getattr(net, name)))
    if len(net.widths) != len(net.blocks) or not net.widths or sum(net.blocks) > 1000:
        raise SettingError("ResNet: widths and blocks need one entry a stage each, and at most 1,000 blocks in all")
    choices = {"stem": ("small", "imagenet"), "shortcut": ("projection", "pad"), "block": ("basic", "bottleneck")}
    for name, allowed in choices.items():
        if getattr(net, name) not in allowed:
            raise SettingError(f"ResNet: {name} must be one of {allowed}, got {getattr(net, name)!r}")
    if isinstance(net.eps, str) or not 0 < net.eps < 1:
        raise SettingError(f"ResNet: eps must lie between 0 and 1, got {net.eps!r}")
    if net.shortcut == "pad" and any(c_out < c_in for _, c_in, c_out, _ in net._blocks()):
        raise SettingError(f"ResNet: a pad shortcut cannot lead to fewer channels: widths {net.widths}")


def check_state(net, state: dict) -> None:
    """StateError unless every name is there with its shape, finite, and no variance is negative."""
    shapes = net.shapes()
    missing, extra = [name for name in shapes if name not in state], [name for name in state if name not in shapes]
    if missing or extra:
        raise StateError(f"state does not fit this network: missing {missing[:3] or 'none'}, unknown {extra[:3] or 'none'}")
    for name, value in checked_state(net, state).items():
        if value.dtype.kind != "f":
            raise StateError(f"state[{name!r}] must be floating point of shape {shapes[name]}, got {value.dtype}")
    check_values(state)


def checked_state(net, state: dict, dtype=None, arrays_only: bool = True) -> dict:
    """The state's arrays in C order and one dtype; StateError where one is missing, misshapen or no plain array.

    With a product of the caller's own (arrays_only=False) a weight may be anything of its shape, and stays as it is.
    """
    checked = {}
    for name, shape in net.shapes().items():
        value = check_array(f"state[{name!r}]", state.get(name) if isinstance(state, dict) else None, StateError)
        if getattr(value, "shape", None) != shape:
            found = "nothing" if value is None else getattr(value, "shape", type(value).__name__)
            raise StateError(f"state[{name!r}] must be an array of shape {shape}, found {found}")
        if arrays_only and not hasattr(value, "__array_ufunc__"):
            raise StateError(f"state[{name!r}] is no array but a {type(value).__name__}: give the `product` that takes it")
        checked[name] = np.asarray(value, dtype, order="C") if isinstance(value, np.ndarray) else value
    return checked


def check_values(state: dict) -> None:
    """StateError where an entry holds NaN or infinity, or a variance is negative: every logit would be NaN."""
    for name, value in state.items():
        if isinstance(value, np.ndarray) and value.dtype.kind == "f" and not np.isfinite(value).all():
            raise StateError(f"state[{name!r}] holds NaN or infinity in {value.dtype}")
        if name.endswith("running_var") and not (value >= 0).all():
            raise StateError(f"state[{name!r}] holds a negative variance")


def checked_images(net, x):
    """x in C order and native byte order; ShapeError where it is no batch of images of this network."""
    x = x if hasattr(check_array("x", x, ShapeError), "__array_ufunc__") else np.asarray(x)
    if x.ndim != 4 or x.shape[3] != net.in_channels:
        is_nchw = x.ndim == 4 and x.shape[1] == net.in_channels
        hint = "; this looks like an NCHW batch, x.transpose(0, 2, 3, 1) makes it channels-last" if is_nchw else ""
        raise ShapeError(f"x must be images [N, H, W, {net.in_channels}], got shape {tuple(x.shape)}{hint}")
    if len(x) == 0:
        raise ShapeError("x holds no images")
    if x.dtype.kind not in "fO":
        raise ShapeError(f"x must be floating point (normalised pixels), got {x.dtype}")
    if x.dtype.kind == "f" and not (finite := np.isfinite(x)).all():
        raise ShapeError(f"x holds NaN or infinity, first in image {np.argmin(finite.all((1, 2, 3)))}")
    return np.asarray(x, x.dtype.newbyteorder("="), order="C") if isinstance(x, np.ndarray) else x
