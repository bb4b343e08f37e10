"""Random operations of backends that take no noise: n draws against their exact law, with a stated chance of a false alarm.

A draw is location + spread * z before it is clipped, folded or clamped. The mass at a clip has a binomial count. The rest is
sent through its own distribution function to a uniform and on to a normal score, whose mean is normal and whose sum of
squares is chi-squared, both exactly. Scores of neighbouring elements, and of successive draws, must not correlate.

The family-wise error ALPHA is split over all tests of a run. A failure needs significance and an effect beyond MARGIN; a pass
needs enough draws to have found a 2 % error of the spread with 99 % power. Anything less is inconclusive.
"""

from typing import NamedTuple

import numpy as np

from pcmref.errors import SettingError

ALPHA = 1e-6  # chance that a correct backend fails anything in a run
EFFECT, POWER = 0.02, 0.99  # the error of the spread that n draws must show, and how surely
MARGIN = 0.002  # deviations of a standardised mean or spread below this do not count as wrong
N_DRAWS = 100_000


class Law(NamedTuple):
    """The law of each element of an output; kind is "gaussian", "clipped" at 0, "folded" or "clamped" to low..high."""

    kind: str
    location: np.ndarray
    spread: np.ndarray
    low: float = 0.0
    high: float = np.inf


class Test(NamedTuple):
    """One test: what, of which element, its p-value, and the effect in standard deviations."""

    what: str
    element: tuple[int, ...]
    p: float
    effect: float


def law_kind(op: str, params: dict) -> tuple[str, float, float]:
    """(kind, low, high) of an operation's output."""
    if op in ("program", "read"):
        return "clipped", 0.0, np.inf
    if op == "drift_exponent" and params["model"]["nu_law"] == "folded":
        return "folded", 0.0, np.inf
    if op == "drift_exponent" and params["model"]["nu_law"] == "clamped":
        return "clamped", *params["model"]["nu_mean_range"]
    return "gaussian", -np.inf, np.inf


def draws_needed(n_tests: int) -> int:
    """Draws that show an error of EFFECT in the spread with POWER, at ALPHA split over n_tests: chi-squared, two-sided."""
    from scipy.stats import chi2

    def power(n):
        high = chi2.isf(ALPHA / n_tests / 2, n - 1)
        return chi2.sf(high / (1 + EFFECT) ** 2, n - 1)

    low, high = 2, 4
    while power(high) < POWER:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if power(middle) >= POWER else (middle, high)
    return high


def element_tests(law: Law, samples: np.ndarray) -> list[Test]:
    """All tests of one output: samples [n, *shape] against the law of that shape."""
    if samples.ndim != law.location.ndim + 1 or samples.shape[1:] != law.location.shape or len(samples) < 2:
        raise SettingError(f"samples must be [n, {law.location.shape}] with n from 2, got shape {samples.shape}")
    tests, scores = [], {}
    for index in np.ndindex(*law.location.shape):
        draws = _snapped(law, samples[(slice(None), *index)].astype(np.float64))
        if draws.min() < law.low or draws.max() > law.high:
            tests.append(Test("outside the law's range", index, 0.0, np.inf))
        atoms, score = _scores(law, float(law.location[index]), float(law.spread[index]), draws)
        for what, count, probability in atoms:
            tests.append(_atom(what, index, count, len(draws), probability))
        if np.count_nonzero(np.isfinite(score)) > 1:
            tests += _moments(index, score[np.isfinite(score)])
            tests.append(_correlation("successive draws", index, score[1:], score[:-1]))
        scores[index] = score
    order = list(scores)
    for first, second in zip(order, order[1:], strict=False):
        tests.append(_correlation(f"with element {list(second)}", first, scores[first], scores[second]))
    return tests


def _snapped(law: Law, draws: np.ndarray) -> np.ndarray:
    """Draws at a clip, as rounded to float32 or wider, set to the clip itself."""
    for bound in (law.low, law.high):
        if np.isfinite(bound):
            draws = np.where(np.abs(draws - bound) <= 2.0**-22 * abs(bound), bound, draws)
    return draws


def _scores(law: Law, location: float, spread: float, draws: np.ndarray):
    """([(name, count, probability) of each atom], normal score of each draw, NaN at an atom)."""
    from scipy.special import ndtr, ndtri

    z = (draws - location) / spread
    if law.kind == "gaussian":
        return [], z
    if law.kind == "folded":
        return [], ndtri(np.maximum(ndtr(z) - ndtr((-draws - location) / spread), 0))
    below, above = ndtr((law.low - location) / spread), ndtr(-(law.high - location) / spread)
    atoms = [("share at the lower clip", int((draws <= law.low).sum()), below)]
    if np.isfinite(law.high):
        atoms.append(("share at the upper clip", int((draws >= law.high).sum()), above))
    inside = (draws > law.low) & (draws < law.high)
    conditional = (ndtr(z) - below) / (1 - below - above)
    return atoms, np.where(inside, ndtri(np.clip(conditional, 0, 1)), np.nan)


def _atom(what, index, count, n, probability) -> Test:
    from scipy.stats import binomtest

    p = binomtest(count, n, min(max(probability, 0.0), 1.0)).pvalue
    return Test(what, index, float(p), abs(count / n - probability))


def _moments(index, score) -> list[Test]:
    """Mean ~ N(0, 1/n); sum of squared deviations ~ chi-squared(n - 1)."""
    from scipy.special import ndtr
    from scipy.stats import chi2

    n, mean = len(score), score.mean()
    squares = np.square(score - mean).sum()
    p_mean = 2 * ndtr(-abs(mean) * np.sqrt(n))
    p_spread = 2 * min(chi2.sf(squares, n - 1), chi2.cdf(squares, n - 1))
    return [
        Test("mean", index, float(p_mean), float(abs(mean))),
        Test("spread", index, float(p_spread), float(abs(np.sqrt(squares / (n - 1)) - 1))),
    ]


def _correlation(what, index, a, b) -> Test:
    """The correlation r of n independent normal pairs: r sqrt((n - 2)/(1 - r^2)) is Student's t with n - 2 degrees."""
    from scipy.stats import t as student

    both = np.isfinite(a) & np.isfinite(b)
    if both.sum() < 3 or a[both].std() == 0 or b[both].std() == 0:
        return Test(f"correlation {what}", index, 1.0, 0.0)
    n, r = int(both.sum()), min(max(float(np.corrcoef(a[both], b[both])[0, 1]), -1.0), 1.0)
    p = 0.0 if abs(r) == 1 else 2 * student.sf(abs(r) * np.sqrt((n - 2) / (1 - r * r)), n - 2)
    return Test(f"correlation {what}", index, float(p), abs(r))


def failures(tests: list[Test], n_tests: int) -> list[Test]:
    """The tests that fail at ALPHA split over n_tests, by more than MARGIN, the clearest first."""
    failed = [t for t in tests if not t.p >= ALPHA / n_tests and not t.effect <= MARGIN]
    return sorted(failed, key=lambda t: (t.p, -t.effect))
