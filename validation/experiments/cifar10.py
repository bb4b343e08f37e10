"""The paper's network on the paper's data: train it on CIFAR-10, program it onto chips, follow these over a year.

    python validation/experiments/cifar10.py run --data FOLDER [--images 1000] [--third FILE --mean ... --std ...]
    python validation/experiments/cifar10.py report

FOLDER holds CIFAR-10's official files; its images have no licence and do not ship, weights and results do. `run` trains what
does not ship (hours; goes on from its checkpoint), then measures each network's retention and sensitivity, and AdaBS in
software with images as in training and plain; every chip is kept in results/ as soon as it is measured. --third is a network
of others, measured beside. `report` writes cifar10.md, its pictures and the README's table from what is kept.
"""

import argparse
import json
import sys
from functools import cached_property
from pathlib import Path

import numpy as np
import studies
from measurements import RESULTS, Kept, add_engine
from retention import cell, losses
from studies import N_CALIBRATION, accuracies, result_of, study

from pcmref import adabs, library, recipes, tables
from pcmref.cli.executors import open_executor
from pcmref.cli.progress import ProgressBar
from pcmref.data import load_cifar10
from pcmref.pcm.model import PCMModel
from pcmref.plots import plot_retention
from pcmref.sensitivity import Row, SensitivityResult, sensitivity
from pcmref.study import COMPENSATIONS, RetentionResult
from pcmref.times import STANDARD_TIMES_S, human_time
from pcmref.training import Augmentation, Recipe, accuracy, augment

VALIDATION = Path(__file__).parents[1]
TOP, DOCUMENT = VALIDATION.parent, VALIDATION / "cifar10.md"
RECIPE = TOP / "reference_weights" / "recipes" / "joshi32-cifar10.toml"
TRAINED = TOP / "out" / "cifar10"
DAY_S = 86_400.0
MORE = 5_000  # calibration images, beside N_CALIBRATION
AS_TRAINED = "cropped and flipped"


class KeptCifar(Kept):
    """What is measured on CIFAR-10's test images, the first ones, in a folder of the user's.

    AdaBS sees the calibration images as training saw them, cropped and flipped: the running statistics that it replaces are of
    such images. `plain` has them as they are.
    """

    folder: Path
    normalisation = None  # (mean, std) where the network's file says nothing

    @cached_property
    def constants(self) -> tuple:
        return self.file.about.get("normalisation") or self.normalisation or library.load_images(self.folder).normalisation

    @cached_property
    def plain(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        data, n = library.load_images(self.folder), self.about["images"]
        x, calibration = data.images[:n], data.drawn_calibration(self.about["calibration"])
        return data.normalized(x, self.constants), data.labels[:n], data.normalized(calibration, self.constants)

    @cached_property
    def evaluation(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        x, labels, calibration = self.plain
        n, recipe = len(calibration), Recipe(crop=4, flip=True)
        choice = Augmentation.of_epoch(recipe, 0, n, calibration.shape[1:3])
        blank = -np.divide(*self.constants).astype(calibration.dtype)
        return x, labels, augment(calibration, choice, np.arange(n), recipe, blank)

    def measure_calibration(self) -> None:
        """The accuracy in software with batch norm recalibrated on both kinds of calibration images."""

        def recalibrated(x, labels, calibration):
            return accuracy(self.file.net, adabs(self.file.net, self.file.state, calibration), x, labels)

        self.measure_missing({"plain": lambda: recalibrated(*self.plain), AS_TRAINED: lambda: recalibrated(*self.evaluation)})


def kept(kind: str, network, arguments, **settings) -> KeptCifar:
    """Where what is measured on a network is kept; kind is "retention", "recalibration", "sensitivity" or "calibration"."""
    name = f"cifar10-{kind}-{library.find(network).stem}"
    settings = {"calibration": N_CALIBRATION} | settings | {"images": arguments.images}
    settings |= {"calibrated_on": AS_TRAINED} if kind.startswith("re") else {}
    found = KeptCifar(name, network, studies.__file__, arguments.engine, **settings)
    found.folder = arguments.data
    if arguments.third and Path(network) == arguments.third and arguments.mean:
        found.normalisation = tuple(arguments.mean), tuple(arguments.std)
    return found


def networks(arguments) -> list:
    """Those that ship, else trained here, and the third."""
    names = list(recipes.read_plan(RECIPE).stages)[-2:]  # what comes before is where the baseline starts
    if not set(names) <= library.shipped().keys():
        TRAINED.mkdir(parents=True, exist_ok=True)
        with ProgressBar("CIFAR-10", "image") as bar:
            options = {"resume": True, "progress": lambda _, *done: bar.update(*done), "workers": arguments.workers}
            names = recipes.carry_out(recipes.read_plan(RECIPE), load_cifar10(arguments.data), TRAINED, **options)[-2:]
    return [*names, *([arguments.third] if arguments.third else [])]


def measure_sensitivity(found: KeptCifar, n_chips: int) -> None:
    """Measure the chips that are not kept yet, one on each core."""
    x, labels, calibration = found.evaluation
    known = {k: values for k in range(n_chips) if (values := found.values.get(f"chip {k}"))}
    with ProgressBar(found.path.stem, "measurement") as bar, open_executor("processes") as executor:
        settings = {name: found.about[name] for name in ("t_s", "compensation", "reads")}
        settings |= {"n_chips": n_chips, "known": known, "workers": 1, "executor": executor, "progress": bar.update}
        settings["on_chip"] = lambda measured: found.keep({f"chip {k}": values for k, values in measured.items()})
        of = found.file
        result = sensitivity(of.net, of.state, PCMModel.joshi2020(), x, labels, x_calibration=calibration, **settings)
    settings = result.settings | {"eta": (of.about.get("recipe") or {}).get("eta")}
    found.keep({"software": result.software_accuracy, "settings": settings, "rows": [list(row) for row in result.rows]})


def run(arguments) -> None:
    for network in networks(arguments):
        kept("calibration", network, arguments).measure_calibration()
        design = {"times_s": STANDARD_TIMES_S, "compensations": COMPENSATIONS, "reads": arguments.reads}
        design = {name: list(v) if isinstance(v, tuple) else v for name, v in design.items()}
        study(kept("retention", network, arguments, **design), arguments.chips)
        design |= {"times_s": [DAY_S], "compensations": ["adabs"], "calibration": MORE}
        study(kept("recalibration", network, arguments, **design), arguments.chips)
    for network in networks(arguments):
        design = {"t_s": DAY_S, "compensation": "gdc", "reads": arguments.sensitivity_reads}
        measure_sensitivity(kept("sensitivity", network, arguments, **design), arguments.sensitivity_chips)


# ------------------------------------------------------------------------------------------------------------ report


def measured(kind: str) -> list[str]:
    """The networks of which a kind of study is kept: ours as the recipe has them, others after these."""
    prefix = f"cifar10-{kind}-"
    found = [path.stem.removeprefix(prefix) for path in sorted(RESULTS.glob(f"{prefix}*.json"))]
    return sorted(found, key=[*recipes.read_plan(RECIPE).stages, *found].index)


def sensitivity_of(network: str) -> SensitivityResult:
    path = RESULTS / f"cifar10-sensitivity-{network}.json"
    about, values = json.loads(path.read_text()).values()
    if "rows" not in values:
        raise SystemExit(f"{path}: not all chips are measured yet; run the experiment again, it goes on")
    rows = tuple(Row(*row) for row in values["rows"])
    return SensitivityResult(network, rows, values["software"], about | values["settings"])


def recalibrated(network: str) -> str:
    """The accuracy in software with batch norm recalibrated, on images as in training and on plain ones."""
    path = RESULTS / f"cifar10-calibration-{network}.json"
    if not path.is_file():
        return "not measured"
    about, values = json.loads(path.read_text()).values()
    return f"{100 * values[AS_TRAINED]:.2f}; {100 * values['plain']:.2f} ({about['images']:,} images)"


def recalibrated_on_more(network: str) -> str:
    """What is lost in a day with batch norm recalibrated on MORE images."""
    if not (RESULTS / f"cifar10-recalibration-{network}.json").is_file():
        return "not measured"
    result = result_of(f"cifar10-recalibration-{network}")
    return f"{cell(losses(result, 'adabs', DAY_S))} ({result.size()})"


def beside_the_paper(results: list[RetentionResult]) -> str:
    """A column a network beside what is known of the paper's chip, with its grade."""
    first, year = STANDARD_TIMES_S[0], STANDARD_TIMES_S[-1]
    collapse = min(STANDARD_TIMES_S, key=lambda t_s: abs(np.log(t_s / 1000)))

    def worst(result):
        return min(accuracies(result, "gdc", t_s).min() for t_s in STANDARD_TIMES_S if t_s <= DAY_S)

    rows = [
        ("of", "not known here", "", lambda r: r.size()),
        ("software", "93.87", "C", lambda r: f"{100 * r.software_accuracy:.2f}"),
        ("software, recalibrated; on plain images", "-", "", lambda r: recalibrated(r.name)),
        ("just programmed", "93.69 to 93.75", "B, C+", lambda r: cell(accuracies(r, "gdc", first))),
        (
            f"not compensated, 1,000 s (here {human_time(collapse)})",
            "10",
            "C+",
            lambda r: cell(accuracies(r, "none", collapse)),
        ),
        ("over a day, drift compensated", "above 92.6", "C+", lambda r: f"{100 * worst(r):.2f}, the lowest reading"),
        ("after a day, batch norm recalibrated", "above 93.5", "B", lambda r: cell(accuracies(r, "adabs", DAY_S))),
        ("lost in a day with drift compensation", "-", "", lambda r: cell(losses(r, "gdc", DAY_S))),
        ("lost in a day, recalibrated", "at most 0.37", "B less C", lambda r: cell(losses(r, "adabs", DAY_S))),
        (f"the same, on {MORE:,} images", "at most 0.37", "B less C", lambda r: recalibrated_on_more(r.name)),
        ("lost in a year with batch norm recalibrated", "-", "", lambda r: cell(losses(r, "adabs", year))),
    ]
    head = ["accuracy in %, losses in points", "the paper", "grade", *(r.name for r in results)]
    return tables.markdown([head, *([what, theirs, grade, *map(ours, results)] for what, theirs, grade, ours in rows)])


def evaluated(about: dict) -> str:
    """By what a network was evaluated, and which file it is."""
    return f"evaluated by {about.get('evaluated by', 'pcmref')}; network SHA-256 {about['sha256'][:16]}."


def lost_in_a_day(results: list[RetentionResult]) -> str:
    """What each network loses in a day, in points of its own software accuracy."""
    lines = [["network", "software", *COMPENSATIONS, "of", f"adabs on {MORE:,} images"]]
    for r in results:
        lost = [cell(losses(r, c, DAY_S)) for c in COMPENSATIONS]
        lines.append([r.name, f"{100 * r.software_accuracy:.2f}", *lost, r.size(), recalibrated_on_more(r.name)])
    return tables.markdown(lines)


def draw(folder: Path) -> None:
    """cifar10.png, and a picture of what costs each network its accuracy."""
    plot_retention([result_of(f"cifar10-retention-{name}") for name in measured("retention")], folder / "cifar10.png")
    for name in measured("sensitivity"):
        sensitivity_of(name).plot(folder / f"cifar10-sensitivity-{name}.png")


def report() -> None:
    """cifar10.md with its pictures, and the README's table."""
    results = [result_of(f"cifar10-retention-{name}") for name in measured("retention")]
    if not results:
        raise SystemExit("no network is measured yet: python validation/experiments/cifar10.py run --data FOLDER")
    sections = [
        f"## {r.name}\n\nSoftware {100 * r.software_accuracy:.2f} %; {r.size()}; {evaluated(r.settings)}\n\n"
        f"{tables.markdown(r.lines())}\n\n{tables.markdown(r.spread_lines())}"
        for r in results
    ]
    costs = [sensitivity_of(name) for name in measured("sensitivity")]
    texts = [
        f"## What costs {found.name} its accuracy\n\n{found.settings['n_images']:,} images, {found.settings['n_chips']} chips, "
        f"reads {found.settings['reads']}; {evaluated(found.settings)}\n\n```\n{found.table()}\n```\n\n![What costs it]"
        f"(cifar10-sensitivity-{found.name}.png)"
        for found in costs
    ]
    parts = {"paper": beside_the_paper(results), "networks": "\n\n".join(sections)}
    tables.fill(DOCUMENT, parts | {"sensitivity": "\n\n".join(texts) or "Not measured yet."})
    draw(VALIDATION)
    tables.fill(TOP / "README.md", {"cifar10": lost_in_a_day(results)})


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("step", choices=("run", "report"))
    parser.add_argument("--data", help="folder of CIFAR-10's official files")
    parser.add_argument("--images", type=int, default=10_000, help="test images, the first ones (default: %(default)s)")
    parser.add_argument("--chips", type=int, default=10, help="default: %(default)s")
    parser.add_argument("--reads", type=int, default=5, help="readings of each chip at each time (default: %(default)s)")
    parser.add_argument("--sensitivity-chips", type=int, default=5, help="default: %(default)s")
    parser.add_argument("--sensitivity-reads", type=int, default=2, help="default: %(default)s")
    parser.add_argument("--third", type=Path, metavar="FILE", help="a network of others, measured beside")
    parser.add_argument("--mean", type=float, nargs=3, help="of images/255 that the third takes")
    parser.add_argument("--std", type=float, nargs=3, help="beside --mean")
    parser.add_argument("--workers", type=int, help="threads for training (default: one per core)")
    add_engine(parser)
    arguments = parser.parse_args()
    if arguments.step == "report":
        report()
        return 0
    if not arguments.data or (arguments.mean is None) != (arguments.std is None):
        parser.error("run needs --data FOLDER, and --mean and --std together")
    run(arguments)
    return 0


if __name__ == "__main__":
    sys.exit(main())
