"""AdaBS: what it estimates, what it leaves alone, and what drops out of it."""

import numpy as np
import pytest

import pcmref
from pcmref import draws
from pcmref.errors import SettingError, ShapeError
from pcmref.nn import functional as F

NET = pcmref.ResNet(1, 3, (3, 4), (1, 1))
X = draws.standard_normal(0, "test/adabs", (23, 8, 8, 1))


@pytest.mark.confirms(36)
def test_one_batch_gives_the_unbiased_statistics_of_that_batch():
    """To the bit: whole images and weights, and the batch holds 2^10 pixels, so its sums, means and variances are exact."""
    state, x = NET.init(0, np.float64), np.round(4 * X[:16])
    state["conv1.weight"] = np.round(8 * state["conv1.weight"])
    new = pcmref.adabs(NET, state, x, batch_size=100)
    y = F.conv2d(x, state["conv1.weight"], 1, 1)
    assert np.array_equal(new["bn1.running_mean"], y.mean((0, 1, 2)))
    assert np.array_equal(new["bn1.running_var"], y.var((0, 1, 2)) * 1024 / 1023)
    assert all(np.array_equal(new[name], state[name]) != ("running_" in name) for name in state)


def test_what_was_there_before_does_not_matter():
    state = NET.init(0, np.float64)
    a = pcmref.adabs(NET, state, X)
    for there in (5.0, np.nan):
        b = pcmref.adabs(NET, state | {k: v + there for k, v in state.items() if "running_" in k}, X)
        assert all(np.array_equal(a[k], b[k]) for k in a)


@pytest.mark.confirms(36)
def test_a_scale_of_a_layer_drops_out():
    """To the bit: variances above 2^53 epsilon swallow it, and a scale by 4 rounds nothing; fc has no batch norm behind it."""
    state = {k: 2.0**40 * v if v.ndim == 4 else v for k, v in NET.init(0, np.float64).items()}
    scaled = state | {k: 4 * v for k, v in state.items() if v.ndim == 4}
    a, b = (pcmref.adabs(NET, s, X) for s in (state, scaled))
    assert all((b[k] == 16 * v).all() and (v > NET.eps * 2.0**53).all() for k, v in a.items() if k.endswith("running_var"))
    assert np.array_equal(NET.forward(a, X), NET.forward(b, X))


@pytest.mark.confirms(35, 36, 79)
@pytest.mark.parametrize("momentum", [0.1, 0.6, 1.0])
def test_the_moving_average_is_that_of_training_batch_by_batch(momentum):
    """running = (1 - m) running + m new, from what was there: to the bit as training passes that change nothing else."""
    state = NET.init(0, np.float64) | {"bn1.running_mean": np.array([1.0, -2.0, 0.5])}
    got = pcmref.adabs(NET, state, X, batch_size=10, momentum=momentum)
    expected = state
    for part in (X[:10], X[10:20], X[20:]):
        expected = NET.updated_state(expected, NET.forward(expected, part, train=True)[1], momentum)
    assert all(np.array_equal(got[name], expected[name]) for name in state)


@pytest.mark.confirms(36)
def test_with_a_momentum_the_batches_enter_one_after_the_other():
    """To the bit, as in one batch: a momentum of 1/4 adds two bits a batch to what was there."""
    x, there, m = np.round(4 * X[:16]), np.array([1.0, -2.0, 0.5]), 0.25
    state = NET.init(0, np.float64) | {"bn1.running_mean": there}
    state["conv1.weight"] = np.round(8 * state["conv1.weight"])
    new = pcmref.adabs(NET, state, np.concatenate([x, 2 * x]), batch_size=16, momentum=m)
    mean = F.conv2d(x, state["conv1.weight"], 1, 1).mean((0, 1, 2))
    assert np.array_equal(new["bn1.running_mean"], (1 - m) * ((1 - m) * there + m * mean) + m * (2 * mean))


def test_a_moving_average_goes_on_where_it_stopped():
    state = NET.init(0, np.float64)
    once = pcmref.adabs(NET, state, X[:20], batch_size=5, momentum=0.3)
    twice = pcmref.adabs(NET, pcmref.adabs(NET, state, X[:10], 5, momentum=0.3), X[10:20], 5, momentum=0.3)
    assert all(np.array_equal(once[name], twice[name]) for name in state)


@pytest.mark.parametrize(
    ("net", "size"),
    [
        (pcmref.ResNet(1, 3, (3,), (1,)), 1),
        (NET, 2),
        (pcmref.ResNet(1, 3, (2, 2, 2), (1, 1, 1)), 4),
        (pcmref.ResNet(1, 3, (3, 4), (1, 1), "imagenet"), 8),
    ],
)
def test_a_last_batch_of_one_value_a_channel_is_refused(net, size):
    """Every stage but the first halves the maps, ImageNet's stem twice: one of `size` ends as a pixel, a larger does not."""
    x = draws.standard_normal(0, "test/last batch", (3, size, size, 1))
    with pytest.raises(ShapeError, match="3 calibration images in batches of 2 leave one"):
        pcmref.adabs(net, net.init(0, np.float64), x, batch_size=2)
    for images in (x[:2], np.concatenate([x, x[:1]]), np.concatenate([x, x[:, :1]], 1)):
        assert pcmref.adabs(net, net.init(0, np.float64), images, batch_size=2).keys() == net.shapes().keys()


def test_bad_settings_are_refused():
    with pytest.raises(ShapeError, match="at least one"):
        pcmref.adabs(NET, NET.init(), X[:0])
    for batch_size in (0, 2.0, True):
        with pytest.raises(SettingError, match="batch_size"):
            pcmref.adabs(NET, NET.init(), X, batch_size=batch_size)
    for momentum in (0, -0.1, 1.1, np.nan):
        with pytest.raises(SettingError, match="momentum"):
            pcmref.adabs(NET, NET.init(), X, momentum=momentum)
    with np.errstate(all="ignore"), pytest.raises(ShapeError, match="bn1.running_var is not finite"):
        pcmref.adabs(NET, NET.init(dtype=np.float64), 1e200 * X.astype(np.float64), engine="plain")
