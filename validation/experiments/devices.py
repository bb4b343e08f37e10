"""What several devices a sign buy, on the stem alone and everywhere, a day after programming: devices.md.

python -m validation.experiments.devices [--chips 10] [--images 2000] [--engine torch]

The first device of a sign has the same draws in every row, the images are the same: differences are taken chip by chip.
Accuracies are kept in results/; a run goes on from there. With other code, images or networks everything is measured anew.
"""

import argparse
from pathlib import Path

from pcmref import Chip, PCMModel
from pcmref.experiments import tables
from pcmref.experiments.driver import Condition
from validation.experiments.measurements import Kept, add_engine
from validation.experiments.paired import READ_SO, accuracy_cells, difference_cells, heading
from validation.experiments.retention import NETWORKS
from validation.experiments.studies import N_CALIBRATION

PATH = Path(__file__).parents[1] / "devices.md"
STEM = "conv1.weight"
ROWS = {"one of each sign": 1} | {f"{n} in the stem": {STEM: n} for n in (2, 4, 8)} | {f"{n} everywhere": n for n in (2, 4, 8)}
COMPENSATIONS = ("gdc", "adabs")


def section(network: str, arguments) -> str:
    """A network's rows: devices on the chip, and what each compensation reaches."""
    kept = Kept(f"devices-{network}", network, __file__, arguments.engine, images=arguments.images, calibration=N_CALIBRATION)
    models = {text: PCMModel(devices_per_weight=n) for text, n in ROWS.items()}
    under = {f"{c}, {text}": Condition.of(model, c) for c in COMPENSATIONS for text, model in models.items()}
    found = kept.measure(under, arguments.chips)
    lines = [["devices", "in all", *(f"{c}, {what}" for c in COMPENSATIONS for what in ("mean", "over chips"))]]
    for text, model in models.items():
        size = Chip.program(kept.file.state, model).n_devices
        pairs = [(found[f"{c}, {text}"], found[f"{c}, one of each sign"]) for c in COMPENSATIONS]
        cells = [accuracy_cells(v) if v is base else difference_cells(v, base) for v, base in pairs]
        lines.append([text, f"{size:,}", *sum(cells, [])])
    return f"{heading(kept, arguments.chips)} {READ_SO}\n\n{tables.markdown(lines)}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chips", type=int, default=10, help="default: %(default)s")
    parser.add_argument("--images", type=int, default=2_000, help="test images, the first ones (default: %(default)s)")
    add_engine(parser)
    arguments = parser.parse_args()
    tables.fill(PATH, {"devices": "\n\n".join(section(network, arguments) for network in NETWORKS)})
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
