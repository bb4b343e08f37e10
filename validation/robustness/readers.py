"""The readers under attack: for each a small sound file, how it is read, and an independent look at what was read.

`check(folder, value)` is called when a reader accepted a file: it reads the same bytes by other means and raises
AssertionError where the value is not what they say.
"""

import gzip
import io
import json
import tarfile
import tomllib
import zipfile
from argparse import Namespace
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory

import h5py
import numpy as np

import pcmref
from pcmref import draws
from pcmref.cli import info
from pcmref.experiments import recipes
from pcmref.experiments.retention import RetentionResult, Row
from pcmref.files import datasets, networks
from pcmref.files.datasets import load_cifar10
from pcmref.files.foreign import read_npz
from pcmref.files.images import Images, load_images, save_images
from pcmref.golden import file as golden_file
from pcmref.golden import report
from pcmref.golden.backends import Capabilities
from pcmref.golden.check import Recorded, check
from pcmref.golden.verify import Verdict
from tests.helpers import small_files

NET = pcmref.ResNet(1, 3, (3, 4), (1, 1))
GOLDEN_CASES = ("conv2d/v1/3x3", "relu_backward/v1/kink", "dac/v1/round_first", "program/v1/law", "sgd_step/v1/")
RECIPE = (Path(__file__).parents[2] / "reference_weights" / "recipes" / "resnet8-fashionmnist.toml").read_bytes()
XFAIL = b"""[[xfail]]
op = "conv2d"
case = "3x3"
reason = "another order of the sums"
issue = "https://example.org/1"
expires = "99.0"
"""


@dataclass(frozen=True)
class Reader:
    """One reader: its kind of file, the sound files by name, the name of the one that is attacked, reading and checking."""

    name: str
    kind: str  # "hdf5", "npz", "idx", "tar", "toml"
    target: str
    sound: Callable[[], dict[str, bytes]]
    load: Callable[[Path], object]
    check: Callable[[Path, object], None]


def _made(name: str, write: Callable[[Path], object]) -> dict[str, bytes]:
    """What `write(path)` writes, as bytes."""
    with TemporaryDirectory() as folder:
        write(Path(folder) / name)
        return {p.name: p.read_bytes() for p in Path(folder).iterdir()}


def _same(a, b) -> None:
    a, b = np.asarray(a), np.asarray(b)
    assert a.shape == b.shape and a.dtype.newbyteorder("=") == b.dtype.newbyteorder("="), (a.dtype, a.shape, b.dtype, b.shape)
    assert np.array_equal(a, b, equal_nan=a.dtype.kind == "f"), "other values than the file's"


def _same_arrays(mine: dict, theirs: dict) -> None:
    assert mine.keys() == theirs.keys()
    for name, value in mine.items():
        _same(value, theirs[name])


# ------------------------------------------------------------------------------------------------------------ our HDF5


def _content(path: Path) -> tuple[dict, dict[str, np.ndarray]]:
    """(meta, arrays) by h5py alone."""
    arrays = {}
    with h5py.File(path, "r") as file:
        file.visititems(lambda name, item: arrays.update({name: item[()]}) if isinstance(item, h5py.Dataset) else None)
        return json.loads(file.attrs["meta"]), arrays


def _check_network(path: Path, read: networks.NetworkFile) -> None:
    meta, arrays = _content(path)
    sizes = {k: tuple(meta["network"][k]) for k in ("widths", "blocks")}
    assert read.net.config() == json.loads(json.dumps(meta["network"])) | sizes
    _check_state(read, arrays)


def _check_state(read: networks.NetworkFile, arrays: dict[str, np.ndarray]) -> None:
    _same_arrays(read.state, arrays)
    assert {name: value.shape for name, value in arrays.items()} == read.net.shapes()
    assert all(np.isfinite(value).all() for value in read.state.values())


def _check_chip(path: Path, chip: pcmref.Chip) -> None:
    meta, arrays = _content(path)
    mine = {"state": chip.state, "g_prog_us": chip.g_prog_us, "nu": chip.nu}
    mine = {f"{part}/{name}": value for part, values in mine.items() for name, value in values.items()}
    _same_arrays(mine, arrays)
    assert chip.seed == meta["seed"] and type(chip.seed) is int
    for name, value in mine.items():
        assert np.isfinite(value).all() and (name[:5] == "state" or value.dtype == np.float64)
    chip.read(86_400.0)


def _check_result(path: Path, result: RetentionResult) -> None:
    meta, arrays = _content(path)
    assert set(arrays) == {"t_s", "chip", "read", "accuracy", "compensation"} and result.name == meta["name"]
    for row, *values in zip(result.rows, *(arrays[k].tolist() for k in ("t_s", "chip", "read", "accuracy")), strict=True):
        assert [*row[2:]] == values and type(row.name) is str and [type(v) for v in values[1:3]] == [int, int]
        assert 0 <= row.accuracy <= 1 and 0 < row.t_s < np.inf and row.chip >= 0
    result.table(), result.summary()


def _check_images(path: Path, images: Images) -> None:
    arrays = _content(path)[1] if path.suffix == ".h5" else _members(path)
    _same(images.images, arrays["images"])
    assert (images.labels == arrays["labels"]).all() and images.images.dtype.kind in "uf"
    assert len(images.labels) == len(images.images) > 0 and np.isfinite(images.images).all()


def _check_golden(path: Path, golden: list) -> None:
    meta, arrays = _content(path)
    assert {g.case.key for g in golden} == meta["cases"].keys()
    groups = {"inputs": lambda g: g.case.inputs, "noise": lambda g: g.case.noise}
    for g in golden:
        for group, of in groups.items():
            for name, value in of(g).items():
                _same(value, arrays[f"cases/{g.case.key}/{group}/{name}"])
        for name, e in g.expected.items():
            _same(e.value, arrays[f"cases/{g.case.key}/expected/{name}"])
            assert e.scale is None or (np.isfinite(e.scale).all() and (e.scale >= 0).all())
            assert 0 < e.u_max <= 1 and e.terms >= 0, (e.u_max, e.terms)
        for law in (g.law or {}).values():
            assert law.location.shape == law.spread.shape and (law.spread >= 0).all()


def _result() -> RetentionResult:
    rows = [Row("n", c, t, k, 0, (k + 1) / 4) for c in ("none", "gdc") for t in (20.0, 3600.0) for k in range(3)]
    return RetentionResult("n", tuple(rows), 0.9, {"n_images": 4})


def _write_golden(path: Path) -> None:
    golden_file.write(path, [g for g in golden_file.read() if g.case.key.startswith(GOLDEN_CASES)])


def _plan() -> recipes.Plan:
    return recipes.Plan("r", "resnet8", "fashion-mnist", {"a": recipes.Recipe(epochs=1, batch_size=8)})


@cache
def _small_data() -> datasets.Dataset:
    with TemporaryDirectory() as folder:
        small_files.write_fashion_mnist(Path(folder), n_train=16, n_test=4)
        full = datasets.load_fashion_mnist(folder)
    return replace(full, train_images=full.train_images[:, :8, :8], test_images=full.test_images[:, :8, :8])


def _stopped(out: Path, resume: bool) -> None:
    """A training run that stops after one step: it leaves a checkpoint, or goes on from the one that is there."""
    try:
        recipes.carry_out(_plan(), _small_data(), out, resume, stopped=lambda: True)
    except KeyboardInterrupt:
        return


def _resume(path: Path) -> None:
    with TemporaryDirectory() as out:
        (Path(out) / path.name).write_bytes(path.read_bytes())
        try:
            _stopped(Path(out), True)
        except pcmref.PcmrefError as error:  # what a run may find out at its first step
            raise type(error)(str(error) if "r.checkpoint.h5" in str(error) else f"r.checkpoint.h5: {error}") from error


def _info(path: Path) -> str:
    """What `pcmref info` prints, as a terminal gets it."""
    with redirect_stdout(io.StringIO()) as stream:
        info.run(Namespace(file=str(path)))
    return stream.getvalue().encode().decode()  # which refuses what no terminal can be sent


def _check_info(_: Path, text: str) -> None:
    assert all(c.isprintable() or c == "\n" for c in text), "control characters on the terminal"


# ---------------------------------------------------------------------------------------------------------------- .npz


def _write_images(path: Path) -> None:
    x = small_files.pixels("images", 6, 8, 8, 1)
    save_images(path, "few", x, np.arange(6) % 3, x[:3], (0.3,), (0.4,), {"licence": "none"})


def _npz(**arrays) -> bytes:
    content = io.BytesIO()
    np.savez(content, **arrays)
    return content.getvalue()


def _own_images() -> dict[str, np.ndarray]:
    x = draws.standard_normal(0, "fuzz/x", (6, 8, 8, 1)).astype(np.float32)
    return {"images": x, "labels": np.arange(6) % 3, "calibration": x[:3]}


def _members(path: Path) -> dict[str, np.ndarray]:
    """The arrays of an archive by zipfile and NumPy's reader of one .npy."""
    with zipfile.ZipFile(path) as archive:
        read = {n: np.lib.format.read_array(archive.open(n), allow_pickle=False) for n in archive.namelist()}
    return {name.removesuffix(".npy"): array for name, array in read.items()}


def _check_npz(path: Path, arrays: dict) -> None:
    _same_arrays(arrays, _members(path))


def _check_npz_network(path: Path, read: networks.NetworkFile) -> None:
    arrays = {n: array for n, array in _members(path).items() if not n.endswith("num_batches_tracked")}
    _check_state(read, {n: array.astype("f4") if array.dtype.str[1:] == "f2" else array for n, array in arrays.items()})


@cache
def _request() -> tuple[list, bytes]:
    golden = [g for g in golden_file.read() if g.case.key.startswith(GOLDEN_CASES[:3])]
    return golden, _npz(**{f"{g.case.key}/{name}": e.value for g in golden for name, e in g.expected.items()})


def _judged(path: Path):
    return read_npz(path), check(Recorded(str(path), read_npz(path), Capabilities()), _request()[0], ["float64"], related=())


def _check_judged(path: Path, judged) -> None:
    _check_npz(path, judged[0])
    golden = {g.case.key: g for g in _request()[0]}
    for verdict in judged[1]:
        expected = golden[verdict.case].expected
        if verdict.status == "pass":
            for name, e in expected.items():
                got = judged[0][f"{verdict.case}/{name}"]
                assert got.shape == e.value.shape and np.abs(got - e.value).max() <= 1e-12


# ------------------------------------------------------------------------------------------------------ IDX and CIFAR


def _idx_files() -> dict[str, bytes]:
    return {f.rstrip("/"): c for f, c in _made("x", lambda p: small_files.write_fashion_mnist(p.parent, 24, 12)).items()}


def _raw_idx_files() -> dict[str, bytes]:
    return {name.removesuffix(".gz"): gzip.decompress(content) for name, content in _idx_files().items()}


def _load_idx(path: Path) -> datasets.Dataset:
    return datasets.load_fashion_mnist(path.parent)


def _check_idx(attacked: Path, read: datasets.Dataset) -> None:
    def array(part):
        path = next(p for p in (attacked.with_name(f"{part}.gz"), attacked.with_name(part)) if p.is_file())
        raw = path.read_bytes()
        raw = gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw
        shape = [int.from_bytes(raw[4 + 4 * i : 8 + 4 * i], "big") for i in range(raw[3])]
        return np.frombuffer(raw, np.uint8, offset=4 + 4 * raw[3]).reshape(shape)

    _same(read.train_images[..., 0], array("train-images-idx3-ubyte"))
    _same(read.test_images[..., 0], array("t10k-images-idx3-ubyte"))
    assert (read.train_labels == array("train-labels-idx1-ubyte")).all()
    assert (read.test_labels == array("t10k-labels-idx1-ubyte")).all() and read.train_labels.max() < 10


def _cifar(kind) -> dict[str, bytes]:
    return {"c.tar.gz": small_files.tar_gz(kind(small_files.cifar_batches(2)), "cifar-10-batches")}


def _check_cifar(path: Path, read: datasets.Dataset) -> None:
    """Every image's bytes lie in the archive's own batches, one after the other; binary labels are the records' first bytes."""
    with tarfile.open(path, "r:*") as archive:
        batches = {m.name.rsplit("/", 1)[-1]: archive.extractfile(m).read() for m in archive if m.isfile()}
    whole = b"".join(batches.values())
    pixels, labels = (np.concatenate([getattr(read, f"{p}_{w}") for p in ("train", "test")]) for w in ("images", "labels"))
    for image, label in zip(pixels.transpose(0, 3, 1, 2), labels, strict=True):
        record = image.tobytes()
        assert record in whole, "pixels that the archive does not hold"
        assert "test_batch" in batches or bytes([label]) + record in whole
    assert labels.min() >= 0 and labels.max() <= 9


# ---------------------------------------------------------------------------------------------------------------- TOML


def _check_plan(path: Path, plan: recipes.Plan) -> None:
    values = tomllib.loads(path.read_text(encoding="utf-8"))
    assert [t["name"] for t in values["stage"]] == list(plan.stages)
    assert (plan.network, plan.data) == (values["network"], values["data"])
    for table in values["stage"]:
        assert all(getattr(plan.stages[table["name"]], k) == v for k, v in table.items() if k != "name")
        assert all(c.isprintable() and c not in "/\\" for c in table["name"])


VERDICTS = [Verdict("conv2d", "conv2d/v1/3x3", "float64", "fail"), Verdict("relu", "relu/v1/zero", "float64", "pass")]


def _check_expected(path: Path, verdicts: list[Verdict]) -> None:
    entries = tomllib.loads(path.read_text(encoding="utf-8"))
    assert set(entries) <= {"xfail"}, "unknown tables were ignored"
    expected = [e for e in entries.get("xfail", []) if e["op"] == "conv2d"]
    assert [v.status for v in verdicts] == ["xfail" if expected else "fail", "pass"]


def _hdf5(name, write, load, check, target="x.h5") -> Reader:
    return Reader(name, "hdf5", target, cache(lambda: _made(target, write)), load, check)


_NPZ_STATE = cache(lambda: {"x.npz": _npz(**NET.init(0))})
_CHIP = cache(lambda: pcmref.Chip.program(NET.init(0), pcmref.PCMModel.joshi2020()))
_META = {"note": "words", "history": [{"epoch": 1}], "normalisation": [[0.3], [0.4]]}
READERS = [
    _hdf5("network", lambda p: networks.save(p, NET, NET.init(0), _META), networks.read_network, _check_network),
    _hdf5("chip", lambda p: _CHIP().save(p), pcmref.Chip.load, _check_chip),
    _hdf5("golden", _write_golden, golden_file.read, _check_golden),
    _hdf5("result", lambda p: _result().to_hdf5(p), RetentionResult.from_hdf5, _check_result),
    _hdf5("image file", _write_images, load_images, _check_images),
    _hdf5("checkpoint", lambda p: _stopped(p.parent, False), _resume, lambda p, v: None, "r.checkpoint.h5"),
    _hdf5("info", lambda p: networks.save(p, NET, NET.init(0), _META), _info, _check_info),
    Reader("images", "npz", "x.npz", cache(lambda: {"x.npz": _npz(**_own_images())}), load_images, _check_images),
    Reader("state", "npz", "x.npz", _NPZ_STATE, networks.read_network, _check_npz_network),
    Reader("results", "npz", "x.npz", lambda: {"x.npz": _request()[1]}, _judged, _check_judged),
    Reader("idx.gz", "idx", "t10k-images-idx3-ubyte.gz", cache(_idx_files), _load_idx, _check_idx),
    Reader("idx", "idx", "train-labels-idx1-ubyte", cache(_raw_idx_files), _load_idx, _check_idx),
    Reader("cifar binary", "tar", "c.tar.gz", cache(lambda: _cifar(small_files.cifar_binary)), load_cifar10, _check_cifar),
    Reader("cifar python", "tar", "c.tar.gz", cache(lambda: _cifar(small_files.cifar_python)), load_cifar10, _check_cifar),
    Reader("recipe", "toml", "r.toml", lambda: {"r.toml": RECIPE}, recipes.read_plan, _check_plan),
    Reader("xfail", "toml", "x.toml", lambda: {"x.toml": XFAIL}, partial(report.expect_failures, VERDICTS), _check_expected),
]
