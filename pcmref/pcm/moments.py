"""Closed forms: what the device model implies for means, variances and covariances, without a single draw.

Each function states its equation and whether it is exact for the model or an expansion (and then the expansion's error).
Phi and phi are the standard normal distribution function and density; L = ln(t/t_0). The tests hold every exact form
against numerical integration and against samples of the model itself. Symbols, units and sources are those of `model`.
"""

import numpy as np
from scipy.integrate import quad
from scipy.special import ndtr, sici

from pcmref.errors import DeviceError
from pcmref.pcm.model import PCMModel


def _density(a):
    """phi(a) = exp(-a^2/2) / sqrt(2 pi)."""
    return np.exp(-np.square(a) / 2) / np.sqrt(2 * np.pi)


def _standardised(bound, mean, std):
    """(bound - mean) / std, with the limits for std = 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(std > 0, (bound - mean) / std, np.where(bound > mean, np.inf, -np.inf))


def clipped_normal_moments(mean, std, low=0.0, high=np.inf):
    """(mean, variance) of clip(N(mean, std^2), low, high). Exact.

    With a = (low - mean)/std and b = (high - mean)/std, the part between the bounds has P = Phi(b) - Phi(a),
    E[z] = phi(a) - phi(b) and E[z^2] = P + a phi(a) - b phi(b); Phi(a) sits at low and Phi(-b) at high. The variance is
    taken about `mean`, so that a narrow distribution far from 0 loses no digits.
    """
    mean, std = np.asarray(mean, float), np.asarray(std, float)
    a, b = _standardised(low, mean, std), _standardised(high, mean, std)
    below, above = _weighted(low - mean, ndtr(a)), _weighted(high - mean, ndtr(-b))
    first = below + above + std * (_density(a) - _density(b))
    inside = ndtr(b) - ndtr(a) + _weighted(a, _density(a)) - _weighted(b, _density(b))
    second = _weighted(low - mean, below) + _weighted(high - mean, above) + np.square(std) * inside
    return mean + first, np.maximum(second - np.square(first), 0)


def _weighted(value, weight):
    """value * weight, and 0 where nothing is there to be weighted (an infinite bound)."""
    with np.errstate(invalid="ignore"):
        return np.where(np.asarray(weight) == 0, 0.0, value * weight)


def programmed_moments(model: PCMModel, g_target_us):
    """(mean uS, variance uS^2) of G_P = max(G_T + sigma_prog z, 0), any shape. Exact.

    At G_T = 0 the mean is sigma_prog / sqrt(2 pi): a device that should carry nothing carries something. Where a share s_0 of
    devices is stuck at 0 and s_1 at G_max, the moments are those of the mixture: E G^k = (1 - s_0 - s_1) E G_P^k + s_1 G_max^k.
    """
    mean, variance = clipped_normal_moments(g_target_us, model.programming_std_us(g_target_us))
    if not any(model.stuck):
        return mean, variance
    free, at_g_max = 1 - sum(model.stuck), model.stuck[1]
    mixed = free * mean + at_g_max * model.g_max_us
    return mixed, free * (variance + mean**2) + at_g_max * model.g_max_us**2 - mixed**2


def drift_exponent_moments(model: PCMModel, g_target_us):
    """(mean, variance) of nu under the model's law: Gaussian, folded or clamped. Exact.

    Folded: E|nu| = sigma sqrt(2/pi) exp(-mu^2/(2 sigma^2)) + mu (1 - 2 Phi(-mu/sigma)), E nu^2 = mu^2 + sigma^2.
    """
    mean, std = model.drift_exponent_mean(g_target_us), model.drift_exponent_std(g_target_us)
    if model.nu_law == "clamped":
        low, high = model.nu_mean_range
        return clipped_normal_moments(mean, std, low * model.drifts, high * model.drifts)
    if model.nu_law == "folded":
        a = _standardised(0, mean, std)
        folded = 2 * std * _density(a) + mean * (1 - 2 * ndtr(a))
        return folded, np.square(mean) + np.square(std) - np.square(folded)
    return mean, np.square(std)


def drift_factor_moment(model: PCMModel, g_target_us, t_s: float, order: int = 1):
    """E[(t/t_0)^(-order nu)] under the model's law of nu, any shape. Exact: the generating function at -s, s = order L.

    Gaussian: exp(-s mu + s^2 sigma^2/2). Folded: that times Phi(mu/sigma - s sigma), plus its mirror image in mu.
    Clamped to [l, h]: that times Phi((h - mu)/sigma + s sigma) - Phi((l - mu)/sigma + s sigma), plus the two ends.
    """
    mean, std = model.drift_exponent_mean(g_target_us), model.drift_exponent_std(g_target_us)
    s = order * np.log(model.check_time(t_s) / model.t_0_s)
    spread = np.square(s * std) / 2
    if model.nu_law == "clamped" and model.drifts:
        low, high = model.nu_mean_range
        a, b = _standardised(low, mean, std), _standardised(high, mean, std)
        inside = np.exp(spread - s * mean) * (ndtr(b + s * std) - ndtr(a + s * std))
        return np.exp(-s * low) * ndtr(a) + inside + np.exp(-s * high) * ndtr(-b)
    if model.nu_law == "folded":
        a = _standardised(0, mean, std)
        return np.exp(spread - s * mean) * ndtr(-a - s * std) + np.exp(spread + s * mean) * ndtr(a - s * std)
    return np.exp(spread - s * mean)


def read_factor_moments(model: PCMModel, g_target_us, t_s: float):
    """(mean, variance) of G(t)/G_D(t) = max(1 + r z, 0), r = Q_s sqrt(ln((t + t_r)/(2 t_r))). Exact where Q_s is of G_T."""
    if model.q_argument != "target":
        raise DeviceError("moments: Q_s of the programmed conductance is random itself; closed forms need q_argument 'target'")
    return clipped_normal_moments(1.0, model.read_noise_std_us(1.0, g_target_us, t_s))


def conductance_moments(model: PCMModel, g_target_us, t_s: float):
    """(mean uS, variance uS^2) of a device as read at t. Exact: G = G_P (t/t_0)^-nu max(1 + r z, 0), three independent factors.

    E[G^k] is the product of the factors' k-th moments. DeviceError before t_0, where Q_s is of the programmed G, or for
    collapsed pairs, whose devices depend on each other.
    """
    if model.pair != "kept":
        raise DeviceError("moments: the devices of a collapsed pair are not independent; closed forms need pair 'kept'")
    prog, prog_var = programmed_moments(model, g_target_us)
    read, read_var = read_factor_moments(model, g_target_us, t_s)
    drift, drift_2 = (drift_factor_moment(model, g_target_us, t_s, order) for order in (1, 2))
    mean = prog * drift * read
    return mean, (prog_var + prog**2) * drift_2 * (read_var + read**2) - mean**2


def weight_moments(model: PCMModel, g_target_us, scale: float, t_s: float, bar: str | None = None):
    """(mean, variance) of w(t) = (G+ - G-)/scale: g_target_us [2, *shape] -> [*shape] each. Exact; DeviceError as above.

    G+ and G- are means over the n devices of a sign that the model gives the crossbar `bar`: (Var G+ + Var G-)/(n scale^2).
    """
    mean, variance = conductance_moments(model, g_target_us, t_s)
    return (mean[0] - mean[1]) / scale, (variance[0] + variance[1]) / model.devices_of(bar) / scale / scale


def output_moments(x, weight_mean, weight_variance):
    """(mean, variance) of y = x w for given inputs: x [N, K], weights [K, O] -> [N, O] each. Exact: weights are independent."""
    return x @ weight_mean, np.square(x) @ weight_variance


def gdc_factor_moments(model: PCMModel, g_target_us, t_s: float, bar: str | None = None):
    """(mean, variance) of alpha = I(t_0)/I(t), I the device sum over g_target_us (any shape), t > t_0. First order in 1/I.

    mean = E I_0 / E I_t and variance = mean^2 (V_0/I_0^2 + V_t/I_t^2 - 2 C/(I_0 I_t)). The two readings share G_P and nu,
    so C = sum of E[G_P^2] E[(t/t_0)^-nu] E[R_0] E[R_t] - E[G(t_0)] E[G(t)]. Error, relative to the mean: V_t/I_t^2 -
    C/(I_0 I_t) to the next order, which is O(1/n) for n devices; the variance's is O(1/n^2). The mean over m devices of a sign,
    which the model may give the crossbar `bar`, divides the variance by m. DeviceError for a model whose GDC reads out anything
    else, or takes its baseline of anything but a reading.
    """
    if (model.gdc_read_out, model.gdc_baseline) != ("device sum", "read"):
        raise DeviceError("moments: alpha's closed form needs gdc_read_out 'device sum' and gdc_baseline 'read'")
    (g_0, v_0), (g_t, v_t) = (conductance_moments(model, g_target_us, t) for t in (model.t_0_s, t_s))
    prog, prog_var = programmed_moments(model, g_target_us)
    read_0, read_t = (read_factor_moments(model, g_target_us, t)[0] for t in (model.t_0_s, t_s))
    covariance = (prog_var + prog**2) * drift_factor_moment(model, g_target_us, t_s) * read_0 * read_t - g_0 * g_t
    i_0, i_t = g_0.sum(), g_t.sum()
    spread = v_0.sum() / i_0**2 + v_t.sum() / i_t**2 - 2 * covariance.sum() / (i_0 * i_t)
    return i_0 / i_t, (i_0 / i_t) ** 2 * spread / model.devices_of(bar)


def read_noise_covariance_us2(model: PCMModel, g_drift_us, g_target_us, times_s: tuple[float, float]):
    """Covariance in uS^2 of a device's read noise at two times. Exact for the model's spectrum, before the clip at 0.

    g_drift_us is the pair (G_D(t1), G_D(t2)). The readings share the band from 1/(t1 + t_r) to 1/(2 t_r), t1 the earlier:
    Cov = G_D(t1) G_D(t2) Q_s^2 [Ci(pi tau/t_r) - Ci(2 pi tau/(t1 + t_r))], tau = |t2 - t1|, Ci the cosine integral; for
    tau = 0 the bracket is ln((t1 + t_r)/(2 t_r)), the variance that `PCMModel.read` draws. For S_G/G^2 = Q_s^2 c/f^gamma it is
    the integral of c cos(2 pi f tau)/f^gamma over that band.
    """
    band = _shared_band(model, *times_s)
    return g_drift_us[0] * g_drift_us[1] * np.square(model.read_noise_q(g_target_us)) * band * model.reads_noisily


def _shared_band(model: PCMModel, *times_s: float) -> float:
    """The bracket of the covariance: of two readings of a device, relative to G_D(t1) G_D(t2) Q_s^2."""
    t1_s, tau_s, gamma = model.check_time(min(times_s)), max(times_s) - min(times_s), model.noise_exponent
    if tau_s == 0:
        return model.read_band(t1_s)
    lowest, highest = 2 * np.pi * tau_s / (t1_s + model.t_r_s), np.pi * tau_s / model.t_r_s
    if gamma == 1:
        return sici(highest)[1] - sici(lowest)[1]
    unit_s = model.t_r_s  # f in units of 1/t_r: c = band / integral of f^-gamma, both over the band at t_0
    ends = np.array([2.0, model.t_0_s / unit_s + 1]) ** (gamma - 1) / (gamma - 1)
    c = model.read_band(model.t_0_s) / (ends[1] - ends[0])
    return c * (2 * np.pi * tau_s / unit_s) ** (gamma - 1) * (_cosine_tail(gamma, lowest) - _cosine_tail(gamma, highest))


def _cosine_tail(gamma: float, x: float) -> float:
    """The integral of cos(u) u^-gamma from x > 0 to infinity, gamma > 0, by quadrature to about 1e-10 of it.

    Up to u = 1 over ln u. From u = max(x, 1) on along u + i v, where e^(iu) decays instead of oscillating: the integral is
    Re[i e^(iu) times that of (u + i v)^-gamma e^-v from v = 0].
    """
    start = max(x, 1.0)
    turned = quad(lambda v: np.exp(-v) * (1j * np.exp(1j * start) * (start + 1j * v) ** -gamma).real, 0, np.inf, epsabs=0)[0]
    if x >= 1:
        return turned
    return turned + quad(lambda log: np.cos(np.exp(log)) * np.exp((1 - gamma) * log), np.log(x), 0, epsabs=0, limit=200)[0]


def read_correlation(model: PCMModel, t1_s: float, t2_s: float) -> float:
    """Correlation of a device's read noise at two times: the covariance over both standard deviations; G and Q_s drop out."""
    return float(_shared_band(model, t1_s, t2_s) / np.sqrt(_shared_band(model, t1_s) * _shared_band(model, t2_s)))


def split_reading_moments(model: PCMModel, g_drift_us, of_us, t_s: float, correlation: float, z):
    """(mean uS, variance uS^2) of readings that share a part of their noise, given that part z. Exact: a clipped Gaussian.

    G = max(G_D + sigma_nG (sqrt(c) z + sqrt(1 - c) z'), 0), z' fresh for every reading: over z a reading has the law of
    `PCMModel.read`, and the noise of two of them the correlation c. of_us is what Q_s depends on.
    """
    std_us = model.read_noise_std_us(g_drift_us, of_us, t_s)
    return clipped_normal_moments(g_drift_us + np.sqrt(correlation) * std_us * z, np.sqrt(1 - correlation) * std_us)
