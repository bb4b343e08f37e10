"""What costs a network on simulated phase-change memory its accuracy: which crossbar, which kind of noise.

Every chip is programmed once and read --reads times at --time. The same readings are evaluated with one crossbar on the chip
and all others digital, and the reverse; and again without programming noise, without drift, without read noise. Then Gaussian
noise of growing strength on the weights alone. Prints tables; writes sensitivity.csv and .png. Until these are written,
sensitivity.part.h5 keeps every chip that is measured; --resume goes on from it to the same results.

examples:
  pcmref sensitivity resnet8-fashionmnist-noise
  pcmref sensitivity resnet32-fashionmnist-baseline --time 20s --chips 8 --reads 5 --executor processes --resume
"""

import argparse
from dataclasses import asdict
from functools import partial
from pathlib import Path

from pcmref import library
from pcmref.cli import images
from pcmref.cli.resumed_study import Kept, finish, identity, make_folder, run_study
from pcmref.cli.resumed_study import add_arguments as add_running
from pcmref.cli.retention import PROFILES
from pcmref.errors import whole_number
from pcmref.sensitivity import conditions, sensitivity
from pcmref.study import COMPENSATIONS
from pcmref.times import parse_time


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("network", help="a shipped network's name (see `pcmref info`), a file of pcmref.save, or a state in an .npz")
    images.add_arguments(add, n_images=500)
    add("--time", default="1d", help="time since programming (default: %(default)s)")
    add("--compensation", choices=COMPENSATIONS, default="gdc", help="of what is on the chip (default: %(default)s)")
    add("--chips", type=int, default=3, help="chips to program (default: %(default)s)")
    add("--reads", type=int, default=3, help="readings of every chip (default: %(default)s)")
    add("--profile", choices=PROFILES, default="joshi2020", help="device model (default: %(default)s)")
    add_running(add)


def run(arguments: argparse.Namespace) -> int:
    file, model = library.read_network(arguments.network), PROFILES[arguments.profile]()
    x, labels, calibration = images.evaluation(arguments, file, arguments.compensation == "adabs")
    make_folder(arguments.out)
    reads = whole_number("--reads", arguments.reads, 1)
    design = {"t_s": parse_time(arguments.time), "compensation": arguments.compensation, "reads": reads, "seed": arguments.seed}
    arrays = {f"state/{name}": value for name, value in file.state.items()} | {"x": x, "labels": labels}
    arrays |= {} if calibration is None else {"calibration": calibration}
    settings = {"study": "sensitivity", "model": asdict(model), "network": file.net.config(), **design}
    kept = Kept(arguments.out / "sensitivity.part.h5", identity(arrays, settings), len(conditions(file.state, reads)))
    study = partial(
        sensitivity,
        file.net,
        file.state,
        model,
        x,
        labels,
        n_chips=arguments.chips,
        x_calibration=calibration,
        name=Path(arguments.network).stem,
        eta=(file.about.get("recipe") or {}).get("eta"),
        engine=arguments.engine,
        workers=arguments.workers if arguments.executor is None else 1,
        **design,
    )
    result = run_study("sensitivity", study, kept, arguments)
    print(f"{result.name}: accuracy in %, {len(x):,} images, chips: {arguments.chips}, reads: {reads}\n\n{result.table()}")
    result.to_csv(arguments.out / "sensitivity.csv")
    finish(kept, result, arguments.out / "sensitivity", "csv")
    return 0
