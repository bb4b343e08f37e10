"""Files that hold images in a way that is not read: what each is, and what makes a data set of it."""

import contextlib
import gzip
import zipfile
import zlib
from pathlib import Path

from pcmref.errors import FileError

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
