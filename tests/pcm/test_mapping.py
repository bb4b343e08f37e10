"""Weights to differential pairs and back."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import pcmref
from pcmref import strategies
from pcmref.errors import DeviceError
from pcmref.pcm.mapping import crossbars, map_weights, unmap_weights

WEIGHTS = strategies.tensors(hnp.array_shapes(max_dims=4, max_side=4), largest=1e3)


@pytest.mark.confirms(11, 13)
@given(WEIGHTS, st.floats(1, 100))
def test_the_mapping_comes_back(w, g_max_us):
    g_us, scale = map_weights(w, g_max_us)
    assert np.allclose(unmap_weights(g_us, scale), w, rtol=4 * 2.0**-53, atol=0)


@pytest.mark.confirms(11)
@given(WEIGHTS)
def test_one_device_of_each_pair_is_at_zero_and_none_leaves_the_range(w):
    g_us, scale = map_weights(w)
    assert g_us.shape == (2, *w.shape) and g_us.dtype == np.float64
    assert (g_us.min(0) == 0).all() and (g_us >= 0).all() and (g_us <= 25.0).all()
    assert (np.sign(g_us[0] - g_us[1]) == np.sign(w)).all()
    if np.abs(w).max() > 0:
        assert g_us.max() == pytest.approx(25.0, rel=1e-15) and scale == pytest.approx(25.0 / np.abs(w).max(), rel=1e-15)


@pytest.mark.confirms(11)
@given(WEIGHTS)
def test_turning_the_sign_swaps_the_devices(w):
    (plus, minus), _ = map_weights(w)
    (plus_of_minus, minus_of_minus), _ = map_weights(-w)
    assert np.array_equal(plus, minus_of_minus) and np.array_equal(minus, plus_of_minus)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.longdouble])
@pytest.mark.parametrize("top", [0.0, 5e-324, 1e-310, 1e-300, 1e-30, 6e-8, 3e-6, 7e-5, 1.0])
def test_what_a_device_reads_back_is_worth_goes_to_zero_with_the_weights(top, dtype):
    """Noise of 1 uS is max|W|/G_max as a weight, with no jump at 0, where it is a normal number below all that is computed."""
    w = np.array([top, -top / 4, 0], dtype)
    top = float(abs(w).max())
    g_us, scale = map_weights(w)
    noise = unmap_weights(g_us + np.array([[1.0], [0.0]]), scale)[2]  # of the third weight, 0
    assert noise == pytest.approx(max(top / 25, 2.0**-1010), rel=1e-15, abs=0)
    assert np.finfo(np.float64).tiny < 1 / scale < np.inf and g_us.max() == pytest.approx(min(25, top * 2.0**1010), rel=1e-15)
    assert np.allclose(unmap_weights(g_us, scale), w, rtol=4 * 2.0**-53, atol=0)


def test_no_device_holds_a_minus_zero():
    assert not np.signbit(map_weights(np.array([0.5, 0.0, -0.0, -0.25]))[0]).any()


def test_longdouble_stays_longdouble():
    assert map_weights(np.ones(3, np.longdouble))[0].dtype == np.longdouble
    assert map_weights(np.ones(3, np.float16))[0].dtype == np.float64


def test_crossbars_are_the_convolutions_and_fc_with_its_bias():
    net = pcmref.ResNet.resnet8(in_channels=1)
    bars = crossbars(net.init())
    assert bars["fc.weight"] == ["fc.weight", "fc.bias"] and bars["conv1.weight"] == ["conv1.weight"]
    assert sorted(n for names in bars.values() for n in names) == sorted(net.synaptic())


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_weights_that_are_not_finite_are_refused(bad):
    with pytest.raises(DeviceError, match="NaN or infinity"):
        map_weights(np.array([1.0, bad]))
