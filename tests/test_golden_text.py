"""The text gives what the independent twin of old has written into the file: values to the bit, bounds between half and twice.

The network's values of file version 1 were computed in loops over decimals that shared no code with `pcmref.nn`, all but the
cases of pad shortcuts and bottlenecks. They never change. What is computed for new cases comes from nn's own functions; that
these are right is what this test rests on them.
"""

from dataclasses import replace

import pytest
from stored import differing

from pcmref.golden import file
from pcmref.golden.expected import expected
from pcmref.golden.ops import OPS
from pcmref.golden.twin_ops import TWINS

OF_TEXT = [op for op in OPS if op not in TWINS]
GOLDEN = [g for g in file.read() if (g.case.op in OF_TEXT or g.case.op == "chip") and g.case.level == 1]


def test_the_network_is_the_texts_the_rest_the_twins():
    twins = {"inject_weight_noise", "clip_weights", "draws"} | {op for op in OPS if OPS[op].device}
    assert set(TWINS) == twins and {g.case.op for g in GOLDEN} == {*OF_TEXT, "chip"} and len(GOLDEN) > 50


@pytest.mark.parametrize("filed", GOLDEN, ids=lambda g: g.case.key)
def test_the_text_gives_the_stored_values_and_bounds(filed):
    case = filed.case
    found = expected(case.op, case.inputs, case.noise, case.params)
    assert found.keys() == filed.expected.keys() and differing(replace(filed, expected=found), filed) == []
