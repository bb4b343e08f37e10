"""The text in rational arithmetic: what holds in algebra holds to the last digit, without any tolerance.

Each backward is the adjoint of its forward's derivative, <J v, dy> = <v, J' dy>: J v comes from numbers that carry a slope
(`exact_numbers`), J' dy from the backward. Batch norm needs a rational root of var + eps: eps is chosen so, and in a block
each convolution is scaled so that var*t^2 + eps is the square of a rational (eps = e^2: t = 2 e m / (var - m^2) for any m).
"""

from fractions import Fraction
from functools import partial

import numpy as np
import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st

import pcmref
from pcmref import strategies
from pcmref.nn import blocks
from pcmref.nn import functional as F
from pcmref.nn.resnet import ResNet
from tests.helpers.exact_numbers import Exact, Tie, inner, numbers, slopes, values

sixteenths = st.integers(-16, 15).map(lambda k: Fraction(2 * k + 1, 16))  # none is 0, where relu has a kink


def arrays(*shape):
    size = int(np.prod(shape))
    return st.lists(sixteenths, min_size=size, max_size=size).map(lambda v: np.array(v, object).reshape(shape))


@st.composite
def convolutions(draw):
    """(x, w, stride, padding) of small odd shapes."""
    k_h, k_w, padding, stride = draw(st.tuples(*[st.integers(1, 3)] * 2, st.integers(0, 2), st.integers(1, 3)))
    h, w = (draw(st.integers(max(1, k - 2 * padding), 4)) for k in (k_h, k_w))
    n, c, o = draw(st.tuples(*[st.integers(1, 2)] * 3))
    return draw(arrays(n, h, w, c)), draw(arrays(o, c, k_h, k_w)), stride, padding


def check_backward(forward, arguments, gradients_of, data):
    """<J v, dy> = sum over the arguments of <v, gradient>, exactly; gradients_of(dy) gives the gradients."""
    directions = [data.draw(arrays(*a.shape)) for a in arguments]
    try:
        y = forward(*(numbers(a, v) for a, v in zip(arguments, directions, strict=True)))
    except Tie:
        reject()
    dy = data.draw(arrays(*np.shape(y)))
    gradients = gradients_of(numbers(dy))
    assert [g.shape for g in gradients] == [a.shape for a in arguments]
    assert inner(slopes(y), dy) == sum(inner(v, values(g)) for v, g in zip(directions, gradients, strict=True))


@pytest.mark.confirms(28, 31, 86)
@given(convolutions())
@settings(max_examples=30)
def test_conv2d_is_its_definition(case):
    x, w, stride, padding = case
    y = F.conv2d(x, w, stride, padding)
    for n, p, q, o in np.ndindex(*y.shape):
        expected = Fraction(0)
        for c, i, j in np.ndindex(*w.shape[1:]):
            r, s = p * stride + i - padding, q * stride + j - padding
            if 0 <= r < x.shape[1] and 0 <= s < x.shape[2]:
                expected += x[n, r, s, c] * w[o, c, i, j]
        assert y[n, p, q, o] == expected


@pytest.mark.confirms(28, 29, 30, 31, 86)
@given(convolutions(), st.data())
@settings(max_examples=30)
def test_conv2d_backward_is_the_adjoint_and_conv2d_is_linear_in_both(case, data):
    x, w, stride, padding = case
    convolve = partial(F.conv2d, stride=stride, padding=padding)
    exact = numbers(x), numbers(w)
    check_backward(convolve, (x, w), lambda dy: F.conv2d_backward(dy, *exact, stride, padding), data)
    other, factor = data.draw(arrays(*x.shape)), data.draw(sixteenths)
    assert (convolve(x + factor * other, w) == convolve(x, w) + factor * convolve(other, w)).all()
    other = data.draw(arrays(*w.shape))
    assert (convolve(x, w + factor * other) == convolve(x, w) + factor * convolve(x, other)).all()


@pytest.mark.confirms(28)
@given(arrays(1, 3, 3, 2), arrays(2, 2, 3, 3), st.integers(-2, 2), st.integers(-2, 2))
@settings(max_examples=20)
def test_conv2d_commutes_with_translation_away_from_the_border(middle, w, down, right):
    x = np.zeros((1, 9, 9, 2), object)
    x[:, 3:6, 3:6] = middle
    moved = F.conv2d(np.roll(x, (down, right), (1, 2)), w, 1, 1)
    assert (np.roll(F.conv2d(x, w, 1, 1), (down, right), (1, 2)) == moved).all()


@pytest.mark.confirms(43, 44)
@given(arrays(2, 2, 3, 2), st.data())
@settings(max_examples=30)
def test_batch_norm_backward_is_the_adjoint(x, data):
    """With given statistics: var is chosen so that var + eps is a square."""
    weight, bias, mean, eps = data.draw(arrays(2)), data.draw(arrays(2)), data.draw(arrays(2)), Fraction(1, 64)
    var = np.array([Fraction(k * k, 16) - eps for k in data.draw(st.lists(st.integers(1, 9), min_size=2, max_size=2))], object)
    statistics = numbers(mean), numbers(var), Exact(eps)
    forward = lambda x, weight, bias: F.batch_norm(x, weight, bias, *statistics)  # noqa: E731
    gradients = lambda dy: F.batch_norm_backward(dy, numbers(x), numbers(weight), *statistics)  # noqa: E731
    check_backward(forward, (x, weight, bias), gradients, data)


@pytest.mark.confirms(32, 33, 43, 46)
@given(arrays(2, 2, 3, 1), st.integers(1, 9), st.data())
@settings(max_examples=30)
def test_batch_norm_in_training_its_backward_and_its_invariances(x, root, data):
    weight, bias = data.draw(arrays(1)), data.draw(arrays(1))
    mean, var = F.batch_statistics(x)
    eps = Fraction(root * root, 4) - var[0]  # any eps will do in algebra
    check_backward(
        lambda x, weight, bias: F.batch_norm_train(x, weight, bias, Exact(eps))[0],
        (x, weight, bias),
        lambda dy: F.batch_norm_train_backward(dy, numbers(x), numbers(weight), numbers(mean), numbers(var), Exact(eps)),
        data,
    )
    one, zero, n = numbers([1]), numbers([0]), x.size
    y = F.batch_norm_train(numbers(x), one, zero, Exact(eps))[0]
    assert sum(values(y).ravel()) == 0 and inner(values(y), values(y)) / n == var[0] / (var[0] + eps)  # 1 for eps = 0
    assert (F.batch_norm_train(numbers(5 * x - 7), one, zero, Exact(25 * eps))[0] == y).all()
    assert (F.batch_norm(numbers(x), one, zero, numbers(mean), numbers(var), Exact(eps)) == y).all()
    dy = numbers(data.draw(arrays(*x.shape)))
    dx, dweight, dbias = F.batch_norm_train_backward(dy, numbers(x), numbers(weight), numbers(mean), numbers(var), Exact(eps))
    assert sum(values(dx).ravel()) == 0 and values(dbias)[0] == sum(values(dy).ravel())
    assert values(dweight)[0] == inner(values(dy), values(y))
    # scale and shift of x change nothing for eps = 0, so dx is orthogonal to both
    assert inner(values(dx), values(y)) == weight[0] * Fraction(2, root) * values(dweight)[0] * eps / (var[0] + eps)


@pytest.mark.confirms(29, 45, 47, 48, 49, 50, 51, 52, 53, 54, 56)
@given(arrays(2, 3, 3, 2), st.integers(1, 3), st.integers(2, 5), st.data())
@settings(max_examples=30)
def test_the_small_operations_are_their_backwards_adjoints(x, stride, channels, data):
    exact = numbers(x)
    y = F.relu(exact)
    check_backward(F.relu, (x,), lambda dy: (F.relu_backward(dy, y),), data)
    assert (values(y) == np.where(x > 0, x, 0)).all()
    check_backward(F.global_avg_pool, (x,), lambda dy: (F.global_avg_pool_backward(dy, x.shape),), data)
    pad = partial(F.pad_shortcut, channels=channels, stride=stride)
    check_backward(pad, (x,), lambda dy: (F.pad_shortcut_backward(dy, x.shape, stride),), data)
    padding = data.draw(st.integers(0, 1))
    pool = partial(F.max_pool2d, kernel=2, stride=stride, padding=padding)
    different = x + np.array([Fraction(i, 1000) for i in range(x.size)], object).reshape(x.shape)  # no ties
    gradient = partial(F.max_pool2d_backward, x=numbers(different), kernel=2, stride=stride, padding=padding)
    check_backward(pool, (different,), lambda dy: (gradient(dy),), data)
    rows, w, b = x.reshape(2, -1), data.draw(arrays(3, 18)), data.draw(arrays(3))
    gradients = partial(F.linear_backward, x=numbers(rows), w=numbers(w))
    check_backward(F.linear, (rows, w, b), lambda dy: gradients(dy), data)


@pytest.mark.confirms(45)
def test_a_pad_shortcut_keeps_every_second_pixel_between_channels_of_zeros():
    x = np.arange(2 * 3 * 4 * 2).reshape(2, 3, 4, 2)
    y = F.pad_shortcut(x, 5, 2)
    assert y.shape == (2, 2, 2, 5) and (y[..., 1:3] == x[:, ::2, ::2]).all() and not y[..., [0, 3, 4]].any()


@pytest.mark.confirms(45)
@given(st.integers(1, 3), st.integers(0, 6), st.integers(1, 3))
def test_a_pad_shortcut_has_as_many_zeros_before_as_behind_or_one_fewer(channels, new, stride):
    y = F.pad_shortcut(np.ones((1, 4, 5, channels), int), channels + new, stride)
    assert y.shape == (1, -(-4 // stride), -(-5 // stride), channels + new)
    before, behind = y[0, 0, 0].tolist().index(1), y[0, 0, 0, ::-1].tolist().index(1)
    assert y.sum() == y.size // (channels + new) * channels and before + behind == new and behind - before in (0, 1)


def test_a_pad_shortcut_skips_no_pixel_unless_told():
    x = np.arange(2 * 3 * 4 * 2).reshape(2, 3, 4, 2)
    assert F.pad_shortcut(x, 2) is x and (F.pad_shortcut(x, 3)[..., :2] == x).all()
    assert (F.pad_shortcut_backward(F.pad_shortcut(x, 3), x.shape) == x).all()


@pytest.mark.confirms(52)
@given(arrays(1, 2, 11, 1), st.data())
@settings(max_examples=5)
def test_the_averages_gradient_reaches_every_pixel_of_a_wide_image(x, data):
    check_backward(F.global_avg_pool, (x,), lambda dy: (F.global_avg_pool_backward(dy, x.shape),), data)


@pytest.mark.confirms(46)
@given(arrays(2, 1, 3, 2))
@settings(max_examples=10)
def test_batch_norm_in_training_hands_out_the_mean_and_the_biased_variance(x):
    """Of each channel, whatever eps; var = mean of squares - square of the mean."""
    roots = np.array([Fraction(1, 2), Fraction(3)], object)
    var = (x * x).sum((0, 1, 2)) / Fraction(6) - (x.sum((0, 1, 2)) / Fraction(6)) ** 2
    eps = numbers(roots**2 - var)  # so that there is a root
    y, mean, biased = F.batch_norm_train(numbers(x), numbers([1, 1]), numbers([0, 0]), eps)
    assert (values(mean) == x.sum((0, 1, 2)) / Fraction(6)).all() and (values(biased) == var).all()
    assert (values(y) == (x - values(mean)) / roots).all()


@pytest.mark.confirms(35)
@given(arrays(4, 2), sixteenths, st.integers(2, 9))
def test_running_statistics_go_the_momentums_share_of_the_way(entries, momentum, count):
    """From what was there to the batch's mean and its variance over count - 1."""
    old_mean, old_var, mean, var = entries
    new_mean, new_var = F.running_statistics(old_mean, old_var, mean, var, count, momentum)
    assert (new_mean - old_mean == momentum * (mean - old_mean)).all()
    assert ((count - 1) * (new_var - old_var) == momentum * (count * var - (count - 1) * old_var)).all()


E = Fraction(1, 10)  # the root of eps in blocks and networks


def with_rational_roots(state, run):
    """The state with every convolution scaled, channel by channel, so that its batch's var + eps is a rational square.

    `run(state, layer)` goes forward through the network's text; weights are scaled as it meets them.
    """
    scaled = dict(state)

    def layer(x, local, conv, bn, stride=1, plus=None, relu=True):
        name = next(name for name, value in state.items() if value is local[f"{conv}.weight"])
        w = local[f"{conv}.weight"]
        var = values(F.batch_statistics(F.conv2d(x, w, stride, w.shape[2] // 2))[1])
        roots = (next(m for m in (Fraction(1), Fraction(2)) if m * m != v) for v in var)
        t = [2 * E * m / (v - m * m) for v, m in zip(var, roots, strict=True)]
        scaled[name] = numbers(values(w) * np.array(t, object)[:, None, None, None])
        return blocks.layer(x, local | {f"{conv}.weight": scaled[name]}, conv, bn, stride, plus, relu, True, Exact(E * E))

    run(state, layer)
    return scaled


@pytest.mark.confirms(45, 56, 78, 79, 80, 85)
@pytest.mark.parametrize("strides", [(1, 1), (2, 1), (1, 2, 1)], ids=["basic", "basic, stride 2", "bottleneck"])
@pytest.mark.parametrize("shortcut", ["projection", "pad"])
@given(st.data())
@settings(max_examples=8)
def test_the_chain_rule_through_a_block(strides, shortcut, data):
    channels = [2, 2, 3] if len(strides) == 2 else [2, 1, 2, 3]
    kernels = [3, 3] if len(strides) == 2 else [1, 3, 1]
    state = {}
    for i, (c, o, k) in enumerate(zip(channels[:-1], channels[1:], kernels, strict=True), 1):
        state |= {f"conv{i}.weight": data.draw(arrays(o, c, k, k))}
        state |= {f"bn{i}.weight": data.draw(arrays(o)), f"bn{i}.bias": data.draw(arrays(o))}
    if shortcut == "projection":
        state |= {"downsample.0.weight": data.draw(arrays(3, 2, 1, 1))}
        state |= {"downsample.1.weight": data.draw(arrays(3)), "downsample.1.bias": data.draw(arrays(3))}
    x = data.draw(arrays(2, 3, 2, 2))
    state = {name: numbers(value) for name, value in state.items()}
    state = with_rational_roots(state, lambda s, layer: blocks.residual_block(numbers(x), s, strides, layer))
    names = list(state)
    block = partial(blocks.layer, train=True, eps=Exact(E * E))

    def forward(x, *parameters):
        return blocks.residual_block(x, dict(zip(names, parameters, strict=True)), strides, block)[0]

    def gradients(dy):
        _, tape = blocks.residual_block(numbers(x), state, strides, block)
        back = partial(blocks.layer_backward, eps=Exact(E * E))
        dx, grads = blocks.residual_block_backward(dy, state, strides, tape, back)
        assert grads.keys() == state.keys()
        return dx, *(grads[name] for name in names)

    check_backward(forward, (x, *(values(state[name]) for name in names)), gradients, data)


@pytest.mark.confirms(45, 48, 49, 50, 51, 52, 56, 78, 79, 80, 85)
@given(st.data())
@settings(max_examples=4)
def test_the_chain_rule_through_a_network(data):
    net = ResNet(1, 2, (1, 2), (1, 1), shortcut=data.draw(st.sampled_from(["projection", "pad"])))
    state = {name: numbers(data.draw(arrays(*shape))) for name, shape in net.shapes().items() if "running_" not in name}
    state |= {name: numbers(np.ones(shape)) for name, shape in net.shapes().items() if "running_" in name}
    x = data.draw(arrays(2, 2, 3, 1))
    state = with_rational_roots(state, lambda s, layer: net._run(s, numbers(x), layer))
    names = net.trainable()
    layer, back = (partial(f, eps=Exact(E * E)) for f in (partial(blocks.layer, train=True), blocks.layer_backward))

    def forward(x, *parameters):
        return net._run(state | dict(zip(names, parameters, strict=True)), x, layer)[0]

    def gradients(dy):
        _, tape = net._run(state, numbers(x), layer)
        grads = net._backward(tape, dy, back)
        return grads["input"], *(grads[name] for name in names)

    check_backward(forward, (x, *(values(state[name]) for name in names)), gradients, data)


@pytest.mark.confirms(36)
@given(st.lists(st.integers(1, 3), min_size=1, max_size=3), st.data())
@settings(max_examples=20)
def test_adabs_averages_its_batches_by_their_images(sizes, data):
    """On a network whose statistics are the images' own: the running mean is the mean over all images."""

    class Statistics(ResNet):
        def statistics(self, state, x):
            return {bn: (x.mean((0, 1, 2)), x.var((0, 1, 2)), x.size) for _, bn, _ in self.conv_bn_pairs()}

    net = Statistics(1, 1, (1,), (1,))
    size = sizes[0]
    x = data.draw(arrays(sum(sizes) + 1, 2, 2, 1))
    state = {name: np.full(shape, Fraction(7), object) for name, shape in net.shapes().items()}
    new = pcmref.adabs(net, state, x, batch_size=size)
    batches = [x[i : i + size] for i in range(0, len(x), size)]
    assert new["bn1.running_mean"][0] == x.mean()
    assert new["bn1.running_var"][0] == sum(len(b) * b.var() * b.size / Fraction(b.size - 1) for b in batches) / len(x)
    assert {name for name in new if (new[name] != state[name]).any()} == {name for name in state if "running_" in name}


@pytest.mark.confirms(11)
@given(strategies.weights(), st.integers(1, 50))
@settings(max_examples=30)
def test_weights_come_back_from_their_conductances(w, g_max):
    rational = np.vectorize(Fraction, otypes=[object])(w)
    g_us, scale = pcmref.map_weights(rational, Fraction(g_max))
    assert (pcmref.unmap_weights(g_us, scale) == rational).all()
    assert g_us.max() == g_max and g_us.min() >= 0 and (g_us.min(0) == 0).all()


def bottleneck(x, state, stride=1, train=False, eps=F.BN_EPS):
    """Three layers, 1x1, 3x3 with the stride, 1x1, and the shortcut (He et al. 2016, figure 5; torchvision's)."""
    return blocks.residual_block(x, state, (1, stride, 1), partial(blocks.layer, train=train, eps=eps))


def bottleneck_backward(dy, state, tape, stride=1, eps=F.BN_EPS):
    return blocks.residual_block_backward(dy, state, (1, stride, 1), tape, partial(blocks.layer_backward, eps=eps))


def test_blocks_evaluate_at_stride_1_unless_told_otherwise():
    """The defaults of layers and blocks, forward and backward, and that each block takes its strides where it says."""
    x = np.arange(2.0 * 6 * 6 * 2).reshape(2, 6, 6, 2) % 7
    shapes = {"basic": [(2, 2, 3, 3)] * 2, "bottleneck": [(1, 2, 1, 1), (1, 1, 3, 3), (2, 1, 1, 1)]}
    pairs = {
        "basic": (blocks.basic_block, blocks.basic_block_backward),
        "bottleneck": (bottleneck, bottleneck_backward),
    }
    for kind, (block, backward) in pairs.items():
        state = {
            f"conv{i}.weight": np.ones(shape) + np.arange(shape[1])[:, None, None] for i, shape in enumerate(shapes[kind], 1)
        }
        for i, shape in enumerate(shapes[kind], 1):
            one = np.ones(shape[0])
            entries = {"weight": one, "bias": one, "running_mean": one, "running_var": 2 * one}
            state |= {f"bn{i}.{entry}": value for entry, value in entries.items()}
        y, tape = block(x, state)
        assert y.shape == x.shape and set(tape.values()) == {None}
        assert np.array_equal(y, block(x, state, 1, False, F.BN_EPS)[0]) and not np.array_equal(y, block(x, state, 1, True)[0])
        y, tape = block(x, state, train=True)
        (dx, grads), (dx_1, grads_1) = backward(y, state, tape), backward(y, state, tape, 1, F.BN_EPS)
        assert np.array_equal(dx, dx_1) and all(np.array_equal(grads[name], grads_1[name]) for name in grads_1)
        y, tape = block(x, state, 2, True)
        assert y.shape == (2, 3, 3, 2) and backward(y, state, tape, 2)[0].shape == x.shape
        assert tape["bn1"].y.shape[1] == (3 if kind == "basic" else 6)
    z = F.conv2d(x, state["conv1.weight"])
    expected = F.relu(F.batch_norm(z, *(state[f"bn1.{entry}"] for entry in ("weight", "bias", "running_mean", "running_var"))))
    assert np.array_equal(blocks.layer(x, state, "conv1", "bn1")[0], expected)
    y, saved = blocks.layer(x, state, "conv1", "bn1", train=True)
    assert saved.count == 2 * 6 * 6
    back = blocks.layer_backward(y, state, "conv1", "bn1", saved)
    assert np.array_equal(back[0], blocks.layer_backward(y, state, "conv1", "bn1", saved, 1, 0 * x, True, F.BN_EPS)[0])
    assert np.array_equal(back[1], y)
