"""The paper's experiment in full on the shipped networks: run it (hours; goes on where it was), then write retention.md.

    python validation/retention.py run [networks | calibration | sweeps --data FOLDER]
    python validation/retention.py report

`run` without more does all three; FOLDER holds Fashion-MNIST's IDX files, for the sweeps, which train resnet8 once for each
eta and alpha. Every chip is kept in results/ as soon as it is measured; with another network, other settings or other code it
is measured again. `report` writes retention.md and its pictures from what is kept.
"""

import argparse
import dataclasses
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from kept import RESULTS, Kept, file_digest
from readme import put
from scipy import stats

from pcmref import library, recipes
from pcmref.cli.executors import open_executor
from pcmref.cli.progress import ProgressBar
from pcmref.data import load_fashion_mnist
from pcmref.pcm.model import PCMModel
from pcmref.plots import PALETTE, STYLE, plot_retention, pyplot
from pcmref.study import COMPENSATIONS, RetentionResult, Row, retention
from pcmref.times import STANDARD_TIMES_S, human_time

HERE = Path(__file__).parent
TOP = HERE.parent
SWEPT = TOP / "out" / "sweep"  # the networks that the sweeps train
NETWORKS = ("resnet32-fashionmnist-baseline", "resnet32-fashionmnist-noise")
CLASS = "resnet8-fashionmnist"
DAY_S = 86_400.0
N_CALIBRATION = 1280
CALIBRATION = (20, 100, 500, N_CALIBRATION, 2000)
ETA, ALPHA = 0.038, 2.0
ETAS, ALPHAS = (0.0, 0.019, ETA, 0.076), (1.5, ALPHA, 2.5, 0.0)


def kept_study(name: str, network, images: int, n_calibration: int = N_CALIBRATION) -> Kept:
    return Kept(name, network, (__file__, "study"), images=images, calibration=n_calibration)


def study(kept: Kept, n_chips: int, times_s=STANDARD_TIMES_S, compensations=COMPENSATIONS) -> None:
    """Measure what is not kept yet of a retention study, a chip on each core."""
    data, file = library.load_images("fashionmnist-evaluation"), kept.file
    x, labels = (values[: kept.about["images"]] for values in (data.images, data.labels))
    known = {k: rows for k in range(n_chips) if (rows := kept.values.get(f"chip {k}"))}
    if len(known) == n_chips and "software" in kept.values:
        return
    settings = {"times_s": times_s, "compensations": compensations, "n_chips": n_chips, "known": known, "workers": 1}
    settings["x_calibration"] = data.normalized(data.calibration[: kept.about["calibration"]])
    settings["on_chip"] = lambda measured: kept.keep({f"chip {k}": rows for k, rows in measured.items()})
    with ProgressBar(kept.path.stem, "measurement") as bar, open_executor("processes") as executor:
        settings |= {"progress": bar.update, "executor": executor}
        result = retention(file.net, file.state, PCMModel.joshi2020(), data.normalized(x), labels, **settings)
    kept.keep({"software": result.software_accuracy})


def networks(arguments) -> None:
    for name in NETWORKS:
        study(kept_study(f"retention-{name}", name, arguments.images), arguments.chips)


def calibration(arguments) -> None:
    for n in CALIBRATION:
        if n != N_CALIBRATION:  # which the study of the network has
            kept = kept_study(f"calibration-{n}", NETWORKS[1], arguments.images, n)
            study(kept, arguments.chips, (DAY_S,), ("adabs",))


def swept_name(eta: float, alpha: float) -> str:
    return f"{CLASS}-noise" if (eta, alpha) == (ETA, ALPHA) else f"resnet8-eta{eta}-alpha{alpha}"


def sweeps(arguments) -> None:
    """Train resnet8 from the shipped baseline with each eta (alpha 2) and each alpha (eta 0.038); study it after a day."""
    plan = recipes.read_plan(TOP / "reference_weights" / "recipes" / f"{CLASS}.toml")
    (baseline, first), (_, noise) = plan.stages.items()
    SWEPT.mkdir(parents=True, exist_ok=True)
    for shipped in plan.stages:
        shutil.copy(library.find(shipped), SWEPT)
    for eta, alpha in dict.fromkeys([(eta, ALPHA) for eta in ETAS] + [(ETA, alpha) for alpha in ALPHAS]):
        name = swept_name(eta, alpha)
        stages = {baseline: first, name: dataclasses.replace(noise, eta=eta, alpha=alpha)}
        swept, data = dataclasses.replace(plan, name=name, stages=stages), load_fashion_mnist(arguments.data)
        with ProgressBar(name, "image") as bar:
            options = {"resume": True, "progress": lambda _, *done, bar=bar: bar.update(*done), "workers": arguments.workers}
            path = recipes.carry_out(swept, data, SWEPT, **options)[-1]
        study(kept_study(f"sweep-{name}", path, arguments.images), arguments.chips, (DAY_S,))


RUNS: dict[str, Callable] = {"networks": networks, "calibration": calibration, "sweeps": sweeps}


# ------------------------------------------------------------------------------------------------------------ report


def result_of(name: str, network: str | None = None) -> RetentionResult:
    """What is kept under a name, in the order of the study; SystemExit where it is missing or of another network."""
    path = RESULTS / f"{name}.json"
    held = json.loads(path.read_text()) if path.is_file() else {"about": {}, "values": {}}
    about, values = held["about"], held["values"]
    if "software" not in values or (network is not None and about["sha256"] != file_digest(network)):
        raise SystemExit(f"{path}: nothing kept of the network as it is; python validation/retention.py run")
    chips = sorted((int(key.removeprefix("chip ")), rows) for key, rows in values.items() if key != "software")
    rows = tuple(Row(about["network"], c, t_s, k, 0, accuracy) for k, of in chips for c, t_s, accuracy in of)
    return RetentionResult(about["network"], rows, values["software"], {"n_images": about["images"], **about})


def size_of(result: RetentionResult) -> str:
    return f"{result.settings['images']:,} test images, {len({row.chip for row in result.rows})} chips"


def interval(values) -> str:
    """Mean, standard deviation and the mean's 95 % interval (Student's t), in percent."""
    values = 100 * np.asarray(values)
    half = stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
    return f"{values.mean():.2f} ± {values.std(ddof=1):.2f} [{values.mean() - half:.2f}, {values.mean() + half:.2f}]"


def accuracies(result: RetentionResult, compensation: str, t_s: float) -> np.ndarray:
    """The chips' accuracies, in the chips' order."""
    return np.array([row.accuracy for row in result.rows if (row.compensation, row.t_s) == (compensation, t_s)])


def losses(result: RetentionResult, compensation: str, t_s: float) -> np.ndarray:
    """What each chip loses against the network in software."""
    return result.software_accuracy - accuracies(result, compensation, t_s)


def main_table(result: RetentionResult) -> str:
    lines = ["| time | none | gdc | adabs |", "|---|---|---|---|"]
    for t_s in dict.fromkeys(row.t_s for row in result.rows):
        cells = " | ".join(interval(accuracies(result, c, t_s)) for c in COMPENSATIONS)
        lines.append(f"| {human_time(t_s)} | {cells} |")
    return "\n".join(lines)


def beside_the_paper(noise: RetentionResult) -> str:
    """The paper's figures for CIFAR-10, and ours for Fashion-MNIST, the noise-trained network's."""
    first, year = noise.rows[0].t_s, max(row.t_s for row in noise.rows)
    worst = min(accuracies(noise, "gdc", t_s).mean() for t_s in STANDARD_TIMES_S if t_s <= DAY_S)
    rows = [
        ("software", "93.87 (grade C: recalled)", f"{100 * noise.software_accuracy:.2f}"),
        ("just programmed", "93.7", interval(accuracies(noise, "gdc", first))),
        ("over one day, drift compensated", "above 92.6", f"{100 * worst:.2f}, the lowest mean"),
        ("after one day with AdaBS", "93.5", interval(accuracies(noise, "adabs", DAY_S))),
        ("lost in one day with AdaBS", "0.37", interval(losses(noise, "adabs", DAY_S))),
        ("lost in one year with AdaBS", "-", interval(losses(noise, "adabs", year))),
        ("lost in one year with drift compensation", "-", interval(losses(noise, "gdc", year))),
    ]
    lines = ["| accuracy in %, losses in points | the paper, CIFAR-10 | here, Fashion-MNIST |", "|---|---|---|"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])


def differences(results: list[RetentionResult]) -> str:
    """Loss after a day, noise-trained against baseline and AdaBS against GDC, paired chip by chip."""
    day = {(i, c): losses(result, c, DAY_S) for i, result in enumerate(results) for c in COMPENSATIONS}
    pairs = {
        "baseline loses more than noise-trained, gdc": (day[0, "gdc"], day[1, "gdc"]),
        "baseline loses more than noise-trained, adabs": (day[0, "adabs"], day[1, "adabs"]),
        "gdc loses more than adabs, baseline": (day[0, "gdc"], day[0, "adabs"]),
        "gdc loses more than adabs, noise-trained": (day[1, "gdc"], day[1, "adabs"]),
    }
    lines = ["| after one day | difference in points | p (paired t-test, two-sided) |", "|---|---|---|"]
    lines += [f"| {what} | {interval(a - b)} | {stats.ttest_rel(a, b).pvalue:.1e} |" for what, (a, b) in pairs.items()]
    return "\n".join(lines)


def sweep_table(label: str, settings: list[tuple[float, float, float]]) -> str:
    """A row for each (value, eta, alpha)."""
    lines = [f"| {label} | software | none | gdc | adabs |", "|---|---|---|---|---|"]
    for value, eta, alpha in settings:
        result = result_of(f"sweep-{swept_name(eta, alpha)}")
        cells = " | ".join(interval(accuracies(result, c, DAY_S)) for c in COMPENSATIONS)
        lines.append(f"| {value or 'none'} | {100 * result.software_accuracy:.2f} | {cells} |")
    return "\n".join(lines)


def calibration_results(noise: RetentionResult) -> dict[int, RetentionResult]:
    return {n: noise if n == N_CALIBRATION else result_of(f"calibration-{n}", NETWORKS[1]) for n in CALIBRATION}


def draw_calibration(results: dict[int, RetentionResult], path: Path) -> None:
    plt, values = pyplot(), [100 * accuracies(result, "adabs", DAY_S) for result in results.values()]
    with plt.style.context(STYLE):
        figure, axis = plt.subplots(figsize=(6.4, 4.0))
        mean, std = [v.mean() for v in values], [v.std(ddof=1) for v in values]
        axis.errorbar(list(results), mean, std, marker="o", color=PALETTE["green"], capsize=3)
        axis.axhline(100 * results[N_CALIBRATION].software_accuracy, color="black", linestyle="--", linewidth=1)
        axis.set_xscale("log")
        axis.set_xticks(list(results), [f"{n:,}" for n in results])
        axis.minorticks_off()
        axis.set_xlabel("calibration images")
        axis.set_ylabel("accuracy after 1 day with AdaBS (%)")
        axis.set_title(f"{NETWORKS[1]}; dashed: software")
        figure.savefig(path)
        plt.close(figure)


def document() -> str:
    """retention.md as text."""
    results = [result_of(f"retention-{name}", name) for name in NETWORKS]
    text = "# Accuracy over time: the paper's experiment on Fashion-MNIST\n\n"
    text += (
        "Written by `python validation/retention.py report` from what `... run` keeps in `results/`; do not edit. Accuracy in\n"
        "percent: mean ± standard deviation over chips [95 % interval of the mean, Student's t]. none: no compensation;\n"
        f"gdc: one scale a crossbar; adabs: batch norm recalibrated on {N_CALIBRATION:,} training images, without gdc.\n"
    )
    for result in results:
        text += f"\n## {result.name}\n\nSoftware {100 * result.software_accuracy:.2f} %; {size_of(result)}; network SHA-256 "
        text += f"{result.settings['sha256'][:16]}.\n\n{main_table(result)}\n"
    text += "\n![Both networks over time](retention.png)\n"
    text += f"\n## Beside the paper\n\n{beside_the_paper(results[1])}\n"
    text += "\n## Differences\n\nChip k of both networks has the same draws, so differences are taken chip by chip.\n"
    text += f"\n{differences(results)}\n"
    lines = ["| calibration images | adabs after one day | of |", "|---|---|---|"]
    found = calibration_results(results[1])
    lines += [f"| {n:,} | {interval(accuracies(r, 'adabs', DAY_S))} | {size_of(r)} |" for n, r in found.items()]
    table = "\n".join(lines)
    text += f"\n## AdaBS against the number of calibration images\n\n{table}\n\n![AdaBS accuracy](calibration.png)\n"
    size = size_of(result_of(f"sweep-{swept_name(ETA, ALPHA)}"))
    text += (
        f"\n## Training noise and clipping, resnet8, after one day\n\n{size}. One training each from the same baseline: the\n"
    )
    text += "intervals are those of the chips, not of trainings.\n"
    text += f"\n{sweep_table('eta (alpha 2)', [(eta, eta, ALPHA) for eta in ETAS])}\n"
    return text + f"\n{sweep_table(f'alpha (eta {ETA})', [(alpha, ETA, alpha) for alpha in ALPHAS])}\n"


def comparison() -> str:
    """What each network loses in a day, in points of its own software accuracy, as a Markdown table for the README."""
    lines = ["| network | software | none | gdc | adabs |", "|---|---|---|---|---|"]
    for result in (result_of(f"retention-{name}", name) for name in NETWORKS):
        lost = [100 * losses(result, c, DAY_S) for c in COMPENSATIONS]
        cells = " | ".join(f"{v.mean():.2f} ± {v.std(ddof=1):.2f}" for v in lost)
        lines.append(f"| {result.name} | {100 * result.software_accuracy:.2f} | {cells} |")
    return "\n".join(lines)


def draw(folder: Path) -> None:
    """retention.png and calibration.png."""
    results = [result_of(f"retention-{name}", name) for name in NETWORKS]
    plot_retention(results, folder / "retention.png")
    draw_calibration(calibration_results(results[1]), folder / "calibration.png")


def report() -> None:
    text = document()
    draw(HERE)
    (HERE / "retention.md").write_text(text, encoding="utf-8")
    put(TOP / "README.md", "comparison", comparison())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("step", choices=("run", "report"))
    parser.add_argument("part", nargs="?", choices=RUNS, help="only this part of the run")
    parser.add_argument("--data", help="folder of Fashion-MNIST's IDX files; the sweeps need it")
    parser.add_argument("--images", type=int, default=10_000, help="default: %(default)s")
    parser.add_argument("--chips", type=int, default=10, help="default: %(default)s")
    parser.add_argument("--workers", type=int, default=None, help="threads for the sweeps' training (default: one per core)")
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
