"""Images to evaluate: a set that ships with pcmref, one's own in an .npz, or the test images of a data set."""

from dataclasses import dataclass

import numpy as np

from pcmref import draws, store
from pcmref.errors import FileError
from pcmref.files import foreign
from pcmref.files.datasets import Dataset, check_kind, check_layout, flat_labels, is_archive, load_dataset, normalize_images
from pcmref.files.networks import check_normalisation, find


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
    (`datasets.load_dataset`) the test images are evaluated; the training images are there for calibration. Raises FileError.

    >>> data = pcmref.load_images("fashionmnist-evaluation")
    >>> data.images.shape, data.labels[:3].tolist(), data.calibration.shape
    ((10000, 28, 28, 1), [9, 2, 1], (2000, 28, 28, 1))
    """
    path = find(name_or_path, folders=True)
    if path.is_file():
        check_kind(path)
    if path.is_dir() or is_archive(path):
        return _of_dataset(load_dataset(path))
    meta, arrays = ({}, foreign.read_npz(path)) if foreign.kind_of(path) == "npz" else store.read(path, "images")
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
