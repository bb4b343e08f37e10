"""Global drift compensation: every read-out by hand, its invariances, and through a crossbar's own converters."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pcmref import Chip, PCMModel, ResNet, draws
from pcmref.errors import DeviceError
from pcmref.pcm import gdc
from pcmref.pcm.crossbar import Converter, Crossbar, Periphery

W_T0 = np.array([[0.5, -0.4], [0.2, -0.1]])  # [O, K]
W_T = np.array([[0.4, -0.36], [0.1, -0.08]])


def pairs(w):
    return np.maximum(np.stack([25 * w, -25 * w]), 0)


def positive(name, *shape, seed=0):
    return 25 * draws.uniform(seed, f"test gdc/{name}", shape)


@pytest.mark.confirms(14)
@pytest.mark.parametrize(
    ("kind", "alpha"),
    [
        ("device sum", 1.2 / 0.94),
        ("ones", 0.2 / 0.06),
        ("one-hot", 1.2 / 0.94),
        ("per column", [0.9 / 0.76, 0.3 / 0.18]),
    ],
)
def test_read_outs_by_hand(kind, alpha):
    got = gdc.factor(gdc.read_out([pairs(W_T0)], 25, kind), gdc.read_out([pairs(W_T)], 25, kind))
    np.testing.assert_allclose(got, alpha, rtol=1e-14)


@pytest.mark.confirms(14)
def test_device_sum_counts_both_devices_and_the_net_does_not():
    g = np.array([[[7.0, 2.0]], [[3.0, 2.0]]])
    assert gdc.read_out([g], 25, "device sum") == 14
    assert gdc.read_out([g], 25, "one-hot") == 2
    assert gdc.read_out([g], 25, "ones") == 4
    assert gdc.read_out([g, g[:, :, 0]], 25, "per column") == [8 / 3]


@pytest.mark.confirms(14)
@given(st.floats(1, 25), st.floats(0, 25), st.integers(1, 4), st.integers(1, 5))
def test_read_outs_of_equal_pairs(plus, minus, outputs, rows):
    """n pairs (a, b): n (a + b) in all, n |a - b| net; an input gives |a - b|, held above a ten-thousandth of G_max."""
    g = np.stack([np.full((outputs, rows), plus), np.full((outputs, rows), minus)])
    n, net = outputs * rows, abs(plus - minus)
    measured = {kind: gdc.read_out([g], 25, kind) for kind in gdc.READ_OUTS}
    assert measured["device sum"] == pytest.approx(n * (plus + minus)) and measured["ones"] == pytest.approx(n * net, abs=1e-12)
    assert measured["one-hot"] == pytest.approx(max(net, 25e-4))
    assert measured["per column"] == pytest.approx(np.full(outputs, max(net, 25e-4)))


@pytest.mark.confirms(14, 15)
@given(st.sampled_from(gdc.READ_OUTS), st.floats(0.01, 1), st.integers(0, 99))
def test_uniform_loss_is_undone_whatever_is_read(kind, loss, seed):
    """Every device times the same factor: alpha is its inverse."""
    g = [positive("g", 2, 4, 3, 2, 2, seed=seed), positive("bias", 2, 4, seed=seed)]
    alpha = gdc.factor(gdc.read_out(g, 25, kind), gdc.read_out([loss * a for a in g], 25, kind))
    np.testing.assert_allclose(alpha, 1 / loss, rtol=1e-12)


@pytest.mark.confirms(27)
@given(st.sampled_from(gdc.READ_OUTS), st.integers(1, 5), st.integers(1, 5), st.sampled_from([0, 1]), st.integers(0, 99))
def test_a_crossbar_with_ideal_converters_reads_what_the_arrays_say(kind, k, o, programmed, seed):
    g = programmed * positive("bar", 2, k, o, seed=seed)
    measured = Crossbar(g, 25.0, (2, 2)).read_out(kind)
    np.testing.assert_allclose(measured, gdc.read_out([g.transpose(0, 2, 1)], 25, kind), rtol=1e-12)


@pytest.mark.confirms(14, 27)
@pytest.mark.parametrize("voltage", [None, 0.5])
def test_a_crossbar_reads_out_by_hand(voltage):
    """Nets 4, 0 and 1, 3: their sums, means and columns, on tiles of a row; nothing at all reads as the floor."""
    g = np.array([[[7.0, 2.0], [1.0, 4.0]], [[3.0, 2.0], [0.0, 1.0]]])
    wanted = {"device sum": 20, "ones": 8, "one-hot": 2, "per column": [2.5, 1.5]}
    for kind, value in wanted.items():
        np.testing.assert_allclose(Crossbar(g, 25.0, (1, 2)).read_out(kind, voltage), value, rtol=1e-14)
    for kind in ("one-hot", "per column"):
        np.testing.assert_allclose(Crossbar(0 * g, 25.0).read_out(kind, voltage), 25e-4, rtol=1e-14)


@pytest.mark.confirms(27)
def test_converters_limit_the_read_out_until_the_voltage_is_lowered():
    g = np.full((2, 64, 3), 20.0)  # 64 * 1.6 devices fully on at full voltage
    exact = Crossbar(g, 25.0)
    coarse = Crossbar(g, 25.0, dac=Converter.of_bits(8), adc=Converter.of_bits(8, 12.0))
    assert coarse.read_out(voltage=1.0) == pytest.approx(3 * 12 * 25)
    voltage = 8 / 127  # a code of the DAC
    assert coarse.read_out(voltage=voltage) == pytest.approx(exact.read_out(), abs=3 * 25 * 12 / 254 / voltage)


@pytest.mark.confirms(66)
@pytest.mark.parametrize(("n_rows", "voltage"), [(48, 0.25), (5, 1.0)])
def test_a_summed_read_out_uses_the_range_and_does_not_leave_it(n_rows, voltage):
    """A device a row, fully on: at 12 devices' range 48 rows take a quarter of the voltage, and more is cut off; 5 take all."""
    g = np.zeros((2, n_rows, 2))
    g[0] = 25.0
    bar = Crossbar(g, 25.0, dac=Converter.of_bits(20), adc=Converter.of_bits(20, 12.0))
    exact = n_rows * 2 * 25
    assert bar.read_out() == pytest.approx(exact, rel=1e-5) and bar.read_out() == pytest.approx(bar.read_out(voltage=voltage))
    assert bar.read_out(voltage=1.1 * voltage) == pytest.approx(exact / 1.1, rel=1e-5)  # the ADC's range ends, or the DAC's


def test_compensated_multiplies_the_output_a_column_each_where_so_read():
    now, before = Crossbar(pairs(W_T.T), 25.0), Crossbar(pairs(W_T0.T), 25.0)
    x = np.array([[1.0, -2.0]])
    for kind in gdc.READ_OUTS:
        fixed = now.compensated(before.read_out(kind), kind)
        alpha = gdc.factor(before.read_out(kind), now.read_out(kind))
        np.testing.assert_allclose(fixed.multiply(x), alpha * (x @ W_T.T), rtol=1e-13)


@pytest.mark.confirms(14)
def test_no_current_no_compensation():
    assert gdc.factor(3.0, 0.0) == 1.0
    np.testing.assert_array_equal(gdc.factor(np.array([3.0, 4.0]), np.array([0.0, 2.0])), [1, 2])
    assert gdc.read_out([np.zeros((2, 3))], 25, "one-hot") == pytest.approx(25e-4)
    np.testing.assert_allclose(gdc.read_out([np.zeros((2, 3))], 25, "per column"), 25e-4)


def test_unknown_read_out_is_named():
    with pytest.raises(DeviceError, match="'half'"):
        gdc.read_out([np.ones((2, 3))], 25, "half")


def test_a_chip_compensates_what_it_reads():
    """alpha of a chip is the ratio of its own summed readings at t_0 and t, bias included, and enters every weight once."""
    state = {"fc.weight": np.array([[0.5, -0.2], [1.0, 0.1]]), "fc.bias": np.array([0.3, -0.4])}
    chip = Chip.program(state, PCMModel.joshi2020(), seed=3)
    at = [chip.at(t, read=2).g_us for t in (20.0, 86_400.0)]
    sums = [sum(g[name].sum() for name in state) for g in at]
    alpha = chip.gdc_factors(86_400.0, read=2)
    assert alpha == {"fc.weight": pytest.approx(sums[0] / sums[1], rel=1e-14)}
    plain, compensated = (chip.read(86_400.0, read=2, gdc=on) for on in (False, True))
    for name in state:
        np.testing.assert_allclose(compensated[name], alpha["fc.weight"] * plain[name], rtol=1e-14)


@pytest.mark.confirms(15, 60)
@pytest.mark.parametrize("periphery", [None, Periphery((2, 1))])
def test_per_column_a_chip_gives_each_output_its_own_factor(periphery):
    """Each output's column loses its own share: a factor a column restores every weight, on tiles and without."""
    model = replace(PCMModel.joshi2020(), gdc_read_out="per column", gdc_baseline="target", programming=(0.0, 0.0, 0.0))
    state = ResNet(1, 2, (3,), (1,)).init(dtype=np.float64)
    chip = Chip.program(state, replace(model, reads_noisily=False), seed=0)
    by_output = {name: np.linspace(0.04, 0.1, len(nu[0])) for name, nu in chip.nu.items()}
    chip = replace(chip, nu={name: 0 * nu + by_output[name].reshape(-1, *[1] * (nu.ndim - 2)) for name, nu in chip.nu.items()})
    compensated = chip.at(86_400.0, periphery=periphery).compensated()
    for bar, alpha in compensated.factors.items():
        np.testing.assert_allclose(alpha, (86_400 / 20) ** by_output[bar], rtol=1e-12)
    restored = replace(compensated, periphery=None).state()
    for name in chip.g_target_us:
        np.testing.assert_allclose(restored[name], state[name], rtol=1e-12, atol=1e-15)
    assert chip.read(86_400.0, gdc=True).keys() == restored.keys()
