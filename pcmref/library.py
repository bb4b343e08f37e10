"""Networks and images in files: what ships with pcmref, and one's own.

A shipped file lies in `reference_weights/`, beside the package in a checkout and inside it in a wheel.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pcmref import draws, readers, states, store
from pcmref.data import Dataset, check_layout, flat_labels, is_archive, load_dataset, normalize_images
from pcmref.data_kinds import check_kind
from pcmref.errors import FileError, MissingExtraError, PcmrefError, printable
from pcmref.fast.resnet import ResNet
from pcmref.nn.functional import BN_EPS

_FOLDERS = (Path(__file__).parent / "reference_weights", Path(__file__).parent.parent / "reference_weights")


def shipped() -> dict[str, Path]:
    """{name: path} of every shipped file, networks and images."""
    return {path.stem: path for folder in _FOLDERS if folder.is_dir() for path in sorted(folder.glob("*.h5"))}


def find(name_or_path, folders: bool = False) -> Path:
    """The path meant by a shipped name or a path, of a folder too if asked; else FileError, which lists the names."""
    try:
        path = Path(name_or_path)
        if path.is_file() or (folders and path.is_dir()):
            return path
        is_folder = path.is_dir()
    except (OSError, TypeError, ValueError) as error:
        raise FileError(f"{str(name_or_path)[:80]!r} is no shipped name and no path: {error}") from error
    files = shipped()
    if str(name_or_path) in files:
        return files[str(name_or_path)]
    if is_folder:
        raise FileError(f"{path}: is a folder; name a file in it")
    names = ", ".join(sorted(files)) or "none"
    raise FileError(f"{name_or_path}: no such file, and no shipped file of that name; there are {names}")


@dataclass(frozen=True)
class NetworkFile:
    """A network as a file holds it: the architecture, its state, and what the file says about how it was made."""

    net: ResNet
    state: dict[str, np.ndarray]
    about: dict

    def architecture(self) -> str:
        """The network in a line."""
        net = self.net
        kinds = f"{net.block} blocks {net.blocks}, {net.shortcut} shortcuts, batch norm's eps {net.eps:g}"
        return f"stem {net.stem}, widths {net.widths}, {kinds}"

    def assumed(self) -> str:
        """What a state by itself does not say, and how it was taken."""
        net, told = self.net, ["a max-pool after a 7x7 first convolution and after no other"]
        if net.eps == BN_EPS:
            told.append("batch norm's eps 1e-5 (`pcmref import --eps` takes another)")
        if net.block == "bottleneck":
            told.append(
                "the stride of a bottleneck in its 3x3 convolution (torchvision; He et al. 2016 have it in the first 1x1)"
            )
        if net.shortcut == "pad" and "zeros" not in self.about:
            told.append("a shortcut's channels of zeros half before and half behind (`pcmref import --zeros behind`)")
        return f"what no state says is taken as usual: {', '.join(told)}"


def check_normalisation(where, values, channels: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """(mean, std) of images/255 as plain numbers, one a channel; FileError where `values` is no such pair."""
    try:
        mean, std = (tuple(float(v) for v in np.ravel(part)) for part in values)
        fits = len(mean) == len(std) == channels and np.isfinite((mean, std)).all()
    except (TypeError, ValueError, OverflowError):
        fits = False
    if not fits:
        raise FileError(f"{where}: 'mean' and 'std' must be {channels} finite numbers each, one a channel")
    if min(mean) < 0 or max(mean) > 1 or min(std) <= 0 or max(std) > 1:
        raise FileError(
            f"{where}: 'mean' must lie in 0..1 and 'std' in 0..1, above 0: they are of images/255; divide them by 255 where "
            f"they are of pixels from 0 to 255; got {mean} and {std}"
        )
    return mean, std


def save(path, net: ResNet, state: dict, meta: dict | None = None) -> None:
    """Write architecture, state and a description (plain values) to an HDF5 file, atomically; StateError, FileError.

    >>> net = pcmref.ResNet.resnet8()
    >>> pcmref.save("mine.h5", net, net.init(seed=1), {"note": "untrained"})
    """
    net.check_state(state)
    about = meta or {}
    if "normalisation" in about:
        check_normalisation(path, about["normalisation"], net.in_channels)
    store.write(path, "network", {"network": net.config(), "about": about}, state)


def read_network(name_or_path, zeros_behind: bool = False) -> NetworkFile:
    """A network from a shipped name, a file of `save`, or a state in a file of others (architecture from its shapes).

    PyTorch's files, safetensors and .npz are told by content. What was renamed or left out is said on stderr. `zeros_behind` is
    for `states.read_state`. FileError.
    """
    path = find(name_or_path)
    try:
        if readers.kind_of(path) != "pcmref":
            state, said = states.read_state(path, zeros_behind)
            net, about = ResNet.of_state(state), {}
            if said:
                print(printable(f"{path}: {said}"), file=sys.stderr)
        else:
            meta, state = store.read(path, "network")
            config, about = meta.get("network"), meta.get("about", {})
            if not isinstance(config, dict) or not isinstance(about, dict):
                raise FileError(f"{path}: the description lacks 'network' or 'about'")
            net = ResNet(**{k: tuple(v) if isinstance(v, list) else v for k, v in config.items()})
        if "normalisation" in about:
            check_normalisation(path, about["normalisation"], net.in_channels)
        net.check_state(state)
    except (FileError, MissingExtraError):
        raise
    except (PcmrefError, TypeError) as error:
        raise FileError(f"{path}: does not hold a network: {error}") from error
    return NetworkFile(net, {name: state[name] for name in net.shapes()}, about)


def load(name_or_path) -> tuple[ResNet, dict[str, np.ndarray]]:
    """(net, state) of a shipped network by name, of a file of `save`, or of a state in a file of others; FileError.

    >>> net, state = pcmref.load("resnet8-fashionmnist-noise")
    >>> net.in_channels, net.blocks, state["fc.weight"].shape
    (1, (1, 1, 1), (10, 56))
    """
    file = read_network(name_or_path)
    return file.net, file.state


@dataclass(frozen=True)
class Images:
    """Images to evaluate with their labels, calibration images if there are any, and how to normalise them."""

    name: str
    images: np.ndarray  # uint8 or floating point [N, H, W, C]
    labels: np.ndarray
    calibration: np.ndarray | None
    normalisation: tuple[tuple[float, ...], tuple[float, ...]] | None  # mean, std of images/255
    about: dict

    def normalized(self, images: np.ndarray, constants=None) -> np.ndarray:
        """Images normalised with `constants` (mean, std), else with the file's own: uint8 ones, and others that lie in 0..1.

        Floating-point images outside of it, and those for which there are no constants, are returned unchanged.
        """
        if images.dtype != np.uint8:
            x = images.astype(np.result_type(images.dtype, np.float32), copy=False)
            constants = (constants or self.normalisation) if in_unit_range(images) else None
            if constants is None:
                return x
            mean, std = (np.asarray(part, x.dtype) for part in constants)
            return (x - mean) / std
        if self.normalisation is None and constants is None:
            raise FileError(
                f"{self.name}: uint8 images need the arrays 'mean' and 'std' beside them (of images/255, by channel), "
                "or --mean and --std"
            )
        return normalize_images(images, *(constants or self.normalisation))

    def drawn_calibration(self, n: int) -> np.ndarray:
        """n of the calibration images, by the draws `calibration` of seed 0: a file may be sorted by class."""
        return self.calibration[draws.permutation(0, "calibration", len(self.calibration))[:n]]


def in_unit_range(images: np.ndarray) -> bool:
    """Whether images are pixels/255, which lie in 0..1; normalised ones do not."""
    return images.dtype.kind == "f" and images.min(initial=0) >= 0 and images.max(initial=0) <= 1


def save_images(path, name, images, labels, calibration, mean, std, about: dict) -> None:
    """Write an evaluation set: uint8 images, labels, calibration images, normalisation and its licence, atomically."""
    arrays = {"images": images, "labels": labels.astype(np.uint8), "calibration": calibration}
    meta = {"name": name, "about": about}
    store.write(path, "images", meta, arrays | {"mean": np.asarray(mean), "std": np.asarray(std)})


def load_images(name_or_path) -> Images:
    """Images from a shipped name or an .npz: `images` [N, H, W, C] and `labels` [N]; optionally `calibration`, `mean`, `std`.

    uint8 images are pixels, floating-point ones in 0..1 are pixels/255, others are taken as normalised. Of a data set
    (`data.load_dataset`) the test images are evaluated, and the training images are there for calibration. Raises FileError.

    >>> from pcmref.library import load_images
    >>> data = load_images("fashionmnist-evaluation")
    >>> data.images.shape, data.labels[:3].tolist(), data.calibration.shape
    ((10000, 28, 28, 1), [9, 2, 1], (2000, 28, 28, 1))
    """
    path = find(name_or_path, folders=True)
    if path.is_file():
        check_kind(path)
    if path.is_dir() or is_archive(path):
        return _of_dataset(load_dataset(path))
    meta, arrays = ({}, readers.read_npz(path)) if readers.kind_of(path) == "npz" else store.read(path, "images")
    if "train_images" in arrays:
        return _of_dataset(load_dataset(path))
    missing = {"images", "labels"} - arrays.keys()
    if missing:
        raise FileError(f"{path}: has {sorted(arrays)}, needs the arrays 'images' [N, H, W, C] and 'labels' [N]")
    images, labels, calibration = arrays["images"], flat_labels(arrays["labels"]), arrays.get("calibration")
    for what, value in (("images", images), ("calibration", calibration)):
        _check_pixels(path, what, value)
    if calibration is not None and calibration.shape[1:] != images.shape[1:]:
        raise FileError(f"{path}: 'calibration' {calibration.shape} and 'images' {images.shape} differ in image size")
    if labels.shape != images.shape[:1] or labels.dtype.kind not in "iu" or labels.min() < 0 or labels.max() > 65_536:
        raise FileError(f"{path}: 'labels' must be {len(images)} integers from 0, got {labels.dtype} {labels.shape}")
    normalisation = None
    if "mean" in arrays or "std" in arrays:
        normalisation = check_normalisation(path, [arrays.get(k, ()) for k in ("mean", "std")], images.shape[3])
    name, about = str(meta.get("name", path.stem)), meta.get("about", {})
    return Images(name, images, labels.astype(np.int64), calibration, normalisation, about)


def _of_dataset(data: Dataset) -> Images:
    about = {"classes": list(data.classes)}
    return Images(data.name, data.test_images, data.test_labels, data.train_images, (data.mean, data.std), about)


def _check_pixels(path, what: str, value) -> None:
    if value is None:
        return
    if value.ndim != 4 or 0 in value.shape or (value.dtype != np.uint8 and value.dtype.kind != "f"):
        raise FileError(f"{path}: {what!r} must be uint8 or floating point [N, H, W, C], got {value.dtype} {value.shape}")
    check_layout(f"{path}: {what!r}", value)
    if value.dtype.kind == "f" and not np.isfinite(value).all():
        raise FileError(f"{path}: {what!r} holds NaN or infinity")
    if value.dtype.kind == "f" and value.min() >= 0 and value.max() > 100:
        raise FileError(f"{path}: {what!r} goes up to {value.max():g}: write pixels as uint8, or divide them by 255")
