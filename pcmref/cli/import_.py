"""Make a network file of pcmref from a PyTorch state (.pt, needs torch) or a state in an .npz.

Names and layouts stay PyTorch's; the architecture is read off the names and shapes (a torchvision resnet34 loads by name).
A .pt file is read with weights_only=True: it runs no code.
"""

import argparse
from pathlib import Path

import numpy as np

from pcmref import library
from pcmref.errors import FileError, MissingExtraError, PcmrefError
from pcmref.nn.resnet import ResNet

EXAMPLES = """\
examples:
  pcmref import resnet34.pt resnet34.h5
  pcmref import state.npz net.h5 --mean 0.286 --std 0.353
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("source", type=Path, help="a state: .pt (a state_dict) or .npz")
    add("target", type=Path, help="the network file to write (.h5)")
    add("--mean", type=float, nargs="+", help="mean of images/255, one number a channel, that the network was trained with")
    add("--std", type=float, nargs="+", help="standard deviation of images/255, one number a channel")


def run(arguments: argparse.Namespace) -> int:
    if arguments.source.suffix == ".pt":
        net, state = _from_torch(arguments.source)
    else:
        net, state = library.load(arguments.source)
    about = {"imported_from": arguments.source.name}
    if arguments.mean or arguments.std:
        if not len(arguments.mean or ()) == len(arguments.std or ()) == net.in_channels:
            raise FileError(f"--mean and --std need {net.in_channels} number(s) each, one a channel")
        about["normalisation"] = [arguments.mean, arguments.std]
    library.save(arguments.target, net, state, about)
    print(f"{arguments.target}: widths {net.widths}, blocks {net.blocks}, {net.num_classes} classes")
    return 0


def _from_torch(path: Path) -> tuple[ResNet, dict[str, np.ndarray]]:
    """(net, state) of a state_dict saved by torch."""
    try:
        import torch
    except ImportError as error:
        raise MissingExtraError("reading .pt files needs torch: pip install torch") from error
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
        state = {k: v.numpy() for k, v in loaded.items() if not k.endswith("num_batches_tracked")}
        net = ResNet.of_state(state)
        net.check_state(state)
    except PcmrefError as error:
        raise FileError(f"{path}: does not hold a network: {error}") from error
    except Exception as error:  # torch raises what it likes on a file it cannot read
        raise FileError(f"{path}: not a state_dict that torch reads without running code: {error}") from error
    return net, {name: state[name] for name in net.shapes()}
