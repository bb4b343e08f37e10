"""What costs a network its accuracy, on chips that are kept in results/ a few images at a time, by whichever machine had time.

A chip's conditions take over an hour of a core on 10,000 images. They are measured PART images after the other, so that a run
that is stopped loses minutes, and PyTorch remembers what a network's blocks gave for all of them (torch_network.Remembering).
Chips may be measured apart, on other machines: a file has the numbers of its chips in its name where they do not begin with 0.
"""

import json
import re
from dataclasses import dataclass

import numpy as np
from measurements import RESULTS, Kept, evaluated_by

from pcmref.cli.executors import open_executor
from pcmref.cli.progress import ProgressBar
from pcmref.nn.resnet import ResNet
from pcmref.pcm.mapping import crossbars
from pcmref.pcm.model import PCMModel
from pcmref.sensitivity import SensitivityResult, conditions, rows_of, sensitivity
from pcmref.tasks import measure_chips

PART = 1_000  # images
MORE_CHIPS = re.compile(r"\.\d+-\d+$")  # the end of a name, where they do not begin with 0


def file_name(network: str, chips: range) -> str:
    """What the measurements of these chips are kept under."""
    return f"cifar10-sensitivity-{network}" + (f".{chips.start}-{chips.stop - 1}" if chips.start else "")


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


def measure(found: Kept, chips: range) -> None:
    """Measure the parts of these chips that are not kept yet, one on each core."""
    x, labels, _ = found.evaluation
    of, settings = found.file, {name: found.about[name] for name in ("t_s", "compensation", "reads")}
    net = of.net.remembering() if "evaluated by" in found.about else of.net
    left, firsts = [k for k in chips if _chip(k) not in found.values], range(0, len(x), PART)
    parts = [(k, first) for k in left for first in firsts]
    study, n_counts = _Study(net, of.state, x, labels, settings, parts), len(conditions(crossbars(of.state), settings["reads"]))
    known = {i: found.values[_part(*part)] for i, part in enumerate(parts) if _part(*part) in found.values}
    with ProgressBar(found.path.stem, "measurement") as bar, open_executor("processes") as executor:
        options = {"executor": executor, "progress": bar.update, "known": known}
        options["on_chip"] = lambda measured: found.keep({_part(*parts[i]): counts for i, counts in measured.items()})
        measure_chips(study.counts, len(parts), n_counts, **options)
    for k in left:
        counts = np.sum([found.values.pop(_part(k, first)) for first in firsts], axis=0)
        found.keep({_chip(k): list(counts / len(x))})
    known = {i: found.values[_chip(k)] for i, k in enumerate(chips)}
    whole = study.result(x, labels, n_chips=len(chips), known=known, eta=(of.about.get("recipe") or {}).get("eta"))
    found.keep({"software": whole.software_accuracy, "settings": whole.settings})


def _chip(k: int) -> str:
    return f"chip {k}"


def _part(k: int, first: int) -> str:
    return f"chip {k}, images {first} to {first + PART - 1}"


def kept_result(network: str) -> SensitivityResult:
    """All chips that are kept of a network, whatever evaluated them, with what did in the settings; whole chips only.

    SystemExit where the first ones are not all there yet.
    """
    path = RESULTS / f"{file_name(network, range(1))}.json"
    about, values = _read(path) if path.is_file() else ({}, {})
    if "settings" not in values:
        raise SystemExit(f"{path}: not all chips are measured yet; run the experiment again, it goes on")
    measured = _chips(values)
    by = {evaluated_by(about): sorted(measured)}
    for more in sorted(RESULTS.glob(f"{path.stem}.*.json")):
        other, others = _read(more)
        new = {k: of for k, of in _chips(others).items() if k not in measured and _settings(other) == _settings(about)}
        measured |= new
        if new:
            by[evaluated_by(other)] = sorted([*by.get(evaluated_by(other), []), *new])
    settings = about | values["settings"] | {"n_chips": len(measured)}
    if len(by) > 1:
        settings["evaluated"] = "; ".join(f"chips {', '.join(map(str, chips))} {what}" for what, chips in by.items())
    rows = rows_of(network, settings["weights"], settings["reads"], measured)
    return SensitivityResult(network, rows, values["software"], settings)


def _read(path) -> tuple[dict, dict]:
    held = json.loads(path.read_text())
    return held["about"], held["values"]


def _chips(values: dict) -> dict[int, list[float]]:
    return {int(key.removeprefix("chip ")): of for key, of in values.items() if key.startswith("chip ") and "," not in key}


def _settings(about: dict) -> dict:
    """What a measurement is of, without the version of the code and what evaluated it."""
    return {name: value for name, value in about.items() if name not in ("code", "evaluated by")}
