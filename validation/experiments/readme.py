"""Run the README's demo and put its table and picture into it, between its markers; list the shipped networks.

    python -m validation.experiments.readme           the demo: a minute
    python -m validation.experiments.readme picture   only picture and table, from the result kept of the last run

The demo's own settings; its picture becomes docs/retention.png, its result is kept in results/. The README's comparison
of the two networks comes from retention.py.
"""

import sys
from pathlib import Path

import pcmref
from pcmref.cli.progress import ProgressBar
from pcmref.experiments import tables
from pcmref.experiments.retention import RetentionResult, retention
from pcmref.files.networks import read_network, shipped
from pcmref.pcm.model import PCMModel

TOP = Path(__file__).parents[2]
RESULTS, DEMO, PICTURE = TOP / "validation" / "results", "readme-demo.h5", TOP / "docs" / "retention.png"
NETWORK = "resnet32-fashionmnist-noise"


def run(name: str, n_images: int, n_chips: int, n_calibration: int) -> RetentionResult:
    """The retention experiment on the shipped images, otherwise with the command's defaults."""
    file, data = read_network(name), pcmref.load_images("fashionmnist-evaluation")
    x, calibration = data.normalized(data.images[:n_images]), data.normalized(data.drawn_calibration(n_calibration))
    with ProgressBar(name, "measurement") as bar:
        settings = {"n_chips": n_chips, "x_calibration": calibration, "name": name, "progress": bar.update}
        return retention(file.net, file.state, PCMModel.joshi2020(), x, data.labels[:n_images], **settings)


def networks() -> str:
    """What each shipped network says of itself, as a Markdown table."""
    lines = [["name", "weights", "starts from", "epochs", "eta, alpha", "software accuracy"]]
    for name in sorted(n for n in shipped() if n != "fashionmnist-evaluation"):
        file = read_network(name)
        about, recipe = file.about, file.about["recipe"]
        weights = sum(file.state[n].size for n in file.net.synaptic())
        noise = f"{recipe['eta']}, {recipe['alpha']}" if recipe["eta"] else "none"
        reached = f"{100 * about['software_accuracy']:.2f} % of {about['software_accuracy_of']}"
        lines.append([f"`{name}`", f"{weights:,}", about["start"], str(recipe["epochs"]), noise, reached])
    return tables.markdown(lines)


def main(arguments: list[str]) -> int:
    if arguments != ["picture"]:
        tables.fill(TOP / "reference_weights" / "README.md", {"networks": networks()})
        RESULTS.mkdir(exist_ok=True)
        run(NETWORK, 1000, 3, 800).to_hdf5(RESULTS / DEMO)  # as in the Makefile
    demo = RetentionResult.from_hdf5(RESULTS / DEMO)
    demo.plot(PICTURE)
    tables.fill(TOP / "README.md", {"demo table": tables.markdown(demo.lines(1))})
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
