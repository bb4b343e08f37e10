"""Names of states in files of others: any prefix, a dozen ways of naming, arrays beside a network, zeros that lie elsewhere."""

import dataclasses
import re

import numpy as np
import pytest

import pcmref
from pcmref import draws
from pcmref.errors import FileError
from pcmref.files import foreign
from pcmref.nn.blocks import layer
from pcmref.nn.resnet import part
from tests.helpers import TOP

NET = pcmref.ResNet(1, 3, (3, 4), (1, 1))
STATE = NET.init(1)


def same(path, state=STATE, net=NET):
    found, values = pcmref.load(path)
    assert found == net and all(np.array_equal(values[k], state[k]) and values[k].dtype == np.float32 for k in state)


def kuangliu(state):
    return {k.replace("downsample", "shortcut").replace("fc.", "linear."): v for k, v in state.items()}


def under_prefix(*prefixes):
    return lambda state: {"".join(prefixes) + k: v for k, v in state.items()}


CHANGES = {
    "as it is": (lambda s: s, []),
    "DataParallel": (under_prefix("module."), ["'module.' off"]),
    "compiled and wrapped": (under_prefix("module.", "_orig_mod.", "model."), ["took '_orig_mod' out", "'module.model.' off"]),
    "backbone": (under_prefix("backbone."), ["'backbone.'"]),
    "kuangliu's": (kuangliu, ["shortcut as downsample", "linear as fc"]),
    "counters": (lambda s: s | {"bn1.num_batches_tracked": next(iter(s.values())).sum()}, ["left out num_batches_tracked"]),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_states_names_become_torchvisions_and_what_was_done_is_one_line(tmp_path, capsys, name):
    change, said = CHANGES[name]
    np.savez(tmp_path / "state", **change(STATE))
    (tmp_path / "state.npz").rename(tmp_path / "state.bin")  # the content counts, not the name
    same(tmp_path / "state.bin")
    err = capsys.readouterr().err
    assert all(part in err for part in said) and len(err.splitlines()) == bool(said)


@pytest.mark.parametrize(
    ("name", "ours", "message"),
    [
        ("linear.weight", "fc.weight", "unknown .'linear.weight'"),
        ("layer2.0.shortcut.0.weight", "layer2.0.downsample.0.weight", "'layer2.0.downsample.0.weight' and 'layer2.0.shortcut"),
        (
            "stage1.0.conv1.weight",
            "layer1.0.conv1.weight",
            "'layer1.0.conv1.weight' and 'stage1.0.conv1.weight', which mean the",
        ),
    ],
)
def test_an_array_that_is_there_under_two_names_is_refused(tmp_path, name, ours, message):
    np.savez(tmp_path / "s.npz", **STATE, **{name: STATE[ours]})
    with pytest.raises(FileError, match=message):
        pcmref.load(tmp_path / "s.npz")


PREFIXES = """module. _forward_module. network. _module. 0. 1. student. analog_model. net. encoder. resnet. features.
    layers.0. blocks.1. feature_extractor. model.backbone. module.module.
    base_model. learner. f. trunk.
    _fsdp_wrapped_module. encoder_q. body. model_ema.module."""


@pytest.mark.parametrize(
    "beside", ["criterion.weight", "mean", "val_accuracy.correct", "normalize.std", "epoch", "optimizer.momentum"]
)
def test_any_prefix_is_taken_off_and_what_stands_beside_the_network_is_left_out(tmp_path, capsys, beside):
    extra = np.float32(3) if beside == "epoch" else np.ones(3, np.float32)
    for prefix in PREFIXES.split():
        for name in (beside, f"{prefix}{beside}"):
            np.savez(tmp_path / "s.npz", **under_prefix(prefix)(STATE), **{name: extra})
            same(tmp_path / "s.npz")
            err = capsys.readouterr().err
            assert f"took {prefix!r} off" in err and f"left out {beside}" in err
    np.savez(tmp_path / "s.npz", **STATE, **{beside: extra})
    same(tmp_path / "s.npz")


@pytest.mark.parametrize("prefix", ["", "student."])
@pytest.mark.parametrize(
    "unknown",
    ["layer1.0.bn3.weight", "bn3.weight", "layer1.0.conv1.bias", "se.fc.weight", "neck.weight", "layer1.0.alpha", "scale"],
)
def test_an_unknown_array_inside_a_network_is_refused(tmp_path, prefix, unknown):
    """A batch norm that is left out costs nine points in ten; a network has no part that does nothing."""
    extra = np.float32(1) if unknown.endswith("alpha") else np.ones(3, np.float32)
    np.savez(tmp_path / "s.npz", **under_prefix(prefix)(STATE | {unknown: extra}))
    with pytest.raises(FileError, match=f"unknown .'{unknown}'"):
        pcmref.load(tmp_path / "s.npz")


@pytest.mark.parametrize("gone", ["layer1.0.", "layer1.1.", "layer2."])
def test_a_block_that_is_missing_is_not_closed_up(tmp_path, gone):
    net = pcmref.ResNet(1, 3, (3, 3, 3), (3, 3, 3))
    state = {k: v for k, v in net.init().items() if not k.startswith(gone)}
    np.savez(tmp_path / "s.npz", **state)
    with pytest.raises(FileError, match="does not hold a network"):
        pcmref.load(tmp_path / "s.npz")


def test_a_neck_between_backbone_and_head_is_refused(tmp_path):
    state = {k if k.startswith("fc.") else f"backbone.{k}": v for k, v in STATE.items()}
    state = {k.replace("fc.", "head.fc."): v for k, v in state.items()}
    np.savez(tmp_path / "s.npz", **state)
    same(tmp_path / "s.npz")
    np.savez(tmp_path / "s.npz", **state, **{"neck.bn.weight": np.ones(4, np.float32)})
    with pytest.raises(FileError, match="neck.bn.weight"):
        pcmref.load(tmp_path / "s.npz")


def test_of_two_networks_in_one_state_the_other_is_said(tmp_path, capsys):
    other = under_prefix("teacher.")(NET.init(2))
    np.savez(tmp_path / "s.npz", **under_prefix("student.")(STATE), **other)
    same(tmp_path / "s.npz")
    assert "not the one under 'teacher.'" in (err := capsys.readouterr().err) and "left out teacher.*" in err


def renamed(*pairs):
    """A state with every pattern replaced, in turn."""

    def change(state):
        for old, new in pairs:
            state = {re.sub(old, new, k): v for k, v in state.items()}
        return state

    return change


BLOCK = r"layer(\d)\.(\d)\."
CONVENTIONS = {  # whose names: from torchvision's to theirs
    "kuangliu, weiaicunzai's net": renamed((r"\.downsample\.", ".shortcut."), (r"^fc\.", "linear.")),
    "sandialabs/cross-sim": renamed(("^layer", "res"), (r"^fc\.", "classifier.2.")),
    "open-mmlab/mmpretrain": renamed(("^(?!fc)", "backbone."), (r"^fc\.", "head.fc.")),
    "Cadene's": renamed((r"^fc\.", "last_linear.")),
    "stages of blocks": renamed((BLOCK, r"layer\1.blocks.\2."), (r"^fc\.", "classifier.")),
    "one list of stages": renamed((BLOCK, lambda m: f"layers.{int(m[1]) - 1}.{m[2]}.")),
    "huggingface/transformers": renamed(
        (BLOCK, lambda m: f"resnet.encoder.stages.{int(m[1]) - 1}.layers.{m[2]}."),
        (r"^(conv1|bn1)\.", r"resnet.embedder.embedder.\1."),
        (r"(\d)\.(conv|bn)(\d)\.", lambda m: f"{m[1]}.layer.{int(m[3]) - 1}.{m[2]}."),
        (r"(?<=\.)conv1?\.", "convolution."),
        (r"(?<=\.)bn1?\.", "normalization."),
        (r"downsample\.0", "shortcut.convolution"),
        (r"downsample\.1", "shortcut.normalization"),
        (r"^fc\.", "classifier.1."),
    ),
    "weiaicunzai/pytorch-cifar100": renamed(
        (r"^conv1\.", "conv1.0."),
        (r"^bn1\.", "conv1.1."),
        (BLOCK, lambda m: f"conv{int(m[1]) + 1}_x.{m[2]}."),
        (r"(\d)\.conv(\d)\.", lambda m: f"{m[1]}.residual_function.{3 * int(m[2]) - 3}."),
        (r"(\d)\.bn(\d)\.", lambda m: f"{m[1]}.residual_function.{3 * int(m[2]) - 2}."),
        ("downsample", "shortcut"),
    ),
    "left and shortcut": renamed(
        (r"^conv1\.", "conv1.0."),
        (r"^bn1\.", "conv1.1."),
        (r"(\d)\.conv(\d)\.(?!0)", lambda m: f"{m[1]}.left.{3 * int(m[2]) - 3}."),
        (r"(\d)\.bn(\d)\.", lambda m: f"{m[1]}.left.{3 * int(m[2]) - 2}."),
        ("downsample", "shortcut"),
    ),
    "osmr/pytorchcv": renamed(
        (r"^conv1\.", "features.init_block.conv."),
        (r"^bn1\.", "features.init_block.bn."),
        (BLOCK, lambda m: f"features.stage{m[1]}.unit{int(m[2]) + 1}."),
        (r"(unit\d)\.conv(\d)\.", r"\1.body.conv\2.conv."),
        (r"(unit\d)\.bn(\d)\.", r"\1.body.conv\2.bn."),
        (r"downsample\.0", "identity_conv.conv"),
        (r"downsample\.1", "identity_conv.bn"),
        (r"^fc\.", "output."),
    ),
    "hysts/pytorch_image_classification": renamed(
        (r"^conv1\.", "conv."),
        (r"^bn1\.", "bn."),
        (BLOCK, lambda m: f"stage{m[1]}.block{int(m[2]) + 1}."),
        (r"downsample\.0", "shortcut.conv"),
        (r"downsample\.1", "shortcut.bn"),
    ),
    "norm1": renamed((r"bn(\d)\.", r"norm\1."), (r"downsample\.0", "skip.0"), (r"downsample\.1", "skip.1")),
    "bn_1 and conv_1": renamed((r"(bn|conv)(\d)\.", r"\1_\2."), (r"^layer(\d)", r"stage_\1")),
    "a stem of its own": renamed((r"^(conv|bn)1\.", r"stem.\1."), (BLOCK, lambda m: f"stages.{int(m[1]) - 1}.blocks.{m[2]}.")),
    "a list within a wrapper": renamed(("^(?!fc)", "0."), (r"^fc\.", "1.")),
    "wrappers of parts": renamed((BLOCK, r"layer\1._orig_mod.\2._fsdp_wrapped_module.")),
    "Mixed block numbers": renamed((BLOCK, lambda m: f"layer{m[1]}.block_{int(m[2]) + 1}.")),
    "groups": renamed((BLOCK, lambda m: f"groups.{int(m[1]) - 1}.{m[2]}."), (r"^fc\.", "logits.")),
}


@pytest.mark.parametrize("block", ["basic", "bottleneck"])
@pytest.mark.parametrize("prefix", ["", "module.", "net.1."])
@pytest.mark.parametrize("whose", CONVENTIONS)
def test_the_names_of_public_networks_are_known(tmp_path, capsys, whose, prefix, block):
    net = pcmref.ResNet(1, 3, (3, 4), (2, 1), block=block)
    state = net.init(1)
    theirs = CONVENTIONS[whose](state)
    assert len(theirs) == len(state) and theirs.keys() != state.keys()
    np.savez(tmp_path / "s.npz", **under_prefix(prefix)(theirs))
    same(tmp_path / "s.npz", state, net)
    assert len(capsys.readouterr().err.splitlines()) == 1
    for unknown in ("extra.weight", *(k + "3" for k in theirs if k.endswith("conv2.weight"))):  # a convolution too many
        np.savez(tmp_path / "s.npz", **under_prefix(prefix)(theirs | {unknown: np.ones((3, 3, 1, 1), np.float32)}))
        if prefix == "" and "backbone" not in whose:
            with pytest.raises(FileError, match="unknown"):
                pcmref.load(tmp_path / "s.npz")


def zeros_behind(net, state, x):
    """The logits of a network of pad shortcuts whose channels of zeros are all behind."""
    y, _ = layer(x, state, "conv1", "bn1")
    for name, _, _, strides in net._blocks():
        block = part(state, name)
        z, _ = layer(y, block, "conv1", "bn1", strides[0])
        z, _ = layer(z, block, "conv2", "bn2", relu=False)
        passed = y[:, :: strides[0], :: strides[0]]
        y = np.maximum(z + np.pad(passed, [(0, 0)] * 3 + [(0, z.shape[3] - passed.shape[3])]), 0)
    return y.mean((1, 2)) @ state["fc.weight"].T + state["fc.bias"]


def test_zeros_that_are_all_behind_give_the_same_function_in_another_order_of_channels(tmp_path, capsys):
    net = pcmref.ResNet(1, 3, (3, 5, 9), (1, 2, 2), shortcut="pad")
    state = net.init(1, np.float64)
    x = draws.standard_normal(0, "test/zeros-behind", (2, 8, 8, 1))
    theirs = zeros_behind(net, state, x)
    assert abs(net.forward(state, x) - theirs).max() > 0.01
    martyn = renamed(
        (r"^(conv|bn)1\.", r"\1In."),
        (r"^layer1\.", "stack1."),
        (r"^layer(\d)\.0\.", r"stack\1a."),
        (r"^layer(\d)\.(\d)\.", lambda m: f"stack{m[1]}b.{int(m[2]) - 1}."),
        (r"^fc\.", "fcOut."),
    )
    np.savez(tmp_path / "s.npz", **martyn(state))
    found, values = pcmref.load(tmp_path / "s.npz")
    assert found == net and np.allclose(net.forward(values, x), theirs, rtol=1e-12, atol=1e-12)
    assert "another order, for zeros half before and half behind" in capsys.readouterr().err
    np.savez(tmp_path / "s.npz", **state)
    assert np.array_equal(pcmref.load(tmp_path / "s.npz")[1]["fc.weight"], state["fc.weight"])
    said = foreign.read_state(tmp_path / "s.npz", zeros_behind=True)
    assert np.allclose(net.forward(said[0], x), theirs, rtol=1e-12, atol=1e-12) and "another order" in said[1]


@pytest.mark.parametrize(
    ("names", "remedy"),
    [
        (("weight_orig", "weight_mask"), "prune.remove(m, 'weight')"),
        (("weight_g", "weight_v"), "remove_weight_norm(m)"),
        (("weight_orig", "weight_u", "weight_v"), "remove_spectral_norm(m)"),
        (("parametrizations.weight.original0", "parametrizations.weight.original1"), "remove_parametrizations(m, 'weight')"),
    ],
)
def test_weights_that_are_computed_from_others_are_refused_with_what_makes_them_plain(tmp_path, names, remedy):
    for prefix in ("layer1.0.conv1.", "conv1.", "fc."):
        state = {k: v for k, v in STATE.items() if k != f"{prefix}weight"}
        np.savez(tmp_path / "s.npz", **state, **{prefix + name: STATE[f"{prefix}weight"] for name in names})
        with pytest.raises(FileError, match="computed from other arrays") as error:
            pcmref.load(tmp_path / "s.npz")
        assert remedy in str(error.value) and prefix in str(error.value)


PUBLIC = TOP.parent / "shared" / "data"


@pytest.mark.parametrize(
    ("name", "shortcut", "blocks"),
    [("resnet56-4bfd9763.th", "pad", 9), ("crosssim_resnet20.pth", "projection", 3), ("a-martyn_resnet20.pt", "pad", 3)],
)
def test_public_networks_load_as_they_are(name, shortcut, blocks):
    """The right of 10,000 test images are counted by hand: 9,339, 9,065 and 9,198."""
    pytest.importorskip("torch", reason="PyTorch is not installed: its files skipped")
    if not (PUBLIC / name).exists():
        pytest.skip(f"{name} is not in {PUBLIC}: skipped")
    assert pcmref.load(PUBLIC / name)[0] == pcmref.ResNet(3, 10, (16, 32, 64), (blocks,) * 3, shortcut=shortcut)


def stand_ins(net, before=None):
    """A state of the projection network that computes what `net`, of pad shortcuts, does."""
    state = dataclasses.replace(net, shortcut="projection").init(3)
    for name in [k for k in state if k.endswith("downsample.0.weight")]:
        o, c = state[name].shape[:2]
        state[name] = np.eye(o, c, -((o - c) // 2 if before is None else before), np.float32)[..., None, None]
    return state


def test_convolutions_that_stand_for_zero_channels_are_taken_for_them(tmp_path, capsys):
    """Else AdaBS recalibrates the batch norm behind them, and points are lost without a word."""
    net = pcmref.ResNet(1, 3, (3, 4, 9), (1, 2, 1), shortcut="pad")
    state = stand_ins(net)
    np.savez(tmp_path / "s.npz", **state)
    same(tmp_path / "s.npz", {k: v for k, v in state.items() if "downsample" not in k}, net)
    assert "channels of zeros without weights" in capsys.readouterr().err
    x = draws.standard_normal(0, "test/stand-ins", (2, 8, 8, 1))
    theirs = dataclasses.replace(net, shortcut="projection").forward(state, x)
    assert np.allclose(
        net.forward(pcmref.load(tmp_path / "s.npz")[1], x), theirs, rtol=1e-4
    )  # its batch norm's eps is left out
    for change in ({"layer3.0.downsample.0.weight": state["layer3.0.downsample.0.weight"][::-1]}, stand_ins(net, 0)):
        np.savez(tmp_path / "s.npz", **state | change)
        theirs = dataclasses.replace(net, shortcut="projection").forward(state | change, x)
        found, values = pcmref.load(tmp_path / "s.npz")
        assert found == net and np.allclose(net.forward(values, x), theirs, rtol=1e-4)
        assert "another order" in capsys.readouterr().err
    for change in (2 * state["layer3.0.downsample.0.weight"], np.ones_like(state["layer3.0.downsample.0.weight"])):
        np.savez(tmp_path / "s.npz", **state | {"layer3.0.downsample.0.weight": change})
        assert pcmref.load(tmp_path / "s.npz")[0].shortcut == "projection"
        assert "layer2.0.downsample.0 only passes channels on" in capsys.readouterr().err
    for trained in ("weight", "running_var"):
        np.savez(tmp_path / "s.npz", **{k: v * 1.1 if k.endswith(f"downsample.1.{trained}") else v for k, v in state.items()})
        assert pcmref.load(tmp_path / "s.npz")[0].shortcut == "projection" and not capsys.readouterr().err


TORCHVISIONS = {  # He et al. 2016, table 1; the numbers of parameters are those that torchvision states
    "resnet18": ("basic", (2, 2, 2, 2), 11_689_512),
    "resnet34": ("basic", (3, 4, 6, 3), 21_797_672),
    "resnet50": ("bottleneck", (3, 4, 6, 3), 25_557_032),
    "resnet101": ("bottleneck", (3, 4, 23, 3), 44_549_160),
}


@pytest.mark.parametrize("name", TORCHVISIONS)
def test_torchvisions_networks_are_told_by_their_shapes(name):
    block, blocks, parameters = TORCHVISIONS[name]
    net = pcmref.ResNet(3, 1000, (64, 128, 256, 512), blocks, "imagenet", block=block)
    state = {k: np.broadcast_to(np.float32(0.5), shape) for k, shape in net.shapes().items()}
    assert pcmref.ResNet.of_state(state) == net
    assert sum(state[k].size for k in net.trainable()) == parameters
    without = {k: v for k, v in state.items() if ".downsample." not in k}
    assert pcmref.ResNet.of_state(without).shortcut == "pad"
