"""Checks for anyone's functions: each passes what is right and names what is wrong."""

import numpy as np
import pytest
from hypothesis import given
from scipy.special import ndtr

from pcmref import PCMModel, draws, strategies
from pcmref.checks import check_adjoint, check_distribution, check_gradient
from pcmref.nn import functional as F


@given(strategies.convolutions())
def test_convolution_and_its_input_gradient_are_adjoint(case):
    x, w, stride, padding = case
    dy = draws.standard_normal(0, "test/adjoint", F.conv2d_shape(x.shape, w.shape, stride, padding))
    scale = float((F.conv2d(np.abs(x), np.abs(w), stride, padding) * np.abs(dy)).sum())
    check_adjoint(
        lambda v: F.conv2d(v, w, stride, padding), lambda v: F.conv2d_backward(v, x, w, stride, padding)[0], x, dy, scale
    )


def test_a_wrong_adjoint_is_caught():
    a, x, dy = (draws.standard_normal(0, name, shape) for name, shape in (("a", (5, 4)), ("x", (4,)), ("y", (5,))))
    check_adjoint(lambda v: a @ v, lambda v: a.T @ v, x, dy)
    with pytest.raises(AssertionError, match="the bound is"):
        check_adjoint(lambda v: a @ v, lambda v: (1 + 1e-9) * (a.T @ v), x, dy)
    with pytest.raises(AssertionError, match="adjoint gives"):
        check_adjoint(lambda v: a @ v, lambda v: v, x, dy)


def test_gradients():
    x = draws.standard_normal(0, "test/gradient", (3, 4))
    labels = np.array([0, 3, 1])
    gradient = F.softmax_cross_entropy_backward(x, labels, 0.1)
    check_gradient(lambda v: F.softmax_cross_entropy(v, labels, 0.1), gradient, x)
    wrong = gradient.copy()
    wrong[0, 2] *= 1.0001
    with pytest.raises(AssertionError, match=r"gradient\[0, 2\]"):
        check_gradient(lambda v: F.softmax_cross_entropy(v, labels, 0.1), wrong, x)
    late = gradient.copy()
    late[2, 3] *= 1.001
    with pytest.raises(AssertionError, match="along direction"):
        check_gradient(lambda v: F.softmax_cross_entropy(v, labels, 0.1), late, x)
    with pytest.raises(AssertionError, match="shape"):
        check_gradient(lambda v: 0.0, gradient[0], x)


def small_against_its_terms(kind, k):
    """(function, gradient, point) where a function is near 0 and its terms are not, or are hidden."""
    w, x, c = (draws.standard_normal(k, f"test/small/{name}", (5,)) for name in ("w", "x", "c"))
    if kind == "linear near its zero":
        x = x - w * (w @ x) / (w @ w)
        return lambda z: 1000 * w @ z, 1000 * w, x
    if kind == "linear, less what it is":
        return lambda z: w @ z - 1e4 * (w @ x), w, 1e4 * x
    if kind == "a constant of 1e8 and back":
        return lambda z: float(w @ z + 1e8) - 1e8, w, x
    if kind == "a constant in each term":
        return lambda z: (w * z + 1e6 * c).sum() - 1e6 * c.sum(), w, x
    if kind == "squared error, expanded":
        a = 10 * c
        return lambda z: 0.5 * (z @ z) - a @ z + 0.5 * (a @ a), 1e-3 * x, a + 1e-3 * x
    if kind == "squared error at its optimum":
        a = draws.standard_normal(k, "test/small/a", (10, 5)) * 30
        return lambda z: 0.5 * np.square(a @ z - a @ x).sum(), a.T @ (a @ x - a @ x), x
    raise AssertionError(kind)


SMALL = (
    "linear near its zero",
    "linear, less what it is",
    "a constant of 1e8 and back",
    "a constant in each term",
    "squared error, expanded",
    "squared error at its optimum",
)


@pytest.mark.parametrize("kind", SMALL)
def test_a_right_gradient_passes_where_the_function_is_small_against_its_terms(kind):
    """And one that is 1 %, a sign or one component off does not: all of them, at 1e8 nearly all."""
    missed = 0
    for k in range(100):
        function, gradient, x = small_against_its_terms(kind, k)
        check_gradient(function, gradient, x)
        one = gradient * [1, 1, 1.01, 1, 1]
        for wrong in (1.01 * gradient, -gradient, one) if gradient.any() else (np.full(5, 1e-3),):
            try:
                check_gradient(function, wrong, x)
                missed += 1
            except AssertionError as error:
                assert "the bound is" in str(error)
    assert missed <= (10 if "1e8" in kind else 0)


def test_the_smallest_right_gradient_that_failed_and_one_beside_a_function_that_is_not_a_number():
    a = np.full(5, 1000.3)
    check_gradient(lambda z: (z - a).sum(), np.ones(5), a)
    with pytest.raises(AssertionError, match=r"^gradient along direction 0 = "):
        check_gradient(lambda z: (z - a).sum(), np.array([1, 1, 1, 1, 1.01]), a, directions=1)
    with pytest.raises(AssertionError, match="nan"):
        check_gradient(lambda z: np.nan, np.ones(5), a)
    for dtype in (np.float64, np.longdouble):
        check_gradient(lambda z: (z**3).sum(), 3 * np.square(a.astype(dtype)), a.astype(dtype))


def clipped(g, low=0.0, high=np.inf):
    """Distribution function of clip(N(.25, .5), low, high)."""
    return np.where(g < low, 0.0, np.where(g >= high, 1.0, ndtr((g - 0.25) / 0.5)))


def test_laws_with_point_masses():
    """Devices clipped at 0: a right law passes, a wrong mass or a wrong rest is said, also a mass too small for KS."""
    model, g_t = PCMModel.joshi2020(), np.full(60_000, 0.25)
    std = model.programming_std_us(0.25)
    z = draws.standard_normal(0, "test/atoms", (60_000,))

    def law(g):
        return np.where(g < 0, 0.0, ndtr((g - 0.25) / std))

    g = model.program(g_t, z)
    assert 0.15 < (g == 0).mean() < 0.25
    check_distribution(g, law, atoms=(0.0,))
    check_distribution(np.clip(0.25 + 0.5 * z, 0, 1), lambda v: clipped(v, 0, 1), atoms=(0.0, 1.0))
    check_distribution(z, ndtr, atoms=(0.0,))  # no mass, none there
    with pytest.raises(AssertionError, match="samples are 0, the law's share is 0"):
        check_distribution(np.where(abs(z) < 1e-3, 0, z), ndtr, atoms=(0.0,))
    with pytest.raises(AssertionError, match="samples are 0, the law's share is 0.188523"):
        check_distribution(np.where((g == 0) & (z < -1.2), 1e-3 * abs(z), g), law, atoms=(0.0,))
    with pytest.raises(AssertionError, match="do not follow the law"):
        check_distribution(np.where(g > 0, 1.1 * g, 0), law, atoms=(0.0,))
    with pytest.raises(AssertionError, match="do not follow the law"):
        check_distribution(g, law)


def test_a_right_law_with_atoms_fails_no_more_often_than_asked():
    """At alpha = .2 of 300: at most 84 in all but one of 3,000 runs, and not never: the test is no empty one."""
    z = draws.standard_normal(0, "test/atoms/alpha", (300, 30_000))
    failed = 0
    for row in np.clip(0.25 + 0.5 * z, 0, np.inf):
        try:
            check_distribution(row, clipped, alpha=0.2, atoms=(0.0,))
        except AssertionError:
            failed += 1
    assert 15 <= failed <= 84


def test_distributions():
    z = draws.standard_normal(0, "test/distribution", (60_000,))
    check_distribution(z, ndtr)
    with pytest.raises(AssertionError, match="do not follow the law"):
        check_distribution(1.1 * z, ndtr)
    with pytest.raises(AssertionError, match="inconclusive"):
        check_distribution(z[:1000], ndtr)
    z[17] = np.nan
    with pytest.raises(AssertionError, match=r"sample\[17\]"):
        check_distribution(z, ndtr)


def test_no_size_of_the_numbers_makes_a_check_blind_or_too_sharp():
    """Squares of 1e200 are infinite and those of 1e-200 are 0, and so was the bound: all passed, or nothing."""
    a = np.array([1.5, 0.25, -2.0])
    for scale in (1e-300, 1e-200, 1.0, 1e200, 1e300):
        check_gradient(lambda z, s=scale: s * (1.7 * (z - a)).sum(), np.full(3, 1.7 * scale), a)
        with pytest.raises(AssertionError, match="differences give"):
            check_gradient(lambda z, s=scale: s * (1.7 * (z - a)).sum(), np.full(3, 1.71 * scale), a)
        check_adjoint(lambda v: 0.3 * v, lambda v: 0.3 * v, scale * a, np.ones(3))
        with pytest.raises(AssertionError, match="the bound is"):
            check_adjoint(lambda v: 0.3 * v, lambda v: 0.31 * v, scale * a, np.ones(3))


def test_a_law_that_is_no_number_fails():
    z = draws.standard_normal(0, "test/law", (50_000,))
    for law in (lambda v: np.full(len(v), np.nan), lambda v: np.where(v > 0, np.nan, ndtr(v))):
        for atoms in ((), (0.0,)):
            with pytest.raises(AssertionError, match="do not follow the law: .* differ by nan"):
                check_distribution(z, law, atoms=atoms)
