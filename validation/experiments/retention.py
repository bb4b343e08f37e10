"""Accuracy over time of the shipped networks on many chips: measure it (hours; goes on where it was), then write retention.md.

    python -m validation.experiments.retention run [networks | calibration | sweeps --data FOLDER]
    python -m validation.experiments.retention report

`run` without more does all three; FOLDER holds Fashion-MNIST's IDX files, for the sweeps, which train resnet8 once for each
eta and alpha. Every chip is kept in results/ as soon as it is measured; with another network, other settings or other code it
is measured again. `report` writes retention.md and its pictures from what is kept.
"""

import json
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from pcmref.experiments import tables
from pcmref.experiments.driver import COMPENSATIONS
from pcmref.experiments.pictures import PALETTE, picture, plot_retention
from pcmref.experiments.retention import RetentionResult
from pcmref.experiments.statistics import bootstrap, spread
from pcmref.experiments.times import human_time
from pcmref.files.datasets import load_fashion_mnist
from validation.experiments.measurements import RESULTS, evaluated_by
from validation.experiments.paired import reclassified, reclassified_cell
from validation.experiments.studies import N_CALIBRATION, kept_study, result_of, study, study_parser, trained

VALIDATION = Path(__file__).parents[1]
TOP, DOCUMENT = VALIDATION.parent, VALIDATION / "retention.md"
SWEPT = TOP / "out" / "sweep"  # the networks that the sweeps train
NETWORKS = ("resnet32-fashionmnist-baseline", "resnet32-fashionmnist-noise")
CLASS = "resnet8-fashionmnist"
DAY_S = 86_400.0
CALIBRATION = (20, 100, 500, N_CALIBRATION, 2000)
ETA, ALPHA = 0.038, 2.0
ETAS, ALPHAS = (0.0, 0.019, ETA, 0.076), (1.5, ALPHA, 2.5, 0.0)


def networks(arguments) -> None:
    for name in NETWORKS:
        design = {"engine": arguments.engine, "reads": arguments.reads}
        study(kept_study(f"retention-{name}", name, arguments.images, **design), range(arguments.chips))
        once = kept_study(f"reclassified-{name}", name, arguments.images, **design)
        once.measure_missing({"a day": partial(reclassified, once)})


def calibration(arguments) -> None:
    for n in CALIBRATION:
        if n != N_CALIBRATION:  # which the study of the network has
            design = {"times_s": (DAY_S,), "compensations": ("adabs",), "reads": arguments.reads, "engine": arguments.engine}
            study(kept_study(f"calibration-{n}", NETWORKS[1], arguments.images, n, **design), range(arguments.chips))


def swept_name(eta: float, alpha: float) -> str:
    return f"{CLASS}-noise" if (eta, alpha) == (ETA, ALPHA) else f"resnet8-eta{eta}-alpha{alpha}"


def sweeps(arguments) -> None:
    """Train resnet8 from the shipped baseline with each eta (alpha 2) and each alpha (eta 0.038); study it after a day."""
    recipe, data = TOP / "reference_weights" / "recipes" / f"{CLASS}.toml", load_fashion_mnist(arguments.data)
    for eta, alpha in dict.fromkeys([(eta, ALPHA) for eta in ETAS] + [(ETA, alpha) for alpha in ALPHAS]):
        name = swept_name(eta, alpha)
        path = trained(name, recipe, SWEPT, data, arguments.workers, eta=eta, alpha=alpha)
        design = {"times_s": (DAY_S,), "reads": arguments.reads, "engine": arguments.engine}
        study(kept_study(f"sweep-{name}", path, arguments.images, **design), range(arguments.chips))


RUNS: dict[str, Callable] = {"networks": networks, "calibration": calibration, "sweeps": sweeps}


# ------------------------------------------------------------------------------------------------------------ report


def cell(values: np.ndarray) -> str:
    """`median [lowest, highest] mean` of values [chips, reads], in percent or points."""
    return tables.range_cell(spread(values))


def lowest_in_a_day(result: RetentionResult, compensation: str) -> str:
    """The lowest of all readings up to a day."""
    values = [result.values(compensation, t_s).min() for t_s in {row.t_s for row in result.rows} if t_s <= DAY_S]
    return f"{100 * min(values):.2f}, the lowest reading"


def beside_the_paper(noise: RetentionResult) -> str:
    """What is known of the paper's chip (CIFAR-10; grades as in pcmref/pcm/model.py), and what the noise-trained one has."""
    first, year = noise.rows[0].t_s, max(row.t_s for row in noise.rows)
    collapse = min((row.t_s for row in noise.rows), key=lambda t_s: abs(np.log(t_s / 1000)))
    lines = [
        [
            "accuracy in %, losses in points",
            "the paper, CIFAR-10",
            "grade",
            "trained on with noise and clipping, Fashion-MNIST",
        ],
        ["software (theirs of the baseline)", "93.87", "C", f"{100 * noise.software_accuracy:.2f}"],
        ["just programmed", "93.7", "B", cell(noise.values("gdc", first))],
        [
            f"not compensated, about 1,000 s (here {human_time(collapse)})",
            "10",
            "C+",
            cell(noise.values("none", collapse)),
        ],
        ["over one day, drift compensated", "above 92.6", "C+", lowest_in_a_day(noise, "gdc")],
        ["over one day, not batch norm compensated", "above 92.6", "B", "as above, with drift compensation"],
        ["over one day, batch norm compensated", "above 93.5", "B", lowest_in_a_day(noise, "adabs")],
        ["after one day, batch norm compensated", "-", "", cell(noise.values("adabs", DAY_S))],
        ["lost in one day with AdaBS", "-", "", cell(noise.lost("adabs", DAY_S))],
        ["lost in one year with AdaBS", "-", "", cell(noise.lost("adabs", year))],
        ["lost in one year with drift compensation", "-", "", cell(noise.lost("gdc", year))],
    ]
    return tables.markdown(lines)


def gains(results: list[RetentionResult]) -> str:
    """What AdaBS gains over GDC on the same readings after a day, with its mean's interval."""
    lines = [["after one day, in points", "adabs minus gdc", "mean [nominal 95 %]"]]
    for result in results:
        gain = result.values("adabs", DAY_S) - result.values("gdc", DAY_S)
        interval = tables.interval_cell(gain.mean(), bootstrap(gain, lambda v: v.mean(axis=(-2, -1))))
        lines.append([result.name, cell(gain), interval])
    return tables.markdown(lines)


def over_images() -> str:
    """How many images one reading of each network after a day loses and wins, and what that is worth."""
    lines = [["images lost, won by one reading after a day: standard error over images", *COMPENSATIONS]]
    for name in NETWORKS:
        about, values = json.loads((RESULTS / f"reclassified-{name}.json").read_text()).values()
        lines.append([name, *(reclassified_cell(*values["a day"][c], about["images"]) for c in COMPENSATIONS)])
    return tables.markdown(lines)


def sweep_table(label: str, settings: list[tuple[float, float, float]]) -> str:
    """A row for each (value, eta, alpha)."""
    lines = [[label, "software", *COMPENSATIONS]]
    for value, eta, alpha in settings:
        result = result_of(f"sweep-{swept_name(eta, alpha)}")
        cells = [cell(result.values(c, DAY_S)) for c in COMPENSATIONS]
        lines.append([str(value or "none"), f"{100 * result.software_accuracy:.2f}", *cells])
    return tables.markdown(lines)


def calibration_results(noise: RetentionResult) -> dict[int, RetentionResult]:
    return {n: noise if n == N_CALIBRATION else result_of(f"calibration-{n}", NETWORKS[1]) for n in CALIBRATION}


def recalibrated(result: RetentionResult) -> np.ndarray:
    """[chips, 1]: the accuracy of each chip's first reading after a day with AdaBS; the 1,280 images have more readings."""
    return result.values("adabs", DAY_S)[:, :1]


def draw_calibration(results: dict[int, RetentionResult], path: Path) -> None:
    values = [100 * recalibrated(result) for result in results.values()]
    with picture(path, figsize=(6.4, 4.0)) as (_, axis):
        axis.plot(list(results), [np.median(v) for v in values], marker="o", color=PALETTE["green"])
        for n, v in zip(results, values, strict=True):
            axis.plot(np.full(v.size, n), v.ravel(), ".", color=PALETTE["green"], alpha=0.3, markeredgewidth=0)
        axis.axhline(100 * results[N_CALIBRATION].software_accuracy, color="black", linestyle="--", linewidth=1)
        axis.set_xscale("log")
        axis.set_xticks(list(results), [f"{n:,}" for n in results])
        axis.minorticks_off()
        axis.set(xlabel="calibration images", ylabel="accuracy after 1 day with AdaBS (%)")
        axis.set_title(f"{NETWORKS[1]}\nline: median, dots: chips, read once, dashed: software")


def document() -> str:
    """retention.md with the kept results."""
    results = [result_of(f"retention-{name}", name) for name in NETWORKS]
    sections = [
        f"## {result.name}\n\nSoftware {100 * result.software_accuracy:.2f} %; {result.size()}; "
        f"{evaluated_by(result.settings)}; network SHA-256 {result.settings['sha256'][:16]}.\n\n"
        f"{tables.markdown(result.lines())}\n\n{tables.markdown(result.spread_lines())}"
        for result in results
    ]
    found = calibration_results(results[1])
    lines = [
        [f"{n:,}", cell(recalibrated(result)), f"{result.settings['images']:,} images, {len(recalibrated(result))} chips"]
        for n, result in found.items()
    ]
    sweeps = [sweep_table("eta (alpha 2)", [(eta, eta, ALPHA) for eta in ETAS])]
    sweeps += [sweep_table(f"alpha (eta {ETA})", [(alpha, ETA, alpha) for alpha in ALPHAS])]
    parts = {"networks": "\n\n".join(sections), "paper": beside_the_paper(results[1]), "gains": gains(results)}
    parts["images"] = over_images()
    parts["calibration"] = tables.markdown([["calibration images", "adabs after one day", "of"], *lines])
    parts["sweeps"] = "\n\n".join([f"{result_of(f'sweep-{swept_name(ETA, ALPHA)}').size()}:", *sweeps])
    return tables.filled(DOCUMENT.read_text(encoding="utf-8"), parts)


def comparison() -> str:
    """What each network loses in a day, in points of its own software accuracy, as a Markdown table for the README."""
    lines = [["network", "software", *COMPENSATIONS]]
    for result in (result_of(f"retention-{name}", name) for name in NETWORKS):
        lost = [tables.range_cell(spread(result.lost(c, DAY_S))) for c in COMPENSATIONS]
        lines.append([result.name, f"{100 * result.software_accuracy:.2f}", *lost])
    return tables.markdown(lines)


def draw(folder: Path) -> None:
    """retention.png and calibration.png."""
    results = [result_of(f"retention-{name}", name) for name in NETWORKS]
    plot_retention(results, folder / "retention.png")
    draw_calibration(calibration_results(results[1]), folder / "calibration.png")


def report() -> None:
    DOCUMENT.write_text(document(), encoding="utf-8")
    draw(VALIDATION)
    tables.fill(TOP / "README.md", {"comparison": comparison()})


def main() -> int:
    parser = study_parser(__doc__, chips=20, reads=5)
    parser.add_argument("part", nargs="?", choices=RUNS, help="only this part of the run")
    arguments = parser.parse_args()
    if arguments.step == "report":
        report()
        return 0
    parts = [arguments.part] if arguments.part else list(RUNS)
    if "sweeps" in parts and not arguments.data:
        parser.error("the sweeps need --data FOLDER")
    for part in parts:
        RUNS[part](arguments)
    return 0


if __name__ == "__main__":
    sys.exit(main())
