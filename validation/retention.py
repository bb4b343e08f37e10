"""The paper's experiment in full on the shipped networks: run it (hours; goes on where it was), then write retention.md.

    python validation/retention.py run --data FOLDER      # FOLDER: Fashion-MNIST's IDX files, for the sweeps on resnet8
    python validation/retention.py report

`run` keeps every finished piece in validation/results/ and skips what is there. --images and --chips make a small trial.
"""

import argparse
import dataclasses
import sys
from pathlib import Path

import numpy as np
from scipy import stats

from pcmref import library, recipes
from pcmref.cli.progress import ProgressBar
from pcmref.data import load_fashion_mnist
from pcmref.pcm.model import PCMModel
from pcmref.plots import plot_retention, pyplot
from pcmref.study import COMPENSATIONS, RetentionResult, retention
from pcmref.times import human_time

HERE = Path(__file__).parent
RESULTS = HERE / "results"
RECIPES = HERE.parent / "reference_weights" / "recipes"
NETWORKS = ("resnet32-fashionmnist-baseline", "resnet32-fashionmnist-noise")
DAY_S = 86_400.0
CALIBRATION = (20, 50, 100, 200, 500, 1280, 2000)
ETAS, ALPHAS = (0.0, 0.019, 0.038, 0.076), (1.5, 2.0, 2.5, 3.0, 0.0)
PAPER = "the paper, CIFAR-10: 93.7 % after mapping; over a day above 92.6 %, 93.5 % with AdaBS"


def study(name: str, file, arguments, times_s=None, n_calibration=1280, compensations=COMPENSATIONS) -> RetentionResult:
    """One retention study, from its file in results/ if it is there."""
    path = RESULTS / f"{name}.h5"
    if path.is_file():
        return RetentionResult.from_hdf5(path)
    data = library.load_images("fashionmnist-evaluation")
    x, labels = data.normalized(data.images[: arguments.images]), data.labels[: arguments.images]
    settings = {"n_chips": arguments.chips, "x_calibration": data.normalized(data.calibration[:n_calibration]), "name": name}
    settings |= {"times_s": times_s} if times_s else {}
    with ProgressBar(name, "measurement") as bar:
        model, progress = PCMModel.joshi2020(), bar.update
        result = retention(file.net, file.state, model, x, labels, compensations=compensations, progress=progress, **settings)
    result.to_hdf5(path)
    return result


def sweeps(arguments) -> None:
    """Train resnet8 from its baseline with each eta (alpha 2) and each alpha (eta 0.038), and study it after a day."""
    plan = recipes.read_plan(RECIPES / "resnet8-fashionmnist.toml")
    (baseline, first), (_, noise) = plan.stages.items()
    settings = {f"eta-{eta}": {"eta": eta, "alpha": 2.0} for eta in ETAS} | {f"alpha-{a}": {"alpha": a} for a in ALPHAS}
    for name, change in settings.items():
        stages = {baseline: first, f"resnet8-{name}": dataclasses.replace(noise, **change)}
        swept = dataclasses.replace(plan, name=f"sweep-{name}", stages=stages)
        if not (RESULTS / f"resnet8-{name}.h5").is_file():
            folder = RESULTS / "sweep"
            folder.mkdir(exist_ok=True)
            paths = recipes.carry_out(swept, load_fashion_mnist(arguments.data), folder, resume=True)
            study(f"resnet8-{name}", library.read_network(paths[-1]), arguments, (DAY_S,))
        print(f"done: {name}", file=sys.stderr, flush=True)


def run(arguments) -> None:
    RESULTS.mkdir(exist_ok=True)
    for name in NETWORKS:
        study(f"retention-{name}", library.read_network(name), arguments)
    file = library.read_network(NETWORKS[1])
    for n in CALIBRATION:
        study(f"calibration-{n}", file, arguments, (DAY_S,), n, ("adabs",))
    if arguments.data:
        sweeps(arguments)


# ------------------------------------------------------------------------------------------------------------ report


def interval(values) -> str:
    """Mean, standard deviation and the mean's 95 % interval (Student's t), in percent."""
    values = 100 * np.asarray(values)
    half = stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
    return f"{values.mean():.2f} ± {values.std(ddof=1):.2f} [{values.mean() - half:.2f}, {values.mean() + half:.2f}]"


def accuracies(result: RetentionResult, compensation: str, t_s: float) -> np.ndarray:
    """The chips' accuracies, in the chips' order."""
    rows = [row for row in result.rows if (row.compensation, row.t_s) == (compensation, t_s)]
    return np.array([row.accuracy for row in sorted(rows, key=lambda row: row.chip)])


def main_table(result: RetentionResult) -> str:
    lines = ["| time | none | gdc | adabs |", "|---|---|---|---|"]
    for t_s in dict.fromkeys(row.t_s for row in result.rows):
        cells = " | ".join(interval(accuracies(result, c, t_s)) for c in COMPENSATIONS)
        lines.append(f"| {human_time(t_s)} | {cells} |")
    return "\n".join(lines)


def differences(results: list[RetentionResult]) -> str:
    """Loss after a day, noise-trained against baseline and AdaBS against GDC, paired chip by chip."""
    losses = {
        (i, c): result.software_accuracy - accuracies(result, c, DAY_S)
        for i, result in enumerate(results)
        for c in COMPENSATIONS
    }
    pairs = {
        "baseline loses more than noise-trained, gdc": (losses[0, "gdc"], losses[1, "gdc"]),
        "baseline loses more than noise-trained, adabs": (losses[0, "adabs"], losses[1, "adabs"]),
        "gdc loses more than adabs, baseline": (losses[0, "gdc"], losses[0, "adabs"]),
        "gdc loses more than adabs, noise-trained": (losses[1, "gdc"], losses[1, "adabs"]),
    }
    lines = ["| after one day | difference in points | p (paired t-test, two-sided) |", "|---|---|---|"]
    lines += [f"| {what} | {interval(a - b)} | {stats.ttest_rel(a, b).pvalue:.1e} |" for what, (a, b) in pairs.items()]
    return "\n".join(lines)


def sweep_table(label: str, values, name: str) -> str:
    lines = [f"| {label} | software | none | gdc | adabs |", "|---|---|---|---|---|"]
    for value in values:
        result = RetentionResult.from_hdf5(RESULTS / f"resnet8-{name}-{value}.h5")
        cells = " | ".join(interval(accuracies(result, c, DAY_S)) for c in COMPENSATIONS)
        lines.append(f"| {value or 'none'} | {100 * result.software_accuracy:.2f} | {cells} |")
    return "\n".join(lines)


def draw_calibration(results: dict[int, RetentionResult], path: Path) -> None:
    plt = pyplot()
    figure, axis = plt.subplots(figsize=(5.5, 3.6))
    values = [100 * accuracies(result, "adabs", DAY_S) for result in results.values()]
    axis.errorbar(
        list(results), [v.mean() for v in values], [v.std(ddof=1) for v in values], fmt="o-", color="#009E73", capsize=3
    )
    axis.axhline(100 * next(iter(results.values())).software_accuracy, color="black", linestyle="--", linewidth=1)
    axis.set_xscale("log")
    axis.set_xticks(list(results), [str(n) for n in results])
    axis.minorticks_off()
    axis.set_xlabel("calibration images")
    axis.set_ylabel("accuracy after 1 day with AdaBS (%)")
    figure.tight_layout()
    figure.savefig(path, dpi=140, metadata={"Software": None})
    plt.close(figure)


def report() -> None:
    results = [RetentionResult.from_hdf5(RESULTS / f"retention-{name}.h5") for name in NETWORKS]
    calibration = {n: RetentionResult.from_hdf5(RESULTS / f"calibration-{n}.h5") for n in CALIBRATION}
    plot_retention(results, HERE / "retention.png")
    draw_calibration(calibration, HERE / "calibration.png")
    text = "# Accuracy over time\n\nWritten by `python validation/retention.py report` from the results of `... run`.\n"
    text += f"For comparison, {PAPER}. All figures in percent: mean ± standard deviation over chips [95 % interval].\n"
    for result in results:
        n_images, n_chips = (f"{result.settings[k]:,}" for k in ("n_images", "n_chips"))
        text += f"\n## {result.name.removeprefix('retention-')}\n\nSoftware {100 * result.software_accuracy:.2f} %; "
        text += f"{n_images} test images, {n_chips} chips.\n\n{main_table(result)}\n"
    text += f"\n![Both networks over time](retention.png)\n\n## Differences\n\n{differences(results)}\n"
    text += "\n## AdaBS against the number of calibration images\n\n![AdaBS accuracy](calibration.png)\n"
    if (RESULTS / f"resnet8-alpha-{ALPHAS[-1]}.h5").is_file():
        text += f"\n## Training noise eta (alpha 2), resnet8, after a day\n\n{sweep_table('eta', ETAS, 'eta')}\n"
        text += f"\n## Clipping alpha (eta 0.038), resnet8, after a day\n\n{sweep_table('alpha', ALPHAS, 'alpha')}\n"
    (HERE / "retention.md").write_text(text, encoding="utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("step", choices=("run", "report"))
    parser.add_argument("--data", help="folder of Fashion-MNIST's IDX files; without it the sweeps are left out")
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--chips", type=int, default=10)
    arguments = parser.parse_args()
    run(arguments) if arguments.step == "run" else report()
    return 0


if __name__ == "__main__":
    sys.exit(main())
