"""The network's operations in floating point: shapes, types, closed forms, refusals; what algebra says is in test_exact.py."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pcmref import draws
from pcmref.checks import check_gradient
from pcmref.errors import SettingError, ShapeError
from pcmref.nn import functional as F
from pcmref.nn.blocks import layer
from tests.helpers.roundings import gamma


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


@pytest.mark.confirms(30)
def test_convolutions_have_stride_1_and_no_padding_unless_told_otherwise():
    x, w = np.arange(20.0).reshape(1, 4, 5, 1), np.arange(6.0).reshape(1, 1, 2, 3)
    y = F.conv2d(x, w)
    assert np.array_equal(y, F.conv2d(x, w, 1, 0))
    for gradient, told in zip(F.conv2d_backward(y, x, w), F.conv2d_backward(y, x, w, 1, 0), strict=True):
        assert np.array_equal(gradient, told)


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


@pytest.mark.confirms(34, 57)
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_losss_gradient_by_differences(smoothing):
    logits, labels = normal("z", 4, 3).astype(np.longdouble), np.array([0, 2, 1, 1])
    gradient = F.softmax_cross_entropy_backward(logits, labels, smoothing)
    check_gradient(lambda z: F.softmax_cross_entropy(z, labels, smoothing), gradient, logits)


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


@pytest.mark.confirms(34, 57)
@given(st.integers(-500, 500), st.integers(0, 99))
def test_cross_entropy_ignores_a_shift_and_stays_finite(shift, seed):
    """Logits in 1/1024 and whole shifts: their sums are exact, so nothing changes, to the bit."""
    logits, labels = np.round(102_400 * normal("z", 4, 5, seed=seed)) / 1024, np.array([0, 1, 2, 4])
    loss, gradient = F.softmax_cross_entropy(logits, labels), F.softmax_cross_entropy_backward(logits, labels)
    assert np.isfinite(loss) and loss >= 0
    assert F.softmax_cross_entropy(logits + shift, labels) == loss
    assert np.array_equal(F.softmax_cross_entropy_backward(logits + shift, labels), gradient)
    # an image's probabilities add up to 1 but for 5 roundings each (4 additions, 1 division), its 5 terms p - t, magnitudes
    # adding up to at most 2, have 5 more (1 subtraction, 4 additions); a sixth is for products of roundings; 4 images: exact
    assert np.abs(gradient.sum(1)).max() <= gamma(6) * (1 + 2) / 4


@pytest.mark.confirms(34, 55)
def test_cross_entropy_of_equal_logits_is_log_of_the_classes():
    """To the bit: the sum of the exponentials is the number of classes, and the mean over two images halves a double."""
    assert F.softmax_cross_entropy(np.zeros((2, 10)), [1, 3]) == np.log(10)


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
    # all terms of the losses have one sign, and both sides the same logarithms. Left: 2 roundings in t, 1 product,
    # 11 additions, 1 division by 3. Right: 1, 11 and 1 in each loss, 3 in the mean, 1 in 1 - s, 1 product, 1 sum
    assert F.softmax_cross_entropy(logits, labels, smoothing) == pytest.approx(loss, rel=gamma(15 + 19), abs=0)
    # the same probabilities on both sides, p + t <= 2 over 3 images. Left: 2 in t, 1 difference, 1 division by 3.
    # Right: 2 in each gradient, 3 in the mean, 1 in 1 - s, 1 product, 1 sum
    assert np.allclose(F.softmax_cross_entropy_backward(logits, labels, smoothing), gradient, rtol=0, atol=gamma(4 + 8) * 2 / 3)


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
    small = np.exp(-10.0)  # 4.5e-5: its own roundings are thousands of times below those of 1 + small and of a quotient near 1,
    bound = gamma(2, np.float32)  # 2 at most; the mean over the two images halves them, which leaves as much for all others
    assert abs(F.softmax_cross_entropy(logits, labels) - np.log1p(small) / 2) <= bound
    expected = [[0, 0], [small / (1 + small) / 2, -small / (1 + small) / 2]]
    assert abs(F.softmax_cross_entropy_backward(logits, labels) - expected).max() <= bound
    assert F.softmax_cross_entropy(np.zeros((1, 2)), [1]) == np.log(2)


@pytest.mark.confirms(34, 57)
@given(st.integers(0, 99), st.sampled_from([np.float64, np.float32]))
def test_a_class_with_a_logit_of_minus_infinity_is_none(seed, dtype):
    """The loss and the gradient of the other classes, to the bit, 0 for its own; infinite where it is the label."""
    logits, labels = normal("z", 3, 4, seed=seed).astype(dtype), np.array([1, 3, 0])
    masked = np.insert(logits, 4, -np.inf, axis=1)
    with np.errstate(all="raise"):
        loss, gradient = F.softmax_cross_entropy(masked, labels), F.softmax_cross_entropy_backward(masked, labels)
        assert F.softmax_cross_entropy(masked, [1, 4, 0]) == np.inf == F.softmax_cross_entropy(masked, labels, smoothing=0.1)
    assert loss == F.softmax_cross_entropy(logits, labels) and loss.dtype == dtype
    assert np.array_equal(gradient[:, :4], F.softmax_cross_entropy_backward(logits, labels)) and not gradient[:, 4].any()


@pytest.mark.confirms(43, 46)
def test_batch_norms_epsilon_is_1e_5():
    """To the bit: but for the root and the quotient every step is exact."""
    one, zero, x = np.ones(1), np.zeros(1), np.array([0.0, 2.0]).reshape(2, 1, 1, 1)
    assert F.batch_norm(x, one, zero, zero, zero).ravel().tolist() == [0, 2 / np.sqrt(1e-5)]
    root = np.sqrt(1 + 1e-5)
    assert F.batch_norm_train(x, one, zero)[0].ravel().tolist() == [-1 / root, 1 / root]


@pytest.mark.confirms(52)
def test_the_average_of_an_image_changes_by_a_pixels_share():
    """Every pixel of 11 x 16 the same, to the bit: adding one to one of them adds dx to the average."""
    dy = np.array([[1.0, -3.0]])
    dx = F.global_avg_pool_backward(dy, (1, 11, 16, 2))
    assert dx.shape == (1, 11, 16, 2) and (dx == dy / 176).all()


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


@pytest.mark.confirms(79)
def test_a_layer_saves_what_its_statistics_are_of():
    """Three images, five by four pixels, stride 2: 3 * 3 * 2 values a channel; the statistics are those of the convolution."""
    x = draws.standard_normal(0, "layer/x", (3, 5, 4, 2))
    state = {"conv.weight": draws.standard_normal(0, "layer/w", (6, 2, 3, 3)), "bn.weight": np.ones(6), "bn.bias": np.zeros(6)}
    y, saved = layer(x, state, "conv", "bn", stride=2, train=True)
    z = F.conv2d(x, state["conv.weight"], 2, 1)
    assert saved.count == 18 == z[..., 0].size and y.shape == (3, 3, 2, 6)
    assert np.array_equal(saved.mean, z.mean((0, 1, 2))) and np.array_equal(saved.z, z) and (y >= 0).all()
