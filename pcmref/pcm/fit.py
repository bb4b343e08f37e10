"""A device model from measured conductances: the constants by maximum likelihood, each with its sampling error.

A table of measurements has the columns device, target_us, t_s, g_us: a row a reading, any number of times and of repeated
readings. Devices of one target are a level. For each level four numbers are fitted: sigma_prog, the mean and the spread of nu,
and Q_s. The likelihood of a device's readings g_k > 0 is the integral over its a = ln G_P and its nu of

    phi((e^a - G_T)/sigma_prog) e^a/sigma_prog  phi((nu - mu)/s)/s  prod_k phi((g_k e^-eta_k - 1)/r_k) e^-eta_k/r_k,

eta_k = a - nu ln(t_k/t_0), r_k = Q_s sqrt(band(t_k)): the equations of `model` with their clips at 0, so that a reading of 0
adds Phi(-1/r_k), and every reading of a device programmed to 0 is 0. Then the laws in x = G_T/G_max are fitted to the levels,
each level weighted by its information, and devices are drawn again (bootstrap) for the errors of the laws.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product

import numpy as np
from scipy.optimize import minimize
from scipy.special import log_ndtr
from scipy.stats import ks_2samp

from pcmref import draws
from pcmref.errors import DeviceError
from pcmref.pcm.model import PCMModel

LEVELS = 40  # more targets than this are put together, those next to each other
FEWEST = 20  # devices of a level
LARGEST = 50_000_000  # devices times the most readings of one
NODES = 9  # of Gauss and Hermite's rule in each of a and nu
BOOTSTRAPS = 400
NOISELESS = 1e-6  # Q_s of devices whose readings repeat to the last digit
WITHOUT = {  # what the likelihood does not know of
    "nu_law": "gaussian",
    "q_argument": "target",
    "programming_contains_read": False,
    "stuck": (0.0, 0.0),
    "q_min": 0.0,
    **dict.fromkeys(("nu_mean_above", "nu_std_above", "q_line", "q_above"), ()),
}
NAMES = ("sigma_prog", "nu mean", "nu spread", "Q_s")  # what is fitted at a level


@dataclass(frozen=True)
class Readings:
    """The readings of n devices, at most K of each, in the order of time: gaps in `g_us` and `t_s` are NaN."""

    target_us: np.ndarray  # [n]
    t_s: np.ndarray  # [n, K]
    g_us: np.ndarray  # [n, K]

    @classmethod
    def of_rows(cls, device, target_us, t_s, g_us) -> "Readings":
        """From columns of equal length; DeviceError where a device has two targets, or far more readings than others."""
        names, first, number = np.unique(device, return_index=True, return_inverse=True)
        if (target_us != target_us[first][number]).any():
            row = int(np.flatnonzero(target_us != target_us[first][number])[0])
            raise DeviceError(
                f"device {str(device[row])!r} has two targets: {target_us[first][number][row]} and {target_us[row]} uS"
            )
        order = np.lexsort((t_s, number))
        counts = np.bincount(number)
        if len(names) * counts.max() > LARGEST:
            raise DeviceError(f"{len(names):,} devices, of which one has {counts.max():,} readings: over {LARGEST:,} places")
        place = np.arange(len(order)) - np.repeat(np.cumsum(counts) - counts, counts)
        padded = np.full((2, len(names), counts.max()), np.nan)
        padded[0, number[order], place], padded[1, number[order], place] = t_s[order], g_us[order]
        return cls(target_us[first], *padded)

    def of(self, devices) -> "Readings":
        return Readings(self.target_us[devices], self.t_s[devices], self.g_us[devices])

    def levels(self) -> list["Readings"]:
        """The devices of each target; where there are many targets, of runs of them. DeviceError for fewer than 20."""
        targets, counts = np.unique(self.target_us, return_counts=True)
        if len(targets) > LEVELS:
            runs = min(LEVELS, len(self.target_us) // FEWEST)
            return [self.of(devices) for devices in np.array_split(np.argsort(self.target_us, kind="stable"), max(runs, 1))]
        if counts.min() < FEWEST:
            fewest = targets[counts.argmin()]
            raise DeviceError(f"{counts.min()} devices of target {fewest:g} uS: a fit needs {FEWEST} of each target or more")
        return [self.of(self.target_us == target) for target in targets]


@dataclass(frozen=True)
class Level:
    """One level's estimates: values [4] as NAMES, which of them are fitted, and the gradients [n, 4] of its devices."""

    x: float
    values: np.ndarray
    free: np.ndarray  # [4] bool
    scores: np.ndarray

    @cached_property
    def covariance(self) -> np.ndarray:
        """Of the values, [4, 4]: the inverse of the sum of the gradients' products; 0 for what is not fitted."""
        covariance, free = np.zeros((4, 4)), np.ix_(self.free, self.free)
        covariance[free] = np.linalg.pinv((self.scores.T @ self.scores)[free])
        return covariance

    @property
    def std(self) -> np.ndarray:
        return np.sqrt(np.diag(self.covariance))

    def resampled(self, weights: np.ndarray) -> np.ndarray:
        """The values [4] for devices that count `weights` [n] times: one step of scoring from all of them."""
        return self.values + self.covariance @ (weights @ self.scores)


def log_likelihood(values: np.ndarray, level: Readings, model: PCMModel, mode: np.ndarray | None = None):
    """(log-likelihood of each device [n], the modes of (a, nu) [n, 2] to start from): values as NAMES."""
    std_us, mean, _, q = values
    there = np.isfinite(level.g_us)
    times_s, place = np.unique(np.where(there, level.t_s, model.t_0_s), return_inverse=True)
    r = (q * np.sqrt([model.read_band(t_s) for t_s in times_s]))[place.reshape(there.shape)]  # [n, K]
    log_t = np.log(times_s / model.t_0_s)[place.reshape(there.shape)]
    positive, target_us = there & (level.g_us > 0), level.target_us
    at_zero = np.where(there & ~positive, log_ndtr(-1 / r), 0).sum(1)

    def integrand(at):
        return _integrand(at, values, np.where(positive, level.g_us, 1.0), positive, target_us, r, log_t)

    mode, bend = _climb(integrand, _start(level, positive, mean) if mode is None else mode)
    conducting = _integral(integrand, mode, bend) + at_zero
    empty = np.logaddexp(log_ndtr(-target_us / std_us), log_ndtr(target_us / std_us) + at_zero)
    return np.where(positive.any(1), conducting, empty), mode


def _integrand(at, values, g, positive, target_us, r, log_t):
    """(the logarithm at (a, nu) [n, 2], its gradient [n, 2], its curvature [n, 2, 2], held positive definite)."""
    (std_us, mean, spread, _), a, nu = values, at[:, :1], at[:, 1:]
    eta, height_us = a - nu * log_t, np.exp(a[:, 0])
    ratio = np.where(positive, g * np.exp(-eta), 1.0)
    off, from_mean = (height_us - target_us) / std_us, (nu[:, 0] - mean) / spread
    value = np.where(positive, -np.log(r) - eta - ((ratio - 1) / r) ** 2 / 2, 0).sum(1)
    value += a[:, 0] - np.log(std_us) - off**2 / 2 - np.log(spread) - from_mean**2 / 2
    value -= (positive.sum(1) + 2) * np.log(2 * np.pi) / 2
    push = np.where(positive, (ratio - 1) * ratio / r**2 - 1, 0)
    gradient = np.stack([push.sum(1) - off * height_us / std_us + 1, -(push * log_t).sum(1) - from_mean / spread], 1)
    bend = np.where(positive, np.maximum((2 * ratio - 1) * ratio, 0.3) / r**2, 0)
    of_a = bend.sum(1) + np.maximum((2 * height_us - target_us) * height_us / std_us**2, 0.1)
    of_nu, across = (bend * log_t**2).sum(1) + 1 / spread**2, -(bend * log_t).sum(1)
    return value, gradient, np.stack([np.stack([of_a, across], 1), np.stack([across, of_nu], 1)], 1)


def _climb(integrand: Callable, mode: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(the mode [n, 2], the curvature there [n, 2, 2]) by Newton's method, each step shorter where a full one goes down."""
    value, gradient, bend = integrand(mode)
    for _ in range(50):
        step = np.linalg.solve(bend, gradient[..., None])[..., 0]
        step /= np.maximum(1, np.abs(step / [1.0, 0.2]).max(1, keepdims=True))
        if np.abs(step).max(initial=0) < 1e-4:
            break
        for _ in range(8):
            worse = integrand(mode + step)[0] < value - 1e-9
            if not worse.any():
                break
            step[worse] /= 4
        mode = mode + step
        value, gradient, bend = integrand(mode)
    return mode, bend


def _integral(integrand: Callable, mode: np.ndarray, bend: np.ndarray) -> np.ndarray:
    """The logarithm of the integral over a and nu [n], by Gauss and Hermite's rule on nodes that lie as the curvature says."""
    z, weight = np.polynomial.hermite_e.hermegauss(NODES)
    root = np.linalg.cholesky(np.linalg.inv(bend))
    terms = [
        integrand(mode + root @ (z_1, z_2))[0] + np.log(w_1 * w_2) + (z_1**2 + z_2**2) / 2
        for (z_1, w_1), (z_2, w_2) in product(zip(z, weight, strict=True), repeat=2)
    ]
    return np.logaddexp.reduce(terms, 0) + np.log(root[:, 0, 0] * root[:, 1, 1])


def _start(level: Readings, positive, mean: float) -> np.ndarray:
    """(a, nu) [n, 2] near the mode: the median reading above 0, taken back to t_0, and the mean exponent."""
    a = np.full(len(level.target_us), 0.0)
    seen = positive.any(1)
    a[seen] = np.log(np.nanmedian(np.where(positive, level.g_us, np.nan)[seen], axis=1))
    return np.stack([a, np.full(len(a), mean)], 1)


def fit_level(level: Readings, model: PCMModel, free: np.ndarray) -> Level:
    """The most likely numbers of a level; the others than `free` [4] stay the model's. All but the mean of nu are above 0."""
    target = float(level.target_us.mean())
    start = np.array(
        [model.programming_std_us(target), model.drift_exponent_mean(target), model.drift_exponent_std(target)]
        + [model.read_noise_q(target) * model.reads_noisily],
        float,
    )
    start[[0, 2, 3]] = np.maximum(start[[0, 2, 3]], NOISELESS)
    scale = np.maximum(np.abs(start), NOISELESS)
    mode = None

    def values(parameters):
        """Logarithms of what must be above 0."""
        out = start.copy()
        out[free] = np.where(
            np.array([True, False, True, True])[free], scale[free] * np.exp(parameters), scale[free] * parameters
        )
        return out

    def minus(parameters):
        nonlocal mode
        found, mode = log_likelihood(values(parameters), level, model, mode)
        return -found.sum() / len(found)

    first = np.where(np.array([True, False, True, True])[free], 0.0, start[free] / scale[free])
    best = minimize(minus, first, method="BFGS", options={"gtol": 1e-4, "maxiter": 60})
    at = values(best.x)
    scores = np.zeros((len(level.target_us), 4))
    for i in np.flatnonzero(free):
        step = np.eye(4)[i] * max(abs(at[i]), 1e-9) * 1e-3
        up, down = (log_likelihood(at + sign * step, level, model, mode)[0] for sign in (1, -1))
        scores[:, i] = (up - down) / (2 * step[i])
    return Level(target / model.g_max_us, at, free, scores)


# ------------------------------------------------------------------------------------------------- from levels to laws


@dataclass(frozen=True)
class Estimate:
    """A number of the fitted model: the constant, which of its numbers (None: it is one), its value and 95 % interval.

    `low` and `high` are None where the data cannot tell: the value is then that of the profile that the fit is based on.
    """

    constant: str
    index: int | None
    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class DeviceFit:
    """A fitted device: the model, each estimate, the levels' own estimates, and where a law does not hold of the readings."""

    model: PCMModel
    estimates: list[Estimate]
    levels: list[Level]
    misfits: list[str]
    notes: list[str]


def polynomial(x, y, std, degree: int) -> np.ndarray:
    """The coefficients, c_0 first, of the polynomial that is nearest to y, each weighted by 1/std^2."""
    return np.linalg.lstsq(np.vander(x, degree + 1, increasing=True) / std[:, None], y / std, rcond=None)[0]


def any_polynomial(x, y, std) -> np.ndarray:
    """The coefficients [4] of the polynomial of the degree with the least chi^2 and 2 for each coefficient; 0 beyond it.

    Resampled devices choose their degree too, so that the intervals hold the doubt about it.
    """
    best = (np.inf, np.zeros(4))
    for degree in range(min(4, len(x))):
        c = polynomial(x, y, std, degree)
        chi2 = (((np.vander(x, degree + 1, increasing=True) @ c - y) / std) ** 2).sum() + 2 * (degree + 1)
        best = min(best, (chi2, np.pad(c, (0, 3 - degree))), key=lambda pair: pair[0])
    return best[1]


def clipped_line(x, y, std, bounded: tuple[bool, bool], least: int = 0) -> np.ndarray:
    """(slope, intercept, the bound at low x, the bound at high x) of the law with the least chi^2 and 2 for each number.

    The law is slope ln x + intercept between its two bounds; NaN stands for what the levels cannot tell. Every way to say which
    levels lie at a bound is tried. `bounded` says at which end there may be a bound, `least` how many levels are on the line.
    """
    log_x, weight, n = np.log(np.maximum(x, np.finfo(float).tiny)), 1 / std**2, len(x)
    best = (np.full(4, np.nan), np.inf)
    for first in range(int(x[0] == 0), n + 1 if bounded[0] else int(x[0] == 0) + 1):
        for last in range(first, n + 1) if bounded[1] else (n,):
            inside = slice(first, last)
            if last - first == 1 or last - first < least or (last == first and 0 < first < n):
                continue  # a line through one level, a step between two bounds
            law = np.full(4, np.nan)
            if first:
                law[2] = np.average(y[:first], weights=weight[:first])
            if last < n:
                law[3] = np.average(y[last:], weights=weight[last:])
            if last > first:
                law[1::-1] = polynomial(log_x[inside], y[inside], std[inside], 1)
            chi2 = (weight * (value_of(law, log_x) - y) ** 2).sum() + 2 * np.isfinite(law).sum()
            if chi2 < best[1]:
                best = law, chi2
    return best[0]


def value_of(law: np.ndarray, log_x: np.ndarray) -> np.ndarray:
    """The law of `clipped_line` at ln x."""
    slope, intercept, at_low, at_high = law
    if np.isnan(slope):
        return np.full(len(log_x), at_low if np.isfinite(at_low) else at_high)
    low, high = (at_low, at_high) if slope > 0 else (at_high, at_low)
    line = slope * log_x + intercept
    return np.clip(line, low if np.isfinite(low) else -np.inf, high if np.isfinite(high) else np.inf)


def fit_device(
    readings: Readings, base: PCMModel, name: str, g_max_us: float | None = None, seed: int = 0, progress=None
) -> DeviceFit:
    """The device model whose laws are those of the readings; what they cannot tell is `base`'s.

    G_max is the largest target unless given, t_0 the earliest time. `progress(done, total)` follows the levels.
    """
    g_max_us = float(readings.target_us.max() if g_max_us is None else g_max_us)
    t_0_s = float(np.nanmin(readings.t_s))
    if readings.target_us.max() > g_max_us:
        raise DeviceError(f"a target of {readings.target_us.max():g} uS is above G_max, {g_max_us:g} uS")
    if t_0_s <= base.t_r_s:
        raise DeviceError(f"the earliest time, {t_0_s:g} s, is no longer than a reading, {base.t_r_s:g} s: times are seconds")
    of_fit = {"name": name, "g_max_us": g_max_us, "programming_g_max_us": g_max_us, "t_0_s": t_0_s}
    of_fit |= {"g_min_us": base.g_min_us if base.g_min_us < g_max_us else 0.0}
    model = replace(base, **of_fit, **WITHOUT)
    free, notes, model, readings = _what_can_be_told(readings, model)
    levels, of_levels = [], readings.levels()
    for level in of_levels:
        levels.append(fit_level(level, model, free))
        if progress is not None:
            progress(len(levels), len(of_levels))
    weights = [_multinomial(seed, k, len(level.scores)) for k, level in enumerate(levels)]
    samples = np.stack([[level.resampled(w) for w in of] for level, of in zip(levels, weights, strict=True)], 1)  # [B, L, 4]
    model, estimates = _laws(np.array([level.values for level in levels]), samples, levels, model, base, free)
    misfits = _misfits(of_levels, model, seed)
    return DeviceFit(model, estimates, levels, misfits, notes)


def _multinomial(seed: int, level: int, n: int) -> np.ndarray:
    """How often each of n devices is drawn in each resample: [BOOTSTRAPS, n]."""
    drawn = draws.integers(seed, f"fit/{level}", n, (BOOTSTRAPS, n))
    return np.stack([np.bincount(row, minlength=n) for row in drawn])


def _what_can_be_told(readings: Readings, model: PCMModel):
    """(which of NAMES are fitted, why others are not, the model and the readings without what does not happen in them)."""
    there = np.isfinite(readings.g_us)
    several = (np.diff(readings.t_s) > 0).any()  # times of one device
    spare = np.median(there.sum(1)) - 1 - several  # readings of a device beside those that tell G_P and nu
    apart = np.abs(np.diff(readings.g_us))  # in the order of time
    repeats = apart[np.diff(readings.t_s) == 0]
    notes = []
    free = np.array([True, several, several, spare >= 1])
    if len(np.unique(readings.target_us)) == 1:
        notes.append("one target: how programming noise and drift depend on it cannot be told")
    if not several:
        notes.append("one time a device: drift cannot be told")
    still = several and apart[np.isfinite(apart)].max() == 0
    if still or (repeats.size and repeats.max() == 0):
        model, free[3] = replace(model, reads_noisily=False), False
        notes.append("repeated readings are equal to the last digit: no read noise")
    elif not free[3]:
        notes.append("no repeated readings: read noise cannot be told from programming noise and drift")
    if still:
        model, free[1:3] = replace(model, drifts=False), False
        notes.append("readings do not change with time: no drift")
        readings = replace(readings, t_s=np.where(there, model.t_0_s, np.nan))
    return free, notes, model, readings


def _laws(values, samples, levels: list[Level], model: PCMModel, base: PCMModel, free) -> tuple[PCMModel, list[Estimate]]:
    """The model with the laws of the levels' values [L, 4], and every number of it with its interval over samples [B, L, 4]."""
    x, std = np.array([level.x for level in levels]), np.array([level.std for level in levels])
    coefficients = polynomial(x, values[:, 0], std[:, 0], _degree(levels, x))
    estimates = _estimates("programming", coefficients, np.array([any_polynomial(x, y, std[:, 0]) for y in samples[..., 0]]))
    model = replace(model, programming=tuple(e.value for e in estimates))
    for quantity, line, bounds in ((1, "nu_mean_line", "nu_mean_range"), (2, "nu_std_line", "nu_std_range")):
        if free[quantity]:
            law, of = _over(lambda y, q=quantity: clipped_line(x, y, std[:, q], (True, True)), values, samples, quantity)
            model, new = _with_line(model, base, x, law, of, line, bounds)
            estimates += new
    if free[3]:
        positive = np.maximum(samples, NOISELESS)
        law, of = _over(lambda y: power_law(x, y, std[:, 3], base.q_exponent), values, positive, 3)
        model, new = _with_power(model, base, law, of)
        estimates += new
    return model, estimates


def _over(fit: Callable, values, samples, quantity: int) -> tuple[np.ndarray, np.ndarray]:
    """(the fit of one quantity's values, the fits of its samples)."""
    return fit(values[:, quantity]), np.array([fit(sample[:, quantity]) for sample in samples])


def _estimates(constant: str, values, samples, index=None) -> list[Estimate]:
    """One number after the other, to 7 digits, with the interval that holds 95 % of its samples."""
    out = []
    for i, value in enumerate(values):
        known = np.isfinite(samples[:, i])
        interval = np.quantile(samples[known, i], (0.025, 0.975)) if np.isfinite(value) and known.mean() > 0.9 else (None, None)
        place = i if index is None else index[i]
        out.append(Estimate(constant, place, _digits(value), *(None if v is None else float(v) for v in interval)))
    return out


def _digits(value) -> float:
    return float(f"{value:.7g}")


def _degree(levels: list[Level], x) -> int:
    """The degree of sigma_prog's polynomial, at most 3, by the likelihood of devices that were held out: five parts."""
    scores = np.zeros(4)
    std = np.array([level.std[0] for level in levels])
    for part in range(5):
        rest, held, held_std = [], [], []
        for level in levels:
            out = np.arange(len(level.scores)) % 5 == part
            rest.append(level.resampled(np.where(out, 0.0, 1.25))[0])
            held.append(level.resampled(np.where(out, 5.0, 0.0))[0])
            held_std.append(level.std[0] * np.sqrt(5))
        for degree in range(min(4, len(np.unique(x)))):
            off = np.vander(x, degree + 1, increasing=True) @ polynomial(x, np.array(rest), std, degree) - held
            scores[degree] -= ((off / held_std) ** 2).sum() / 2
    return int(np.argmax(scores[: min(4, len(np.unique(x)))]))


def _with_line(model, base, x, law, samples, line: str, bounds: str) -> tuple[PCMModel, list[Estimate]]:
    """The model with a clipped line of ln x; what the levels cannot tell of it is the base's, if that cuts no level off."""
    order = (2, 3) if law[0] > 0 else (3, 2)  # which of the bounds at low and high x is the lower one
    of_line, of_bounds = law[:2], law[list(order)]
    inside = value_of(law, np.log(np.maximum(x, np.finfo(float).tiny)))
    kept = getattr(base, bounds)
    if np.isnan(of_line[0]):  # one value at all levels
        constant = np.nanmax(of_bounds)
        samples_of = np.nanmax(samples[:, 2:], axis=1)
        model = replace(model, **{bounds: (_digits(constant), _digits(constant))})
        return model, _estimates(bounds, [constant], samples_of[:, None], [0])
    low, high = (np.where(np.isfinite(of_bounds), of_bounds, [min(kept[0], inside.min()), max(kept[1], inside.max())])).tolist()
    low, high = sorted((_digits(low), _digits(high)))
    low = low if bounds == "nu_mean_range" else max(low, 0.0)
    model = replace(model, **{line: tuple(map(_digits, of_line)), bounds: (low, high)})
    told = _estimates(line, of_line, samples[:, :2]) + _estimates(bounds, of_bounds, samples[:, list(order)])
    return model, [e if e.low is not None else replace(e, value=getattr(model, e.constant)[e.index]) for e in told]


def _with_power(model, base, law, samples) -> tuple[PCMModel, list[Estimate]]:
    """The model with Q_s = min(factor x^exponent, q_max); what the levels cannot tell is the base's."""
    law, samples = law.copy(), samples.copy()
    law[1:3], samples[:, 1:3] = np.exp(law[1:3]), np.exp(samples[:, 1:3])
    told = _estimates("q_exponent", law[:1], samples[:, :1], [None]) + _estimates("q_factor", law[1:2], samples[:, 1:2], [None])
    told += _estimates("q_max", law[2:3], samples[:, 2:3], [None])
    kept = np.where(np.isfinite(law[:3]), law[:3], (base.q_exponent, base.q_factor, max(base.q_max, np.nan_to_num(law[1]))))
    model = replace(model, q_exponent=min(_digits(kept[0]), 0.0), q_factor=_digits(kept[1]), q_max=_digits(kept[2]))
    return model, [replace(e, value=getattr(model, e.constant)) for e in told]


def power_law(x, y, std, exponent: float) -> np.ndarray:
    """(exponent, ln factor, ln of the largest, NaN) of the nearest min(factor x^exponent, largest); NaN: it cannot be told.

    Through a single level above 0 with the exponent that is given.
    """
    above = x > 0
    if above.sum() >= 2:
        return clipped_line(x, np.log(y), std / y, (True, False), least=2)
    factor = np.log(y[above]) - exponent * np.log(x[above])
    ends = [values[0] if len(values) else np.nan for values in (factor, np.log(y[~above]))]
    return np.array([np.nan, *ends, np.nan])


# ---------------------------------------------------------------------------------------------- does the law hold of them


def _misfits(levels: list[Readings], model: PCMModel, seed: int) -> list[str]:
    """Where readings are not distributed as the fitted law: Kolmogorov and Smirnov's test against 20 times as many drawn.

    First readings, ratios of the last to the first, and differences of repeated readings; 1 % for all tests together.
    """
    rows = []
    for k, level in enumerate(levels):
        drawn = _drawn_like(level, model, seed, k)
        for what, statistic in (("programming", _first), ("drift", _ratios), ("read noise", _differences)):
            seen, expected = statistic(level), statistic(drawn)
            if min(len(seen), len(expected)) >= 20:
                rows.append((ks_2samp(seen, expected).pvalue, what, float(level.target_us.mean())))
    return [
        f"{what} at {target:g} uS is not distributed as the law (p = {p:.1g})"
        for p, what, target in rows
        if p < 0.01 / len(rows)
    ]


def _drawn_like(level: Readings, model: PCMModel, seed: int, k: int) -> Readings:
    """Twenty devices of the model for each of a level's, read at the same times."""
    target, t_s = np.repeat(level.target_us, 20), np.repeat(level.t_s, 20, 0)
    n, reads = t_s.shape
    g_prog = model.program(target, draws.standard_normal(seed, f"fit/program/{k}", (n,)))
    nu = model.drift_exponent(target, draws.standard_normal(seed, f"fit/drift/{k}", (n,)))
    z = draws.standard_normal(seed, f"fit/read/{k}", (n, reads))
    g_us = np.full((n, reads), np.nan)
    for time in np.unique(t_s[np.isfinite(t_s)]):
        at = t_s == time
        device = np.nonzero(at)[0]
        g_us[at] = model.read(model.drift(g_prog[device], nu[device], time), target[device], time, z[at])
    return Readings(target, t_s, g_us)


def _first(level: Readings) -> np.ndarray:
    return level.g_us[:, 0] - level.target_us


def _ratios(level: Readings) -> np.ndarray:
    """The last reading over the first, of devices that read above 0 both times, if there are two times."""
    last = np.arange(len(level.g_us)), np.isfinite(level.g_us).sum(1) - 1
    g, t = level.g_us[last], level.t_s[last]
    apart = (t > level.t_s[:, 0]) & (g > 0) & (level.g_us[:, 0] > 0)
    return np.log(g[apart] / level.g_us[apart, 0])


def _differences(level: Readings) -> np.ndarray:
    """Neighbouring readings of one time, less each other, in units of their sum."""
    with np.errstate(invalid="ignore", divide="ignore"):
        pairs = (level.g_us[:, 1:] - level.g_us[:, :-1]) / (level.g_us[:, 1:] + level.g_us[:, :-1])
    return pairs[(level.t_s[:, 1:] == level.t_s[:, :-1]) & np.isfinite(pairs)]
