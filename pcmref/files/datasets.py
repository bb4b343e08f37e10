"""Data sets: IDX files (Fashion-MNIST, MNIST), CIFAR-10 (both official formats), image folders and arrays (.npz).

Images are uint8 [N, H, W, C] as they come, labels int64 [N]. A data set keeps the mean and standard deviation of its
training images, per channel, and `normalized` applies them. Files from elsewhere are checked against their own headers
and against fixed limits before memory is asked for; what does not fit raises FileError with the file's name.
"""

import contextlib
import gzip
import io
import pickle
import sys
import tarfile
import warnings
import zipfile
import zlib
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np

from pcmref import draws
from pcmref.errors import FileError, MissingExtraError, ShapeError, printable
from pcmref.files.foreign import read_npz, read_up_to
from pcmref.store import MAX_BYTES, size_limit
from pcmref.threads import chunks_of

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
    slabs = chunks_of(len(images), 1024)  # counting takes eight bytes a value
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
    return _load_idx(Path(folder), "fashion-mnist", FASHION_MNIST_CLASSES)


def _load_idx(folder: Path, name: str, classes: tuple[str, ...]) -> Dataset:
    arrays = []
    for part in ("train", "t10k"):
        for what, ndim in (("images{}idx3-ubyte", 3), ("labels{}idx1-ubyte", 1)):
            candidates = [folder / f"{part}-{what.format(dot)}{ending}" for ending in (".gz", "") for dot in "-."]
            path = next((p for p in candidates if p.is_file()), None)
            if path is None:
                raise FileError(f"{folder}: neither {candidates[0].name} nor {candidates[2].name} is there")
            arrays.append(_idx(path, ndim))
        _check_labels(path, len(arrays[-2]), arrays[-1], len(classes))
        arrays[-2:] = arrays[-2][..., None], arrays[-1].astype(np.int64)
    if arrays[0].shape[1:] != arrays[2].shape[1:]:
        raise FileError(f"{folder}: training images {arrays[0].shape[1:]} and test images {arrays[2].shape[1:]} differ in size")
    return _dataset(name, classes, *arrays)


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
            where = f"{path}: {part}"
            batches.append(_cifar_arrays(where, *read_batch(where, files[part])))
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


# --------------------------------------------------------------------------------------- CIFAR-10's python version: its pickles

PIXELS = 3 * 32 * 32


class _PickledDtype:
    """Stands in for numpy.dtype while a batch is read: remembers its code."""

    def __init__(self, code=None, *_):
        self.code = code

    def __setstate__(self, state):
        pass


class _PickledArray:
    """Stands in for numpy.ndarray while a batch is read: remembers shape, dtype and bytes, allocates nothing."""

    def __init__(self, *_):
        self.shape, self.code, self.columns_first, self.content = None, None, False, None

    def __setstate__(self, state):
        _version, self.shape, dtype, self.columns_first, self.content = state
        self.code = getattr(dtype, "code", None)

    @classmethod
    def of_buffer(cls, content, dtype, shape, order="C"):
        """As protocol 5 has arrays."""
        array = cls()
        array.__setstate__((1, shape, dtype, order == "F", content))
        return array

    def is_uint8(self) -> bool:
        return isinstance(self.code, bytes | str) and self.code in (b"u1", "u1")


class _Entries(dict):
    """A dict whose keys are texts: a key of nested tuples could take for ever to hash."""

    def __setitem__(self, key, value):
        if not isinstance(key, bytes | str):
            raise pickle.UnpicklingError("a dict's key is no text")
        super().__setitem__(key, value)


def _encoded(text, encoding):
    """As protocols 0 to 2 of Python 3 have byte strings."""
    if type(text) is not str or encoding not in ("latin1", b"latin1"):
        raise pickle.UnpicklingError("a byte string that is no latin1")
    return text.encode("latin1")


class _BatchUnpickler(pickle._Unpickler):  # the pure-Python one: its memo cannot be made to allocate by an index
    """Lists, tuples, dicts of texts, numbers, strings, and arrays as _PickledArray; any other name or opcode is refused."""

    dispatch = dict(pickle._Unpickler.dispatch)
    dispatch[pickle.EMPTY_DICT[0]] = lambda self: self.append(_Entries())
    dispatch[pickle.FRAME[0]] = lambda self: self.read(8)  # a frame is only a hint how to read
    for opcode in (pickle.EMPTY_SET, pickle.ADDITEMS, pickle.FROZENSET):  # these would hash what they are given
        del dispatch[opcode[0]]

    def load_dict(self):
        items, entries = self.pop_mark(), _Entries()
        for key, value in zip(items[::2], items[1::2], strict=True):
            entries[key] = value
        self.append(entries)

    def load_bytearray8(self):  # the library's would allocate what it declares
        self.append(self.read(int.from_bytes(self.read(8), "little")))

    dispatch[pickle.DICT[0]], dispatch[pickle.BYTEARRAY8[0]] = load_dict, load_bytearray8

    ADMITTED = {
        ("numpy.core.multiarray", "_reconstruct"): _PickledArray,
        ("numpy._core.multiarray", "_reconstruct"): _PickledArray,
        ("numpy", "ndarray"): _PickledArray,
        ("numpy", "dtype"): _PickledDtype,
        ("numpy.core.numeric", "_frombuffer"): _PickledArray.of_buffer,
        ("numpy._core.numeric", "_frombuffer"): _PickledArray.of_buffer,
        ("_codecs", "encode"): _encoded,
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


def read_batch(where: str, content: bytes) -> tuple[np.ndarray, np.ndarray]:
    """(pixels uint8 [N, 3072], labels int64 [N]) of one batch file of the python version; FileError, which names `where`."""
    try:
        batch = _BatchUnpickler(_Counted(content), encoding="bytes").load()
        entries = {k.decode() if isinstance(k, bytes) else k: v for k, v in batch.items()}
        data, labels = entries["data"], entries["labels"]
        if type(data) is not _PickledArray or type(data.content) is not bytes or not data.is_uint8():
            raise FileError(f"{where}: 'data' must be an array of uint8")
        n, rest = divmod(len(data.content), PIXELS)
        if rest or type(data.shape) is not tuple or [type(v) for v in data.shape] != [int, int] or data.shape != (n, PIXELS):
            raise FileError(f"{where}: 'data' must be [N, 3072] and have as many bytes, it has {len(data.content)}")
        if type(labels) is not list or not all(type(v) is int and 0 <= v < 10 for v in labels):
            raise FileError(f"{where}: 'labels' must be a list of whole numbers 0 to 9")
    except FileError:
        raise
    except Exception as error:  # whatever hostile bytes make the unpickler raise
        raise FileError(f"{where}: not a CIFAR-10 python batch: {type(error).__name__}: {error}") from error
    order = "F" if data.columns_first is True else "C"
    return np.frombuffer(data.content, np.uint8).reshape((n, PIXELS), order=order), np.array(labels, np.int64)


# ---------------------------------------------------------------------------------------------- one's own, and which it is


def is_archive(path) -> bool:
    """Whether a file begins as a tar archive does, gzipped or not."""
    with open(path, "rb") as file:
        head = file.read(262)
    return head[:2] == b"\x1f\x8b" or head[257:] == b"ustar"


def load_dataset(path) -> Dataset:
    """A data set told by content: CIFAR-10 (archive or folder), four IDX files, a folder of images by class, or an .npz.

    The images lie in FOLDER/train/CLASS/ and FOLDER/test/CLASS/ (or val), read through Pillow; the .npz holds train_images,
    train_labels, test_images and test_labels, uint8 [N, H, W, C] or [N, H, W] and whole numbers [N] or [N, 1] (MedMNIST).
    """
    path = Path(path)
    if not path.exists():
        raise FileError(f"{path}: no such file or folder")
    if path.is_file():
        check_kind(path)
        return load_cifar10(path) if is_archive(path) else _load_arrays(path)
    names = {p.name for p in path.iterdir()}
    inner = names & {"cifar-10-batches-py", "cifar-10-batches-bin"}  # the folder they were unpacked into
    if any(map(_wanted, names)) or inner:
        return load_cifar10(path / min(inner) if inner else path)
    if any(name.startswith(("train-images-idx3-ubyte", "train-images.idx3-ubyte")) for name in names):
        return _load_idx(path, path.resolve().name, tuple("0123456789"))
    return load_image_folder(path)


def _load_arrays(path: Path) -> Dataset:
    arrays = read_npz(path)
    parts = [arrays.get(f"{part}_{what}") for part in ("train", "test") for what in ("images", "labels")]
    if any(part is None for part in parts):
        raise FileError(f"{path}: has {sorted(arrays)}, needs train_images, train_labels, test_images and test_labels")
    parts[::2] = [x[..., None] if x.ndim == 3 else x for x in parts[::2]]
    parts[1::2] = map(flat_labels, parts[1::2])
    n_classes = 1 + max(int(y.max(initial=0)) if y.dtype.kind in "iu" else 65_536 for y in parts[1::2])
    for x, y in (parts[:2], parts[2:]):
        if x.dtype != np.uint8 or x.ndim != 4 or y.ndim != 1 or y.dtype.kind not in "iu" or x.shape[1:] != parts[0].shape[1:]:
            got = f"{x.dtype} {x.shape} and {y.dtype} {y.shape}"
            raise FileError(f"{path}: images must be uint8 [N, H, W, C] of one size, labels integers [N]; got {got}")
        check_layout(path, x)
        _check_labels(path, len(x), y, min(n_classes, 65_536))
    train, train_labels, test, test_labels = parts
    classes = tuple(map(str, range(n_classes)))
    return _dataset(path.stem, classes, train, train_labels.astype(np.int64), test, test_labels.astype(np.int64))


def flat_labels(labels: np.ndarray) -> np.ndarray:
    """Labels [N] of labels [N] or [N, 1]."""
    return labels[:, 0] if labels.ndim == 2 and labels.shape[1] == 1 else labels


def check_layout(path, images: np.ndarray) -> None:
    """FileError for a batch [N, C, H, W], told by one or three channels before square images."""
    if images.ndim == 4 and images.shape[1] in (1, 3) and images.shape[2] == images.shape[3] > 4:
        raise FileError(f"{path}: images {images.shape} look like NCHW; images.transpose(0, 2, 3, 1) makes them channels-last")


def load_image_folder(folder) -> Dataset:
    """Images of one size by class, FOLDER/train/CLASS/FILE and FOLDER/test (or val)/CLASS/FILE; needs Pillow (extra `images`).

    Grey images have one channel, all others three. The classes are in the order of their names, of numbers where all names are
    whole numbers, which is said on stderr. The images' order is the draws `images/train` and `images/test`, not that of names.
    """
    folder = Path(folder)
    parts = [next((p for n in names if (p := folder / n).is_dir()), None) for names in (("train",), ("test", "val"))]
    if None in parts:
        raise FileError(
            f"{folder}: no data set: neither CIFAR-10's batches nor IDX files nor images in train/CLASS, test/CLASS"
        )
    classes, tests = ([p.name for p in _shown(part) if p.is_dir()] for part in parts)
    if set(classes) != set(tests) or not classes:
        raise FileError(
            f"{folder}: its two parts must hold the same classes, a folder each; only in {parts[0].name}: "
            f"{sorted(set(classes) - set(tests))[:3]}, only in {parts[1].name}: {sorted(set(tests) - set(classes))[:3]}"
        )
    numbers = all(name.isascii() and name.isdigit() and len(name) < 100 for name in classes)
    classes = tuple(sorted(classes, key=int if numbers else str))
    arrays, like = [], None
    for part, name in zip(parts, ("train", "test"), strict=True):
        files = [(p, c) for c, of in enumerate(classes) for p in _shown(part / of)]
        if empty := [of for c, of in enumerate(classes) if c not in {c for _, c in files}]:
            raise FileError(f"{part}: the class {empty[0]!r} holds no images; add some, or remove its folder from both parts")
        files = [files[i] for i in draws.permutation(0, f"images/{name}", len(files))]
        images = []
        for file, _ in files:
            images.append(_image(file, like, MAX_BYTES // (3 * len(files))))
            like = images[0] if like is None else like
        arrays += [np.stack(images), np.array([c for _, c in files], np.int64)]
    order = [f"{c} {name}" for c, name in enumerate(classes)]
    shown = order if len(order) <= 20 else [*order[:10], "...", order[-1]]
    print(printable(f"{folder}: the classes in this order: {', '.join(shown)}"), file=sys.stderr)
    return _dataset(folder.resolve().name, classes, *arrays)


def _shown(folder: Path) -> list[Path]:
    """What lies in a folder, by name, without what systems and tools put there."""
    hidden = {"__macosx", "__pycache__", "lost+found", "$recycle.bin", "system volume information", "thumbs.db", "desktop.ini"}
    return [p for p in sorted(folder.iterdir()) if not p.name.startswith((".", "@", "#")) and p.name.lower() not in hidden]


def _image(path: Path, like: np.ndarray | None, limit: int) -> np.ndarray:
    """uint8 [H, W, C] of an image file, of the size and channels of `like`; sizes are compared before the pixels are read."""
    try:
        from PIL import Image
    except ImportError as error:
        raise MissingExtraError("reading image files needs Pillow: pip install 'pcmref[images]'") from error
    modes = {"1": "L", "L": "L", "RGB": "RGB", "P": "RGB"}
    try:
        with warnings.catch_warnings(action="error"), Image.open(path) as image:
            shape = (image.height, image.width, {"L": 1, "RGB": 3}.get(modes.get(image.mode)))
            if shape[2] is None or (like is not None and shape != like.shape) or shape[0] * shape[1] > limit:
                wanted = "grey or colours without transparency" if like is None else f"{like.shape} as the first one"
                raise FileError(f"{path}: is {shape[:2]}, mode {image.mode}; expected {wanted}: write all in one size and mode")
            return np.asarray(image.convert(modes[image.mode])).reshape(shape)
    except FileError:
        raise
    except Exception as error:  # whatever hostile bytes make Pillow raise, its warnings included
        raise FileError(f"{path}: not an image that Pillow reads: {error}") from error


# ------------------------------------------------------------------------------------------------------ files that are not read

_OTHERS = {  # beginnings of files that people have images in, and how these become images that are read
    b"\x93NUMPY": "one array (.npy). With its labels: numpy.savez('images.npz', images=numpy.load(FILE), labels=LABELS)",
    b"MATLAB": "a file of MATLAB. As SVHN has it, in Python: d = scipy.io.loadmat(FILE); "
    "numpy.savez('images.npz', images=d['X'].transpose(3, 0, 1, 2), labels=d['y'].ravel() % 10)",
    b"PAR1": "a parquet file. As Hugging Face has CIFAR-10, in Python: d = pandas.read_parquet(FILE); "
    "x = [numpy.array(PIL.Image.open(io.BytesIO(v['bytes']))) for v in d['img']]; "
    "numpy.savez('images.npz', images=x, labels=d['label'])",
    b"\x89HDF": "an HDF5 file of other software: read it with h5py and write images [N, H, W, C] and labels with numpy.savez",
    b"\x89PNG": "one image; a data set is a folder of train/CLASS/FILE and test/CLASS/FILE",
    b"\xff\xd8\xff": "one image; a data set is a folder of train/CLASS/FILE and test/CLASS/FILE",
    b"\0\0\x08": "one of four IDX files; name the folder in which they are",
    b"\x80": "a Python pickle; of CIFAR-10's batches, name the folder in which they are",
} | dict.fromkeys((b"BZh", b"\xfd7zXZ", b"7z\xbc\xaf", b"Rar!", b"(\xb5/\xfd"), "packed; unpack it and name the folder")


def check_kind(path: Path) -> None:
    """FileError where a file is known to hold no data set, with what it is and what makes one of it."""
    with open(path, "rb") as file:
        head = file.read(8)
    if head.startswith(b"PK"):
        names = []
        with contextlib.suppress(Exception), zipfile.ZipFile(path) as archive:  # what is damaged, its reader names
            names = archive.namelist()
        if "data.pkl" in (name.rsplit("/", 1)[-1] for name in names):
            raise FileError(f"{path}: a PyTorch file; in Python: numpy.savez('images.npz', images=X.numpy(), labels=Y.numpy())")
        if names and not any(name.endswith(".npy") for name in names):
            raise FileError(f"{path}: a zip archive of other files ({names[0][:80]!r}); unpack it and name the folder")
    if head.startswith(b"\x1f\x8b"):
        with contextlib.suppress(OSError, EOFError, zlib.error), gzip.open(path) as file:
            head = file.read(3)
    if what := next((what for start, what in _OTHERS.items() if head.startswith(start)), None):
        raise FileError(f"{path}: {what}")
