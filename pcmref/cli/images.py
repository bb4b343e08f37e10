"""The images of a command: --data, --mean, --std, --images and --calibration, the same wherever a network is evaluated."""

import sys
from typing import NamedTuple

import numpy as np

from pcmref.errors import FileError, SettingError, printable
from pcmref.experiments.tables import counted
from pcmref.files import networks
from pcmref.files.images import Images, in_unit_range, load_images
from pcmref.nn.resnet import predict

CHECKED, ENOUGH = 100, 50  # images that are looked at for chance, and the fewest of which something can be said
SHOWN = 20  # names of classes
SAME = 5e-4  # means and standard deviations are quoted to three digits


FEW = 20  # calibration images; with 10 AdaBS loses up to 6 points on Fashion-MNIST, with 1 from 15 to 60


class Evaluation(NamedTuple):
    """Normalised images [N, H, W, C], their labels, normalised calibration images if there are any; all that in words."""

    x: np.ndarray
    labels: np.ndarray
    calibration: np.ndarray | None
    about: str = ""
    constants: tuple | None = None  # mean and std, where they were normalised


def add_arguments(add, n_images: int = 1000, n_calibration: int = 1280) -> None:
    kinds = "a CIFAR-10 folder or archive, a folder of IDX files or of images by class, an .npz, or a shipped name"
    add("--data", default="fashionmnist-evaluation", help=f"images: {kinds} (default: %(default)s)")
    add_normalisation(add, "the network's, else the data's")
    add("--images", type=int, default=n_images, help="images to evaluate, the first ones; 0 means all (default: %(default)s)")
    drawn = "calibration images for adabs, drawn from the training images and taken as they are, not cropped as in training"
    add("--calibration", type=int, default=n_calibration, help=f"{drawn} (default: %(default)s)")


def add_normalisation(add, default: str) -> None:
    """--mean and --std, which `asked_for` reads."""
    add("--mean", type=float, nargs="+", help=f"of images/255, a number a channel (default: {default})")
    add("--std", type=float, nargs="+", help="of images/255, a number a channel, beside --mean")


def evaluation(arguments, file: networks.NetworkFile, recalibrates: bool) -> Evaluation:
    """What --data holds, as the network takes it; FileError where it does not fit, or has no calibration images to draw."""
    if arguments.images < 0 or arguments.calibration < 0:
        raise SettingError("--images and --calibration must not be negative")
    data = load_images(arguments.data)
    n = min(arguments.images or len(data.images), len(data.images))
    labels = data.labels
    _check_fit(arguments.data, file.net, data.images, labels[:n])
    if n < len(labels) and labels[0] < labels[-1] and (labels[:-1] <= labels[1:]).all():
        _say(f"{arguments.data}: is sorted by class, its first {n} images are of few classes; --images 0 takes all")
    if data.calibration is None and recalibrates:
        raise FileError(
            f"{arguments.data}: adabs needs the array 'calibration' (a few hundred training images, no labels) in this file; "
            "add it, or leave adabs out: --compensations none,gdc"
        )
    constants = _constants(arguments, file, data)
    calibration = None
    if data.calibration is not None:
        calibration = data.normalized(data.drawn_calibration(arguments.calibration), constants)
        if recalibrates and len(calibration) < FEW:
            _say(f"adabs: the statistics of {counted(len(calibration), 'image')} are hardly those of the data: --calibration")
    about = f"images: the first {n:,} of {data.name}, {_normalised(data, constants)}"
    if classes := data.about.get("classes"):
        about += f"; classes by label: {', '.join(classes[:SHOWN])}{', ...' * (len(classes) > SHOWN)}"
    return Evaluation(data.normalized(data.images[:n], constants), labels[:n], calibration, printable(about), constants)


def _normalised(data: Images, constants) -> str:
    if constants is None:
        return "taken as they are"
    mean, std = (np.round(part, 4).tolist() for part in constants)
    return f"normalised by mean {mean}, std {std}"


def say_if_adabs_is_above(software: float, recalibrated: float, evaluation: Evaluation) -> None:
    """A line on stderr where AdaBS is right more often than software by over three standard deviations of such a difference."""
    p = (software + recalibrated) / 2
    if recalibrated - software > 3 * (2 * p * (1 - p) / len(evaluation.x)) ** 0.5:
        _say(
            f"adabs {recalibrated:.1%} is far above software {software:.1%}: the network's own batch norm does not fit these "
            "images, most likely as they are not normalised as in training: look at --mean and --std "
            f"({evaluation.about})"
        )


def say_if_near_chance(network, file: networks.NetworkFile, evaluation: Evaluation) -> None:
    """A line on stderr where the first images cannot be told from guesses: three standard deviations of these, or less."""
    x, labels = evaluation.x[:CHECKED], evaluation.labels[:CHECKED]
    chance, n = 1 / file.net.num_classes, len(x)
    right = (predict(file.net, file.state, x).argmax(1) == labels).mean()
    if n >= ENOUGH and right <= chance + 3 * (chance * (1 - chance) / n) ** 0.5:
        _say(
            f"{network}: in software {right:.1%} of the first {n} images are right, near chance ({chance:.1%}): look at --mean "
            f"and --std and at the order of the classes first ({evaluation.about}); {file.assumed()}"
        )


def asked_for(arguments, channels: int):
    """(mean, std) of --mean and --std, None where neither is given; FileError where they are none."""
    if arguments.mean is None and arguments.std is None:
        return None
    return networks.check_normalisation("--mean and --std", [arguments.mean, arguments.std], channels)


def _constants(arguments, file: networks.NetworkFile, data: Images):
    """(mean, std) to normalise by: --mean and --std, else the network file's, else the data's; said where they differ."""
    asked, channels = asked_for(arguments, file.net.in_channels), data.images.shape[3]
    if data.images.dtype != np.uint8 and not in_unit_range(data.images):
        if asked:
            raise FileError(
                f"{arguments.data}: floating-point images below 0 or above 1 are taken as normalised; --mean and --std are for "
                "uint8, and for images from 0 to 1"
            )
        return None
    theirs = file.about.get("normalisation")
    theirs = theirs and networks.check_normalisation(arguments.network, theirs, channels)
    known = {"--mean and --std": asked, arguments.network: theirs, arguments.data: data.normalisation}
    known = {source: values for source, values in known.items() if values}
    first = next(iter(known), None)
    differ = [s for s, values in known.items() if not np.allclose(values, known[first], rtol=0, atol=SAME)]
    if differ:
        texts = [f"{s}: mean {np.round(m, 4).tolist()}, std {np.round(d, 4).tolist()}" for s, (m, d) in known.items()]
        _say(f"normalised by {texts[0]} (not by {'; '.join(t for t, s in zip(texts, known, strict=True) if s in differ)})")
    if first is None and data.images.dtype != np.uint8:
        _say(f"{arguments.data}: images from 0 to 1 are taken as they are; --mean and --std normalise them")
    return known.get(first)


def _check_fit(data: str, net, images, labels) -> None:
    """FileError where the images' channels or labels are not the network's; --data has a default, so it is named."""
    if images.shape[3] != net.in_channels:
        raise FileError(
            f"{data}: images {images.shape} have {images.shape[3]} channels (last axis), the network takes {net.in_channels}; "
            "--data names your own images"
        )
    if labels.max(initial=0) >= net.num_classes:
        raise FileError(f"{data}: labels must be 0 to {net.num_classes - 1}, got {labels.max()}; --data names your own images")


def _say(text: str) -> None:
    print(printable(text), file=sys.stderr)
