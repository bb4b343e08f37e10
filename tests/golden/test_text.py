"""What is computed today is what the file holds: values to the bit, bounds as they are, the network's between half and twice.

The values of file version 1 were computed in loops over decimals that shared no code with the package, all but the network's
cases of pad shortcuts and bottlenecks. They never change. The network's come from nn's own functions today, whose bounds follow
nn's own steps: that these are right is what this test rests on them.
"""

from dataclasses import replace

import numpy as np
import pytest

from pcmref.golden import file
from pcmref.golden.expected import expected, law
from pcmref.golden.ops import OPS
from pcmref.golden.twin import TWINS
from tests.golden.stored import differing

GOLDEN = file.read()
CASES = [pytest.param(g, id=g.case.key, marks=[pytest.mark.slow] * (g.case.level > 1)) for g in GOLDEN if g.law is None]


def test_the_network_is_the_texts_the_rest_the_twins():
    twins = {"inject_weight_noise", "clip_weights", "draws"} | {op for op in OPS if OPS[op].device}
    assert set(TWINS) == twins and {g.case.op for g in GOLDEN} == set(OPS)


@pytest.mark.parametrize("stored", CASES)
def test_the_stored_values_and_bounds_come_out_again(stored):
    case = stored.case
    found = expected(case.op, case.inputs, case.noise, case.params)
    assert found.keys() == stored.expected.keys() and differing(replace(stored, expected=found), stored) == []


@pytest.mark.parametrize("stored", [g for g in GOLDEN if g.law is not None], ids=lambda g: g.case.key)
def test_the_stored_laws_come_out_again(stored):
    assert differing(file.make_law(stored.case), stored) == []


def test_the_law_of_a_clamped_exponent_is_that_of_the_draw_before():
    stored = next(g for g in GOLDEN if g.case.key == "drift_exponent/v1/law_joshi2020")
    clamped = {"model": stored.case.params["model"] | {"nu_law": "clamped"}}
    np.testing.assert_array_equal(law("drift_exponent", stored.case.inputs, clamped)["nu"][1], stored.law["nu"].spread)
