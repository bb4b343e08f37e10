"""The intervals of the tables of costs: validation/experiments/paired.py and the verdict over them."""

import numpy as np
import pytest
from scipy import stats

from pcmref import draws
from pcmref.errors import SettingError
from validation.experiments import discrepancy_costs, paired


def test_the_interval_is_that_of_the_paired_t_test():
    values, base = 0.9 + 0.01 * draws.standard_normal(0, "test/paired", (2, 10))
    wanted = stats.ttest_rel(values, base).confidence_interval(0.95)
    assert paired.difference(values, base) == pytest.approx((wanted.low, wanted.high), rel=1e-12)


def test_the_interval_holds_the_truth_as_often_as_it_says():
    """Of 1,000 studies of 10 chips 95 % hold the mean; 5 standard errors of such a count are 34."""
    studies = 0.3 + draws.standard_normal(0, "test/paired/cover", (1000, 10))
    intervals = np.array([paired.t_interval(values) for values in studies])
    held = ((intervals[:, 0] < 0.3) & (intervals[:, 1] > 0.3)).sum()
    assert abs(held - 950) < 5 * np.sqrt(1000 * 0.95 * 0.05)


def test_a_difference_never_leaves_0_to_100_percent():
    """Two of five chips collapse: the bell curve's interval would end above 100 % of accuracy."""
    base, values = np.full(5, 0.94), np.array([0.94, 0.52, 0.42, 0.94, 0.94])
    assert paired.t_interval(values - base)[1] + 0.94 > 1
    low, high = paired.difference(values, base)
    assert high == pytest.approx(0.06) and low == paired.t_interval(values - base)[0]
    assert paired.difference_cells(values, base)[1] == "-52.00 to +0.00"
    assert paired.accuracy_cells(np.array([0.99, 1.0, 1.0, 1.0, 1.0]))[0].endswith("100.00]")


def test_few_chips_get_no_interval():
    with pytest.raises(SettingError, match="at least 5"):
        paired.t_interval([0.9] * 4)


def test_the_verdict_names_what_matters_and_bounds_the_rest():
    """All intervals hold together: each is wider than one alone, and the bound is rounded up."""
    base = [0.94] * 10
    small = (0.94 + 0.001 * draws.standard_normal(0, "test/paired/small", 10)).tolist()
    found = {c: [base] + [small] * (len(discrepancy_costs.VARIANTS) - 1) for c in discrepancy_costs.COMPENSATIONS}
    found["gdc"][9] = [0.5] * 3 + [0.94] * 7
    text = discrepancy_costs.verdict(found, 2000)
    assert discrepancy_costs.VARIANTS[9].text in text and "3 of which lose a point or more" in text and "10 chips" in text
    bound = float(text.split("within ")[1].split()[0])
    level = 1 - 0.05 / (2 * (len(discrepancy_costs.VARIANTS) - 1))
    worst = 100 * max(map(abs, paired.difference(small, base, level)))
    assert worst <= bound < worst + 0.1 and bound > 1.5 * 100 * max(map(abs, paired.difference(small, base)))
    table = discrepancy_costs.table(found)
    assert table.count("\n") == 1 + len(discrepancy_costs.VARIANTS)


def test_the_standard_error_of_images_lost_and_won_is_that_of_their_mean():
    points = np.repeat([-1.0, 1.0, 0.0], [30, 20, 950])
    assert paired.reclassified_cell(30, 20, 1000) == f"30, 20: {100 * points.std() / np.sqrt(1000):.2f}"
