"""The slow twin's arithmetic: exact to 50 digits, and every number knows how far a rounded computation may stray from it.

The twin evaluates the project's equations in plain loops and shares no code with the package. A number here is a decimal of
50 digits, so that sums come out exactly rounded in float64 whatever their order, beside a running error bound: a
backend that computes with unit roundoff u, in any order, is off by at most `error * u`, for every u up to the number's `u`.

The device's equations run on arrays of numbers too (`wide`): what follows takes these where it takes one number or an array.

Each rule below is the standard model of floating-point arithmetic, fl(a op b) = (a op b)(1 + d) with |d| <= u, with the
errors of a and b carried through to all orders (Higham, Accuracy and Stability of Numerical Algorithms, 2002, chapters 2 to 4).
"""

from decimal import Decimal
from math import exp, fsum

import numpy as np

DIGITS = 50  # of the decimals; set by `expected.evaluate` for the time of one evaluation
LIBM = 4  # roundings that one exp, log or power may cost: 2 ulp, see Capabilities.libm_ulp
DRAW = 8  # roundings in a standard-normal draw that the backend makes itself: 4 ulp


class TooCoarse(Exception):
    """At this unit roundoff the bound says nothing, or a branch of the computation is not decided by it."""


class Bounded:
    """A value, and the error bound of its computation in units of the roundoff, valid up to the roundoff u."""

    __slots__ = ("error", "roundings", "u", "value")

    def __init__(self, value: Decimal, error: float, u: float, roundings: int = 0):
        self.value, self.error, self.u = value, error, u
        self.roundings = roundings  # in the longest chain; the square root of it is what errors that scatter come to

    @property
    def size(self) -> float:
        """The largest magnitude that the computed number can have."""
        return float(abs(self.value)) + self.error * self.u

    def rounded(self, times: float = 1) -> "Bounded":
        """After `times` roundings to the backend's precision."""
        return Bounded(self.value, self.error + times * self.size, self.u, self.roundings + round(times))

    def __add__(self, other: "Bounded") -> "Bounded":
        return NotImplemented if is_wide(other) else total([self, other])

    def __sub__(self, other: "Bounded") -> "Bounded":
        return NotImplemented if is_wide(other) else total([self, -other])

    def __neg__(self) -> "Bounded":
        return Bounded(-self.value, self.error, self.u, self.roundings)

    def __mul__(self, other: "Bounded") -> "Bounded":
        """|xy - XY| <= |x| dy + |y| dx + dx dy."""
        if is_wide(other):
            return NotImplemented
        error = float(abs(self.value)) * other.error + other.size * self.error
        return Bounded(self.value * other.value, error, self.u, self.roundings + other.roundings).rounded()

    def reciprocal(self) -> "Bounded":
        """|1/x - 1/X| <= dx / (|x| (|x| - dx))."""
        low = self._away_from_zero()
        error = self.error / (float(abs(self.value)) * low)
        return Bounded(1 / self.value, error, self.u, self.roundings).rounded()

    def __truediv__(self, other: "Bounded") -> "Bounded":
        """A division, or a product with the reciprocal: the bound covers both."""
        return NotImplemented if is_wide(other) else self * other.reciprocal()

    def sqrt(self) -> "Bounded":
        """|sqrt x - sqrt X| <= dx / sqrt x."""
        self._away_from_zero()
        root = self.value.sqrt()
        return Bounded(root, self.error / float(root), self.u, self.roundings).rounded()

    def exp(self) -> "Bounded":
        """|e^x - e^X| <= e^x dx e^dx."""
        if self.error * self.u >= 0.5:
            raise TooCoarse
        value = self.value.exp()
        return Bounded(value, float(value) * self.error * exp(self.error * self.u), self.u, self.roundings).rounded(LIBM)

    def log(self) -> "Bounded":
        """|ln x - ln X| <= dx / (x - dx)."""
        return Bounded(self.value.ln(), self.error / self._away_from_zero(), self.u, self.roundings).rounded(LIBM)

    def _away_from_zero(self) -> float:
        """The smallest magnitude that the computed number can have."""
        low = float(abs(self.value)) - self.error * self.u
        if low <= 0.5 * float(abs(self.value)):
            raise TooCoarse
        return low

    def above(self, other: "Bounded") -> bool:
        """Whether self > other, where the bounds leave no doubt (equal exact numbers are not above each other)."""
        gap = self.value - other.value
        if float(abs(gap)) <= (self.error + other.error) * self.u and (self.error or other.error):
            raise TooCoarse
        return gap > 0


def is_wide(a) -> bool:
    """Whether it is an array of numbers with their bounds in arrays of their own."""
    return isinstance(a, np.ndarray) and a.dtype != object


def exact(value, u: float) -> Bounded:
    """A number that every backend holds without rounding."""
    return Bounded(Decimal(value), 0.0, u)


def constant(value, u: float) -> Bounded:
    """A number that the backend has to round to its precision, such as 0.1."""
    return exact(value, u).rounded()


def total(terms: list[Bounded]) -> Bounded:
    """A sum of n terms, added in any order or blocking: each term meets at most n - 1 roundings (Higham, eq. 4.4)."""
    if any(map(is_wide, terms)):
        return sum(terms[1:], terms[0]).close()
    k, u = len(terms) - 1, terms[0].u
    if k * u >= 0.5:
        raise TooCoarse
    error = fsum(t.error for t in terms) + k / (1 - k * u) * fsum(t.size for t in terms)
    return Bounded(sum(t.value for t in terms), error, u, max(t.roundings for t in terms) + k)


def largest(a: Bounded, b: Bounded) -> Bounded:
    """max(a, b), continuous in both: where it is not clear which is larger, the larger error bound holds."""
    if is_wide(a) or is_wide(b):
        return np.maximum(a, b)
    high, low = (a, b) if a.value >= b.value else (b, a)
    if float(high.value - low.value) > (high.error + low.error) * high.u:
        return high
    return Bounded(high.value, max(a.error, b.error), a.u, max(a.roundings, b.roundings))


def smallest(a: Bounded, b: Bounded) -> Bounded:
    """min(a, b)."""
    return -largest(-a, -b)


def magnitude(a: Bounded) -> Bounded:
    """|a|: no further from |A| than a is from A."""
    return np.maximum(a, -a) if is_wide(a) else Bounded(abs(a.value), a.error, a.u, a.roundings)


def power(x: Bounded, exponent: Bounded) -> Bounded:
    """x^y as e^(y ln x); a library's own power is at least as good."""
    return np.exp(np.log(x) * exponent)


def unless_zero(a: Bounded, at_zero: Bounded, function) -> Bounded:
    """function(a), but at_zero where a is 0."""
    if not is_wide(a):
        return function(a) if a.value else at_zero
    is_other = a.nearest() != 0
    return np.where(is_other, function(np.where(is_other, a, 1.0)), at_zero)


# ------------------------------------------------------------------------------------------------------------- arrays


def grid(shape, entry) -> np.ndarray:
    """An array of numbers, entry(*index) at each index."""
    out = np.empty(shape, object)
    for index in np.ndindex(*shape):
        out[index] = entry(*index)
    return out


def is_narrow(value: float) -> bool:
    """Whether both bfloat16 (8 bits) and float16 (exponents -14 to 15) hold the value exactly."""
    numerator, denominator = abs(value).as_integer_ratio()
    while numerator and numerator % 2 == 0:
        numerator //= 2
    return value == 0 or (numerator < 2**8 and denominator <= 2**14 and abs(value) < 2**16)


def lift(values, u: float, roundings: int = 1, is_exact=is_narrow) -> np.ndarray:
    """An input array: exact where eight significant bits hold the value (every dtype checked has them), else rounded."""
    values = np.asarray(values)
    if values.dtype == object:
        return values

    def number(*index):
        value = float(values[index])
        return exact(value, u) if is_exact(value) else exact(value, u).rounded(roundings)

    return grid(values.shape, number)


def flat(values: np.ndarray) -> list[Bounded]:
    """The entries of an array in C order."""
    return [values[index] for index in np.ndindex(*values.shape)]


def each(function, *arrays: np.ndarray) -> np.ndarray:
    """function of the arrays' entries, element by element."""
    if is_wide(arrays[0]):
        return function(*arrays)
    return grid(arrays[0].shape, lambda *index: function(*(a[index] for a in arrays)))


def joined(arrays: list[np.ndarray], axis: int = 0) -> np.ndarray:
    """The arrays one after the other along an axis."""
    whole = np.concatenate([np.asarray(a) for a in arrays], axis)
    return arrays[0].wrap(whole) if is_wide(arrays[0]) else whole


def sums(a: np.ndarray) -> np.ndarray:
    """The sum of each row, [N, ...] -> [N]."""
    if is_wide(a):
        return a.reshape(len(a), -1).sum(1).close()
    return grid(a.shape[:1], lambda row: total(flat(a[row])))


def entry(a: np.ndarray):
    """The only number of an array; of an array with arrays of its own, that."""
    return a if is_wide(a) else a[()]


def nearest(values: np.ndarray) -> np.ndarray:
    """The float64 nearest to each number."""
    return np.array([float(b.value) for b in flat(values)]).reshape(values.shape)


def errors(values: np.ndarray) -> np.ndarray:
    """The error bound of each number in units of the roundoff; a little up, for the rounding of the bound itself."""
    return np.array([b.error for b in flat(values)]).reshape(values.shape) * (1 + 1e-9)
