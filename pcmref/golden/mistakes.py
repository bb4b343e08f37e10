"""The named mistakes that cases exist for, as Wycheproof's notes do it: kind, effect, whom it hits; the table is mistakes.toml.

A case is for a mistake by its operation and what it is, not by a list: a new case gets its mistakes from the same rules.
"""

from fnmatch import fnmatchcase
from math import prod
from pathlib import Path

import numpy as np

from pcmref import store
from pcmref.golden.case import Case

MISTAKES: dict[str, dict] = store.read_toml(Path(__file__).parent / "mistakes.toml")


def mistakes_of(case: Case) -> list[str]:
    """The names of the mistakes that a case exists for."""
    return [
        name
        for name, m in MISTAKES.items()
        if case.op in m["ops"]
        and fnmatchcase(case.key, m.get("case", "*"))
        and all(PROPERTIES[what](case) for what in m.get("where", ()))
    ]


def _first(case: Case) -> np.ndarray:
    """What goes in: images, features or logits."""
    return next(case.inputs[name] for name in ("x", "x_calibration", "logits") if name in case.inputs)


def _network(case: Case, entry: str):
    return case.params.get("network", {}).get(entry)


def _pads(case: Case) -> bool:
    if "network" in case.params:
        return _network(case, "shortcut") == "pad"
    return "downsample.0.weight" not in case.inputs and len(case.inputs["conv1.weight"]) != _first(case).shape[3]


PROPERTIES = {
    "height is not width": lambda case: _first(case).shape[1] != _first(case).shape[2],
    "kernel above 1": lambda case: max(case.inputs["w"].shape[2:]) > 1,
    "stride above 1": lambda case: case.params["stride"] > 1,
    "padding": lambda case: case.params["padding"] > 0,
    "several channels": lambda case: case.inputs["w"].shape[1] > 1,
    "several images": lambda case: len(_first(case)) > 1,
    "500 terms": lambda case: prod(case.inputs["w"].shape[1:]) >= 500,
    "logits beyond 88": lambda case: np.abs(case.inputs["logits"]).max() > 88,  # exp(89) is no float32
    "smoothing": lambda case: case.params["smoothing"] > 0,
    "shortcut without weights": _pads,
    "bottlenecks": lambda case: _network(case, "block") == "bottleneck",
    "ImageNet stem": lambda case: _network(case, "stem") == "imagenet",
    "zeros only": lambda case: not case.inputs["w"].any(),
    "after t_0": lambda case: case.params["t_s"] > case.params["model"]["t_0_s"],
    "several tiles": lambda case: case.params["tile"][0] < case.inputs["x"].shape[1],
    "all bits of a dtype": lambda case: case.dtype is not None,
    "a tail": lambda case: any(n > 16 and n % 8 for v in case.inputs.values() for n in (v.shape[:1] + v.shape[-1:])),
    "above 4 images": lambda case: len(_first(case)) > 4,
    "above 8 pixels": lambda case: max(_first(case).shape[1:3]) > 8,
    "above 10 classes": lambda case: case.inputs["logits"].shape[1] > 10,
    "above 100,000 devices": lambda case: next(iter(case.inputs.values())).size > 100_000,
    "beyond a year": lambda case: case.params["t_s"] > 31_536_000,
    "G_max is not 25": lambda case: (case.params.get("model") or case.params)["g_max_us"] != 25,
    "eps is not 1e-5": lambda case: case.params["eps"] != 1e-5,
    "ends of the range": lambda case: bool(((size := np.abs(_first(case))) > 1e30).any() or (size[size > 0] < 1e-30).any()),
}
