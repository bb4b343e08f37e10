"""AdaBS over a day: how often it must be repeated, and a cumulative average against a moving one: into recalibration.md.

python validation/experiments/recalibration.py [NETWORK] [--chips 3] [--images 500]

Chips, draws and images are the same in all cells. Accuracies are kept in results/recalibration.json; a run goes on from there.
Another network is measured anew.
"""

from functools import cache, partial
from pathlib import Path

import numpy as np
from measurements import Kept, cell, from_command, mean_and_error

from pcmref import Chip, PCMModel, adabs, library, store
from pcmref.times import human_time
from pcmref.training import accuracy

PATH = Path(__file__).parents[1] / "recalibration.md"
DAY_S = 86_400.0
TIMES_S = (20.0, 600.0, 3600.0, 10_800.0, 21_600.0, 43_200.0, DAY_S)
PLANS = (TIMES_S[:1], TIMES_S[:3:2], (20.0, 3600.0, 21_600.0), TIMES_S[:-1])  # when AdaBS runs in a day
SCHEMES = {"adabs": False, "gdc and adabs": True}
CALIBRATION = 400  # images, where nothing else is said
ESTIMATES = [(n, size) for n in (100, 400, 1600) for size in (50, 200) if size <= n]  # images, batch size
MOMENTA = (None, 0.1, 0.3)

INTRODUCTION = """\
# AdaBS: how often in a day, and how

Written by `experiments/recalibration.py` from `results/recalibration.json`; do not edit. `make costs` measures again
whatever is missing there. Accuracy in percent, mean ± standard error over the chips; AdaBS on {calibration} images in batches
of 200 unless a table says otherwise.
"""


class Study:
    """The reference network on its chips: accuracies by time of calibration and of use, and by estimate."""

    def __init__(self, kept: Kept):
        self.kept, self.file = kept, kept.file
        data, n = library.load_images("fashionmnist-evaluation"), kept.about["images"]
        self.x, self.labels = data.normalized(data.images[:n]), data.labels[:n]
        self.calibration = data.normalized(data.calibration)
        self.state, self.statistics = cache(self.state), cache(self.statistics)

    def state(self, seed: int, t_s: float, gdc: bool) -> dict:
        """The state that a chip computes with."""
        return Chip.program(self.file.state, PCMModel.joshi2020(), seed).read(t_s, gdc=gdc)

    def statistics(self, seed: int, t_s: float, gdc: bool) -> dict:
        """The running means and variances of AdaBS at a time."""
        new = adabs(self.file.net, self.state(seed, t_s, gdc), self.calibration[:CALIBRATION])
        return {name: value for name, value in new.items() if "running_" in name}

    def used_later(self, seed: int, calibrated_s: float, used_s: float, gdc: bool) -> float:
        """The accuracy at one time with the batch-norm statistics of an earlier one."""
        state = self.state(seed, used_s, gdc) | self.statistics(seed, calibrated_s, gdc)
        return accuracy(self.file.net, state, self.x, self.labels)

    def estimated(self, seed: int, n: int, batch_size: int, momentum: float | None) -> float:
        """The accuracy after a day with statistics of n images; a moving average starts from the software's."""
        state = self.state(seed, DAY_S, False)
        new = adabs(self.file.net, state, self.calibration[:n], batch_size, momentum=momentum)
        return accuracy(self.file.net, new, self.x, self.labels)

    def run(self, n_chips: int) -> dict[tuple, list[float]]:
        """{(what, ...): accuracies of the chips}."""
        tasks = {
            (scheme, calibrated, used): partial(self.used_later, calibrated_s=calibrated, used_s=used, gdc=gdc)
            for scheme, gdc in SCHEMES.items()
            for calibrated in TIMES_S
            for used in TIMES_S
            if calibrated <= used
        }
        for n, batch_size in ESTIMATES:
            for momentum in MOMENTA:
                settings = {"n": n, "batch_size": batch_size, "momentum": momentum}
                tasks["estimate", n, batch_size, momentum] = partial(self.estimated, **settings)
        return self.kept.measure(tasks, n_chips)


def schedules(found: dict) -> list[str]:
    """The lowest accuracy over the day for each of PLANS, measured just before every next calibration and at its end."""
    lines = ["| AdaBS runs at | " + " | ".join(SCHEMES) + " |", "|---" * (len(SCHEMES) + 1) + "|"]
    for plan in PLANS:
        cells = []
        for scheme in SCHEMES:
            uses = [(max(t for t in plan if t < used), used) for used in TIMES_S[1:]]  # just before the next calibration
            lowest = min((np.mean(found[scheme, *use]), use) for use in uses)
            mean, error = mean_and_error(found[scheme, *lowest[1]])
            cells.append(f"{mean:.2f} ± {error:.2f} (at {human_time(lowest[1][1])})")
        lines.append(f"| {', '.join(human_time(t) for t in plan)} | {' | '.join(cells)} |")
    return lines


def answer(found: dict) -> list[str]:
    """What statistics lose that are a day old, and those that are half as old as the chip."""

    def lost(scheme, calibrated, used):
        return cell(found[scheme, calibrated, used], found[scheme, used, used])

    plain, compensated = SCHEMES
    first, changed = TIMES_S[0], "change the accuracy by"
    halves = [f"{lost(plain, used / 2, used)} at {human_time(used)}" for used in (DAY_S / 2, DAY_S)]
    return [
        f"Statistics of {human_time(first)}, used after a day, {changed} {lost(compensated, first, DAY_S)} points with GDC",
        f"on at both times, and by {lost(plain, first, DAY_S)} where it is off. Without it, statistics taken at half the",
        f"chip's age {changed} {', and by '.join(halves)}.",
        "",
    ]


def document(found: dict, kept: Kept, n_chips: int) -> str:
    text = [INTRODUCTION.format(calibration=CALIBRATION), f"{kept.heading()} {n_chips} chips.", ""]
    for scheme, gdc in SCHEMES.items():
        text += [f"## Statistics of one time used at a later one{', with GDC at both' if gdc else ', without GDC'}", ""]
        text += ["| calibrated at | " + " | ".join(f"used at {human_time(t)}" for t in TIMES_S) + " |"]
        text += ["|---" * (len(TIMES_S) + 1) + "|"]
        for calibrated in TIMES_S:
            cells = [cell(found[scheme, calibrated, used]) if calibrated <= used else "" for used in TIMES_S]
            text.append(f"| {human_time(calibrated)} | {' | '.join(cells)} |")
        text.append("")
    text += [
        "## How often in a day",
        "",
        "The lowest accuracy over the day at the times of the tables above, each just before the",
    ]
    text += ["next calibration. Drift is a power of time, so what matters is the ratio of times, not their distance.", ""]
    text += [*schedules(found), "", *answer(found), "## Cumulative or moving average, after a day, without GDC", ""]
    text += ["A moving average starts from the statistics in software, and forgets them with every batch.", ""]
    text += ["| images | batch size | " + " | ".join(f"momentum {m}" if m else "cumulative" for m in MOMENTA) + " |"]
    text += ["|---" * (len(MOMENTA) + 2) + "|"]
    for n, batch_size in ESTIMATES:
        cells = " | ".join(cell(found["estimate", n, batch_size, momentum]) for momentum in MOMENTA)
        text.append(f"| {n:,} | {batch_size} | {cells} |")
    return "\n".join([*text, ""])


def main() -> int:
    kept, n_chips = from_command("recalibration", __doc__.splitlines()[0], __file__, chips=3, images=400)
    text = document(Study(kept).run(n_chips), kept, n_chips)
    with store.replacing(PATH) as temporary:
        temporary.write_text(text)
    print(text)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
