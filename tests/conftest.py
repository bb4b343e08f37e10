"""One deterministic hypothesis profile for every run: a failure on one machine is a failure on all. And what tests share."""

import os
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from toolkit import Toolkit

settings.register_profile(
    "pcmref", derandomize=True, deadline=None, max_examples=40, suppress_health_check=[HealthCheck.too_slow], database=None
)
settings.load_profile("pcmref")


SCRIPTS = str(Path(__file__).parent.parent / "validation") + os.sep


@pytest.fixture(autouse=True)
def scripts_are_forgotten():
    """What a test imported from validation/, whose constants it may have altered, is no other test's."""
    yield
    for name, module in list(sys.modules.items()):
        if (getattr(module, "__file__", None) or "").startswith(SCRIPTS):
            del sys.modules[name]


@pytest.fixture
def toolkit(monkeypatch):
    """aihwkit's noise model; skips where aihwkit is not installed."""
    return Toolkit(monkeypatch)
