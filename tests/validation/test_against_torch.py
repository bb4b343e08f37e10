"""pcmref against PyTorch autograd in float64, where torch is installed: the same check as validation/peers/against_torch.py."""

import pytest

import pcmref

torch = pytest.importorskip("torch", reason="PyTorch is not installed: comparison with autograd skipped")
from validation.peers import against_torch  # noqa: E402

NETWORKS = {
    "joshi32": (pcmref.ResNet.joshi32(), 32),
    "resnet8": (pcmref.ResNet.resnet8(), 28),
    "pad": (pcmref.ResNet(3, 10, (4, 7, 16), (1, 2, 1), shortcut="pad"), 17),
    "bottleneck": (pcmref.ResNet(3, 10, (4, 6), (2, 1), block="bottleneck", eps=1e-3), 17),
}


@pytest.mark.parametrize(("net", "size"), NETWORKS.values(), ids=NETWORKS)
def test_networks_agree_with_pytorch_autograd_to_1e_10(net, size):
    differences = against_torch.compare(net, size)
    assert len(differences) == 6 and max(differences.values()) <= against_torch.LIMIT, differences
