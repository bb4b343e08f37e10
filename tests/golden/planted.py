"""The checker's own check: backends with one planted error each.

Each mutant is pcmref's backend with one operation replaced; it must fail there and nowhere else. Errors in draws are in
`planted_draws`, backends that are right in `right_backends`.
"""

import sys
from dataclasses import replace
from functools import partial

import numpy as np
from planted_draws import SPOILED

from pcmref.golden.reference import Reference
from pcmref.nn import functional as F


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


def _inputs(**changes):
    """The operation's own result for changed arguments: each change is a function of all of them."""
    return lambda own, a: own(a | {name: change(a) for name, change in changes.items()})


def half_product(x, w):
    """Sums in half precision: the terms are rounded to float16 and added there, one after the other."""
    x, half = x.astype(np.float16), w.reshape(len(w), -1).astype(np.float16)
    return np.add.accumulate(x[:, None] * half, 2)[..., -1].astype(w.dtype)


def _half(own, a):
    return {"y": F.conv2d(a["x"], a["w"], a["stride"], a["padding"], half_product)}


def _edge_padding(own, a):
    margin = ((0, 0), (a["padding"],) * 2, (a["padding"],) * 2, (0, 0))
    return own(a | {"x": np.pad(a["x"], margin, mode="edge"), "padding": 0})


def _unbiased(own, a):
    """Normalises with the variance over N - 1."""
    out, n = own(a), a["x"].size // a["x"].shape[3]
    var = a["x"].var((0, 1, 2), dtype=np.float64)
    factor = np.sqrt((var + a["eps"]) / (var * n / (n - 1) + a["eps"]))
    return out | {"y": ((out["y"] - a["bias"]) * factor + a["bias"]).astype(a["x"].dtype)}


def _biased_running(own, a):
    """Keeps the variance over N in the running statistics."""
    out, n = own(a), a["x"].size // a["x"].shape[3]
    m, old = a["momentum"], a["running_var"]
    return out | {"running_var": ((1 - m) * old + (out["running_var"] - (1 - m) * old) * (n - 1) / n).astype(old.dtype)}


def _constant_statistics(own, a):
    x = a["x"].astype(np.float64)
    mean, var = x.mean((0, 1, 2)), x.var((0, 1, 2))
    grads = F.batch_norm_backward(a["dy"], a["x"], a["weight"], mean.astype(a["x"].dtype), var.astype(a["x"].dtype), a["eps"])
    return own(a) | {"dx": grads[0]}


def _smoothing_on_others(own, a):
    """Spreads the smoothing over the other classes only."""
    classes = a["logits"].shape[1]
    return own(a | {"smoothing": a["smoothing"] * classes / (classes - 1)})


def _plain_average(own, a):
    """Averages the calibration batches without their numbers of images."""
    size, x = a["batch_size"], a["x_calibration"]
    parts = [own(a | {"x_calibration": x[i : i + size]}) for i in range(0, len(x), size)]
    return {name: np.mean([part[name] for part in parts], 0, dtype=parts[0][name].dtype) for name in parts[0]}


def _swapped_times(own, a):
    """(t_0/t)^-nu."""
    return {"g_drift_us": a["g_prog_us"] * (a["model"]["t_0_s"] / a["t_s"]) ** -a["nu"]}


def _one_scale_each(own, a):
    """The standard deviation of the noise from each array's own largest weight."""
    eta, noise = a["eta"], a["noise"]
    return {name: (w + eta * np.abs(w).max() * noise[name]).astype(w.dtype) for name, w in a["state"].items()}


def _sample_deviation(own, a):
    n = sum(w.size for w in a["state"].values())
    return own(a | {"alpha": a["alpha"] * (n / (n - 1)) ** 0.5})


def _first_block_zero(own, a):
    """Block counters from 0."""
    raw = np.concatenate([np.zeros(4, np.uint64), own(a)["raw"]])[: a["n"]]
    return own(a) | {"raw": raw}


def _no_clip(name: str, location: str):
    def spoil(own, a):
        out = own(a)
        mirrored = own(a | {"z": -a["z"]})
        unclipped = np.where(out[name] == 0, 2 * a[location] - mirrored[name], out[name])
        return {name: unclipped}

    return spoil


def _all_maxima(own, a):
    """Gives dy to the last pixel of a window instead of its largest."""
    return own(a | {"x": -np.abs(np.arange(a["x"].size, dtype=a["x"].dtype)[::-1]).reshape(a["x"].shape)})


def _other_ties(converter):
    return converter | {"rounding": {"half-even": "half-away", "half-away": "half-even"}[converter["rounding"]]}


def _turned(w):
    return w.transpose(0, 1, 3, 2) if w.shape[2] == w.shape[3] else w[:, :, :, ::-1]


def _first_image(own, a):
    first = own(a | {"dy": a["dy"][:1], "x": a["x"][:1]})
    return own(a) | {"dw": first["dw"]}


def _unflipped(own, a):
    return own(a | {"w": a["w"][:, :, ::-1, ::-1]})["dx"]


def _signed(own, a):
    w = a["w"]
    top = w.max(initial=0)
    return own(a | {"w": np.clip(w, -top, top)}) if top > 0 else {}


def _overwritten(own, a):
    """Subtracts the mean from its own input, in place."""
    out = own(a)
    a["x"] -= a["mean"]
    return out


# (operation, what is wrong, how): applied to the operation's own result or to its arguments, which come by name
_PLANTED = [
    ("conv2d", "kernel transposed", _with(w=_turned)),
    ("conv2d", "kernel flipped: a true convolution", _with(w=lambda w: w[:, :, ::-1, ::-1])),
    ("conv2d", "stride off by one", _with(stride=lambda s: s + 1)),
    ("conv2d", "edges repeated instead of zeros", _edge_padding),
    ("conv2d", "half-precision accumulation", _half),
    ("conv2d", "all zeros", _scaled("y", 0.0)),
    ("conv2d_backward", "gradient of the weights from the first image only", _first_image),
    ("conv2d_backward", "kernel not flipped", lambda own, a: own(a) | {"dx": _unflipped(own, a)}),
    ("batch_norm", "epsilon missing", _with(eps=lambda e: 1e-30)),
    ("batch_norm", "epsilon outside the root", _with(var=lambda var: (np.sqrt(var) + 1e-5) ** 2 - var.dtype.type(1e-5))),
    ("batch_norm_backward", "epsilon missing", _with(eps=lambda e: 1e-30)),
    ("batch_norm_train", "momentum flipped", _with(momentum=lambda m: 1 - m)),
    ("batch_norm_train", "normalised with the unbiased variance", _unbiased),
    ("batch_norm_train", "running variance biased", _biased_running),
    ("batch_norm_train_backward", "statistics taken as constants", _constant_statistics),
    ("relu", "leaky", lambda own, a: {"y": np.where(a["x"] > 0, a["x"], a["x"] * a["x"].dtype.type(0.01))}),
    ("relu_backward", "passes everything", lambda own, a: {"dx": a["dy"]}),
    ("linear", "bias forgotten", _with(b=np.zeros_like)),
    ("linear_backward", "bias gradient averaged", lambda own, a: (out := own(a)) | {"db": out["db"] / len(a["dy"])}),
    ("global_avg_pool", "summed", lambda own, a: {"y": a["x"].sum((1, 2))}),
    ("global_avg_pool_backward", "not divided", lambda own, a: {"dx": own(a)["dx"] * a["x"][0, :, :, 0].size}),
    ("max_pool2d", "border of zeros", lambda own, a: {"y": np.maximum(own(a)["y"], -2)}),
    ("max_pool2d_backward", "to the last pixel", _all_maxima),
    ("softmax_cross_entropy", "summed over the batch", lambda own, a: {"loss": own(a)["loss"] * len(a["labels"])}),
    ("softmax_cross_entropy", "smoothing on the other classes only", _smoothing_on_others),
    ("softmax_cross_entropy_backward", "not divided by the batch", lambda own, a: {"dlogits": own(a)["dlogits"] * 2}),
    ("basic_block", "all values 2^-10 too low", lambda own, a: {"y": own(a)["y"] - a["x"].dtype.type(2.0**-10)}),
    ("basic_block_backward", "2 % too large", _scaled("dx", 1.02)),
    ("resnet", "bias forgotten", _with(state=lambda state: state | {"fc.bias": 0 * state["fc.bias"]})),
    ("resnet_backward", "loss averaged", _with(dlogits=lambda dlogits: dlogits / 2)),
    ("adabs", "batches weighted alike", _plain_average),
    ("map", "plus and minus swapped", lambda own, a: (out := own(a)) | {"g_us": out["g_us"][::-1]}),
    ("map", "scale from the largest weight, not the largest magnitude", lambda own, a: own(a) | _signed(own, a)),
    ("program", "sigma 2 % off", _with(z=lambda z: 1.02 * z)),
    ("program", "not clipped at 0", _no_clip("g_prog_us", "g_target_us")),
    ("drift_exponent", "sign of nu", _scaled("nu", -1.0)),
    ("drift_exponent", "sigma 2 % off", _with(z=lambda z: 1.02 * z)),
    ("drift", "t and t_0 swapped", _swapped_times),
    ("drift", "time counted from t_0 (D6)", _with(t_s=lambda t: t + 20.0)),
    ("read", "Q_s of the drifted conductance (D5)", _inputs(g_target_us=lambda a: np.minimum(a["g_drift_us"], 25.0))),
    ("read", "not clipped at 0", _no_clip("g_us", "g_drift_us")),
    ("gdc", "inverted", lambda own, a: own(a | {"g_t0_us": a["g_t_us"], "g_t_us": a["g_t0_us"]})),
    ("dac", "half away instead of half even (D22)", _with(converter=_other_ties)),
    ("adc", "one level more (D20)", _with(converter=lambda c: c | {"steps": c["steps"] + 1})),
    ("crossbar_mvm", "one ADC for all tiles", _with(tile=lambda t: [64, 64])),
    ("crossbar_mvm", "drift compensation forgotten", _with(alpha=lambda alpha: 1.0)),
    ("batch_norm", "overwrites its input", _overwritten),
    ("relu", "ends the program", lambda own, a: sys.exit(0)),
    ("linear", "NaN in one element", lambda own, a: {"y": np.where(np.arange(a["w"].shape[0]) == 0, np.nan, own(a)["y"])}),
    ("chip", "no drift compensation", _with(gdc=lambda gdc: False)),
    ("chip", "read at t_0", _with(t_s=lambda t: 20.0)),
    ("chip", "the draws of another chip", _with(seed=lambda seed: seed + 1)),
    ("inject_weight_noise", "each array its own scale", _one_scale_each),
    ("inject_weight_noise", "eta 2 % off", _with(eta=lambda e: 1.02 * e)),
    ("clip_weights", "sample standard deviation (D19)", _sample_deviation),
    ("sgd_step", "Nesterov and heavy ball swapped", _with(nesterov=lambda n: not n)),
    ("sgd_step", "no weight decay", _with(weight_decay=lambda d: 0.0)),
    ("draws", "block counters from 0", _first_block_zero),
]


def mutants() -> list[Mutant]:
    """All planted errors."""
    return [Mutant(*planted) for planted in _PLANTED] + [
        SampledMutant(op, f"sampled: {error}", spoil) for op, error, spoil in SPOILED
    ]
