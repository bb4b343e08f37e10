"""ResNet-34 for ImageNet on a chip, end to end, inside 8 GB: program every weight, read at one day, classify 224x224 images.

    python validation/experiments/imagenet34.py [--images 8]

The weights are initial ones (no trained ones are shipped) and the images are noise: this is about time and memory, and
about the whole path at this size. The process may not map more than 8 GB; it reports the most that it held.
"""

import argparse
import json
import resource
import time
from pathlib import Path

import numpy as np

import pcmref
from pcmref import store
from pcmref.cli.bench import machine, peak_kb

LIMIT_BYTES = 8 * 1024**3
RESULT = Path(__file__).parents[1] / "results" / "imagenet34.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=8)
    n_images = parser.parse_args().images
    resource.setrlimit(resource.RLIMIT_AS, (LIMIT_BYTES, LIMIT_BYTES))
    net, took = pcmref.ResNet.imagenet34(), {}

    def timed(what, task):
        start = time.perf_counter()
        value = task()
        took[what] = time.perf_counter() - start
        print(f"{what}: {took[what]:.1f} s", flush=True)
        return value

    state = timed("initial weights", net.init)
    x = pcmref.draws.standard_normal(0, "imagenet34/x", (n_images, 224, 224, 3)).astype(np.float32)
    chip = timed("program", lambda: pcmref.Chip.program(state, pcmref.PCMModel.joshi2020()))
    at_one_day = timed("read at 1 day with GDC", lambda: chip.read(86_400.0, gdc=True))
    logits = timed(f"classify {n_images} images of 224x224", lambda: pcmref.predict(net, at_one_day, x))
    assert logits.shape == (n_images, 1000) and np.isfinite(logits).all()
    peak_gb = peak_kb() / 1024**2
    print(f"{chip.n_devices:,} devices; at most {peak_gb:.2f} GB held, of 8 GB allowed")
    report = {"devices": chip.n_devices, "seconds": took, "peak_gb": peak_gb, "images": n_images, "machine": machine(None, [])}
    with store.replacing(RESULT) as temporary:
        temporary.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
