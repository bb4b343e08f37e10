"""A small lab page, computed once for the tests that read its numbers and for those that open it."""

import functools
import json
import re

from pcmref import PCMModel
from pcmref.cli import lab

MODEL = PCMModel.joshi2020()
TIMES_S = (20.0, 3600.0, 86_400.0, 365 * 86_400.0)
SETTINGS = lab.Settings(
    times_s=TIMES_S,
    targets_us=(0.0, 1.0, 25.0),
    n_devices=5000,
    n_pairs=2,
    n_chips=2,
    n_reads=2,
    n_images=30,
    n_calibration=30,
)


@functools.cache
def page() -> str:
    """The page for SETTINGS."""
    return lab.page(lab.compute(SETTINGS, MODEL))


def embedded(text: str) -> dict:
    """The data that a page carries."""
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.S)[1])
