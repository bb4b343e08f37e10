"""Show a device model's constants, or fit them to measured conductances, as a file to hand to --device.

A device file is TOML. It names the device and the profile that it is based on, and holds the constants that differ.
Measurements are a CSV file with the columns device, target_us, t_s, g_us: a row a reading, conductances in uS, times in seconds
since programming, any number of times and of repeated readings.

examples:
  pcmref device show
  pcmref device show joshi2020 --out mine.toml
  pcmref device fit measurements.csv --out mine.toml
  pcmref retention resnet8-fashionmnist-noise --device mine.toml
"""

import argparse
from pathlib import Path

from pcmref import store
from pcmref.cli.progress import ProgressBar
from pcmref.experiments import tables
from pcmref.experiments.pictures import plot_fit
from pcmref.files import devices
from pcmref.pcm import constants
from pcmref.pcm.fit import DeviceFit, fit_device

DEVICE_HELP = f"a profile ({', '.join(constants.profiles())}) or a device file (.toml)"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    show = actions.add_parser("show", help="every constant, with unit, grade and source; without a device, the profiles")
    show.add_argument("device", nargs="?", help=DEVICE_HELP)
    show.add_argument("--out", type=Path, help="write it to this file")
    fit = actions.add_parser("fit", help="the constants that measured conductances tell, with their errors")
    fit.add_argument("measurements", type=Path, help="a CSV file: device, target_us, t_s, g_us")
    fit.add_argument("--out", type=Path, required=True, help="the device file to write; a picture goes beside it (.png)")
    fit.add_argument("--based-on", default=constants.PAPER, help=f"for what the data cannot tell: {DEVICE_HELP}")
    fit.add_argument("--g-max", type=float, metavar="US", help="G_max in uS (default: the largest target)")


def run(arguments: argparse.Namespace) -> int:
    return {"show": _show, "fit": _fit}[arguments.action](arguments)


def _show(arguments: argparse.Namespace) -> int:
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


def _fit(arguments: argparse.Namespace) -> int:
    base, readings = devices.read_device(arguments.based_on), devices.read_measurements(arguments.measurements)
    with ProgressBar("fit", "level") as bar:
        fit = fit_device(readings, base, arguments.out.stem, arguments.g_max, progress=bar.update)
    source = f"fitted to {arguments.measurements.name}: {len(readings.target_us):,} devices"
    store.write_text(arguments.out, devices.fitted(fit, arguments.based_on, source))
    print(tables.aligned(_lines(fit, base)))
    for line in (*fit.notes, *(fit.misfits or ["the readings are distributed as the fitted laws"])):
        print(line)
    picture = arguments.out.with_suffix(".png")
    plot_fit(fit, picture)
    print(f"written: {arguments.out}, {picture}")
    return 0


def _lines(fit: DeviceFit, base) -> list[list[str]]:
    """A line a number of the fit: its value, its 95 % interval, and the base's."""
    lines = [["constant", "value", "95 %", base.name]]
    for e in fit.estimates:
        of_base = getattr(base, e.constant)
        if e.index is not None:
            of_base = of_base[e.index] if e.index < len(of_base) else 0.0
        name = e.constant if e.index is None else f"{e.constant}[{e.index}]"
        told = "not told by the data" if e.low is None else f"{e.low:.4g} to {e.high:.4g}"
        lines.append([name, f"{e.value:.4g}", told, f"{of_base:.4g}"])
    return lines
