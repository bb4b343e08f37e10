"""Program a network onto simulated phase-change memory and measure its accuracy over time.

Every chip is programmed once; at each time it is read --reads times, and the same reading is evaluated without compensation
(none), with global drift compensation (gdc) and with recalibrated batch norm (adabs). Prints median, range and mean over
chips and reads, in percent, beside the accuracy in software, and how much chips and how much the reads of a chip differ;
writes retention.csv, .h5 and .png. Until these are written, retention.part.h5 keeps every chip that is measured; --resume
goes on from it to the same results.

examples:
  pcmref retention resnet32-fashionmnist-noise --chips 3 --images 1000
  pcmref retention resnet32-fashionmnist-baseline --chips 8 --reads 5 --times 20s --compensations none
  pcmref retention resnet8-fashionmnist-noise --times 20s,1h,1d,30d,1y --compensations none,gdc
  pcmref retention resnet32-fashionmnist-noise --dac 8 --adc 8 --tile 256x256
  pcmref retention resnet8-fashionmnist-noise --fresh-reads --gdc "per column" --images 200
  pcmref retention resnet8-fashionmnist-noise --device hermes
  pcmref retention my-state.npz --data my-images.npz --device my-device.toml --out my-results
  pcmref retention resnet32.th --data cifar-10-batches-bin --mean .485 .456 .406 --std .229 .224 .225
  pcmref retention resnet8-fashionmnist-noise --chips 100 --executor processes --resume

my-state.npz holds a state by PyTorch's names (conv1.weight, bn1.weight, ...); a PyTorch or safetensors file does as well.
my-images.npz holds `images` [N, H, W, C] and `labels` [N]; `calibration` [M, H, W, C], training images for adabs; and, where
the images are uint8 or lie in 0..1, `mean` and `std` of images/255, one number a channel. CIFAR-10's folder or archive, IDX
files and folders of images by class (train/CLASS, test/CLASS) are taken as they are.
"""

import argparse
import re
from dataclasses import replace

from pcmref.cli import images
from pcmref.cli.resumed_study import add_arguments as add_study
from pcmref.cli.resumed_study import alone, finish, run_study
from pcmref.errors import SettingError
from pcmref.experiments.driver import COMPENSATIONS
from pcmref.experiments.retention import RetentionResult, conditions, retention
from pcmref.experiments.times import human_time, parse_time
from pcmref.files import networks
from pcmref.files.devices import read_device
from pcmref.pcm import constants
from pcmref.pcm.crossbar import ADC_LIMIT, Converter, Periphery
from pcmref.pcm.gdc import READ_OUTS
from pcmref.pcm.model import PCMModel

TIMES = "20s,1min,5min,17min,1h,1d,30d,1y"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add_study(add, n_images=1000, reads=1)
    add("--times", help=f"times since programming (default: {TIMES}, from the device's t_0 on)")
    add("--compensations", default=",".join(COMPENSATIONS), help="which to compare (default: %(default)s)")
    add("--tile", help="compute on tiles of this many rows x columns, 256x256 if one of the next three asks")
    add("--dac", type=int, default=None, help="bits of the converters at the inputs of a tile (default: ideal)")
    add("--adc", type=int, default=None, help="bits of the converters at the outputs of a tile (default: ideal)")
    add(
        "--fresh-reads",
        action="store_true",
        help="every matrix-vector product meets a reading of its own, on tiles (its noise repeats on one kind of machine); "
        "independent ones, an upper bound of how far the products of an inference differ, not of what that costs",
    )
    add(
        "--products-apart-s",
        type=float,
        default=None,
        help="with --fresh-reads: seconds between products, for example 1e-6; products share the 1/f noise that readings so "
        "far apart share (default: none of it)",
    )
    add("--gdc", choices=READ_OUTS, default=None, help="what gdc reads out (default: as the device says)")


def run(arguments: argparse.Namespace) -> int:
    periphery = _periphery(arguments.tile, arguments.dac, arguments.adc, arguments.fresh_reads, arguments.products_apart_s)
    model = read_device(arguments.device)
    model = replace(model, gdc_read_out=arguments.gdc or model.gdc_read_out)
    file = networks.read_network(arguments.network)
    compensations = arguments.compensations.split(",")
    evaluation = images.evaluation(arguments, file, "adabs" in compensations)
    times_s = [parse_time(t) for t in (arguments.times or TIMES).split(",")]
    if arguments.times is None:
        times_s = [model.t_0_s, *(t_s for t_s in times_s if t_s > model.t_0_s)]
    design = {"times_s": times_s, "compensations": compensations, "periphery": periphery}
    n_conditions = len(conditions(model, **design))
    with alone(arguments.out, "retention"):
        kept, result = run_study(retention, arguments, file, model, evaluation, n_conditions, **design)
        _report(arguments, result, evaluation, periphery, model)
        result.to_hdf5(arguments.out / "retention.h5")
        finish(kept, result, arguments.out / "retention", "h5")
    return 0


def _report(arguments, result: RetentionResult, evaluation: images.Evaluation, periphery, model: PCMModel) -> None:
    print(
        f"{result.name}: accuracy in %, {result.size()}, device {model.name} ({constants.digest(model)})\n{evaluation.about}\n"
    )
    print(result.table())
    recalibrated = [s.mean for s in result.summary() if s.compensation == "adabs"]
    if recalibrated:
        images.say_if_adabs_is_above(result.software_accuracy, recalibrated[0], evaluation)
    if periphery and periphery.fresh:
        print(f"\n{_read_noise(periphery, model, dict.fromkeys(row.t_s for row in result.rows))}")


def _read_noise(periphery: Periphery, model: PCMModel, times_s) -> str:
    """What the fresh readings of the products have in common."""
    if periphery.products_apart_s is None:
        return "Read noise drawn anew for every product: an upper bound of what differs between them."
    shares = ", ".join(f"{periphery.shared(model, t_s):.2f} at {human_time(t_s)}" for t_s in times_s)
    return f"Products {periphery.products_apart_s:g} s apart; the correlation of their read noise, shared by all: {shares}."


def _periphery(tile: str | None, dac_bits: int | None, adc_bits: int | None, fresh: bool, apart_s) -> Periphery | None:
    """The tiles and converters that were asked for; None where nothing was. SettingError for what is no size."""
    if tile is dac_bits is adc_bits is apart_s is None and not fresh:
        return None
    size = re.fullmatch(r"([1-9]\d{0,5})x([1-9]\d{0,5})", tile or "256x256")
    if size is None:
        raise SettingError(f"--tile {tile!r}: write rows x columns, for example 256x256")
    dac = None if dac_bits is None else Converter.of_bits(dac_bits)
    adc = None if adc_bits is None else Converter.of_bits(adc_bits, ADC_LIMIT)
    return Periphery((int(size[1]), int(size[2])), dac, adc, fresh, apart_s)
