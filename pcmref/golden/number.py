"""Numbers that run through nn's own functions and come back with 50 digits and an error bound.

A `Number` is a sum left open: its terms are bounded numbers of `pcmref.golden.twin`, whose rules and sources hold here too.
They are added up, in any order, when anything but another sum is done with it; so the bound covers every order, not nn's
alone. A product closes the sums in it first, but for a factor that `folds`: one that a backend may multiply into the terms of
a sum beforehand, as many do with batch norm's weight / sqrt(var + eps).

`Numbers` is an object array of them. NumPy does with it what it does with any object array, except where a choice would hide
an error: a maximum keeps the larger error of two numbers that the bounds do not tell apart, and a comparison that they do not
decide raises TooCoarse.
"""

from math import isinf

import numpy as np

from pcmref.golden.twin import Bounded, constant, each, exact, grid, is_narrow, largest, lift, nearest, total


class Number:
    """An open sum; `folds` where it is a factor that may be multiplied into another sum's terms."""

    __slots__ = ("folds", "terms")

    def __init__(self, terms: list[Bounded], folds: bool = False):
        self.terms, self.folds = terms, folds

    def closed(self) -> Bounded:
        """The sum, added up in any order; where its value happens to be 0, the errors of its terms remain."""
        return total(self.terms) if len(self.terms) > 1 else self.terms[0]

    def _number(self, other) -> "Number":
        """Another operand: whole numbers are exact, the equation's other constants are rounded, and fold."""
        if isinstance(other, Number):
            return other
        u, whole = self.terms[0].u, isinstance(other, int) or isinf(other)
        return Number([exact(other, u) if whole else constant(other, u)], not whole)

    def __add__(self, other):
        if _is_nothing(other):
            return self
        other = self._number(other)
        return Number(self.terms + other.terms, self.folds or other.folds)

    __radd__ = __add__

    def __neg__(self):
        return Number([-t for t in self.terms], self.folds)

    def __sub__(self, other):
        return self + -other

    def __rsub__(self, other):
        return -self + other

    def __mul__(self, other):
        if isinstance(other, np.ndarray):
            return NotImplemented  # NumPy then takes it element by element
        if _is_nothing(other):
            return 0
        a, b = self, self._number(other)
        if a.folds == b.folds:
            return Number([a.closed() * b.closed()], a.folds)
        factor, terms = (a.closed(), b.terms) if a.folds else (b.closed(), a.terms)
        return Number([t * factor for t in terms])

    __rmul__ = __mul__

    def reciprocal(self) -> "Number":
        return Number([self.closed().reciprocal()], self.folds)

    def __truediv__(self, other):
        return self * self._number(other).reciprocal()

    def __rtruediv__(self, other):
        return self.reciprocal() * other

    def sqrt(self) -> "Number":
        return Number([self.closed().sqrt()], self.folds)

    def exp(self) -> "Number":
        return Number([self.closed().exp()])

    def log(self) -> "Number":
        return Number([self.closed().log()])

    def __gt__(self, other):
        return self.closed().above(self._number(other).closed())

    def __lt__(self, other):
        return self._number(other).closed().above(self.closed())


def _is_nothing(value) -> bool:
    """Whether it is a plain 0, as an image's border is: no number of the computation, and no term of a sum."""
    return not isinstance(value, Number) and value == 0


def _larger(a, b):
    """max(a, b) of numbers, or of a number and a plain 0 or infinity."""
    a, b = (a, b) if isinstance(a, Number) else (b, a)
    return Number([largest(a.closed(), a._number(b).closed())]) if isinstance(a, Number) else max(a, b)


_MAXIMUM = np.frompyfunc(_larger, 2, 1, identity=None)
_CLOSED = np.frompyfunc(lambda v: Number([v.closed()], v.folds) if isinstance(v, Number) else v, 1, 1)


class Numbers(np.ndarray):
    """An object array of Number, and of the plain 0 that np.pad and np.zeros put in."""

    def close(self) -> "Numbers":
        """Every sum added up."""
        return _numbers(_CLOSED(_plain(self)))

    def nearest(self) -> np.ndarray:
        """The float64 nearest to each sum."""
        return nearest(each(Number.closed, self))

    def wrap(self, plain) -> "Numbers":
        """A view of an array of this kind that went through np.asarray."""
        return plain.view(Numbers)

    def __array_ufunc__(self, ufunc, method, *inputs, out=None, **options):
        if out is not None:
            options["out"] = tuple(map(_plain, out))
        result = getattr(_MAXIMUM if ufunc is np.maximum else ufunc, method)(*map(_plain, inputs), **options)
        return _numbers(result) if out is None else out[0]

    def __array_function__(self, function, types, args, kwargs):
        if function is np.where:
            args = _chosen(*args)
        return _numbers(function(*map(_plain, args), **{name: _plain(value) for name, value in kwargs.items()}))


def _chosen(condition, values, zero):
    """The arguments of np.where: what a layer's backward hands on is closed, and where it hands on 0, that is a number."""
    first = next((v for v in np.ravel(values) if isinstance(v, Number)), None)
    return condition, values.close(), zero if first is None else grid((), lambda: Number([exact(zero, first.terms[0].u)]))


def _plain(value):
    return value.view(np.ndarray) if isinstance(value, Numbers) else value


def _numbers(value):
    """An array as Numbers; one of truths too, so that np.where with it comes back here."""
    return value.view(Numbers) if isinstance(value, np.ndarray) and value.dtype.kind in "Ob" else value


def numbers(values, u: float, folds: bool = False, is_exact=is_narrow) -> Numbers:
    """An input array as `twin.lift` has it, each number a sum of one term."""
    return _numbers(each(lambda term: Number([term], folds), lift(values, u, is_exact=is_exact)))


def bounded(values, u: float) -> np.ndarray:
    """An array of nn's results as `twin.Bounded` numbers."""
    return each(lambda v: v.closed() if isinstance(v, Number) else exact(v, u), np.asarray(values, object))
