"""pcmref's forward, backward, input gradient and updated batch-norm statistics against PyTorch autograd, in float64.

    python -m validation.peers.against_torch

Prints the largest difference of each kind, relative to the largest value of its array; exit status 1 above 1e-10.
"""

import sys

import numpy as np
import torch

import pcmref
from pcmref.nn import functional as F
from validation.peers.torch_network import torch_resnet

# Not derived: the running error bound of 32 layers exceeds the values themselves. Both sides' rounding leaves 5e-14 (joshi32);
# the smallest mistake tried, an epsilon of batch norm 2 % off, changes the loss by 5e-9, a biased running variance by 8e-4.
LIMIT = 1e-10


def worst_difference(got: dict, wanted: dict) -> float:
    """The largest |got - wanted| / max|wanted| over the arrays of a dict; names must be the same."""
    assert got.keys() == wanted.keys(), got.keys() ^ wanted.keys()
    return max(float(np.abs(got[k] - wanted[k]).max() / np.abs(wanted[k]).max()) for k in wanted)


def compare(net: pcmref.ResNet, size: int, n: int = 6, seed: int = 0) -> dict[str, float]:
    """{what: worst relative difference} for one random state, batch and labels."""
    state = net.init(seed, np.float64)
    for name, shape in net.shapes().items():  # batch norm away from its initial 1 and 0
        if ".bn" in name or "bn1" in name or "downsample.1" in name:
            state[name] = pcmref.draws.uniform(seed, f"against_torch/{name}", shape) + 0.5
    x = pcmref.draws.standard_normal(seed, "against_torch/x", (n, size, size, net.in_channels))
    labels = pcmref.draws.integers(seed, "against_torch/labels", net.num_classes, (n,))

    logits, tape = net.forward(state, x, train=True)
    grads = net.backward(state, tape, F.softmax_cross_entropy_backward(logits, labels))
    loss = F.softmax_cross_entropy(logits, labels)
    updated = net.updated_state(state, tape)

    model = torch_resnet(net).double()
    model.load_state_dict({k: torch.from_numpy(v.copy()) for k, v in state.items()})
    x_torch = torch.from_numpy(x.transpose(0, 3, 1, 2).copy()).requires_grad_()
    with torch.no_grad():
        eval_logits = model.eval()(x_torch).numpy()
    torch_logits = model.train()(x_torch)
    torch_loss = torch.nn.functional.cross_entropy(torch_logits, torch.from_numpy(labels))
    torch_loss.backward()
    torch_grads = {k: p.grad.numpy() for k, p in model.named_parameters()}
    torch_grads["input"] = x_torch.grad.numpy().transpose(0, 2, 3, 1)
    buffers = {k: b.numpy() for k, b in model.named_buffers() if "running" in k}
    return {
        "logits, evaluation": worst_difference({"": net.forward(state, x)}, {"": eval_logits}),
        "logits, training": worst_difference({"": logits}, {"": torch_logits.detach().numpy()}),
        "loss": worst_difference({"": np.array(loss)}, {"": np.array(torch_loss.item())}),
        "input gradient": worst_difference({"": grads["input"]}, {"": torch_grads["input"]}),
        "all gradients": worst_difference(grads, torch_grads),
        "running statistics": worst_difference({k: updated[k] for k in buffers}, buffers),
    }


def main() -> int:
    print(f"pcmref {pcmref.__version__}, torch {torch.__version__}, float64; worst relative difference (limit {LIMIT:g})")
    failed = False
    networks = {
        "joshi32": (pcmref.ResNet.joshi32(), 32),
        "resnet8": (pcmref.ResNet.resnet8(), 28),
        "imagenet34": (pcmref.ResNet.imagenet34(), 65),
        "resnet20, pad": (pcmref.ResNet(3, 10, (16, 32, 64), (3, 3, 3), shortcut="pad"), 32),
        "bottleneck": (pcmref.ResNet(3, 10, (16, 32), (2, 2), block="bottleneck"), 17),
    }
    for name, (net, size) in networks.items():
        for what, difference in compare(net, size).items():
            failed |= not difference <= LIMIT
            print(f"  {name:14} {what:22} {difference:.1e}{'' if difference <= LIMIT else '   TOO LARGE'}", flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
