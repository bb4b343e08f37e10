"""Write performance.md from a benchmark's report, and measure how cost grows (performance.png).

    python -m validation.peers.bench --peers --out out && python -m validation.experiments.performance out/bench.json
    python -m validation.experiments.performance picture     # only draws performance.png again, from the last measurement

Run the first two on an otherwise idle machine; the figures are those of the last such run.
"""

import json
import sys
from pathlib import Path

import numpy as np

import pcmref
from pcmref import store
from pcmref.cli.executors import open_executor
from pcmref.experiments import tables
from pcmref.experiments.pictures import PALETTE, picture
from validation.peers.bench import flops_per_image, our_tasks, seconds, table, workload

VALIDATION = Path(__file__).parents[1]
PICTURE, GROWTH = VALIDATION / "performance.png", VALIDATION / "results" / "growth.json"


def imagenet() -> str:
    """What imagenet.py measured last, as a table."""
    result = json.loads((VALIDATION / "results" / "imagenet.json").read_text())
    steps = list(next(iter(result.values()))["seconds"])
    lines = [["network", "devices", *(f"{step}, s" for step in steps), "at most held, GB", "machine"]]
    for name, entry in sorted(result.items()):
        seconds = (f"{entry['seconds'][step]:.1f}" for step in steps)
        by = f"{entry['machine']['cpu']}, workers: {entry['machine']['workers']}"
        lines.append([name, f"{entry['devices']:,}", *seconds, f"{entry['peak_gb']:.2f}", by])
    return tables.markdown(lines)


def median_seconds(task, rounds: int = 3) -> float:
    task()
    return float(np.median([seconds(task) for _ in range(rounds)]))


def growth() -> dict[str, tuple[str, list, list[float], list[float]]]:
    """{what grows: (axis label, values, seconds, what proportional growth would give)}."""
    net, x, labels = workload()
    state, model = net.init(), pcmref.PCMModel.joshi2020()
    curves = {}

    def add(name, label, values, tasks, expected):
        measured = [median_seconds(task) for task in tasks]
        curves[name] = (label, values, measured, [measured[0] * e / expected[0] for e in expected])
        print(f"measured {name}", file=sys.stderr, flush=True)

    images = [32, 64, 128, 256, 512]
    add("images", "images (predict)", images, [lambda n=n: pcmref.predict(net, state, x[:n]) for n in images], images)
    chips = [1, 2, 4, 8]

    def study(n):
        return pcmref.retention(net, state, model, x[:64], labels[:64], (86_400.0,), ("none", "gdc"), n)

    add("chips", "chips (retention, 64 images)", chips, [lambda n=n: study(n) for n in chips], chips)
    widths = [pcmref.ResNet(widths=(8 * k, 14 * k, 28 * k)) for k in (1, 2, 4)]
    depths = [pcmref.ResNet(blocks=(n, n, n)) for n in (1, 3, 5, 9)]
    states = {n: n.init() for n in (*widths, *depths)}
    for name, label, nets, values in (
        ("width", "channels of the first stage (predict, 128 images)", widths, [n.widths[0] for n in widths]),
        ("depth", "convolution layers (predict, 128 images)", depths, [len(n.conv_bn_pairs()) for n in depths]),
    ):
        tasks = [lambda n=n: pcmref.predict(n, states[n], x[:128]) for n in nets]
        add(name, label, values, tasks, [flops_per_image(n, 32) for n in nets])
    return curves


def ways_to_use_two_workers(rounds: int = 5) -> str:
    """Four chips on one worker, on two inside each chip, and on two that have a chip each; the study's time and gain."""
    net, x, labels = workload()
    study = (net, net.init(), pcmref.PCMModel.joshi2020(), x[:256], labels[:256], (20.0, 86_400.0))
    settings = {"n_chips": 4, "x_calibration": x[:200]}

    def chips_at_once(name):
        with open_executor(name, 2) as executor:
            pcmref.retention(*study, **settings, workers=1, executor=executor)

    ways = {
        "one worker": lambda: pcmref.retention(*study, **settings, workers=1),
        "two threads inside a chip (the default)": lambda: pcmref.retention(*study, **settings, workers=2),
        "a chip on each of two threads (`--executor threads`)": lambda: chips_at_once("threads"),
        "a chip on each of two processes (`--executor processes`)": lambda: chips_at_once("processes"),
    }
    took = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            took[name].append(seconds(way))
    lines = [["way", "seconds, median", "gain, median of pairs"]]
    for name, values in took.items():
        gain = np.median(np.divide(took["one worker"], values))
        lines.append([name, f"{np.median(values):.1f}", f"{gain:.2f}"])
    return tables.markdown(lines)


def draw(curves, path: Path) -> None:
    from matplotlib.ticker import LogLocator, NullFormatter, NullLocator, StrMethodFormatter

    with picture(path, 2, 2, figsize=(9.6, 7)) as (_, axes):
        for axis, (name, (label, values, measured, expected)) in zip(axes.flat, curves.items(), strict=True):
            axis.loglog(values, measured, "o-", color=PALETTE["blue"], label="measured")
            axis.loglog(values, expected, "--", color="black", linewidth=1, label="in proportion to the operations")
            axis.set_xticks(values, [str(v) for v in values])
            axis.xaxis.set_minor_locator(NullLocator())
            axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axis.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
            axis.yaxis.set_minor_formatter(NullFormatter())
            axis.set(title=name, xlabel=label, ylabel="seconds")
        axes.flat[0].legend()


def main(arguments: list[str]) -> int:
    if arguments == ["picture"]:
        draw(json.loads(GROWTH.read_text()), PICTURE)
        return 0
    report = json.loads(Path(arguments[0]).read_text())
    net, x, labels = workload()
    assert set(our_tasks(net, x[:2], labels[:2], 1)) == {row["name"] for row in report["rows"]}, "report of another version"
    store.write_text(GROWTH, json.dumps(growth(), indent=1) + "\n")
    draw(json.loads(GROWTH.read_text()), PICTURE)
    machine = report["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    parts = {"machine": f"Machine: {machine['cpu']}, {machine['workers']} workers, Python {machine['python']}, {versions}."}
    parts |= {"table": f"```\n{table(report)}\n```", "workers": ways_to_use_two_workers(), "imagenet": imagenet()}
    tables.fill(VALIDATION / "performance.md", parts)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
