"""What tests say of rounding: how much k roundings can change, and networks on which nothing rounds."""

from dataclasses import replace

import numpy as np

from pcmref import draws


def gamma(k: int, dtype=np.float64) -> float:
    """k roundings change a value by at most gamma(k) of the magnitudes in it (Higham 2002, lemma 3.1).

    gamma(k) = k u/(1 - k u), u half of the dtype's epsilon. A sum of n terms has n - 1 roundings in whatever order it is added.
    """
    ku = k * float(np.finfo(dtype).eps) / 2
    return ku / (1 - ku)


def without_rounding(net, n: int, size: int):
    """(network, state, images) whose evaluation in float64 is exact in whatever order: small whole numbers all the way.

    var + eps is 1, and the last maps must have a power of two pixels, at most 64: their mean has six binary digits.
    """
    net, state = replace(net, eps=0.25), {}
    for name, shape in net.shapes().items():
        state[name] = draws.integers(0, f"test/{name}", 3, shape) - 1.0
        if ".weight" in name and len(shape) == 1:
            state[name] += 2.0  # no channel dies
        if name.endswith("running_var"):
            state[name] = np.full(shape, 1 - net.eps)
    x = draws.integers(0, "test/x", 9, (n, size, size, net.in_channels)) - 4.0
    magnitudes = {name: -abs(value) if name.endswith("running_mean") else abs(value) for name, value in state.items()}
    assert net.forward(magnitudes, abs(x)).max() < 2.0**47
    return net, state, x
