"""ResNet-34 for ImageNet on a chip: end to end inside 8 GB, or what one task of a study of thousands of chips costs.

    python validation/experiments/imagenet34.py [--images 8]
    python validation/experiments/imagenet34.py --one-core [--images 8]

The weights are initial ones (no trained ones are shipped) and the images are noise: this is about time and memory, and
about the whole path at this size. Without --one-core the process may not map more than 8 GB, and results/imagenet34.json says
how long each step took and how much was held at most. With it each step runs on one core, in CPU seconds, and from them a
study of CHIPS chips is computed, at TIMES times under all three compensations, with the numbers of images below.
"""

import argparse
import json
import pickle
import resource
import time
from pathlib import Path

import numpy as np

import pcmref
from pcmref import store
from pcmref.cli.bench import machine, peak_kb

LIMIT_BYTES = 8 * 1024**3
RESULT = Path(__file__).parents[1] / "results" / "imagenet34.json"
CHIPS, TIMES, IMAGES, CALIBRATION, CORES = 10_000, 5, 1000, 1280, 1000


def run(n: int, workers: int | None, clock) -> tuple[pcmref.Chip, dict[str, float], tuple]:
    """(chip, seconds of each step, what a study of it would begin with): programmed, read after a day, n images classified."""
    net, model, took = pcmref.ResNet.imagenet34(), pcmref.PCMModel.joshi2020(), {}

    def timed(what, task):
        start = clock()
        value = task()
        took[what] = clock() - start
        print(f"{what}: {took[what]:.2f} s", flush=True)
        return value

    state = timed("initial weights", net.init)
    x = pcmref.draws.standard_normal(0, "imagenet34/x", (n, 224, 224, 3)).astype(np.float32)
    chip = timed("program", lambda: pcmref.Chip.program(state, model, workers=workers))
    day = timed("read at 1 day with GDC", lambda: chip.read(86_400.0, gdc=True, workers=workers))
    logits = timed(f"classify {n} images of 224x224", lambda: pcmref.predict(net, day, x, workers))
    assert logits.shape == (n, 1000) and np.isfinite(logits).all()
    if workers == 1:
        timed(f"recalibrate with {n} images", lambda: pcmref.adabs(net, day, x, batch_size=n, workers=1))
    print(f"{chip.n_devices:,} devices; at most {peak_kb() / 1024**2:.2f} GB held")
    return chip, took, (net, state, model, x)


def study_cost(took: dict[str, float], shared: tuple, n: int) -> None:
    """What a study of such chips sends and takes, printed."""
    *fixed, x = shared
    sent_mb = (len(pickle.dumps(fixed)) + (IMAGES + CALIBRATION) * x[0].nbytes) / 1e6
    _, program, read, classify, recalibrate = took.values()
    task_s = program + read + TIMES * (read + (3 * IMAGES * classify + CALIBRATION * recalibrate) / n)
    hours = CHIPS * task_s / 3600
    print(f"sent to each worker once: {sent_mb:,.0f} MB; with each task: a few hundred bytes; back: {3 * TIMES} numbers")
    print(f"one task: {IMAGES} images, {CALIBRATION} for recalibration, {TIMES} times, 3 compensations: {task_s / 3600:.2f} h")
    print(f"{CHIPS:,} chips: {hours:,.0f} core hours; {hours / CORES:,.0f} hours on {CORES:,} cores of this kind")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=8)
    parser.add_argument("--one-core", action="store_true")
    arguments = parser.parse_args()
    if arguments.one_core:
        study_cost(*run(arguments.images, 1, time.process_time)[1:], arguments.images)
        return
    resource.setrlimit(resource.RLIMIT_AS, (LIMIT_BYTES, LIMIT_BYTES))
    chip, took, _ = run(arguments.images, None, time.perf_counter)
    report = {"devices": chip.n_devices, "seconds": took, "peak_gb": peak_kb() / 1024**2, "images": arguments.images}
    with store.replacing(RESULT) as temporary:
        temporary.write_text(json.dumps(report | {"machine": machine(None, [])}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
