"""Arrays of numbers with a bound, on which nn's own functions run, and the twin's.

Each number knows how far a rounded computation may stray from it: a backend that computes with unit roundoff u, in any order,
is off by at most `error * u`. Each rule below is the standard model of floating-point arithmetic, fl(a op b) = (a op b)(1 + d)
with |d| <= u, with the errors of a and b carried through to all orders (Higham, Accuracy and Stability of Numerical Algorithms,
2002, chapters 2 to 4).

A number is a sum left open: it knows its value, the errors and magnitudes of its terms, and how many there are. They are
added up, in any order, when anything but another sum is done with it; so the bound covers every order, not nn's alone. A
product adds up the sums in it first, but for a factor that `folds`: one that a backend may multiply into the terms of a sum
beforehand, as many do with batch norm's weight / sqrt(var + eps). Two rules more hold where inputs reach to the ends of a
dtype's range: a rounding loses up to `underflow` units of u beside its relative error, and where some order of adding could
overflow there is no bound.

NumPy does with these arrays what it does with any, except where a choice would hide an error: a maximum keeps the larger
error of two numbers that the bounds do not tell apart, and a comparison that they do not decide raises TooCoarse.

Values are carried wider than what is checked: as decimals of 50 digits for what is stored, as float64 or longdouble, in
milliseconds, for what is judged on the spot. The latter stray from the exact value by the same bound at their own roundoff,
which `expected` adds.
"""

from decimal import Decimal
from typing import NamedTuple

import numpy as np

DIGITS = 50  # of the decimals; set by `expected.evaluate` for the time of one evaluation
LIBM = 4  # roundings that one exp, log or power may cost: 2 ulp, see Capabilities.libm_ulp

# of each dtype: the unit roundoff, the smallest normal number, the largest
UNIT_ROUNDOFF = {"float64": 2.0**-53, "float32": 2.0**-24, "float16": 2.0**-11, "bfloat16": 2.0**-8}
TINY = {"float64": 2.0**-1022, "float32": 2.0**-126, "float16": 2.0**-14, "bfloat16": 2.0**-126}
LARGEST = {"float64": (2 - 2.0**-52) * 2.0**1023, "float32": 2.0**128 - 2.0**104, "float16": 65_504.0}
LARGEST["bfloat16"] = 2.0**128 - 2.0**120

_SUMMED = ("value", "error", "magnitude", "terms")
_NAMES = (*_SUMMED, "roundings")
_STORED = {of: np.dtype([("value", of), *((name, float) for name in _NAMES[1:])]) for of in (object, np.float64, np.longdouble)}


class Precision(NamedTuple):
    """What a bound is for: the unit roundoff, what underflow takes in units of it, the largest number; what carries values."""

    u: float
    underflow: float
    largest: float
    carrier: type = object
    is_held: bool = True  # whether a backend holds every input as it is, or those of eight bits alone

    @classmethod
    def of(cls, dtype: str, u: float = 0.0, flush: bool = False) -> "Precision":
        """That of a dtype whose sums are kept at roundoff u, where that is coarser; with `flush`, denormals may become 0."""
        u = max(u, UNIT_ROUNDOFF[dtype])
        underflow = TINY[dtype] / u if flush else TINY[dtype]
        return cls(u, underflow, LARGEST[dtype], np.longdouble if dtype == "float64" else np.float64)

    @classmethod
    def decimal(cls, u: float, is_held: bool = False) -> "Precision":
        """That of the stored values: 50 digits, and no end to the range."""
        return cls(u, 0.0, np.inf, is_held=is_held)

    def carried(self, values) -> np.ndarray:
        """Values as what carries them."""
        return np.asarray(values, self.carrier) if self.carrier is not object else np.frompyfunc(Decimal, 1, 1)(values)


class TooCoarse(Exception):
    """At this unit roundoff the bound says nothing, or a branch of the computation is not decided by it."""


def is_narrow(values) -> np.ndarray:
    """Whether both bfloat16 (8 bits) and float16 (multiples of 2^-14 below 2^16) hold each value exactly."""
    mantissa, size = np.frexp(values)[0] * 2**8, np.abs(values)
    return (mantissa == np.rint(mantissa)) & (size * 2**14 == np.rint(size * 2**14)) & (size < 2**16)


class Numbers(np.ndarray):
    """Open sums: per element the value, the sums of its terms' errors (in units of u) and magnitudes, how many terms there
    are, and the roundings in the longest chain. `folds`, as above, is of all elements alike."""

    precision: Precision
    folds = False

    @classmethod
    def of(cls, values, precision: Precision, folds: bool = False, roundings=0) -> "Numbers":
        """Numbers that the backend holds as they are, or after `roundings`."""
        return _made(precision, folds, precision.carried(values), 0.0, np.abs(np.asarray(values, float)), 1.0, 0.0, roundings)

    @property
    def value(self) -> np.ndarray:
        """What carries each sum's value."""
        return self.view(np.ndarray)["value"]

    @property
    def error(self) -> np.ndarray:
        """The sums of the terms' errors; of closed numbers, their bounds in units of u."""
        return self.view(np.ndarray)["error"]

    def __array_finalize__(self, other):
        self.precision, self.folds = getattr(other, "precision", None), getattr(other, "folds", False)

    def wrap(self, plain) -> "Numbers":
        """A view of an array of this kind that went through np.asarray."""
        out = plain.view(Numbers)
        out.precision = self.precision
        return out

    def close(self) -> "Numbers":
        """Every sum added up, in any order: each of n terms meets at most n - 1 roundings (Higham, equation 4.4)."""
        a, u = _fields(_in_range(self)), self.precision.u
        if not a["terms"].max(initial=0) > 1:
            return self
        k = np.maximum(a["terms"] - 1, 0)
        if not (k * u < 0.5).all():
            raise TooCoarse
        error = a["error"] + k / (1 - k * u) * (a["magnitude"] + a["error"] * u) + (k > 0) * self.precision.underflow
        terms = np.minimum(a["terms"], 1)
        magnitude = np.where(terms, np.abs(self.nearest()), 0.0)
        return _made(self.precision, self.folds, a["value"], error, magnitude, terms, a["roundings"] + k)

    def nearest(self) -> np.ndarray:
        """The float64 nearest to each sum."""
        return np.asarray(self.value, np.float64)

    def expected(self) -> tuple[np.ndarray, np.ndarray, int]:
        """(values, bounds in units of u, a little up, roundings in the longest chain); TooCoarse for a bound beyond float64."""
        a = _fields(self.close())
        own = 0.0 if self.precision.carrier is object else float(np.finfo(self.precision.carrier).eps) / 2
        bounds = a["error"] * (1 + own / self.precision.u) * (1 + 1e-9)
        if not np.isfinite(bounds).all():
            raise TooCoarse
        return self.nearest(), bounds, int(a["roundings"].max(initial=own > 0))  # a rounding of the value is one

    def argmax(self, axis):
        """The first largest; TooCoarse where another might be it."""
        f = _fields(self.close())
        at = np.expand_dims(f["value"].argmax(axis), axis)
        gap = np.take_along_axis(f["value"], at, axis) - f["value"]
        error = np.take_along_axis(f["error"], at, axis) + f["error"]
        np.put_along_axis(error, at, 0.0, axis)
        if ((gap <= error * self.precision.u) & (error > 0)).any():
            raise TooCoarse
        return at.squeeze(axis)

    def __array_ufunc__(self, ufunc, method, *inputs, out=None, where=True, axis=None, keepdims=False, **_):
        like = min((v for v in inputs if isinstance(v, Numbers)), key=lambda v: v.precision.carrier is object)
        if method == "reduce" and where is True:
            found = _REDUCTIONS[ufunc](like, axis, keepdims)
        elif method == "__call__":
            found = _OPERATIONS[ufunc](*(_operand(v, like) for v in inputs))
        else:
            return NotImplemented
        if out is None:
            return found
        np.copyto(out[0].view(np.ndarray), found.view(np.ndarray), where=where)
        return out[0]

    def __array_function__(self, function, types, args, kwargs):
        if function in _FUNCTIONS:
            return _FUNCTIONS[function](*args, **kwargs)
        found = function(*map(_plain, args), **{k: _plain(v) for k, v in kwargs.items()})
        if isinstance(found, np.ndarray) and found.dtype == self.dtype:
            found = self.wrap(found)
            found.folds = self.folds
        return found


def _made(precision: Precision, folds: bool, value, error, magnitude, terms, roundings, rounded: int = 0) -> Numbers:
    """Sums after `rounded` more roundings of every term to the backend's precision."""
    if isinstance(rounded, np.ndarray) or rounded:
        error = error + rounded * (magnitude + error * precision.u + terms * precision.underflow)
    plain = np.empty(np.shape(value), _STORED[precision.carrier])
    plain["value"], plain["error"], plain["magnitude"], plain["terms"] = value, error, magnitude, terms
    plain["roundings"] = roundings + rounded
    out = plain.view(Numbers)
    out.precision, out.folds = precision, folds
    return out


def _plain(v):
    """The structured arrays of arguments that may be numbers, or lists of them."""
    if isinstance(v, list):
        return [_plain(one) for one in v]
    return v.view(np.ndarray) if isinstance(v, Numbers) else v


def _fields(a: Numbers) -> dict[str, np.ndarray]:
    plain = a.view(np.ndarray)
    return {name: plain[name] for name in _NAMES}


def _operand(v, like: Numbers) -> Numbers:
    """Another operand: whole numbers are exact, the equation's other constants are rounded, and fold.

    Decimals beside numbers of few digits are carried as these.
    """
    if isinstance(v, np.ndarray) and v.dtype == like.dtype:
        return v if isinstance(v, Numbers) else like.wrap(v)
    if isinstance(v, Numbers):
        values, *rest = _fields(v.close()).values()
        return _made(like.precision, v.folds, np.asarray(np.frompyfunc(str, 1, 1)(values), like.precision.carrier), *rest)
    whole = isinstance(v, (int, np.integer))
    made = Numbers.of(v, like.precision, not whole, 0 if whole else 1)
    made.view(np.ndarray)["terms"] = v != 0  # a plain 0 is no term
    return made


# ------------------------------------------------------------------------------------------------------ arithmetic


def _add(a: Numbers, b: Numbers) -> Numbers:
    """Term by term; a 0 that is no number (a border) adds none."""
    x, y = _fields(a), _fields(b)
    summed = [x[name] + y[name] for name in _SUMMED]
    return _made(a.precision, a.folds or b.folds, *summed, np.maximum(x["roundings"], y["roundings"]))


def _negative(a: Numbers) -> Numbers:
    f = _fields(a) | {"value": -a.view(np.ndarray)["value"]}
    return _made(a.precision, a.folds, *f.values())


def _factors(a: Numbers, b: Numbers) -> tuple[Numbers, Numbers, bool]:
    """(a, b, folds) of a product: a factor that folds is multiplied into the other's terms, all else is added up first."""
    if a.folds == b.folds:
        return a.close(), b.close(), a.folds
    return (a.close(), b, False) if a.folds else (a, b.close(), False)


def _multiply(a: Numbers, b: Numbers) -> Numbers:
    """|xy - XY| <= |x| dy + |y| dx + dx dy, for every term; a factor that folds may have lost an underflow by itself."""
    a, b, folds = _factors(a, b)
    x, y, u = _fields(a), _fields(b), a.precision.u
    error = x["magnitude"] * y["error"] + (y["magnitude"] + y["error"] * u) * x["error"]
    if a.folds != b.folds:
        error = error + a.precision.underflow * (y if a.folds else x)["magnitude"]
    product = [x["value"] * y["value"], error, x["magnitude"] * y["magnitude"], x["terms"] * y["terms"]]
    return _in_range(_made(a.precision, folds, *product, x["roundings"] + y["roundings"], 1))


def _matmul(a: Numbers, b: Numbers) -> Numbers:
    """Sums of products, left open: x [..., K], y [K, ...]."""
    a, b, _ = _factors(a, b)
    x, y = ({name: np.ascontiguousarray(v) for name, v in _fields(c).items()} for c in (a, b))
    error = x["magnitude"] @ y["error"] if y["error"].any() else 0.0
    if x["error"].any():
        error = error + x["error"] @ (y["magnitude"] + y["error"] * a.precision.u)
    if a.folds != b.folds:
        error = error + a.precision.underflow * (x["terms"] @ y["magnitude"] if a.folds else x["magnitude"] @ y["terms"])
    summed = [x["value"] @ y["value"], error, x["magnitude"] @ y["magnitude"], x["terms"] @ y["terms"]]
    roundings = x["roundings"].max(-1, initial=0)[..., None] + y["roundings"].max(0, initial=0)
    return _in_range(_made(a.precision, False, *summed, roundings, 1))


def _in_range(a: Numbers) -> Numbers:
    f = _fields(a)
    if not (f["magnitude"] + f["error"] * a.precision.u <= a.precision.largest).all():
        raise TooCoarse
    return a


def _reciprocal(a: Numbers) -> Numbers:
    """|1/x - 1/X| <= dx / (|x| (|x| - dx))."""
    a = a.close()
    f, low = _fields(a), _away_from_zero(a)
    error, magnitude = f["error"] / (f["magnitude"] * low), 1 / f["magnitude"]
    return _in_range(_made(a.precision, a.folds, 1 / f["value"], error, magnitude, 1.0, f["roundings"], 1))


def _sqrt(a: Numbers) -> Numbers:
    """|sqrt x - sqrt X| <= dx / sqrt x."""
    a = a.close()
    f, _ = _fields(a), _away_from_zero(a)
    root = np.sqrt(f["magnitude"])
    return _made(a.precision, a.folds, np.sqrt(f["value"]), f["error"] / root, root, 1.0, f["roundings"], 1)


def _exp(a: Numbers) -> Numbers:
    """|e^x - e^X| <= e^x dx e^dx."""
    f, u = _fields(a.close()), a.precision.u
    if not (f["error"] * u < 0.5).all():
        raise TooCoarse
    value = np.exp(f["value"])
    size = np.asarray(value, float)
    error = size * f["error"] * np.exp(f["error"] * u)
    return _in_range(_made(a.precision, False, value, error, size, 1.0, f["roundings"], LIBM))


def _log(a: Numbers) -> Numbers:
    """|ln x - ln X| <= dx / (x - dx)."""
    a = a.close()
    f, low = _fields(a), _away_from_zero(a)
    value = np.frompyfunc(Decimal.ln, 1, 1)(f["value"]) if a.precision.carrier is object else np.log(f["value"])
    size = np.abs(np.asarray(value, float))
    return _made(a.precision, False, value, f["error"] / low, size, 1.0, f["roundings"], LIBM)


def _away_from_zero(a: Numbers) -> np.ndarray:
    """The smallest magnitude that each computed number can have."""
    f = _fields(a)
    low = f["magnitude"] - f["error"] * a.precision.u
    if not (low > 0.5 * f["magnitude"]).all():
        raise TooCoarse
    return low


def _maximum(a: Numbers, b: Numbers) -> Numbers:
    """The larger; where it is not clear which one is, the larger error bound holds."""
    a, b = a.close(), b.close()
    first, other = np.broadcast_arrays(a.view(np.ndarray), b.view(np.ndarray))
    high = np.where(first["value"] >= other["value"], first, other)
    with np.errstate(invalid="ignore"):  # of two borders, at -infinity
        gap = np.abs(first["value"] - other["value"])
    unclear = np.logical_not(gap > (first["error"] + other["error"]) * a.precision.u)
    if unclear.any():
        for name in ("error", "roundings"):
            np.copyto(high[name], np.maximum(first[name], other[name]), where=unclear)
    high["terms"] = high["value"] != -np.inf
    return a.wrap(high)


def _greater(a: Numbers, b: Numbers) -> np.ndarray:
    """Whether a > b, where the bounds leave no doubt (equal exact numbers are not above each other)."""
    x, y = _fields(a.close()), _fields(b.close())
    gap, error = x["value"] - y["value"], x["error"] + y["error"]
    if ((np.abs(gap) <= error * a.precision.u) & (error > 0)).any():
        raise TooCoarse
    return (gap > 0).view(Numbers)  # np.where with it comes back here


_OPERATIONS = {
    np.add: _add,
    np.subtract: lambda a, b: _add(a, _negative(b)),
    np.negative: _negative,
    np.multiply: _multiply,
    np.square: lambda a: _multiply(a, a),
    np.matmul: _matmul,
    np.true_divide: lambda a, b: _multiply(a, _reciprocal(b)),
    np.sqrt: _sqrt,
    np.exp: _exp,
    np.log: _log,
    np.maximum: _maximum,
    np.minimum: lambda a, b: -_maximum(-a, -b),
    np.absolute: lambda a: _maximum(a, -a),
    np.greater: _greater,
    np.less: lambda a, b: _greater(b, a),
}


# ---------------------------------------------------------------------------------------------- NumPy's functions


def _sum(a: Numbers, axis, keepdims: bool) -> Numbers:
    f = _fields(a)
    summed = [f[name].sum(axis, keepdims=keepdims) for name in _SUMMED]
    return _made(a.precision, a.folds, *summed, f["roundings"].max(axis, keepdims=keepdims, initial=0))


def _largest(a: Numbers, axis, keepdims: bool) -> Numbers:
    axes = list(range(a.ndim)) if axis is None else [axis] if isinstance(axis, int) else list(axis)
    moved = np.moveaxis(a, axes, range(len(axes)))
    rows = moved.reshape(-1, *moved.shape[len(axes) :])
    while (half := len(rows) // 2) > 0:
        larger = _maximum(rows[:half], rows[half : 2 * half]).view(np.ndarray)
        rows = a.wrap(np.concatenate([larger, rows.view(np.ndarray)[2 * half :]]))
    found = rows.reshape(moved.shape[len(axes) :])
    return np.expand_dims(found, axes) if keepdims else found


_REDUCTIONS = {np.add: _sum, np.maximum: _largest}


def _where(condition, values: Numbers, zero) -> Numbers:
    """What a layer's backward hands on is closed, and where it hands on 0, that is a number."""
    plain, values = np.asarray(condition).view(np.ndarray), values.close()
    zero = _operand(zero, values) if isinstance(zero, Numbers) else Numbers.of(zero, values.precision)
    return values.wrap(np.where(plain, values.view(np.ndarray), zero.view(np.ndarray)))


def _tensordot(a, b, axes) -> Numbers:
    """Sums of products over the axes of a and of b, as matrices."""
    over = [[axis] if isinstance(axis, int) else list(axis) for axis in axes]
    kept = [[i for i in range(v.ndim) if i not in of] for v, of in zip((a, b), over, strict=True)]
    shape = tuple(v.shape[i] for v, free in zip((a, b), kept, strict=True) for i in free)
    k = int(np.prod([a.shape[i] for i in over[0]]))
    left, right = a.transpose(kept[0] + over[0]).reshape(-1, k), b.transpose(over[1] + kept[1]).reshape(k, -1)
    return (left @ right).reshape(shape)


def _pad(a: Numbers, widths, constant_values=0) -> Numbers:
    """A border that holds a value and is no term of a sum, nor has it an error."""
    out = np.pad(a.view(np.ndarray), widths)
    out["value"][np.pad(np.zeros(a.shape, bool), widths, constant_values=True)] = a.precision.carried(constant_values)
    return a.wrap(out)


_FUNCTIONS = {np.pad: _pad, np.where: _where, np.tensordot: _tensordot}
