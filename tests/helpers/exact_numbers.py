"""Rational numbers with a slope: nn's text runs on arrays of them, to the last digit, derivative included."""

from fractions import Fraction
from math import isqrt

import numpy as np


class Tie(ValueError):
    """Two numbers of the same value and different slopes are compared: no derivative there."""


class Exact:
    """value + slope*e with e^2 = 0, both rational: f(value + e) = f(value) + f'(value) e, so a slope is a derivative."""

    __slots__ = ("slope", "value")

    def __init__(self, value, slope=0):
        self.value, self.slope = (Fraction(v.item() if isinstance(v, np.generic) else v) for v in (value, slope))

    def __add__(self, other):
        other = exact(other)
        return Exact(self.value + other.value, self.slope + other.slope)

    def __neg__(self):
        return Exact(-self.value, -self.slope)

    def __mul__(self, other):
        other = exact(other)
        return Exact(self.value * other.value, self.value * other.slope + self.slope * other.value)

    def __truediv__(self, other):
        other = exact(other)
        return self * Exact(1 / other.value, -other.slope / other.value**2)

    def __sub__(self, other):
        return self + -exact(other)

    def __rsub__(self, other):
        return exact(other) - self

    def __rtruediv__(self, other):
        return exact(other) / self

    __radd__, __rmul__ = __add__, __mul__

    def sqrt(self):
        """The root, where it is rational; ValueError elsewhere."""
        root = Fraction(isqrt(self.value.numerator), isqrt(self.value.denominator))
        if root * root != self.value:
            raise ValueError(f"{self.value} has no rational root")
        return Exact(root, self.slope / (2 * root))

    def __eq__(self, other):
        return self.value == exact(other).value

    def __lt__(self, other):
        return self.value < exact(other).value

    def __le__(self, other):
        return self.value <= exact(other).value

    def __gt__(self, other):
        return self.value > exact(other).value

    def __ge__(self, other):
        other = exact(other)
        if self.value == other.value and self.slope != other.slope:
            raise Tie
        return self.value >= other.value

    def __abs__(self):
        return self if self.value >= 0 else -self

    __hash__ = None

    def __repr__(self):
        return f"{self.value}" + (f" + {self.slope} e" if self.slope else "")


def exact(value) -> Exact:
    return value if isinstance(value, Exact) else Exact(-(10**9) if value == -np.inf else value)  # below all others here


def numbers(values, slopes=None) -> np.ndarray:
    """An object array of Exact numbers from arrays of rational (or floating-point) values and slopes."""
    values = np.asarray(values)
    slopes = np.zeros(values.shape, int) if slopes is None else np.asarray(slopes)
    out = np.empty(values.shape, object)
    for index in np.ndindex(*values.shape):
        out[index] = Exact(values[index], slopes[index])
    return out


def values(array) -> np.ndarray:
    return np.vectorize(lambda v: exact(v).value, otypes=[object])(array)


def slopes(array) -> np.ndarray:
    return np.vectorize(lambda v: exact(v).slope, otypes=[object])(array)


def inner(a, b) -> Fraction:
    """sum of products of two arrays of rationals."""
    return sum((x * y for x, y in zip(np.ravel(a), np.ravel(b), strict=True)), Fraction(0))
