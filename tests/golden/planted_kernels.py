"""Mistakes that real kernels have: wrong from some size on, for one parameter, in the last bits, for special values, in memory.

Each is right on much of what it is given. The table is of operations, what is wrong, how, and the dtype it is wrong in.
"""

from copy import deepcopy

import numpy as np
from numpy.lib.stride_tricks import as_strided

from pcmref.golden.mistakes import changed, cut, without
from tests.golden.planted import Mutant, half_product


def _args(change, *names):
    return lambda own, a: own(changed(a, change, names))


def _outs(change, *names):
    return lambda own, a: changed(own(a), change, names)


def _when(condition, spoil):
    """Wrong only for some arguments."""
    return lambda own, a: spoil(own, a) if condition(a) else own(a)


def _set(**values):
    """Parameters that are not what was asked for: new(all arguments)."""
    return lambda own, a: own(a | {name: new(a) for name, new in values.items()})


def _unread(axis: int, first, *names):
    return _args(without(axis, first), *names)


def _lost(axis: int, first, *names):
    return _outs(without(axis, first), *names)


def _tail(lanes: int):
    """What is left over behind the last full vector, in arrays of more than one."""
    return lambda n: n // lanes * lanes if n > lanes else n


def _few(limit: int):
    """Nothing comes of the numbers behind the first ones."""
    return _outs(lambda v: without(0, limit)(v.reshape(-1)).reshape(v.shape))


def _flushed(v):
    return np.where(np.abs(v) < np.finfo(v.dtype).tiny, v.dtype.type(0), v)


def _by_address(v):
    """Reads as if contiguous, from where the array begins."""
    return as_strided(v, strides=np.empty_like(v, order="C").strides) if min(v.strides, default=1) > 0 else v


class _Kept:
    """Something is left of the call before: `spoil(own, a, what was left, or None)` -> (results, what is left)."""

    def __init__(self, spoil):
        self.spoil, self.left = spoil, None

    def __call__(self, own, a):
        results, self.left = self.spoil(own, a, self.left)
        return results


def _added(own, a, left):
    """A buffer that is not cleared."""
    out = own(a)
    same = left is not None and all(left[k].shape == v.shape for k, v in out.items())
    out = {k: v + left[k] for k, v in out.items()} if same else out
    return out, {k: v.copy() for k, v in out.items()}


def _scratch(own, a, left):
    """Results in one buffer for all calls of a shape."""
    out = own(a)
    left = left or {}
    for name, v in out.items():
        buffer = left.setdefault((name, v.shape, v.dtype.char), np.empty_like(v))
        buffer[...] = v
    return {name: left[name, v.shape, v.dtype.char] for name, v in out.items()}, left


def _first_noise(own, a, left):
    """The noise of the first call of a shape, again and again."""
    left = left or {}
    return own(a | {"z": left.setdefault(a["z"].shape, a["z"].copy())}), left


def _races(own, a, left):
    """The last bit changes from call to call."""
    return changed(own(a), lambda v: np.nextafter(v, v.dtype.type(np.inf if left else 0))), not left


def _one_pass(own, a):
    """E[x^2] - E[x]^2."""
    x, n = a["x"], a["x"].size // a["x"].shape[3]
    mean, square = (v.sum((0, 1, 2)) / n for v in (x, x * x))
    var = np.maximum(square - mean * mean, 0).astype(x.dtype)
    y = a["weight"] * (x - mean) / np.sqrt(var + a["eps"]) + a["bias"]
    return own(a) | {"y": y.astype(x.dtype)}


def _naive_softmax(own, a):
    with np.errstate(over="ignore", invalid="ignore"):
        e = np.exp(a["logits"])
        p, n = e / e.sum(1, keepdims=True), len(e)
    right = own(a | {"logits": np.zeros_like(e)})["dlogits"]  # (1/classes - t) / n
    return {"dlogits": (right + (p - 1 / e.shape[1]) / n).astype(e.dtype)}


def _rough_root(own, a):
    """1/sqrt to 12 bits, as some machines have it, without a Newton step."""
    factor = cut(11)(1 / np.sqrt(a["var"] + a["eps"])) * a["weight"]
    return {"y": (a["x"] - a["mean"]) * factor + a["bias"]}


def _dilated(own, a):
    """A kernel of 5 or more taken for one of 3 with holes."""
    w = a["w"].copy()
    w[:, :, 1::2], w[..., 1::2] = 0, 0
    return own(a | {"w": w})


def _last_row(own, a):
    """Where the stride leaves rows over, one row too few."""
    h, k = a["x"].shape[1], a["w"].shape[2] if "w" in a else a["kernel"]
    out = own(a)
    if (h + 2 * a["padding"] - k) % a["stride"] and out["y"].shape[1] > 3:
        out["y"][:, -1] = 0
    return out


def _shared_block(own, a):
    """Every further block of a stage with the second one's weights."""
    return own(a | {"state": {k: _second_of_stage(a["state"], k) for k in a["state"]}})


def _second_of_stage(state, name):
    stage, block, *rest = name.split(".")
    return state[".".join((stage, "1", *rest)) if stage.startswith("layer") and block > "1" else name]


def _square(own, a):
    """The width taken for the height, beyond the size of a warp."""
    h, w = a["x"].shape[1:3]
    return {"y": own(a)["y"] * a["x"].dtype.type(h / w)} if h * w > 32 else own(a)


def _of_the_batch(own, a):
    """Statistics of the batch in evaluation, in batches of more than four."""
    x = a["x"]
    return own(a | {"mean": x.mean((0, 1, 2)), "var": x.var((0, 1, 2))}) if len(x) > 4 else own(a)


def _first_scale(own, a):
    return own(a) | {"scale": own(a | {"w": a["w"].reshape(-1)[:64]})["scale"]}


_PRODUCTS = "conv2d conv2d_backward linear linear_backward batch_norm basic_block_backward resnet_backward"
_NORMS = "batch_norm batch_norm_train batch_norm_backward batch_norm_train_backward"
_POOLS = "global_avg_pool max_pool2d"
_LOSS_BACK = "softmax_cross_entropy_backward"
_SINGLE = "float32"

# (operations, what is wrong, how, the dtype it is wrong in, or else float64)
_TABLE = [
    # precision
    *((_PRODUCTS, f"inputs of {n} bits", _args(cut(n)), dtype) for n in (10, 7) for dtype in ("float64", _SINGLE)),
    *(("drift program read", f"inputs of {n} bits", _args(cut(n))) for n in (10, 7)),
    ("conv2d linear batch_norm drift resnet", "computes in float32", _args(cut(23))),
    ("linear", "half-precision accumulation", lambda own, a: {"y": half_product(a["x"], a["w"]) + a["b"]}, _SINGLE),
    ("batch_norm_train", "one-pass variance", _one_pass, _SINGLE),
    ("batch_norm", "a root of 12 bits", _rough_root, _SINGLE),
    ("global_avg_pool_backward", "outputs cut", _outs(lambda v: (v.view(np.int32) & -16).view(v.dtype)), _SINGLE),
    (_LOSS_BACK, "the largest logit not subtracted", _naive_softmax, _SINGLE),
    (_LOSS_BACK, "the largest logit not subtracted", _naive_softmax),
    # sizes
    *(("conv2d linear", f"inputs beyond the last {n} lost", _unread(1, _tail(n), "w"), _SINGLE) for n in (8, 16)),
    *((f"{_POOLS} conv2d batch_norm", f"channels beyond the last {n} lost", _lost(-1, _tail(n)), _SINGLE) for n in (8, 16)),
    *(("conv2d_backward", f"channels beyond the last {n} lost", _lost(0, _tail(n), "dw"), _SINGLE) for n in (8, 16)),
    *(("conv2d", f"{n} channels at most", _unread(1, n, "w")) for n in (16, 32, 64)),
    (f"{_POOLS} conv2d linear batch_norm relu resnet", "four images at most", _lost(0, 4)),
    (f"{_LOSS_BACK} linear_backward", "four rows at most", _lost(0, 4, "dx", "dlogits")),
    ("conv2d max_pool2d", "eight rows at most", _lost(1, 8)),
    ("conv2d relu", "eight columns at most", _lost(2, 8)),
    (f"{_LOSS_BACK} linear resnet", "ten classes at most", _lost(1, 10)),
    ("softmax_cross_entropy", "labels of seven bits", _set(labels=lambda a: a["labels"] % 128)),
    ("drift read program drift_exponent", "1024 devices at most", _few(1024)),
    ("conv2d linear", "rows from the fifth on repeat the fourth", _outs(lambda v: v[np.minimum(np.arange(len(v)), 3)])),
    ("draws", "a counter of six bits", lambda own, a: (out := own(a)) | {"raw": np.resize(out["raw"][:256], a["n"])}),
    ("map", "the scale of the first 64 weights", _first_scale),
    ("clip_weights inject_weight_noise sgd_step", "256 weights at most", _few(256)),
    *(("crossbar_mvm", f"{n} rows at most", _unread(1, n, "g_us")) for n in (64, 128)),
    ("gdc", "64 rows at most", _unread(2, 64)),
    # parameters
    ("conv2d", "kernels of 5 dilated", _when(lambda a: min(a["w"].shape[2:]) >= 5, _dilated)),
    ("conv2d", "one row for stride 3, padding 1", _when(lambda a: (a["stride"], a["padding"]) == (3, 1), _lost(1, 1))),
    ("conv2d max_pool2d", "no last row where the stride leaves some over", _last_row),
    ("global_avg_pool", "height and width exchanged", _square),
    (f"{_NORMS} basic_block resnet adabs", "eps is always 1e-5", _set(eps=lambda a: 1e-5)),
    ("batch_norm_train", "momentum is always .1", _set(momentum=lambda a: 0.1)),
    ("softmax_cross_entropy", "smoothing of .1 at most", _set(smoothing=lambda a: min(a["smoothing"], 0.1))),
    ("sgd_step", "momentum is always .9", _set(momentum=lambda a: 0.9)),
    (_NORMS, "gamma taken for positive", _args(np.abs, "weight")),
    ("drift", "negative exponents taken for 0", _args(lambda v: np.maximum(v, 0), "nu")),
    ("inject_weight_noise", "always the first step's noise", _set(step=lambda a: 0)),
    ("clip_weights", "alpha of 2 at most", _set(alpha=lambda a: min(a["alpha"], 2.0))),
    ("crossbar_mvm", "negative inputs lost", _args(lambda v: np.maximum(v, 0), "x")),
    ("relu", "relu6", _outs(lambda v: np.minimum(v, 6))),
    ("max_pool2d", "a border of -1e4", _outs(lambda v: np.maximum(v, -1e4))),
    ("max_pool2d", "positive numbers lost", _outs(lambda v: np.minimum(v, 0))),
    ("map crossbar_mvm", "G_max is always 25", _set(g_max_us=lambda a: 25.0)),
    ("read drift_exponent", "G_max is always 25", _set(model=lambda a: a["model"] | {"profile": "joshi2020"})),
    ("drift read", "a year at most", _set(t_s=lambda a: min(a["t_s"], 31_536_000.0))),
    ("resnet resnet_backward adabs", "further blocks of a stage are its second", _shared_block),
    # special values
    ("conv2d linear relu", "small numbers flushed", _outs(lambda v: np.where(np.abs(v) < 1e-30, v.dtype.type(0), v)), _SINGLE),
    ("conv2d linear relu max_pool2d sgd_step", "denormals flushed, not declared", _args(_flushed), _SINGLE),
    ("relu max_pool2d linear", "NaN swallowed", _args(lambda v: np.where(np.isnan(v), 0, v))),
    ("relu_backward", "dy times a mask", lambda own, a: {"dx": a["dy"] * (a["x"] > 0)}),
    ("relu conv2d", "infinities clamped", _outs(lambda v: np.clip(v, np.finfo(v.dtype).min, np.finfo(v.dtype).max))),
    # memory
    ("conv2d_backward linear", "adds to what the call before gave", _Kept(_added)),
    ("relu program resnet", "one buffer for all results", _Kept(_scratch)),
    ("program read", "the noise of the first call", _Kept(_first_noise)),
    ("conv2d drift", "not deterministic, though declared", _Kept(_races)),
    ("max_pool2d", "gives its input back", _when(lambda a: a["kernel"] == a["stride"] == 1, lambda own, a: {"y": a["x"]})),
    ("conv2d linear drift", "contiguous inputs only", _args(_by_address)),
    ("relu batch_norm", "Fortran-ordered inputs misread", _args(lambda v: v.ravel("K").reshape(v.shape), "x")),
    ("conv2d linear", "big-endian inputs misread", _args(lambda v: v.view(v.dtype.newbyteorder("=")))),
    ("relu gdc", "writes into its inputs", _args(lambda v: np.add(v, 0, out=v))),
    ("batch_norm", "statistics of the batch, from five images on", _of_the_batch),
]


def kernel_mutants() -> list[Mutant]:
    """All of them, each with memory of its own."""
    return [Mutant(op, error, deepcopy(spoil), *dtype) for ops, error, spoil, *dtype in _TABLE for op in ops.split()]
