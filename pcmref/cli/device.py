"""Show a device model's constants, as a file to change and to hand to --device.

A device file is TOML. It names the device and the profile that it is based on, and holds the constants that differ.

examples:
  pcmref device show
  pcmref device show joshi2020 --out mine.toml
  pcmref retention resnet8-fashionmnist-noise --device mine.toml
"""

import argparse
from pathlib import Path

from pcmref import store
from pcmref.files import devices
from pcmref.pcm import constants

DEVICE_HELP = f"a profile ({', '.join(constants.profiles())}) or a device file (.toml)"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    show = actions.add_parser("show", help="every constant, with unit, grade and source; without a device, the profiles")
    show.add_argument("device", nargs="?", help=DEVICE_HELP)
    show.add_argument("--out", type=Path, help="write it to this file")


def run(arguments: argparse.Namespace) -> int:
    if arguments.device is None:
        for name in constants.profiles():
            print(f"{name:12} {constants.description_of(name).get('source', 'the paper, as its authors document it')}")
        return 0
    text = devices.described(arguments.device)
    if arguments.out is None:
        print(text, end="")
    else:
        store.write_text(arguments.out, text)
        print(f"written: {arguments.out}")
    return 0
