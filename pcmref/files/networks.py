"""Networks in files: what ships with pcmref, and one's own.

A shipped file lies in `reference_weights/`, beside the package in a checkout and inside it in a wheel.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pcmref import store
from pcmref.errors import FileError, MissingExtraError, PcmrefError, printable
from pcmref.fast.resnet import ResNet
from pcmref.files import foreign
from pcmref.nn.functional import BN_EPS

_FOLDERS = tuple(folder / "reference_weights" for folder in Path(__file__).parents[1:3])


def shipped() -> dict[str, Path]:
    """{name: path} of every shipped file, networks and images."""
    return {path.stem: path for folder in _FOLDERS if folder.is_dir() for path in sorted(folder.glob("*.h5"))}


def find(name_or_path, folders: bool = False) -> Path:
    """The path meant by a shipped name or a path, of a folder too if asked; else FileError, which lists the names."""
    try:
        path = Path(name_or_path)
        if path.is_file() or (folders and path.is_dir()):
            return path
        is_folder = path.is_dir()
    except (OSError, TypeError, ValueError) as error:
        raise FileError(f"{str(name_or_path)[:80]!r} is no shipped name and no path: {error}") from error
    files = shipped()
    if str(name_or_path) in files:
        return files[str(name_or_path)]
    if is_folder:
        raise FileError(f"{path}: is a folder; name a file in it")
    names = ", ".join(sorted(files)) or "none"
    raise FileError(f"{name_or_path}: no such file, and no shipped file of that name; there are {names}")


@dataclass(frozen=True)
class NetworkFile:
    """A network as a file holds it: the architecture, its state, and what the file says about how it was made."""

    net: ResNet
    state: dict[str, np.ndarray]
    about: dict

    def architecture(self) -> str:
        """The network in a line."""
        net = self.net
        kinds = f"{net.block} blocks {net.blocks}, {net.shortcut} shortcuts, batch norm's eps {net.eps:g}"
        return f"stem {net.stem}, widths {net.widths}, {kinds}"

    def assumed(self) -> str:
        """What a state by itself does not say, and how it was taken."""
        net, told = self.net, ["a max-pool after a 7x7 first convolution and after no other"]
        if net.eps == BN_EPS:
            told.append("batch norm's eps 1e-5 (`pcmref import --eps` takes another)")
        if net.block == "bottleneck":
            told.append(
                "the stride of a bottleneck in its 3x3 convolution (torchvision; He et al. 2016 have it in the first 1x1)"
            )
        if net.shortcut == "pad" and "zeros" not in self.about:
            told.append("a shortcut's channels of zeros half before and half behind (`pcmref import --zeros behind`)")
        return f"what no state says is taken as usual: {', '.join(told)}"


def check_normalisation(where, values, channels: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """(mean, std) of images/255 as plain numbers, one a channel; FileError where `values` is no such pair."""
    try:
        mean, std = (tuple(float(v) for v in np.ravel(part)) for part in values)
        fits = len(mean) == len(std) == channels and np.isfinite((mean, std)).all()
    except (TypeError, ValueError, OverflowError):
        fits = False
    if not fits:
        raise FileError(f"{where}: 'mean' and 'std' must be {channels} finite numbers each, one a channel")
    if min(mean) < 0 or max(mean) > 1 or min(std) <= 0 or max(std) > 1:
        raise FileError(
            f"{where}: 'mean' must lie in 0..1 and 'std' in 0..1, above 0: they are of images/255; divide them by 255 where "
            f"they are of pixels from 0 to 255; got {mean} and {std}"
        )
    return mean, std


def save(path, net: ResNet, state: dict, meta: dict | None = None) -> None:
    """Write architecture, state and a description (plain values) to an HDF5 file, atomically; StateError, FileError.

    >>> net = pcmref.ResNet.resnet8()
    >>> pcmref.save("mine.h5", net, net.init(seed=1), {"note": "untrained"})
    """
    net.check_state(state)
    about = meta or {}
    if "normalisation" in about:
        check_normalisation(path, about["normalisation"], net.in_channels)
    store.write(path, "network", {"network": net.config(), "about": about}, state)


def read_network(name_or_path, zeros_behind: bool = False) -> NetworkFile:
    """A network from a shipped name, a file of `save`, or a state in a file of others (architecture from its shapes).

    PyTorch's files, safetensors and .npz are told by content. What was renamed or left out is said on stderr. `zeros_behind` is
    for `foreign.read_state`. FileError.
    """
    path = find(name_or_path)
    try:
        if foreign.kind_of(path) != "pcmref":
            state, said = foreign.read_state(path, zeros_behind)
            net, about = ResNet.of_state(state), {}
            if said:
                print(printable(f"{path}: {said}"), file=sys.stderr)
        else:
            meta, state = store.read(path, "network")
            config, about = meta.get("network"), meta.get("about", {})
            if not isinstance(config, dict) or not isinstance(about, dict):
                raise FileError(f"{path}: the description lacks 'network' or 'about'")
            net = ResNet(**{k: tuple(v) if isinstance(v, list) else v for k, v in config.items()})
        if "normalisation" in about:
            check_normalisation(path, about["normalisation"], net.in_channels)
        net.check_state(state)
    except (FileError, MissingExtraError):
        raise
    except (PcmrefError, TypeError) as error:
        raise FileError(f"{path}: does not hold a network: {error}") from error
    return NetworkFile(net, {name: state[name] for name in net.shapes()}, about)


def load(name_or_path) -> tuple[ResNet, dict[str, np.ndarray]]:
    """(net, state) of a shipped network by name, of a file of `save`, or of a state in a file of others; FileError.

    >>> net, state = pcmref.load("resnet8-fashionmnist-noise")
    >>> net.in_channels, net.blocks, state["fc.weight"].shape
    (1, (1, 1, 1), (10, 56))
    """
    file = read_network(name_or_path)
    return file.net, file.state
