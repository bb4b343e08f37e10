"""Sums and counts of more than a dtype holds, and of no images at all: each function of the network, in every dtype."""

import numpy as np
import pytest

import pcmref
from pcmref import draws
from pcmref.errors import PcmrefError, ShapeError
from pcmref.fast import functional as fast
from pcmref.fast.backend import Backend
from pcmref.nn import functional as F

HALF = np.float16
ONE, ZERO = np.ones(1, HALF), np.zeros(1, HALF)


def ones(*shape, dtype=HALF):
    return np.ones(shape, dtype)


def test_sums_over_more_pixels_than_float16_counts():
    """A channel of 70,000 values, half of them -1: mean 0, variance 1, to the bit."""
    x = np.where(np.arange(70_000) % 2, 1, -1).astype(HALF).reshape(70, 20, 50, 1)
    mean, var = F.batch_statistics(x)
    assert (mean, var) == (0, 1)
    y, _, _ = F.batch_norm_train(x, ONE, ZERO, eps=0.0)
    assert np.array_equal(y, x)
    running_mean, running_var = F.running_statistics(ZERO, ZERO, mean + 8, var, 70_000, momentum=0.5)
    assert (running_mean, running_var) == (4, 0.5)  # but for 1/140,000, which float16 does not hold
    with np.errstate(over="ignore"):
        dx, dweight, dbias = F.batch_norm_train_backward(ones(*x.shape), x, ONE, mean, var, eps=0.0)
    assert not dx.any() and dweight == 0 and dbias == np.inf  # 70,000 is none of float16's numbers, its mean is


def test_gradients_that_are_sums_of_ones():
    x = np.where(np.arange(32_768) % 2, 1, -1).astype(HALF).reshape(8, 64, 64, 1)
    assert F.batch_norm_train_backward(ones(*x.shape), x, ONE, ZERO, ONE, eps=0.0)[2] == 32_768
    assert F.batch_norm_backward(ones(*x.shape), x, ONE, ZERO, ONE, eps=0.0)[2] == 32_768
    dx, dw, db = F.linear_backward(ones(32_768, 2), ones(32_768, 3), ones(2, 3))
    assert (dx == 2).all() and (dw == 32_768).all() and (db == 32_768).all()
    dx, dw = F.conv2d_backward(ones(8, 64, 64, 1), ones(8, 64, 64, 1), ones(1, 1, 1, 1))
    assert (dx == 1).all() and dw == 32_768


def test_sums_of_more_values_than_float32_counts():
    """20,000,000 values a channel: ones added up one after the other in float32 stay at 2^24."""
    assert (F.batch_statistics(np.broadcast_to(np.float32(1), (20_000, 1, 1000, 2)))[0] == 1).all()


def test_squares_and_products_beyond_float16():
    """One value of 3,000 among 9,999 zeros has a variance of about 900; its square is no number of float16."""
    x = np.zeros((1, 100, 100, 1), HALF)
    x[0, 0, 0, 0] = 3000
    exact = x.astype(float)
    assert F.batch_statistics(x)[1] == exact.var().astype(HALF)
    assert F.batch_norm(ones(1, 1, 1, 1) * HALF(1000), 100 * ONE, ZERO, ZERO, HALF(10_000) * ONE, eps=0.0) == 1000
    assert F.max_pool2d_backward(ones(1, 50, 50, 1) * HALF(30_000), x, 2, 2).max() == 30_000
    dy = np.array([40_000, 40_000, -40_000], HALF).reshape(1, 1, 3, 1)
    with np.errstate(over="ignore"):
        dx, _ = F.conv2d_backward(dy, ones(1, 1, 5, 1), ones(1, 1, 1, 3))
    assert dx.ravel().tolist() == [40_000, np.inf, 40_000, 0, -40_000]  # 40,000 is 80,000 on the way


@pytest.mark.parametrize("dtype", [HALF, np.float32])
@pytest.mark.parametrize("n", [40_000, 70_000])
def test_the_loss_of_many_images(dtype, n):
    """The wrong class of two leads by 8: a loss of log(1 + e^8) for each, 320,000 and more for all."""
    labels, p = np.arange(n) % 2, 1 / (1 + np.exp(-8))
    is_label = np.arange(2) == labels[:, None]
    assert F.softmax_cross_entropy(np.where(is_label, 0, 8).astype(dtype), labels) == dtype(np.log1p(np.exp(8)))
    gradient = F.softmax_cross_entropy_backward(np.where(is_label, 0, 8).astype(dtype), labels)
    assert np.array_equal(gradient, np.where(is_label, -p / n, p / n).astype(dtype)) and gradient.all()


@pytest.mark.parametrize("dtype", [HALF, np.float32, np.float64])
def test_pooling_of_more_pixels_than_float16_counts(dtype):
    x = np.broadcast_to(dtype(3), (1, 256, 256, 2))
    assert (F.global_avg_pool(x) == 3).all()
    dx = F.global_avg_pool_backward(np.full((1, 2), 65_504, dtype), x.shape)
    assert (dx == dtype(65_504 / 65_536)).all() and dx.dtype == dtype


@pytest.mark.parametrize("engine", ["fast", "plain"])
def test_a_network_in_float16_is_that_of_float32_but_for_its_roundings(engine):
    """AdaBS over 72,000 values a channel is near that of float32; logits and gradients are finite, and float16."""
    net = pcmref.ResNet(1, 3, (2,), (1,))
    state, x = net.init(0), draws.standard_normal(0, "test/float16", (20, 60, 60, 1)).astype(HALF)
    half = {name: value.astype(HALF) for name, value in state.items()}
    new, wide = (pcmref.adabs(net, s, images, engine=engine) for s, images in ((half, x), (state, x.astype(np.float32))))
    for name in state:
        assert new[name].dtype == HALF and np.allclose(new[name], wide[name], rtol=0.01, atol=0.01), name
    logits, tape = net.forward(half, x, train=True, engine=engine)
    grads = net.backward(half, tape, np.ones_like(logits))
    assert logits.dtype == HALF and {g.dtype for g in grads.values()} == {np.dtype(HALF)}
    assert all(np.isfinite(g).all() for g in grads.values()) and (grads["fc.bias"] == 20).all()
    evaluated = net.forward(half, x, engine=engine)
    assert np.array_equal(evaluated, net.forward(half, x, engine="plain")) and evaluated.dtype == HALF


def test_a_loss_of_zero_has_no_sign():
    for logits in (np.zeros((2, 1)), np.array([[0.0, -1e5]])):
        loss = F.softmax_cross_entropy(logits, [0] * len(logits))
        assert loss == 0 and not np.signbit(loss)


# ------------------------------------------------------------------------------------------------------ no images

NO_X, W, C = np.zeros((0, 4, 4, 2)), np.ones((3, 2, 3, 3)), np.ones(2)
EMPTY = {
    "conv2d": lambda: (F.conv2d(NO_X, W, 1, 1), (0, 4, 4, 3)),
    "conv2d_backward": lambda: (F.conv2d_backward(np.zeros((0, 2, 2, 3)), NO_X, W, 2, 1), (0, 4, 4, 2), (3, 2, 3, 3)),
    "batch_norm": lambda: (F.batch_norm(NO_X, C, C, C, C), (0, 4, 4, 2)),
    "batch_norm_backward": lambda: (F.batch_norm_backward(NO_X, NO_X, C, C, C), (0, 4, 4, 2), (2,), (2,)),
    "relu": lambda: (F.relu(NO_X), (0, 4, 4, 2)),
    "relu_backward": lambda: (F.relu_backward(NO_X, NO_X), (0, 4, 4, 2)),
    "linear": lambda: (F.linear(np.zeros((0, 2)), np.ones((3, 2)), np.ones(3)), (0, 3)),
    "linear_backward": lambda: (
        F.linear_backward(np.zeros((0, 3)), np.zeros((0, 2)), np.ones((3, 2))),
        (0, 2),
        (3, 2),
        (3,),
    ),
    "pad_shortcut": lambda: (F.pad_shortcut(NO_X, 4, 2), (0, 2, 2, 4)),
    "pad_shortcut_backward": lambda: (F.pad_shortcut_backward(np.zeros((0, 2, 2, 4)), (0, 4, 4, 2), 2), (0, 4, 4, 2)),
    "global_avg_pool": lambda: (F.global_avg_pool(NO_X), (0, 2)),
    "global_avg_pool_backward": lambda: (F.global_avg_pool_backward(np.zeros((0, 2)), NO_X.shape), (0, 4, 4, 2)),
    "max_pool2d": lambda: (F.max_pool2d(NO_X, 3, 2, 1), (0, 2, 2, 2)),
    "max_pool2d_backward": lambda: (F.max_pool2d_backward(np.zeros((0, 2, 2, 2)), NO_X, 3, 2, 1), (0, 4, 4, 2)),
    "fast conv2d": lambda: (fast.conv2d(NO_X, W, 1, 1), (0, 4, 4, 3)),
    "fast conv2d_backward": lambda: (fast.conv2d_backward(np.zeros((0, 2, 2, 3)), NO_X, W, 2, 1), (0, 4, 4, 2), (3, 2, 3, 3)),
    "fast relu": lambda: (Backend().relu(NO_X), (0, 4, 4, 2)),
    "fast relu_backward": lambda: (Backend().relu_backward(NO_X, NO_X), (0, 4, 4, 2)),
}


@pytest.mark.parametrize("call", EMPTY.values(), ids=EMPTY)
@pytest.mark.filterwarnings("error")
def test_of_no_images_results_are_empty_and_gradients_of_parameters_zero(call):
    found, *shapes = call()
    found = found if isinstance(found, tuple) else (found,)
    assert [a.shape for a in found] == shapes and not any(a.any() for a in found)


@pytest.mark.parametrize(
    "call",
    [
        lambda: F.batch_statistics(NO_X),
        lambda: F.batch_norm_train(NO_X, C, C),
        lambda: F.batch_norm_train_backward(NO_X, NO_X, C, C, C),
        lambda: F.softmax_cross_entropy(np.zeros((0, 3)), np.zeros(0, int)),
        lambda: F.softmax_cross_entropy_backward(np.zeros((0, 3)), np.zeros(0, int)),
        lambda: Backend().batch_norm_train(NO_X, C, C, C, C, 1e-5, 0.1),
        lambda: Backend().batch_norm_train_backward(NO_X, NO_X, C, 1e-5),
    ],
)
@pytest.mark.filterwarnings("error")
def test_a_mean_over_no_images_is_refused(call):
    with pytest.raises(ShapeError, match="more than one value|mean over images"):
        call()


@pytest.mark.parametrize("engine", ["fast", "plain"])
def test_a_network_without_images_is_refused(engine):
    net = pcmref.ResNet(2, 3, (2,), (1,))
    for run in (
        net.forward,
        net.statistics,
        lambda *a, **k: pcmref.adabs(net, *a, **k),
        lambda *a, **k: pcmref.predict(net, *a, **k),
    ):
        with pytest.raises(PcmrefError, match="image"):
            run(net.init(), NO_X, engine=engine)


# ------------------------------------------------------------------------------------------- the winner of a window


def test_a_window_of_minus_infinity_hands_its_gradient_to_its_first_pixel():
    x = np.full((1, 4, 4, 1), -np.inf)
    dx = F.max_pool2d_backward(np.arange(1.0, 5).reshape(1, 2, 2, 1), x, 3, 2, 1)[0, :, :, 0]
    assert dx.tolist() == [[1, 2, 0, 0], [3, 4, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]
    x[0, 1, 1] = -1e300  # in all four
    assert F.max_pool2d_backward(np.ones((1, 2, 2, 1)), x, 3, 2, 1)[0, 1, 1] == 4


def test_a_window_with_nan_hands_its_gradient_to_the_last_of_them():
    x = np.array([[1, np.nan, 2], [np.nan, np.inf, 4], [0, 0, 0]]).reshape(1, 3, 3, 1)
    assert np.argmax(F.max_pool2d_backward(np.ones((1, 1, 1, 1)), x, 3, 3)) == 3
