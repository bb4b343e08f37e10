"""Train networks by a recipe: a small TOML file, see reference_weights/recipes.

Stage after stage, each from the best state of the one before; the first from an initial state, or from a network of your own,
where the recipe has start = "mine.h5" in place of network (the paper trains a network further, with noise). Writes every
stage's network (NAME.h5) and log (NAME.csv), and a checkpoint at the end of each epoch and every few minutes; --resume goes on
from it to exactly the state an uninterrupted run reaches.

examples:
  pcmref train reference_weights/recipes/resnet8-fashionmnist.toml --data /usr/share/datasets/fashion-mnist
  pcmref train reference_weights/recipes/joshi32-cifar10.toml --data cifar-10-binary.tar.gz --out trained --resume

Fashion-MNIST: Debian's package dataset-fashion-mnist, or the four IDX files from github.com/zalandoresearch/fashion-mnist.
"""

import argparse
import signal
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import pcmref
from pcmref.cli.images import add_normalisation, asked_for
from pcmref.cli.progress import ProgressBar
from pcmref.cli.resumed_study import add_force, alone, check_free
from pcmref.experiments.recipes import DATA_SETS, Plan, carry_out, read_plan
from pcmref.fast.resnet import ENGINES
from pcmref.files.networks import read_network

CHECKPOINT_SECONDS = 180


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("recipe", type=Path, help="a recipe file (.toml)")
    add("--data", required=True, help="folder of the IDX files or of images by class, CIFAR-10's archive or folder, or .npz")
    add_normalisation(add, "of the network to start from, else of the training images")
    add("--out", type=Path, default=Path("out"), help="folder for the networks (default: %(default)s)")
    add("--resume", action="store_true", help="go on from the checkpoint in the folder")
    add_force(add)
    add("--engine", choices=ENGINES, default="fast", help="plain: the text of pcmref.nn itself, slow (default: fast)")
    add("--workers", type=int, default=None, help="threads (default: one per core)")


def source_commit() -> str:
    """The commit of the checkout that runs, "-dirty" where files differ from it, else the installed version."""
    root = Path(pcmref.__file__).parent.parent
    version = f"pcmref {pcmref.__version__}"
    if not (root / ".git").exists():
        return version
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return version


def run(arguments: argparse.Namespace) -> int:
    plan = read_plan(arguments.recipe)
    with alone(arguments.out, "train"):
        for name in () if arguments.resume else (f"{plan.name}.checkpoint", *plan.stages):
            check_free(arguments.out / f"{name}.h5", arguments.force, "--resume goes on from it, --out writes elsewhere")
        return _run(arguments, plan)


def _run(arguments: argparse.Namespace, plan: Plan) -> int:
    data = DATA_SETS[plan.data](arguments.data)
    theirs = plan.start and plan.start.file.about.get("normalisation")  # what it was trained with
    if asked := asked_for(arguments, data.train_images.shape[3]) or theirs:
        data = replace(data, name=f"{data.name}, normalised by {asked}", mean=asked[0], std=asked[1])  # a run of its own
    signals = []
    previous = {s: signal.signal(s, lambda number, _: signals.append(number)) for s in (signal.SIGINT, signal.SIGTERM)}
    last = time.monotonic()

    def due() -> bool:
        nonlocal last
        if time.monotonic() - last < CHECKPOINT_SECONDS:
            return False
        last = time.monotonic()
        return True

    bar = ProgressBar("", "image")

    def progress(stage: str, done: int, total: int) -> None:
        if stage != bar.label:  # the next stage begins
            bar.close()
            bar.label = stage
        bar.update(done, total)

    try:
        options = {"due": due, "stopped": lambda: bool(signals), "progress": progress, "commit": source_commit()}
        options |= {"engine": arguments.engine, "workers": arguments.workers}
        paths = carry_out(plan, data, arguments.out, arguments.resume, **options)
    finally:
        bar.close()
        for number, handler in previous.items():
            signal.signal(number, handler)
    for path in paths:
        about = read_network(path).about
        print(f"{path}: {100 * about['software_accuracy']:.2f} % of {about['software_accuracy_of']}, in software")
    return 0
