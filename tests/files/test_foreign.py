"""States in files of others: what people really have, by content; hostile ones; one clear sentence for the rest."""

import argparse
import json
import pickle
import zipfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import pcmref
from pcmref import cli
from pcmref.errors import FileError, MissingExtraError
from pcmref.files import foreign
from tests.helpers import small_files

NET = pcmref.ResNet(1, 3, (3, 4), (1, 1))
STATE = NET.init(1)
BLOB = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # how PyTorch's files before 1.6 begin


@pytest.fixture
def torch():
    return pytest.importorskip("torch", reason="PyTorch is not installed: its files skipped")


def tensors(torch, state=STATE, dtype=None):
    return {name: torch.from_numpy(value.copy()).to(dtype) for name, value in state.items()}


def same(path, state=STATE, net=NET):
    found, values = pcmref.load(path)
    assert found == net and all(np.array_equal(values[k], state[k]) and values[k].dtype == np.float32 for k in state)


@pytest.mark.parametrize("ending", [".pth", ".bin", ".th", ".PT", ""])
@pytest.mark.parametrize("zipped", [True, False])
def test_pytorchs_files_are_told_by_content(torch, tmp_path, ending, zipped):
    torch.save(tensors(torch), tmp_path / f"s{ending}", _use_new_zipfile_serialization=zipped)
    same(tmp_path / f"s{ending}")


NESTED = {
    "state_dict": lambda s: {"state_dict": s, "epoch": 3, "optimizer": {"state": {0: {"momentum_buffer": s["conv1.weight"]}}}},
    "model": lambda s: {"model": s, "args": None},
    "net": lambda s: {"net": s, "acc": 93.0},
    "model/state_dict": lambda s: {"model": {"state_dict": s}},
    "ema/shadow": lambda s: {"ema": {"shadow": s, "decay": 0.9}},
}


@pytest.mark.parametrize("under", NESTED)
def test_a_nested_state_is_found_and_said(torch, tmp_path, capsys, under):
    torch.save(NESTED[under](tensors(torch)), tmp_path / "s.tar")
    same(tmp_path / "s.tar")
    assert f"under '{under}'" in capsys.readouterr().err
    assert cli.main(["info", str(tmp_path / "s.tar")]) == 0 and "synaptic weights" in capsys.readouterr().out


def test_akamasters_checkpoints_load_as_they_are(torch, tmp_path, capsys):
    """Nested, under DataParallel's names, a head named linear, shortcuts without parameters."""
    net = pcmref.ResNet(3, 10, (4, 8, 16), (2, 1, 1), shortcut="pad")
    state = net.init(3)
    names = {f"module.{k}".replace("fc.", "linear."): v for k, v in tensors(torch, state).items()}
    torch.save({"state_dict": names, "best_prec1": 92.6}, tmp_path / "resnet.th", _use_new_zipfile_serialization=False)
    same(tmp_path / "resnet.th", state, net)
    said = capsys.readouterr().err
    assert all(part in said for part in ("under 'state_dict'", "'module.' off", "linear as fc", "left out best_prec1"))


def test_of_two_states_the_models_own_counts(torch, tmp_path, capsys):
    torch.save({"ema": tensors(torch, NET.init(2)), "model": tensors(torch)}, tmp_path / "s.pt")
    same(tmp_path / "s.pt")
    assert "under 'model'; not the one under 'ema'" in capsys.readouterr().err


def test_parameters_and_other_floats(torch, tmp_path):
    torch.save({k: torch.nn.Parameter(v) for k, v in tensors(torch).items()}, tmp_path / "p.pt")
    same(tmp_path / "p.pt")
    for dtype in (torch.float16, torch.bfloat16):
        torch.save(tensors(torch, dtype=dtype), tmp_path / "h.pt")
        same(tmp_path / "h.pt", {k: v.to(torch.float32).numpy() for k, v in tensors(torch, dtype=dtype).items()})
    torch.save(tensors(torch, dtype=torch.float64), tmp_path / "d.pt")
    assert pcmref.load(tmp_path / "d.pt")[1]["fc.weight"].dtype == np.float64
    np.savez(tmp_path / "h.npz", **{k: v.astype(np.float16) for k, v in STATE.items()})
    assert pcmref.load(tmp_path / "h.npz")[1]["fc.weight"].dtype == np.float32


def refusals(torch):
    """{what: (what is saved, what the sentence says)}."""
    state = tensors(torch)
    module = torch.nn.Sequential(torch.nn.Conv2d(1, 3, 3))
    return {
        "a module": (module, "a whole pickled module (torch.nn.modules.container.Sequential)", "m.state_dict()"),
        "a checkpoint with one": ({"model": module}, "a whole pickled module", "m.state_dict()"),
        "arguments": (
            {"state_dict": state, "args": argparse.Namespace()},
            "other objects than tensors (argparse.Namespace)",
            "m['state_dict']",
        ),
        "arguments beside a net": (
            {"acc": 93.0, "net": state, "args": argparse.Namespace()},
            "other objects than tensors (argparse.Namespace)",
            "m['net']",
        ),
        "float8": (state | {"fc.weight": state["fc.weight"].to(torch.float8_e4m3fn)}, "'fc.weight' is float8_e4m3fn", "scale"),
        "sparse": (state | {"fc.weight": state["fc.weight"].to_sparse()}, "'fc.weight' is a sparse tensor", "dense"),
        "without values": (state | {"fc.weight": torch.empty(3, 4, device="meta")}, "'fc.weight' is a tensor without", "dense"),
        "a tensor": (state["fc.weight"], "holds a Tensor, not a state", "state_dict()"),
        "no convolution": ({"fc.weight": state["fc.weight"]}, "holds no state of a ResNet", "'NAME.weight'"),
        "no ResNet": ({"features.0.weight": state["conv1.weight"]}, "does not hold a network", "features.0.weight"),
        "seen larger": ({"conv1.weight": torch.zeros(1).expand(1 << 40, 1, 1, 1)}, "declare over", "refused"),
        "negative": (state | {"bn1.running_var": -torch.ones(3)}, "'bn1.running_var'", "negative variance"),
    }


KINDS = "a module,a checkpoint with one,arguments,float8,sparse,without values,a tensor,no convolution,no ResNet,seen larger"


@pytest.mark.parametrize("what", [*KINDS.split(","), "arguments beside a net", "negative"])
def test_what_is_no_state_of_ours_is_one_sentence_with_its_cause(torch, tmp_path, capsys, what):
    content, *parts = refusals(torch)[what]
    torch.save(content, tmp_path / "s.pt")
    assert cli.main(["import", str(tmp_path / "s.pt"), str(tmp_path / "n.h5")]) == 2
    err = capsys.readouterr().err
    assert all(part in err for part in ["s.pt", *parts]) and len(err.splitlines()) == 1 and err.isprintable() is False
    assert "\\x1b" not in err and "\x1b" not in err and not (tmp_path / "n.h5").exists()


def test_the_two_lines_make_a_pickled_module_readable(torch, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    module = torch.nn.Module()
    for name, value in tensors(torch).items():
        *path, last = name.split(".")
        within = module
        for part in path:
            if not hasattr(within, part):
                within.add_module(part, torch.nn.Module())
            within = getattr(within, part)
        within.register_buffer(last, value)
    torch.save(module, "m.pt")
    with pytest.raises(FileError) as error:
        pcmref.load("m.pt")
    lines = str(error.value).split("code is: ")[1]
    exec(lines, {"torch": torch})
    same("state.pt")


def test_damaged_and_hostile_pytorch_files(torch, tmp_path):
    for zipped in (True, False):
        torch.save(tensors(torch), tmp_path / "s.pt", _use_new_zipfile_serialization=zipped)
        content = (tmp_path / "s.pt").read_bytes()
        (tmp_path / "s.pt").write_bytes(content[: len(content) // 2])
        with pytest.raises(FileError, match="cut short"):
            pcmref.load(tmp_path / "s.pt")
    torch.save(tensors(torch), tmp_path / "s.pt")
    with zipfile.ZipFile(tmp_path / "s.pt") as old, zipfile.ZipFile(tmp_path / "z.pt", "w", zipfile.ZIP_DEFLATED) as new:
        for member in old.infolist():
            new.writestr(member.filename, old.read(member))
    with pytest.raises(FileError, match="packed, which PyTorch does not do"):
        pcmref.load(tmp_path / "z.pt")


def safetensors_bytes(tensors: dict) -> bytes:
    """The format by its specification: length, JSON header, data."""
    header, data = {"__metadata__": {"format": "pt"}}, b""
    for name, (dtype, shape, content) in tensors.items():
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [len(data), len(data) + len(content)]}
        data += content
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def test_safetensors(tmp_path):
    pytest.importorskip("safetensors", reason="safetensors is not installed: its files skipped")
    path = tmp_path / "model.any"
    path.write_bytes(safetensors_bytes({f"module.{k}": ("F32", v.shape, v.tobytes()) for k, v in STATE.items()}))
    same(path)
    halves = {k: (v.view(np.uint32) >> 16).astype(np.uint16) for k, v in STATE.items()}
    path.write_bytes(safetensors_bytes({k: ("BF16", v.shape, v.tobytes()) for k, v in halves.items()}))
    same(path, {k: (v.astype(np.uint32) << 16).view(np.float32) for k, v in halves.items()})
    path.write_bytes(safetensors_bytes({"w.weight": ("F8_E4M3", (1,), b"0")}))
    with pytest.raises(FileError, match="'w.weight' is F8_E4M3; write it as F32"):
        pcmref.load(path)
    path.write_bytes(safetensors_bytes({"w.weight": ("F32", (1 << 40,), b"0000")}))
    with pytest.raises(FileError, match="safetensors file that is damaged"):
        pcmref.load(path)


def test_without_the_packages_the_sentence_says_what_to_install(tmp_path, monkeypatch):
    for name, content in (("torch", BLOB), ("safetensors", safetensors_bytes({}))):
        monkeypatch.setitem(__import__("sys").modules, name, None)
        (tmp_path / "s").write_bytes(content)
        with pytest.raises(MissingExtraError, match="pip install"):
            pcmref.load(tmp_path / "s")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "neither a pcmref file"),
        (b"words", "neither a pcmref file"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        (b"\x89HDF\r\n\x1a\n", "HDF5 file of other software"),
        (b"\x89HDF\r\n\x1a\n" + bytes(99) + b"keras_version", "HDF5 file of Keras"),
        (b"\x93NUMPY\x01\x00", "one array"),
        (pickle.dumps({"fc.weight": [1.0]}), "a Python pickle"),
        (small_files.zipped("m/data.pkl", "m/constants.pkl"), "TorchScript"),
        (small_files.zipped("m/data.pkl")[:-5], "cut short"),
        (small_files.zipped("document.xml"), "not a readable .npz"),
    ],
)
def test_other_files_are_named(tmp_path, content, message):
    (tmp_path / "s").write_bytes(content)
    with pytest.raises(FileError, match=message):
        pcmref.load(tmp_path / "s")
    with pytest.raises(FileError, match="is a folder"):
        foreign.kind_of(tmp_path)


def test_the_lines_make_a_state_of_a_keras_network(tmp_path, monkeypatch):
    """Keras has kernels as HWIO and matrices as [C, O]; weights in the order of the layers, as ours."""
    monkeypatch.chdir(tmp_path)
    Path("k.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(99) + b"keras_version")
    with pytest.raises(FileError, match="HDF5 file of Keras") as error:
        pcmref.load("k.h5")
    theirs = [v.transpose(2, 3, 1, 0) if v.ndim == 4 else v.T for v in STATE.values()]
    keras = SimpleNamespace(models=SimpleNamespace(load_model=lambda path: SimpleNamespace(weights=theirs)))
    exec(str(error.value).split("ResNet: ")[1].split("; then")[0], {"keras": keras, "numpy": np, "net": NET})
    same("state.npz")
