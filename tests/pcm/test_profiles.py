"""Devices described by constants: the shipped profiles, laws in two branches, stuck devices, other spectra of read noise."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import integrate, stats

from pcmref import Chip, PCMModel, draws
from pcmref.errors import SettingError
from pcmref.pcm import moments

JOSHI, HERMES = PCMModel.joshi2020(), PCMModel.profile("hermes")
DAY_S = 86_400.0
N = 200_000
Z_LIMIT = 5.0  # standard errors


def test_a_profile_is_named_or_refused_with_all_names():
    assert [PCMModel.profile(name).name for name in ("joshi2020", "aihwkit", "crosssim", "hermes")] == [
        *("joshi2020", "aihwkit", "crosssim", "hermes")
    ]
    for name in ("hermes2", "../pcm/hermes", 5):
        with pytest.raises(SettingError, match="'joshi2020', 'aihwkit', 'crosssim', 'hermes'"):
            PCMModel.profile(name)


def test_what_a_description_leaves_out_is_that_of_its_base():
    mine = PCMModel.of_description({"name": "mine", "based_on": "hermes", "t_0_s": 60, "stuck": [0.01, 0.0]})
    assert mine == replace(HERMES, name="mine", t_0_s=60, stuck=(0.01, 0.0))
    assert PCMModel.of_description({"name": "mine"}) == replace(JOSHI, name="mine")
    for bad, says in (
        ({}, "needs a name"),
        ({"name": "mine", "based_on": "nobody"}, "must be one of"),
        ({"name": "mine", "q_maximum": 0.2}, "q_maximum"),
        ({"name": "mine", "programming": [1.0, "x"]}, "programming must be 1 or 2 or 3 or 4 finite numbers"),
        ({"name": "mine", "nu_mean_above": [0.5]}, "nu_mean_above"),
        ({"name": "mine", "stuck": [0.7, 0.7]}, "stuck"),
        ({"name": "mine", "noise_exponent": 0.0}, "noise_exponent"),
    ):
        with pytest.raises(SettingError, match=says):
            PCMModel.of_description(bad)


@pytest.mark.confirms(1, 89)
def test_hermes_at_points_worked_out_by_hand():
    """x = .05 below, x = .5 above the points where the branches meet; sigma is a cubic in uS at 20.7 uS."""
    g = 20.7 * np.array([0.05, 0.5])
    cubic = [0.16603222 + 4.71806468 * x - 8.48101252 * x**2 + 4.68961419 * x**3 for x in (0.05, 0.5)]
    assert HERMES.programming_std_us(g) == pytest.approx(cubic, rel=1e-14)
    assert replace(HERMES, g_max_us=10.0).programming_std_us(5.0) == pytest.approx(cubic[1] * 10 / 20.7, rel=1e-14)
    mean = [-0.0387 * np.log(0.05) - 0.0182, 0.0736 - 0.0126 * 0.5 - 0.0436 * 0.25]
    assert HERMES.drift_exponent_mean(g) == pytest.approx(mean, rel=1e-14)
    std = [-0.0117 * np.log(0.05) - 0.0057, 0.0073 + 0.0093 * 0.5 - 0.0118 * 0.25]
    assert HERMES.drift_exponent_std(g) == pytest.approx(std, rel=1e-14)
    q = [-0.0117 * np.log(0.05) - 0.0069, 0.0123 + 0.0211 * 0.5 - 0.0280 * 0.25 + 0.0069 * 0.125]
    assert HERMES.read_noise_q(g) == pytest.approx(q, rel=1e-14)
    ends = np.array([0.0, 1e-9, 20.7])
    assert HERMES.drift_exponent_mean(ends).tolist() == pytest.approx([0.13, 0.13, 0.0736 - 0.0126 - 0.0436], rel=1e-12)
    assert HERMES.read_noise_q(ends).tolist() == pytest.approx([0.04, 0.04, 0.0123 + 0.0211 - 0.0280 + 0.0069], rel=1e-12)
    assert (HERMES.t_0_s, HERMES.t_r_s, HERMES.nu_law, HERMES.q_argument) == (300.0, 512e-9, "folded", "stretched")


@pytest.mark.parametrize("z", [0.0, 1.0, -2.5])
def test_hermes_is_aihwkits_measured(monkeypatch, z):
    """Each of its three steps with the same draws. rel: aihwkit computes in float32, some 30 roundings of 6e-8."""
    torch = pytest.importorskip("torch")
    module = pytest.importorskip("aihwkit.inference.noise.hermes")
    monkeypatch.setattr(module, "randn_like", lambda g: torch.full_like(g, z))
    theirs, g = module.HermesNoiseModel(num_devices=2), 20.7 * np.linspace(0, 1, 101)
    tensor = torch.tensor(g)
    programmed = theirs.apply_programming_noise_to_conductance(tensor).numpy()
    np.testing.assert_allclose(HERMES.program(g, z), programmed, rtol=4e-6, atol=1e-6)
    nu = theirs.generate_drift_coefficients(tensor).numpy()
    np.testing.assert_allclose(HERMES.drift_exponent(g, z), nu, rtol=4e-6)
    read = theirs.apply_drift_noise_to_conductance(tensor, torch.tensor(nu), DAY_S).numpy()
    t_s = DAY_S + 300
    np.testing.assert_allclose(HERMES.read(HERMES.drift(g, nu, t_s), g, t_s, z), read, rtol=4e-6, atol=1e-6)


@pytest.mark.confirms(89)
@pytest.mark.parametrize("model", [HERMES, replace(HERMES, q_argument="target", pair="kept", nu_law="gaussian")])
def test_laws_in_branches_have_their_moments(model):
    """Programming and drift of hermes by sampling against the closed forms, on both sides of every branch."""
    for x in (0.0, 0.05, 0.2, 0.4, 1.0):
        g = np.full(N, 20.7 * x)
        g_prog = model.program(g, draws.standard_normal(3, f"branches/{x}", (N,)))
        nu = model.drift_exponent(g, draws.standard_normal(4, f"branches/{x}", (N,)))
        for values, (mean, variance) in (
            (g_prog, moments.programmed_moments(model, g[0])),
            (nu, moments.drift_exponent_moments(model, g[0])),
        ):
            assert abs(values.mean() - mean) <= Z_LIMIT * values.std() / np.sqrt(N)
            fourth = stats.moment(values, 4)
            assert abs(values.var() - variance) <= Z_LIMIT * np.sqrt((fourth - values.var() ** 2) / N)


# ------------------------------------------------------------------------------------------------------ stretched pairs


def test_stretched_by_the_largest_of_the_crossbar_not_of_the_array():
    weights = {"fc.weight": np.array([[1.0, 0.1]]), "fc.bias": np.array([4.0])}
    chip = Chip.program(weights, PCMModel.aihwkit())
    largest = chip.g_prog_us["fc.bias"].max()
    for name in weights:
        np.testing.assert_allclose(chip.drifted(name, 20.0)[1], chip.g_prog_us[name] * 25 / largest, rtol=1e-15)
    empty = replace(chip, g_prog_us={name: 0 * g for name, g in chip.g_prog_us.items()})
    assert all((empty.drifted(name, 20.0)[1] == 0).all() for name in weights)


# -------------------------------------------------------------------------------------------------------- stuck devices

STUCK = replace(JOSHI, stuck=(0.02, 0.03))


@pytest.mark.confirms(77, 88)
def test_stuck_devices_are_as_many_as_said_and_have_the_mixtures_moments():
    w = {"fc.weight": np.full((500, 400), 0.3)}
    w["fc.weight"][0, 0] = 1.0
    chip, free = Chip.program(w, STUCK, seed=3), Chip.program(w, JOSHI, seed=3)
    g, f = chip.g_prog_us["fc.weight"], free.g_prog_us["fc.weight"]
    u = draws.uniform(3, "stuck/fc.weight", g.shape)
    np.testing.assert_array_equal(g, np.where(u < 0.02, 0, np.where(u >= 0.97, 25.0, f)))
    assert abs((g == 25.0).mean() - 0.03) < Z_LIMIT * np.sqrt(0.03 / g.size)
    mean, variance = moments.programmed_moments(STUCK, 7.5)
    plus = g[0].ravel()[1:]
    assert abs(plus.mean() - mean) <= Z_LIMIT * np.sqrt(variance / plus.size)
    fourth = stats.moment(plus, 4)
    assert abs(plus.var() - variance) <= Z_LIMIT * np.sqrt((fourth - variance**2) / plus.size)


@pytest.mark.confirms(88)
def test_without_stuck_devices_a_chip_is_what_it_was():
    w = {"fc.weight": np.array([[0.5, -0.25]])}
    same = replace(JOSHI, stuck=(0.0, 0.0))
    np.testing.assert_array_equal(Chip.program(w, same).g_prog_us["fc.weight"], Chip.program(w, JOSHI).g_prog_us["fc.weight"])
    assert STUCK.stick(np.array([5.0]), np.array([0.5])) == 5.0
    everything = replace(JOSHI, stuck=(0.5, 0.5))
    assert everything.stick(np.array([5.0, 5.0]), np.array([0.4999, 0.5])).tolist() == [0.0, 25.0]


# ------------------------------------------------------------------------------------------------- spectrum of read noise

GAMMA = replace(JOSHI, noise_exponent=1.21)


@pytest.mark.confirms(87)
@pytest.mark.parametrize("exponent", [0.8, 1.21, 2.0])
def test_the_band_is_the_integral_of_the_spectrum(exponent):
    """c from the band at t_0, then the same spectrum up to a later time; pulses are long, so that quadrature is easy."""
    model = replace(JOSHI, noise_exponent=exponent, t_0_s=6.0, t_r_s=0.5)

    def integral(t_s):
        return integrate.quad(lambda f_hz: f_hz**-exponent, 1 / (t_s + 0.5), 1.0, epsabs=0, epsrel=1e-12)[0]

    wanted = np.log(6.5) * integral(40.0) / integral(6.0)
    assert model.read_band(40.0) == pytest.approx(wanted, rel=1e-10)


@pytest.mark.confirms(23, 87)
@pytest.mark.parametrize("exponent", [0.8, 1.0, 1.21, 2.0])
@pytest.mark.parametrize("tau_s", [0.01, 0.3, 2.0, 30.0])
def test_covariances_are_integrals_of_the_spectrum(exponent, tau_s):
    model = replace(JOSHI, noise_exponent=exponent, t_0_s=6.0, t_r_s=0.5)

    def integral(weight, t_s):
        pieces = np.geomspace(1 / (t_s + 0.5), 1.0, 40)
        return sum(
            integrate.quad(weight, a, b, epsabs=0, epsrel=1e-11, limit=400)[0]
            for a, b in zip(pieces[:-1], pieces[1:], strict=True)
        )

    c = np.log(6.5) / integral(lambda f: f**-exponent, 6.0)
    wanted = c * integral(lambda f: f**-exponent * np.cos(2 * np.pi * f * tau_s), 10.0)
    q = float(model.read_noise_q(25.0))
    got = moments.read_noise_covariance_us2(model, (1.0, 1.0), 25.0, (10.0, 10.0 + tau_s)) / q**2
    assert got == pytest.approx(wanted, rel=1e-8, abs=1e-9)


def test_an_instant_apart_the_readings_are_the_same():
    assert moments.read_correlation(GAMMA, DAY_S, DAY_S) == pytest.approx(1, rel=1e-14)
    assert moments.read_correlation(GAMMA, DAY_S, DAY_S + 1) > moments.read_correlation(JOSHI, DAY_S, DAY_S + 1)
