"""The text gives what the independent twin of old has written into the file: values to the bit, bounds between half and twice.

The network's values of file version 1 were computed in loops over decimals that shared no code with `pcmref.nn`, all but the
cases of pad shortcuts and bottlenecks. They never change. What is computed for new cases comes from nn's own functions; that
these are right is what this test rests on them.
"""

from dataclasses import replace
from decimal import localcontext

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pcmref.golden import file
from pcmref.golden.expected import expected
from pcmref.golden.number import Number, bounded, numbers
from pcmref.golden.ops import OPS
from pcmref.golden.twin import DIGITS, TooCoarse, constant, exact
from pcmref.golden.twin_ops import TWINS
from pcmref.nn import functional as F

U = 2.0**-24
OF_TEXT = [op for op in OPS if op not in TWINS]
GOLDEN = [g for g in file.read() if (g.case.op in OF_TEXT or g.case.op == "chip") and g.case.level == 1]


def test_the_network_is_the_texts_the_rest_the_twins():
    twins = {"inject_weight_noise", "clip_weights", "sgd_step", "draws"} | {op for op in OPS if OPS[op].device}
    assert set(TWINS) == twins and {g.case.op for g in GOLDEN} == {*OF_TEXT, "chip"} and len(GOLDEN) > 50


@pytest.mark.parametrize("filed", GOLDEN, ids=lambda g: g.case.key)
def test_the_text_gives_the_stored_values_and_bounds(filed):
    case = filed.case
    found = expected(case.op, case.inputs, case.noise, case.params)
    assert found.keys() == filed.expected.keys() and file.as_stored(replace(filed, expected=found), filed) is filed


# ------------------------------------------------------------------------------------------------------------ the number


def held(number, got) -> bool:
    """Whether a float32 result is within the bound of the exact value."""
    b = number.closed()
    return abs(float(got) - float(b.value)) <= b.error * U * (1 + 1e-9)


small = st.integers(1, 255).map(lambda n: n / 32) | st.integers(-255, -1).map(lambda n: n / 32)


@given(st.lists(small, min_size=2, max_size=20), small, st.randoms())
def test_an_open_sum_covers_every_order_and_a_factor_folded_into_it(values, factor, random):
    with localcontext(prec=DIGITS):
        tenth = Number([constant("0.1", U)], folds=True)
        x = numbers(np.array(values), U)
        total = sum(x) * tenth + 0.3
        shuffled = np.float32(random.sample(values, len(values)))
        assert held(total, np.float32(0.1) * np.add.accumulate(shuffled)[-1] + np.float32(0.3))
        assert held(total, np.add.accumulate(np.float32([0.3, *(np.float32(0.1) * shuffled)]))[-1])
        one = numbers(np.array(factor), U).item()
        assert len((sum(x) * one).terms) == 1 < len((sum(x) * tenth).terms)  # only what folds is multiplied into the terms


def test_a_plain_zero_is_no_term_but_a_difference_that_happens_to_be_zero_is_not_free_of_error():
    with localcontext(prec=DIGITS):
        a = Number([constant("0.1", U)])
        assert (a + 0).terms == a.terms and a * 0 == 0 and isinstance(a * 0, int)
        difference = (a - a).closed()
        assert difference.value == 0 and difference.error > 0


def test_an_undecided_maximum_keeps_the_larger_error_and_an_undecided_comparison_is_refused():
    with localcontext(prec=DIGITS):
        rough = Number([exact("0.1", U).rounded(9)]) - Number([exact("0.1", U)])
        fine = Number([constant("0.1", U)]) - Number([constant("0.1", U)])
        pair = numbers(np.zeros(2), U)
        pair[:] = fine, rough
        assert pair.max().closed().error == pair[::-1].max().closed().error == rough.closed().error > fine.closed().error
        assert F.relu(pair)[0].closed().error == fine.closed().error
        with pytest.raises(TooCoarse):
            F.relu_backward(pair, F.relu(pair))
        with pytest.raises(TooCoarse):
            pair.argmax()
        with_border = np.pad(numbers(np.array([-2.0, -3.0]), U), 1, constant_values=-np.inf)
        assert with_border.max().closed().value == -2 and with_border.argmax() == 1 and with_border.max().closed().error == 0


def test_what_relu_holds_back_is_a_number_and_what_it_hands_on_is_closed():
    with localcontext(prec=DIGITS):
        x = numbers(np.array([1.0, -1.0]), U)
        dx = F.relu_backward(x + x, F.relu(x))
        assert [len(v.terms) for v in dx] == [1, 1] and [float(v.closed().value) for v in dx] == [2.0, 0.0]
        assert [v.error for v in bounded((x + x).close(), U)] == pytest.approx([2.0, 2.0], rel=1e-6)  # (|1| + |1|)/(1 - u)
