"""Run the README's demo and put its table and picture into it, between its markers; list the shipped networks.

    python validation/readme.py           the demo: a minute
    python validation/readme.py picture   only the picture, from the result kept of the last run

The demo's own settings; its picture becomes docs/retention.png, its result is kept in results/. The README's comparison
of the two networks comes from retention.py.
"""

import sys
from pathlib import Path

from pcmref import library
from pcmref.cli.progress import ProgressBar
from pcmref.pcm.model import PCMModel
from pcmref.study import RetentionResult, retention
from pcmref.times import human_time

TOP = Path(__file__).parent.parent
RESULTS, DEMO, PICTURE = TOP / "validation" / "results", "readme-demo.h5", TOP / "docs" / "retention.png"
NETWORK = "resnet32-fashionmnist-noise"


def run(name: str, n_images: int, n_chips: int, n_calibration: int) -> RetentionResult:
    """The retention experiment on the shipped images, otherwise with the command's defaults."""
    file, data = library.read_network(name), library.load_images("fashionmnist-evaluation")
    x, calibration = data.normalized(data.images[:n_images]), data.normalized(data.calibration[:n_calibration])
    with ProgressBar(name, "measurement") as bar:
        settings = {"n_chips": n_chips, "x_calibration": calibration, "name": name, "progress": bar.update}
        return retention(file.net, file.state, PCMModel.joshi2020(), x, data.labels[:n_images], **settings)


def markdown(result: RetentionResult) -> str:
    """The summary as a Markdown table in percent."""
    cells = {(s.compensation, s.t_s): f"{100 * s.mean:.1f} ± {100 * s.std:.1f}" for s in result.summary()}
    compensations = list(dict.fromkeys(c for c, _ in cells))
    lines = ["| time | software | " + " | ".join(compensations) + " |", "|---" * (len(compensations) + 2) + "|"]
    for t_s in dict.fromkeys(t for _, t in cells):
        values = [cells[c, t_s] for c in compensations]
        lines.append(f"| {human_time(t_s)} | {100 * result.software_accuracy:.1f} | {' | '.join(values)} |")
    return "\n".join(lines)


def networks() -> str:
    """What each shipped network says of itself, as a Markdown table."""
    lines = ["| name | weights | starts from | epochs | eta, alpha | software accuracy |", "|---|---|---|---|---|---|"]
    for name in sorted(n for n in library.shipped() if n != "fashionmnist-evaluation"):
        file = library.read_network(name)
        about, recipe = file.about, file.about["recipe"]
        weights = sum(file.state[n].size for n in file.net.synaptic())
        noise = f"{recipe['eta']}, {recipe['alpha']}" if recipe["eta"] else "none"
        reached = f"{100 * about['software_accuracy']:.2f} % of {about['software_accuracy_of']}"
        lines.append(f"| `{name}` | {weights:,} | {about['start']} | {recipe['epochs']} | {noise} | {reached} |")
    return "\n".join(lines)


def put(path: Path, name: str, text: str) -> None:
    """Replace what stands between <!-- name --> and <!-- end --> in a Markdown file."""
    before, rest = path.read_text(encoding="utf-8").split(f"<!-- {name} -->\n", 1)
    after = rest.split("<!-- end -->", 1)[1]
    path.write_text(f"{before}<!-- {name} -->\n{text}\n<!-- end -->{after}", encoding="utf-8")


def main(arguments: list[str]) -> int:
    if arguments == ["picture"]:
        RetentionResult.from_hdf5(RESULTS / DEMO).plot(PICTURE)
        return 0
    put(TOP / "reference_weights" / "README.md", "networks", networks())
    RESULTS.mkdir(exist_ok=True)
    demo = run(NETWORK, 1000, 3, 800)  # as in the Makefile
    demo.to_hdf5(RESULTS / DEMO)
    demo.plot(PICTURE)
    put(TOP / "README.md", "demo table", markdown(demo))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
