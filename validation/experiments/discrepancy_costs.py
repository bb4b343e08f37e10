"""What a discrepancy costs in accuracy after a day: into discrepancies.md and the README, between their markers.

python -m validation.experiments.discrepancy_costs [NETWORK] [--chips 10] [--images 1000]

Every variant differs from `joshi2020` in one thing and meets the same draws of the same chips and the same images, so the
difference is taken chip by chip: its mean in points, with its interval over the chips (`paired`). Accuracies are kept in
results/prices.json; a run goes on from there, and more chips may be asked for later. With other code, images or another
network everything is measured anew.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from math import ceil
from pathlib import Path

import numpy as np

from pcmref import Chip, PCMModel
from pcmref.experiments import tables
from pcmref.experiments.driver import Condition
from pcmref.experiments.statistics import LEVEL
from pcmref.experiments.times import DAY_S
from pcmref.pcm.crossbar import tile_scales
from pcmref.pcm.mapping import crossbars
from pcmref.training import accuracy
from validation.experiments.measurements import Kept, from_command
from validation.experiments.paired import READ_SO, accuracy_cells, difference, difference_cells, heading

VALIDATION = Path(__file__).parents[1]
CALIBRATION = 400  # images
COMPENSATIONS = ("gdc", "adabs")
POINTS = 1.0  # a difference that may reach this much matters
JOSHI = PCMModel.joshi2020()
TILE = (256, 256)


@dataclass(frozen=True)
class Variant:
    """One change: of the model, or of how a chip is programmed; in GDC alone or not."""

    label: str
    text: str
    model: PCMModel = JOSHI
    program: Callable[..., Chip] = Chip.program
    gdc_only: bool = False


def empty_zeros(*programmed) -> Chip:
    """The chip with nothing in the devices whose target is 0."""
    chip = Chip.program(*programmed)
    return replace(chip, g_prog_us={n: np.where(chip.g_target_us[n] == 0, 0, g) for n, g in chip.g_prog_us.items()})


def largest_of_tile(state: dict, names: list[str]) -> dict[str, np.ndarray]:
    """{array: max|W| of each weight's tile, in its shape}, the arrays of one crossbar: [C*kH*kW, O], a bias as the last row."""
    rows = [np.asarray(state[n]).reshape(len(state[n]), -1).T for n in names]
    largest = 1 / tile_scales(np.concatenate(rows), TILE, 1.0)
    parts = np.split(largest, np.cumsum([len(part) for part in rows])[:-1])
    return {n: part.T.reshape(np.shape(state[n])) for n, part in zip(names, parts, strict=True)}


def scaled_by_tile(state: dict, *how) -> Chip:
    """The chip with a scale a tile: weights in units of their tile's largest, so that each tile uses the whole range."""
    largest = {n: m for names in crossbars(state).values() for n, m in largest_of_tile(state, names).items()}
    chip = Chip.program(state | {n: state[n] / m for n, m in largest.items()}, *how)
    return replace(chip, state=state, scale={n: scale / largest[n] for n, scale in chip.scale.items()})


VARIANTS = (
    Variant("-", "joshi2020"),
    Variant("D3", "devices with target 0 stay empty", program=empty_zeros),
    Variant("D3", "no conductance below .25 uS", replace(JOSHI, g_min_us=0.25)),
    Variant("D4", "pairs collapsed to their net", replace(JOSHI, pair="collapsed")),
    Variant("D5", "Q_s of the programmed conductance", replace(JOSHI, q_argument="programmed")),
    Variant("D6", "20 s later (aihwkit's t_inference of a day)", replace(JOSHI, t_0_s=20 / (1 + 20 / DAY_S))),
    Variant("D6", "t_0 = 27.36 s", replace(JOSHI, t_0_s=27.36)),
    Variant("D7", "nu folded", replace(JOSHI, nu_law="folded")),
    Variant("D10", "GDC by one-hot inputs", replace(JOSHI, gdc_read_out="one-hot"), gdc_only=True),
    Variant("D10", "GDC by ones", replace(JOSHI, gdc_read_out="ones"), gdc_only=True),
    Variant("D10", "GDC per column", replace(JOSHI, gdc_read_out="per column"), gdc_only=True),
    Variant("D11", "GDC baseline of the programmed conductances", replace(JOSHI, gdc_baseline="programmed"), gdc_only=True),
    Variant("D11", "GDC baseline of the targets", replace(JOSHI, gdc_baseline="target"), gdc_only=True),
    Variant("D13", "a scale for every tile of 256x256", program=scaled_by_tile),
    Variant("D26", "nu clamped", replace(JOSHI, nu_law="clamped")),
    Variant("D29", "read noise at t_0 within the programming noise", replace(JOSHI, programming_contains_read=True)),
)
DEAD = "layer2.2.conv1.weight"


def without(state: dict) -> dict:
    """The state with zeros on one crossbar, as pruning or weight decay leave it."""
    return state | {DEAD: np.zeros_like(state[DEAD])}


def of_zeros(state: dict, *how, scale: float | None = None) -> Chip:
    """The chip with zeros on one crossbar, which has this scale in uS per unit weight."""
    chip = Chip.program(without(state), *how)
    return chip if scale is None else replace(chip, scale=chip.scale | {DEAD: scale})


OF_ZEROS = (
    Variant("D28", f"joshi2020, `{DEAD}` all zeros", program=of_zeros),
    Variant("D28", "max abs W held above 1e-7 (AK)", program=partial(of_zeros, scale=JOSHI.g_max_us / 1e-7)),
    Variant("D28", "1 uS per unit weight", program=partial(of_zeros, scale=1.0)),
)


def measure(kept: Kept, n_chips: int, variants: tuple[Variant, ...] = VARIANTS) -> dict[str, list]:
    """{compensation: accuracies [variant][chip]}; None for a variant that the compensation does not know of."""
    under = {(c, v): Condition.of(v.model, c, program=v.program) for c in COMPENSATIONS for v in variants}
    keys = {(c, v): f"{c}, {v.label}, {v.text}" for c, v in under if c == "gdc" or not v.gdc_only}
    found = kept.measure({key: under[cell] for cell, key in keys.items()}, n_chips)
    return {c: [found.get(keys.get((c, v))) for v in variants] for c in COMPENSATIONS}


def table(found: dict[str, list], variants: tuple[Variant, ...] = VARIANTS) -> str:
    """Accuracy of the first variant in percent, and the difference of each other one in points: means and ranges over chips."""
    lines = [["id", "change", *(f"{c}, {what}" for c in found for what in ("mean", "over chips"))]]
    for v, variant in enumerate(variants):
        cells = [
            (difference_cells(values[v], values[0]) if v else accuracy_cells(values[0])) if values[v] else ["not in it", ""]
            for values in found.values()
        ]
        lines.append([variant.label, variant.text, *sum(cells, [])])
    return tables.markdown(lines)


def verdict(found: dict[str, list], n_images: int) -> str:
    """The line of the README: which differences may be a point or more, by intervals that hold all together (Bonferroni)."""
    priced = [(c, v) for c, values in found.items() for v in range(1, len(VARIANTS)) if values[v]]
    matter, largest = [], 0.0
    for c, v in priced:
        values, base = found[c][v], found[c][0]
        worst = 100 * max(map(abs, difference(values, base, 1 - (1 - LEVEL) / len(priced))))
        if worst < POINTS:
            largest = max(largest, worst)
        else:
            lost = int((np.subtract(base, values) >= POINTS / 100).sum())
            mean, over = difference_cells(values, base)
            change = f"{VARIANTS[v].label}, {VARIANTS[v].text}, with {c}: {mean} points"
            matter.append((-worst, f"{change}, {over} over the chips, {lost} of which lose a point or more"))
    which = "; ".join(change for _, change in sorted(matter)) or "none"
    return (
        f"Which may matter by a point or more for the accuracy of the reference network after a day: {which}. All others stay "
        f"within {ceil(10 * largest) / 10:.1f} points, by t-intervals over the chips that are nominally right all together in "
        f"{100 * LEVEL:g} % of cases: {len(found[COMPENSATIONS[0]][0])} chips, each read once, on the same {n_images:,} images."
    )


def price_of_zeros(network: str, n_chips: int, **settings) -> None:
    """D28's table: another network than the other rows', so differences to its own first row."""
    kept = Kept("price-of-zeros", network, __file__, **settings)
    x, labels, _ = kept.evaluation
    dead = accuracy(kept.file.net, without(kept.file.state), x, labels)
    found = table(measure(kept, n_chips, OF_ZEROS), OF_ZEROS)
    text = f"{heading(kept, n_chips)} With zeros on the crossbar `{DEAD}` they give {100 * dead:.2f} %.\n\n{found}"
    tables.fill(VALIDATION / "discrepancies.md", {"price of zeros": text})


def main() -> int:
    kept, n_chips = from_command("prices", __doc__.splitlines()[0], __file__, chips=10, images=1000, calibration=CALIBRATION)
    found = measure(kept, n_chips)
    price_of_zeros(kept.about["network"], n_chips, images=kept.about["images"], calibration=CALIBRATION)
    tables.fill(VALIDATION / "discrepancies.md", {"prices": f"{heading(kept, n_chips)} {READ_SO}\n\n{table(found)}"})
    tables.fill(VALIDATION.parent / "README.md", {"prices": verdict(found, kept.about["images"])})
    print(table(found), verdict(found, kept.about["images"]), sep="\n\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
