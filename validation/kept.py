"""Measurements on a network that are kept in results/, so that a run goes on where it was and a table says what it is of.

A file holds its values under the SHA-256 of the network's file and the settings; with another network, or other settings,
everything is measured again.
"""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np

from pcmref import library, store

RESULTS = Path(__file__).parent / "results"


class Kept:
    """The values measured on one network with these settings, by key; each is written as soon as it is there."""

    def __init__(self, name: str, network: str, **settings):
        path = library.find(network)
        self.file = library.read_network(path)
        self.about = {"network": path.stem, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
        self.about |= {"trained by commit": self.file.about.get("commit"), **settings}
        self.path = RESULTS / f"{name}.json"
        held = json.loads(self.path.read_text()) if self.path.is_file() else {}
        self.values = held["values"] if held.get("about") == self.about else {}

    def measured(self, key: str, measure: Callable[[], object]):
        """The value under this key, measured now if it is not there."""
        if key not in self.values:
            self.values[key] = measure()
            RESULTS.mkdir(exist_ok=True)
            with store.replacing(self.path) as temporary:
                temporary.write_text(json.dumps({"about": self.about, "values": self.values}, indent=1) + "\n")
        return self.values[key]

    def heading(self) -> str:
        """What the values are of, in a line of Markdown."""
        commit = self.about["trained by commit"]
        trained = f", trained by commit {commit[:12]}" if commit else ""
        settings = ", ".join(f"{value:,} {key}" for key, value in self.about.items() if isinstance(value, int))
        return f"Network `{self.about['network']}` (SHA-256 {self.about['sha256'][:16]}{trained}); {settings}."


def mean_and_error(values) -> tuple[float, float]:
    """The mean and its standard error over the chips, in percent or points; nan for one chip."""
    values = 100 * np.asarray(values)
    return values.mean(), values.std(ddof=1) / np.sqrt(len(values)) if len(values) > 1 else np.nan


def cell(values, base=None) -> str:
    """ "mean ± standard error" in percent, or of the difference to `base`, paired chip by chip, in points."""
    mean, error = mean_and_error(values if base is None else np.subtract(values, base))
    return f"{mean:{'' if base is None else '+'}.2f} ± {error:.2f}"
