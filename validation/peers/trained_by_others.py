"""Networks that others trained: counted right on CIFAR-10's test images by pcmref and PyTorch, and their logits compared.

    python -m validation.peers.trained_by_others FOLDER [--data cifar-10-batches-bin] [--dtype float64] [--bounded 200]

FOLDER holds resnet20-12fca82f.th and resnet32-d509ac18.th of akamaster/pytorch_resnet_cifar10, as they are. Every test image is
classified; the difference of the logits is held against `logit_bounds` of the first images. Exit status 1 where a count is not
AUTHORS', where one of the bounded images is beyond its bound, or any other beyond the smallest of these.
"""

import argparse
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

import pcmref
from pcmref.fast import functional as F
from validation.peers.torch_network import torch_resnet

AUTHORS = {"resnet20-12fca82f.th": 9173, "resnet32-d509ac18.th": 9263}  # right of 10,000, as their author states
NORMALISATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Evaluated(NamedTuple):
    """What a layer's backward in evaluation needs, and the roundoff in its sums in units of u."""

    x: np.ndarray
    y: np.ndarray
    roundoff: np.ndarray


def layer(x, state, conv, bn, stride=1, plus=None, relu=True, eps=1e-5):
    """y = relu(scale (conv2d(x) - mean) + bias + plus), scale = weight/sqrt(var + eps); and how far roundings may move it.

    A sum of K products, in any order, is off by at most K u sum|w x| to first order (Higham 2002, section 3.1). scale takes
    four roundings, its product, the mean, the bias and the shortcut one each: no more than 8 meet any term, folded or not.
    """
    w = state[f"{conv}.weight"]
    weight, bias, mean, var = (state[f"{bn}.{name}"] for name in ("weight", "bias", "running_mean", "running_var"))
    scale, padding = weight / np.sqrt(var + eps), w.shape[2] // 2
    plus = np.zeros((), x.dtype) if plus is None else plus
    y = scale * (F.conv2d(x, w, stride, padding) - mean) + bias + plus
    products = abs(scale) * F.conv2d(abs(x), abs(w), stride, padding)
    roundoff = (w[0].size + 8) * products + 8 * (abs(scale * mean) + abs(bias)) + abs(plus)
    return (y := np.maximum(y, 0) if relu else y), Evaluated(x, y, roundoff)


def logit_bounds(net: pcmref.ResNet, state: dict, x: np.ndarray) -> np.ndarray:
    """How far rounding may move each logit, in units of the roundoff u, to first order: [N, classes].

    Each layer's roundoff times |d logit / d that layer's sums|, added up (Linnainmaa 1976): between a rounding and the logits
    stands the network's derivative, not a product of norms. Two programs of the same network may differ by twice this.
    """
    state = {name: value.astype(x.dtype) for name, value in state.items()}
    logits, tape = net._run(state, x, lambda *args, **options: layer(*args, eps=net.eps, **options))
    features, w = tape["features"], abs(state["fc.weight"])
    pixels = np.prod(tape["last"][1:3])
    bounds = (pixels + len(w[0]) + 2) * abs(features) @ w.T + abs(state["fc.bias"])

    def layer_backward(dy, state, conv, bn, saved, stride=1, plus=None, relu=True):
        d = np.where(saved.y > 0, dy, 0) if relu else dy
        bounds[:, k] += (abs(d) * saved.roundoff).sum((1, 2, 3))
        scale = state[f"{bn}.weight"] / np.sqrt(state[f"{bn}.running_var"] + x.dtype.type(net.eps))
        w = state[f"{conv}.weight"]
        dx, _ = F.conv2d_backward(d * scale, saved.x, w, stride, w.shape[2] // 2)
        return dx if plus is None else dx + plus, d, {}

    for k in range(net.num_classes):
        net._backward(tape, np.eye(net.num_classes, dtype=x.dtype)[k] * np.ones_like(logits), layer_backward)
    return bounds


def torch_logits(net: pcmref.ResNet, state: dict, x: np.ndarray) -> np.ndarray:
    """The logits of the same state in PyTorch, in x's dtype."""
    dtype = torch.from_numpy(x[:0]).dtype
    model = torch_resnet(net).to(dtype).eval()
    model.load_state_dict({name: torch.from_numpy(value.copy()) for name, value in state.items()})
    with torch.no_grad():
        parts = (torch.from_numpy(x[i : i + 250].transpose(0, 3, 1, 2).copy()) for i in range(0, len(x), 250))
        return np.concatenate([model(part).numpy() for part in parts])


def compare(path: Path, images: np.ndarray, labels: np.ndarray, bounded: int) -> bool:
    """Count and compare one network, and print; whether it is as it should be."""
    net, state = pcmref.load(path)
    ours, theirs = pcmref.predict(net, state, images), torch_logits(net, state, images)
    right = [int((logits.argmax(1) == labels).sum()) for logits in (ours, theirs)]
    u = np.finfo(images.dtype).eps / 2
    differences = abs(ours - theirs)
    bounds = 2 * u * np.concatenate([logit_bounds(net, state, images[i : i + 50]) for i in range(0, bounded, 50)])
    worst, rest = (differences[:bounded] / bounds).max(), differences[bounded:].max(initial=0) / bounds.min()
    print(f"{path.name}: {len(images):,} images, right: pcmref {right[0]:,}, PyTorch {right[1]:,}")
    print(f"  logits up to {abs(ours).max():.1f} differ by at most {differences.max():.1e}, in {images.dtype}")
    print(f"  of the bounds of {bounded} images ({bounds.min():.1e} to {bounds.max():.1e}): at most {worst:.0e}")
    print(f"  of the smallest of these bounds, the other images: at most {rest:.0e}", flush=True)
    return max(worst, rest) <= 1 and right == [AUTHORS[path.name]] * 2


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--data", default="cifar-10-batches-bin")
    parser.add_argument("--dtype", choices=("float64", "float32"), default="float64")
    parser.add_argument("--bounded", type=int, default=200)
    arguments = parser.parse_args()
    data = pcmref.load_images(arguments.data)
    images = data.normalized(data.images, NORMALISATION).astype(arguments.dtype)
    print(f"pcmref {pcmref.__version__}, torch {torch.__version__}")
    fine = [compare(arguments.folder / name, images, data.labels, arguments.bounded) for name in AUTHORS]
    return int(not all(fine))


if __name__ == "__main__":
    sys.exit(main())
