"""Counts and sums in float64: float16 ends at 65,504, and in float32 adding 1 changes nothing from 2^24 on."""

from functools import wraps

import numpy as np


def wide(a):
    """a in float64 if it is an array of float16 or float32, else as it is."""
    return a.astype(np.float64) if isinstance(a, np.ndarray) and a.dtype.kind == "f" and a.dtype.itemsize < 8 else a


def computed_wide(function):
    """A decorator: float16 and float32 are computed in float64, and each result is rounded once, to the arguments' dtype."""

    @wraps(function)
    def computed(*arguments, **options):
        dtypes = [a.dtype for a in (*arguments, *options.values()) if isinstance(a, np.ndarray) and a.dtype.kind == "f"]
        found = function(*map(wide, arguments), **{name: wide(a) for name, a in options.items()})

        def rounded(value):
            return value.astype(np.result_type(*dtypes)) if dtypes and value.dtype == np.float64 else value

        return tuple(map(rounded, found)) if isinstance(found, tuple) else rounded(found)

    return computed
