"""The networks: counts, names, gradients, blocking, statistics, errors."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chi2, norm, uniform

import pcmref
from pcmref import draws
from pcmref.checks import check_distribution, check_gradient
from pcmref.errors import SettingError, ShapeError, StateError
from pcmref.nn import functional as F
from tests.helpers.roundings import without_rounding

TINY = pcmref.ResNet(2, 3, (3, 4), (1, 2))
TINY_IMAGENET = pcmref.ResNet(2, 3, (3, 4), (1, 1), "imagenet")
STEP = 2.0**-16  # of differences: so small that no relu turns on the way, and what longdouble rounds, over it, stays near 1e-14


def case(net, dtype=np.float64, n=5, size=9, seed=0):
    """(state away from its initial batch norms, images, labels)."""
    state = net.init(seed, dtype)
    for name, value in state.items():
        if value.ndim == 1 and not name.startswith("fc"):
            state[name] = (0.5 + draws.uniform(seed, f"test/{name}", value.shape)).astype(dtype)
    x = draws.standard_normal(seed, "test/x", (n, size, size, net.in_channels)).astype(dtype)
    return state, x, draws.integers(seed, "test/labels", net.num_classes, (n,))


def test_joshi32_has_the_papers_361722_synaptic_weights():
    net = pcmref.ResNet.joshi32()
    state = net.init()
    assert sum(state[name].size for name in net.synaptic()) == 361_722
    assert sum(state[name].size for name in net.trainable()) == 363_922
    convolutions = [oihw for _, _, oihw in net.conv_bn_pairs()]
    assert len([s for s in convolutions if s[2:] == (3, 3)]) == 31 and len([s for s in convolutions if s[2:] == (1, 1)]) == 2


def test_imagenet34_has_resnet34s_21797672_parameters():
    net = pcmref.ResNet.imagenet34()
    shapes = net.shapes()
    assert sum(int(np.prod(shapes[name])) for name in net.trainable()) == 21_797_672
    assert shapes["conv1.weight"] == (64, 3, 7, 7) and shapes["layer4.0.downsample.0.weight"] == (512, 256, 1, 1)


def test_a_bottleneck_is_four_times_as_wide_as_its_stage():
    """He et al. 2016, table 1: ResNet-50 ends in 2,048 channels; 25,557,032 parameters are torchvision's."""
    net = pcmref.ResNet(3, 1000, (64, 128, 256, 512), (3, 4, 6, 3), "imagenet", block="bottleneck")
    shapes = net.shapes()
    assert sum(int(np.prod(shapes[name])) for name in net.trainable()) == 25_557_032
    assert shapes["layer2.0.conv3.weight"] == (512, 128, 1, 1) and shapes["fc.weight"] == (1000, 2048)


def test_a_network_is_joshi32_on_cifar_unless_told_otherwise():
    assert pcmref.ResNet() == pcmref.ResNet.joshi32() == pcmref.ResNet(3, 10, (16, 28, 56), (5, 5, 5), "small")


def test_a_shortcut_has_weights_where_the_image_or_the_width_changes():
    """The image halves in every later stage, so its first block's shortcut has weights even where the width stays."""
    shapes = pcmref.ResNet(1, 2, (4, 4, 6), (1, 2, 1)).shapes()
    shortcuts = {name: shape for name, shape in shapes.items() if name.endswith("downsample.0.weight")}
    assert shortcuts == {"layer2.0.downsample.0.weight": (4, 4, 1, 1), "layer3.0.downsample.0.weight": (6, 4, 1, 1)}


def test_resnet8_has_one_block_a_stage():
    assert pcmref.ResNet.resnet8().blocks == (1, 1, 1) and "layer3.0.conv2.weight" in pcmref.ResNet.resnet8().shapes()


@pytest.mark.confirms(30, 33, 79, 80, 85)
@pytest.mark.parametrize("engine", ["plain", "fast"])
@pytest.mark.parametrize("net", [TINY, TINY_IMAGENET], ids=["small", "imagenet"])
def test_gradients_by_central_differences(net, engine):
    """Every parameter and the input, each along two axes and two mixed directions."""
    state, x, labels = case(net, np.longdouble)
    logits, tape = net.forward(state, x, train=True, engine=engine)
    grads = net.backward(state, tape, F.softmax_cross_entropy_backward(logits, labels))
    assert set(grads) == {*net.trainable(), "input"}
    for name, gradient in grads.items():

        def loss(value, name=name):
            moved, images = (state, value) if name == "input" else (state | {name: value}, x)
            return F.softmax_cross_entropy(net.forward(moved, images, train=True, engine=engine)[0], labels)

        check_gradient(loss, gradient, x if name == "input" else state[name], 2, STEP)


def test_the_loss_falls_by_the_gradients_square():
    """Taylor, to first order, for all parameters together: d loss(w + h g)/dh = |g|^2 at h = 0."""
    state, x, labels = case(TINY, np.longdouble)
    logits, tape = TINY.forward(state, x, train=True)
    grads = TINY.backward(state, tape, F.softmax_cross_entropy_backward(logits, labels))

    def loss(h):
        moved = state | {n: state[n] + h[0] * grads[n] for n in TINY.trainable()}
        return F.softmax_cross_entropy(TINY.forward(moved, x, train=True)[0], labels)

    square = sum((grads[n] ** 2).sum() for n in TINY.trainable())
    check_gradient(loss, np.array([square]), np.zeros(1, np.longdouble), 1, STEP)


@given(st.integers(1, 40), st.sampled_from([1, 2, 3]))
@settings(max_examples=15)
def test_results_are_the_same_to_the_bit_for_any_number_of_workers(n, workers):
    state, x, labels = case(TINY, np.float32, n + 1)
    assert np.array_equal(TINY.forward(state, x, workers=workers), TINY.forward(state, x, workers=1))
    results = []
    for w in (1, workers):
        logits, tape = TINY.forward(state, x, train=True, workers=w)
        grads = TINY.backward(state, tape, F.softmax_cross_entropy_backward(logits, labels))
        results.append({"logits": logits} | grads | TINY.updated_state(state, tape))
    assert all(np.array_equal(results[0][k], results[1][k]) for k in results[0])


@pytest.mark.confirms(32, 78, 79)
@pytest.mark.parametrize("net", [TINY, TINY_IMAGENET], ids=["small", "imagenet"])
def test_training_and_evaluation_agree_once_the_statistics_are_the_batchs_own(net):
    """To the bit in the text, whose batch norm is one function; fast folds it, and is judged in test_fast.py."""
    state, x, _ = case(net)
    logits, tape = net.forward(state, x, train=True, engine="plain")
    frozen = dict(state)
    for _, bn, _ in net.conv_bn_pairs():
        frozen[f"{bn}.running_mean"], frozen[f"{bn}.running_var"] = tape[bn].mean, tape[bn].var
    assert np.array_equal(net.forward(frozen, x, engine="plain"), logits)


@pytest.mark.confirms(35)
def test_updated_state_moves_the_buffers_only_and_in_pytorchs_convention():
    """To the bit: whole images and weights and 2^8 pixels have exact means and variances; one quotient and one sum round."""
    state, x, _ = case(TINY, n=4, size=8)
    x, state["conv1.weight"] = np.round(4 * x), np.round(8 * state["conv1.weight"])
    state |= {name: np.round(8 * state[name]) for name in ("bn1.running_mean", "bn1.running_var")}
    _, tape = TINY.forward(state, x, train=True)
    new = TINY.updated_state(state, tape, momentum=0.25)
    y = F.conv2d(x, state["conv1.weight"], 1, 1)
    unbiased = y.var((0, 1, 2)) * 256 / 255
    assert np.array_equal(new["bn1.running_var"], 0.75 * state["bn1.running_var"] + 0.25 * unbiased)
    assert np.array_equal(new["bn1.running_mean"], 0.75 * state["bn1.running_mean"] + 0.25 * y.mean((0, 1, 2)))
    assert all(np.array_equal(new[name], state[name]) for name in TINY.trainable())
    assert all(np.array_equal(TINY.updated_state(state, tape, momentum=0.0)[n], state[n]) for n in state)


def test_forward_changes_none_of_its_arguments():
    state, x, labels = case(TINY)
    before, x_before = {k: v.copy() for k, v in state.items()}, x.copy()
    logits, tape = TINY.forward(state, x, train=True)
    TINY.forward(state, x)
    dlogits = F.softmax_cross_entropy_backward(logits, labels)
    kept = dlogits.copy()
    TINY.backward(state, tape, dlogits)
    assert np.array_equal(x, x_before) and all(np.array_equal(before[k], state[k]) for k in state)
    assert np.array_equal(dlogits, kept)


def test_images_are_independent_in_evaluation():
    """To the bit, where nothing rounds: what a matrix product adds in which order depends on the images beside."""
    net, state, x = without_rounding(TINY, 20, 8)
    order = draws.permutation(0, "test/order", 20)
    logits = net.forward(state, x)
    assert len(np.unique(logits)) > 20
    assert np.array_equal(net.forward(state, x[order]), logits[order])
    assert np.array_equal(net.forward(state, x[:1]), logits[:1])


def test_predict_takes_any_number_of_images_and_lazy_arrays(tmp_path):
    state, x, _ = case(TINY, np.float32, 1030, 4)
    logits = pcmref.predict(TINY, state, x)
    assert logits.shape == (1030, 3) and np.array_equal(logits, TINY.forward(state, x))
    np.save(tmp_path / "x.npy", x)
    assert np.array_equal(pcmref.predict(TINY, state, np.load(tmp_path / "x.npy", mmap_mode="r")), logits)


def test_init_is_reproducible_and_another_with_another_seed():
    state, again, other = (pcmref.ResNet.joshi32().init(seed) for seed in (3, 3, 4))
    assert all(np.array_equal(state[k], again[k]) for k in state)
    changed = {k for k in state if not np.array_equal(state[k], other[k])}
    assert changed == set(pcmref.ResNet.joshi32().synaptic()) and (state["bn1.running_var"] == 1).all()


@pytest.mark.confirms(58)
def test_initial_weights_have_their_laws():
    """Convolutions normal with variance 2/(O kH kW), fc uniform in +-1/sqrt(C); 1e-6 each for a false alarm."""
    state = pcmref.ResNet(3, 600, (36, 40), (2, 2)).init(seed=5, dtype=np.float64)
    for name, outputs in (("layer1.1.conv1.weight", 36), ("layer2.1.conv2.weight", 40)):
        check_distribution(state[name] / np.sqrt(2 / (outputs * 3 * 3)), norm.cdf, effect=0.05)
    check_distribution(state["fc.weight"] * np.sqrt(40), uniform(-1, 2).cdf, effect=0.05)
    assert abs(state["fc.weight"]).max() <= 1 / np.sqrt(40) and abs(state["fc.bias"]).max() <= 1 / np.sqrt(40)


@pytest.mark.confirms(58)
def test_initial_weights_have_their_moments():
    """Of n normal weights the sum is normal with variance n, the sum of squares chi squared with n; 1e-6 for a false alarm.

    Of n values in an interval of length b a sum is off its mean by b sqrt(n ln(2/p)/2) with a chance of p at most (Hoeffding).
    """
    state = pcmref.ResNet.joshi32().init(seed=3, dtype=np.float64)
    w = np.concatenate([(w / np.sqrt(2 / (len(w) * w[0, 0].size))).ravel() for w in state.values() if w.ndim == 4])
    assert abs(w.sum()) <= norm.isf(5e-7) * np.sqrt(w.size)
    low, high = chi2(w.size).interval(1 - 1e-6)
    assert low <= np.square(w).sum() <= high
    fc = np.concatenate([state["fc.weight"].ravel(), state["fc.bias"]]) * np.sqrt(56)  # uniform in +-1
    off = np.sqrt(fc.size * np.log(2e6) / 2)
    assert abs(fc.sum()) <= 2 * off and abs(np.square(fc).sum() - fc.size / 3) <= off


@pytest.mark.parametrize("net", [TINY, TINY_IMAGENET, pcmref.ResNet.joshi32(), pcmref.ResNet.imagenet34()])
def test_the_architecture_follows_from_a_state_and_from_its_config(net):
    shapes = {name: np.broadcast_to(np.float32(0), shape) for name, shape in net.shapes().items()}
    assert pcmref.ResNet.of_state(shapes) == net == pcmref.ResNet(**net.config())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("fc.bias"), "missing.*fc.bias"),
        (lambda s: s.update(extra=np.zeros(1)), "unknown.*extra"),
        (lambda s: s.update({"fc.bias": np.zeros(4)}), "shape"),
        (lambda s: s.update({"fc.bias": np.array([0.0, np.nan, 0])}), "NaN"),
        (lambda s: s.update({"bn1.running_var": -np.ones(3)}), "negative"),
        (lambda s: s.update({"fc.bias": np.zeros(3, int)}), "floating"),
    ],
)
def test_a_state_that_does_not_fit_is_named(change, message):
    state = TINY.init()
    TINY.check_state(state)
    change(state)
    with pytest.raises(StateError, match=message):
        TINY.check_state(state)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.zeros((4, 2, 8, 8)), "NCHW"),
        (np.zeros((4, 8, 8)), r"\[N, H, W, 2\]"),
        (np.zeros((0, 8, 8, 2)), "no images"),
        (np.zeros((4, 8, 8, 2), np.uint8), "floating point"),
    ],
)
def test_a_batch_that_does_not_fit_is_named(x, message):
    for train in (False, True):
        with pytest.raises(ShapeError, match=message):
            TINY.forward(TINY.init(), x, train=train)


def test_an_impossible_network_is_refused():
    for bad in ({"widths": (16,)}, {"stem": "large"}, {"blocks": (5, 0, 5)}, {"in_channels": 0}, {"num_classes": 1.5}):
        with pytest.raises(SettingError, match="ResNet"):
            pcmref.ResNet(**bad)
    for name in ("in_channels", "num_classes"):
        assert getattr(pcmref.ResNet(**{name: 65_536}), name) == 65_536
        with pytest.raises(SettingError, match=name):
            pcmref.ResNet(**{name: 65_537})
    with pytest.raises(StateError, match="no ResNet"):
        pcmref.ResNet.of_state({"conv1.weight": np.zeros((3, 3, 3, 3))})


def views(x):
    """The same images in other layouts of memory: Fortran order, a strided view, NCHW turned, reversed twice, read-only."""
    strided = np.repeat(x, 2, axis=0)[::2]
    frozen = x.copy()
    frozen.flags.writeable = False
    nchw = np.ascontiguousarray(x.transpose(0, 3, 1, 2)).transpose(0, 2, 3, 1)
    return [np.asfortranarray(x), strided, nchw, x[::-1].copy()[::-1], frozen, x.astype(x.dtype.newbyteorder(">"))]


@pytest.mark.parametrize("kind", range(6))
def test_the_layout_of_the_images_in_memory_changes_no_bit(kind):
    state, x, labels = case(TINY, np.float32, 19)
    results = []
    for images in (x, views(x)[kind]):
        logits, tape = TINY.forward(state, images, train=True)
        grads = TINY.backward(state, tape, F.softmax_cross_entropy_backward(logits, labels))
        results.append(grads | {"logits": logits, "evaluation": TINY.forward(state, images)})
    assert all(np.array_equal(results[0][k], results[1][k]) for k in results[0])


@pytest.mark.parametrize(
    "change",
    [
        lambda s: s.update({"bn1.bias": np.zeros(1)}),
        lambda s: s.update({"fc.bias": np.zeros(())}),
        lambda s: s.update({"fc.weight": np.zeros((4, 4)), "fc.bias": np.zeros(4)}),
        lambda s: s.update({"conv1.weight": np.zeros((3, 2, 5, 5))}),
        lambda s: s.pop("layer2.0.downsample.0.weight"),
        lambda s: s.update({"bn1.weight": None}),
    ],
)
def test_forward_refuses_a_state_that_would_fit_by_broadcasting(change):
    state, x, _ = case(TINY)
    change(state)
    for train in (False, True):
        with pytest.raises(StateError, match="must be an array of shape"):
            TINY.forward(state, x, train=train)
    with pytest.raises(StateError):
        TINY.forward(None, x)


def test_what_was_found_in_a_state_is_said():
    state, x, _ = case(TINY)
    for value, found in ((np.zeros(2), r"found \(2,\)"), (7, "found int")):
        with pytest.raises(StateError, match=found):
            TINY.forward(state | {"fc.bias": value}, x)
    del state["fc.bias"]
    with pytest.raises(StateError, match="found nothing"):
        TINY.forward(state, x)


def test_backward_takes_dlogits_in_the_passs_dtype_and_shape():
    state, x, labels = case(TINY, np.float32)
    logits, tape = TINY.forward(state, x, train=True)
    dlogits = F.softmax_cross_entropy_backward(logits, labels)
    grads = TINY.backward(state, tape, dlogits.astype(np.float64))
    assert {g.dtype for g in grads.values()} == {np.dtype(np.float32)}
    with pytest.raises(ShapeError, match="dlogits"):
        TINY.backward(state, tape, dlogits[:-1])


def test_one_image_of_one_pixel_has_no_variance_to_train_on():
    state, x, _ = case(TINY, n=1, size=1)
    assert TINY.forward(state, x).shape == (1, 3)
    with pytest.raises(ShapeError, match="more than one value"):
        TINY.forward(state, x, train=True)


def test_a_network_of_too_many_blocks_is_refused():
    with pytest.raises(SettingError, match="1,000 blocks"):
        pcmref.ResNet(widths=(1,) * 20, blocks=(999,) * 20)
    with pytest.raises(SettingError, match="1,000 blocks"):
        pcmref.ResNet(widths=(1, 1), blocks=(1000, 1))
    assert pcmref.ResNet(widths=(1, 1), blocks=(1, 999)).blocks == (1, 999)
    assert pcmref.ResNet(np.int64(1), 10, [np.int32(4)], [1]) == pcmref.ResNet(1, 10, (4,), (1,))
