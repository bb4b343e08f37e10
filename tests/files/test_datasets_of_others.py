"""Data sets as people have them: what tools leave in folders, other names and axes, pickles made again, other files."""

import gzip
import pickle

import numpy as np
import pytest

import pcmref
from pcmref.errors import FileError
from pcmref.files import datasets
from tests.helpers import small_files as files


def folder_of(image, tmp_path, classes, *others):
    """Two images a class whose grey is the class's number in `classes`, and other files."""
    for part in ("train", "test"):
        for c, name in enumerate(classes):
            (tmp_path / part / name).mkdir(parents=True)
            for i in range(2):
                image.fromarray(np.full((4, 4), 10 * c + i, np.uint8)).save(tmp_path / part / name / f"{i}.png")
        for name in others:
            (tmp_path / part / name).parent.mkdir(exist_ok=True)
            (tmp_path / part / name).write_bytes(b"no image")
    loaded = datasets.load_dataset(tmp_path)
    assert loaded.classes == classes and np.array_equal(loaded.test_images[:, 0, 0, 0] // 10, loaded.test_labels)


def test_what_systems_and_tools_leave_is_no_class_and_no_image(tmp_path, capsys):
    image = pytest.importorskip("PIL.Image", reason="Pillow is not installed: image folders skipped")
    left = (
        ".ipynb_checkpoints/x.png",
        "__MACOSX/._x.png",
        ".DS_Store",
        "@eaDir/x",
        "cat/.DS_Store",
        "cat/Thumbs.db",
        "#recycle/y",
    )
    folder_of(image, tmp_path, ("cat", "dog", "owl"), *left)
    assert capsys.readouterr().err.endswith("the classes in this order: 0 cat, 1 dog, 2 owl\n")


def test_classes_that_are_numbers_are_in_the_order_of_numbers(tmp_path, capsys):
    image = pytest.importorskip("PIL.Image", reason="Pillow is not installed: image folders skipped")
    folder_of(image, tmp_path, tuple(map(str, range(12))))
    assert "9 9, 10 10, 11 11" in capsys.readouterr().err


def test_medmnists_arrays_are_read(tmp_path):
    """Grey images have no axis of channels, labels have one too many."""
    images, labels = files.pixels("med", 8, 5, 5), np.arange(8, dtype=np.uint8)[:, None] % 3
    arrays = {f"{part}_images": images for part in ("train", "val", "test")}
    np.savez(tmp_path / "m.npz", **arrays | {f"{part}_labels": labels for part in ("train", "val", "test")})
    loaded = datasets.load_dataset(tmp_path / "m.npz")
    assert np.array_equal(loaded.train_images[..., 0], images) and loaded.test_labels.tolist() == labels[:, 0].tolist()


def test_idx_files_may_have_a_dot_in_their_names(tmp_path):
    train, *_ = files.write_fashion_mnist(tmp_path, zipped=False)
    for path in list(tmp_path.iterdir()):
        path.rename(tmp_path / path.name.replace("-idx", ".idx"))
    for load in (datasets.load_fashion_mnist, datasets.load_dataset):
        assert np.array_equal(load(tmp_path).train_images[..., 0], train)


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("key", [str, str.encode])
def test_batches_that_were_pickled_again_are_read(tmp_path, protocol, key):
    batches = files.cifar_batches()
    for b, (x, y) in batches.items():
        for pixels in (x, np.asfortranarray(x), np.frombuffer(x.tobytes(), np.uint8).reshape(x.shape)):  # the last: read-only
            batch = {key("data"): pixels, key("labels"): y.tolist(), key("batch_label"): b"one", key("filenames"): [b"a", "b"]}
            (tmp_path / b).write_bytes(pickle.dumps(batch, protocol))
    loaded = datasets.load_dataset(tmp_path)
    assert np.array_equal(loaded.test_images.transpose(0, 3, 1, 2).reshape(6, -1), batches["test_batch"][0])
    assert np.array_equal(loaded.test_labels, batches["test_batch"][1])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\x93NUMPY\1\0", "numpy.savez"),
        (b"MATLAB 5.0 MAT-file", "scipy.io.loadmat"),
        (b"PAR1", "pandas.read_parquet"),
        (b"\x89HDF\r\n\x1a\n", "HDF5 file of other software"),
        (b"\x89PNG\r\n", "one image"),
        (b"\0\0\x08\3", "name the folder in which they are"),
        (gzip.compress(b"\0\0\x08\3", mtime=0), "name the folder in which they are"),
        (pickle.dumps({b"data": 3}), "name the folder in which they are"),
        (b"7z\xbc\xaf", "unpack it"),
        (files.zipped("cifar/train/cat/1.png"), "a zip archive of other files .'cifar/train/cat/1.png'.; unpack it"),
        (files.zipped("archive/data.pkl"), "a PyTorch file"),
    ],
)
def test_files_that_hold_images_in_another_way_are_named(tmp_path, content, message):
    (tmp_path / "x").write_bytes(content)
    for load in (datasets.load_dataset, pcmref.load_images):
        with pytest.raises(FileError, match=message):
            load(tmp_path / "x")
