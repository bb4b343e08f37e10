"""What one task of a large study costs: one chip of ResNet-34 for ImageNet on one core, and from it the whole study.

python validation/experiments/scale.py [--images 4]

Measured on one core: programming, one reading, evaluating an image, recalibrating with one, memory, the bytes that are sent.
Computed: a study of CHIPS chips at five times under all three compensations, with the numbers of images below.
"""

import argparse
import pickle
import time

import numpy as np

import pcmref
from pcmref.cli.bench import peak_kb
from pcmref.study import _Study

CHIPS, TIMES, IMAGES, CALIBRATION = 10_000, 5, 1000, 1280
CORES = 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=4)
    n, took = parser.parse_args().images, {}
    net, model = pcmref.ResNet.imagenet34(), pcmref.PCMModel.joshi2020()
    state = net.init()
    x = pcmref.draws.standard_normal(0, "scale/x", (n, 224, 224, 3)).astype(np.float32)

    def timed(what, task):
        start = time.process_time()
        value = task()
        took[what] = time.process_time() - start
        print(f"{what}: {took[what]:.2f} s", flush=True)
        return value

    chip = timed("program one chip", lambda: pcmref.Chip.program(state, model, workers=1))
    noisy = timed("read it once", lambda: chip.read(86_400.0, workers=1))
    timed(f"evaluate {n} images", lambda: pcmref.predict(net, noisy, x, workers=1))
    timed(f"recalibrate with {n} images", lambda: pcmref.adabs(net, noisy, x, batch_size=n, workers=1))
    print(f"{chip.n_devices:,} devices, at most {peak_kb() / 1024**2:.2f} GB held")
    study = _Study(net, state, model, x, np.zeros(n, int), (20.0,), ("none",), 1, x, 200, 1, None)
    shared_mb = (len(pickle.dumps(study)) - 2 * x.nbytes + (IMAGES + CALIBRATION) * x[0].nbytes) / 1e6
    program, read, evaluate, recalibrate = took.values()
    per_time = read + (3 * IMAGES * evaluate + CALIBRATION * recalibrate) / n
    task_s = program + read + TIMES * per_time
    print(f"sent to each worker once: {shared_mb:,.0f} MB; with each task: a few hundred bytes; back: {3 * TIMES} numbers")
    print(f"one task: {IMAGES} images, {CALIBRATION} for recalibration, {TIMES} times, 3 compensations: {task_s / 3600:.2f} h")
    hours = CHIPS * task_s / 3600
    print(f"{CHIPS:,} chips: {hours:,.0f} core hours; {hours / CORES:,.0f} hours on {CORES:,} cores of this kind")


if __name__ == "__main__":
    main()
