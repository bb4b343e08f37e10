"""Tolerances: the formula, its precisions, Winograd's, and that correct arithmetic of every kind stays inside."""

from dataclasses import replace

import numpy as np
import pytest

from pcmref.golden import Capabilities, Reference, design, special
from pcmref.golden.bounds import STORAGE, accumulation_roundoff, is_representable, tolerance
from pcmref.golden.case import Case
from pcmref.golden.check import check_case, in_dtype
from pcmref.golden.expected import on_the_spot
from pcmref.golden.file import make
from pcmref.golden.numbers import LARGEST, UNIT_ROUNDOFF, Precision, TooCoarse
from pcmref.golden.ops import OPS
from pcmref.golden.verify import judge
from pcmref.nn import functional as F
from tests.golden.right_backends import Fourier, Winograd
from tests.helpers.narrow import narrow, normal


def test_the_formula():
    value, scale, case = np.array([3.0, 0.0]), np.array([10.0, 10.0]), Case("conv2d", "", "", {}, {}, {})
    t = tolerance(case, "y", value, scale, 64, Capabilities(accumulate_dtype="float32"), "bfloat16")
    assert t.fail == pytest.approx(10 * 2.0**-24 + (2.0**-8 + 2.0**-53) * value + 2.0**-126, rel=1e-15)
    assert t.loose == pytest.approx(0.5 * 10 * 2.0**-24 + (2.0**-8 + 2.0**-53) * value + 2.0**-126, rel=1e-15)
    for op, factor in (("softmax_cross_entropy", 2), ("conv2d", 1)):  # a convolution takes no exponentials
        wide = tolerance(replace(case, op=op), "loss", value, scale, 64, Capabilities(libm_ulp=4.0), "float64")
        assert wide.fail[1] == pytest.approx(factor * 10 * 2.0**-53, rel=1e-12)


def test_the_bounds_of_transforms_are_normwise():
    inputs = {"dy": np.full((1, 4, 4, 1), 0.5), "x": np.full((1, 4, 4, 1), -3.0), "w": np.full((1, 1, 3, 3), 2.0)}
    case, none = Case("conv2d_backward", "", "", inputs, {}, {"stride": 1, "padding": 1}), np.zeros((1, 4, 4, 1))

    def bound(algorithm, output, case=case):
        return tolerance(case, output, none, none, 9, Capabilities(conv_algorithm=algorithm), "float64").fail.max() * 2.0**53

    products = {"y": 6.0, "dx": 1.0, "dw": 1.5}
    for algorithm, growths in (("winograd F(2,3)", (81, 81, 64)), ("winograd F(4,3)", (36_100, 36_100, 62_500))):
        for (output, product), growth in zip(products.items(), growths, strict=True):
            assert bound(algorithm, output) == pytest.approx(growth * 9 * product, rel=1e-12)
    lost = 21 * np.log2(4 * 9 * 9) + 6 + 9
    norms = {"y": 12 * 18, "dx": 2 * 18, "dw": 2 * 48}  # sqrt(16) 3 and 9 * 2; sqrt(16) / 2; 16 * 3
    assert {k: bound("fft", k) for k in norms} == pytest.approx({k: lost * n for k, n in norms.items()}, rel=1e-12)
    strided = replace(case, params={"stride": 2, "padding": 1})
    assert bound("winograd F(2,3)", "y", strided) < 1 and bound("fft", "y", strided) == bound("fft", "y")


def test_precision_is_that_of_the_sums_and_between_layers_that_of_storage():
    mixed = Capabilities(accumulate_dtype="float32")
    assert accumulation_roundoff("conv2d", mixed, "bfloat16") == 2.0**-24
    assert accumulation_roundoff("basic_block", mixed, "bfloat16") == 2.0**-8
    by_op = Capabilities(accumulate_dtype={"conv2d": "float32"})
    assert accumulation_roundoff("conv2d", by_op, "float16") == 2.0**-24
    assert accumulation_roundoff("linear", by_op, "float16") == 2.0**-11


def test_representable():
    assert is_representable(np.float32([1.0, 1.0078125]), "bfloat16")
    assert not is_representable(np.float32([1.001]), "bfloat16") and not is_representable(np.ones(1), "float32")
    assert {d: np.finfo(STORAGE[d]).eps / 2 for d in ("float64", "float32", "float16")}.items() <= UNIT_ROUNDOFF.items()


def test_bfloat16_rounds_to_nearest_even():
    got = in_dtype({"x": np.array([1 + 2.0**-9, 1 + 3 * 2.0**-9, 1 + 2.0**-8, -0.1])}, "bfloat16")["x"]
    assert got.tolist() == [1.0, 1.0078125, 1.0, -0.10009765625]
    assert is_representable(got, "bfloat16")


class WinogradCalledDirect(Winograd):
    def capabilities(self):
        return replace(super().capabilities(), conv_algorithm="direct")


def test_winograd_needs_to_be_declared():
    """The kernel's middle row is 0: a sum never meets the large pixels under it, a transform adds and subtracts them."""
    x, w = normal("test/winograd/x", 1, 6, 6, 2) * 2.0**-6, normal("test/winograd/w", 3, 2, 3, 3)
    x[:, 1::2], w[:, :, 1] = normal("test/winograd/large", 1, 3, 6, 2) * 128, 0
    golden = make(Case("conv2d", "winograd", "", {"x": narrow(x), "w": w}, {}, {"stride": 1, "padding": 0}))
    declared, hidden = Winograd(), WinogradCalledDirect()
    assert check_case(declared, declared.capabilities(), golden, "float32").status in ("pass", "loose")
    assert check_case(hidden, hidden.capabilities(), golden, "float32").status == "fail"


def test_a_block_of_transforms_may_leave_its_bound_by_their_growth_and_no_more():
    """Its bound is that of sums: outside by less than the growth is inconclusive, by more, or without a transform, wrong."""
    golden = design.golden("basic_block/v1/cover-float64-0", Capabilities())
    e = golden.expected["y"]
    capabilities = {name: Capabilities(conv_algorithm=name) for name in ("direct", "winograd F(2,3)", "fft")}
    for off, statuses in ((50, "fail inconclusive inconclusive"), (200, "fail fail inconclusive"), (1000, "fail fail fail")):
        results = {"y": e.value + off * e.scale * 2.0**-53}
        assert [judge(golden, results, of, "float64").status for of in capabilities.values()] == statuses.split(), off


def test_no_case_judges_a_transform_that_may_overflow_on_its_way():
    """conv2d's terms stay in the range one by one; a transform adds up a whole image first."""
    x = np.zeros((1, 40, 40, 1)) + LARGEST["float32"] / 64
    case = Case("conv2d", "large", "", {"x": x, "w": np.ones((1, 1, 1, 1))}, {}, {"stride": 1, "padding": 0}, dtype="float32")
    assert design.made(case, Capabilities(dtypes=("float32",))) is not None
    assert design.made(case, Fourier().capabilities()) is None


def test_denormals_in_a_convolution_are_judged_where_it_is_direct():
    def denormal(capabilities):
        return {g.case.op for g in special.cases(capabilities) if g.case.name == "denormal"}

    direct = denormal(Capabilities(dtypes=("float32",)))
    assert direct - denormal(Capabilities(dtypes=("float32",), conv_algorithm="fft")) == {"conv2d", "conv2d_backward"}


def test_half_precision_sums_are_judged_by_their_own_precision():
    class Half(Reference):
        def capabilities(self):
            return Capabilities(dtypes=("float32",), accumulate_dtype="float16")

        def linear(self, x, w, b):
            y = np.zeros((len(x), len(w)), np.float16)
            for c in range(x.shape[1]):
                y += np.float16(x[:, c, None]) * np.float16(w[:, c])
            return (y + np.float16(b)).astype(np.float32)

    x, w, b = normal("test/half/x", 2, 9), normal("test/half/w", 3, 9), normal("test/half/b", 3)
    golden = make(Case("linear", "half", "", {"x": x, "w": w, "b": b}))
    assert check_case(Half(), Half().capabilities(), golden, "float32").status in ("pass", "loose")
    assert check_case(Half(), Capabilities(dtypes=("float32",)), golden, "float32").status == "fail"


@pytest.mark.parametrize("seed", range(12))
def test_correct_float32_stays_inside_in_any_order(seed):
    """Fresh inputs: forwards in two orders, and the share of the bound that correct sums use."""
    x, w = normal("test/any/x", 1, 5, 4, 6, seed=seed), normal("test/any/w", 2, 6, 3, 3, seed=seed)
    golden = make(Case("conv2d", "any", "", {"x": x, "w": w}, {}, {"stride": 1, "padding": 1}))
    e = golden.expected["y"]
    for order in (slice(None), slice(None, None, -1)):
        got = F.conv2d(np.float32(x)[..., order], np.float32(w)[:, order], 1, 1)
        assert (np.abs(got - e.value) <= 0.3 * e.scale * 2.0**-24).all()


@pytest.mark.parametrize("op", ["batch_norm", "batch_norm_backward", "batch_norm_train", "batch_norm_train_backward"])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_a_scale_that_may_overflow_by_itself_has_no_bound(op, dtype):
    """weight / sqrt(var + eps) is four times the weight: a backend that forms it first has infinity, though nn's y is small."""
    small, one = np.array([-(2.0**-8), 2.0**-8]).reshape(2, 1, 1, 1), np.ones(1)
    inputs = {"x": small, "weight": one, "mean": 0 * one, "var": 0 * one, "bias": one, "dy": small}
    inputs |= {"running_mean": one, "running_var": one}
    inputs = {name: inputs[name] for name in (key.split(" ")[0] for key in OPS[op].inputs)}
    params = {name: {"eps": 0.0625, "momentum": 0.125}[name] for name in OPS[op].params}
    with pytest.raises(TooCoarse):
        on_the_spot(op, inputs | {"weight": LARGEST[dtype] / 2 * one}, {}, params, Precision.of(dtype))
    on_the_spot(op, inputs | {"weight": LARGEST[dtype] / 8 * one}, {}, params, Precision.of(dtype))
