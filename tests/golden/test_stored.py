"""What `Reference` calls of nn, run in plain decimals of 50 digits, gives every stored value of the network to the bit.

Level 2 too. The stored values came from loops that shared no code with nn, but for the cases of pad shortcuts and
bottlenecks, which came from nn itself: for those this shows only that no later change moves them. No bound is carried, no
number of golden's used: `golden/expected.py` arranges some operations for the sake of their bounds, this is the text as the
package runs it.
"""

from decimal import Decimal, localcontext

import numpy as np
import pytest

from pcmref.golden import Reference, file
from pcmref.golden.numbers import DIGITS
from pcmref.golden.ops import OPS

NETWORK = [
    op for op in OPS.values() if not op.device and op.name not in ("inject_weight_noise", "clip_weights", "sgd_step", "draws")
]
GOLDEN = [g for g in file.read() if g.law is None and OPS[g.case.op] in NETWORK]


def _operator(function, result=None):
    """A method of Number: an array beside it takes the operation on, number by number."""

    def method(self, other):
        if isinstance(other, np.ndarray):
            return NotImplemented
        return (result or Number)(function(self.value, Number(other).value))

    return method


class Number:
    """A decimal that NumPy's object arrays calculate with; an int or a float beside it is taken as it is."""

    __slots__ = ("value",)

    def __init__(self, value):
        self.value = (
            value.value if isinstance(value, Number) else value if isinstance(value, Decimal) else Decimal(float(value))
        )

    __add__ = __radd__ = _operator(lambda a, b: a + b)
    __sub__, __rsub__ = _operator(lambda a, b: a - b), _operator(lambda a, b: b - a)
    __mul__ = __rmul__ = _operator(lambda a, b: a * b)
    __truediv__, __rtruediv__ = _operator(lambda a, b: a / b), _operator(lambda a, b: b / a)
    __gt__, __ge__ = _operator(lambda a, b: a > b, bool), _operator(lambda a, b: a >= b, bool)
    __lt__, __le__ = _operator(lambda a, b: a < b, bool), _operator(lambda a, b: a <= b, bool)

    def __neg__(self):
        return Number(-self.value)

    def __float__(self):
        return float(self.value)

    def sqrt(self):
        return Number(self.value.sqrt())

    def exp(self):
        return Number(self.value.exp())

    def log(self):
        return Number(self.value.ln())


def exact(array):
    """An array of Numbers; labels stay integers."""
    return np.vectorize(Number, otypes=[object])(array) if array.dtype.kind == "f" else array


def of_the_text(case, backend):
    """{output: float64} of an operation in decimals, rounded once at the end."""
    params = {name: Number(value) if isinstance(value, float) else value for name, value in case.params.items()}
    with localcontext(prec=DIGITS):
        out = backend.run(case.op, 1, {name: exact(array) for name, array in case.inputs.items()}, {}, params)
        return {name: np.asarray(value, object).astype(np.float64) for name, value in out.items()}


def differing(golden, backend=None):
    """The outputs in which any stored value is another than the text's."""
    found = of_the_text(golden.case, backend or Reference())
    assert found.keys() == golden.expected.keys()
    return [name for name, e in golden.expected.items() if not np.array_equal(found[name], e.value)]


@pytest.mark.parametrize("vector", GOLDEN, ids=lambda g: g.case.key)
def test_the_text_gives_every_stored_value_to_the_bit(vector):
    assert differing(vector) == []


def test_a_text_that_is_wrong_in_the_thirteenth_digit_is_noticed():
    """A factor of 1 + 1e-13 is a millionth of what float32 results may be off; bits show it."""

    class Wrong(Reference):
        def batch_norm(self, **named):
            return super().batch_norm(**named) * (1 + 1e-13)

    wrong = [differing(g, Wrong()) for g in GOLDEN if g.case.op == "batch_norm"]
    assert wrong and all(found == ["y"] for found in wrong)
