"""Closed forms: each against numerical integration of its definition (1e-10 where exact) and against samples of the model.

The sampling checks of this file have a family-wise error of 1e-6, split evenly; means are compared on the scale of their exact
standard errors, squares on that of their sampled ones (the normal approximation, with 50,000 samples or more).
"""

from dataclasses import replace

import numpy as np
import pytest
from scipy import integrate
from scipy.special import ndtri
from scipy.stats import norm

from pcmref import Chip, PCMModel, draws
from pcmref.errors import DeviceError
from pcmref.pcm import gdc, moments

JOSHI = PCMModel.joshi2020()
LAWS = ("gaussian", "folded", "clamped")
X = (0.0, 0.004, 0.03, 0.1, 0.5, 1.0)  # both bounds of mu_nu and sigma_nu, the cap of Q_s, and the range between
DAY_S = 86_400.0
N = 200_000
N_CHECKS = 2 * (len(X) + 2 * len(LAWS) * len(X) + len(X) + 4 + 2 * 4 + len(X))  # means and variances
Z_LIMIT = -ndtri(1e-6 / N_CHECKS / 2)


def expected(function, kinks=()):
    """E[function(z)] for a standard normal z, by adaptive quadrature between the kinks."""
    cuts = [-12.0, *sorted(k for k in kinks if -12 < k < 12), 12.0]
    options = {"epsabs": 1e-14, "epsrel": 1e-13, "limit": 200}
    return sum(
        integrate.quad(lambda z: function(z) * norm.pdf(z), a, b, **options)[0] for a, b in zip(cuts, cuts[1:], strict=False)
    )


def by_quadrature(function, kinks=()):
    mean = expected(function, kinks)
    return mean, expected(lambda z: (function(z) - mean) ** 2, kinks)


def agree(got, wanted):
    assert np.allclose(got, wanted, rtol=1e-10, atol=1e-14), (got, wanted)


def assert_sampled(samples, mean, variance):
    """Mean and variance of n samples lie where the closed forms put them, at the stated error."""
    n = len(samples)
    assert abs(samples.mean() - mean) <= Z_LIMIT * np.sqrt(variance / n) + 1e-12 * abs(mean)
    squares = (samples - mean) ** 2
    assert abs(squares.mean() - variance) <= Z_LIMIT * squares.std() / np.sqrt(n) + 1e-12 * variance


def with_law(law):
    return replace(JOSHI, nu_law=law)


def kinks_of(model, g):
    """The z at which a law of nu has a kink."""
    mean, std = model.drift_exponent_mean(g), model.drift_exponent_std(g)
    return [(b - mean) / std for b in (0.0, *model.nu_mean_range)]


@pytest.mark.confirms(16)
@pytest.mark.parametrize(("mean", "std"), [(0.0, 1.0), (0.3, 0.7), (-1.5, 1.0), (20.0, 0.5), (1.0, 0.0), (-1.0, 0.0)])
@pytest.mark.parametrize(("low", "high"), [(0.0, np.inf), (-np.inf, 0.4), (0.1, 0.9), (-np.inf, np.inf)])
def test_clipped_normal_moments_are_their_integrals(mean, std, low, high):
    kinks = [(b - mean) / std for b in (low, high)] if std else []
    wanted = by_quadrature(lambda z: np.clip(mean + std * z, low, high), kinks)
    agree(moments.clipped_normal_moments(mean, std, low, high), wanted)


@pytest.mark.confirms(2, 16, 77)
@pytest.mark.parametrize("x", X)
def test_programmed_moments(x):
    g = 25 * x
    kink = -g / JOSHI.programming_std_us(g)
    mean, variance = moments.programmed_moments(JOSHI, g)
    agree((mean, variance), by_quadrature(lambda z: JOSHI.program(g, z), [kink]))
    assert_sampled(JOSHI.program(np.full(N, g), draws.standard_normal(1, f"moments/program/{x}", N)), mean, variance)


@pytest.mark.parametrize("x", X)
def test_a_reading_at_t0_where_the_programming_noise_contains_its_noise(x):
    """Sampled along the model's own path, and in closed form, something is left to program at every target."""
    model, g = replace(JOSHI, programming_contains_read=True), np.full(N, 25 * x)
    assert 0 < model.programming_std_us(25 * x) < JOSHI.programming_std_us(25 * x)
    z = draws.standard_normal(4, f"moments/contains/{x}", (2, N))
    read = model.read(model.program(g, z[0]), g, model.t_0_s, z[1])
    assert_sampled(read, *moments.conductance_moments(model, 25 * x, model.t_0_s))


@pytest.mark.confirms(77)
def test_a_device_programmed_to_nothing_conducts():
    assert moments.programmed_moments(JOSHI, 0.0)[0] == pytest.approx(0.26348 / np.sqrt(2 * np.pi), rel=1e-14)


@pytest.mark.confirms(6, 16, 17)
@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("x", X)
def test_drift_exponent_moments(x, law):
    model, g = with_law(law), 25 * x
    mean, variance = moments.drift_exponent_moments(model, g)
    agree((mean, variance), by_quadrature(lambda z: model.drift_exponent(g, z), kinks_of(model, g)))
    nu = model.drift_exponent(np.full(N, g), draws.standard_normal(2, f"moments/nu/{x}/{law}", N))
    assert_sampled(nu, mean, variance)


@pytest.mark.confirms(17)
@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("x", X)
def test_drift_exponent_moments_are_the_derivatives_of_the_generating_function(x, law):
    """E nu = -M'(0) and E nu^2 = M''(0) of M(s) = E e^(-s nu), by central differences; their errors are h^2 E|nu|^3 at most."""
    model, g, h = with_law(law), 25 * x, 0.01
    mean, variance = moments.drift_exponent_moments(model, g)
    above, below = (moments.drift_factor_moment(model, g, 20 * np.e, order) for order in (h, -h))
    limit = h**2 * 0.4**3  # |nu| stays below .4 but for eight standard deviations
    assert abs((below - above) / (2 * h) - mean) <= limit
    assert abs((above - 2 + below) / h**2 - variance - mean**2) <= limit
    assert limit < 2e-3 * mean


@pytest.mark.parametrize("law", LAWS)
def test_without_drift_every_law_stands_still(law):
    model = replace(JOSHI, nu_law=law, drifts=False)
    assert moments.drift_exponent_moments(model, 5.0) == (0, 0)
    assert moments.drift_factor_moment(model, 5.0, DAY_S) == 1
    assert (model.drift_exponent(np.full(9, 5.0), draws.standard_normal(2, "moments/still", 9)) == 0).all()


@pytest.mark.confirms(7, 18)
@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("x", X)
def test_drift_factor_moments(x, law):
    model, g = with_law(law), 25 * x
    first, second = (moments.drift_factor_moment(model, g, DAY_S, order) for order in (1, 2))
    for order, moment in ((1, first), (2, second)):
        agree(moment, expected(lambda z, k=order: model.drift(1.0, model.drift_exponent(g, z), DAY_S) ** k, kinks_of(model, g)))
    nu = model.drift_exponent(np.full(N, g), draws.standard_normal(3, f"moments/drift/{x}/{law}", N))
    assert_sampled(model.drift(1.0, nu, DAY_S), first, second - first**2)


@pytest.mark.confirms(10, 62)
@pytest.mark.parametrize("t_s", [20.0, DAY_S])
@pytest.mark.parametrize("x", X)
def test_read_factor_moments(x, t_s):
    g = 25 * x
    kink = -1 / JOSHI.read_noise_std_us(1.0, g, t_s)
    agree(moments.read_factor_moments(JOSHI, g, t_s), by_quadrature(lambda z: JOSHI.read(1.0, g, t_s, z), [kink]))


def sampled_devices(g_us, t_s, name, model=JOSHI):
    """G(t) of independent devices with the targets g_us [n, ...], along the model's own path."""
    z = [draws.standard_normal(4, f"moments/{name}/{step}", g_us.shape) for step in ("program", "drift", "read")]
    g_drift = model.drift(model.program(g_us, z[0]), model.drift_exponent(g_us, z[1]), t_s)
    return model.read(g_drift, g_us, t_s, z[2])


@pytest.mark.confirms(19)
@pytest.mark.parametrize("x", X)
def test_conductance_moments_are_those_of_samples(x):
    mean, variance = moments.conductance_moments(JOSHI, 25 * x, DAY_S)
    assert_sampled(sampled_devices(np.full(N, 25 * x), DAY_S, f"conductance/{x}"), mean, variance)


def nodes(kinks):
    """Gauss-Legendre points and normal weights on -12..12, 160 a piece between the kinks."""
    cuts = [-12.0, *sorted(k for k in kinks if -12 < k < 12), 12.0]
    points, weights = np.polynomial.legendre.leggauss(160)
    z = np.concatenate([(a + b) / 2 + (b - a) / 2 * points for a, b in zip(cuts, cuts[1:], strict=False)])
    w = np.concatenate([(b - a) / 2 * weights for a, b in zip(cuts, cuts[1:], strict=False)])
    return z, w * norm.pdf(z)


@pytest.mark.confirms(18, 19, 62, 77)
@pytest.mark.parametrize(
    "profile", [JOSHI, with_law("folded"), with_law("clamped"), PCMModel.crosssim()], ids=lambda m: m.nu_law
)
def test_conductance_moments_are_a_triple_integral(profile):
    """E[G^k] over all three draws at once, along the model's own path: independence is not used."""
    g = 0.75
    noise = profile.read_noise_std_us(1.0, g, DAY_S)
    z_prog, w_prog = nodes([-g / profile.programming_std_us(g)])
    z_nu, w_nu = nodes(kinks_of(profile, g) if profile.drifts else [])
    z_read, w_read = nodes([-1 / noise] if noise else [])
    mean = square = 0.0
    for g_prog, weight in zip(profile.program(g, z_prog), w_prog, strict=True):  # one plane at a time stays in the cache
        g_drift = profile.drift(g_prog, profile.drift_exponent(g, z_nu), DAY_S)
        g_read = profile.read(g_drift[:, None], g, DAY_S, z_read)
        mean += weight * (w_nu @ g_read @ w_read)
        square += weight * (w_nu @ g_read**2 @ w_read)
    agree(moments.conductance_moments(profile, g, DAY_S), (mean, square - mean**2))


@pytest.mark.confirms(20, 21)
def test_weight_and_output_moments_are_those_of_samples():
    w, scale = np.array([[0.8, -0.05], [-1.0, 0.0], [0.3, 0.6]]), 25.0
    g = np.maximum(np.stack([scale * w, -scale * w]), 0)
    mean, variance = moments.weight_moments(JOSHI, g, scale, DAY_S)
    chips = sampled_devices(np.broadcast_to(g, (N // 4, *g.shape)), DAY_S, "weights")
    weights = (chips[:, 0] - chips[:, 1]) / scale
    assert_sampled(weights[:, 0, 1], mean[0, 1], variance[0, 1])
    x = np.array([[0.5, -1.0, 2.0]])
    y_mean, y_variance = moments.output_moments(x, mean, variance)
    assert y_mean.shape == (1, 2)
    for o in range(2):
        assert_sampled((x @ weights)[:, 0, o], y_mean[0, o], y_variance[0, o])


@pytest.mark.parametrize("n", [2, 5])
def test_weights_of_several_devices_a_sign_have_the_moments_of_their_mean(n):
    """A chip whose rows hold one weight each 50,000 times, as read after a day: exact, the variance over n."""
    values = np.array([1.0, -0.1, 0.03, 0.0])
    model = replace(JOSHI, devices_per_weight={"fc.weight": n})
    chip = Chip.program({"fc.weight": np.repeat(values[:, None], N // 4, 1)}, model, seed=n)
    read = chip.read(DAY_S)["fc.weight"]
    g, scale = chip.g_target_us["fc.weight"][:, :, 0], chip.scale["fc.weight"]
    for row, mean, variance in zip(read, *moments.weight_moments(model, g, scale, DAY_S, "fc.weight"), strict=True):
        assert_sampled(row, mean, variance)
    single_mean, single_variance = moments.weight_moments(model, g, scale, DAY_S, "conv1.weight")
    assert np.array_equal(moments.weight_moments(model, g, scale, DAY_S, "fc.weight")[0], single_mean)
    np.testing.assert_allclose(moments.weight_moments(model, g, scale, DAY_S, "fc.weight")[1], single_variance / n, rtol=2**-51)


def test_gdc_of_several_devices_a_sign_is_gdc_of_as_many_more_devices():
    """alpha does not know whether currents are averaged or added; equal targets, two and 8 of them: every sum is exact."""
    g = np.full(8, 3.0)
    several = moments.gdc_factor_moments(replace(JOSHI, devices_per_weight=2), g, DAY_S)
    assert several == moments.gdc_factor_moments(JOSHI, np.tile(g, 2), DAY_S)


@pytest.mark.confirms(22)
def test_gdc_factor_moments_hold_to_the_stated_order():
    """alpha over 16,000 crossbars of 300 devices: inside the sampling error plus the neglected next order.

    With u = d_0 - d_t, the relative deviations of I_0 and I_t, alpha/mean - 1 = u/(1 + d_t): the variance lacks
    3 E[u^2 d_t^2] - E[u d_t]^2 - 2 E[u^2 d_t]. The first two are at most 8 V_t/I_t^2 of it for sums of many devices, the last
    is sampled.
    """
    n, chips = 300, 16_000
    g = 25 * draws.uniform(5, "moments/gdc", n)
    mean, variance = moments.gdc_factor_moments(JOSHI, g, DAY_S)
    targets = np.broadcast_to(g, (chips, n))
    z = [draws.standard_normal(6, f"moments/gdc/{k}", (chips, n)) for k in range(4)]
    g_prog, nu = JOSHI.program(targets, z[0]), JOSHI.drift_exponent(targets, z[1])
    at = [JOSHI.read(JOSHI.drift(g_prog, nu, t), targets, t, zr) for t, zr in ((20.0, z[2]), (DAY_S, z[3]))]
    alpha = np.array([gdc.factor(a, b) for a, b in zip(at[0].sum(1), at[1].sum(1), strict=True)])
    i_0, i_t = (moments.conductance_moments(JOSHI, g, t) for t in (20.0, DAY_S))
    next_order = mean * np.sqrt(i_t[1].sum() * variance) / i_t[0].sum()  # |Cov(alpha, I_t)| / I_t by Cauchy and Schwarz
    assert next_order < 2e-4 * mean
    assert abs(alpha.mean() - mean) <= Z_LIMIT * np.sqrt(variance / chips) + next_order
    d_0, d_t = (a.sum(1) / i.sum() - 1 for a, (i, _) in zip(at, (i_0, i_t), strict=True))
    lacking = 8 * i_t[1].sum() / i_t[0].sum() ** 2 * variance + 2 * mean**2 * abs(((d_0 - d_t) ** 2 * d_t).mean())
    assert lacking < 0.05 * variance
    spread = (alpha - alpha.mean()) ** 2
    assert abs(spread.mean() - variance) <= Z_LIMIT * spread.std() / np.sqrt(chips) + lacking


@pytest.mark.confirms(22)
def test_gdc_factor_variance_is_that_of_the_linearised_factor():
    """Var alpha = mean^2 Var sum (G(t_0)/I_0 - G(t)/I_t), the sum's variance integrated along the model's own path."""
    g = np.array([0.0, 0.75, 20.0])
    mean, variance = moments.gdc_factor_moments(JOSHI, g, DAY_S)
    i_0, i_t = (moments.conductance_moments(JOSHI, g, t)[0].sum() for t in (20.0, DAY_S))
    linear = 0.0
    for target in g:
        (z_prog, w_prog), (z_nu, w_nu) = nodes([-target / JOSHI.programming_std_us(target)]), nodes(kinks_of(JOSHI, target))
        at = []
        for t_s, current in ((20.0, i_0), (DAY_S, i_t)):
            z_read, w_read = nodes([-1 / JOSHI.read_noise_std_us(1.0, target, t_s)])
            r = JOSHI.read(1.0, target, t_s, z_read)
            at.append((t_s, w_read @ r / current, w_read @ r**2 / current**2))
        first = second = 0.0
        for g_prog, weight in zip(JOSHI.program(target, z_prog), w_prog, strict=True):
            (a, a_1, a_2), (b, b_1, b_2) = ((JOSHI.drift(g_prog, JOSHI.drift_exponent(target, z_nu), t), *r) for t, *r in at)
            first += weight * (w_nu @ (a * a_1 - b * b_1))
            second += weight * (w_nu @ (a**2 * a_2 - 2 * a * a_1 * b * b_1 + b**2 * b_2))
        linear += second - first**2
    assert variance == pytest.approx(mean**2 * linear, rel=1e-9)


@pytest.mark.confirms(22)
def test_gdc_factor_of_devices_that_only_read_noisily():
    """Without programming noise and drift the two readings are independent: their relative variances add up."""
    noisy = replace(JOSHI, programming=(0.0, 0.0, 0.0), drifts=False)
    g = np.array([0.05, 0.2, 3.0])  # weak devices: the clip lifts their mean
    (i_0, v_0), (i_t, v_t) = (moments.conductance_moments(noisy, g, t_s) for t_s in (20.0, DAY_S))
    mean, variance = moments.gdc_factor_moments(noisy, g, DAY_S)
    assert mean == pytest.approx(i_0.sum() / i_t.sum(), rel=1e-13) and i_0[0] > 1.01 * g[0]
    assert variance == pytest.approx(mean**2 * (v_0.sum() / i_0.sum() ** 2 + v_t.sum() / i_t.sum() ** 2), rel=1e-10)


@pytest.mark.confirms(22)
def test_gdc_factor_undoes_equal_drift_exactly():
    """One exponent for every device and no read noise: alpha = (t/t_0)^nu whatever was programmed, without any spread."""
    equal = replace(JOSHI, nu_mean_range=(0.05, 0.05), nu_std_range=(0.0, 0.0), reads_noisily=False)
    mean, variance = moments.gdc_factor_moments(equal, 25 * draws.uniform(5, "moments/gdc", 40), DAY_S)
    assert mean == pytest.approx((DAY_S / 20) ** 0.05, rel=1e-14) and abs(variance) < 1e-15


@pytest.mark.confirms(20)
def test_weight_moments_are_a_double_integral():
    """Programming alone: E[((G+ - G-)/s)^k] over the draws of both devices at once."""
    model, g, scale = replace(JOSHI, drifts=False, reads_noisily=False), np.array([[2.0], [0.0]]), 40.0
    grids = [nodes([-v / model.programming_std_us(v)]) for v in (2.0, 0.0)]
    plus, minus = (model.program(v, z) for v, (z, _) in zip((2.0, 0.0), grids, strict=True))
    w = (plus[:, None] - minus) / scale
    mean, square = (grids[0][1] @ w**k @ grids[1][1] for k in (1, 2))
    agree(moments.weight_moments(model, g, scale, DAY_S), [[mean], [square - mean**2]])


@pytest.mark.confirms(21)
@pytest.mark.parametrize("factor", [1.0, -3.0])
def test_output_moments_of_one_hot_inputs_are_those_of_the_weights(factor):
    mean, variance = draws.standard_normal(9, "moments/mean", (3, 2)), draws.uniform(9, "moments/variance", (3, 2))
    y_mean, y_variance = moments.output_moments(factor * np.eye(3), mean, variance)
    np.testing.assert_array_equal(y_mean, factor * mean)
    np.testing.assert_array_equal(y_variance, factor**2 * variance)
    both = moments.output_moments(factor * np.ones((1, 3)), mean, variance)
    np.testing.assert_allclose(both, [[factor * mean.sum(0)], [factor**2 * variance.sum(0)]], rtol=1e-13)


def test_moments_say_where_there_is_no_closed_form():
    programmed, collapsed = replace(JOSHI, q_argument="programmed"), replace(JOSHI, pair="collapsed")
    for change in ({"gdc_read_out": "one-hot"}, {"gdc_baseline": "target"}):
        with pytest.raises(DeviceError, match="gdc_read_out 'device sum' and gdc_baseline 'read'"):
            moments.gdc_factor_moments(replace(JOSHI, **change), np.ones(3), DAY_S)
    for profile, wanted in ((programmed, "q_argument"), (collapsed, "pair"), (PCMModel.aihwkit(), "pair")):
        with pytest.raises(DeviceError, match=wanted):
            moments.conductance_moments(profile, 1.0, DAY_S)
        with pytest.raises(DeviceError, match=wanted):
            moments.weight_moments(profile, np.zeros((2, 3)), 1.0, DAY_S)
