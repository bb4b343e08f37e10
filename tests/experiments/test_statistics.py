"""Spread over chips and reads: against distributions known exactly, and limits that no interval may leave."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from pcmref import draws
from pcmref.errors import SettingError
from pcmref.experiments import statistics
from pcmref.experiments.retention import Row
from pcmref.experiments.statistics import FEWEST, bootstrap, by_chip, spread, variance_components

SHARES = arrays(float, st.tuples(st.integers(1, 6), st.integers(1, 5)), elements=st.floats(0, 1))
RARE = 1e-6  # of a right implementation failing


def simulated(name: str, n_chips: int, n_reads: int, between: float, within: float) -> np.ndarray:
    """Normal data of known standard deviations."""
    chips = draws.standard_normal(0, f"test/statistics/{name}/chips", (n_chips, 1))
    return 0.5 + between * chips + within * draws.standard_normal(0, f"test/statistics/{name}", (n_chips, n_reads))


@pytest.mark.parametrize(
    ("n_chips", "n_reads", "between", "within"),
    [(200, 5, 0.02, 0.01), (2, 2, 0.01, 0.01), (20, 5, 0.026, 0.07), (500, 3, 0, 0.1)],
)
def test_components_follow_their_exact_distributions(n_chips, n_reads, between, within):
    """Mean squares of normal data are independent chi-squares: K(R-1) w / s_w^2 and (K-1) (R b + w) / (R s_b^2 + s_w^2)."""
    b, w = variance_components(simulated(f"{n_chips}/{within}", n_chips, n_reads, between, within))
    inside, among = n_chips * (n_reads - 1), n_chips - 1
    low, high = stats.chi2.ppf([RARE / 2, 1 - RARE / 2], inside)
    assert low < inside * w / within**2 < high
    low, high = stats.chi2.ppf([RARE / 2, 1 - RARE / 2], among)
    assert low < among * (n_reads * b + w) / (n_reads * between**2 + within**2) < high


def test_components_are_unbiased():
    """Means over 4,000 studies, within the exact standard error of a mean square's difference."""
    n_chips, n_reads, between, within = 4, 3, 0.02, 0.05
    all_of_them = simulated("many", 16_000, n_reads, between, within).reshape(-1, n_chips, n_reads)
    b, w = variance_components(all_of_them)
    var_w = 2 * within**4 / (n_chips * (n_reads - 1))
    var_b = (2 * (n_reads * between**2 + within**2) ** 2 / (n_chips - 1) + var_w) / n_reads**2
    limit = stats.norm.isf(RARE / 2) / np.sqrt(len(all_of_them))
    assert abs(w.mean() - within**2) < limit * np.sqrt(var_w) and abs(b.mean() - between**2) < limit * np.sqrt(var_b)


@pytest.mark.parametrize("seed", range(3))
def test_components_are_the_analysis_of_variance(seed):
    """scipy's F is the ratio of the two mean squares."""
    values = draws.uniform(seed, "test/statistics/anova", (5, 4))
    b, w = variance_components(values)
    assert (4 * b + w) / w == pytest.approx(stats.f_oneway(*values).statistic)


@given(SHARES)
def test_nothing_leaves_0_to_100_percent(values):
    found = spread(values)
    assert 0 <= found.lowest <= found.median <= found.highest <= 1 and (found.n_chips, found.n_reads) == values.shape
    for interval in (found.mean_interval, found.between_interval, found.within_interval):
        assert np.isnan(interval).all() or 0 <= interval[0] <= interval[1] <= 1
    assert np.isnan(found.between) == (min(values.shape) < 2) and np.isnan(found.std) == (len(values) < 2)
    unknown = len(values) < FEWEST or values.min() == values.max()
    assert np.isnan(found.mean_interval).all() == unknown
    for name in ("between", "within"):
        assert np.isnan(getattr(found, f"{name}_interval")).all() == (len(values) < FEWEST or not getattr(found, name) > 0)
    if not unknown:
        means = values.mean(1)
        assert means.min() - 1e-12 <= found.mean_interval[0] and found.mean_interval[1] <= means.max() + 1e-12


def test_single_readings_have_the_deviation_of_chips_and_several_both():
    values = draws.uniform(0, "test/statistics", (6, 4))
    assert spread(values[:, :1]).std == pytest.approx(values[:, 0].std(ddof=1))
    found = spread(values)
    assert found.std == pytest.approx(np.hypot(found.between, found.within))


def test_chips_are_resampled_with_all_their_reads():
    """Where the reads of each chip cancel, so do those of every resample."""
    values = np.array([[0.5 - d, 0.5 + d] for d in (0.1, 0.15, 0.2, 0.25, 0.3)])
    found = spread(values)
    assert found.mean_interval == pytest.approx((0.5, 0.5)) and found.between == 0
    assert found.within_interval[0] >= np.sqrt(2) * 0.1 - 1e-12 and found.within_interval[1] <= np.sqrt(2) * 0.3 + 1e-12


def test_intervals_cover_what_they_should_about_as_often_as_they_say():
    """The mean of 20 chips: 92 to 95 % of 95 % intervals hold it (a percentile bootstrap's are a little narrow)."""
    studies = simulated("cover", 20 * 500, 3, 0.02, 0.05).reshape(500, 20, 3)
    share = np.mean([low <= 0.5 <= high for low, high in (bootstrap(v, lambda s: s.mean(axis=(-2, -1))) for v in studies)])
    narrow = 2 * stats.t.cdf(stats.norm.ppf(0.975) * np.sqrt(19 / 20), 19) - 1  # its expected share, to first order
    assert abs(share - narrow) < stats.norm.isf(RARE / 2) * np.sqrt(narrow * (1 - narrow) / 500)


def test_the_same_chips_give_the_same_intervals(monkeypatch):
    values = draws.uniform(0, "test/statistics/same", (5, 2))
    assert spread(values) == spread(values)
    monkeypatch.setattr(statistics, "RESAMPLES", 100)
    assert spread(values) != spread(values + np.array([0.01, 0])) and spread(values).mean_interval != (0, 0)


def test_rows_become_chips_and_reads_in_their_order_and_all_of_them():
    rows = [Row("n", "gdc", 20.0, k, read, k / 10 + read / 100) for read in (1, 0) for k in (2, 0, 1)]
    assert by_chip(rows) == pytest.approx(np.array([[0, 0.01], [0.1, 0.11], [0.2, 0.21]]))
    with pytest.raises(SettingError, match="equally often"):
        by_chip(rows[1:])
