"""The checker's own check: backends with one planted error each.

Each mutant is pcmref's backend with one operation replaced; it must fail there and nowhere else. Errors in draws are in
`planted_draws`, backends that are right in `right_backends`.
"""

import sys
from dataclasses import replace
from functools import partial

import numpy as np

from pcmref.golden.reference import Reference
from pcmref.nn import functional as F
from tests.golden.planted_draws import SPOILED


class Mutant(Reference):
    """pcmref's backend with `error` in operation `planted`: spoil(own, arguments) -> {output: array}, `own` the right one."""

    takes_noise = True

    def __init__(self, planted, error, spoil, dtype="float64"):
        self.planted, self.error, self.spoil, self.dtype = planted, error, spoil, dtype

    def capabilities(self):
        return replace(super().capabilities(), accepts_noise=self.takes_noise)

    def call(self, op, arguments):
        own = partial(super().call, op)
        return self.spoil(own, arguments) if op == self.planted and self.takes_noise else own(arguments)


class SampledMutant(Mutant):
    """The same for draws: `spoil(samples, inputs)` makes right ones wrong."""

    takes_noise = False

    def sample(self, op, version, inputs, params, *, n, seed):
        made = super().sample(op, version, inputs, params, n=n, seed=seed)
        return {name: self.spoil(value, inputs) for name, value in made.items()} if op == self.planted else made


def _scaled(name: str, factor: float):
    """The operation's own result with one output multiplied."""

    def spoil(own, a):
        out = own(a)
        return out | {name: out[name] * np.asarray(factor, out[name].dtype)}

    return spoil


def _with(**changes):
    """The operation's own result for changed arguments: each change is a function of the value."""
    return lambda own, a: own(a | {name: change(a[name]) for name, change in changes.items()})


def half_product(x, w):
    """Sums in half precision: the terms are rounded to float16 and added there, one after the other."""
    x, half = x.astype(np.float16), w.reshape(len(w), -1).astype(np.float16)
    return np.add.accumulate(x[:, None] * half, 2)[..., -1].astype(w.dtype)


def _half(own, a):
    return {"y": F.conv2d(a["x"], a["w"], a["stride"], a["padding"], half_product)}


def _all_maxima(own, a):
    """Gives dy to the last pixel of a window instead of its largest."""
    return own(a | {"x": -np.abs(np.arange(a["x"].size, dtype=a["x"].dtype)[::-1]).reshape(a["x"].shape)})


def _first_image(own, a):
    first = own(a | {"dy": a["dy"][:1], "x": a["x"][:1]})
    return own(a) | {"dw": first["dw"]}


def _unflipped(own, a):
    return own(a | {"w": a["w"][:, :, ::-1, ::-1]})["dx"]


def _overwritten(own, a):
    """Subtracts the mean from its own input, in place."""
    out = own(a)
    a["x"] -= a["mean"]
    return out


# (operation, what is wrong, how): applied to the operation's own result or to its arguments, which come by name
_PLANTED = [
    ("conv2d", "stride off by one", _with(stride=lambda s: s + 1)),
    ("conv2d", "half-precision accumulation", _half),
    ("conv2d", "all zeros", _scaled("y", 0.0)),
    ("conv2d_backward", "gradient of the weights from the first image only", _first_image),
    ("conv2d_backward", "kernel not flipped", lambda own, a: own(a) | {"dx": _unflipped(own, a)}),
    ("max_pool2d", "border of zeros", lambda own, a: {"y": np.maximum(own(a)["y"], -2)}),
    ("max_pool2d_backward", "to the last pixel", _all_maxima),
    ("softmax_cross_entropy_backward", "not divided by the batch", lambda own, a: {"dlogits": own(a)["dlogits"] * 2}),
    ("basic_block", "all values 2^-10 too low", lambda own, a: {"y": own(a)["y"] - a["x"].dtype.type(2.0**-10)}),
    ("basic_block_backward", "2 % too large", _scaled("dx", 1.02)),
    ("resnet_backward", "loss averaged", _with(dlogits=lambda dlogits: dlogits / 2)),
    ("batch_norm", "overwrites its input", _overwritten),
    ("relu", "ends the program", lambda own, a: sys.exit(0)),
    ("linear", "NaN in one element", lambda own, a: {"y": np.where(np.arange(a["w"].shape[0]) == 0, np.nan, own(a)["y"])}),
    ("chip", "read at t_0", _with(t_s=lambda t: 20.0)),
]


def mutants() -> list[Mutant]:
    """All planted errors."""
    return [Mutant(*planted) for planted in _PLANTED] + [
        SampledMutant(op, f"sampled: {error}", spoil) for op, error, spoil in SPOILED
    ]
