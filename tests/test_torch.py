"""pcmref against PyTorch autograd in float64, where torch is installed: the same check as validation/peers/against_torch.py."""

import sys
from pathlib import Path

import pytest

import pcmref

torch = pytest.importorskip("torch", reason="PyTorch is not installed: comparison with autograd skipped")


def test_joshi32_agrees_with_pytorch_autograd_to_1e_10(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parent.parent / "validation" / "peers")
    sys.modules.pop("against_torch", None)
    import against_torch

    for net, size in ((pcmref.ResNet.joshi32(), 32), (pcmref.ResNet.resnet8(), 28)):
        differences = against_torch.compare(net, size)
        assert len(differences) == 6 and max(differences.values()) <= against_torch.LIMIT, differences
