"""Readings in time: the covariance of a device's read noise at two times, and when readings may be drawn independently."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate
from scipy.special import ndtri

from pcmref import PCMModel, draws
from pcmref.pcm import moments

JOSHI = PCMModel.joshi2020()
DAY_S = 86_400.0
Z_LIMIT = -ndtri(1e-6 / 2)  # of the sampling check
N_SPLIT, SPLIT_EXAMPLES = 40_000, 15
SPLIT_LIMIT = -ndtri(1e-6 / 2 / (5 * SPLIT_EXAMPLES))  # five checks an example
CORRELATIONS = [
    (20, 60, 3.39e-4),
    (3600, DAY_S, 1.975e-6),
    (DAY_S, 2 * DAY_S, 8.6e-4),
    (DAY_S, 90_000, 0.0301),
    (DAY_S, 86_401, 0.346),
]


@pytest.mark.confirms(23, 63)
@pytest.mark.parametrize(("t1_s", "t2_s", "correlation"), CORRELATIONS)
def test_read_correlation_between_the_experiments_times(t1_s, t2_s, correlation):
    assert moments.read_correlation(JOSHI, t1_s, t2_s) == pytest.approx(correlation, rel=2e-3)
    assert moments.read_correlation(JOSHI, t2_s, t1_s) == moments.read_correlation(JOSHI, t1_s, t2_s)


@pytest.mark.confirms(9, 23, 63)
@pytest.mark.parametrize("t_s", [20.0, DAY_S])
def test_covariance_at_one_time_is_the_variance_of_a_reading(t_s):
    g = np.array([0.1, 2.0, 25.0])
    variance = moments.read_noise_covariance_us2(JOSHI, (g, g), g, (t_s, t_s))
    np.testing.assert_allclose(variance, JOSHI.read_noise_std_us(g, g, t_s) ** 2, rtol=1e-14)
    still = replace(JOSHI, reads_noisily=False)
    assert not still.read_noise_std_us(g, g, t_s).any()
    assert not moments.read_noise_covariance_us2(still, (g, g), g, (t_s, t_s)).any()
    assert moments.read_correlation(JOSHI, t_s, t_s) == pytest.approx(1, rel=1e-15)


@pytest.mark.confirms(8, 23)
@pytest.mark.parametrize("tau_s", [2.0**-23, 2.0**-10, 1.0, 40.0])  # t1 + tau is exact
def test_covariance_is_the_integral_of_the_spectrum(tau_s):
    """int S(f) cos(2 pi f tau) df over the shared band with S = (G Q_s)^2/f; octave by octave, G and Q_s put in by hand."""
    t1_s, t_r_s, g, q = 20.0, 250e-9, (3.0, 2.5), 0.0088 / 0.4**0.65
    low, high = 1 / (t1_s + t_r_s), 1 / (2 * t_r_s)
    first_zero = min(1 / (4 * tau_s), high)
    smooth = integrate.quad(lambda u: np.cos(2 * np.pi * np.exp(u) * tau_s), np.log(low), np.log(max(first_zero, low)),
                            epsabs=1e-13, epsrel=1e-13, limit=500)[0]  # fmt: skip
    oscillating = 0.0
    start = max(first_zero, low)
    edges = [start * 2**k for k in range(200) if start * 2**k < high] + [high]
    for a, b in zip(edges, edges[1:], strict=False):
        oscillating += integrate.quad(lambda f: 1 / f, a, b, weight="cos", wvar=2 * np.pi * tau_s, epsabs=1e-13, limit=500)[0]
    got = moments.read_noise_covariance_us2(JOSHI, g, 10.0, (t1_s, t1_s + tau_s))
    assert got == pytest.approx(g[0] * g[1] * q**2 * (smooth + oscillating), rel=1e-10, abs=1e-15)


@pytest.mark.confirms(23)
@pytest.mark.parametrize("t_r_s", [250e-9, 0.5])
def test_covariance_at_very_short_and_very_long_lags(t_r_s):
    """As tau goes to 0 the variance; for long tau Ci(x) = (sin x - cos x/x)/x to 2/x^3 in both places."""
    model, t1_s, g, q = replace(JOSHI, t_r_s=t_r_s), 1000.0, (3.0, 2.5), 0.0088 / 0.4**0.65

    def covariance(tau_s):
        return moments.read_noise_covariance_us2(model, g, 10.0, (t1_s, t1_s + tau_s)) / (g[0] * g[1] * q**2)

    variance = np.log((t1_s + t_r_s) / (2 * t_r_s))
    assert covariance(0.0) == pytest.approx(variance, rel=1e-14)
    assert covariance(2.0**-43) == pytest.approx(variance, rel=1e-10)  # (pi tau/t_r)^2: 2e-12
    for tau_s in (3e4, 1e5):
        far = [2 * np.pi * tau_s / (t1_s + t_r_s), np.pi * tau_s / t_r_s]
        low, high = ((np.sin(x) - np.cos(x) / x) / x for x in far)
        assert covariance(tau_s) == pytest.approx(high - low, abs=sum(2 / x**3 for x in far) + 1e-11)


@pytest.mark.confirms(23)
def test_covariance_is_that_of_a_sampled_one_over_f_process():
    """Cosines of random phase with 1/f power: n(t) = Q sum_k sqrt(2 dln f) cos(2 pi f_k t + phase_k), read at both times."""
    t1_s, tau_s, n_waves, n_paths = 20.0, 1e-4, 1000, 20_000
    edges = np.linspace(np.log(1 / (t1_s + 250e-9)), np.log(1 / (500e-9)), n_waves + 1)
    cells = np.diff(edges)
    f_hz = np.exp(edges[:-1] + cells * draws.uniform(7, "moments/waves", n_waves))
    phase = 2 * np.pi * draws.uniform(8, "moments/phases", (n_paths, n_waves))
    amplitude = np.sqrt(2 * cells)
    turns = 0.0, 2 * np.pi * f_hz * tau_s
    n1, n2 = (np.concatenate([np.cos(part + turn) @ amplitude for part in np.split(phase, 50)]) for turn in turns)
    q2 = float(JOSHI.read_noise_q(25.0)) ** 2
    wanted = moments.read_noise_covariance_us2(JOSHI, (1.0, 1.0), 25.0, (t1_s, t1_s + tau_s)) / q2
    product = n1 * n2
    turn = 2 * np.pi * f_hz * tau_s * np.expm1(cells)  # the angle a cell spans: the variance of its cosine is below turn^2/12
    jitter = np.sqrt((cells**2 * np.minimum(turn**2 / 12, 1)).sum())  # from drawing one frequency a cell
    assert abs(product.mean() - wanted) <= Z_LIMIT * (product.std() / np.sqrt(n_paths) + jitter)


def test_later_readings_know_less_of_each_other():
    lags_s = np.array([0.01, 1, 60, 3600, DAY_S])
    correlation = [moments.read_correlation(JOSHI, DAY_S, DAY_S + lag) for lag in lags_s]
    assert (np.diff(correlation) < 0).all()


@given(st.floats(0, 1), st.floats(-4, 4), st.floats(0, 25))
def test_readings_that_share_nothing_are_fresh_and_those_that_share_all_are_one_reading(correlation, z, g_us):
    fresh = moments.clipped_normal_moments(g_us, JOSHI.read_noise_std_us(g_us, g_us, DAY_S))
    assert moments.split_reading_moments(JOSHI, g_us, g_us, DAY_S, 0.0, z) == fresh
    assert moments.split_reading_moments(JOSHI, g_us, g_us, DAY_S, 1.0, z) == (JOSHI.read(g_us, g_us, DAY_S, z), 0)
    still = replace(JOSHI, reads_noisily=False)
    assert moments.split_reading_moments(still, g_us, g_us, DAY_S, correlation, z) == (g_us, 0)


@given(st.sampled_from([1e-6, 1e-3, 1.0, 60.0]), st.floats(0.1, 25), st.floats(-3, 3), st.integers(0, 999))
@settings(max_examples=SPLIT_EXAMPLES, deadline=None, derandomize=True)
def test_split_readings_sampled(apart_s, g_us, z, seed):
    """Given the shared z: mean and variance. Over it, without the clip: the covariance of two readings so far apart.

    A sample's mean scatters by std/sqrt(n), its square or product by that of its own values.
    """
    c = moments.read_correlation(JOSHI, DAY_S, DAY_S + apart_s)
    shared, one, two = draws.standard_normal(seed, "moments/split", (3, N_SPLIT))
    mean, variance = moments.split_reading_moments(JOSHI, g_us, g_us, DAY_S, c, z)
    sampled = JOSHI.read(g_us, g_us, DAY_S, np.sqrt(c) * z + np.sqrt(1 - c) * one)
    squares = (sampled - mean) ** 2
    assert abs(sampled.mean() - mean) <= SPLIT_LIMIT * np.sqrt(variance / N_SPLIT) + 1e-12 * mean
    assert abs(squares.mean() - variance) <= SPLIT_LIMIT * squares.std() / np.sqrt(N_SPLIT) + 1e-12 * variance
    std = JOSHI.read_noise_std_us(g_us, g_us, DAY_S)
    pair = [std * (np.sqrt(c) * shared + np.sqrt(1 - c) * own) for own in (one, two)]
    covariance = moments.read_noise_covariance_us2(JOSHI, (g_us, g_us), g_us, (DAY_S, DAY_S + apart_s))
    for values, wanted in ((pair[0] * pair[1], covariance), *((p**2, std**2) for p in pair)):
        between_times = abs(JOSHI.read_noise_std_us(g_us, g_us, DAY_S + apart_s) / std - 1) * wanted  # their variances differ
        assert abs(values.mean() - wanted) <= SPLIT_LIMIT * values.std() / np.sqrt(N_SPLIT) + between_times + 1e-12 * wanted
