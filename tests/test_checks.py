"""Checks for anyone's functions: each passes what is right and names what is wrong."""

import numpy as np
import pytest
from hypothesis import given
from scipy.special import ndtr

from pcmref import draws, strategies
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
