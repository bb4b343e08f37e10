"""The paper's network on the paper's data: train it on CIFAR-10, program it onto chips, follow these over a year.

    python -m validation.experiments.cifar10 run --data FOLDER [--train] [--images 1000] [--third FILE --mean ... --std ...]
    python -m validation.experiments.cifar10 report

FOLDER holds CIFAR-10's official files; its images have no licence and do not ship, weights and results do. `run` measures each
network's retention and sensitivity, and AdaBS in software with images as in training and plain; every chip is kept in results/
as soon as it is measured. With --train our two networks are trained first (hours; goes on where it was), else they are
those that ship. --third is a network of others, measured beside. `report` writes cifar10.md, its pictures and the README's
tables from what is kept.
"""

import argparse
import json
import sys
from functools import cached_property, partial
from pathlib import Path

import numpy as np

import pcmref
from pcmref import adabs
from pcmref.cli.progress import ProgressBar
from pcmref.errors import PcmrefError, SettingError
from pcmref.experiments import recipes, tables
from pcmref.experiments.driver import COMPENSATIONS
from pcmref.experiments.pictures import plot_retention
from pcmref.experiments.retention import RetentionResult
from pcmref.experiments.sensitivity import FIGURE_2_SAME, NOISES
from pcmref.experiments.times import STANDARD_TIMES_S, human_time
from pcmref.files.datasets import load_cifar10
from pcmref.files.images import Images
from pcmref.files.networks import find, read_network
from pcmref.training import Augmentation, Recipe, accuracy, augment
from validation.experiments import sensitivity, studies
from validation.experiments.measurements import RESULTS, Kept, add_engine, evaluated_by, torch_network
from validation.experiments.paired import reclassified, reclassified_cell, standard_error
from validation.experiments.retention import cell, lowest_in_a_day
from validation.experiments.studies import N_CALIBRATION, result_of, study

VALIDATION = Path(__file__).parents[1]
TOP, DOCUMENT = VALIDATION.parent, VALIDATION / "cifar10.md"
RECIPE = TOP / "reference_weights" / "recipes" / "joshi32-cifar10.toml"
TRAINED = TOP / "out" / "cifar10"
DAY_S = 86_400.0
MORE = 5_000  # calibration images, beside N_CALIBRATION
AS_IT_IS, PLAIN, AS_TRAINED = "as it is", "recalibrated on plain images", "recalibrated on {} images"
CROPPED = "cropped and flipped"
KINDS = ("calibration", "retention", "recalibration", "reclassified", "sensitivity")


class KeptCifar(Kept):
    """What is measured on CIFAR-10's test images, the first ones, in a folder of the user's.

    AdaBS sees the calibration images as training saw them, cropped and flipped: the running statistics that it replaces are of
    such images.
    """

    folder: Path
    normalisation = None  # (mean, std) where the network's file says nothing

    @cached_property
    def images(self) -> Images:
        return pcmref.load_images(self.folder)

    @cached_property
    def constants(self) -> tuple:
        return self.file.about.get("normalisation") or self.normalisation or self.images.normalisation

    @cached_property
    def evaluation(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        data, n = self.images, self.about["images"]
        calibration = self.calibration_images(self.about["calibration"])
        return data.normalized(data.images[:n], self.constants), data.labels[:n], calibration

    def calibration_images(self, n: int, plain: bool = False) -> np.ndarray:
        """n training images, normalised; cropped and flipped, or plain."""
        recipe = Recipe(crop=4, flip=True)
        images = self.images.normalized(self.images.drawn_calibration(n), self.constants)
        if plain:
            return images
        choice = Augmentation.of_epoch(recipe, 0, len(images), images.shape[1:3])
        blank = -np.divide(*self.constants).astype(images.dtype)
        return augment(images, choice, np.arange(len(images)), recipe, blank)

    def measure_calibration(self) -> None:
        """The accuracy in software: as it is, and with batch norm recalibrated on each kind of calibration images."""
        net, state, (x, labels, _) = self.file.net, self.file.state, self.evaluation

        def recalibrated(n, plain=False):
            return accuracy(net, adabs(net, state, self.calibration_images(n, plain)), x, labels)

        tasks = {AS_IT_IS: lambda: accuracy(net, state, x, labels), PLAIN: lambda: recalibrated(N_CALIBRATION, plain=True)}
        self.measure_missing(tasks | {AS_TRAINED.format(n): partial(recalibrated, n) for n in (N_CALIBRATION, MORE)})


def kept(kind: str, network, arguments, **settings) -> KeptCifar:
    """Where what is measured on a network is kept; kind is one of KINDS."""
    name = f"cifar10-{kind}-{find(network).stem}"
    settings = {"calibration": N_CALIBRATION} | settings | {"images": arguments.images}
    settings |= {"calibrated_on": CROPPED} if kind.startswith("re") else {}
    found = KeptCifar(name, network, studies.__file__, arguments.engine, **settings)
    found.folder = arguments.data
    if arguments.third and Path(network) == arguments.third and arguments.mean:
        found.normalisation = tuple(arguments.mean), tuple(arguments.std)
    return found


def our_networks() -> list[str]:
    """[baseline, noise-trained]: the recipe's last stages; what comes before is where the baseline starts."""
    return list(recipes.read_plan(RECIPE).stages)[-2:]


def networks(arguments) -> list:
    """Those that ship, or are trained here, and the third: the ones that are asked for. SettingError for another name."""
    names, third = our_networks(), [arguments.third] if arguments.third else []
    expected = [*names, *(path.stem for path in third)]
    if wrong := [name for name in arguments.networks or () if name not in expected]:
        raise SettingError(f"--networks {' '.join(wrong)}: expected some of {', '.join(expected)}")
    if len(set(expected)) < len(expected):
        raise SettingError(f"--third {arguments.third}: one of our own networks has this name; give the file another")
    if arguments.train:
        TRAINED.mkdir(parents=True, exist_ok=True)
        with ProgressBar("CIFAR-10", "image") as bar:
            options = {"resume": True, "progress": lambda _, *done: bar.update(*done), "workers": arguments.workers}
            names = recipes.carry_out(recipes.read_plan(RECIPE), load_cifar10(arguments.data), TRAINED, **options)[-2:]
    found = zip(expected, [*names, *third], strict=True)
    return [network for name, network in found if not arguments.networks or name in arguments.networks]


def measure(kind: str, network, arguments) -> None:
    """Measure one of KINDS of one network, what is not kept yet."""
    of = partial(kept, kind, network, arguments)
    if kind == "calibration":
        of().measure_calibration()
    elif kind == "reclassified":
        found = of()
        found.measure_missing({"a day": partial(reclassified, found)})
    elif kind == "retention":
        design = {"times_s": list(STANDARD_TIMES_S), "compensations": list(COMPENSATIONS), "reads": arguments.reads}
        study(of(**design), range(arguments.chips))
    elif kind == "recalibration":
        design = {"times_s": [DAY_S], "compensations": ["adabs"], "reads": arguments.reads, "calibration": MORE}
        study(of(**design), range(arguments.chips))
    else:
        design = {"t_s": DAY_S, "compensation": "gdc", "reads": arguments.sensitivity_reads}
        sensitivity.measure(of(**design), arguments.sensitivity_chips)


def run(arguments) -> None:
    load_cifar10(arguments.data)  # what is wrong with the files, the third network's or PyTorch is said before the work
    if arguments.third:
        read_network(arguments.third)
    if arguments.engine == "torch":
        torch_network()
    found = networks(arguments)
    for kind in arguments.kinds or KINDS:
        for network in found:
            measure(kind, network, arguments)


# ------------------------------------------------------------------------------------------------------------ report


def measured(kind: str) -> list[str]:
    """The networks of which a kind of study is kept: ours as the recipe has them, others after these."""
    prefix = f"cifar10-{kind}-"
    found = [path.stem.removeprefix(prefix) for path in sorted(RESULTS.glob(f"{prefix}*.json"))]
    return sorted(found, key=[*recipes.read_plan(RECIPE).stages, *found].index)


def recalibrated(network: str) -> str:
    """The accuracy in software: as it is, recalibrated as in the studies and on plain images."""
    path = RESULTS / f"cifar10-calibration-{network}.json"
    if not path.is_file():
        return "not measured"
    about, values = json.loads(path.read_text()).values()
    ways = AS_IT_IS, AS_TRAINED.format(N_CALIBRATION), AS_TRAINED.format(MORE), PLAIN
    return f"{'; '.join(f'{100 * values[way]:.2f}' for way in ways)} ({about['images']:,} images)"


def on_more(network: str, values=RetentionResult.lost) -> str:
    """What is lost in a day with batch norm recalibrated on MORE images, or another function of that study."""
    if not (RESULTS / f"cifar10-recalibration-{network}.json").is_file():
        return "not measured"
    result = result_of(f"cifar10-recalibration-{network}")
    return f"{cell(values(result, 'adabs', DAY_S))} ({result.size()})"


def reclassified_by(network: str) -> str:
    """How many images one reading after a day loses and wins, recalibrated, and what that is worth."""
    path = RESULTS / f"cifar10-reclassified-{network}.json"
    if not path.is_file():
        return "not measured"
    about, values = json.loads(path.read_text()).values()
    n, lost_won = result_of(f"cifar10-retention-{network}").settings["images"], values["a day"]["adabs"]
    of_fewer = standard_error(*lost_won, about["images"]) * np.sqrt(about["images"] / n)
    few = f"; of {n:,}: {of_fewer:.2f}" if n < about["images"] else ""
    return f"{reclassified_cell(*lost_won, about['images'])} ({about['images']:,} images{few})"


def with_weight_noise(network: str, eta: float) -> str:
    """The accuracy with Gaussian noise of this strength on the weights, and the software's on the same images."""
    if network not in measured("sensitivity"):
        return "not measured"
    found = sensitivity.kept_result(network)
    values, images = found.values("weights", repr(eta)), found.settings["n_images"]
    of = f"{images:,} images, {values.size} draws of the noise, software {100 * found.software_accuracy:.2f}"
    return f"{cell(values)} ({of})"


def beside_the_paper(results: list[RetentionResult]) -> str:
    """A column a network beside what is known of the paper's chip, with its grade."""
    first, year = STANDARD_TIMES_S[0], STANDARD_TIMES_S[-1]
    collapse = min(STANDARD_TIMES_S, key=lambda t_s: abs(np.log(t_s / 1000)))

    software = {r.name: r.software_accuracy for r in results}

    def below_baseline(result):
        ours = our_networks()
        if result.name not in ours or ours[0] not in software:
            return ""
        return cell(software[ours[0]] - result.values("adabs", DAY_S))

    rows = [
        ("of", "not known here", "", lambda r: r.size()),
        ("software", "93.87", "C", lambda r: f"{100 * r.software_accuracy:.2f}"),
        (
            f"software: as it is; recalibrated on {N_CALIBRATION:,}, {MORE:,} images; on plain ones",
            "-",
            "",
            lambda r: recalibrated(r.name),
        ),
        ("just programmed", "93.69 to 93.75", "B, C+", lambda r: cell(r.values("gdc", first))),
        (
            f"not compensated, about 1,000 s (here {human_time(collapse)})",
            "10",
            "C+",
            lambda r: cell(r.values("none", collapse)),
        ),
        ("after a day, not compensated", "-", "", lambda r: cell(r.values("none", DAY_S))),
        ("after a day, drift compensated", "-", "", lambda r: cell(r.values("gdc", DAY_S))),
        ("over a day, drift compensated", "above 92.6", "C+", lambda r: lowest_in_a_day(r, "gdc")),
        ("over a day, batch norm recalibrated", "above 93.5", "B", lambda r: lowest_in_a_day(r, "adabs")),
        ("after a day, batch norm recalibrated", "-", "", lambda r: cell(r.values("adabs", DAY_S))),
        (f"the same, recalibrated on {MORE:,} images", "-", "", lambda r: on_more(r.name, RetentionResult.values)),
        ("lost in a day with drift compensation", "-", "", lambda r: cell(r.lost("gdc", DAY_S))),
        ("lost in a day, recalibrated, of its own software accuracy", "-", "", lambda r: cell(r.lost("adabs", DAY_S))),
        (f"the same, recalibrated on {MORE:,} images", "-", "", lambda r: on_more(r.name)),
        ("after a day, recalibrated, below the baseline's software", "less than 0.37", "B, C", below_baseline),
        ("one reading recalibrated: images lost, won; standard error", "-", "", lambda r: reclassified_by(r.name)),
        ("lost in a year with batch norm recalibrated", "-", "", lambda r: cell(r.lost("adabs", year))),
    ]
    rows += [
        (
            f"{100 * eta:g} % Gaussian noise on the weights; theirs trained with as much (figure 2, +-.5)",
            f"{theirs:.2f}",
            "C+",
            lambda r, eta=eta: with_weight_noise(r.name, eta),
        )
        for eta, theirs in zip(NOISES[1:], FIGURE_2_SAME[1:], strict=True)
    ]
    head = ["accuracy in %, losses in points", "the paper", "grade", *(r.name for r in results)]
    return tables.markdown([head, *([what, theirs, grade, *map(ours, results)] for what, theirs, grade, ours in rows)])


def evaluated(about: dict) -> str:
    """By what a network was evaluated, and which file it is."""
    return f"{evaluated_by(about)}; network SHA-256 {about['sha256'][:16]}."


def lost_in_a_day(results: list[RetentionResult]) -> str:
    """What each network loses in a day, in points of its own software accuracy."""
    lines = [["network", "software", *COMPENSATIONS, "of", f"adabs on {MORE:,} images"]]
    for r in results:
        lost = [cell(r.lost(c, DAY_S)) for c in COMPENSATIONS]
        lines.append([r.name, f"{100 * r.software_accuracy:.2f}", *lost, r.size(), on_more(r.name)])
    return tables.markdown(lines)


def kept_costs() -> list[sensitivity.SensitivityResult]:
    return [sensitivity.kept_result(name) for name in measured("sensitivity")]


def what_costs() -> str:
    """A section a network: what costs it its accuracy."""
    sections = [
        f"## What costs {found.name} its accuracy\n\n{found.settings['n_images']:,} images, {found.settings['n_chips']} chips, "
        f"reads {found.settings['reads']}; {evaluated(found.settings)}\n\n```\n{found.table()}\n```\n\n![What costs it]"
        f"(cifar10-sensitivity-{found.name}.png)"
        for found in kept_costs()
    ]
    return "\n\n".join(sections) or "Not measured yet."


def draw(folder: Path) -> None:
    """cifar10.png, and a picture of what costs each network its accuracy."""
    plot_retention([result_of(f"cifar10-retention-{name}") for name in measured("retention")], folder / "cifar10.png")
    for found in kept_costs():
        found.plot(folder / f"cifar10-sensitivity-{found.name}.png")


def report() -> None:
    """cifar10.md with its pictures, and the README's table."""
    results = [result_of(f"cifar10-retention-{name}") for name in measured("retention")]
    if not results:
        raise SystemExit("no network is measured yet: python -m validation.experiments.cifar10 run --data FOLDER")
    sections = [
        f"## {r.name}\n\nSoftware {100 * r.software_accuracy:.2f} %; {r.size()}; {evaluated(r.settings)}\n\n"
        f"{tables.markdown(r.lines())}\n\n{tables.markdown(r.spread_lines())}"
        for r in results
    ]
    parts = {"paper": beside_the_paper(results), "networks": "\n\n".join(sections), "sensitivity": what_costs()}
    tables.fill(DOCUMENT, parts)
    draw(VALIDATION)
    tables.fill(TOP / "README.md", {"cifar10": lost_in_a_day(results), "decides": sensitivity.decides(kept_costs())})


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("step", choices=("run", "report"))
    parser.add_argument("--data", help="folder of CIFAR-10's official files")
    parser.add_argument("--train", action="store_true", help="train our two networks anew, into out/cifar10")
    parser.add_argument("--images", type=int, default=10_000, help="test images, the first ones (default: %(default)s)")
    parser.add_argument("--chips", type=int, default=10, help="default: %(default)s")
    parser.add_argument("--reads", type=int, default=5, help="readings of each chip at each time (default: %(default)s)")
    parser.add_argument("--sensitivity-chips", type=int, default=5, help="default: %(default)s")
    parser.add_argument("--sensitivity-reads", type=int, default=2, help="default: %(default)s")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, help="measure these only (default: all)")
    parser.add_argument("--networks", nargs="+", metavar="NAME", help="measure these only (default: all)")
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
    try:
        run(arguments)
    except PcmrefError as error:
        parser.error(str(error))
    except KeyboardInterrupt:
        parser.exit(130, "stopped; what is measured is kept, and the same command goes on from it\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
