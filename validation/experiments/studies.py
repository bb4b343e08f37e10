"""Retention studies whose chips are kept in results/, and what is kept as a result again.

Apart from the scripts that report on them: what is measured stays good when a sentence of a report changes.
"""

import argparse
import json
import shutil
from dataclasses import replace
from itertools import product
from pathlib import Path

from pcmref.cli.progress import ProgressBar
from pcmref.experiments import recipes
from pcmref.experiments.driver import COMPENSATIONS
from pcmref.experiments.retention import RetentionResult, conditions
from pcmref.experiments.times import STANDARD_TIMES_S
from pcmref.files import networks
from pcmref.pcm.model import PCMModel
from validation.experiments.measurements import RESULTS, Kept, add_engine, file_digest

N_CALIBRATION = 1280


def kept_study(name: str, network, images: int, n_calibration: int = N_CALIBRATION, engine: str = "fast", **design) -> Kept:
    """Where a study's chips are kept; `design` is times_s, compensations and reads where they are not the experiment's."""
    design = {"times_s": STANDARD_TIMES_S, "compensations": COMPENSATIONS, "reads": 1} | design
    plain = json.loads(json.dumps(design))
    return Kept(name, network, __file__, engine, images=images, calibration=n_calibration, **plain)


def study(kept: Kept, chips: range) -> None:
    """Measure what is not kept yet of a retention study."""
    about = kept.about
    under = conditions(PCMModel.joshi2020(), about["times_s"], about["compensations"])
    kept.measure_chips(kept.study(under, reads=about["reads"], workers=1), chips)


def trained(name: str, recipe: Path, folder: Path, data, workers: int | None, **changes) -> Path:
    """The network of a recipe's second stage, changed, under this name; it starts from the shipped one of the first."""
    plan = recipes.read_plan(recipe)
    (baseline, first), (_, second) = plan.stages.items()
    folder.mkdir(parents=True, exist_ok=True)
    for shipped in {baseline, name} & networks.shipped().keys():
        shutil.copy(networks.find(shipped), folder)
    plan = replace(plan, name=name, stages={baseline: first, name: replace(second, **changes)})
    with ProgressBar(name, "image") as bar:
        options = {"resume": True, "progress": lambda _, *done: bar.update(*done), "workers": workers}
        return recipes.carry_out(plan, data, folder, **options)[-1]


def study_parser(description: str, chips: int, reads: int) -> argparse.ArgumentParser:
    """What the scripts are asked: step "run" or "report", and sizes."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("step", choices=("run", "report"))
    parser.add_argument("--data", help="folder of Fashion-MNIST's IDX files, for what is trained")
    parser.add_argument("--images", type=int, default=2_000, help="test images, the first ones (default: %(default)s)")
    parser.add_argument("--chips", type=int, default=chips, help="default: %(default)s")
    parser.add_argument("--reads", type=int, default=reads, help="readings of each chip at each time (default: %(default)s)")
    parser.add_argument("--workers", type=int, help="threads for training (default: one per core)")
    add_engine(parser)
    return parser


def result_of(name: str, network: str | None = None) -> RetentionResult:
    """What is kept under a name, in the order of the study; SystemExit where it is missing or of another network."""
    path = RESULTS / f"{name}.json"
    held = json.loads(path.read_text()) if path.is_file() else {"about": {}, "values": {}}
    about, values = held["about"], held["values"]
    if "software" not in values or (network is not None and about["sha256"] != file_digest(network)):
        raise SystemExit(f"{path}: nothing kept of the network as it is; run its experiment first")
    measured = {int(key.removeprefix("chip ")): of for key, of in values.items() if key.removeprefix("chip ").isdigit()}
    keys, settings = product(about["compensations"], about["times_s"]), {"n_images": about["images"], **about}
    return RetentionResult.of(about["network"], keys, measured, values["software"], settings)
