"""How many calibration images: chosen on training images that were held back from training, on chips of their own.

    python -m validation.experiments.calibration_size --data FOLDER [--engine torch]

FOLDER holds CIFAR-10's official files. What the network trained on with noise loses in a day, recalibrated on each number of
images that cifar10.py reports of the test images; calibration images are of those that were trained on. Prints a table.
"""

import argparse
from dataclasses import replace
from functools import cached_property

import numpy as np

import pcmref
from pcmref.experiments import tables
from pcmref.experiments.statistics import spread
from pcmref.files.datasets import load_cifar10
from pcmref.files.images import Images
from validation.experiments import studies
from validation.experiments.cifar10 import CROPPED, DAY_S, MORE, KeptCifar, our_networks
from validation.experiments.measurements import add_engine
from validation.experiments.retention import cell
from validation.experiments.studies import N_CALIBRATION, result_of, study

HELD_BACK = 2_000  # training images, the last ones: the recipe's `validation`
CHIPS, READS = range(10, 20), 5  # cifar10.py's are 0 to 9
SIZES = N_CALIBRATION, MORE


class KeptHeldBack(KeptCifar):
    """What is measured on the training images that were held back."""

    @cached_property
    def evaluation(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        data = load_cifar10(self.folder)
        x = self.images.normalized(data.train_images[-HELD_BACK:], self.constants)
        return x, data.train_labels[-HELD_BACK:], self.calibration_images(self.about["calibration"])

    @cached_property
    def images(self) -> Images:
        data = pcmref.load_images(self.folder)
        return replace(data, calibration=data.calibration[:-HELD_BACK])


def kept(n: int, folder, engine: str) -> KeptHeldBack:
    """Where what is measured with n calibration images is kept."""
    design = {"times_s": [DAY_S], "compensations": ["adabs"], "reads": READS}
    settings = {"calibration": n, "images": HELD_BACK, "held_back": True, "calibrated_on": CROPPED} | design
    found = KeptHeldBack(name_of(n), our_networks()[-1], studies.__file__, engine, **settings)
    found.folder = folder
    return found


def name_of(n: int) -> str:
    return f"calibration-size-{n}"


def table() -> str:
    """What is lost in a day with each number of calibration images: of each reading, and how much less with more."""
    few, many = (result_of(name_of(n)).lost("adabs", DAY_S) for n in SIZES)
    less = spread(few - many)
    head = [[f"recalibrated on {n:,} images" for n in SIZES] + ["the second loses less by"]]
    return tables.markdown([*head, [cell(few), cell(many), tables.mean_cell(less)]])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="folder of CIFAR-10's official files")
    add_engine(parser)
    arguments = parser.parse_args()
    for n in SIZES:
        study(kept(n, arguments.data, arguments.engine), CHIPS)
    print(table())


if __name__ == "__main__":
    main()
