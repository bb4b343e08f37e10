"""The covering design and the search: what is covered, and that mistakes of real kernels are noticed."""

from itertools import combinations

import numpy as np
import pytest

from pcmref.fast.backend import Backend as Fast
from pcmref.golden import design, file, make
from pcmref.golden.backends import adapted
from pcmref.golden.bounds import in_dtype
from pcmref.golden.check import check_case
from pcmref.golden.ops import OPS
from pcmref.golden.reference import Reference
from pcmref.nn import functional as F
from tests.golden.right_backends import Blocked, Reordered

CAPABILITIES = Reference().capabilities()


def verdicts(backend, op, dtype, level=2):
    keys = design.keys([op], [dtype], level)
    made = (golden for key in keys if (golden := design.golden(key, CAPABILITIES)) is not None)
    return (check_case(backend, CAPABILITIES, golden, dtype, relate=False) for golden in made)


def is_noticed(backend, op, dtype):
    return any(v.status in ("fail", "error") for v in verdicts(backend, op, dtype))


# ------------------------------------------------------------------------------------------------------------ the design


@pytest.mark.parametrize("op", OPS)
def test_every_pair_of_levels_that_fits_occurs(op):
    levels, settings = design.levels(op), design.settings(op)
    covered = {pair for s in settings for pair in combinations(s.items(), 2)}
    assert all(s.keys() == levels.keys() and design.fits(op, s) for s in settings)
    assert design.settings(op, 6) == settings[:6]
    for a, b in combinations(levels, 2):
        for pair in [((a, x), (b, y)) for x in levels[a] for y in levels[b]]:
            if {a, b} == design.APART or pair in covered:
                continue
            others = [f for f in levels if f not in (a, b)]
            picks = np.random.default_rng(0).integers(0, 10**6, (200, len(others)))
            tried = ({f: levels[f][n % len(levels[f])] for f, n in zip(others, row, strict=True)} for row in picks)
            assert not any(design.fits(op, dict(pair) | other) for other in tried), pair


def test_the_design_reaches_what_kernels_get_wrong():
    conv = design.levels("conv2d")
    assert {2**k + d for k in range(1, 8) for d in (-1, 0, 1)} <= {*conv["c"]} and max(conv["c"]) == 130
    assert {k for kernel in conv["kernel"] for k in kernel} == {*range(1, 8)} and any(a != b for a, b in conv["kernel"])
    assert conv["stride"] == (1, 2, 3, 4) and conv["padding"] == tuple(range(7)) and conv["n"] == (1, 2, 3, 5, 17, 64)
    assert all(h != w for h, w in conv["size"]) and max(min(size) for size in conv["size"]) > 8
    assert max(design.levels("linear")["o"]) == 1000 and max(design.levels("read")["devices"]) == 10**6
    assert max(design.levels("read")["t_s"]) >= 30 * 365 * 86_400 and min(design.levels("read")["t_s"]) == 20.0


def test_beyond_the_design_each_range_goes_on():
    """Every operation has settings there, of factors that it has, from level 2 on."""
    for op in OPS:
        assert design.far(op) and all(s.keys() >= design.levels(op).keys() for s in design.far(op)), op
        keys = design.keys([op], OPS[op].dtypes[:1], 2)
        assert sum("beyond" in key for key in keys) == len(design.far(op)) and not any(
            "beyond" in k for k in design.keys([op], OPS[op].dtypes, 1)
        )
        assert all(s.keys() <= design.levels(op, True).keys() for s in design.far(op)), op

    def reach(op, factor):
        return max(s[factor] for s in design.far(op))

    assert reach("linear", "c") > 4096 and reach("conv2d", "c") > 2048 and reach("conv2d", "o") > 2048
    assert reach("softmax_cross_entropy", "n") > 1024 and reach("relu", "n") > 128 and reach("draws", "n") > 2048
    assert any(s["n"] >= 4 * s["batch_size"] for s in design.far("adabs")) and reach("resnet", "widths") == (65,)
    assert any(s["c"] * s["o"] > 1024 and s["g_max_us"] != 25 for s in design.far("gdc")) and reach("dac", "steps") > 2**15
    assert all(s["c"] * s["o"] > 2**16 for s in design.far("gdc")[-4:]) and reach("chip", "c") * 9 > 2**11
    assert any(9 * s["widths"][0] ** 2 > 2**14 for s in design.far("chip"))


def test_wild_cases_have_many_magnitudes_and_a_gamma_of_0():
    def case(op, **setting):
        first = next(s for s in design.far(op) if s.get("wild"))
        return make.make(op, "wild", first | setting, "float32")

    a = case("batch_norm_train_backward").inputs
    spread = np.log2(a["x"].std((0, 1, 2)))
    assert (a["weight"] == 0).any() and np.ptp(spread) > 40
    g = case("read").inputs["g_target_us"]
    assert g.max() / g[g > 0].min() > 1e4
    flat = case("gdc", read_out="one-hot").inputs["g_t_us"]
    assert np.array_equal(flat[0], flat[1])


def test_a_case_is_the_same_for_ever_and_holds_numbers_of_its_dtype():
    for key in (
        "conv2d/v1/cover-float32-7",
        "read/v1/cover-float64-3",
        "batch_norm/v1/cover-bfloat16-5",
        "linear/v1/cover-float16-2",
        "sgd_step/v1/beyond-float32-1",
    ):
        one, again = (design.golden(key, CAPABILITIES) for _ in range(2))
        assert one.case.key == key and design.is_key(key)
        for name, value in one.case.inputs.items():
            assert value.tobytes() == again.case.inputs[name].tobytes()
            np.testing.assert_array_equal(in_dtype({"": value}, one.case.dtype)[""], value)
    assert not design.is_key("conv2d/v1/cover-float32-9999") and not design.is_key("conv2d/v1/3x3")
    full = design.golden("conv2d/v1/joshi32-float32-0", CAPABILITIES).case.inputs["x"]
    assert np.any(full != full.astype(np.float16))  # more bits than half precision has


def test_of_many_devices_each_has_the_value_of_its_like():
    setting = {"profile": "joshi2020", "devices": 1000, "t_s": 3600.0}
    golden = design.made(make.make("read", "many", setting, "float64"), CAPABILITIES)
    again = Reference().run("read", 1, golden.case.inputs, golden.case.noise, golden.case.params)["g_us"]
    assert golden.expected["g_us"].value.shape == (1000,) and len(np.unique(golden.expected["g_us"].value)) <= make.POOL
    np.testing.assert_allclose(golden.expected["g_us"].value, again, rtol=1e-13)


# ------------------------------------------------------------------------------------------ right ones pass, wrong ones fail


@pytest.mark.parametrize("devices", [7, make.POOL + 1, 3 * make.POOL - 1])
@pytest.mark.parametrize("op", [op for op in OPS if make.is_pooled(op)])
def test_of_many_devices_most_of_which_are_0_too(op, devices):
    setting = design.settings(op)[0] | {"devices": devices}
    golden = design.made(make.sparse(make.make(op, "fuzz-float64", setting, "float64"), 3, False), CAPABILITIES)
    largest = max(golden.case.inputs.values(), key=np.size)
    assert 0 < np.count_nonzero(largest[: make.POOL]) <= 3
    assert check_case(Reference(), CAPABILITIES, golden, "float64", relate=False).status == "pass"


@pytest.mark.parametrize(
    "op", ["conv2d", "conv2d_backward", "batch_norm_train_backward", "linear", "softmax_cross_entropy", "sgd_step"]
)
@pytest.mark.parametrize("backend", [Reference(), Reordered(), Blocked(), adapted(Fast())], ids=lambda b: b.name)
def test_right_backends_pass(backend, op):
    if hasattr(backend, op):
        for dtype in ("float64", "float32"):
            assert [v for v in verdicts(backend, op, dtype, level=1) if v.status in ("fail", "error")] == []


class Folded(Reference):
    """The decay folded into the weight, as many optimisers have it."""

    def sgd_step(self, w, grad, learning_rate, momentum, weight_decay, nesterov, velocity=None):
        t = w.dtype.newbyteorder("=").type
        _, v = super().sgd_step(w, grad, learning_rate, momentum, weight_decay, nesterov, velocity)
        pushed = t(momentum) * v if nesterov else 0 if velocity is None else t(momentum) * velocity
        decay = t(1) - t(learning_rate) * t(weight_decay) if w.ndim > 1 else t(1)
        return w * decay - t(learning_rate) * (grad + pushed), v


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_a_decay_folded_into_the_weight_is_right_and_one_of_few_bits_is_not(dtype):
    """1 - learning_rate * weight_decay is rounded, and multiplied with: two roundings of w that the equation has not."""
    found = list(verdicts(Folded(), "sgd_step", dtype))
    assert {v.status for v in found} == {"pass"} and max(v.times_bound for v in found) > 0.3
    stored = [check_case(Folded(), CAPABILITIES, g, dtype) for g in file.read() if g.case.op == "sgd_step"]
    assert {v.status for v in stored} == {"pass"}

    class Coarse(Reference):
        def sgd_step(self, w, **a):
            return super().sgd_step(w=w * (1 + 8 * np.finfo(w.dtype).eps), **a)

    assert is_noticed(Coarse(), "sgd_step", dtype)


def cut(x, bits):
    mantissa, exponent = np.frexp(x)
    return np.ldexp(np.rint(mantissa * 2.0**bits) / 2.0**bits, exponent).astype(x.dtype)


class Wrong(Reference):
    """pcmref's backend, but for one operation: wrong(own, arguments)."""

    def __init__(self, op, wrong):
        self.op, self.wrong = op, wrong

    def call(self, op, arguments):
        own = lambda a: super(Wrong, self).call(op, a)  # noqa: E731
        return self.wrong(own, arguments) if op == self.op else own(arguments)


def _tail(own, a):
    out = own(a)
    y = out["y"].copy()
    y[..., y.shape[-1] // 8 * 8 :] *= y.dtype.type(1.001)
    return {"y": y}


def _when(condition, factor=1.001):
    def wrong(own, a):
        out = own(a)
        return {k: v * v.dtype.type(factor) if condition(a) else v for k, v in out.items()}

    return wrong


def _flush(own, a):
    return {k: np.where(np.abs(v) < 1e-30, v.dtype.type(0), v) for k, v in own(a).items()}


def _largest_of_32(a):
    logits = a["logits"].astype(a["logits"].dtype.newbyteorder("="))
    with np.errstate(all="ignore"):
        shifted = logits - logits[:, :32].max(1, keepdims=True)
        log_p = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
        return {"loss": -(F._targets(logits, a["labels"], a["smoothing"]) * log_p).mean(0).sum()}


def _largest_of_blocks(own, a):
    whole = np.ravel(a["w"])[: max(np.size(a["w"]) // 4096, 1) * 4096]
    return own(a) | {"scale": np.float64(a["g_max_us"] / np.abs(whole).max(initial=0)) if whole.any() else np.float64(1)}


def _sorted_by(dtype, out):
    return out | {"permutation": np.argsort(out["uniform"].astype(dtype), kind="stable")}


def _takes_the_fast_path(a):
    (_, channels, *kernel), width = a["w"].shape, a["x"].shape[2]
    return kernel == [3, 3] and (a["stride"], a["padding"]) == (2, 1) and channels % 16 == 0 and width % 4 == 2


def _wrapped(words, out):
    return out | {"raw": out["raw"][np.arange(len(out["raw"])) % words]}


MISTAKES = {
    "TF32 products": ("conv2d", "float32", lambda own, a: own(a | {"x": cut(a["x"], 11), "w": cut(a["w"], 11)})),
    "bfloat16 products": ("linear", "float32", lambda own, a: own(a | {"x": cut(a["x"], 8)})),
    "TF32 in float64": ("conv2d_backward", "float64", lambda own, a: own(a | {"dy": cut(a["dy"], 11)})),
    "float32 in float64": ("batch_norm", "float64", lambda own, a: own(a | {"x": a["x"].astype("f").astype(float)})),
    "ten bits in drift": ("drift", "float64", lambda own, a: own(a | {"nu": cut(a["nu"], 11)})),
    "ten bits in read": ("read", "float64", lambda own, a: own(a | {"z": cut(a["z"], 11)})),
    "the vector's tail": ("conv2d", "float32", _tail),
    "above 16 channels": ("batch_norm", "float32", _when(lambda a: a["x"].shape[3] > 16)),
    "more than 4 images": ("conv2d", "float32", _when(lambda a: len(a["x"]) > 4)),
    "beyond 8x8": ("max_pool2d", "float32", _when(lambda a: min(a["x"].shape[1:3]) > 8)),
    "one kernel size": ("conv2d", "float32", _when(lambda a: a["w"].shape[2:] == (5, 5))),
    "one stride with one padding": ("conv2d", "float32", _when(lambda a: (a["stride"], a["padding"]) == (3, 4))),
    "above ten classes": ("softmax_cross_entropy", "float32", _when(lambda a: a["logits"].shape[1] > 10)),
    "many devices": ("program", "float64", _when(lambda a: a["g_target_us"].size > 5000)),
    "many numbers": ("relu", "float32", _when(lambda a: a["x"].size > 65_536)),
    "many pixels": ("global_avg_pool", "float32", _when(lambda a: a["x"][0, :, :, 0].size > 256)),
    "many weights": ("sgd_step", "float32", _when(lambda a: a["w"].size > 1024)),
    "draws beyond 4": ("program", "float64", lambda own, a: own(a | {"z": np.clip(a["z"], -4, 4)})),
    "times in float32": ("drift", "float64", lambda own, a: own(a | {"t_s": float(np.float32(a["t_s"]))})),
    "beyond a year": ("drift", "float64", _when(lambda a: a["t_s"] > 4e7)),
    "a grid that ends": ("sgd_step", "float32", _when(lambda a: a["w"].size > 66_000)),
    "the largest of one warp": ("softmax_cross_entropy", "float32", lambda own, a: _largest_of_32(a)),
    "the largest of whole blocks": ("map", "float64", lambda own, a: _largest_of_blocks(own, a)),
    "faint inputs": ("crossbar_mvm", "float64", _when(lambda a: np.abs(a["x"]).max() < 1e-6)),
    "keys in float32": ("draws", "float64", lambda own, a: _sorted_by(np.float32, own(a))),
    "small numbers flushed": ("conv2d", "float32", _flush),
    "negative gamma": ("batch_norm", "float32", lambda own, a: own(a | {"weight": np.abs(a["weight"])})),
    "eps of its own": ("batch_norm_train", "float32", lambda own, a: own(a | {"eps": 1e-5})),
    "one block of inputs": ("linear", "float32", lambda own, a: own(a | {"x": a["x"][:, :512], "w": a["w"][:, :512]})),
    "images of the first block": ("linear", "float32", lambda own, a: own(a | {"x": a["x"][np.arange(len(a["x"])) % 64]})),
    "a step held below 1": ("sgd_step", "float32", lambda own, a: own(a | {"learning_rate": min(a["learning_rate"], 1.0)})),
    "alpha in float32": ("clip_weights", "float64", lambda own, a: own(a | {"alpha": float(np.float32(a["alpha"]))})),
    "currents of many devices": ("gdc", "float64", _when(lambda a: a["g_t_us"].size > 2**16)),
    "a chip's wide crossbar": (
        "chip",
        "float64",
        _when(lambda a: max(v.size for v in a["state"].values()) > 2**14),
    ),
    "a chip after years": ("chip", "float64", _when(lambda a: a["t_s"] > 6e7)),
    "images of more than 8x8 in the end": ("resnet", "float32", _when(lambda a: a["x"].shape[1] > 32)),
    "one alpha for all columns": ("crossbar_mvm", "float64", lambda own, a: own(a | {"alpha": np.ravel(a["alpha"])[0]})),
    "a fast path's odd last column": ("conv2d", "float32", _when(_takes_the_fast_path)),
    "images in fours": ("linear", "float32", _when(lambda a: len(a["x"]) > 16 and len(a["x"]) % 4 > 1)),
    "a stream that begins again": ("draws", "float64", lambda own, a: _wrapped(4096, own(a))),
    "no momentum": ("sgd_step", "float32", _when(lambda a: a["momentum"] == 0)),
    "windows of one kind": ("max_pool2d", "float32", _when(lambda a: (a["kernel"], a["stride"], a["padding"]) == (3, 2, 0))),
    "G_max of its own": ("program", "float64", lambda own, a: own(a | {"model": a["model"] | {"g_max_us": 25.0}})),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_of_real_kernels_is_noticed(mistake):
    op, dtype, wrong = MISTAKES[mistake]
    assert is_noticed(Wrong(op, wrong), op, dtype)
