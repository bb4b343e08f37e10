"""What costs accuracy: one crossbar after the other, one kind of noise after the other, and Gaussian noise on the weights."""

from collections.abc import Callable, Iterable
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from itertools import combinations
from typing import NamedTuple

import numpy as np

from pcmref.errors import SettingError, whole_number
from pcmref.experiments import tables
from pcmref.experiments.retention import COMPENSATIONS, check_evaluation
from pcmref.experiments.statistics import FEWEST, by_chip, spread
from pcmref.experiments.tasks import Measured, measure_chips
from pcmref.experiments.times import human_time
from pcmref.fast.resnet import ResNet
from pcmref.nn.adabs import BATCH_SIZE, adabs
from pcmref.pcm.chip import Chip
from pcmref.pcm.mapping import crossbars
from pcmref.pcm.model import PCMModel
from pcmref.training import accuracy, inject_weight_noise

NOISES = (0.0, 0.026, 0.033, 0.038, 0.043, 0.0565, 0.075, 0.113)  # sigma / max|W| of Gaussian noise on the weights
# The paper's figure 2, ResNet-32 on CIFAR-10, read off a plot to about half a point (grade C+): accuracy in % at each of NOISES
FIGURE_2_SAME = (93.87, 93.73, 93.63, 93.62, 93.52, 93.28, 92.78, 91.45)  # trained with the noise of the inference
FIGURE_2_TRAINED_26 = (93.90, 93.78, 93.68, 93.55, 93.40, 92.95, 92.05, 88.90)  # trained with 2.6 %
OFF = {
    "programming noise": {"programming": (0.0, 0.0, 0.0)},
    "drift": {"drifts": False},
    "read noise": {"reads_noisily": False},
}


class Row(NamedTuple):
    """One measurement. `kind` and `what` say of what: see `conditions`."""

    name: str
    kind: str
    what: str
    chip: int
    read: int
    accuracy: float


def conditions(bars: Iterable[str], reads: int) -> list[tuple[str, str, int]]:
    """(kind, what, read) of a chip's measurements, in the order in which their accuracies are kept; bars: its crossbars' names.

    "chip": all crossbars on the chip. "only" and "all but" a crossbar on the chip, the others digital. "without" a kind of
    noise, all on the chip. "weights": nothing on the chip, Gaussian noise of this strength on all weights.
    """
    bars = list(bars)
    cases = [("chip", "")] + [(kind, bar) for kind in ("only", "all but") for bar in bars]
    cases += [("without", noise) for noise in OFF] + [("weights", repr(eta)) for eta in NOISES]
    return [(kind, what, read) for kind, what in cases for read in range(reads)]


def rows_of(name: str, bars: Iterable[str], reads: int, measured: Measured) -> tuple[Row, ...]:
    """The rows of what was measured under `conditions(bars, reads)`."""
    of, chips = conditions(bars, reads), sorted(measured)
    return tuple(Row(name, kind, what, k, read, measured[k][i]) for i, (kind, what, read) in enumerate(of) for k in chips)


@dataclass(frozen=True)
class SensitivityResult:
    """The rows of a study, the accuracy of the same network in software, and how the study was set up."""

    name: str
    rows: tuple[Row, ...]
    software_accuracy: float
    settings: dict

    def values(self, kind: str, what: str = "") -> np.ndarray:
        """The accuracies of one condition, [chips, reads]."""
        return by_chip(row for row in self.rows if (row.kind, row.what) == (kind, what))

    def regained(self, kind: str, what: str) -> np.ndarray:
        """What each reading of each chip gains over all crossbars on the chip: the same devices, the same draws."""
        return self.values(kind, what) - self.values("chip")

    def gains(self) -> dict[str, np.ndarray]:
        """{crossbar: what is regained with it alone digital}, the largest mean first."""
        found = {bar: self.regained("all but", bar) for bar in self.settings["weights"]}
        return dict(sorted(found.items(), key=lambda item: -item[1].mean()))

    def lost_by_all(self) -> np.ndarray:
        """What each reading of each chip loses with all crossbars on the chip."""
        return self.software_accuracy - self.values("chip")

    def lost(self, bar: str) -> np.ndarray:
        """What each reading of each chip loses where only this crossbar is on the chip."""
        return self.software_accuracy - self.values("only", bar)

    def lines(self) -> list[list[str]]:
        """A line a crossbar: its weights, what is lost with it alone on the chip, what is regained with it alone digital."""
        head = ["crossbar", "weights", "alone on the chip, loses", "alone digital, regains", "mean regained"]
        return [head] + [
            [bar, f"{n:,}", _cell(self.lost(bar)), _cell(self.regained("all but", bar)), _mean(self.regained("all but", bar))]
            for bar, n in self.settings["weights"].items()
        ]

    def noise_lines(self) -> list[list[str]]:
        """A line a kind of noise: what is regained without it."""
        return [["without", "regains", "mean regained"]] + [
            [noise, _cell(self.regained("without", noise)), _mean(self.regained("without", noise))] for noise in OFF
        ]

    def weight_lines(self) -> list[list[str]]:
        """A line a strength of Gaussian noise on the weights; for the paper's network, its figure 2 beside it."""
        theirs = [[f"{v:.2f}" for v in column] for column in (FIGURE_2_SAME, FIGURE_2_TRAINED_26)]
        paper = (
            ["figure 2 (read off a plot, +-.5; C+), trained so", "trained at 2.6 % (+-.5; C+)"]
            if self.settings["papers_network"]
            else []
        )
        return [["noise, % of max|W|", "accuracy", *paper]] + [
            [f"{100 * eta:.4g}", _cell(self.values("weights", repr(eta))), *(column[i] for column in theirs if paper)]
            for i, eta in enumerate(NOISES)
        ]

    def decisive(self) -> str:
        """The crossbar whose repair brings back most, from which others it is told, and all together, in sentences."""
        bars, lost, gains = self.settings["weights"], self.lost_by_all(), self.gains()
        (bar, gain), (runner_up, after), *_ = gains.items()
        share, together = bars[bar] / sum(bars.values()), sum(gains.values())
        lows = np.array([spread(gain - other).mean_interval[0] for name, other in gains.items() if name != bar])
        told = f"; to {(lows > 0).sum()} of the {len(lows)} others its intervals lie above 0"
        n_chips = tables.counted(self.settings["n_chips"], "chip")
        apart = "" if np.isnan(lows).all() else told
        alone = sum(self.lost(name) for name in bars)
        return (
            f"The largest mean regained is that of {bar}, {bars[bar]:,} weights ({100 * share:.2g} % of all): {_mean(gain)} of "
            f"the {100 * lost.mean():.2f} points lost; it exceeds that of {runner_up}, the next, by "
            f"{_mean(gain - after)}{apart} (means over {n_chips}; the largest of {len(bars)} "
            f"means is biased upwards, and of so many intervals some miss what they are of by chance). The {len(bars)} gains, "
            f"each measured by itself, add up to {_mean(together)}, less the loss {_mean(together - lost)}; what "
            f"each loses alone on the chip to {_mean(alone)}, less the loss {_mean(alone - lost)}."
        )

    def noises_apart(self) -> str:
        """How far what is regained without one kind of noise differs from another's, and all together, in sentences."""
        gains, lost = {noise: self.regained("without", noise) for noise in OFF}, self.lost_by_all()
        pairs = [f"{a} less {b} {_mean(gains[a] - gains[b])}" for a, b in combinations(gains, 2)]
        together = sum(gains.values())
        return f"{'; '.join(pairs)}. All add up to {_mean(together)}, less the loss {_mean(together - lost)}."

    def table(self) -> str:
        """All of it as text, in percent and points; `[lowest, highest]`, and of means `[nominal 95 % interval]`."""
        whole, settings = self.values("chip"), self.settings
        parts = [
            f"software {100 * self.software_accuracy:.2f}, all on the chip at {human_time(settings['t_s'])}, "
            f"{settings['compensation']}: {_cell(whole)}",
            "median [lowest, highest] mean; means with intervals by bootstrap over chips, nominal 95 %, too narrow for few"
            f" chips (none below {FEWEST})",
            tables.aligned(self.lines()),
            self.decisive(),
            tables.aligned(self.noise_lines()),
            self.noises_apart(),
            tables.aligned(self.weight_lines()),
        ]
        if settings["eta"] is not None:
            parts.append(f"The network was trained with {100 * settings['eta']:.4g} %.")
        return "\n\n".join(parts)

    def to_csv(self, path) -> None:
        """Columns name, kind, what, chip, read, accuracy; written atomically."""
        tables.write_csv(path, Row._fields, self.rows)

    def plot(self, path) -> None:
        """Draw what each crossbar, each kind of noise and each strength of noise costs (needs matplotlib: the extra `show`)."""
        from pcmref.experiments.pictures import plot_sensitivity

        plot_sensitivity(self, path)


def _cell(values: np.ndarray) -> str:
    return tables.range_cell(spread(values))


def _mean(values: np.ndarray) -> str:
    return tables.mean_cell(spread(values))


def sensitivity(
    net: ResNet,
    state: dict,
    model: PCMModel,
    x: np.ndarray,
    labels: np.ndarray,
    t_s: float = 86_400.0,
    compensation: str = "gdc",
    n_chips: int = 3,
    reads: int = 3,
    seed: int = 0,
    x_calibration: np.ndarray | None = None,
    executor: Executor | None = None,
    name: str = "",
    eta: float | None = None,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
    known: Measured | None = None,
    on_chip: Callable[[Measured], None] | None = None,
    engine: str = "fast",
) -> SensitivityResult:
    """Measure n_chips chips, each read `reads` times at t_s, with one thing after the other ideal: see `conditions`.

    x [N, H, W, C] normalised, labels [N]; compensation one of retention.COMPENSATIONS. Chip k has seed + k in every condition:
    differences are of the same devices. eta is what the network was trained with, to be shown. The rest as in `retention`.

    >>> from pcmref.experiments.sensitivity import sensitivity
    >>> net = pcmref.ResNet(in_channels=1, num_classes=3, widths=(4,), blocks=(1,))
    >>> x, labels = pcmref.draws.standard_normal(0, "images", (6, 8, 8, 1)), np.arange(6) % 3
    >>> result = sensitivity(net, net.init(), pcmref.PCMModel.joshi2020(), x, labels, n_chips=2, reads=1)
    >>> result.values("only", "conv1.weight").shape
    (2, 1)
    """
    net.check_state(state)
    t_s, seed = model.check_time(t_s), whole_number("seed", seed)
    n_chips, reads = whole_number("n_chips", n_chips, 1), whole_number("reads", reads, 1)
    if compensation not in COMPENSATIONS:
        raise SettingError(f"compensation must be one of {COMPENSATIONS}, got {compensation!r}")
    check_evaluation(net, x, labels, (compensation,), x_calibration, BATCH_SIZE)
    study = _Study(net, state, model, x, labels, t_s, compensation, reads, x_calibration, workers, engine)
    bars = crossbars(state)
    n_values = len(conditions(bars, reads))
    measured = measure_chips(study.measure, n_chips, n_values, seed, executor, progress, known, on_chip)
    rows = rows_of(name, bars, reads, {k: measured[k] for k in range(n_chips)})
    paper = net.config() | {"in_channels": 3} == ResNet.joshi32(3, 10).config()
    weights = {bar: sum(state[n].size for n in names) for bar, names in bars.items()}
    settings = {"t_s": t_s, "compensation": compensation, "n_images": len(x), "n_chips": n_chips, "reads": reads, "eta": eta}
    software = accuracy(net, state, x, labels, workers=workers, engine=engine)
    return SensitivityResult(name, rows, software, settings | {"papers_network": paper, "weights": weights})


@dataclass(frozen=True)
class _Study:
    """All that one chip's measurements depend on, picklable."""

    net: ResNet
    state: dict
    model: PCMModel
    x: np.ndarray
    labels: np.ndarray
    t_s: float
    compensation: str
    reads: int
    x_calibration: np.ndarray | None
    workers: int | None
    engine: str

    def measure(self, chip_seed: int, report: Callable[[], None] | None = None) -> list[float]:
        """One chip's accuracies under `conditions`."""
        models = {"": self.model} | {what: replace(self.model, **changes) for what, changes in OFF.items()}
        chips = {what: Chip.program(self.state, model, chip_seed, self.workers) for what, model in models.items()}
        found = {}
        for read in range(self.reads):
            held = {what: self._read(chip, read) for what, chip in chips.items()}
            for kind, what, _ in conditions(crossbars(self.state), 1):
                found[kind, what, read] = self._accuracy(kind, what, held, chip_seed, read)
                if report is not None:
                    report()
        return [found[condition] for condition in conditions(crossbars(self.state), self.reads)]

    def _read(self, chip: Chip, read: int) -> dict:
        reading = chip.at(self.t_s, read, self.workers)
        return (reading.compensated(workers=self.workers) if self.compensation == "gdc" else reading).state()

    def _accuracy(self, kind: str, what: str, held: dict[str, dict], seed: int, read: int) -> float:
        options = {"workers": self.workers, "engine": self.engine}
        if kind == "weights":  # digital: nothing to compensate
            noisy = inject_weight_noise(self.state, float(what), seed, read, self.workers)
            return accuracy(self.net, noisy, self.x, self.labels, **options)
        state = held[what] if kind == "without" else held[""]
        bars = crossbars(self.state)
        digital = {"only": [bar for bar in bars if bar != what], "all but": [what]}.get(kind, [])
        state = state | {name: self.state[name] for bar in digital for name in bars[bar]}
        if self.compensation == "adabs":
            state = adabs(self.net, state, self.x_calibration, BATCH_SIZE, **options)
        return accuracy(self.net, state, self.x, self.labels, **options)
