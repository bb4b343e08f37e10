"""What a discrepancy, and what converters, cost in accuracy after a day: into discrepancies.md, between its markers.

python validation/price.py [NETWORK] [--chips 10] [--images 2000]

Every variant differs from `joshi2020` in one thing and meets the same draws of the same chips and the same images, so the
difference is taken chip by chip: its mean in points, with its standard error over the chips.
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from pcmref import Chip, PCMModel, library
from pcmref.cli.progress import ProgressBar
from pcmref.pcm import gdc
from pcmref.pcm.crossbar import ADC_LIMIT, Converter, Periphery, tile_scales
from pcmref.pcm.mapping import crossbars
from pcmref.training import accuracy

HERE = Path(__file__).parent
DAY_S = 86_400.0
JOSHI = PCMModel.joshi2020()
TILE = (256, 256)


def _same(value):
    return value


@dataclass(frozen=True)
class Variant:
    """One change: of the model, the time, the weights before mapping and after reading, the chip, or the periphery."""

    label: str
    text: str
    model: PCMModel = JOSHI
    t_s: float = DAY_S
    before: Callable[[dict], dict] = _same
    after: Callable[[dict, dict], dict] = lambda read, state: read
    programmed: Callable[[Chip], Chip] = _same
    periphery: Periphery | None = None

    def states(self, state: dict, seed: int) -> dict[str, dict]:
        """{compensation: the state that chip `seed` computes with}."""
        chip = self.programmed(Chip.program(self.before(state), self.model, seed))
        currents = chip.currents if self.periphery is None else lambda g_us: self.periphery.currents(chip, g_us)
        weights = chip.weights if self.periphery is None else lambda g_us, f=None: self.periphery.state(chip, g_us, f)
        g_us = chip.read_conductances(self.t_s)
        at_t0, at_t = currents(chip.baseline_conductances()), currents(g_us)
        factors = {bar: gdc.factor(at_t0[bar], at_t[bar]) for bar in at_t}
        return {"none": self.after(weights(g_us), state), "gdc": self.after(weights(g_us, factors), state)}


def empty_zeros(chip: Chip) -> Chip:
    """The chip with nothing in the devices whose target is 0."""
    return replace(chip, g_prog_us={n: np.where(chip.g_target_us[n] == 0, 0, g) for n, g in chip.g_prog_us.items()})


def largest_of_tile(state: dict, name: str) -> np.ndarray:
    """max|W| of each weight's tile, in the array's shape: the matrix is [C*kH*kW, O]."""
    w = np.asarray(state[name])
    return 1 / tile_scales(w.reshape(len(w), -1).T, TILE, 1.0).T.reshape(w.shape)


def scaled_by_tile(state: dict) -> dict:
    """Weights in units of their tile's largest: mapped by one scale a crossbar, each tile then uses the whole range."""
    return state | {n: state[n] / largest_of_tile(state, n) for names in crossbars(state).values() for n in names}


def scaled_back(read: dict, state: dict) -> dict:
    """The same, undone on the weights as read."""
    return read | {n: read[n] * largest_of_tile(state, n) for names in crossbars(state).values() for n in names}


def converters(bits: int) -> Periphery:
    return Periphery(TILE, Converter.of_bits(bits), Converter.of_bits(bits, ADC_LIMIT))


VARIANTS = (
    Variant("-", "joshi2020"),
    Variant("D3", "devices with target 0 stay empty", programmed=empty_zeros),
    Variant("D3", "no conductance below .25 uS", replace(JOSHI, g_min_us=0.25)),
    Variant("D4", "pairs collapsed to their net", replace(JOSHI, pair="collapsed")),
    Variant("D5", "Q_s of the programmed conductance", replace(JOSHI, q_argument="programmed")),
    Variant("D6", "20 s later (aihwkit's t_inference of a day)", t_s=DAY_S + 20),
    Variant("D6", "t_0 = 27.36 s", replace(JOSHI, t_0_s=27.36)),
    Variant("D7", "nu folded", replace(JOSHI, nu_law="folded")),
    Variant("D10", "GDC by one-hot inputs", replace(JOSHI, gdc_read_out="one-hot")),
    Variant("D10", "GDC by ones", replace(JOSHI, gdc_read_out="ones")),
    Variant("D11", "GDC baseline of the programmed conductances", replace(JOSHI, gdc_baseline="programmed")),
    Variant("D11", "GDC baseline of the targets", replace(JOSHI, gdc_baseline="target")),
    Variant("D13", "a scale for every tile of 256x256", before=scaled_by_tile, after=scaled_back),
    Variant("D26", "nu clamped", replace(JOSHI, nu_law="clamped")),
    *(Variant("ADC", f"DAC and ADC of {bits} bits, tiles of 256x256", periphery=converters(bits)) for bits in (10, 8, 6)),
)


def measure(file: library.NetworkFile, x, labels, n_chips: int) -> dict[str, np.ndarray]:
    """{compensation: accuracy [variant, chip]}."""
    found = {c: np.empty((len(VARIANTS), n_chips)) for c in ("none", "gdc")}
    with ProgressBar("prices", "chip") as bar:
        for v, variant in enumerate(VARIANTS):
            for chip in range(n_chips):
                for compensation, state in variant.states(file.state, chip).items():
                    found[compensation][v, chip] = accuracy(file.net, state, x, labels)
                bar.update(v * n_chips + chip + 1, len(VARIANTS) * n_chips)
    return found


def table(found: dict[str, np.ndarray]) -> str:
    """Accuracy of the first variant in percent, and the difference of each other one in points, with standard errors."""
    lines = ["| id | change | none | gdc |", "|---|---|---|---|"]
    for v, variant in enumerate(VARIANTS):
        cells = []
        for values in found.values():
            difference = 100 * (values[v] - (values[0] if v else 0))
            error = difference.std(ddof=1) / np.sqrt(len(difference)) if len(difference) > 1 else np.nan
            cells.append(f"{difference.mean():{'+' if v else ''}.2f} ± {error:.2f}")
        lines.append(f"| {variant.label} | {variant.text} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("network", nargs="?", default="resnet32-fashionmnist-noise", help="default: %(default)s")
    parser.add_argument("--chips", type=int, default=10, help="default: %(default)s")
    parser.add_argument("--images", type=int, default=2000, help="default: %(default)s")
    parser.add_argument("--print", action="store_true", help="print the table and leave discrepancies.md alone")
    arguments = parser.parse_args()
    file, data = library.read_network(arguments.network), library.load_images("fashionmnist-evaluation")
    x, labels = data.normalized(data.images[: arguments.images]), data.labels[: arguments.images]
    text = table(measure(file, x, labels, arguments.chips))
    print(text)
    if not arguments.print:
        path = HERE / "discrepancies.md"
        before, rest = path.read_text().split("<!-- prices -->\n", 1)
        about = f"Network `{Path(arguments.network).stem}`, {len(x):,} images, {arguments.chips} chips.\n\n"
        path.write_text(f"{before}<!-- prices -->\n{about}{text}\n<!-- end -->{rest.split('<!-- end -->', 1)[1]}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
