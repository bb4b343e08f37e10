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

from pcmref.cli import images
from pcmref.cli.resumed_study import add_arguments as add_study
from pcmref.cli.resumed_study import alone, finish, run_study
from pcmref.experiments.driver import COMPENSATIONS
from pcmref.experiments.sensitivity import conditions, sensitivity
from pcmref.experiments.times import parse_time
from pcmref.files import networks
from pcmref.files.devices import read_device
from pcmref.pcm.mapping import crossbars


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add_study(add, n_images=500, reads=3)
    add("--time", default="1d", help="time since programming (default: %(default)s)")
    add("--compensation", choices=COMPENSATIONS, default="gdc", help="of what is on the chip (default: %(default)s)")


def run(arguments: argparse.Namespace) -> int:
    file, model = networks.read_network(arguments.network), read_device(arguments.device)
    evaluation = images.evaluation(arguments, file, arguments.compensation == "adabs")
    design = {"t_s": parse_time(arguments.time), "compensation": arguments.compensation}
    n_conditions, eta = len(conditions(model, crossbars(file.state), **design)), (file.about.get("recipe") or {}).get("eta")
    with alone(arguments.out, "sensitivity"):
        kept, result = run_study(sensitivity, arguments, file, model, evaluation, n_conditions, **design, eta=eta)
        print(f"{result.name}: accuracy in %, {result.size()}\n{evaluation.about}\n\n{result.table()}")
        if arguments.compensation == "adabs":
            images.say_if_adabs_is_above(result.software_accuracy, result.values("chip").mean(), evaluation)
        finish(kept, result, arguments.out / "sensitivity")
    return 0
