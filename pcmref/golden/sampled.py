"""Random operations of backends that take no noise: n draws against their exact law, with a stated chance of a false alarm.

A draw is location + spread * z before it is clipped, folded or clamped. The mass at a clip has a binomial count. The rest is
sent through its own distribution function to a uniform and on to a normal score, and then, for each element: mean, spread,
largest score, the whole distribution (Kolmogorov-Smirnov), successive draws, repeated values; for each case: every pair of
elements, the share of all scores in the tails, and the stream of all draws against itself
at every distance. The null distributions are exact, or bounded from
above where a test says so.

The family-wise error ALPHA is split over all tests of a run. A failure needs significance and an effect beyond MARGIN; a pass
needs enough draws to have found a 2 % error of an unclipped element's spread with 99 % power. Anything less is inconclusive.
"""

from itertools import combinations
from typing import NamedTuple

import numpy as np
import scipy
from scipy.special import ndtr, ndtri

from pcmref.golden.ops import OPS

ALPHA = 1e-6  # chance that a correct backend fails anything in a run
EFFECT, POWER = 0.02, 0.99  # the error of the spread that n draws must show, and how surely
MARGIN = 0.002  # deviations of a standardised mean or spread below this do not count as wrong
N_DRAWS = 100_000
CELLS = 2**20  # of equal probability, for repeated values
GENERATOR = 2.0**-22  # no single value of a backend's own generator is likelier than this, before any rounding
TAIL = 3.1  # standard deviations: a normal number lies beyond it once in 517
TESTS_AN_ELEMENT = 8  # at most: two atoms, mean, spread, largest, distribution, successive, repeated


class Law(NamedTuple):
    """The law of each element of an output; kind is "gaussian", "clipped" at 0, "folded" or "clamped" to low..high."""

    kind: str
    location: np.ndarray
    spread: np.ndarray
    low: float = 0.0
    high: float = np.inf


class Test(NamedTuple):
    """One test: what, of which element, its p-value, the effect in standard deviations or as a share, of which output."""

    what: str
    element: tuple[int, ...]
    p: float
    effect: float
    output: str = ""


def law_kind(op: str, params: dict) -> tuple[str, float, float]:
    """(kind, low, high) of an operation's output."""
    kind = params["model"]["nu_law"] if OPS[op].law == "nu_law" else OPS[op].law
    if kind == "clamped":
        return kind, *params["model"]["nu_mean_range"]
    return kind, -np.inf if kind == "gaussian" else 0.0, np.inf


def draws_needed(n_tests: int) -> int:
    """Draws that show an error of EFFECT in the spread with POWER, at ALPHA split over n_tests: chi-squared, two-sided."""

    def power(n):
        high = scipy.stats.chi2.isf(ALPHA / n_tests / 2, n - 1)
        return scipy.stats.chi2.sf(high / (1 + EFFECT) ** 2, n - 1)

    low, high = 2, 4
    while power(high) < POWER:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if power(middle) >= POWER else (middle, high)
    return high


def tests_of(laws: dict[str, Law]) -> int:
    """At most how many tests a case has: its elements', one for each pair of them, three for the tails, one for the stream."""
    elements = sum(law.location.size for law in laws.values())
    return TESTS_AN_ELEMENT * elements + elements * (elements - 1) // 2 + 4


def rounding(laws: dict[str, Law], u: float) -> float:
    """How far rounding to u moves a draw at the most, in standard deviations: that of the draw itself, up to 6 of them away
    from its location, and that of its parts."""
    return max(float((u * (np.abs(law.location) / law.spread + 24)).max()) for law in laws.values())


def case_tests(laws: dict[str, Law], samples: dict[str, np.ndarray], u: float) -> list[Test]:
    """All tests of one case: samples {output: [n, *shape]} at unit roundoff u against the laws of these shapes."""
    tests, scores = [], {}
    for output, law in laws.items():
        for index in np.ndindex(*law.location.shape):
            draws = samples[output][(slice(None), *index)].astype(np.float64)
            found, scores[output, index] = _element_tests(law, index, draws, u)
            tests += [test._replace(output=output) for test in found]
    for (output, index), (other, second) in combinations(scores, 2):
        name = f"{other}{list(second)}" if other != output else f"element {list(second)}"
        tests.append(_correlation(f"with {name}", index, scores[output, index], scores[other, second])._replace(output=output))
    scores = np.stack(list(scores.values()), 1)
    return [*tests, *_tails(scores), _repeated_stream(scores)]


def _element_tests(law: Law, index: tuple[int, ...], draws: np.ndarray, u: float) -> tuple[list[Test], np.ndarray]:
    """The tests of one element's draws [n], and their normal scores, NaN at an atom."""
    draws = _snapped(law, draws)
    location, spread = float(law.location[index]), float(law.spread[index])
    if not ((draws >= law.low) & (draws <= law.high)).all():
        return [Test("outside the law's range", index, 0.0, np.inf)], np.full(len(draws), np.nan)
    atoms, inside, score = _scores(law, location, spread, draws)
    tests = [_atom(what, index, count, len(draws), probability) for what, count, probability in atoms]
    if not np.isfinite(score[inside]).all():
        tests.append(Test("a draw that the law does not give", index, 0.0, np.inf))
    kept = score[inside & np.isfinite(score)]
    if len(kept) > 1:
        tests += _moments(index, kept)
        tests += [_largest(index, kept), _distribution(index, kept)]
        tests.append(_correlation("of successive draws", index, score[1:], score[:-1]))
        share = 1 - sum(probability for _, _, probability in atoms)
        step = GENERATOR + 0.8 * u * (abs(location) / spread + 6)  # the mass of the largest cell of rounding
        tests.append(_repeated_values(index, kept, (2 if law.kind == "folded" else 1) * step / share))
    return tests, score


def _snapped(law: Law, draws: np.ndarray) -> np.ndarray:
    """Draws at a clip, as rounded to float32 or wider, set to the clip itself."""
    for bound in (law.low, law.high):
        if np.isfinite(bound):
            draws = np.where(np.abs(draws - bound) <= 2.0**-22 * abs(bound), bound, draws)
    return draws


def _scores(law: Law, location: float, spread: float, draws: np.ndarray):
    """([(name, count, probability) of each atom], which draws are at none, normal score of each draw, NaN at an atom).

    Both tails are computed by themselves, so that a score is infinite only where the law gives no such draw.
    """
    z, everywhere = (draws - location) / spread, np.ones(len(draws), bool)
    if law.kind == "gaussian":
        return [], everywhere, z
    if law.kind == "folded":  # a draw that was rounded to 0 lies within half a step of it
        nearest = np.maximum(draws, 2.0**-25 * spread)
        z, mirrored = (nearest - location) / spread, (-nearest - location) / spread
        return [], everywhere, _normal_score(ndtr(z) - ndtr(mirrored), ndtr(-z) + ndtr(mirrored))
    below, above = ndtr((law.low - location) / spread), ndtr(-(law.high - location) / spread)
    atoms = [("share at the lower clip", int((draws <= law.low).sum()), below)]
    if np.isfinite(law.high):
        atoms.append(("share at the upper clip", int((draws >= law.high).sum()), above))
    inside, share = (draws > law.low) & (draws < law.high), 1 - below - above
    score = _normal_score((ndtr(z) - below) / share, (ndtr(-z) - above) / share)
    return atoms, inside, np.where(inside, score, np.nan)


def _normal_score(below, above) -> np.ndarray:
    """The normal number that has these probabilities below and above it, from the smaller one."""
    return np.where(below <= above, ndtri(np.clip(below, 0, 1)), -ndtri(np.clip(above, 0, 1)))


def _atom(what, index, count, n, probability) -> Test:
    p = scipy.stats.binomtest(count, n, min(max(probability, 0.0), 1.0)).pvalue
    return Test(what, index, float(p), abs(count / n - probability))


def _moments(index, score) -> list[Test]:
    """Mean ~ N(0, 1/n); sum of squared deviations ~ chi-squared(n - 1)."""
    n, mean = len(score), score.mean()
    squares = np.square(score - mean).sum()
    p_mean = 2 * ndtr(-abs(mean) * np.sqrt(n))
    p_spread = 2 * min(scipy.stats.chi2.sf(squares, n - 1), scipy.stats.chi2.cdf(squares, n - 1))
    return [
        Test("mean", index, float(p_mean), float(abs(mean))),
        Test("spread", index, float(p_spread), float(abs(np.sqrt(squares / (n - 1)) - 1))),
    ]


def _largest(index, score) -> Test:
    """P(some |score| of n >= m) = 1 - (1 - 2 Phi(-m))^n: a single stray draw, which no average shows."""
    largest = float(np.abs(score).max())
    p = -np.expm1(len(score) * np.log1p(-2 * ndtr(-largest)))
    return Test(f"a draw {largest:.3g} standard deviations out", index, float(p), largest)


def _distribution(index, score) -> Test:
    """The largest distance between the empirical and the normal distribution function (Kolmogorov-Smirnov, exact)."""
    test = scipy.stats.ks_1samp(score, ndtr)
    return Test("shape of the distribution", index, float(test.pvalue), float(test.statistic))


def _repeated_values(index, score, step: float) -> Test:
    """The collision test (Knuth, The Art of Computer Programming 2, 3.3.2 I): n scores fall into CELLS cells of probability.

    A score falls into a cell already taken by i others with probability at most i p, p = 1/CELLS + step. The collisions are
    therefore no more than a sum of independent counts of mean n(n - 1)p/2 in all, to which Chernoff's bound applies.
    """
    n = len(score)
    cells = np.floor(ndtr(score) * CELLS).astype(np.int64)
    taken = np.zeros(CELLS + 1, bool)
    taken[cells] = True
    count, mean = n - int(taken.sum()), n * (n - 1) / 2 * (1 / CELLS + step)
    p = 1.0 if count <= mean else np.exp(count - mean - count * np.log(count / mean))
    return Test(f"{count} repeated values, about {mean:.0f} are chance", index, float(p), max(count - mean, 0.0) / n)


def _correlation(what, index, a, b) -> Test:
    """The correlation r of n independent normal pairs: r sqrt((n - 2)/(1 - r^2)) is Student's t with n - 2 degrees."""
    both = np.isfinite(a) & np.isfinite(b)
    if both.sum() < 3 or a[both].std() == 0 or b[both].std() == 0:
        return Test(f"correlation {what}", index, 1.0, 0.0)
    n, r = int(both.sum()), min(max(float(np.corrcoef(a[both], b[both])[0, 1]), -1.0), 1.0)
    p = 0.0 if abs(r) == 1 else 2 * scipy.stats.t.sf(abs(r) * np.sqrt((n - 2) / (1 - r * r)), n - 2)
    return Test(f"correlation {what}", index, float(p), abs(r))


def _tails(scores: np.ndarray) -> list[Test]:
    """The scores of all elements beyond TAIL: binomial. Clipped noise, sums of uniforms and heavy tails have another share."""
    z = scores[np.isfinite(scores)]
    sides = {"above": z > TAIL, "below": z < -TAIL, "beyond": np.abs(z) > TAIL}
    tests = []
    for name, outside in sides.items():
        share = float(ndtr(-TAIL)) * (2 if name == "beyond" else 1)
        test = _atom(f"share {name} {TAIL} standard deviations", (), int(outside.sum()), max(len(z), 1), share)
        tests.append(test._replace(effect=test.effect / share))
    return tests


def _repeated_stream(scores: np.ndarray) -> Test:
    """All scores [n, elements] in the order of drawing, N in all, against themselves m later: Q_m = sum s_k s_(k+m), every m.

    Q_m is a quadratic form in N normal numbers, of Frobenius norm f = sqrt((N - m)/2) and spectral norm 1 at the most, so
    P(|Q_m| >= 2 f sqrt(x) + 2 x) <= 2 exp(-x) (Laurent & Massart 2000, lemma 1). The p-value is that bound times N, for all m.
    """
    stream = np.nan_to_num(scores.ravel(), nan=0.0, posinf=0.0, neginf=0.0)
    n = len(stream)
    size = scipy.fft.next_fast_len(2 * n, real=True)
    q = np.abs(scipy.fft.irfft(np.square(np.abs(scipy.fft.rfft(stream, size))), size)[1:n])
    pairs = np.arange(n - 1, 0, -1)
    f = np.sqrt(pairs / 2)
    x = np.square((np.sqrt(f * f + 2 * q) - f) / 2)
    lag = int(x.argmax())
    p = min(1.0, 2 * n * float(np.exp(-x[lag])))
    return Test(f"the stream of all draws repeats itself {lag + 1} draws later", (), p, float(q[lag] / pairs[lag]))


def failures(tests: list[Test], n_tests: int) -> list[Test]:
    """The tests that fail at ALPHA split over n_tests, by more than MARGIN, the clearest first."""
    failed = [t for t in tests if not t.p >= ALPHA / n_tests and not t.effect <= MARGIN]
    return sorted(failed, key=lambda t: (t.p, -t.effect))
