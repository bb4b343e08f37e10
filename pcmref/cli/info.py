"""Say what a file holds; without a file, list what ships with pcmref.

Reads our networks, chips, image sets and results (the checksum is verified), and PyTorch, safetensors and .npz files.

examples:
  pcmref info
  pcmref info resnet32-fashionmnist-noise
  pcmref info out/retention.h5
"""

import argparse
import json

import numpy as np

from pcmref import store
from pcmref.errors import printable
from pcmref.files import foreign, networks
from pcmref.pcm.mapping import crossbars


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", nargs="?", help="a shipped name or a path (.h5 of pcmref, PyTorch's, .safetensors, .npz)")


def run(arguments: argparse.Namespace) -> int:
    if arguments.file is None:
        for name, path in networks.shipped().items():
            print(f"{name:36} {path.stat().st_size / 1e6:6.2f} MB")
        return 0
    path = networks.find(arguments.file)
    if foreign.kind_of(path) == "pcmref":
        kind, meta, arrays = store.read_any(path)
        is_network = kind == "network"
    else:
        kind, meta, arrays = foreign.kind_of(path), {}, foreign.flat(foreign.read(path))
        is_network = any(map(foreign.is_convolution, arrays, arrays.values()))
    print(f"{path}\nkind: {printable(kind)}")
    if is_network:
        file = networks.read_network(path)
        _print_network(file)
        if kind != "network":
            print(file.assumed())
    else:
        _print_values(meta)
        for name, array in arrays.items():
            print(f"  {printable(name):44} {array.dtype!s:8} {list(array.shape)}")
    return 0


def _print_network(file: networks.NetworkFile) -> None:
    net = file.net
    weights = sum(np.size(file.state[name]) for names in crossbars(file.state).values() for name in names)
    print(f"architecture: {file.architecture()}")
    print(f"images: {net.in_channels} channel(s); classes: {net.num_classes}")
    print(f"synaptic weights: {weights:,} on {2 * weights:,} devices, {len(crossbars(file.state))} crossbars")
    _print_values(file.about)


def _print_values(values: dict) -> None:
    for key, value in values.items():
        if isinstance(value, list) and value and all(isinstance(entry, dict) for entry in value):
            print(f"{printable(key)}:")
            for entry in value:
                parts = (f"{k} {v:.5g}" if isinstance(v, float) else f"{k} {v}" for k, v in entry.items())
                print("  " + printable(", ".join(parts)))
        else:
            print(printable(f"{key}: {value if isinstance(value, str) else json.dumps(value)}"))
