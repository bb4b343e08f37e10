"""Data sets: genuine formats in, clear errors for everything else."""

import gzip
import io
import os
import pickle
import tarfile
import tracemalloc
import zipfile

import numpy as np
import pytest

from pcmref.errors import FileError, ShapeError
from pcmref.files import datasets, foreign
from tests.helpers import small_files as files


@pytest.mark.parametrize("zipped", [True, False])
def test_fashion_mnist(tmp_path, zipped):
    train, train_labels, test, test_labels = files.write_fashion_mnist(tmp_path, zipped=zipped)
    loaded = datasets.load_fashion_mnist(tmp_path)
    assert np.array_equal(loaded.train_images[..., 0], train) and np.array_equal(loaded.test_images[..., 0], test)
    assert np.array_equal(loaded.train_labels, train_labels) and np.array_equal(loaded.test_labels, test_labels)
    assert loaded.mean == pytest.approx([train.mean() / 255], rel=1e-12) and loaded.std == pytest.approx([train.std() / 255])
    x = loaded.normalized(loaded.train_images, np.float64)
    assert x.shape == (40, 28, 28, 1) and abs(x.mean()) < 1e-12 and x.std() == pytest.approx(1)


@pytest.mark.parametrize("version", ["binary", "python"])
@pytest.mark.parametrize("packed", [True, False])
def test_cifar10_in_both_official_formats(tmp_path, version, packed):
    batches = files.cifar_batches()
    contents = files.cifar_binary(batches) if version == "binary" else files.cifar_python(batches)
    path = tmp_path / "cifar"
    if packed:
        path.write_bytes(files.tar_gz(contents, "cifar-10-batches"))
    else:
        path.mkdir()
        for name, content in contents.items():
            (path / name).write_bytes(content)
    loaded = datasets.load_cifar10(path)
    x, y = batches["data_batch_3"]
    assert loaded.train_images.shape == (30, 32, 32, 3) and loaded.test_images.shape == (6, 32, 32, 3)
    assert np.array_equal(loaded.train_images[12:18].transpose(0, 3, 1, 2).reshape(6, -1), x)
    assert np.array_equal(loaded.train_labels[12:18], y) and len(loaded.mean) == 3


def test_normalisation_is_the_formula_for_every_pixel_value():
    images = np.stack([np.arange(256, dtype=np.uint8)] * 2, -1).reshape(1, 16, 16, 2)
    x = datasets.normalize_images(images, (0.2, 0.5), (0.1, 0.3), np.float64)
    assert np.allclose(x, (images / 255 - (0.2, 0.5)) / (0.1, 0.3), rtol=1e-14)
    with pytest.raises(ShapeError, match="uint8"):
        datasets.normalize_images(images / 255, (0.2, 0.5), (0.1, 0.3))


class Malice:
    def __reduce__(self):
        return os.system, ("touch harmed",)


def test_a_python_batch_in_columns_first_order_keeps_its_images(tmp_path):
    batches = files.cifar_batches()
    contents = files.cifar_python(batches)
    x, content = batches["test_batch"][0], contents["test_batch"]
    contents["test_batch"] = content.replace(x.tobytes(), x.tobytes("F")).replace(b"tb\x89T", b"tb\x88T")
    assert np.array_equal(pickle.loads(contents["test_batch"], encoding="bytes")[b"data"], x)
    (tmp_path / "c").write_bytes(files.tar_gz(contents, "x"))
    images = datasets.load_cifar10(tmp_path / "c").test_images
    assert np.array_equal(images.transpose(0, 3, 1, 2).reshape(6, -1), x)


def test_a_data_set_is_told_by_what_the_folder_or_file_holds(tmp_path):
    files.write_fashion_mnist(tmp_path)
    assert datasets.load_dataset(tmp_path).train_images.shape == (40, 28, 28, 1)
    contents = files.cifar_binary(files.cifar_batches())
    (tmp_path / "a.any").write_bytes(files.tar_gz(contents, "cifar-10-batches-bin"))
    (tmp_path / "up" / "cifar-10-batches-bin").mkdir(parents=True)
    for name, content in contents.items():
        (tmp_path / "up" / "cifar-10-batches-bin" / name).write_bytes(content)
    for path in ("a.any", "up", "up/cifar-10-batches-bin"):
        assert datasets.load_dataset(tmp_path / path).name == "cifar-10"
    arrays = {"train_images": files.pixels("a", 9, 8, 8, 3), "train_labels": np.arange(9) % 3}
    arrays |= {"test_images": files.pixels("b", 6, 8, 8, 3), "test_labels": np.arange(6) % 3}
    np.savez(tmp_path / "own.npz", **arrays)
    own = datasets.load_dataset(tmp_path / "own.npz")
    assert own.classes == ("0", "1", "2") and np.array_equal(own.test_images, arrays["test_images"])
    for change, message in (
        ({"train_images": arrays["train_images"] / 255}, "uint8"),
        ({"train_images": arrays["train_images"].transpose(0, 3, 1, 2)}, "size|NCHW"),
        ({k: v.transpose(0, 3, 1, 2) for k, v in arrays.items() if "images" in k}, "NCHW"),
        ({"train_labels": np.arange(8)}, "8 labels for 9 images"),
        ({"test_labels": np.zeros(6)}, "labels"),
        ({"test_labels": np.arange(12).reshape(6, 2)}, "labels"),
    ):
        np.savez(tmp_path / "bad.npz", **arrays | change)
        with pytest.raises(FileError, match=message):
            datasets.load_dataset(tmp_path / "bad.npz")
    np.savez(tmp_path / "bad.npz", a=np.zeros(3))
    for path, message in (("bad.npz", "needs train_images"), ("nothing", "no such"), ("up", "missing")):
        (tmp_path / "up" / "cifar-10-batches-bin" / "test_batch.bin").unlink(missing_ok=True)
        with pytest.raises(FileError, match=message):
            datasets.load_dataset(tmp_path / path)


def test_a_folder_of_images_by_class(tmp_path):
    image = pytest.importorskip("PIL.Image", reason="Pillow is not installed: image folders skipped")
    drawn = files.pixels("folder", 2, 3, 8, 5, 6, 3)  # part, class, image
    for p, part in enumerate(("train", "val")):
        for c, name in enumerate(("cat", "dog", "owl")):
            (tmp_path / part / name).mkdir(parents=True)
            for i in range(8):
                image.fromarray(drawn[p, c, i]).save(tmp_path / part / name / f"{i}.png")
    loaded = datasets.load_dataset(tmp_path)
    assert loaded.classes == ("cat", "dog", "owl") and loaded.train_images.shape == (24, 5, 6, 3)
    for images, labels, part in ((loaded.train_images, loaded.train_labels, 0), (loaded.test_images, loaded.test_labels, 1)):
        assert len(set(labels[:12].tolist())) == 3  # mixed: any longer run of images holds several classes
        assert all(any(np.array_equal(x, y) for y in drawn[part, c]) for x, c in zip(images, labels, strict=True))
    for change, message in (
        (lambda p: image.fromarray(drawn[0, 0, 0][:3]).save(p), "expected .5, 6, 3. as the first one"),
        (lambda p: image.fromarray(drawn[0, 0, 0][..., 0]).save(p), "mode L"),
        (lambda p: image.fromarray(drawn[0, 0, 0]).convert("RGBA").save(p), "mode RGBA"),
        (lambda p: p.write_bytes(b"words"), "not an image"),
        (lambda p: p.write_bytes((tmp_path / "train/cat/1.png").read_bytes()[:60]), "not an image"),
    ):
        change(tmp_path / "train" / "dog" / "x.png")
        with pytest.raises(FileError, match=message):
            datasets.load_dataset(tmp_path)
    (tmp_path / "train" / "dog" / "x.png").unlink()
    for made, message in (("val", "only in val: .'newt'"), ("train", "'newt' holds no images")):
        (tmp_path / made / "newt").mkdir()
        with pytest.raises(FileError, match=message):
            datasets.load_dataset(tmp_path)
    (tmp_path / "val" / "newt").rmdir()
    with pytest.raises(FileError, match="only in train: .'newt'"):
        datasets.load_dataset(tmp_path)
    with pytest.raises(FileError, match="no data set"):
        datasets.load_dataset(tmp_path / "train")


def cifar_error(tmp_path, name, content):
    contents = files.cifar_python(files.cifar_batches()) | {name: content}
    (tmp_path / "c").write_bytes(files.tar_gz(contents, "x"))
    with pytest.raises(FileError) as error:
        datasets.load_cifar10(tmp_path / "c")
    assert name in str(error.value)
    return str(error.value)


def test_a_pickle_runs_no_code(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "system" in cifar_error(tmp_path, "test_batch", pickle.dumps({b"data": Malice()}))
    assert not (tmp_path / "harmed").exists()
    for name in (b"cbuiltins\neval\n(U\x011tR.", b"cnumpy\nload\n(U\x01xtR.", b"cnumpy\nndarray.tofile\n."):
        assert "asks for" in cifar_error(tmp_path, "test_batch", b"\x80\x02" + name)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x80\x02}.",
        b"not a pickle",
        pickle.dumps([1, 2]),
        pickle.dumps({b"data": [1], b"labels": [1]}),
        b"\x80\x02}(U\x04datacnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nJ\xff\xff\xff\x7f\x85U\x01btRU\x06labels](eu.",
        b"\x80\x02}N" + b"2\x86" * 60 + b"K\x01s.",  # a key of nested tuples, two to the power of 60 to hash
        b"\x80\x02(N" + b"2\x86" * 60 + b"K\x01d.",
        b"\x80\x04\x8f(N" + b"2\x86" * 60 + b"\x90.",
        b"\x80\x02}(U\x04datacnumpy\nndarray\n)R(K\x01N" + b"2\x86" * 60 + b"NNU\x00tbU\x06labels](eu.",
        b"\x80\x02r\xff\xff\xff\xff.",  # a memo index of four thousand million
        b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\x7f.",  # bytes that claim to be eight exabytes
        b"\x80\x05\x96\xff\xff\xff\xff\xff\xff\xff\x7f.",  # and as a bytearray
        b"c_codecs\nencode\n(V\\u0101\nVlatin1\ntR.",
        b"c_codecs\nencode\n(Vx\nVrot13\ntR.",
        b"(I1\nI2\nI3\nd.",
    ],
)
def test_a_hostile_batch_is_refused_without_allocating(tmp_path, content):
    cifar_error(tmp_path, "data_batch_2", content)


def test_a_python_batch_with_wrong_labels_is_refused(tmp_path):
    x, y = files.cifar_batches()["test_batch"]
    assert "labels" in cifar_error(tmp_path, "test_batch", files.cifar_python({"test_batch": (x, y + 10)})["test_batch"])
    assert "labels" in cifar_error(tmp_path, "test_batch", files.cifar_python({"test_batch": (x, y[:-1])})["test_batch"])


def test_damaged_cifar_files_are_refused(tmp_path):
    contents = files.cifar_binary(files.cifar_batches())
    (tmp_path / "c").write_bytes(files.tar_gz(contents | {"test_batch.bin": contents["test_batch.bin"][:-1]}, "x"))
    with pytest.raises(FileError, match="whole number of records"):
        datasets.load_cifar10(tmp_path / "c")
    (tmp_path / "c").write_bytes(files.tar_gz({k: v for k, v in contents.items() if "3" not in k}, "x"))
    with pytest.raises(FileError, match="data_batch_3"):
        datasets.load_cifar10(tmp_path / "c")
    (tmp_path / "c").write_bytes(files.tar_gz(contents, "x")[:2000])
    with pytest.raises(FileError, match="c"):
        datasets.load_cifar10(tmp_path / "c")
    with pytest.raises(FileError, match="no such file"):
        datasets.load_cifar10(tmp_path / "nothing")


def test_an_archive_that_declares_too_much_is_refused(tmp_path):
    member = tarfile.TarInfo("test_batch")
    member.size = 1 << 40
    (tmp_path / "c").write_bytes(member.tobuf() + b"\0" * 10_000)
    with pytest.raises(FileError, match="declares"):
        datasets.load_cifar10(tmp_path / "c")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda b: b[:-1], "holds"),
        (lambda b: b + b"\0", "more"),
        (lambda b: b"\0\0\x0d\x03" + b[4:], "not an IDX"),
        (lambda b: b[:7], "not an IDX"),
        (lambda b: b[:4] + b"\xff" * 12 + b[16:], "declares"),
        (lambda b: b[:4] + bytes(4) + b[8:], "declares"),
        (lambda b: b"", "not an IDX"),
    ],
)
@pytest.mark.parametrize("zipped", [True, False])
def test_damaged_idx_files_are_refused(tmp_path, damage, message, zipped):
    files.write_fashion_mnist(tmp_path, zipped=zipped)
    path = tmp_path / ("t10k-images-idx3-ubyte" + ".gz" * zipped)
    content = damage(files.idx(files.pixels("test", 12, 28, 28)))
    path.write_bytes(gzip.compress(content) if zipped else content)
    with pytest.raises(FileError, match=message):
        datasets.load_fashion_mnist(tmp_path)


def test_a_truncated_gzip_and_a_missing_file_are_refused(tmp_path):
    files.write_fashion_mnist(tmp_path)
    path = tmp_path / "train-labels-idx1-ubyte.gz"
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(FileError, match="train-labels"):
        datasets.load_fashion_mnist(tmp_path)
    path.unlink()
    with pytest.raises(FileError, match="train-labels"):
        datasets.load_fashion_mnist(tmp_path)


def test_labels_that_do_not_fit_are_refused(tmp_path):
    files.write_fashion_mnist(tmp_path, zipped=False)
    path = tmp_path / "train-labels-idx1-ubyte"
    for wrong in (files.labels("x", 41), np.full(40, 10, np.uint8)):
        path.write_bytes(files.idx(wrong))
        with pytest.raises(FileError, match="labels"):
            datasets.load_fashion_mnist(tmp_path)


def test_npz_gives_what_was_saved(tmp_path):
    arrays = {"a": np.asfortranarray(np.arange(6.0).reshape(2, 3)), "b": np.array(5, np.uint8), "c": np.zeros((0, 2), ">f4")}
    for save in (np.savez, np.savez_compressed):
        save(tmp_path / "x.npz", **arrays)
        loaded = foreign.read_npz(tmp_path / "x.npz")
        assert all(np.array_equal(loaded[k], arrays[k]) and loaded[k].shape == arrays[k].shape for k in arrays)


def npy(header: str, body: bytes) -> bytes:
    text = header.encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + body


@pytest.mark.parametrize(
    "content",
    [
        npy("{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000,), }", b"0" * 8),
        npy("{'descr': '<f8', 'fortran_order': False, 'shape': (-1,), }", b"0" * 8),
        npy("{'descr': '|O', 'fortran_order': False, 'shape': (1,), }", pickle.dumps([1])),
        npy("{'descr': '<f8', 'fortran_order': False, 'shape': (2,), }", b"0" * 8),
        npy("__import__('os')", b""),
        b"\x93NUMPY\x03\x00",
        b"nothing",
        b"",
    ],
)
def test_a_hostile_npy_is_refused(tmp_path, content):
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.writestr("a.npy", content)
    with pytest.raises(FileError, match="x.npz"):
        foreign.read_npz(tmp_path / "x.npz")


def test_a_decompression_bomb_is_refused_by_its_declared_size(tmp_path):
    content = io.BytesIO()
    np.save(content, np.zeros(300_000))
    with zipfile.ZipFile(tmp_path / "x.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.npy", content.getvalue())
    with pytest.raises(FileError, match="declares over"):
        foreign.read_npz(tmp_path / "x.npz", max_bytes=1_000_000)


def test_what_is_no_zip_is_refused(tmp_path):
    (tmp_path / "x.npz").write_bytes(b"PK nothing")
    with pytest.raises(FileError, match="not a readable"):
        foreign.read_npz(tmp_path / "x.npz")
    with pytest.raises(FileError, match="not a readable"):
        foreign.read_npz(tmp_path / "missing.npz")


@pytest.mark.parametrize(("declared", "message"), [(3 << 30, "declares"), (200 << 20, "holds 0")])
def test_a_header_allocates_nothing_that_is_not_there(tmp_path, declared, message):
    """An IDX file that declares three thousand million bytes, beyond the limit, or two hundred: an error, and no memory."""
    files.write_fashion_mnist(tmp_path, zipped=False)
    (tmp_path / "t10k-images-idx3-ubyte").write_bytes(bytes((0, 0, 8, 3)) + declared.to_bytes(4, "big") + b"\0\0\0\1" * 2)
    tracemalloc.start()
    with pytest.raises(FileError, match=message):
        datasets.load_fashion_mnist(tmp_path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 50e6


def test_damaged_lzma_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.npz", "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("a.npy", npy("{'descr': '<f8', 'fortran_order': False, 'shape': (99,), }", bytes(range(99)) * 8))
    content = bytearray((tmp_path / "x.npz").read_bytes())
    content[60:80] = bytes(20)
    (tmp_path / "x.npz").write_bytes(content)
    with pytest.raises(FileError, match="x.npz"):
        foreign.read_npz(tmp_path / "x.npz")
