"""Weights to conductances and back: differential pairs, one scale a crossbar (two devices a weight: Joshi et al. 2020;
the scale: aihwkit).

A weight is the difference of two devices, G+ - G- = scale * W with scale = G_max / max|W|. A crossbar is a weight
tensor with the bias that belongs to it, if there is one: the bias is one more row, driven by a constant input, and counts in
max|W|. Where devices cannot go below G_min > 0, a chip maps to G_max - G_min and adds G_min, which cancels in a pair.
"""

import numpy as np

from pcmref.errors import DeviceError, check_array

SMALLEST = 2.0**-1010  # of max|W| / G_max: the scale is finite then, and what is read back no subnormal number


def crossbars(state: dict) -> dict[str, list[str]]:
    """{crossbar: the names of the arrays on it}, for a state: every convolution, and fc.weight with fc.bias.

    Batch norm is digital and on no crossbar. DeviceError where there is no crossbar, or a weight that could be on none.
    """
    bars = {}
    for name, value in state.items():
        check_array(repr(name), value, DeviceError)
        if np.ndim(value) > 1 and name.endswith(".weight"):
            if np.ndim(value) not in (2, 4):
                raise DeviceError(f"{name!r} has shape {np.shape(value)}; convolutions [O, C, kH, kW] and matrices are mapped")
            bias = name.removesuffix("weight") + "bias"
            bars[name] = [name, bias] if bias in state else [name]
            for array in bars[name]:
                if np.asarray(state[array]).dtype.kind != "f" or not np.size(state[array]):
                    raise DeviceError(f"{array!r} must hold floating-point weights to be on a crossbar, got {state[array]!r}")
    if not bars:
        raise DeviceError(f"no array of the state is on a crossbar ('NAME.weight' of 2 or 4 axes): {sorted(state)[:3]}")
    return bars


def read_only(values) -> np.ndarray:
    """The array itself if it can never be written to, else a copy that cannot: nobody else's writing changes what keeps it."""
    array = np.asarray(values)
    if array.flags.writeable or array.base is not None:
        array = np.array(values)
        array.flags.writeable = False
    return array


def weight_scale(w_max: float, g_max_us: float = 25.0) -> float:
    """scale = G_max / max|W| in uS per unit weight, at most 2^1010: what the devices of a crossbar of zeros read back as is
    the limit of weights that go to 0 (discrepancy D28).
    """
    scale = g_max_us / max(w_max, g_max_us * SMALLEST)
    return float(scale) if isinstance(scale, np.floating) else scale


def map_weights(w: np.ndarray, g_max_us: float = 25.0, scale: float | np.ndarray | None = None) -> tuple[np.ndarray, float]:
    """(g_us, scale): g_us[0] = clip(scale*w, 0, G_max), g_us[1] = clip(-scale*w, 0, G_max).

    w any shape -> g_us [2, *w.shape] in uS, float64 or wider: the plus and the minus device; one of each pair is at 0.
    `scale` is given where several arrays share a crossbar, as an array where tiles have their own. DeviceError where w is
    not finite.

    >>> g_us, scale = pcmref.map_weights(np.array([0.5, -0.25]))
    >>> g_us.tolist(), scale
    ([[25.0, 0.0], [0.0, 12.5]], 50.0)
    """
    w = np.asarray(w)
    w = w.astype(np.result_type(w.dtype, np.float64))
    if w.dtype.kind == "f" and not np.isfinite(w).all():
        raise DeviceError("map_weights: the weights hold NaN or infinity; nothing can be programmed")
    if not 0 < g_max_us < np.inf:
        raise DeviceError(f"map_weights: g_max_us must be above 0, got {g_max_us!r}")
    if scale is None:
        scale = weight_scale(np.abs(w).max(initial=0), g_max_us)
    return np.clip(np.stack([scale * w, -scale * w]), 0, g_max_us) + 0, scale  # + 0: no device at -0.0


def unmap_weights(g_us: np.ndarray, scale: float) -> np.ndarray:
    """w = (G+ - G-) / scale: g_us [2, *shape] -> [*shape].

    >>> pcmref.unmap_weights(np.array([[25.0, 0.0], [0.0, 12.5]]), scale=50.0).tolist()
    [0.5, -0.25]
    """
    return (g_us[0] - g_us[1]) / scale
