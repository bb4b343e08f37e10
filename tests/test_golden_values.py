"""pcmref's own results on the shipped golden vectors: a route to every operation that shares no code with it.

The expected values come from the loops-only twin, in decimals far beyond float64, each with a bound derived for it;
test_golden_twin.py shows that the twin shares no code.
"""

import pytest

from pcmref.golden import Reference, check, file
from pcmref.golden.ops import OPS

GOLDEN = file.read()


@pytest.mark.parametrize("op", OPS)
def test_results_are_the_twins(op):
    """Every case of an operation, in float64."""
    cases = [golden for golden in GOLDEN if golden.case.op == op and golden.law is None]
    verdicts = check(Reference(), cases, ["float64"])
    assert verdicts and [v for v in verdicts if v.status != "pass"] == []
