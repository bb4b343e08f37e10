"""Import and export: names, values and dtypes come back; PyTorch takes and gives them where it is installed."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import pcmref
from pcmref import cli
from pcmref.files import networks

NET = pcmref.ResNet(2, 3, (3, 4), (1, 1), "imagenet")


@pytest.fixture
def saved(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    state = NET.init(3)
    pcmref.save("n.h5", NET, state, {"note": "kept"})
    return state


def test_npz_and_h5_come_back(saved, capsys):
    assert (
        cli.main(["export", "n.h5", "n.npz"])
        == cli.main(["import", "n.npz", "back.h5", "--mean", "0.1", "0.2", "--std", "1", "0.5"])
        == 0
    )
    assert cli.main(["export", "n.h5", "copy.h5"]) == 0
    for path in ("n.npz", "back.h5", "copy.h5"):
        net, state = pcmref.load(path)
        assert net == NET and all(np.array_equal(state[k], saved[k]) and state[k].dtype == np.float32 for k in saved)
    assert networks.read_network("back.h5").about == {"imported_from": "n.npz", "normalisation": [[0.1, 0.2], [1.0, 0.5]]}
    assert networks.read_network("copy.h5").about == {"note": "kept"}


def test_eps_is_what_import_is_told_and_is_said(saved, capsys):
    assert cli.main(["export", "n.h5", "n.npz"]) == 0 and "eps" not in capsys.readouterr().out
    assert cli.main(["import", "n.npz", "e.h5", "--eps", "0.001"]) == 0 and "eps 0.001," in capsys.readouterr().out
    assert networks.load("e.h5")[0] == replace(NET, eps=0.001)
    assert cli.main(["import", "n.npz", "f.h5", "--eps", "0.001"]) == 0 and "1e-5" not in capsys.readouterr().out
    assert cli.main(["import", "n.npz", "f.h5"]) == 0 and "as usual: a max-pool" in (out := capsys.readouterr().out)
    assert "batch norm's eps 1e-5 (`pcmref import --eps`" in out and "bottleneck" not in out and "zeros" not in out
    assert cli.main(["info", "e.h5"]) == 0 and "eps 0.001" in capsys.readouterr().out
    assert cli.main(["export", "e.h5", "e.npz"]) == 0 and "eps 0.001 is not in it" in capsys.readouterr().out
    assert cli.main(["export", "e.h5", "copy.h5"]) == 0 and "not in it" not in capsys.readouterr().out
    assert (
        cli.main(["import", "n.npz", "e.h5", "--eps", "2"]) == 2 and "eps must lie between 0 and 1" in capsys.readouterr().err
    )


@pytest.mark.parametrize(
    ("net", "said"),
    [
        (pcmref.ResNet(2, 3, (3, 4), (1, 1), block="bottleneck"), "stride of a bottleneck in its 3x3 convolution"),
        (pcmref.ResNet(2, 3, (3, 5), (1, 1), shortcut="pad"), "channels of zeros half before and half behind"),
    ],
)
def test_what_a_state_does_not_say_is_named(tmp_path, monkeypatch, capsys, net, said):
    monkeypatch.chdir(tmp_path)
    np.savez("n.npz", **net.init())
    assert cli.main(["import", "n.npz", "n.h5"]) == 0 and said in capsys.readouterr().out
    assert cli.main(["info", "n.npz"]) == 0 and said in capsys.readouterr().out
    assert cli.main(["import", "n.npz", "m.h5", "--zeros", "behind"]) == 0
    captured, moved = capsys.readouterr(), net.shortcut == "pad"
    assert ("half before" in captured.out) is False and ("another order" in captured.err) == moved
    assert np.array_equal(pcmref.load("m.h5")[1]["fc.weight"], pcmref.load("n.h5")[1]["fc.weight"]) != moved


def test_a_network_of_the_other_byte_order_goes_to_pytorch(tmp_path, monkeypatch):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed: .pt files skipped")
    monkeypatch.chdir(tmp_path)
    state = NET.init(3)
    np.savez("n.npz", **{k: v.astype(v.dtype.newbyteorder()) for k, v in state.items()})
    assert cli.main(["export", "n.npz", "n.pt"]) == 0
    assert all(np.array_equal(v.numpy(), state[k]) for k, v in torch.load("n.pt", weights_only=True).items())


def test_pytorch_takes_an_export_and_an_import_takes_pytorchs(saved, capsys):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed: .pt files skipped")
    assert cli.main(["export", "n.h5", "n.pt"]) == 0
    from validation.peers.torch_network import torch_resnet

    model = torch_resnet(NET)
    model.load_state_dict(torch.load("n.pt", weights_only=True))
    assert np.array_equal(model.fc.weight.detach().numpy(), saved["fc.weight"])
    torch.save(model.state_dict(), "theirs.pt")
    assert cli.main(["import", "theirs.pt", "again.h5"]) == 0
    net, state = pcmref.load("again.h5")
    assert net == NET and all(np.array_equal(state[k], saved[k]) for k in saved)
    content = Path("n.pt").read_bytes()
    Path("bad.pt").write_bytes(content[: len(content) // 2])
    assert cli.main(["import", "bad.pt", "bad.h5"]) == 2 and "bad.pt" in capsys.readouterr().err


def test_a_resnet34_state_of_pytorch_loads_by_name(tmp_path, monkeypatch, capsys):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed: .pt files skipped")
    monkeypatch.chdir(tmp_path)
    from validation.peers.torch_network import torch_resnet

    torch.save(torch_resnet(pcmref.ResNet.imagenet34()).state_dict(), "resnet34.pt")
    assert cli.main(["import", "resnet34.pt", "resnet34.h5"]) == 0
    assert pcmref.load("resnet34.h5")[0] == pcmref.ResNet.imagenet34()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["export", "n.h5", "n.onnx"], "n.onnx"),
        (["export", "missing.h5", "n.npz"], "missing.h5"),
        (["import", "missing.npz", "n2.h5"], "missing.npz"),
        (["import", ".", "n2.h5"], ".: is a folder; name a file in it"),
        (["info", "."], ".: is a folder; name a file in it"),
        (["import", "n.h5", "n2.h5", "--mean", "nan", ".5", "--std", "1", "1"], "must be 2 finite numbers each"),
        (["import", "n.h5", "n2.h5", "--mean", "0.1"], "--mean and --std: 'mean' and 'std' must be 2 finite numbers each"),
        (["import", "n.h5", "n2.h5", "--mean", "125.3", "123", "--std", "63", "62"], "divide them by 255"),
        (["import", "n.h5", "n2.h5", "--mean", ".5", ".5", "--std", ".2", "0"], "'std' in 0..1, above 0"),
        (["import", "n.h5", "n.h5"], "another file than n.h5"),
        (["import", "n.h5", "n.npz"], "must end in .h5"),
    ],
)
def test_mistakes_are_named(saved, capsys, arguments, message):
    assert cli.main(arguments) == 2 and message in capsys.readouterr().err


def test_without_torch_the_message_says_what_to_install(saved, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    Path("theirs.th").write_bytes(b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.")
    for arguments in (["export", "n.h5", "n.pt"], ["import", "theirs.th", "n2.h5"], ["info", "theirs.th"]):
        assert cli.main(arguments) == 2 and "pip install torch" in capsys.readouterr().err
