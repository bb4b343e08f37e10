"""AdaBS over a day: how often it must be repeated, and a cumulative average against a moving one: into recalibration.md.

python -m validation.experiments.recalibration [NETWORK] [--chips 5] [--images 500]

Chips, draws and images are the same in all cells. Accuracies are kept in results/recalibration.json; a run goes on from there.
With other code, images or another network everything is measured anew.
"""

from itertools import combinations_with_replacement
from pathlib import Path

import numpy as np

from pcmref import PCMModel
from pcmref.experiments import tables
from pcmref.experiments.driver import Condition, Recalibration
from pcmref.experiments.times import DAY_S, human_time
from validation.experiments.measurements import from_command
from validation.experiments.paired import heading, range_cell

PATH = Path(__file__).parents[1] / "recalibration.md"
TIMES_S = (20.0, 600.0, 3600.0, 10_800.0, 21_600.0, 43_200.0, DAY_S)
PLANS = (TIMES_S[:1], TIMES_S[:3:2], (20.0, 3600.0, 21_600.0), TIMES_S[:-1])  # when AdaBS runs in a day
SCHEMES = {"adabs": False, "gdc and adabs": True}
CALIBRATION = 400  # images, where nothing else is said
ESTIMATES = [(n, size) for n in (100, 400, 1600) for size in (50, 200) if size <= n]  # images, batch size
MOMENTA = (None, 0.1, 0.3)  # a moving average starts from the software's statistics
HOW = [(n, size, momentum) for n, size in ESTIMATES for momentum in MOMENTA]
JOSHI = PCMModel.joshi2020()


def conditions() -> dict[tuple, Condition]:
    """Used at each time with the statistics of each earlier one; after a day with each estimate of them, without GDC."""
    under = {
        (scheme, calibrated, used): Condition(JOSHI, used, gdc, Recalibration(CALIBRATION, t_s=calibrated))
        for scheme, gdc in SCHEMES.items()
        for calibrated, used in combinations_with_replacement(TIMES_S, 2)
    }
    return under | {("estimate", *how): Condition(JOSHI, adabs=Recalibration(*how)) for how in HOW}


def later(found: dict, scheme: str) -> str:
    """The accuracy at each time with the statistics of each earlier one."""
    lines = [["calibrated at", *(f"used at {human_time(t)}" for t in TIMES_S)]]
    for calibrated in TIMES_S:
        cells = [range_cell(found[scheme, calibrated, used], 1) if calibrated <= used else "" for used in TIMES_S]
        lines.append([human_time(calibrated), *cells])
    return tables.markdown(lines)


def schedules(found: dict) -> str:
    """The lowest median over the day for each of PLANS, measured just before every next calibration and at its end."""
    lines = [["AdaBS runs at", *SCHEMES]]
    for plan in PLANS:
        cells = []
        for scheme in SCHEMES:
            uses = [(max(t for t in plan if t < used), used) for used in TIMES_S[1:]]  # just before the next calibration
            _, lowest = min((np.median(found[scheme, *use]), use) for use in uses)
            cells.append(f"{range_cell(found[scheme, *lowest], 1)} (at {human_time(lowest[1])})")
        lines.append([", ".join(human_time(t) for t in plan), *cells])
    return tables.markdown(lines)


def answer(found: dict) -> str:
    """What statistics lose that are a day old, and those that are half as old as the chip."""

    def lost(scheme, calibrated, used):
        points = 100 * np.subtract(found[scheme, calibrated, used], found[scheme, used, used])
        return f"{points.mean():+z.1f} ({points.min():+z.1f} to {points.max():+z.1f})"

    plain, compensated = SCHEMES
    first, changed = TIMES_S[0], "change the accuracy by"
    halves = [f"{lost(plain, used / 2, used)} at {human_time(used)}" for used in TIMES_S if used / 2 in TIMES_S]
    return (
        f"In points, mean and range over the chips: statistics of {human_time(first)}, used after a day,\n"
        f"{changed} {lost(compensated, first, DAY_S)} with GDC on at both times, and by\n"
        f"{lost(plain, first, DAY_S)} where it is off. Without it, statistics taken at half the chip's age\n"
        f"{changed} {', '.join(halves)}."
    )


def estimates(found: dict) -> str:
    """The accuracy after a day by number of images, batch size and kind of average."""
    lines = [["images", "batch size", *(f"momentum {m}" if m else "cumulative" for m in MOMENTA)]]
    lines += [[f"{n:,}", str(size), *(range_cell(found["estimate", n, size, m], 1) for m in MOMENTA)] for n, size in ESTIMATES]
    return tables.markdown(lines)


def main() -> int:
    kept, n_chips = from_command("recalibration", __doc__.splitlines()[0], __file__, chips=5, images=500)
    found = kept.measure(conditions(), n_chips)
    parts = {
        "network": f"{heading(kept, n_chips)} Tables: median [lowest, highest] mean over the chips.",
        **{scheme: later(found, scheme) for scheme in SCHEMES},
    }
    parts |= {"schedules": f"{schedules(found)}\n\n{answer(found)}", "estimates": estimates(found)}
    tables.fill(PATH, parts)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
