"""One deterministic hypothesis profile for every run: a failure on one machine is a failure on all. And what tests share."""

import pytest
from hypothesis import HealthCheck, settings

from tests.helpers.toolkit import Toolkit

settings.register_profile(
    "pcmref", derandomize=True, deadline=None, max_examples=40, suppress_health_check=[HealthCheck.too_slow], database=None
)
settings.load_profile("pcmref")


@pytest.fixture
def toolkit(monkeypatch):
    """aihwkit's noise model; skips where aihwkit is not installed."""
    return Toolkit(monkeypatch)
