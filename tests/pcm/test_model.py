"""The device model: each equation at points worked out by hand, its limits, and its distributions."""

import math
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import integrate, stats

from pcmref import draws
from pcmref.checks import check_distribution
from pcmref.errors import DeviceError, SettingError
from pcmref.pcm.model import PCMModel
from tests.helpers.roundings import gamma

MODEL = PCMModel.joshi2020()
CONDUCTANCES = st.floats(0, 25)
NORMAL = st.floats(-8, 8)
TIMES = st.floats(20, 1e10)


@pytest.mark.confirms(1)
def test_programming_noise_at_the_documents_points():
    assert MODEL.programming_std_us(np.array([0, 12.5, 25.0])) == pytest.approx([0.26348, 0.952705, 1.05538], rel=1e-12)


@pytest.mark.confirms(3, 4, 5)
def test_drift_exponents_at_points_worked_out_by_hand():
    """x = .1: mu = .0155 ln 10 + .0244 = .06009; both lines end at their bounds."""
    assert MODEL.drift_exponent_mean(2.5) == pytest.approx(0.0155 * math.log(10) + 0.0244, rel=1e-14)
    assert MODEL.drift_exponent_mean(2.5) == pytest.approx(0.06009, abs=5e-6)
    assert MODEL.drift_exponent_std(2.5) == pytest.approx(0.0125 * math.log(10) - 0.0059, rel=1e-14)
    assert [float(MODEL.drift_exponent_mean(g)) for g in (0, 1e-6, 25)] == [0.1, 0.1, 0.049]
    assert [float(MODEL.drift_exponent_std(g)) for g in (0, 1e-6, 25)] == [0.045, 0.045, 0.008]


@pytest.mark.confirms(8, 9)
def test_read_noise_at_the_documents_points():
    assert MODEL.read_noise_q(np.array([25, 2.5, 0.25])) == pytest.approx([0.0088, 0.039308, 0.175583], rel=2e-5)
    cap = (0.0088 / 0.2) ** (1 / 0.65)
    assert cap == pytest.approx(0.0082, abs=5e-5)
    assert MODEL.read_noise_q(25 * cap * 0.999) == 0.2 > MODEL.read_noise_q(25 * cap * 1.001)
    assert MODEL.read_noise_q(0.0) == 0.2
    assert replace(MODEL, q_factor=0.0).read_noise_q(np.array([0.0, 2.5])).tolist() == [0.0, 0.0]
    relative = [MODEL.read_noise_std_us(g, g, t) / g for g, t in ((25.0, 20.0), (2.5, 20.0), (25.0, 86_420.0))]
    assert relative == pytest.approx([0.036818, 0.164458, 0.044764], rel=2e-5)


@pytest.mark.confirms(9)
@pytest.mark.parametrize(("t_s", "t_r_s"), [(6.0, 2.0), (20.0, 0.5), (1000.0, 2.0)])
def test_read_noise_adds_up_its_spectrum_over_the_band(t_s, t_r_s):
    """sigma_nG^2 = the integral of S = (G_D Q_s)^2/f from 1/(t + t_r) to 1/(2 t_r); both ends count where pulses are long."""
    model, g_us = PCMModel(t_0_s=6.0, t_r_s=t_r_s), 2.5
    power, error = integrate.quad(lambda f_hz: (3 * model.read_noise_q(g_us)) ** 2 / f_hz, 1 / (t_s + t_r_s), 1 / (2 * t_r_s))
    assert (
        model.read_noise_std_us(3.0, g_us, t_s) ** 2 == pytest.approx(power, rel=gamma(20), abs=error) and error < 1e-6 * power
    )


@given(CONDUCTANCES, NORMAL, NORMAL, NORMAL, TIMES)
def test_no_conductance_is_ever_negative(g, z1, z2, z3, t_s):
    for model in (MODEL, PCMModel.aihwkit(), PCMModel.crosssim()):
        g_prog = model.program(g, z1)
        g_drift = model.drift(g_prog, model.drift_exponent(g, z2), t_s)
        assert g_prog >= 0 and g_drift >= 0 and model.read(g_drift, g, t_s, z3) >= 0


@pytest.mark.confirms(7)
@given(CONDUCTANCES, st.floats(-0.1, 0.3), TIMES, st.floats(1, 1e5))
def test_drift_starts_at_t0_decays_where_nu_is_positive_and_composes(g, nu, t_s, factor):
    assert MODEL.drift(g, nu, 20.0) == g
    now, later = MODEL.drift(g, nu, t_s), MODEL.drift(g, nu, t_s * factor)
    assert later <= now if nu >= 0 else later >= now
    assert later == pytest.approx(now * factor**-nu, rel=1e-12)


def test_drift_at_the_pinned_point():
    """nu = .049, t = 60 s: .94759 with t_0 = 20 s."""
    assert MODEL.drift(1.0, 0.049, 60.0) == pytest.approx(0.94759, abs=5e-6)


@pytest.mark.confirms(2, 10)
@given(CONDUCTANCES, NORMAL)
def test_zero_noise_is_the_target_and_noise_is_linear_in_z(g, z):
    assert MODEL.program(g, 0.0) == g and MODEL.read(g, g, 100.0, 0.0) == g
    free = g + MODEL.programming_std_us(g) * z
    assert MODEL.program(g, z) == max(free, 0)
    assert MODEL.read(g, 25.0, 100.0, z) == pytest.approx(max(g + MODEL.read_noise_std_us(g, 25.0, 100.0) * z, 0), rel=1e-15)


def test_a_polynomial_below_zero_means_no_noise():
    model = PCMModel(programming=(0.5, 0.0, -1.0))
    assert model.programming_std_us(np.array([0.0, 12.5, 25.0])) == pytest.approx([0.5, 0.25, 0.0], rel=1e-15)
    assert model.program(25.0, -3.0) == 25.0


@pytest.mark.confirms(1)
def test_programming_scales_with_the_range():
    wide = PCMModel(g_max_us=50.0)
    assert wide.program(10.0, 1.3) == pytest.approx(2 * MODEL.program(5.0, 1.3), rel=1e-15)


@pytest.mark.confirms(1)
@pytest.mark.parametrize("g_us", [2.5, 12.5, 25.0])
def test_programming_noise_and_a_reading_at_t0_make_the_measured_deviation(g_us):
    """Var[(G_T + s z)(1 + r z')] = s^2 + r^2 (G_T^2 + s^2) = sigma^2, to 24 roundings of sigma^2 + (r G_T)^2 < 2 sigma^2."""
    s = PCMModel(programming_contains_read=True).programming_std_us(g_us)
    r, sigma = MODEL.read_noise_std_us(1.0, g_us, MODEL.t_0_s), MODEL.programming_std_us(g_us)
    assert 0 < s < sigma and s**2 + r**2 * (g_us**2 + s**2) == pytest.approx(sigma**2, rel=2 * gamma(24))


@pytest.mark.confirms(6, 10)
@pytest.mark.parametrize("g", [25.0, 6.0, 0.5])
def test_distributions_by_kolmogorov_smirnov(g):
    """Programmed (away from the clip), exponent and reading against their laws; 1e-6 each for a false alarm."""
    z = draws.standard_normal(0, f"test/model/{g}", (3, 20_000))
    check = partial(check_distribution, effect=0.032)  # what 20,000 draws show
    if g > 5 * MODEL.programming_std_us(g):
        check(MODEL.program(g, z[0]), stats.norm(g, MODEL.programming_std_us(g)).cdf)
    mean, std = MODEL.drift_exponent_mean(g), MODEL.drift_exponent_std(g)
    check(MODEL.drift_exponent(g, z[1]), stats.norm(mean, std).cdf)
    check(PCMModel.aihwkit().drift_exponent(g, z[1]) / std, stats.foldnorm(mean / std).cdf)
    read = MODEL.read(g, g, 100.0, z[2])
    check(read[read > 0], _cut_normal(g, MODEL.read_noise_std_us(g, g, 100.0)).cdf)


def _cut_normal(mean, std):
    return stats.truncnorm(-mean / std, np.inf, mean, std)


def test_longdouble_computes_in_longdouble():
    g, z = np.array([3.0], np.longdouble), np.array([0.7], np.longdouble)
    nu = MODEL.drift_exponent(g, z)
    results = [MODEL.program(g, z), nu, MODEL.drift(g, nu, 60.0), MODEL.read(g, g, 60.0, z)]
    assert {r.dtype for r in results} == {np.dtype(np.longdouble)}


@pytest.mark.parametrize("t_s", [19.999, 0.0, -1.0, float("nan"), float("inf")])
def test_a_time_before_t0_is_an_error(t_s):
    for call in (lambda: MODEL.drift(1.0, 0.05, t_s), lambda: MODEL.read(1.0, 1.0, t_s, 0.0)):
        with pytest.raises(DeviceError, match="t_0 = 20"):
            call()


@pytest.mark.parametrize("g", [-0.1, 25.1, float("nan")])
def test_a_target_outside_the_range_is_an_error(g):
    with pytest.raises(DeviceError, match=r"0\.\.25"):
        MODEL.program(g, 0.0)


def test_profiles_differ_in_named_fields_and_crosssim_neither_drifts_nor_reads_noisily():
    cs = PCMModel.crosssim()
    assert cs.programming_std_us(np.array([0, 12.5, 25.0])) == pytest.approx([0.28639, 0.95528, 1.06552], abs=6e-6)
    assert (cs.g_min_us, MODEL.g_min_us, cs.g_max_us) == (0.25, 0.0, 25.0)
    assert cs.drift(7.0, cs.drift_exponent(7.0, 2.0), 1e6) == 7.0 and cs.read(7.0, 7.0, 1e6, 3.0) == 7.0
    assert PCMModel.aihwkit().drift_exponent(0.0, -3.0) == pytest.approx(0.035) and MODEL.drift_exponent(
        0.0, -3.0
    ) == pytest.approx(-0.035)


def test_every_constant_has_unit_grade_and_source():
    constants = PCMModel.constants()
    assert {name for name, *_ in constants} == set(MODEL.__dataclass_fields__) - {"name"}
    assert all(grade in ("A", "B", "C", "D") and source for _, _, _, grade, source in constants)


def test_impossible_constants_are_refused():
    for bad in ({"nu_law": "none"}, {"g_max_us": 0.0}, {"t_0_s": 1e-9}, {"pair": "single"}, {"t_r_s": float("nan")}):
        with pytest.raises(SettingError, match="PCMModel"):
            PCMModel(**bad)
    for name in ("g_max_us", "t_0_s", "t_r_s", "q_max"):
        with pytest.raises(SettingError, match=f"{name} must be above 0"):
            PCMModel(**{name: 0.0})


@pytest.mark.parametrize(
    "bad",
    [
        {"nu_mean_range": (0.1, 0.05)},
        {"nu_std_range": (-1.0, -0.5)},
        {"drifts": 5},
        {"q_exponent": 0.65},
        {"q_factor": -1.0},
        {"g_max_us": True},
        {"g_max_us": "25"},
        {"programming": (float("nan"), 0.0, 0.0)},
        {"programming": ()},
        {"programming": (1.0, 2.0, 3.0, 4.0, 5.0)},
        {"q_line": (1.0,)},
        {"q_min": 0.3},
        {"stuck": (-0.1, 0.0)},
        {"nu_mean_line": [1.0, 2.0]},
        {"programming_contains_read": 1},
        {"devices_per_weight": 0},
        {"devices_per_weight": 2.0},
        {"devices_per_weight": True},
        {"devices_per_weight": np.int64(2)},
        {"devices_per_weight": {"conv1.weight": 0}},
        {"devices_per_weight": 2, "pair": "collapsed"},
    ],
)
def test_constants_of_another_kind_are_refused(bad):
    with pytest.raises(SettingError, match="PCMModel"):
        PCMModel(**bad)


def test_a_crossbar_that_is_not_named_has_one_device_a_sign():
    model = PCMModel(devices_per_weight={"conv1.weight": 4})
    assert (model.devices_of("conv1.weight"), model.devices_of("fc.weight")) == (4, 1)
    assert MODEL.devices_of() == MODEL.devices_of("fc.weight") == 1 and PCMModel(devices_per_weight=3).devices_of() == 3
    with pytest.raises(DeviceError, match="name the crossbar"):
        model.devices_of()


def test_a_time_means_the_same_in_every_number_type():
    g, nu = np.array([3.0]), np.array([0.06])
    expected = MODEL.drift(g, nu, 3000.0)
    for t_s in (3000, np.float16(3000), np.float32(3000), np.int64(3000), np.array(3000.0)):
        assert np.array_equal(MODEL.drift(g, nu, t_s), expected)
    for t_s in ("86400", None, 10**400, [1.0, 2.0]):
        with pytest.raises(DeviceError, match="t_s"):
            MODEL.drift(g, nu, t_s)
