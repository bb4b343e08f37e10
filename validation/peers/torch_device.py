"""The loss after one day of an independent device model, in PyTorch, beside pcmref's: the same network, the same images.

    python -m validation.peers.torch_device resnet8-fashionmnist-noise [--images 1000 --chips 10 --reads 2]
    python -m validation.peers.torch_device resnet32-cifar10-noise --data cifar-10-batches-bin

Devices, drift, readings, both compensations and what evaluates are PyTorch's, with its own random numbers; of pcmref there are
the weights, the images, the network's description and the other side of the comparison. With --data, a folder of CIFAR-10's
official files, pcmref's side is what results/ keeps, on the same images where that folder is the one it was measured with;
else it is measured here. Exit status 1 where a mean differs by more than
chance: Welch's t on the chips' means, 1 % for the three comparisons together. The network runs on a GPU where there is one.
"""

import argparse
import math
import sys

import numpy as np
import torch
from scipy import stats

import pcmref
from pcmref.experiments.driver import COMPENSATIONS
from pcmref.files import networks
from validation.peers.torch_network import DEVICE, torch_resnet

DAY_S, T_0_S, T_READ_S, G_MAX_US = 86_400.0, 20.0, 250e-9, 25.0
LEVEL = 0.01 / len(COMPENSATIONS)


class Crossbar:
    """Weights as pairs of devices [2, weights]: programmed once, read as often as asked."""

    def __init__(self, weights: torch.Tensor, generator: torch.Generator):
        self.generator, self.scale = generator, G_MAX_US / weights.abs().max()
        target = (self.scale * torch.stack([weights, -weights])).clamp(min=0)
        x = target / G_MAX_US
        sigma = (0.26348 + 1.9650 * x - 1.1731 * x**2).clamp(min=0)
        self.programmed = (target + sigma * self._normal(x)).clamp(min=0)
        mean, std = -0.0155 * x.log() + 0.0244, -0.0125 * x.log() - 0.0059
        self.nu = mean.clamp(0.049, 0.1) + std.clamp(0.008, 0.045) * self._normal(x)
        self.q = (0.0088 * x**-0.65).clamp(max=0.2)

    def _normal(self, like: torch.Tensor) -> torch.Tensor:
        return torch.randn(like.shape, generator=self.generator, dtype=like.dtype)

    def read(self, t_s: float) -> torch.Tensor:
        """Conductances in uS at t_s: drifted, with 1/f noise, not below 0."""
        drifted = self.programmed * (t_s / T_0_S) ** -self.nu
        band = math.sqrt(math.log((t_s + T_READ_S) / (2 * T_READ_S)))
        return (drifted * (1 + self.q * band * self._normal(drifted))).clamp(min=0)


def crossbars(model) -> list[list[torch.nn.Parameter]]:
    """A convolution is a crossbar; the last layer's biases are one more row of its."""
    modules = [m for m in model.modules() if isinstance(m, torch.nn.Conv2d | torch.nn.Linear)]
    return [[p for p in (module.weight, module.bias) if p is not None] for module in modules]


def right(model, x: torch.Tensor, labels: torch.Tensor) -> float:
    """The share of the images that the network classifies right."""
    model.eval()
    return float((torch.cat([model(part).argmax(1) for part in x.split(250)]) == labels).double().mean())


def recalibrate(model, x: torch.Tensor, batch_size: int = 200) -> None:
    """Batch norm's running statistics anew, the mean over x's batches: a batch counts by its images."""
    norms, seen = [m for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d)], 0
    model.train()
    for batch in x.split(batch_size):
        seen += len(batch)
        for norm in norms:
            norm.momentum = len(batch) / seen
        model(batch)


@torch.no_grad()
def on_a_chip(net, state: dict, x, labels, calibration, seed: int, reads: int) -> np.ndarray:
    """A chip's accuracies after a day, [reads, COMPENSATIONS]."""
    model, generator = torch_resnet(net).to(DEVICE), torch.Generator().manual_seed(seed)
    model.load_state_dict(state)
    bars = crossbars(model)
    chip = [Crossbar(torch.cat([p.double().flatten().cpu() for p in bar]), generator) for bar in bars]
    found = []
    for _ in range(reads):
        readings = [(bar.read(T_0_S), bar.read(DAY_S)) for bar in chip]
        found.append([])
        for compensation in COMPENSATIONS:
            model.load_state_dict(state)
            for parameters, bar, (first, now) in zip(bars, chip, readings, strict=True):
                weights = (now[0] - now[1]) / bar.scale * (first.sum() / now.sum() if compensation == "gdc" else 1)
                for p, part in zip(parameters, weights.split([p.numel() for p in parameters]), strict=True):
                    p.copy_(part.view_as(p))
            if compensation == "adabs":
                recalibrate(model, calibration)
            found[-1].append(right(model, x, labels))
    return np.array(found)


def theirs(file, x, labels, calibration, chips: int, reads: int) -> tuple[float, np.ndarray]:
    """PyTorch's (accuracy in software, accuracies [chips, reads, COMPENSATIONS])."""
    state = {name: torch.from_numpy(np.array(value)) for name, value in file.state.items()}
    x, calibration = (torch.from_numpy(part.transpose(0, 3, 1, 2).copy()).to(DEVICE) for part in (x, calibration))
    labels, model = torch.from_numpy(labels.astype(np.int64)).to(DEVICE), torch_resnet(file.net).to(DEVICE)
    model.load_state_dict(state)
    with torch.no_grad():
        software = right(model, x, labels)
    return software, np.stack([on_a_chip(file.net, state, x, labels, calibration, k, reads) for k in range(chips)])


def compare(ours: np.ndarray, others: np.ndarray) -> tuple[float, float, bool]:
    """(difference of the means, its standard error, whether chance makes it): of losses [chips, reads], by chips' means."""
    a, b = others.mean(1), ours.mean(1)
    found = stats.ttest_ind(a, b, equal_var=False)
    error = math.sqrt(a.var(ddof=1) / len(a) + b.var(ddof=1) / len(b))
    return float(a.mean() - b.mean()), error, bool(error == 0 and a.mean() == b.mean() or found.pvalue >= LEVEL)


def kept_on_cifar(name: str, folder: str):
    """(pcmref's software accuracy, accuracies, evaluation) as experiments/cifar10.py kept them, for their images."""
    from validation.experiments import cifar10
    from validation.experiments.studies import result_of

    result = result_of(f"cifar10-retention-{name}")
    found = cifar10.KeptCifar.__new__(cifar10.KeptCifar)
    found.folder, found.about, found.file = folder, result.settings, networks.read_network(name)
    ours = np.stack([result.values(c, DAY_S) for c in COMPENSATIONS], -1)
    return result.software_accuracy, ours, found.evaluation


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("network")
    parser.add_argument("--data", help="folder of CIFAR-10's official files: compare with what is kept, on its images")
    parser.add_argument("--images", type=int, default=1000, help="without --data (default: %(default)s)")
    parser.add_argument("--chips", type=int, default=10, help="default: %(default)s")
    parser.add_argument("--reads", type=int, default=2, help="default: %(default)s")
    arguments = parser.parse_args()
    file, size = networks.read_network(arguments.network), (arguments.chips, arguments.reads)
    if arguments.data:
        software, ours, evaluation = kept_on_cifar(arguments.network, arguments.data)
    else:
        data = pcmref.load_images("fashionmnist-evaluation")
        x, labels = data.normalized(data.images[: arguments.images]), data.labels[: arguments.images]
        evaluation = x, labels, data.normalized(data.calibration)
        options = {"times_s": (DAY_S,), "n_chips": size[0], "reads": size[1], "x_calibration": evaluation[2]}
        result = pcmref.retention(file.net, file.state, pcmref.PCMModel.joshi2020(), x, labels, **options)
        software, rows = result.software_accuracy, {row[1:5]: row.accuracy for row in result.rows}
        of = [[[rows[c, DAY_S, k, read] for c in COMPENSATIONS] for read in range(size[1])] for k in range(size[0])]
        ours = np.array(of)
    in_torch, others = theirs(file, *evaluation, *size)
    print(f"pcmref {pcmref.__version__}, torch {torch.__version__}: {arguments.network}, {len(evaluation[0]):,} images")
    print(f"software: pcmref {100 * software:.2f} %, PyTorch {100 * in_torch:.2f} %")
    print(f"chips and reads: pcmref {ours.shape[:2]}, PyTorch {others.shape[:2]}; points lost after a day, means over both:")
    fine = []
    for i, compensation in enumerate(COMPENSATIONS):
        losses = [100 * (base - found[..., i]) for base, found in ((software, ours), (in_torch, others))]
        difference, error, chance = compare(*losses)
        means = f"pcmref {losses[0].mean():6.2f}  PyTorch {losses[1].mean():6.2f}"
        print(f"{compensation:>6}: {means}  difference {difference:+.2f}, its standard error {error:.2f}")
        fine.append(chance)
    return int(not all(fine))


if __name__ == "__main__":
    sys.exit(main())
