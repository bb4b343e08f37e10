"""Differences that one change makes, on the same chips and images: what the tables of the costs print; and images reclassified.

Every chip is programmed and read once, so what differs from chip to chip holds what differs from reading to reading. The images
are the same throughout: how much a difference would change on others is in no interval.
"""

from functools import partial

import numpy as np
from scipy import stats

from pcmref import PCMModel, predict
from pcmref.errors import SettingError
from pcmref.experiments import tables
from pcmref.experiments.driver import COMPENSATIONS
from pcmref.experiments.retention import conditions
from pcmref.experiments.statistics import FEWEST, LEVEL, Interval, spread
from pcmref.experiments.times import DAY_S
from pcmref.training import accuracy
from validation.experiments.measurements import Kept

READ_SO = (
    "Below the first row the differences to it in points: their mean over the chips [interval, Student's t, nominal 95 %, cut "
    "where accuracy would leave 0 to 100 %], then the lowest and the highest chip's."
)


def t_interval(values, level: float = LEVEL) -> Interval:
    """mean -+ t s/sqrt(n), Student's t of n - 1 degrees of freedom: a mean over chips; SettingError for fewer than FEWEST."""
    values = np.asarray(values, float)
    if (n := len(values)) < FEWEST:
        raise SettingError(f"an interval over chips needs at least {FEWEST} of them, got {n}")
    half = stats.t.ppf((1 + level) / 2, n - 1) * values.std(ddof=1) / np.sqrt(n)
    return float(values.mean() - half), float(values.mean() + half)


def difference(values, base, level: float = LEVEL) -> Interval:
    """The t-interval of values - base, chip by chip; where it goes beyond 0 or 100 % of accuracy, cut off there."""
    low, high = t_interval(np.subtract(values, base), level)
    return max(low, -float(np.mean(base))), min(high, 1 - float(np.mean(base)))


def difference_cells(values, base) -> list[str]:
    """["mean [interval]", "lowest to highest"] of the chips' differences, in points."""
    points = 100 * np.subtract(values, base)
    low, high = (100 * end for end in difference(values, base))
    return [f"{points.mean():+z.2f} [{low:+z.2f}, {high:+z.2f}]", f"{points.min():+z.2f} to {points.max():+z.2f}"]


def accuracy_cells(values) -> list[str]:
    """The same of the accuracies themselves, in percent."""
    low, high = t_interval(values)
    values = np.asarray(values)
    cell = tables.interval_cell(values.mean(), (max(low, 0.0), min(high, 1.0)))
    return [cell, f"{100 * values.min():.2f} to {100 * values.max():.2f}"]


def range_cell(values, digits: int = 2) -> str:
    """`median [lowest, highest] mean` over the chips, in percent."""
    return tables.range_cell(spread(np.reshape(values, (-1, 1))), digits)


def heading(kept: Kept, n_chips: int) -> str:
    """What the values are of, and what the same images give without a chip."""
    x, labels, _ = kept.evaluation
    software = 100 * accuracy(kept.file.net, kept.file.state, x, labels)
    return f"{kept.heading(n_chips)} In software the same images give {software:.2f} %."


def reclassified(kept: Kept) -> dict[str, list[int]]:
    """{compensation: [images that chip 0, read once after a day, counts wrong and the software right, and the reverse]}."""
    x, labels, _ = kept.evaluation
    right = predict(kept.file.net, kept.file.state, x).argmax(1) == labels
    study = kept.study(conditions(PCMModel.joshi2020(), [DAY_S], COMPENSATIONS), score=partial(_lost_and_won, right))
    return dict(zip(COMPENSATIONS, study.measure(0), strict=True))


def _lost_and_won(right: np.ndarray, net, state: dict, x, labels, **options) -> list[int]:
    on_chip = predict(net, state, x, **options).argmax(1) == labels
    return [int((right & ~on_chip).sum()), int((~right & on_chip).sum())]


def standard_error(lost: int, won: int, n: int) -> float:
    """Of what is lost, over images, in points: each image adds -1, 0 or 1."""
    return 100 * np.sqrt(lost + won - (lost - won) ** 2 / n) / n


def reclassified_cell(lost: int, won: int, n: int) -> str:
    """`lost, won: standard error`."""
    return f"{lost:,}, {won:,}: {standard_error(lost, won, n):.2f}"
