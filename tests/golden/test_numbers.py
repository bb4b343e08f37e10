"""Numbers with a bound: each rule by its formula, whatever carries the values, in every order of adding."""

from dataclasses import replace
from decimal import localcontext

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import pcmref
from pcmref import draws
from pcmref.golden import design, file, make
from pcmref.golden.backends import Capabilities
from pcmref.golden.case import Case
from pcmref.golden.check import check_case, in_dtype
from pcmref.golden.expected import evaluate, on_the_spot
from pcmref.golden.numbers import DIGITS, LARGEST, LIBM, TINY, UNIT_ROUNDOFF, Numbers, Precision, TooCoarse, is_narrow
from pcmref.golden.reference import Reference
from pcmref.golden.twin import IN_DECIMALS, TWINS
from pcmref.golden.verify import Golden, judge
from pcmref.nn import functional as F
from pcmref.strategies import convolutions, tensors
from tests.helpers.narrow import narrow

U = 2.0**-53
UNLIMITED = Precision(U, 0.0, np.inf, np.longdouble)  # as the decimal numbers: no end to the range
OWN = float(np.finfo(np.longdouble).eps) / 2  # the values' own roundoff
STORED = [g.case for g in file.read() if g.case.op not in IN_DECIMALS and g.law is None]
STORED = [case for case in STORED if case.op != "chip" or case.level == 1]


def hold_together(op, inputs, params, noise=None):
    """The same values, bounds and chains of roundings from both carriers; TooCoarse from both or neither."""
    try:
        wanted = evaluate(op, inputs, noise or {}, params, Precision.decimal(U, is_held=True))
    except TooCoarse:
        with pytest.raises(TooCoarse):
            evaluate(op, inputs, noise or {}, params, UNLIMITED)
        return
    found = evaluate(op, inputs, noise or {}, params, UNLIMITED)
    assert found.keys() == wanted.keys()
    for name, numbers in wanted.items():
        if name.startswith("kink/"):
            np.testing.assert_array_equal(found[name], numbers)
            continue
        (value, error, roundings), (exact, bound, chain) = found[name].expected(), numbers.expected()
        assert (np.abs(value - exact) <= 2 * U * np.abs(exact) + OWN * bound).all()
        # `expected` adds the values' own roundoff; each bound is made of fewer than 2^20 float64 operations
        np.testing.assert_allclose(error / (1 + OWN / U), bound, rtol=2.0**-33)
        assert roundings == max(chain, 1)  # a rounding of the value is one


@pytest.mark.parametrize("case", STORED, ids=lambda case: case.key)
def test_every_stored_case_has_the_bound_of_the_decimal_numbers(case):
    hold_together(case.op, case.inputs, case.params, case.noise)


def test_a_bound_that_float64_does_not_hold_is_none():
    """Found by a stranger's search: the sums over 1,284 products of large numbers had the bound infinity, and failed."""
    setting = {"o": 1, "kernel": (1, 1), "stride": 1, "padding": 0, "c": 1, "n": 214, "size": (3, 2), "fill": "large"}
    case = make.make("conv2d_backward", "large", setting, "float64")
    assert design.made(case, Reference().capabilities()) is None
    few = design.made(make.make("conv2d_backward", "large", setting | {"n": 2}, "float64"), Reference().capabilities())
    assert all(np.isfinite(e.scale).all() for e in few.expected.values())


@pytest.mark.parametrize(
    ("op", "inputs"),
    [
        ("global_avg_pool_backward", {"dy": np.ones((1, 1)), "x": np.ones((1, 65_505, 1, 1))}),  # a divisor float16 has not
        ("relu", {"x": np.array([[np.inf, 1.0]])}),
    ],
)
def test_no_bound_is_made_of_a_number_beyond_the_largest(op, inputs):
    case = Case(op, "beyond", "", {k: v.astype(np.float16) for k, v in inputs.items()}, {}, {}, dtype="float16")
    assert design.made(case, Reference().capabilities()) is None
    less = {k: v[:, :100] if v.ndim > 2 else np.nan_to_num(v, posinf=2.0) for k, v in case.inputs.items()}
    assert design.made(replace(case, inputs=less), Reference().capabilities()) is not None


@pytest.mark.parametrize("op", sorted(TWINS.keys() - set(IN_DECIMALS)))
def test_the_devices_equations_have_the_bound_of_the_decimal_numbers(op):
    few = {"devices": 17, "shape": (5, 7), "c": 3, "o": 9, "widths": (2,), "classes": 4}
    settings = [
        *design.settings(op)[: 3 if op == "chip" else 8],
        *(s for s in design.far(op) if s.get("wild") or s.get("top")),
    ]
    for setting in ({k: few.get(k, v) for k, v in setting.items()} for setting in settings):
        case = make.make(op, "both", setting, "float64")
        hold_together(op, case.inputs, case.params, case.noise)


@pytest.mark.parametrize("generated", ["inject_weight_noise/v1/beyond-float64-1", "chip/v1/cover-float64-0"])
def test_draws_of_the_backends_own_may_be_off_by_4_ulp_in_generated_cases_too(generated, monkeypatch):
    golden, plain = design.golden(generated, Reference().capabilities()), draws.standard_normal
    for ulp, status in ((3, "pass"), (1000, "fail")):
        monkeypatch.setattr(draws, "standard_normal", lambda *a, ulp=ulp: plain(*a) * (1 + ulp * 2.0**-52))
        assert check_case(Reference(), Reference().capabilities(), golden, "float64", relate=False).status == status


@settings(max_examples=15)
@given(convolutions(), st.integers(0, 99))
def test_any_convolution_and_its_gradients_have_the_bound_of_the_decimal_numbers(drawn, seed):
    x, w, stride, padding = drawn
    params = {"stride": stride, "padding": padding}
    hold_together("conv2d", {"x": x, "w": w}, params)
    dy = draws.standard_normal(seed, "dy", pcmref.nn.functional.conv2d_shape(x.shape, w.shape, stride, padding))
    hold_together("conv2d_backward", {"dy": dy, "x": x, "w": w}, params)


@settings(max_examples=15)
@given(tensors((2, 3, 2, 2)), tensors((2,), largest=2.0), st.floats(1e-6, 1e-3))
def test_any_batch_norm_has_the_bound_of_the_decimal_numbers(x, weight, eps):
    running = {"running_mean": np.zeros(2), "running_var": np.ones(2)}
    inputs = {"x": x, "weight": weight, "bias": weight} | running
    hold_together("batch_norm_train", inputs, {"eps": eps, "momentum": 0.1})
    hold_together("batch_norm_train_backward", {"dy": x[::-1], "x": x, "weight": weight}, {"eps": eps})


# ---------------------------------------------------------------------------------------------- the rules, one by one

SINGLE = 2.0**-24
DECIMAL = Precision.decimal(SINGLE)
small = st.integers(1, 255).map(lambda n: n / 32) | st.integers(-255, -1).map(lambda n: n / 32)


def decimals(values, roundings=1, folds=False):
    """Decimal numbers of float32, each rounded this often."""
    return Numbers.of(np.atleast_1d(values), DECIMAL, folds, np.asarray(roundings))


@given(st.lists(small, min_size=2, max_size=9), st.integers(0, 5))
def test_each_rule_is_its_formula(values, n):
    """Higham's model: a result of error e and size s is off by e + (s + e u) after one rounding more."""
    x, y, u = np.array(values), np.array(values[::-1]), SINGLE
    dx, dy = n * np.abs(x), 2 * np.abs(y)

    def same(found, value, error, roundings, times=1):
        value, closed = np.asarray(value), found.close()
        np.testing.assert_allclose(closed.nearest(), value, rtol=1e-13)
        np.testing.assert_allclose(closed.error, error + times * (np.abs(value) + error * u), rtol=1e-12)
        np.testing.assert_array_equal(closed.view(np.ndarray)["roundings"], roundings + times)

    def product(x, dx, y, dy):
        return np.abs(x) * dy + (np.abs(y) + dy * u) * dx

    def total(x, dx):
        k = len(x) - 1
        return sum(dx) + k / (1 - k * u) * (sum(np.abs(x)) + sum(dx) * u)

    with localcontext(prec=DIGITS):
        a, b = decimals(values, n), decimals(values[::-1], 2)
        inverse = dy / (np.abs(y) * (np.abs(y) - dy * u))
        square = product(x, dx, x, dx)
        square += x * x + square * u
        products = product(x, dx, y, dy)
        products += np.abs(x * y) + products * u
        same(a * b, x * y, product(x, dx, y, dy), n + 2)
        same(1 / b, 1 / y, inverse + np.abs(1 / y) + inverse * u, 3)  # 1 times it
        same(a / b, x / y, product(x, dx, 1 / y, inverse + np.abs(1 / y) + inverse * u), n + 3)
        same(np.sqrt(a * a), np.abs(x), square / np.abs(x), 2 * n + 1)
        same(np.exp(a), np.exp(x), np.exp(x) * dx * np.exp(dx * u), n, LIBM)
        same(np.log(a * a), np.log(x * x), square / (x * x - square * u), 2 * n + 1, LIBM)
        same(-a, -x, dx, n, 0)
        same(np.maximum(a, 0 * a - 9), x, dx, n, 0)
        same(np.minimum(a, 9), x, dx, n, 0)
        same(np.abs(a), np.abs(x), dx, n, 0)
        same(a.sum(keepdims=True), [sum(x)], total(x, dx), n + len(x) - 1, 0)
        same((a[None] @ b[:, None])[0], [sum(x * y)], total(x * y, products), n + 2 + len(x), 0)
        same(a + b, x + y, total([x, y], [dx, dy]), max(n, 2) + 1, 0)


@given(st.lists(small, min_size=1, max_size=20), small, st.randoms())
def test_the_bound_holds_for_float32_in_any_order(values, factor, random):
    def held(number, got):
        (value,), (error,) = number.close().nearest(), number.close().error
        return abs(float(got) - value) <= error * SINGLE * (1 + 1e-9)

    with localcontext(prec=DIGITS):
        tenth, x, f = decimals(0.1, folds=True), decimals(values, 0), decimals(0.3)
        summed = x.sum(keepdims=True) * tenth + 0.3
        shuffled = np.float32(random.sample(values, len(values)))
        assert held(summed, np.float32(0.1) * np.add.accumulate(shuffled)[-1] + np.float32(0.3))
        assert held(summed, np.add.accumulate(np.float32([0.3, *(np.float32(0.1) * shuffled)]))[-1])
        terms = [(x.sum(keepdims=True) * by).view(np.ndarray)["terms"][0] for by in (decimals(factor, 0), tenth)]
        assert terms == [1, len(values)]  # only what folds is multiplied into the terms
        products = (x * decimals(0.1)).sum(keepdims=True)
        assert held(products * f, (shuffled * np.float32(0.1)).sum() * np.float32(0.3))
        size, single = decimals(abs(factor), 0), np.float32(abs(factor))
        assert held(size / f, single / np.float32(0.3)) and held(size / f, single * (np.float32(1) / np.float32(0.3)))
        assert held(np.log(size * f), np.log(single * np.float32(0.3)))
        assert held(np.exp(np.log(size * f)), np.exp(np.log(single * np.float32(0.3))))
        assert held(np.sqrt(size * f), np.sqrt(single * np.float32(0.3)))


def test_the_bound_is_not_vacuous():
    """Sums of n terms: n - 1 roundings of the sum of magnitudes, and one of each product."""
    with localcontext(prec=DIGITS):
        ones = Numbers.of(np.ones(10), Precision.decimal(U))
        assert (ones * ones).sum().close().error == pytest.approx(10 + 9 * 10, rel=1e-12)
        assert (decimals(3, 0) * decimals(5, 0)).error == 15
        with pytest.raises(TooCoarse):
            Numbers.of(np.ones(200), Precision.decimal(2.0**-8)).sum().close()
        nearly = decimals(0.1) - decimals(0.1, 0)
        with pytest.raises(TooCoarse):
            _ = 1 / nearly


@pytest.mark.parametrize(("dtype", "carrier"), [("float32", np.float64), ("float64", np.longdouble)])
def test_decimals_beside_numbers_of_few_digits_are_carried_as_these(dtype, carrier):
    with localcontext(prec=DIGITS):
        third, x = decimals(1) / 3, Numbers.of(np.ones(2), Precision.of(dtype))
        for found in (x * third, third * x, np.where(np.array([False, True]), x, third)):
            assert found.value.dtype == carrier and found.value[0] == carrier(1) / 3 and found.error[0] >= third.error


@given(st.floats(-1000, 1000))
def test_narrow_numbers_are_exact_in_every_dtype(value):
    v = float(narrow(value))
    assert is_narrow(v) and float(np.float16(v)) == v
    assert not np.float32(v).view(np.uint32) & 0xFFFF
    assert abs(v - value) <= max(2.0**-8 * abs(value), 2.0**-15)


def test_is_narrow_knows_the_limits():
    assert is_narrow(np.array([255.0, 2.0**-14, 0.0, 256.0, -0.75, 2.0**15])).all()
    assert not is_narrow(np.array([257.0, 0.1, 2.0**-15, 2.0**16, np.inf, np.nan])).any()


def test_a_plain_zero_is_no_term_but_a_difference_that_happens_to_be_zero_is_not_free_of_error():
    with localcontext(prec=DIGITS):
        a = decimals(0.125)
        assert (a + 0).view(np.ndarray)["terms"] == 1 and (a * 0).view(np.ndarray)["terms"] == 0
        assert (a - a).nearest() == 0 and (a - a).close().error > 0


def test_an_undecided_maximum_keeps_the_larger_error_and_an_undecided_comparison_is_refused():
    with localcontext(prec=DIGITS):
        pair = (decimals([0.125, 0.125], np.array([1, 9])) - decimals([0.125, 0.125], 0)).close()
        error = pair.error.tolist()
        assert error[1] > error[0] > 0
        assert [p.max(0, keepdims=True).error.item() for p in (pair, pair[::-1])] == [error[1]] * 2
        assert F.relu(pair).error.tolist() == error
        with pytest.raises(TooCoarse):
            F.relu_backward(pair, F.relu(pair))
        with pytest.raises(TooCoarse):
            pair.argmax(0)
        with_border = np.pad(decimals([-2.0, -3.0], 0), 1, constant_values=-np.inf)
        top = with_border.max(0, keepdims=True)
        assert (top.value, top.error) == (-2, 0) and with_border.argmax(0) == 1


def test_what_relu_holds_back_is_a_number_and_what_it_hands_on_is_closed():
    with localcontext(prec=DIGITS):
        x = decimals([1.0, -1.0], 0)
        dx = F.relu_backward(x + x, F.relu(x))
        assert dx.view(np.ndarray)["terms"].tolist() == [1, 1] and dx.nearest().tolist() == [2.0, 0.0]
        assert (x + x).close().error == pytest.approx([2.0, 2.0], rel=1e-6)  # (|1| + |1|)/(1 - u)


# ------------------------------------------------------------------------------------------ expected values on the spot


def spot(op, inputs, params, dtype, name="on_the_spot"):
    """A golden case of inputs rounded to the dtype."""
    inputs = {k: v.astype(float) for k, v in in_dtype(inputs, dtype).items()}
    case = Case(op, name, "a test", inputs, {}, params, dtype=dtype)
    return Golden(case, on_the_spot(op, inputs, {}, params, Precision.of(dtype)))


def status(golden, results, dtype):
    return judge(golden, results, Capabilities(dtypes=(dtype,)), dtype).status


def run(golden, dtype, **changed):
    return Reference().run(golden.case.op, 1, in_dtype(golden.case.inputs, dtype) | changed, {}, golden.case.params)


def normal(*shape, scale=1.0):
    return scale * draws.standard_normal(0, "golden wide", shape)


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16"])
def test_nn_passes_on_full_precision_inputs_and_a_product_of_ten_bits_fails(dtype):
    c = 3 if dtype == "float16" else 33  # of 297 terms float16's bound says nothing
    golden = spot("conv2d", {"x": normal(3, 7, 6, c), "w": normal(5, c, 3, 3)}, {"stride": 2, "padding": 1}, dtype)
    assert status(golden, run(golden, dtype), dtype) in ("pass", "loose")
    if dtype == "float16":  # it has no more than ten bits itself
        return
    mantissa, exponent = np.frexp(golden.case.inputs["x"])
    cut = np.ldexp(np.rint(mantissa * 2**11) / 2**11, exponent).astype(dtype)  # TF32
    assert status(golden, run(golden, dtype, x=cut), dtype) == "fail"


def test_a_backend_that_flushes_small_numbers_far_above_the_denormals_fails():
    golden = spot(
        "conv2d", {"x": normal(1, 4, 4, 2, scale=1e-34), "w": normal(2, 2, 1, 1)}, {"stride": 1, "padding": 0}, "float32"
    )
    y = run(golden, "float32")["y"]
    assert status(golden, {"y": y}, "float32") in ("pass", "loose")
    assert status(golden, {"y": np.where(np.abs(y) < 1e-30, np.float32(0), y)}, "float32") == "fail"


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_underflow_takes_half_a_denormal_each_rounding_or_with_flushing_the_smallest_normal_number(dtype):
    x, w = np.array([[1.5 * TINY[dtype]]]), np.array([[0.25]])  # the product is denormal: 2 roundings with the bias's sum
    inputs = {"x": x, "w": w, "b": np.zeros(1)}
    kept, flushed = (
        on_the_spot("linear", inputs, {}, {}, Precision.of(dtype, flush=flush))["y"].scale.item() for flush in (False, True)
    )
    tiny, u = TINY[dtype], UNIT_ROUNDOFF[dtype]
    own = 2 * float(np.finfo(Precision.of(dtype).carrier).eps) / u  # what carries the values strays by it
    assert kept == pytest.approx(2 * (0.375 * tiny + tiny), rel=own + 4 * u, abs=0)
    assert flushed * u == pytest.approx(2 * tiny, rel=own + 4 * u, abs=0)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_a_factor_that_folds_may_lose_an_underflow_by_itself(dtype):
    """weight * (x - mean) / std as (weight / std) * x, weight being denormal: half a denormal of weight / std, 100 times."""
    weight = np.array([TINY[dtype] / 32 * (1 + 2.0**-10)])
    given = {"x": np.full((1, 1, 1, 1), 100.0), "weight": weight, "bias": np.zeros(1)}
    given |= {"mean": np.zeros(1), "var": np.full(1, 2.0)}
    case = Case("batch_norm", "denormal", "", given, {}, {"eps": 0.25}, dtype=dtype)

    class Folded(Reference):
        def batch_norm(self, x, weight, bias, mean, var, eps):
            return x * (weight / np.sqrt(var + var.dtype.type(eps))) + bias

    golden = design.made(case, Folded().capabilities())
    verdict = check_case(Folded(), Folded().capabilities(), golden, dtype, relate=False)
    assert verdict.status in ("pass", "loose") and verdict.times_bound > 0.2


def test_what_may_overflow_in_some_order_of_adding_has_no_bound():
    x, w, b = np.array([[LARGEST["float32"] / 2] * 3]), np.array([[1.0, 1.0, -1.0]]), np.zeros(1)
    with pytest.raises(TooCoarse):
        spot("linear", {"x": x, "w": w, "b": b}, {}, "float32")
    spot("linear", {"x": x / 2, "w": w, "b": b}, {}, "float32")


@pytest.mark.parametrize("op", ["batch_norm", "batch_norm_backward"])
@pytest.mark.parametrize(("weight", "var"), [(0.0, 0.0), (64.0, 2.0**20)], ids=["divided first", "multiplied first"])
def test_what_may_overflow_in_some_order_of_factors_has_no_bound(op, weight, var):
    """Found by a search: (x - mean) / sqrt(var + eps) * weight is infinity times 0 where weight * (x - mean) is 0."""
    a, one = np.array([LARGEST["float32"] / 2, 1.0]).reshape(2, 1, 1, 1), np.ones(1)
    inputs = {"x": a, "weight": weight * one, "mean": 0 * one, "var": var * one}
    inputs |= {"dy": a, "x": np.zeros_like(a)} if op.endswith("backward") else {"bias": one}
    with pytest.raises(TooCoarse):
        spot(op, inputs, {"eps": 0.0625}, "float32")
    spot(op, {k: v / 256 if v is a else v for k, v in inputs.items()}, {"eps": 0.0625}, "float32")


def test_what_is_computed_where_it_is_asked_for_is_written_there_alone():
    a = Numbers.of(np.array([1.0, 2.0, 3.0]), Precision.of("float32"))
    chosen = np.multiply(a, a, out=np.zeros_like(a), where=np.array([True, False, True]))
    assert chosen.nearest().tolist() == [1, 0, 9]
    with pytest.raises(TypeError):
        a.sum(where=np.array([True, False, True]))


def test_a_maximum_that_the_bounds_do_not_decide_has_no_gradient_to_compare():
    a = Numbers.of(np.array([1.0, 1.0]), Precision.of("float32"))
    assert a.argmax(0) == 0  # equal and exact: the first
    with pytest.raises(TooCoarse):
        (a * a / 3).argmax(0)
    with pytest.raises(TooCoarse):
        _ = (a * a / 3) > (a / 3)
