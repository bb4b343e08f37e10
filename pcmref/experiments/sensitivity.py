"""What costs accuracy: one crossbar after the other, one kind of noise after the other, and Gaussian noise on the weights."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import combinations
from typing import NamedTuple

import numpy as np

from pcmref.experiments import tables
from pcmref.experiments.driver import Condition, Result
from pcmref.experiments.statistics import FEWEST, spread
from pcmref.experiments.times import DAY_S, human_time
from pcmref.fast.resnet import ResNet
from pcmref.pcm.mapping import crossbars
from pcmref.pcm.model import PCMModel

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


def conditions(model: PCMModel, bars: Iterable[str], t_s: float, compensation: str) -> dict[tuple[str, str], Condition]:
    """{(kind, what): condition}, in the order in which a chip's accuracies are kept; bars: its crossbars' names.

    "chip": all crossbars on the chip. "only" and "all but" a crossbar on the chip, the others digital. "without" a kind of
    noise, all on the chip. "weights": nothing on the chip, Gaussian noise of this strength on all weights.
    """
    bars, on_chip = list(bars), Condition.of(model, compensation, t_s=t_s)
    under = {("chip", ""): on_chip}
    under |= {("only", bar): replace(on_chip, digital=tuple(b for b in bars if b != bar)) for bar in bars}
    under |= {("all but", bar): replace(on_chip, digital=(bar,)) for bar in bars}
    under |= {("without", noise): replace(on_chip, model=replace(model, **changes)) for noise, changes in OFF.items()}
    return under | {("weights", repr(eta)): Condition(eta=eta) for eta in NOISES}


@dataclass(frozen=True)
class SensitivityResult(Result):
    """The rows of a study, the accuracy of the same network in software, and how the study was set up."""

    Row = Row

    def regained(self, kind: str, what: str) -> np.ndarray:
        """What each reading of each chip gains over all crossbars on the chip: the same devices, the same draws."""
        return self.values(kind, what) - self.values("chip")

    def gains(self) -> dict[str, np.ndarray]:
        """{crossbar: what is regained with it alone digital}, the largest mean first."""
        found = {bar: self.regained("all but", bar) for bar in self.settings["weights"]}
        return dict(sorted(found.items(), key=lambda item: -item[1].mean()))

    def lines(self) -> list[list[str]]:
        """A line a crossbar: its weights, what is lost with it alone on the chip, what is regained with it alone digital."""
        head = ["crossbar", "weights", "alone on the chip, loses", "alone digital, regains", "mean regained"]
        return [head] + [
            [
                bar,
                f"{n:,}",
                _cell(self.lost("only", bar)),
                _cell(self.regained("all but", bar)),
                _mean(self.regained("all but", bar)),
            ]
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
        bars, lost, gains = self.settings["weights"], self.lost("chip"), self.gains()
        (bar, gain), (runner_up, after), *_ = gains.items()
        share, together = bars[bar] / sum(bars.values()), sum(gains.values())
        lows = np.array([spread(gain - other).mean_interval[0] for name, other in gains.items() if name != bar])
        told = f"; to {(lows > 0).sum()} of the {len(lows)} others its intervals lie above 0"
        n_chips = tables.counted(self.settings["n_chips"], "chip")
        apart = "" if np.isnan(lows).all() else told
        alone = sum(self.lost("only", name) for name in bars)
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
        gains, lost = {noise: self.regained("without", noise) for noise in OFF}, self.lost("chip")
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
    t_s: float = DAY_S,
    compensation: str = "gdc",
    n_chips: int = 3,
    reads: int = 3,
    seed: int = 0,
    name: str = "",
    eta: float | None = None,
    **options,
) -> SensitivityResult:
    """Measure n_chips chips, each read `reads` times at t_s, with one thing after the other ideal: see `conditions`.

    x [N, H, W, C] normalised, labels [N]; compensation is one of COMPENSATIONS. Chip k has seed + k in every condition:
    differences are of the same devices. eta is what the network was trained with, to be shown. The rest as in `retention`.

    >>> from pcmref.experiments.sensitivity import sensitivity
    >>> net = pcmref.ResNet(in_channels=1, num_classes=3, widths=(4,), blocks=(1,))
    >>> x, labels = pcmref.draws.standard_normal(0, "images", (6, 8, 8, 1)), np.arange(6) % 3
    >>> result = sensitivity(net, net.init(), pcmref.PCMModel.joshi2020(), x, labels, n_chips=2, reads=1)
    >>> result.values("only", "conv1.weight").shape
    (2, 1)
    """
    bars = crossbars(state)
    under, papers = conditions(model, bars, t_s, compensation), ResNet.joshi32(3, 10).config()
    settings = {"t_s": under["chip", ""].t_s, "compensation": compensation, "eta": eta}
    settings["papers_network"] = net.config() | {"in_channels": 3} == papers
    settings["weights"] = {bar: sum(state[n].size for n in names) for bar, names in bars.items()}
    options["reads"] = reads
    return SensitivityResult.measured(name, (net, state, x, labels, under), n_chips, seed, settings, **options)
