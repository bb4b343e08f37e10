"""Accuracy over time: an experiment like the paper's, on simulated chips, for any network, device model and data."""

from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import asdict, dataclass
from itertools import product
from math import prod
from typing import NamedTuple

import numpy as np

from pcmref import store
from pcmref.errors import FileError, SettingError, whole_number
from pcmref.experiments import tables
from pcmref.experiments.driver import COMPENSATIONS, Condition, Result
from pcmref.experiments.statistics import FEWEST, Spread, by_chip, spread
from pcmref.experiments.times import STANDARD_TIMES_S, human_time
from pcmref.fast.resnet import ResNet
from pcmref.nn.adabs import BATCH_SIZE
from pcmref.pcm import constants
from pcmref.pcm.crossbar import Periphery
from pcmref.pcm.model import PCMModel


class Row(NamedTuple):
    """One measurement: the accuracy of one reading of one chip at one time under one compensation, a fraction."""

    name: str
    compensation: str
    t_s: float
    chip: int
    read: int
    accuracy: float


@dataclass(frozen=True, kw_only=True)
class Summary(Spread):
    """The spread of the accuracy over chips and reads, under one compensation at one time."""

    compensation: str
    t_s: float


@dataclass(frozen=True)
class RetentionResult(Result):
    """The rows of a study, the accuracy of the same network in software, and how the study was set up.

    >>> from pcmref.experiments.retention import Row
    >>> rows = tuple(Row("mine", "gdc", 20.0, chip, 0, 0.5 + 0.25 * chip) for chip in (0, 1))
    >>> result = pcmref.RetentionResult("mine", rows, software_accuracy=0.8, settings={"n_images": 100})
    >>> result.rows[1].accuracy
    0.75
    """

    Row = Row

    def summary(self) -> list[Summary]:
        """Middle, range, mean and spread over chips and reads, one entry a compensation and time, in the order of the study.

        >>> from pcmref.experiments.retention import Row
        >>> rows = tuple(Row("mine", "gdc", 20.0, chip, 0, 0.5 + 0.25 * chip) for chip in (0, 1))
        >>> (summary,) = pcmref.RetentionResult("mine", rows, 0.8, {}).summary()
        >>> summary.mean, summary.lowest, round(summary.std, 4), summary.n_chips
        (0.625, 0.5, 0.1768, 2)
        """
        groups: dict[tuple[str, float], list[Row]] = {}
        for row in self.rows:
            groups.setdefault((row.compensation, row.t_s), []).append(row)
        return [Summary(compensation=c, t_s=t, **vars(spread(by_chip(rows)))) for (c, t), rows in groups.items()]

    def lines(self, digits: int = 2) -> list[list[str]]:
        """`median [lowest, highest] mean` in percent: a line a time, a column a compensation, beside the software."""
        cells = {(s.compensation, s.t_s): s for s in self.summary()}
        compensations = list(dict.fromkeys(c for c, _ in cells))
        software = f"{100 * self.software_accuracy:.{digits}f}"
        return [["time", "software", *compensations]] + [
            [human_time(t_s), software, *(tables.range_cell(cells[c, t_s], digits) for c in compensations)]
            for t_s in dict.fromkeys(t for _, t in cells)
        ]

    def spread_lines(self) -> list[list[str]]:
        """The mean and, of several reads, the deviations between chips and between reads, each with its interval, in points."""
        names = {"mean": "mean", "between": "deviation between chips", "within": "between the reads of a chip"}
        summary = self.summary()
        parts = list(names)[: 1 if summary[0].n_reads == 1 else None]
        return [["time", "", *(names[p] for p in parts)]] + [
            [
                human_time(s.t_s),
                s.compensation,
                *(tables.interval_cell(getattr(s, p), getattr(s, f"{p}_interval")) for p in parts),
            ]
            for s in sorted(summary, key=lambda s: s.t_s)
        ]

    def table(self) -> str:
        """`lines` as an aligned table; below it `spread_lines`, where every chip was read several times.

        >>> from pcmref.experiments.retention import Row
        >>> rows = (Row("mine", "gdc", 86_400.0, 0, 0, 0.75),)
        >>> print(pcmref.RetentionResult("mine", rows, 0.8, {}).table())
         time  software    gdc
        1 day     80.00  75.00
        """
        first = self.summary()[0]
        text = tables.aligned(self.lines())
        if first.n_chips > 1:
            text = f"median [lowest, highest] mean\n\n{text}"
        if first.n_chips > 1 and first.n_reads > 1:
            intervals = "with intervals by bootstrap over chips, nominal 95 %, too narrow for few chips"
            too_few = f"without intervals: fewer than {FEWEST} chips"
            text += f"\n\n{intervals if first.n_chips >= FEWEST else too_few}\n\n{tables.aligned(self.spread_lines())}"
        return text

    def to_hdf5(self, path) -> None:
        """Rows, software accuracy and settings in one checked file; `RetentionResult.from_hdf5` reads it.

        >>> from pcmref.experiments.retention import Row
        >>> result = pcmref.RetentionResult("mine", (Row("mine", "gdc", 86_400.0, 0, 0, 0.75),), 0.8, {})
        >>> result.to_hdf5("retention.h5")
        >>> pcmref.RetentionResult.from_hdf5("retention.h5") == result
        True
        """
        columns = {name: np.array([getattr(row, name) for row in self.rows]) for name in ("t_s", "chip", "read", "accuracy")}
        columns["compensation"] = np.array([COMPENSATIONS.index(row.compensation) for row in self.rows])
        meta = {"name": self.name, "software_accuracy": self.software_accuracy, "settings": self.settings}
        store.write(path, "retention", meta | {"compensations": list(COMPENSATIONS)}, columns)

    @classmethod
    def from_hdf5(cls, path) -> "RetentionResult":
        """A result that `to_hdf5` wrote; FileError where the file is anything else."""
        meta, columns = store.read(path, "retention")
        try:
            wanted = {"t_s": "f", "accuracy": "f"} | dict.fromkeys(("chip", "read", "compensation"), "i")
            kinds = {k: v.dtype.kind for k, v in columns.items()}
            if meta["compensations"] != list(COMPENSATIONS) or not isinstance(meta["name"], str) or kinds != wanted:
                raise ValueError(f"compensations this version does not know, no name, or columns {kinds}")
            names = [COMPENSATIONS[whole_number("compensation", i, 0, 2)] for i in columns["compensation"].tolist()]
            numbers = zip(*(columns[k].tolist() for k in ("t_s", "chip", "read", "accuracy")), strict=True)
            rows = tuple(Row(meta["name"], c, *rest) for c, rest in zip(names, numbers, strict=True))
            software = float(meta["software_accuracy"])
            sound = all(0 <= v <= 1 for v in (software, *(row.accuracy for row in rows)))
            if not sound or not rows or not all(0 < row.t_s < np.inf and row.chip >= 0 for row in rows):
                raise ValueError("an accuracy outside 0..1, a time that is none, or no rows")
            cells = {row[1:5] for row in rows}  # every chip is measured under all conditions, once
            if not len(cells) == len(rows) == prod(len({cell[i] for cell in cells}) for i in range(4)):
                raise ValueError("rows twice or missing")
            return cls(meta["name"], rows, software, dict(meta["settings"]))
        except (KeyError, ValueError, TypeError, OverflowError) as error:
            raise FileError(f"{path}: does not hold a retention result: {error!r}") from error

    def plot(self, path) -> None:
        """Draw accuracy over time as a PNG or SVG (needs matplotlib: the extra `show`).

        >>> from pcmref.experiments.retention import Row
        >>> rows = tuple(Row("mine", "gdc", t_s, 0, 0, 0.75) for t_s in (20.0, 86_400.0))
        >>> pcmref.RetentionResult("mine", rows, 0.8, {"n_images": 100}).plot("retention.png")
        """
        from pcmref.experiments.pictures import plot_retention

        plot_retention([self], path)


def retention(
    net: ResNet,
    state: dict,
    model: PCMModel,
    x: np.ndarray,
    labels: np.ndarray,
    times_s: Sequence[float] = STANDARD_TIMES_S,
    compensations: Sequence[str] = COMPENSATIONS,
    n_chips: int = 10,
    seed: int = 0,
    x_calibration: np.ndarray | None = None,
    executor: Executor | None = None,
    name: str = "",
    batch_size: int = BATCH_SIZE,
    periphery: Periphery | None = None,
    **options,
) -> RetentionResult:
    """Program n_chips chips (seeds seed, seed + 1, ...) and measure their accuracy at each time and compensation.

    x [N, H, W, C] normalised, labels [N]. "adabs" needs x_calibration, in batches of batch_size. All compensations see
    the same reading of the same chip. `executor` (any concurrent.futures.Executor) takes one task a chip; the result is
    the same without. `periphery` computes on tiles with converters, GDC's read-out included; None multiplies by the weights as
    read. `options`: reads (1) is how often each chip is read at each time, for readings of one chip may differ too; workers and
    engine; progress(done, total), called before and after each measurement, or chip with an executor; known and on_chip of
    `driver.measure_chips`, a chip's accuracies in the order of `conditions`.

    >>> net = pcmref.ResNet(in_channels=1, num_classes=3, widths=(4,), blocks=(1,))
    >>> x, labels = pcmref.draws.standard_normal(0, "images", (6, 8, 8, 1)), np.arange(6) % 3
    >>> settings = {"times_s": (20.0, 86_400.0), "compensations": ("none", "gdc"), "n_chips": 2}
    >>> result = pcmref.retention(net, net.init(), pcmref.PCMModel.joshi2020(), x, labels, **settings)
    >>> len(result.rows), result.rows[0]._fields
    (8, ('name', 'compensation', 't_s', 'chip', 'read', 'accuracy'))
    """
    under = conditions(model, times_s, compensations, batch_size, periphery)
    settings = {"model": asdict(model), "device_digest": constants.digest(model), "seed": int(seed), "batch_size": batch_size}
    settings["n_calibration"] = 0 if x_calibration is None else len(x_calibration)
    settings["periphery"] = None if periphery is None else asdict(periphery)
    options |= {"x_calibration": x_calibration, "executor": executor}
    return RetentionResult.measured(name, (net, state, x, labels, under), n_chips, seed, settings, **options)


def conditions(model: PCMModel, times_s, compensations, batch_size: int = BATCH_SIZE, periphery=None) -> dict:
    """{(compensation, t_s): condition}, in the order in which a chip's accuracies are kept."""
    design, more = list(product(compensations, times_s)), {"batch_size": batch_size, "periphery": periphery}
    under = [(name, Condition.of(model, name, t_s=t_s, **more)) for name, t_s in design]
    found = {(name, condition.t_s): condition for name, condition in under}
    if not found or len(found) < len(under):
        raise SettingError(f"compensations and times must be there and differ from each other, got {design}")
    return found
