"""Networks trained by others give PyTorch's logits within a derived bound, where PyTorch is installed.

The checkpoints of akamaster/pytorch_resnet_cifar10 are looked for in a folder beside this checkout.
"""

import numpy as np
import pytest

import pcmref
from pcmref import draws
from tests.helpers import TOP

torch = pytest.importorskip("torch", reason="PyTorch is not installed: comparison with networks of others skipped")
from validation.peers import trained_by_others  # noqa: E402

CHECKPOINTS = TOP.parent / "shared" / "data"
NETWORKS = {
    "pad": pcmref.ResNet(3, 5, (4, 7, 16), (1, 2, 1), shortcut="pad"),
    "bottleneck": pcmref.ResNet(3, 5, (4, 6), (2, 1), "imagenet", block="bottleneck", eps=1e-3),
    "bottleneck, pad": pcmref.ResNet(3, 5, (2, 3), (1, 2), shortcut="pad", block="bottleneck"),
}


def trained(net: pcmref.ResNet) -> dict:
    """A state whose batch norms are away from 1 and 0, some of their weights negative."""
    state = net.init(0, np.float64)
    for name, shape in net.shapes().items():
        if len(shape) == 1:
            value = draws.uniform(0, f"test/others/{name}", shape) + 0.5
            state[name] = value if name.endswith("running_var") else np.sin(5 * value)
    return state


def check(net, state, x):
    """Fast and plain text against PyTorch: within the two programs' bounds, which are small beside what they bound."""
    u = np.finfo(x.dtype).eps / 2
    bounds = 2 * u * trained_by_others.logit_bounds(net, state, x)
    theirs = trained_by_others.torch_logits(net, state, x)
    for engine in ("fast", "plain"):
        assert (abs(net.forward(state, x, engine=engine) - theirs) <= bounds).all()
    assert bounds.max() < 1e-8 * abs(theirs).max() or x.dtype == np.float32
    return bounds, theirs


@pytest.mark.parametrize("name", NETWORKS)
def test_logits_of_every_kind_of_network_are_pytorchs_within_the_bound(name):
    net = NETWORKS[name]
    state, x = trained(net), draws.standard_normal(0, "test/others", (3, 17, 17, 3))
    bounds, theirs = check(net, state, x)
    other = pcmref.ResNet(**net.config() | {"eps": net.eps + 1e-6}).forward(state, x)
    assert (abs(other - theirs) > bounds).any()  # a millionth more in eps is seen


@pytest.mark.parametrize("name", NETWORKS)
def test_the_bound_holds_for_what_rounding_does(name):
    """Logits of float32 and float64 against those of longdouble, which are exact beside them."""
    net = NETWORKS[name]
    x = draws.standard_normal(1, "test/others", (3, 17, 17, 3)).astype(np.float32)
    state = {k: v.astype(np.float32) for k, v in trained(net).items()}
    exact = net.forward(state, x.astype(np.longdouble), engine="plain")
    for dtype in (np.float32, np.float64):
        bounds = np.finfo(dtype).eps / 2 * trained_by_others.logit_bounds(net, state, x.astype(dtype))
        for engine in ("fast", "plain"):
            assert (abs(net.forward(state, x.astype(dtype), engine=engine) - exact) <= bounds).all()


@pytest.mark.parametrize("name", ["resnet20-12fca82f.th", "resnet32-d509ac18.th"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_networks_trained_by_others_give_pytorchs_logits(name, dtype):
    if not (CHECKPOINTS / name).exists():
        pytest.skip(f"{name} is not in {CHECKPOINTS}: skipped")
    net, state = pcmref.load(CHECKPOINTS / name)
    assert net == pcmref.ResNet(3, 10, (16, 32, 64), (net.blocks[0],) * 3, shortcut="pad")
    check(net, state, draws.standard_normal(0, "test/others", (4, 32, 32, 3)).astype(dtype))
