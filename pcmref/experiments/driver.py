"""What every study of chips measures, {(condition, chip, read): accuracy}: on any executor, going on from what is kept."""

from collections.abc import Callable, Iterable
from concurrent.futures import as_completed
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import ClassVar, NamedTuple

import numpy as np

from pcmref.errors import SettingError, ShapeError, whole_number
from pcmref.experiments import tables
from pcmref.experiments.statistics import by_chip
from pcmref.experiments.times import DAY_S
from pcmref.fast.resnet import ResNet
from pcmref.nn.adabs import BATCH_SIZE, adabs, check_batches
from pcmref.nn.functional import check_labels
from pcmref.pcm.chip import Chip
from pcmref.pcm.crossbar import Periphery, multiply
from pcmref.pcm.mapping import crossbars
from pcmref.pcm.model import PCMModel
from pcmref.training import accuracy, inject_weight_noise

COMPENSATIONS = ("none", "gdc", "adabs")
Measured = dict[int, list]  # {chip: its values, all reads of a condition after those of another}


@dataclass(frozen=True)
class Recalibration:
    """How AdaBS estimates batch norm's statistics; see `adabs`."""

    n_images: int | None = None  # the first calibration images; None is all of them
    batch_size: int = BATCH_SIZE
    momentum: float | None = None
    t_s: float | None = None  # when; None is the time at which the network is used


@dataclass(frozen=True)
class Condition:
    """How a network computes: on a chip at a time since programming or, without a model, in software.

    Chips of equal models that are programmed in the same way are the same chips; so are their readings at equal times behind
    equal peripheries. DeviceError for a time before the model's t_0.
    """

    model: PCMModel | None = None
    t_s: float = DAY_S
    gdc: bool = False
    adabs: Recalibration | None = None
    periphery: Periphery | None = None
    digital: tuple[str, ...] = ()  # crossbars that keep their weights
    eta: float = 0.0  # of Gaussian noise on all weights, in software
    program: Callable[..., Chip] = Chip.program  # (state, model, seed, workers)

    def __post_init__(self):
        if self.model is not None:
            object.__setattr__(self, "t_s", float(self.model.check_time(self.t_s)))

    @classmethod
    def of(cls, model: PCMModel, compensation: str, batch_size: int = BATCH_SIZE, **more) -> "Condition":
        """On a chip, under one of COMPENSATIONS; SettingError for another."""
        if compensation not in COMPENSATIONS:
            raise SettingError(f"compensations must be some of {COMPENSATIONS}, got {compensation!r}")
        recalibration = Recalibration(batch_size=batch_size) if compensation == "adabs" else None
        return cls(model, gdc=compensation == "gdc", adabs=recalibration, **more)


@dataclass(frozen=True)
class Study:
    """All that a chip's values depend on, picklable: a network, images x [N, H, W, C] with labels [N], and conditions.

    Every chip is read `reads` times at each time. A value is score(net, state, x, labels, **options): as a rule the accuracy.
    """

    net: ResNet
    state: dict
    x: np.ndarray
    labels: np.ndarray
    conditions: dict[tuple, Condition]
    x_calibration: np.ndarray | None = None
    reads: int = 1
    workers: int | None = None
    engine: str = "fast"
    score: Callable = accuracy

    def check(self) -> None:
        """StateError, SettingError or ShapeError where the network, the images and the conditions do not fit together."""
        self.net.check_state(self.state)
        whole_number("reads", self.reads, 1)
        used = [condition.adabs for condition in self.conditions.values() if condition.adabs is not None]
        if used and self.x_calibration is None:
            raise SettingError("compensation 'adabs' needs x_calibration: a few hundred training images, without labels")
        check_labels(self.labels, len(self.x), self.net.num_classes)
        for name in ("x", "x_calibration"):
            if (images := getattr(self, name)) is not None and (len(images) == 0 or not np.isfinite(images).all()):
                raise ShapeError(f"{name} holds no images, or NaN or infinity")
        for how in used:
            check_batches(self.net, self.x_calibration[: how.n_images].shape, how.batch_size)

    def software(self):
        """The value of the network as it is."""
        return self.score(self.net, self.state, self.x, self.labels, workers=self.workers, engine=self.engine)

    def measure(self, seed: int, report: Callable[[], None] | None = None) -> list:
        """The values of the chip with this seed, in the order of the conditions and reads; `report` is called after each."""
        conditions, one, values = list(self.conditions.values()), _OneChip(self, seed), {}
        chips = [(condition.model, condition.program) for condition in conditions]
        readings = [(condition.t_s, condition.periphery) for condition in conditions]
        cells = list(product(range(len(conditions)), range(self.reads)))

        def shared(cell: tuple[int, int]) -> tuple:  # what shares a chip, and then a reading, comes one after the other
            i, read = cell
            return chips.index(chips[i]), read, readings.index(readings[i])

        for i, read in sorted(cells, key=shared):
            values[i, read] = one.value(conditions[i], read)
            if report is not None:
                report()
        return [values[cell] for cell in cells]


class _OneChip:
    """A chip of a study; what the last condition asked for is at hand for the next one."""

    def __init__(self, study: Study, seed: int):
        self.study, self.seed, self.last = study, seed, {}

    def value(self, condition: Condition, read: int):
        """The study's score; a state that stays the same, as under gdc at t_0, where its factors are 1, is evaluated once."""
        study = self.study
        options = {"workers": study.workers, "engine": study.engine}
        if condition.periphery is not None:
            options["product"] = multiply
        key, state = self._state(condition, condition.t_s, read)
        scores = self._at_hand("scores", key, dict)
        if condition.adabs not in scores:
            if condition.adabs is not None:
                state = state | self._statistics(condition, state, read, options)
            scores[condition.adabs] = study.score(study.net, state, study.x, study.labels, **options)
        return scores[condition.adabs]

    def _state(self, condition: Condition, t_s: float, read: int) -> tuple[tuple, dict]:
        """(what it depends on, the state that the network computes with, batch norm not recalibrated)."""
        study, model = self.study, condition.model
        if model is None:
            noisy = partial(inject_weight_noise, study.state, condition.eta, self.seed, read, study.workers)
            return (None, condition.eta, read), self._at_hand("state", (None, condition.eta, read), noisy)
        chip_key = (model, condition.program)
        key, around = (*chip_key, condition.periphery, read), condition.periphery
        chip = self._at_hand("chip", chip_key, lambda: condition.program(study.state, model, self.seed, study.workers))
        reading = self._at_hand("reading", (*key, t_s), lambda: chip.at(t_s, read, study.workers, around))
        if condition.gdc:
            baseline = self._at_hand("baseline", key, lambda: chip.baseline(read, study.workers, around))
            compensated = self._at_hand("compensated", (*key, t_s), lambda: reading.compensated(baseline))
            if any(np.any(np.not_equal(alpha, 1)) for alpha in compensated.factors.values()):
                reading = compensated
        key = (*key, t_s, reading.factors is not None)
        state, bars = self._at_hand("state", key, reading.state), crossbars(study.state)
        return (*key, condition.digital), state | {n: study.state[n] for bar in condition.digital for n in bars[bar]}

    def _statistics(self, condition: Condition, state: dict, read: int, options: dict) -> dict:
        """AdaBS's running means and variances, at the time of use or of an earlier one, which other uses share."""
        study, how = self.study, condition.adabs
        known = self._at_hand("statistics", (condition.model, condition.program), dict)
        key = (how, how.t_s or condition.t_s, read, condition.gdc, condition.periphery, condition.digital, condition.eta)
        if key not in known:
            at = state if how.t_s is None else self._state(condition, how.t_s, read)[1]
            new = adabs(study.net, at, study.x_calibration[: how.n_images], how.batch_size, how.momentum, **options)
            known[key] = {name: values for name, values in new.items() if "running_" in name}
        return known[key]

    def _at_hand(self, what: str, key, make: Callable):
        """make(), or what it gave last time for the same key."""
        if what not in self.last or self.last[what][0] != key:
            self.last[what] = key, make()
        return self.last[what][1]


def measure_chips(
    measure: Callable, n_chips: int, n_values: int, seed=0, executor=None, progress=None, known=None, on_chip=None
) -> Measured:
    """{chip k: measure(seed + k)}, n_values numbers each; without an executor measure(seed + k, report), one report a value.

    `executor` is any concurrent.futures.Executor. `progress(done, total)` counts values, first none. `on_chip` is given all
    that is measured after each chip, to be kept; what an earlier run of the same study kept comes back as `known`.
    """
    measured: Measured = dict(known or {})
    done = sum(map(len, measured.values()))

    def report(n: int = 1) -> None:
        nonlocal done
        done += n
        if progress is not None:
            progress(done, n_chips * n_values)

    def keep(k: int, values: list) -> None:
        measured[k] = values
        if on_chip is not None:
            on_chip(measured)

    report(0)
    todo = [k for k in range(n_chips) if k not in measured]
    if executor is None:
        for k in todo:
            keep(k, measure(seed + k, report))
        return measured
    futures = {executor.submit(measure, seed + k): k for k in todo}
    try:
        for future in as_completed(futures):
            report(len(future.result()))
            keep(futures[future], future.result())
    finally:
        for future in futures:
            future.cancel()
    return measured


@dataclass(frozen=True)
class Result:
    """The rows of a study, the accuracy of the same network in software, and how the study was set up.

    A row is its name, the two words of its condition, chip, read and accuracy.
    """

    name: str
    rows: tuple[NamedTuple, ...]
    software_accuracy: float
    settings: dict
    Row: ClassVar[type]

    @classmethod
    def measured(cls, name: str, parts: tuple, n_chips: int, seed: int, settings: dict, **options) -> "Result":
        """What `Study(*parts, ...)` measures on n_chips chips; `options` are its other fields, and `measure_chips`'s."""
        n_chips, seed = whole_number("n_chips", n_chips, 1), whole_number("seed", seed)
        study = Study(*parts, **{name: options.pop(name) for name in Study.__annotations__.keys() & options.keys()})
        study.check()
        n_values, software = len(study.conditions) * study.reads, study.software()
        measured = measure_chips(study.measure, n_chips, n_values, seed, **options)
        settings = {"n_images": len(study.x), "n_chips": n_chips, "reads": study.reads} | settings
        return cls.of(name, study.conditions, {k: measured[k] for k in range(n_chips)}, software, settings)

    @classmethod
    def of(cls, name: str, conditions: Iterable[tuple], measured: Measured, software: float, settings: dict) -> "Result":
        """What was measured as rows: conditions in their order, of each the chips, of each chip the reads."""
        cells, reads = product(enumerate(conditions), sorted(measured), range(settings["reads"])), settings["reads"]
        rows = tuple(cls.Row(name, *key, k, read, measured[k][i * reads + read]) for (i, key), k, read in cells)
        return cls(name, rows, software, settings)

    def values(self, first: str, second="") -> np.ndarray:
        """The accuracies of one condition, [chips, reads]."""
        return by_chip(row for row in self.rows if row[1:3] == (first, second))

    def lost(self, first: str, second="") -> np.ndarray:
        """What each reading of each chip loses under one condition, against the network in software."""
        return self.software_accuracy - self.values(first, second)

    def size(self) -> str:
        """`1,000 images, 3 chips, 5 reads`."""
        counts = {"image": self.settings["n_images"]}
        counts |= {unit: len({getattr(row, unit) for row in self.rows}) for unit in ("chip", "read")}
        return ", ".join(tables.counted(n, unit) for unit, n in counts.items())

    def to_csv(self, path) -> None:
        """A column for each part of a row; written atomically.

        >>> from pathlib import Path
        >>> rows = (pcmref.RetentionResult.Row("mine", "gdc", 86_400.0, 0, 0, 0.75),)
        >>> pcmref.RetentionResult("mine", rows, 0.8, {}).to_csv("retention.csv")
        >>> print(Path("retention.csv").read_text(), end="")
        name,compensation,t_s,chip,read,accuracy
        mine,gdc,86400.0,0,0,0.75
        """
        tables.write_csv(path, self.Row._fields, self.rows)
