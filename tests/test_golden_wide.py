"""Numbers with a bound as arrays, held to golden's numbers of 50 digits, and the expected values made on the spot with them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import pcmref
from pcmref import draws
from pcmref.golden import expected, file, text
from pcmref.golden.backends import Capabilities
from pcmref.golden.bounds import LARGEST, TINY, UNIT_ROUNDOFF
from pcmref.golden.case import Case
from pcmref.golden.check import in_dtype
from pcmref.golden.reference import Reference
from pcmref.golden.twin import TooCoarse, errors, flat, is_narrow, nearest
from pcmref.golden.twin_ops import TWINS
from pcmref.golden.verify import Golden, judge
from pcmref.golden.wide import Precision, Wide
from pcmref.strategies import convolutions, tensors

U = 2.0**-53
UNLIMITED = Precision(U, 0.0, np.inf, np.longdouble)  # the rules of the decimal numbers: no end to the range
OWN = float(np.finfo(np.longdouble).eps) / 2  # the values' own roundoff
STORED = [g.case for g in file.read() if g.case.op not in TWINS and g.law is None]


def wide(values, folds):
    is_input = isinstance(values, np.ndarray) or is_narrow(values)
    return Wide.of(values, UNLIMITED, folds, 0 if is_input else 1)


def hold_together(op, inputs, params):
    """The same values, bounds and chains of roundings from both kinds of number; TooCoarse from both or neither."""
    try:
        wanted = expected.evaluate(op, inputs, {}, params, U, lambda value: True)
    except TooCoarse:
        with pytest.raises(TooCoarse):
            text.evaluate(op, inputs, params, wide)
        return
    found = text.evaluate(op, inputs, params, wide)
    assert found.keys() == wanted.keys()
    for name, numbers in wanted.items():
        if name.startswith("kink/"):
            np.testing.assert_array_equal(found[name], numbers)
            continue
        value, error, roundings = found[name].expected()
        exact, bound = nearest(numbers), errors(numbers)
        assert (np.abs(value - exact) <= 2 * U * np.abs(exact) + OWN * bound).all()
        # `expected` adds the values' own roundoff; each bound is made of fewer than 2^20 float64 operations
        np.testing.assert_allclose(error / (1 + OWN / U), bound, rtol=2.0**-33)
        assert roundings == max([1, *(b.roundings for b in flat(numbers))])


@pytest.mark.parametrize("case", STORED, ids=lambda case: case.key)
def test_every_stored_case_has_the_bound_of_the_decimal_numbers(case):
    hold_together(case.op, case.inputs, case.params)


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


# ------------------------------------------------------------------------------------------ expected values on the spot


def spot(op, inputs, params, dtype, name="on_the_spot"):
    """A golden case of inputs rounded to the dtype."""
    inputs = {k: v.astype(float) for k, v in in_dtype(inputs, dtype).items()}
    case = Case(op, name, "a test", inputs, {}, params, dtype=dtype)
    return Golden(case, expected.on_the_spot(op, inputs, {}, params, Precision.of(dtype)))


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


def test_underflow_takes_half_a_denormal_each_rounding_or_with_flushing_the_smallest_normal_number():
    x, w = np.array([[1.5 * TINY["float32"]]]), np.array([[0.25]])  # the product is denormal: 2 roundings with the bias's sum
    inputs = {"x": x, "w": w, "b": np.zeros(1)}
    kept, flushed = (
        expected.on_the_spot("linear", inputs, {}, {}, Precision.of("float32", flush=flush))["y"].scale.item()
        for flush in (False, True)
    )
    u, size = UNIT_ROUNDOFF["float32"], 0.375 * TINY["float32"]
    assert kept == pytest.approx(2 * (size + TINY["float32"]), rel=1e-6)
    assert flushed * u == pytest.approx(2 * TINY["float32"], rel=1e-6)


def test_what_may_overflow_in_some_order_of_adding_has_no_bound():
    x, w, b = np.array([[LARGEST["float32"] / 2] * 3]), np.array([[1.0, 1.0, -1.0]]), np.zeros(1)
    with pytest.raises(TooCoarse):
        spot("linear", {"x": x, "w": w, "b": b}, {}, "float32")
    spot("linear", {"x": x / 2, "w": w, "b": b}, {}, "float32")


def test_a_maximum_that_the_bounds_do_not_decide_has_no_gradient_to_compare():
    a = Wide.of(np.array([1.0, 1.0]), Precision.of("float32"))
    assert a.argmax(0) == 0  # equal and exact: the first
    with pytest.raises(TooCoarse):
        (a * a / 3).argmax(0)
    with pytest.raises(TooCoarse):
        _ = (a * a / 3) > (a / 3)
