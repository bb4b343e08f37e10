"""One deterministic hypothesis profile for every run: a failure on one machine is a failure on all."""

from hypothesis import HealthCheck, settings

settings.register_profile(
    "pcmref", derandomize=True, deadline=None, max_examples=40, suppress_health_check=[HealthCheck.too_slow], database=None
)
settings.load_profile("pcmref")
