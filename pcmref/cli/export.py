"""Write a network's state for other tools: .npz, .pt (needs torch) or pcmref's own .h5, by the file's ending.

Names and layouts are PyTorch's: `model.load_state_dict(torch.load("net.pt"))` takes it.

examples:
  pcmref export resnet32-fashionmnist-noise net.npz
  pcmref export net.h5 net.pt
"""

import argparse
from pathlib import Path

import numpy as np

from pcmref import store
from pcmref.errors import FileError, MissingExtraError
from pcmref.files import networks
from pcmref.nn.functional import BN_EPS


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("network", help="a shipped network's name or a file")
    parser.add_argument("target", type=Path, help="the file to write: .npz, .pt or .h5")


def run(arguments: argparse.Namespace) -> int:
    file, target = networks.read_network(arguments.network), arguments.target
    if target.suffix == ".h5":
        networks.save(target, file.net, file.state, file.about)
    elif target.suffix == ".npz":
        with store.replacing(target) as temporary, open(temporary, "wb") as stream:
            np.savez(stream, **file.state)
    elif target.suffix == ".pt":
        _to_torch(target, file.state)
    else:
        raise FileError(f"{target}: ends in neither .npz, .pt nor .h5")
    left_out = "" if target.suffix == ".h5" or file.net.eps == BN_EPS else f"; batch norm's eps {file.net.eps:g} is not in it"
    print(f"{target}: {len(file.state)} arrays{left_out}")
    return 0


def _to_torch(target: Path, state: dict[str, np.ndarray]) -> None:
    try:
        import torch
    except ImportError as error:
        raise MissingExtraError("writing .pt files needs torch: pip install torch") from error
    with store.replacing(target) as temporary:
        native = {name: value.astype(value.dtype.newbyteorder("=")) for name, value in state.items()}  # torch knows no other
        torch.save({name: torch.from_numpy(value) for name, value in native.items()}, temporary)
