"""Accuracy over time: an experiment like the paper's, on simulated chips, for any network, device model and data."""

from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import asdict, dataclass
from itertools import product
from math import prod
from typing import NamedTuple

import numpy as np

from pcmref import store
from pcmref.errors import FileError, SettingError, ShapeError, whole_number
from pcmref.experiments import tables
from pcmref.experiments.statistics import FEWEST, Spread, by_chip, spread
from pcmref.experiments.tasks import Measured, measure_chips
from pcmref.experiments.times import STANDARD_TIMES_S, human_time
from pcmref.fast.resnet import ResNet
from pcmref.nn.adabs import BATCH_SIZE, adabs, check_batches
from pcmref.nn.functional import check_labels
from pcmref.pcm import constants
from pcmref.pcm.chip import Chip, Reading
from pcmref.pcm.crossbar import Periphery, multiply
from pcmref.pcm.model import PCMModel
from pcmref.training import accuracy

COMPENSATIONS = ("none", "gdc", "adabs")


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
class RetentionResult:
    """The rows of a study, the accuracy of the same network in software, and how the study was set up.

    >>> from pcmref.experiments.retention import Row
    >>> rows = tuple(Row("mine", "gdc", 20.0, chip, 0, 0.5 + 0.25 * chip) for chip in (0, 1))
    >>> result = pcmref.RetentionResult("mine", rows, software_accuracy=0.8, settings={"n_images": 100})
    >>> result.rows[1].accuracy
    0.75
    """

    name: str
    rows: tuple[Row, ...]
    software_accuracy: float
    settings: dict

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

    def size(self) -> str:
        """`1,000 images, 3 chips, 5 reads`."""
        counts = {"image": self.settings["n_images"]}
        counts |= {unit: len({getattr(row, unit) for row in self.rows}) for unit in ("chip", "read")}
        return ", ".join(tables.counted(n, unit) for unit, n in counts.items())

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

    def to_csv(self, path) -> None:
        """Columns name, compensation, t_s, chip, read, accuracy; written atomically.

        >>> from pathlib import Path
        >>> from pcmref.experiments.retention import Row
        >>> rows = (Row("mine", "gdc", 86_400.0, 0, 0, 0.75),)
        >>> pcmref.RetentionResult("mine", rows, 0.8, {}).to_csv("retention.csv")
        >>> print(Path("retention.csv").read_text(), end="")
        name,compensation,t_s,chip,read,accuracy
        mine,gdc,86400.0,0,0,0.75
        """
        tables.write_csv(path, Row._fields, self.rows)

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
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
    periphery: Periphery | None = None,
    known: Measured | None = None,
    on_chip: Callable[[Measured], None] | None = None,
    reads: int = 1,
    engine: str = "fast",
) -> RetentionResult:
    """Program n_chips chips (seeds seed, seed + 1, ...) and measure their accuracy at each time and compensation.

    Every chip is read `reads` times at each time (read 0, 1, ...): readings of one chip may differ too.

    x [N, H, W, C] normalised, labels [N]. "adabs" needs x_calibration, in batches of batch_size. All compensations see
    the same reading of the same chip. `executor` (any concurrent.futures.Executor) takes one task a chip; the result is
    the same without. `progress(done, total)` is called before and after each measurement, or chip with an executor. `periphery`
    computes on tiles with converters, GDC's read-out included; None multiplies by the weights as read. `known` and `on_chip`
    as in `tasks.measure_chips`; a chip's accuracies are in the order of `conditions`.

    >>> net = pcmref.ResNet(in_channels=1, num_classes=3, widths=(4,), blocks=(1,))
    >>> x, labels = pcmref.draws.standard_normal(0, "images", (6, 8, 8, 1)), np.arange(6) % 3
    >>> settings = {"times_s": (20.0, 86_400.0), "compensations": ("none", "gdc"), "n_chips": 2}
    >>> result = pcmref.retention(net, net.init(), pcmref.PCMModel.joshi2020(), x, labels, **settings)
    >>> len(result.rows), result.rows[0]._fields
    (8, ('name', 'compensation', 't_s', 'chip', 'read', 'accuracy'))
    """
    net.check_state(state)
    times_s, compensations = tuple(model.check_time(t_s) for t_s in times_s), tuple(compensations)
    n_chips, seed, reads = whole_number("n_chips", n_chips, 1), whole_number("seed", seed), whole_number("reads", reads, 1)
    _check_study(net, x, labels, times_s, compensations, x_calibration, batch_size)
    software = accuracy(net, state, x, labels, workers=workers, engine=engine)
    design = (times_s, compensations, reads)
    study = _Study(net, state, model, x, labels, *design, x_calibration, batch_size, workers, periphery, engine)
    n_values = len(conditions(*design))
    measured = measure_chips(study.measure, n_chips, n_values, seed, executor, progress, known, on_chip)
    settings = {
        "model": asdict(model),
        "device_digest": constants.digest(model),
        "seed": int(seed),
        "n_images": len(x),
        "n_chips": n_chips,
        "batch_size": batch_size,
    }
    settings |= {"n_calibration": 0 if x_calibration is None else len(x_calibration), "reads": reads}
    settings["periphery"] = None if periphery is None else asdict(periphery)
    return RetentionResult(name, rows_of(name, *design, {k: measured[k] for k in range(n_chips)}), software, settings)


def conditions(times_s, compensations, reads: int) -> list[tuple[str, float, int]]:
    """(compensation, t_s, read) of a chip's measurements, in the order in which their accuracies are kept."""
    return list(product(compensations, (float(t_s) for t_s in times_s), range(reads)))


def rows_of(name: str, times_s, compensations, reads: int, measured: Measured) -> tuple[Row, ...]:
    """The rows of what was measured under `conditions(times_s, compensations, reads)`."""
    of = {k: dict(zip(conditions(times_s, compensations, reads), values, strict=True)) for k, values in measured.items()}
    design = product(compensations, (float(t_s) for t_s in times_s), sorted(of), range(reads))
    return tuple(Row(name, c, t_s, k, read, of[k][c, t_s, read]) for c, t_s, k, read in design)


def _check_study(net, x, labels, times_s, compensations, x_calibration, batch_size) -> None:
    unknown = [c for c in compensations if c not in COMPENSATIONS]
    if unknown or not compensations or not times_s or len(set(compensations)) < len(compensations):
        raise SettingError(f"compensations must be some of {COMPENSATIONS} and there must be times; got {list(compensations)}")
    if len(set(times_s)) < len(times_s):
        raise SettingError(f"times must differ from each other, got {list(times_s)}")
    check_evaluation(net, x, labels, compensations, x_calibration, batch_size)


def check_evaluation(net, x, labels, compensations, x_calibration, batch_size) -> None:
    """SettingError or ShapeError where a study's images, labels or calibration images do not serve."""
    if "adabs" in compensations and x_calibration is None:
        raise SettingError("compensation 'adabs' needs x_calibration: a few hundred training images, without labels")
    check_labels(labels, len(x), net.num_classes)
    for name, images in (("x", x), ("x_calibration", x_calibration)):
        if images is not None and (len(images) == 0 or not np.isfinite(images).all()):
            raise ShapeError(f"{name} holds no images, or NaN or infinity")
    if "adabs" in compensations:
        check_batches(net, x_calibration.shape, batch_size)


@dataclass(frozen=True)
class _Study:
    """All that one chip's measurements depend on, picklable."""

    net: ResNet
    state: dict
    model: PCMModel
    x: np.ndarray
    labels: np.ndarray
    times_s: tuple[float, ...]
    compensations: tuple[str, ...]
    reads: int
    x_calibration: np.ndarray | None
    batch_size: int
    workers: int | None
    periphery: Periphery | None
    engine: str

    def measure(self, chip_seed: int, report: Callable[[], None] | None = None) -> list[float]:
        """One chip's accuracies under `conditions`: programmed once, each reading evaluated under every compensation."""
        chip = Chip.program(self.state, self.model, chip_seed, self.workers)
        found = {}
        for read in range(self.reads):
            baseline = chip.baseline(read, self.workers, self.periphery)
            for t_s in self.times_s:
                reading = chip.at(t_s, read, self.workers, self.periphery)
                for compensation, value in self._compensated(reading, baseline):
                    found[compensation, float(t_s), read] = value
                    if report is not None:
                        report()
        return [found[condition] for condition in conditions(self.times_s, self.compensations, self.reads)]

    def _compensated(self, reading: Reading, baseline: Reading):
        """(compensation, accuracy) of one reading; at t_0, where gdc's factors are 1, the same weights are evaluated once."""
        known = {}
        for compensation in self.compensations:
            used = reading.compensated(baseline) if compensation == "gdc" else reading
            if used.factors is not None and all(np.all(np.equal(alpha, 1)) for alpha in used.factors.values()):
                used = reading
            scheme = (compensation == "adabs", used is reading)
            if scheme not in known:
                known[scheme] = self._accuracy(used.state(), compensation == "adabs")
            yield compensation, known[scheme]

    def _accuracy(self, state: dict, recalibrate: bool) -> float:
        options = {"workers": self.workers, "engine": self.engine} | ({} if self.periphery is None else {"product": multiply})
        if recalibrate:
            state = adabs(self.net, state, self.x_calibration, self.batch_size, **options)
        return accuracy(self.net, state, self.x, self.labels, **options)
