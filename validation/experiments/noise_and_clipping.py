"""Noise against clipping: the four ways to train on from one baseline, several trainings each, programmed onto chips.

    python -m validation.experiments.noise_and_clipping run --data FOLDER [--network resnet32] [--trainings 2]
    python -m validation.experiments.noise_and_clipping report

Every arm (with or without noise, with or without clipping) has the same epochs, schedule and baseline; training k of every arm
has the same seed, so the arms differ in noise and clipping only. `run` goes on where it was: a training from its checkpoint, a
network from its last chip. `report` writes noise_and_clipping.md from what is kept. Hours: resnet8 one, resnet32 ten.
"""

import json
import sys
from itertools import count, product, takewhile
from pathlib import Path

import numpy as np
from scipy import stats

from pcmref.experiments import tables
from pcmref.experiments.driver import COMPENSATIONS
from pcmref.files.datasets import load_fashion_mnist
from pcmref.training import ALPHA, ETA
from validation.experiments.measurements import RESULTS, engine, evaluated_by
from validation.experiments.studies import kept_study, result_of, study, study_parser, trained

VALIDATION = Path(__file__).parents[1]
RECIPES = VALIDATION.parent / "reference_weights" / "recipes"
TRAINED = VALIDATION.parent / "out" / "noise_and_clipping"
NETWORKS = {"resnet8": "resnet8-fashionmnist", "resnet32": "joshi32-fashionmnist"}
ARMS = list(product((0.0, ETA), (0.0, ALPHA)))  # (eta, alpha)
DAY_S = 86_400.0
MEASURES = ("software", *COMPENSATIONS)


def named(network: str, eta: float, alpha: float, seed: int) -> str:
    return f"arm-{network}-eta{eta}-alpha{alpha}-seed{seed}"


def run(arguments) -> None:
    """Training k of every arm before training k + 1 of any: whatever is done is balanced."""
    data = load_fashion_mnist(arguments.data)
    recipe, epochs = RECIPES / f"{NETWORKS[arguments.network]}.toml", arguments.epochs
    for seed, (eta, alpha) in product(range(arguments.trainings), ARMS):
        name = named(arguments.network, eta, alpha, seed)
        changes = {"eta": eta, "alpha": alpha, "seed": seed} | ({"epochs": epochs} if epochs else {})
        path = trained(name, recipe, TRAINED, data, arguments.workers, **changes)
        design = {"times_s": (DAY_S,), "reads": arguments.reads, "engine": arguments.engine}
        study(kept_study(name, path, arguments.images, **design), range(arguments.chips))


def finished(name: str) -> bool:
    path = RESULTS / f"{name}.json"
    return path.is_file() and "software" in json.loads(path.read_text())["values"]


def measured(network: str) -> dict[str, np.ndarray]:
    """{software or a compensation: accuracies [noise, clip, trainings, chips]}, means over reads, of finished seeds."""
    seeds = list(takewhile(lambda seed: all(finished(named(network, *arm, seed)) for arm in ARMS), count()))
    arms = [[result_of(named(network, *arm, seed)) for seed in seeds] for arm in ARMS]
    found = {c: np.array([[r.values(c, DAY_S).mean(1) for r in results] for results in arms]) for c in COMPENSATIONS}
    found["software"] = np.array([[[r.software_accuracy] for r in results] for results in arms])
    return {measure: values.reshape(2, 2, *values.shape[1:]) for measure, values in found.items()}


def effects(y: np.ndarray) -> dict[str, np.ndarray]:
    """Of y [noise, clip, trainings, chips]: what each gains by one, alone or beside the other, by both, and what is no sum."""
    return {
        "noise alone": y[1, 0] - y[0, 0],
        "noise beside clipping": y[1, 1] - y[0, 1],
        "clipping alone": y[0, 1] - y[0, 0],
        "clipping beside noise": y[1, 1] - y[1, 0],
        "both": y[1, 1] - y[0, 0],
        "both, less each alone": y[1, 1] - y[1, 0] - y[0, 1] + y[0, 0],
    }


def effect_cell(values: np.ndarray) -> str:
    """Of an effect [trainings, chips] the mean, its nominal 95 % interval over trainings (Student's t), its range over chips.

    In points; of one training without interval, of the software without range.
    """
    by_training, by_chip = values.mean(1), 100 * values.mean(0)
    chips = f"; {by_chip.min():z.2f} to {by_chip.max():z.2f}" if len(by_chip) > 1 else ""
    if len(by_training) < 2:
        return f"{100 * by_training.mean():+.2f}{chips}"
    half = stats.t.ppf(0.975, len(by_training) - 1) * by_training.std(ddof=1) / np.sqrt(len(by_training))
    return tables.interval_cell(values.mean(), (values.mean() - half, values.mean() + half)) + chips


def command(network: str, trainings: int, about: dict) -> str:
    """What was run, as far as what is kept shows."""
    chips = 1 + max(row.chip for row in result_of(named(network, *ARMS[0], 0)).rows)
    sizes = f"--trainings {trainings} --images {about['images']} --chips {chips} --reads {about['reads']}"
    return f"python -m validation.experiments.noise_and_clipping run --data FOLDER --network {network} {sizes}{engine(about)}"


def document() -> str:
    """noise_and_clipping.md as text; SystemExit where no arm is complete."""
    text = (
        "# Noise against clipping\n\n"
        "Written by `experiments/noise_and_clipping.py report` from `results/`; do not edit. Four ways to train on from one\n"
        "shipped baseline, with the same epochs and schedule: with and without noise on the weights\n"
        f"(eta {ETA}), with and without clipping (alpha {ALPHA:g}). Training k of every arm has seed k. Accuracy in percent\n"
        "one day after programming, means over chips and reads of each training; effects in points with nominal 95 %\n"
        "intervals over trainings (Student's t on each seed's contrast): of further trainings from this baseline, on these\n"
        "images and chips. All arms are on the same chips: after the semicolon each effect's lowest and highest over these.\n"
        "Other chips and other images are in no interval; under gdc chips differ more than trainings in most effects.\n"
    )
    for network in NETWORKS:
        found = measured(network)
        n = len(found["software"][0, 0])
        if not n:
            continue
        first = result_of(named(network, *ARMS[0], 0))
        size = f"{first.size()}, {evaluated_by(first.settings)}"
        ran = command(network, n, first.settings)
        text += f"\n## {network}\n\n{n} trainings an arm; each on {size}:\n\n    {ran}\n\n"
        text += "Median [lowest, highest] mean over trainings:\n\n"
        lines = [["noise", "clipping", *MEASURES]]
        for i, (eta, alpha) in enumerate(ARMS):
            cells = [100 * found[m][divmod(i, 2)].mean(1) for m in MEASURES]
            shown = [f"{np.median(v):.2f} [{v.min():.2f}, {v.max():.2f}] {v.mean():.2f}" for v in cells]
            lines.append(["yes" if eta else "no", "yes" if alpha else "no", *shown])
        text += f"{tables.markdown(lines)}\n\n"
        of = {m: effects(found[m]) for m in MEASURES}
        rows = [[what, *(effect_cell(of[m][what]) for m in MEASURES)] for what in of["software"]]
        text += f"{tables.markdown([['gained by', *MEASURES], *rows])}\n"
        text += f"\nOf {len(rows) * len(MEASURES)} intervals of 95 % one or two miss what they are of by chance.\n"
    if "##" not in text.replace("# Noise", "", 1):
        raise SystemExit("no training of every arm is kept yet: python -m validation.experiments.noise_and_clipping run")
    return text


def main() -> int:
    parser = study_parser(__doc__, chips=10, reads=3)
    parser.add_argument("--network", choices=NETWORKS, default="resnet8", help="default: %(default)s")
    parser.add_argument("--trainings", type=int, default=5, help="of every arm (default: %(default)s)")
    parser.add_argument("--epochs", type=int, default=None, help="of every training (default: the recipe's)")
    arguments = parser.parse_args()
    if arguments.step == "report":
        (VALIDATION / "noise_and_clipping.md").write_text(document(), encoding="utf-8")
        return 0
    if not arguments.data:
        parser.error("run needs --data FOLDER")
    run(arguments)
    return 0


if __name__ == "__main__":
    sys.exit(main())
