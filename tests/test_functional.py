"""The network's operations: linearity, adjoints, gradients by central differences, invariances, closed forms."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pcmref import draws
from pcmref.errors import SettingError, ShapeError
from pcmref.nn import functional as F

U = 2.0**-53


def normal(name, *shape, seed=0):
    return draws.standard_normal(seed, f"test/{name}", shape)


@st.composite
def convolutions(draw):
    """(x, w, stride, padding): odd sizes, any kernel, stride and padding, non-square too."""
    k_h, k_w = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    padding, stride = draw(st.integers(0, 3)), draw(st.integers(1, 3))
    h, w = draw(st.integers(max(1, k_h - 2 * padding), 7)), draw(st.integers(max(1, k_w - 2 * padding), 7))
    n, c, o, seed = draw(st.integers(1, 3)), draw(st.integers(1, 4)), draw(st.integers(1, 4)), draw(st.integers(0, 99))
    return normal("x", n, h, w, c, seed=seed), normal("w", o, c, k_h, k_w, seed=seed), stride, padding


def conv_by_loops(x, w, stride, padding):
    (_, h, width, _), (_, _, k_h, k_w) = x.shape, w.shape
    y = np.zeros(F.conv2d_shape(x.shape, w.shape, stride, padding))
    for p in range(y.shape[1]):
        for q in range(y.shape[2]):
            for i in range(k_h):
                for j in range(k_w):
                    r, s = p * stride + i - padding, q * stride + j - padding
                    if 0 <= r < h and 0 <= s < width:
                        y[:, p, q] += x[:, r, s] @ w[:, :, i, j].T
    return y


@pytest.mark.confirms(28, 31, 86)
@given(convolutions())
def test_conv2d_is_its_definition(case):
    x, w, stride, padding = case
    scale = conv_by_loops(abs(x), abs(w), stride, padding)
    terms = w[0].size
    assert (abs(F.conv2d(x, w, stride, padding) - conv_by_loops(x, w, stride, padding)) <= 2 * terms * U * scale).all()


@pytest.mark.confirms(42)
@given(convolutions())
def test_conv2d_has_as_many_outputs_as_the_kernel_has_positions(case):
    x, w, stride, padding = case
    sides = [
        [p for p in range(20) if p * stride + k <= n + 2 * padding] for n, k in zip(x.shape[1:3], w.shape[2:], strict=True)
    ]
    assert F.conv2d_shape(x.shape, w.shape, stride, padding) == (len(x), len(sides[0]), len(sides[1]), len(w))


@pytest.mark.confirms(42)
@pytest.mark.parametrize(
    ("x", "w", "stride", "padding", "y"),
    [
        ((2, 32, 30, 16), (28, 16, 3, 3), 1, 1, (2, 32, 30, 28)),  # same size
        ((2, 32, 30, 16), (28, 16, 3, 3), 2, 1, (2, 16, 15, 28)),  # half of it
        ((2, 31, 30, 16), (28, 16, 1, 1), 2, 0, (2, 16, 15, 28)),  # a shortcut
        ((1, 224, 224, 3), (64, 3, 7, 7), 2, 3, (1, 112, 112, 64)),  # ImageNet's stem
        ((1, 5, 9, 1), (1, 1, 5, 2), 3, 0, (1, 1, 3, 1)),
    ],
)
def test_shapes_of_the_usual_convolutions(x, w, stride, padding, y):
    assert F.conv2d_shape(x, w, stride, padding) == y


@pytest.mark.confirms(29, 30)
@given(convolutions())
def test_conv2d_backward_is_the_adjoint(case):
    """<conv(x, w), dy> = <x, dx> = <w, dw>: the convolution is linear in each argument."""
    x, w, stride, padding = case
    y = F.conv2d(x, w, stride, padding)
    dy = normal("dy", *y.shape)
    dx, dw = F.conv2d_backward(dy, x, w, stride, padding)
    assert dx.shape == x.shape and dw.shape == w.shape
    bound = 4 * U * (w[0].size + y.size + x.size) * float((F.conv2d(abs(x), abs(w), stride, padding) * abs(dy)).sum())
    assert abs((y * dy).sum() - (x * dx).sum()) <= bound
    assert abs((y * dy).sum() - (w * dw).sum()) <= bound


@pytest.mark.confirms(28)
@given(convolutions(), st.floats(-3, 3), st.floats(-3, 3))
def test_conv2d_is_linear(case, a, b):
    x, w, stride, padding = case
    other = normal("other", *x.shape)
    left = F.conv2d(a * x + b * other, w, stride, padding)
    right = a * F.conv2d(x, w, stride, padding) + b * F.conv2d(other, w, stride, padding)
    scale = F.conv2d(abs(a * x) + abs(b * other), abs(w), stride, padding)
    assert (abs(left - right) <= 4 * (w[0].size + 2) * U * scale).all()


@pytest.mark.confirms(28)
def test_conv2d_commutes_with_translation_away_from_the_border():
    x, w = np.zeros((1, 9, 9, 2)), normal("w", 3, 2, 3, 3)
    x[:, 3:6, 3:6] = normal("x", 1, 3, 3, 2)
    moved = np.roll(x, (1, -1), (1, 2))
    assert np.array_equal(np.roll(F.conv2d(x, w, 1, 1), (1, -1), (1, 2)), F.conv2d(moved, w, 1, 1))


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.longdouble])
def test_every_operation_keeps_the_dtype(dtype):
    x, w = normal("x", 2, 5, 5, 3).astype(dtype), normal("w", 4, 3, 3, 3).astype(dtype)
    y = F.conv2d(x, w, 1, 1)
    c = np.ones(4, dtype)
    train, mean, var = F.batch_norm_train(y, c, c)
    results = [y, *F.conv2d_backward(y, x, w, 1, 1), F.batch_norm(y, c, c, c, c), *F.batch_norm_backward(y, y, c, c, c)]
    results += [train, mean, var, *F.batch_norm_train_backward(y, y, c, mean, var), F.relu(y), F.relu_backward(y, y)]
    results += [
        *F.running_statistics(c, c, mean, var, 50),
        F.pad_shortcut(y, 7, 2),
        F.pad_shortcut_backward(y, (2, 9, 9, 3), 2),
    ]
    pooled, logits = F.global_avg_pool(y), F.linear(F.global_avg_pool(y), c[None, :], c[:1])
    results += [pooled, F.global_avg_pool_backward(pooled, y.shape), logits, *F.linear_backward(logits, pooled, c[None, :])]
    results += [F.max_pool2d(y, 3, 2, 1), F.max_pool2d_backward(F.max_pool2d(y, 3, 2, 1), y, 3, 2, 1)]
    results += [F.softmax_cross_entropy(pooled, [0, 1]), F.softmax_cross_entropy_backward(pooled, [0, 1])]
    assert {np.asarray(r).dtype for r in results} == {np.dtype(dtype)}


def slope(f, x, v):
    """The directional derivative of scalar f at x along v by central differences in longdouble: error about 1e-12."""
    h = np.longdouble(1e-6)
    return float((f(x + h * v) - f(x - h * v)) / (2 * h))


def check_gradient(f, arguments, gradients):
    """Each gradient of scalar f(*arguments) against a central difference along a random direction, in longdouble."""
    for i, gradient in enumerate(gradients):
        v = normal(f"direction{i}", *arguments[i].shape).astype(np.longdouble)

        def along(value, i=i):
            return f(*arguments[:i], value, *arguments[i + 1 :])

        expected, scale = slope(along, arguments[i], v), float(abs(gradient * v).sum())
        assert abs(float((gradient * v).sum()) - expected) <= 1e-9 * (scale + 1)


def long(name, *shape):
    return normal(name, *shape).astype(np.longdouble)


@pytest.mark.confirms(29, 30, 33, 44, 48, 49, 50, 51, 52, 54, 57)
def test_gradients_by_central_differences():
    x, w, b, c = long("x", 3, 4, 5, 2), long("w", 3, 2, 3, 2), long("b", 3), long("c", 3)
    dy = long("dy", *F.conv2d_shape(x.shape, w.shape, 2, 1))
    check_gradient(lambda x, w: (F.conv2d(x, w, 2, 1) * dy).sum(), (x, w), F.conv2d_backward(dy, x, w, 2, 1))

    y, dy = long("y", 3, 4, 2, 3), long("dy2", 3, 4, 2, 3)
    mean, var = long("mean", 3), abs(long("var", 3))
    arguments = (y, b, c)
    check_gradient(
        lambda y, b, c: (F.batch_norm(y, b, c, mean, var) * dy).sum(), arguments, F.batch_norm_backward(dy, y, b, mean, var)
    )
    gradients = F.batch_norm_train_backward(dy, y, b, *F.batch_statistics(y))
    check_gradient(lambda y, b, c: (F.batch_norm_train(y, b, c)[0] * dy).sum(), arguments, gradients)

    check_gradient(lambda y: (F.relu(y) * dy).sum(), (y,), [F.relu_backward(dy, F.relu(y))])
    pool = long("pool", 3, 3)
    check_gradient(lambda y: (F.global_avg_pool(y) * pool).sum(), (y,), [F.global_avg_pool_backward(pool, y.shape)])
    top = long("top", *F.max_pool2d(y, 3, 2, 1).shape)
    check_gradient(lambda y: (F.max_pool2d(y, 3, 2, 1) * top).sum(), (y,), [F.max_pool2d_backward(top, y, 3, 2, 1)])

    x, w, b, dy = long("xl", 4, 5), long("wl", 3, 5), long("bl", 3), long("dyl", 4, 3)
    check_gradient(lambda x, w, b: (F.linear(x, w, b) * dy).sum(), (x, w, b), F.linear_backward(dy, x, w))
    labels = np.array([0, 2, 1, 1])
    for smoothing in (0.0, 0.1):
        gradient = F.softmax_cross_entropy_backward(dy, labels, smoothing)
        check_gradient(lambda z, s=smoothing: F.softmax_cross_entropy(z, labels, s), (dy,), [gradient])


@pytest.mark.confirms(32, 43, 46)
@given(st.integers(1, 4), st.integers(1, 5), st.integers(1, 5), st.integers(0, 99))
def test_batch_norm_in_training_standardises_and_ignores_scale_and_shift(n, h, w, seed):
    x = normal("bn", n + 1, h, w, 3, seed=seed)
    one, zero = np.ones(3), np.zeros(3)
    y, mean, var = F.batch_norm_train(x, one, zero, eps=0.0)
    assert np.allclose(y.mean((0, 1, 2)), 0, atol=1e-10) and np.allclose((y**2).mean((0, 1, 2)), 1, rtol=1e-10)
    assert np.allclose(F.batch_norm_train(5 * x - 7, one, zero, eps=0.0)[0], y, atol=1e-9)
    assert np.allclose(F.batch_norm(x, one, zero, mean, var, eps=0.0), y, atol=1e-9)


@pytest.mark.confirms(33)
def test_batch_norm_backward_is_orthogonal_to_what_training_ignores():
    """dx sums to 0 and is orthogonal to x_hat (eps = 0), because shift and scale of x change nothing."""
    x, dy = normal("x", 3, 4, 4, 2), normal("dy", 3, 4, 4, 2)
    x_hat, mean, var = F.batch_norm_train(x, np.ones(2), np.zeros(2), eps=0.0)
    dx, _, _ = F.batch_norm_train_backward(dy, x, np.ones(2), mean, var, eps=0.0)
    assert abs(dx.sum((0, 1, 2))).max() < 1e-12 and abs((dx * x_hat).sum((0, 1, 2))).max() < 1e-12


@pytest.mark.confirms(47, 53)
def test_relu_and_max_pool_pick_values_exactly():
    x = normal("x", 2, 6, 7, 3)
    assert np.array_equal(F.relu(x), np.where(x > 0, x, 0)) and not np.signbit(F.relu(np.array([-1.0, 0.0]))).any()
    y = F.max_pool2d(-abs(x), 3, 2, 1)  # all negative: a border of zeros would win
    assert y.shape == (2, 3, 4, 3) and (y < 0).all()
    assert y[0, 0, 0, 0] == (-abs(x))[0, :2, :2, 0].max() and np.isin(y, -abs(x)).all()


@pytest.mark.confirms(53)
def test_max_pool_of_one_channel_and_of_one_pixel():
    """As many channels as there are, any kernel down to 1, which changes nothing."""
    x = normal("x", 2, 5, 6, 1)
    assert np.array_equal(F.max_pool2d(x, 1, 1), x)
    y = F.max_pool2d(x, 4, 2)
    assert y.shape == (2, 1, 2, 1) and y[1, 0, 1, 0] == x[1, :4, 2:6, 0].max()


def test_max_pool_gives_a_tie_to_its_first_pixel():
    dx = F.max_pool2d_backward(np.ones((1, 1, 1, 1)), np.zeros((1, 2, 2, 1)), 2, 2)
    assert dx[0, :, :, 0].tolist() == [[1, 0], [0, 0]]


@pytest.mark.confirms(54)
def test_max_pool_backward_adds_up_over_overlapping_windows():
    x = np.zeros((1, 3, 3, 1))
    x[0, 1, 1, 0] = 1
    assert F.max_pool2d_backward(np.ones((1, 2, 2, 1)), x, 2, 1)[0, 1, 1, 0] == 4


@pytest.mark.confirms(34)
@given(st.floats(-500, 500), st.integers(0, 99))
def test_cross_entropy_ignores_a_shift_and_stays_finite(shift, seed):
    logits, labels = 100 * normal("z", 4, 5, seed=seed), np.array([0, 1, 2, 4])
    loss = F.softmax_cross_entropy(logits, labels)
    assert np.isfinite(loss) and loss >= 0
    assert abs(F.softmax_cross_entropy(logits + shift, labels) - loss) <= 1e-10 * (1 + abs(loss))
    assert np.abs(F.softmax_cross_entropy_backward(logits, labels).sum(1)).max() < 1e-15


@pytest.mark.confirms(34, 55)
def test_cross_entropy_of_equal_logits_is_log_of_the_classes():
    assert F.softmax_cross_entropy(np.zeros((3, 10)), [1, 2, 3]) == pytest.approx(np.log(10), rel=1e-15)


@pytest.mark.confirms(55)
@given(st.floats(0, 0.9), st.integers(0, 99))
def test_smoothing_mixes_the_labels_loss_with_the_mean_over_all_classes(smoothing, seed):
    """(1 - s) of the loss of the label, s of the mean loss over every class as the label; so do the gradients."""
    logits, labels = normal("z", 3, 4, seed=seed), np.array([1, 3, 0])
    every = [np.full(3, k) for k in range(4)]
    loss = (1 - smoothing) * F.softmax_cross_entropy(logits, labels)
    loss += smoothing * np.mean([F.softmax_cross_entropy(logits, k) for k in every])
    gradient = (1 - smoothing) * F.softmax_cross_entropy_backward(logits, labels)
    gradient += smoothing * np.mean([F.softmax_cross_entropy_backward(logits, k) for k in every], 0)
    assert F.softmax_cross_entropy(logits, labels, smoothing) == pytest.approx(loss, rel=1e-13)
    assert np.allclose(F.softmax_cross_entropy_backward(logits, labels, smoothing), gradient, rtol=0, atol=1e-15)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: F.conv2d(np.zeros((1, 3, 8, 8)), np.zeros((4, 3, 3, 3))), "NCHW"),
        (lambda: F.conv2d(np.zeros((1, 8, 8, 2)), np.zeros((4, 3, 3, 3))), "channels"),
        (lambda: F.conv2d(np.zeros((8, 8, 3)), np.zeros((4, 3, 3, 3))), r"\[N, H, W, C\]"),
        (lambda: F.conv2d(np.zeros((1, 2, 2, 3)), np.zeros((4, 3, 3, 3))), "larger"),
        (lambda: F.conv2d(np.zeros((1, 8, 8, 3)), np.zeros((4, 3, 3, 3)), stride=0), "stride"),
        (lambda: F.max_pool2d(np.zeros((1, 8, 8, 3)), 2, 2, 2), "padding"),
        (lambda: F.max_pool2d(np.zeros((1, 1, 9, 3)), 4, 1, 1), "at least 4 pixels"),
        (lambda: F.max_pool2d(np.zeros((1, 8, 8, 3)), 0, 1), "kernel"),
        (lambda: F.batch_norm_train(np.zeros((1, 1, 1, 3)), np.ones(3), np.ones(3)), "more than one value"),
        (lambda: F.softmax_cross_entropy(np.zeros((2, 3)), [0, 3]), r"0\.\.2"),
        (lambda: F.softmax_cross_entropy(np.zeros((2, 3)), [0.0, 1.0]), "integers"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises((ShapeError, SettingError), match=message):
        call()


@pytest.mark.confirms(34, 57)
def test_large_logits_neither_overflow_nor_mix_images():
    logits = np.array([[1e4, 0], [0, 10]], np.float32)
    labels = np.array([0, 1])
    assert F.softmax_cross_entropy(logits, labels) == pytest.approx(np.log1p(np.exp(-10.0)) / 2, abs=2**-23)
    expected = [[0, 0], [1 / (1 + np.exp(10.0)) / 2, -1 / (1 + np.exp(10.0)) / 2]]
    assert F.softmax_cross_entropy_backward(logits, labels) == pytest.approx(np.array(expected), abs=2**-23)
    assert F.softmax_cross_entropy([[0.0, 0.0]] * np.ones((1, 2)), [1]) == pytest.approx(np.log(2))


@pytest.mark.confirms(43)
def test_batch_norms_epsilon_is_1e_5():
    x = np.array([0.0, 2.0]).reshape(2, 1, 1, 1)
    assert F.batch_norm(x, np.ones(1), np.zeros(1), np.zeros(1), np.zeros(1)).max() == pytest.approx(
        2 / np.sqrt(1e-5), rel=1e-14
    )
    assert F.batch_norm_train(x, np.ones(1), np.zeros(1))[0].max() == pytest.approx(1 / np.sqrt(1 + 1e-5), rel=1e-14)


@pytest.mark.parametrize(
    "call",
    [
        lambda: F.conv2d_backward(np.ones((1, 3, 3, 4)), np.ones((1, 3, 3, 2)), np.ones((4, 2, 3, 3))),
        lambda: F.softmax_cross_entropy_backward(np.zeros((2, 3)), [0, -1]),
        lambda: F.max_pool2d(np.zeros((1, 2, 2, 1)), 3, 1),
        lambda: F.max_pool2d(np.zeros((1, 4, 4, 1), int), 2, 2),
        lambda: F.conv2d(np.ones((2, 3, 3, 2)), np.ones((4, 2, 1, 1)), stride=1.5),
    ],
)
def test_what_would_be_silently_wrong_is_refused(call):
    with pytest.raises((ShapeError, SettingError)):
        call()
