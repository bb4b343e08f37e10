"""Measurements on a network that are kept in results/, so that a run goes on where it was and a table says what it is of.

A file holds its values under the SHA-256 of the network's file, the settings and a digest of the code that computes them; with
anything else, everything is measured again.
"""

import argparse
import ast
import hashlib
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, cached_property, partial
from importlib import import_module
from pathlib import Path
from threading import Lock
from types import ModuleType

import numpy as np

import pcmref
from pcmref import store
from pcmref.cli.executors import open_executor
from pcmref.cli.progress import ProgressBar
from pcmref.errors import MissingExtraError
from pcmref.experiments.driver import Condition, Study, measure_chips
from pcmref.files import networks
from pcmref.threads import map_chunks

RESULTS = Path(__file__).parents[1] / "results"


def code_digest(script: str) -> str:
    """Of the code that a study computes with, comments and layout left out, and of the script that measures."""
    top = Path(pcmref.__file__).parent
    rooms = [path for room in ("nn", "fast", "pcm") for path in sorted((top / room).glob("*.py"))]
    others = ("experiments/driver", "draws", "files/networks", "files/images")
    files = [*rooms, *(top / f"{name}.py" for name in others), Path(script)]
    code = "".join(ast.unparse(ast.parse(path.read_text(encoding="utf-8"))) for path in files)
    return hashlib.sha256(code.encode()).hexdigest()[:16]


def file_digest(network) -> str:
    """SHA-256 of a network's file, by its shipped name or its path."""
    return hashlib.sha256(networks.find(network).read_bytes()).hexdigest()


@cache
def torch_network() -> ModuleType:
    """peers/torch_network.py; MissingExtraError without PyTorch."""
    try:
        return import_module("validation.peers.torch_network")
    except ImportError as error:
        raise MissingExtraError("--engine torch needs PyTorch: pip install torch") from error


class Kept:
    """What a function measures on one network with these settings, by key; each value is written as soon as it is there.

    With the engine "torch" PyTorch evaluates the network (peers/torch_network.py), and the settings say which and on what.
    """

    def __init__(self, name: str, network: str, script: str, engine: str = "fast", **settings):
        path = networks.find(network)
        self.file = networks.read_network(path)
        self.about = {"network": path.stem, "sha256": file_digest(path)}
        self.about |= {"trained by commit": self.file.about.get("commit"), "code": code_digest(script), **settings}
        if engine == "torch":
            self.file = replace(self.file, net=torch_network().TorchResNet.of(self.file.net))
            self.about["evaluated by"] = torch_network().described()
        self.path = RESULTS / f"{name}.json"
        held = json.loads(self.path.read_text()) if self.path.is_file() else {}
        before = held.get("about", self.about)
        other = sorted(key for key in before | self.about if before.get(key) != self.about.get(key))
        self.values = held.get("values", {}) if not other else {}
        if other:
            print(f"{self.path}: what is kept has other {', '.join(other)}; it is measured anew and replaced", file=sys.stderr)

    @cached_property
    def evaluation(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(images, labels, calibration images) that ship, normalised; as many images as the settings say."""
        data, n = pcmref.load_images("fashionmnist-evaluation"), self.about["images"]
        return data.normalized(data.images[:n]), data.labels[:n], data.normalized(data.calibration)

    def study(self, conditions: dict[object, Condition], **settings) -> Study:
        """What is measured under some conditions, on these images; as many calibration images as the settings say."""
        x, labels, calibration = self.evaluation
        parts = (self.file.net, self.file.state, x, labels, conditions, calibration[: self.about.get("calibration")])
        return Study(*parts, **settings)

    def measure(self, conditions: dict[object, Condition], n_chips: int) -> dict[object, list]:
        """{key: accuracies of the chips}; what is not there yet is measured, the conditions of a chip together."""

        def chip(k: int, left: dict) -> dict[str, float]:
            return dict(zip((named(key, k) for key in left), self.study(left).measure(k), strict=True))

        def named(key, k: int) -> str:
            return f"{key}, chip {k}"

        of = {k: {key: c for key, c in conditions.items() if named(key, k) not in self.values} for k in range(n_chips)}
        self.measure_missing({f"chip {k}": partial(chip, k, left) for k, left in of.items() if left}, self.keep)
        return {key: [self.values[named(key, k)] for k in range(n_chips)] for key in conditions}

    def measure_missing(self, tasks: dict[str, Callable[[], object]], keep: Callable | None = None) -> None:
        """Measure those of the tasks that are not kept yet, one on each core; `keep` takes a value, else its key has it."""
        missing = [key for key in tasks if key not in self.values]
        done, lock = len(tasks) - len(missing), Lock()

        def one(key):
            nonlocal done
            value = tasks[key]()
            with lock:
                self.keep({key: value}) if keep is None else keep(value)
                done += 1
                bar.update(done, len(tasks))

        with ProgressBar(self.path.stem, "measurement") as bar:
            map_chunks(one, missing)

    def measure_chips(self, study: Study, chips: range, n_images: int | None = None) -> None:
        """Measure the chips that are not kept yet, one on each core, of a chip n_images after the other."""
        x, part = study.x, n_images or len(study.x)
        left = [k for k in chips if f"chip {k}" not in self.values]
        parts = _Parts(study, [(k, first) for k in left for first in range(0, len(x), part)], part)
        known = {i: self.values[name] for i, name in enumerate(parts.names()) if name in self.values}
        with ProgressBar(self.path.stem, "measurement") as bar, open_executor("processes") as executor:
            options = {"executor": executor, "progress": bar.update, "known": known}
            options["on_chip"] = lambda counts: self.keep({parts.names()[i]: values for i, values in counts.items()})
            measure_chips(parts.counts, len(parts.of), len(study.conditions) * study.reads, **options)
        for k in left:
            counts = [self.values.pop(name) for name, (chip, _) in zip(parts.names(), parts.of, strict=True) if chip == k]
            self.keep({f"chip {k}": [sum(of_parts) / len(x) for of_parts in zip(*counts, strict=True)]})
        if "software" not in self.values:
            self.keep({"software": study.software()})

    def keep(self, values: dict[str, object]) -> None:
        """Write these values, with those that are there already."""
        self.values |= values
        RESULTS.mkdir(exist_ok=True)
        store.write_text(self.path, json.dumps({"about": self.about, "values": self.values}, indent=1) + "\n")

    def heading(self, n_chips: int) -> str:
        """What the values are of and what asks for them, in a line of Markdown."""
        commit = self.about["trained by commit"]
        trained = f", trained by commit {commit[:12]}" if commit else ""
        settings = ", ".join(f"{value:,} {key}" for key, value in self.about.items() if isinstance(value, int))
        network = f"Network `{self.about['network']}` (SHA-256 {self.about['sha256'][:16]}{trained})"
        asked = f"--chips {n_chips} --images {self.about['images']}{engine(self.about)}"
        return f"{network}; {settings}. {n_chips} chips, {evaluated_by(self.about)} (`{asked}`)."


@dataclass(frozen=True)
class _Parts:
    """Chips of a study and the first of the images that are counted together, picklable."""

    study: Study
    of: list[tuple[int, int]]
    n_images: int

    def names(self) -> list[str]:
        return [f"chip {k}, images {first} to {first + self.n_images - 1}" for k, first in self.of]

    def counts(self, i: int) -> list[int]:
        """How many images of a part are right under each condition."""
        chip, first = self.of[i]
        x, labels = (a[first : first + self.n_images] for a in (self.study.x, self.study.labels))
        return [round(share * len(x)) for share in replace(self.study, x=x, labels=labels).measure(chip)]


def evaluated_by(about: dict) -> str:
    """What took images to logits in a measurement, as its settings say."""
    return f"evaluated by {about.get('evaluated by', 'pcmref')}"


def engine(about: dict) -> str:
    """The option of a command that asks for what evaluated, with a blank before it; nothing for pcmref."""
    return " --engine torch" if "evaluated by" in about else ""


def add_engine(parser: argparse.ArgumentParser) -> None:
    help_ = "what evaluates the networks: pcmref, or PyTorch, on a GPU if there is one (default: %(default)s)"
    parser.add_argument("--engine", choices=("fast", "torch"), default="fast", help=help_)


def from_command(name: str, description: str, script: str, chips: int, images: int, **settings) -> tuple[Kept, int]:
    """(what is kept, number of chips) as a script's command line asks; chips and images are the published numbers."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("network", nargs="?", default="resnet32-fashionmnist-noise", help="default: %(default)s")
    parser.add_argument("--chips", type=int, default=chips, help="default: %(default)s")
    parser.add_argument("--images", type=int, default=images, help="default: %(default)s")
    add_engine(parser)
    arguments = parser.parse_args()
    return Kept(name, arguments.network, script, arguments.engine, images=arguments.images, **settings), arguments.chips
