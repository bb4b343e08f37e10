"""Data sets: Fashion-MNIST (IDX files), CIFAR-10 (both official formats) and one's own arrays (.npz).

Images are uint8 [N, H, W, C] as they come, labels int64 [N]. A data set keeps the mean and standard deviation of its
training images, per channel, and `normalized` applies them. Files from elsewhere are checked against their own headers
and against fixed limits before memory is asked for; what does not fit raises FileError with the file's name.
"""

import gzip
import io
import pickle
import tarfile
import zlib
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np

from pcmref.blocks import blocks_of
from pcmref.errors import FileError, ShapeError
from pcmref.readers import read_up_to
from pcmref.store import size_limit

FASHION_MNIST_CLASSES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip
CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


@dataclass(frozen=True)
class Dataset:
    """Images uint8 [N, H, W, C] and labels int64 [N] for training and test; mean and std of the training images / 255."""

    name: str
    classes: tuple[str, ...]
    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def normalized(self, images: np.ndarray, dtype=np.float32) -> np.ndarray:
        """(images/255 - mean)/std per channel: uint8 [N, H, W, C] -> dtype [N, H, W, C]."""
        return normalize_images(images, self.mean, self.std, dtype)


def normalize_images(images: np.ndarray, mean, std, dtype=np.float32) -> np.ndarray:
    """(images/255 - mean)/std per channel: uint8 [N, H, W, C] -> dtype [N, H, W, C]."""
    images = np.asarray(images)
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != len(mean):
        raise ShapeError(f"images must be uint8 [N, H, W, {len(mean)}], got {images.dtype} {images.shape}")
    levels = (np.arange(256)[:, None] / 255 - np.asarray(mean)) / np.asarray(std)  # [256, C]: every value there is
    levels = levels.astype(dtype)
    return np.stack([levels[:, c][images[..., c]] for c in range(len(mean))], axis=-1)


def image_statistics(images: np.ndarray) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """(mean, std) of images/255 per channel, from exact counts of the 256 values: uint8 [N, H, W, C]."""
    values = np.arange(256) / 255
    slabs = blocks_of(len(images), 1024)  # counting takes eight bytes a value
    counts = [sum(np.bincount(images[s, ..., c].ravel(), minlength=256) for s in slabs) for c in range(images.shape[-1])]
    means = [float(n @ values / n.sum()) for n in counts]
    stds = [float(np.sqrt(n @ (values - m) ** 2 / n.sum())) for n, m in zip(counts, means, strict=True)]
    return tuple(means), tuple(stds)


def _dataset(name, classes, train_images, train_labels, test_images, test_labels) -> Dataset:
    mean, std = image_statistics(train_images)
    if min(std) == 0:
        raise FileError(f"{name}: a channel of the training images is constant; nothing to normalise by")
    return Dataset(name, classes, train_images, train_labels, test_images, test_labels, mean, std)


# ------------------------------------------------------------------------------------------------------ Fashion-MNIST


def _idx(path: Path, ndim: int) -> np.ndarray:
    """A uint8 array from an IDX file, gzipped or not (format: LeCun, http://yann.lecun.com/exdb/mnist)."""
    try:
        with open(path, "rb") as raw:
            zipped = raw.read(2) == b"\x1f\x8b"
        with (gzip.open if zipped else open)(path, "rb") as file:
            header = file.read(4 + 4 * ndim)
            if header[:4] != bytes((0, 0, 8, ndim)) or len(header) < 4 + 4 * ndim:
                raise FileError(f"{path}: not an IDX file of unsigned bytes with {ndim} dimensions (header {header[:4].hex()})")
            shape = tuple(int(v) for v in np.frombuffer(header[4:], ">u4"))
            if prod(shape) > size_limit(path) or min(shape) == 0:
                raise FileError(f"{path}: its header declares {shape}; expected 1 to {size_limit(path)} values in such a file")
            content = read_up_to(file, prod(shape) + 1)
    except (OSError, EOFError, MemoryError, zlib.error) as error:
        raise FileError(f"{path}: cannot be read: {error}") from error
    if len(content) != prod(shape):
        found = "more" if len(content) > prod(shape) else str(len(content))
        raise FileError(f"{path}: its header declares {shape}, {prod(shape)} bytes, but the file holds {found}")
    return np.frombuffer(content, np.uint8).reshape(shape)


def load_fashion_mnist(folder) -> Dataset:
    """Fashion-MNIST (Xiao et al. 2017) from its four IDX files, gzipped or raw: 60,000 + 10,000 images 28x28x1."""
    arrays = []
    for part in ("train", "t10k"):
        for what, ndim in (("images-idx3-ubyte", 3), ("labels-idx1-ubyte", 1)):
            candidates = [Path(folder) / f"{part}-{what}{ending}" for ending in (".gz", "")]
            path = next((p for p in candidates if p.is_file()), None)
            if path is None:
                raise FileError(f"{folder}: neither {candidates[0].name} nor {candidates[1].name} is there")
            arrays.append(_idx(path, ndim))
        _check_labels(path, len(arrays[-2]), arrays[-1], 10)
        arrays[-2:] = arrays[-2][..., None], arrays[-1].astype(np.int64)
    if arrays[0].shape[1:] != arrays[2].shape[1:]:
        raise FileError(f"{folder}: training images {arrays[0].shape[1:]} and test images {arrays[2].shape[1:]} differ in size")
    return _dataset("fashion-mnist", FASHION_MNIST_CLASSES, *arrays)


def _check_labels(path, n_images: int, labels: np.ndarray, classes: int) -> None:
    if len(labels) != n_images:
        raise FileError(f"{path}: {len(labels)} labels for {n_images} images")
    if len(labels) == 0 or labels.min() < 0 or labels.max() >= classes:
        raise FileError(f"{path}: labels must lie in 0..{classes - 1} and there must be some")


# ---------------------------------------------------------------------------------------------------------- CIFAR-10

_RECORD = 1 + 3 * 32 * 32  # binary format: a label, then 1,024 red, green and blue values each, row by row
_PYTHON_PARTS = [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]
_BATCH_LIMIT = 64 << 20  # bytes of one batch file; the official ones have 31 million


def load_cifar10(path) -> Dataset:
    """CIFAR-10 (Krizhevsky 2009) from its archive or unpacked folder, "binary" or "python" version: images 32x32x3.

    The python version's pickles are read by an unpickler that knows arrays, dtypes and plain containers and nothing else.
    """
    path = Path(path)
    try:
        files = _tar_members(path) if path.is_file() else _folder_members(path)
    except Exception as error:  # whatever hostile headers make tarfile raise
        raise FileError(f"{path}: cannot be read: {error}") from error
    batches = []
    for part in _PYTHON_PARTS:
        if f"{part}.bin" in files:
            batches.append(_cifar_binary(f"{path}: {part}.bin", files[f"{part}.bin"]))
        elif part in files:
            batches.append(_cifar_pickle(f"{path}: {part}", files[part]))
        else:
            raise FileError(f"{path}: {part} (python version) or {part}.bin (binary version) is missing")
    images, labels = zip(*batches, strict=True)
    train = np.concatenate(images[:-1]), np.concatenate(labels[:-1])
    return _dataset("cifar-10", CIFAR10_CLASSES, *train, images[-1], labels[-1])


def _wanted(name: str) -> bool:
    return name.removesuffix(".bin") in _PYTHON_PARTS


class _Member(tarfile.TarInfo):
    """A header whose size is checked before anything of that size is read or skipped."""

    @classmethod
    def frombuf(cls, buf, encoding, errors):
        member = super().frombuf(buf, encoding, errors)
        if not 0 <= member.size <= (_BATCH_LIMIT if member.isreg() else 1 << 16):  # names and extended headers
            raise FileError(f"an archive member declares {member.size} bytes; refused")
        return member


def _tar_members(path: Path) -> dict[str, bytes]:
    """The batch files of an archive, gzipped or not, by file name; nothing is unpacked to disk."""
    files = {}
    with open(path, "rb") as raw:
        zipped = raw.read(2) == b"\x1f\x8b"
    with tarfile.open(path, "r:gz" if zipped else "r:", tarinfo=_Member) as archive:
        for n_before, member in enumerate(archive):
            name = member.name.rsplit("/", 1)[-1]
            if member.sparse is not None or not 0 <= member.size <= _BATCH_LIMIT or n_before >= 1000 or name in files:
                raise FileError(f"a batch twice, sparse or of over {_BATCH_LIMIT} bytes, or over 1,000 members; refused")
            if archive.offset > size_limit(path):
                raise FileError(f"declares over {size_limit(path)} bytes; refused")
            if member.isfile() and _wanted(name):
                files[name] = archive.extractfile(member).read()
    return files


def _folder_members(path: Path) -> dict[str, bytes]:
    if not path.is_dir():
        raise FileError(f"{path}: no such file or folder")
    found = [p for p in sorted(path.iterdir()) if p.is_file() and _wanted(p.name)]
    for p in found:
        if p.stat().st_size > _BATCH_LIMIT:
            raise FileError(f"{p}: has {p.stat().st_size} bytes; refused above {_BATCH_LIMIT}")
    return {p.name: p.read_bytes() for p in found}


def _cifar_binary(where: str, content: bytes) -> tuple[np.ndarray, np.ndarray]:
    if not content or len(content) % _RECORD:
        raise FileError(f"{where}: {len(content)} bytes is not a whole number of records of {_RECORD}")
    records = np.frombuffer(content, np.uint8).reshape(-1, _RECORD)
    return _cifar_arrays(where, records[:, 1:], records[:, 0])


def _cifar_arrays(where: str, pixels: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    _check_labels(where, len(pixels), labels, 10)
    images = pixels.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)  # [N, 3, 32, 32] -> [N, 32, 32, 3]
    return np.ascontiguousarray(images), labels.astype(np.int64)


class _PickledDtype:
    """Stands in for numpy.dtype while a batch is read: remembers its code."""

    def __init__(self, code=None, *_):
        self.code = code

    def __setstate__(self, state):
        pass


class _PickledArray:
    """Stands in for numpy.ndarray while a batch is read: remembers shape, dtype and bytes, allocates nothing."""

    def __init__(self, *_):
        self.shape, self.code, self.content = None, None, None

    def __setstate__(self, state):
        _version, self.shape, dtype, _fortran_order, self.content = state
        self.code = getattr(dtype, "code", None)

    def is_uint8(self) -> bool:
        return isinstance(self.code, bytes | str) and self.code in (b"u1", "u1")


class _Entries(dict):
    """A dict whose keys are texts: a key of nested tuples could take for ever to hash."""

    def __setitem__(self, key, value):
        if not isinstance(key, bytes | str):
            raise pickle.UnpicklingError("a dict's key is no text")
        super().__setitem__(key, value)


class _BatchUnpickler(pickle._Unpickler):  # the pure-Python one: its memo cannot be made to allocate by an index
    """Lists, tuples, dicts of texts, numbers, strings, and arrays as _PickledArray; any other name or opcode is refused."""

    dispatch = dict(pickle._Unpickler.dispatch)
    dispatch[pickle.EMPTY_DICT[0]] = lambda self: self.append(_Entries())
    dispatch[pickle.FRAME[0]] = lambda self: self.read(8)  # a frame is only a hint how to read
    for opcode in (pickle.DICT, pickle.EMPTY_SET, pickle.ADDITEMS, pickle.FROZENSET):  # these would hash what they are given
        del dispatch[opcode[0]]
    del dispatch[pickle.BYTEARRAY8[0]]  # would allocate what it declares

    ADMITTED = {
        ("numpy.core.multiarray", "_reconstruct"): _PickledArray,
        ("numpy._core.multiarray", "_reconstruct"): _PickledArray,
        ("numpy", "ndarray"): _PickledArray,
        ("numpy", "dtype"): _PickledDtype,
    }

    def find_class(self, module, name):
        if (module, name) not in self.ADMITTED:
            raise pickle.UnpicklingError(f"the pickle asks for {module}.{name}, which a CIFAR-10 batch does not need")
        return self.ADMITTED[module, name]


class _Counted(io.BytesIO):
    """Bytes that can be read from a limited number of times: every opcode of a pickle is a read."""

    n_reads = 0

    def read(self, size=-1, /):
        self.n_reads += 1
        if self.n_reads > 1_000_000:  # the official ones take about 100,000
            raise pickle.UnpicklingError("over a million opcodes")
        return super().read(size)


def _cifar_pickle(where: str, content: bytes) -> tuple[np.ndarray, np.ndarray]:
    try:
        batch = _BatchUnpickler(_Counted(content), encoding="bytes").load()
        entries = {k.decode() if isinstance(k, bytes) else k: v for k, v in batch.items()}
        data, labels = entries["data"], entries["labels"]
        if type(data) is not _PickledArray or type(data.content) is not bytes or not data.is_uint8():
            raise FileError(f"{where}: 'data' must be an array of uint8")
        n, rest = divmod(len(data.content), _RECORD - 1)
        if (
            rest
            or type(data.shape) is not tuple
            or [type(v) for v in data.shape] != [int, int]
            or data.shape != (n, _RECORD - 1)
        ):
            raise FileError(f"{where}: 'data' must be [N, 3072] and have as many bytes, it has {len(data.content)}")
        if type(labels) is not list or not all(type(v) is int and 0 <= v < 10 for v in labels):
            raise FileError(f"{where}: 'labels' must be a list of whole numbers 0 to 9")
    except FileError:
        raise
    except Exception as error:  # whatever hostile bytes make the unpickler raise
        raise FileError(f"{where}: not a CIFAR-10 python batch: {type(error).__name__}: {error}") from error
    return _cifar_arrays(where, np.frombuffer(data.content, np.uint8).reshape(n, -1), np.array(labels, np.int64))
