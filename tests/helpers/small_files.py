"""Small data files in the genuine formats, made for the tests."""

import gzip
import io
import pickle
import tarfile
import zipfile

import numpy as np

from pcmref import draws

RECIPE = """
network = "resnet8"
data = "fashion-mnist"
[[stage]]
name = "first"
epochs = 2
batch_size = 8
validation = 8
[[stage]]
name = "second"
epochs = 2
batch_size = 8
eta = 0.038
alpha = 2.0
"""


def pixels(name: str, *shape: int) -> np.ndarray:
    return draws.integers(0, f"test/{name}", 256, shape).astype(np.uint8)


def labels(name: str, n: int) -> np.ndarray:
    return (draws.integers(0, f"test/{name}/labels", 10, (n,))).astype(np.uint8)


def idx(array: np.ndarray) -> bytes:
    return bytes((0, 0, 8, array.ndim)) + b"".join(n.to_bytes(4, "big") for n in array.shape) + array.tobytes()


def write_fashion_mnist(folder, n_train=40, n_test=12, zipped=True):
    """The four IDX files; returns (train images, train labels, test images, test labels)."""
    arrays = (
        pixels("train", n_train, 28, 28),
        labels("train", n_train),
        pixels("test", n_test, 28, 28),
        labels("test", n_test),
    )
    names = [f"{p}-{w}-ubyte" for p in ("train", "t10k") for w in ("images-idx3", "labels-idx1")]
    for name, array in zip(names, arrays, strict=True):
        content = idx(array)
        (folder / (name + ".gz" * zipped)).write_bytes(gzip.compress(content) if zipped else content)
    return arrays


def cifar_batches(n=6):
    """{batch: (pixels [n, 3072] channel by channel, labels [n])} of a small CIFAR-10."""
    return {b: (pixels(b, n, 3072), labels(b, n)) for b in [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]}


def cifar_binary(batches) -> dict[str, bytes]:
    """The batches as the official binary version has them."""
    return {f"{b}.bin": np.concatenate([y[:, None], x], 1).tobytes() for b, (x, y) in batches.items()}


def _python2_array(x: np.ndarray) -> bytes:
    """A uint8 array as Python 2 with NumPy pickled it: protocol 2, byte strings, numpy.core.multiarray._reconstruct."""

    def text(value: bytes) -> bytes:
        return b"U" + bytes([len(value)]) + value if len(value) < 256 else b"T" + len(value).to_bytes(4, "little") + value

    def number(value: int) -> bytes:
        return b"J" + value.to_bytes(4, "little", signed=True)

    array = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n" + number(0) + b"\x85" + text(b"b") + b"tR"
    dtype = b"cnumpy\ndtype\n(" + text(b"u1") + number(0) + number(1) + b"tR("
    dtype += number(3) + text(b"|") + b"NNN" + number(-1) + number(-1) + number(0) + b"tb"
    state = b"(" + number(1) + b"".join(number(n) for n in x.shape) + b"\x86" + dtype + b"\x89" + text(x.tobytes()) + b"tb"
    return array + state


def cifar_python(batches) -> dict[str, bytes]:
    """The batches as the official python version has them: dicts of byte strings, pickled by Python 2."""
    files = {}
    for b, (x, y) in batches.items():
        entries = b"U\x0bbatch_labelU\x04testU\x06labels]("
        entries += b"".join(b"K" + bytes([int(v)]) for v in y) + b"eU\x04data" + _python2_array(x)
        entries += b"U\tfilenames](" + b"U\x05a.pngU\x05b.png" + b"e"
        files[b] = b"\x80\x02}(" + entries + b"u."
        assert set(pickle.loads(files[b], encoding="bytes")) == {b"batch_label", b"labels", b"data", b"filenames"}
    return files


def tar_gz(files: dict[str, bytes], folder: str) -> bytes:
    """The files in a gzipped archive below `folder`, with a readme as the official archives have."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as archive:
        for name, data in (files | {"readme.html": b"<html>"}).items():
            member = tarfile.TarInfo(f"{folder}/{name}")
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return content.getvalue()


def zipped(*names) -> bytes:
    """A zip archive of empty files."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name in names:
            archive.writestr(name, b"")
    return content.getvalue()
