"""What costs a network its accuracy, on chips that are kept in results/ a few images at a time.

A chip's conditions take over an hour of a core on 10,000 images. They are measured PART images after the other, so that a run
that is stopped loses minutes, and PyTorch remembers what a network's blocks gave for all of them (torch_network.Remembering).
"""

import json
from dataclasses import dataclass

import numpy as np

from pcmref.cli.executors import open_executor
from pcmref.cli.progress import ProgressBar
from pcmref.experiments import tables
from pcmref.experiments.driver import measure_chips
from pcmref.experiments.sensitivity import OFF, SensitivityResult, conditions, sensitivity
from pcmref.experiments.statistics import spread
from pcmref.nn.resnet import ResNet
from pcmref.pcm.mapping import crossbars
from pcmref.pcm.model import PCMModel
from validation.experiments.measurements import RESULTS, Kept

PART = 1_000  # images


@dataclass(frozen=True)
class _Study:
    """All that a chip's accuracies depend on, picklable."""

    net: ResNet
    state: dict
    x: np.ndarray
    labels: np.ndarray
    settings: dict
    parts: list[tuple[int, int]]  # a chip, and the first of PART images

    def result(self, x, labels, **settings) -> SensitivityResult:
        return sensitivity(self.net, self.state, PCMModel.joshi2020(), x, labels, workers=1, **self.settings, **settings)

    def counts(self, part: int) -> list[int]:
        """How many images of a part are right under each condition."""
        chip, first = self.parts[part]
        x, labels = (a[first : first + PART] for a in (self.x, self.labels))
        return [round(row.accuracy * len(x)) for row in self.result(x, labels, n_chips=1, seed=chip).rows]


def measure(found: Kept, n_chips: int) -> None:
    """Measure the parts of n_chips chips that are not kept yet, one on each core."""
    x, labels, _ = found.evaluation
    of, settings = found.file, {name: found.about[name] for name in ("t_s", "compensation", "reads")}
    net = of.net.remembering() if "evaluated by" in found.about else of.net
    left, firsts = [k for k in range(n_chips) if _chip(k) not in found.values], range(0, len(x), PART)
    parts = [(k, first) for k in left for first in firsts]
    under = conditions(PCMModel.joshi2020(), crossbars(of.state), settings["t_s"], settings["compensation"])
    study, n_counts = _Study(net, of.state, x, labels, settings, parts), len(under) * settings["reads"]
    known = {i: found.values[_part(*part)] for i, part in enumerate(parts) if _part(*part) in found.values}
    with ProgressBar(found.path.stem, "measurement") as bar, open_executor("processes") as executor:
        options = {"executor": executor, "progress": bar.update, "known": known}
        options["on_chip"] = lambda measured: found.keep({_part(*parts[i]): counts for i, counts in measured.items()})
        measure_chips(study.counts, len(parts), n_counts, **options)
    for k in left:
        counts = np.sum([found.values.pop(_part(k, first)) for first in firsts], axis=0)
        found.keep({_chip(k): list(counts / len(x))})
    known = {k: found.values[_chip(k)] for k in range(n_chips)}
    whole = study.result(x, labels, n_chips=n_chips, known=known, eta=(of.about.get("recipe") or {}).get("eta"))
    found.keep({"software": whole.software_accuracy, "settings": whole.settings})


def _chip(k: int) -> str:
    return f"chip {k}"


def _part(k: int, first: int) -> str:
    return f"chip {k}, images {first} to {first + PART - 1}"


def kept_result(network: str) -> SensitivityResult:
    """What is kept of a network, whole chips only; SystemExit where those that were asked for are not all there yet."""
    path = RESULTS / f"cifar10-sensitivity-{network}.json"
    about, values = json.loads(path.read_text()).values()
    if "settings" not in values:
        raise SystemExit(f"{path}: not all chips are measured yet; run the experiment again, it goes on")
    settings = about | values["settings"]
    measured = {k: values[_chip(k)] for k in range(settings["n_chips"])}
    under = conditions(PCMModel.joshi2020(), settings["weights"], settings["t_s"], settings["compensation"])
    return SensitivityResult.of(network, under, measured, values["software"], settings)


def decides(results: list[SensitivityResult]) -> str:
    """In the mean: what is lost, what comes back with the crossbar digital that brings back most, and without each noise."""
    lines = [["network", "lost", "one crossbar exact, the most", "above the next", *(f"without {noise}" for noise in OFF)]]
    for found in results:
        (most, gain), (_, after), *_ = found.gains().items()
        values = [found.lost("chip"), gain, gain - after, *(found.regained("without", noise) for noise in OFF)]
        lost, regained, *others = (tables.mean_cell(spread(v)) for v in values)
        lines.append([found.name, lost, f"{most}: {regained}", *others])
    return tables.markdown(lines)
