"""What costs a network its accuracy, on chips that are kept in results/ a few images at a time.

A chip's conditions take over an hour of a core on 10,000 images. They are measured PART images after the other, so that a run
that is stopped loses minutes, and PyTorch remembers what a network's blocks gave for all of them (torch_network.Remembering).
"""

import json
from dataclasses import replace

from pcmref.experiments import tables
from pcmref.experiments.sensitivity import OFF, SensitivityResult, conditions, sensitivity
from pcmref.experiments.statistics import spread
from pcmref.pcm.mapping import crossbars
from pcmref.pcm.model import PCMModel
from validation.experiments.measurements import RESULTS, Kept

PART = 1_000  # images
JOSHI = PCMModel.joshi2020()


def measure(found: Kept, n_chips: int) -> None:
    """Measure what is not kept yet of n_chips chips."""
    of, about = found.file, found.about
    design = {name: about[name] for name in ("t_s", "compensation")}
    study = found.study(conditions(JOSHI, crossbars(of.state), **design), reads=about["reads"], workers=1)
    if "evaluated by" in about:
        study = replace(study, net=of.net.remembering())
    found.measure_chips(study, range(n_chips), PART)
    known, eta = {k: found.values[f"chip {k}"] for k in range(n_chips)}, (of.about.get("recipe") or {}).get("eta")
    options = {**design, "n_chips": n_chips, "reads": about["reads"], "known": known, "eta": eta}
    settings = sensitivity(of.net, of.state, JOSHI, study.x[:1], study.labels[:1], **options).settings
    found.keep({"settings": settings | {"n_images": len(study.x)}})


def kept_result(network: str) -> SensitivityResult:
    """What is kept of a network, whole chips only; SystemExit where those that were asked for are not all there yet."""
    path = RESULTS / f"cifar10-sensitivity-{network}.json"
    about, values = json.loads(path.read_text()).values()
    if "settings" not in values:
        raise SystemExit(f"{path}: not all chips are measured yet; run the experiment again, it goes on")
    settings = about | values["settings"]
    measured = {k: values[f"chip {k}"] for k in range(settings["n_chips"])}
    under = conditions(JOSHI, settings["weights"], settings["t_s"], settings["compensation"])
    return SensitivityResult.of(network, under, measured, values["software"], settings)


def decides(results: list[SensitivityResult]) -> str:
    """In the mean: what is lost, what comes back with the crossbar digital that brings back most, and without each noise."""
    lines = [["network", "lost", "one crossbar exact, the most", "above the next", *(f"without {noise}" for noise in OFF)]]
    for found in results:
        (most, gain), (_, after), *_ = found.gains().items()
        values = [found.lost("chip"), gain, gain - after, *(found.regained("without", noise) for noise in OFF)]
        lost, regained, *others = (tables.mean_cell(spread(v)) for v in values)
        lines.append([found.name, lost, f"{most}: {regained}", *others])
    return tables.markdown(lines)
