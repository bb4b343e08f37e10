"""Networks for ImageNet on a chip, from a file to logits inside 8 GB, or what one task of a study of thousands of chips costs.

    python -m validation.experiments.imagenet [resnet18 | resnet34 | resnet50] [--images 8]
    python -m validation.experiments.imagenet --one-core [--images 8]

States of torchvision's names and shapes, counters included, with initial weights (no trained ones are shipped), and images of
noise: this is about time and memory, and about the whole path at this size. Each network has a process of its own, which may
not map more than 8 GB: its state in an .npz goes through `pcmref import` and `pcmref info`, is loaded, programmed, read after a
day with GDC, and classifies. results/imagenet.json says how long each step took and how much was held at most. With --one-core
each step of ResNet-34 runs on one core, in CPU seconds, and from them a study of CHIPS chips is computed, at TIMES times under
all three compensations, with the numbers of images below.
"""

import argparse
import contextlib
import json
import pickle
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

import pcmref
from pcmref import cli, store
from validation.peers.bench import machine, peak_kb

LIMIT_BYTES = 8 * 1024**3
RESULT = Path(__file__).parents[1] / "results" / "imagenet.json"
CHIPS, TIMES, IMAGES, CALIBRATION, CORES = 10_000, 5, 1000, 1280, 1000
NETWORKS = {"resnet18": ("basic", (2, 2, 2, 2)), "resnet34": ("basic", (3, 4, 6, 3)), "resnet50": ("bottleneck", (3, 4, 6, 3))}


class Steps:
    """Seconds of steps by name, each printed when it is done."""

    def __init__(self, clock):
        self.clock, self.took = clock, {}

    def __call__(self, what, task, *args, **options):
        start = self.clock()
        value = task(*args, **options)
        self.took[what] = self.clock() - start
        print(f"{what}: {self.took[what]:.2f} s", flush=True)
        return value


def network(name: str) -> pcmref.ResNet:
    block, blocks = NETWORKS[name]
    return pcmref.ResNet(3, 1000, (64, 128, 256, 512), blocks, "imagenet", block=block)


def images(n: int) -> np.ndarray:
    return pcmref.draws.standard_normal(0, "imagenet34/x", (n, 224, 224, 3)).astype(np.float32)


def on_chip(net, state: dict, x: np.ndarray, steps: Steps, workers: int | None = None):
    """(chip, its state after a day with GDC), the images classified with it."""
    chip = steps("program", pcmref.Chip.program, state, pcmref.PCMModel.joshi2020(), workers=workers)
    day = steps("read at 1 day with GDC", chip.read, 86_400.0, gdc=True, workers=workers)
    logits = steps(f"classify {len(x)} images of 224x224", pcmref.predict, net, day, x, workers=workers)
    assert logits.shape == (len(x), 1000) and np.isfinite(logits).all()
    return chip, day


def from_a_file(name: str, n: int) -> None:
    """One network in this process, from a file of others to logits; its entry in RESULT."""
    resource.setrlimit(resource.RLIMIT_AS, (LIMIT_BYTES, LIMIT_BYTES))
    net, steps, x = network(name), Steps(time.perf_counter), images(n)

    def write():
        counters = {f"{bn}.num_batches_tracked": np.array(1) for _, bn, _ in net.conv_bn_pairs()}
        np.savez("state.npz", **net.init() | counters)

    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        steps("initial weights, written", write)
        assert steps("import", cli.main, ["import", "state.npz", "state.h5"]) == 0
        assert steps("info", cli.main, ["info", "state.h5"]) == 0
        loaded, state = steps("load", pcmref.load, "state.h5")
    assert loaded == net
    chip, _ = on_chip(net, state, x, steps)
    entry = {"devices": chip.n_devices, "seconds": steps.took, "peak_gb": peak_kb() / 1024**2, "images": n}
    print(f"{chip.n_devices:,} devices; at most {entry['peak_gb']:.2f} GB held")
    report = json.loads(RESULT.read_text()) if RESULT.exists() else {}
    store.write_text(RESULT, json.dumps(report | {name: entry | {"machine": machine(None, [])}}, indent=1) + "\n")


def study_cost(n: int) -> None:
    """What a study of ResNet-34's chips sends and takes, printed."""
    net, steps, x = network("resnet34"), Steps(time.process_time), images(n)
    state = net.init()
    _, day = on_chip(net, state, x, steps, workers=1)
    steps(f"recalibrate with {n} images", pcmref.adabs, net, day, x, batch_size=n, workers=1)
    sent_mb = (len(pickle.dumps((net, state, pcmref.PCMModel.joshi2020()))) + (IMAGES + CALIBRATION) * x[0].nbytes) / 1e6
    program, read, classify, recalibrate = steps.took.values()
    evaluate = (3 * TIMES - 1) * IMAGES  # at t_0 gdc equals none
    task_s = program + read + TIMES * read + (evaluate * classify + TIMES * CALIBRATION * recalibrate) / n
    hours = CHIPS * task_s / 3600
    print(f"at most {peak_kb() / 1024**2:.2f} GB held")
    print(f"sent to each worker once: {sent_mb:,.0f} MB; with each task: a few hundred bytes; back: {3 * TIMES} numbers")
    print(f"one task: {IMAGES} images, {CALIBRATION} for recalibration, {TIMES} times, 3 compensations: {task_s / 3600:.2f} h")
    print(f"{CHIPS:,} chips: {hours:,.0f} core hours; {hours / CORES:,.0f} hours on {CORES:,} cores of this kind")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("network", nargs="?", choices=NETWORKS, help="all of them by default")
    parser.add_argument("--images", type=int, default=8)
    parser.add_argument("--one-core", action="store_true")
    arguments = parser.parse_args()
    if arguments.one_core:
        study_cost(arguments.images)
    elif arguments.network:
        from_a_file(arguments.network, arguments.images)
    else:
        for name in NETWORKS:
            print(f"\n{name}", flush=True)
            command = [sys.executable, "-m", "validation.experiments.imagenet", name, "--images", str(arguments.images)]
            subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
