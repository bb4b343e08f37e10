"""Make a network file of pcmref from a state in a file of others: PyTorch's, safetensors or .npz, told by content.

The architecture is read off the names and shapes (a torchvision resnet34 loads by name). Wrappers' prefixes are taken off, a
nested state_dict is found, and what was renamed or left out is said. Reading runs no code of the file.

examples:
  pcmref import resnet34.pth resnet34.h5
  pcmref import state.safetensors net.h5 --mean 0.286 --std 0.353
"""

import argparse
from dataclasses import replace
from pathlib import Path

from pcmref.cli.images import add_normalisation, asked_for
from pcmref.errors import FileError
from pcmref.files import networks


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("source", type=Path, help="a state: a PyTorch file (state_dict, checkpoint), .safetensors or .npz")
    add("target", type=Path, help="the network file to write (.h5)")
    add_normalisation(add, "none; what the network was trained with goes into the file")
    add(
        "--zeros",
        choices=("around", "behind"),
        default="around",
        help="where a shortcut without weights has its channels of "
        "zeros in this state: half before and half behind the others, or all behind (default: %(default)s)",
    )
    add("--eps", type=float, help="batch norm's epsilon that the network was trained with (default: 1e-5, PyTorch's)")


def run(arguments: argparse.Namespace) -> int:
    source, target = arguments.source, arguments.target
    if target.suffix != ".h5" or target.resolve() == source.resolve():
        raise FileError(f"{target}: the target must end in .h5 and be another file than {source}")
    file = networks.read_network(source, arguments.zeros == "behind")
    about = file.about | {"imported_from": source.name}
    if arguments.zeros == "behind":
        about["zeros"] = "all behind in what was imported"
    if asked := asked_for(arguments, file.net.in_channels):
        about["normalisation"] = [list(part) for part in asked]
    if arguments.eps is not None:
        file = replace(file, net=replace(file.net, eps=arguments.eps))
    file = replace(file, about=about)
    networks.save(target, file.net, file.state, file.about)
    print(f"{target}: {file.architecture()}, {file.net.num_classes} classes; {file.assumed()}")
    return 0
