"""Tolerances: derived from the operation, its data and the declared precision, never chosen.

The golden file stores, for each expected value, `scale`: the running error bound in units of the roundoff. With u the unit
roundoff of the dtype the backend accumulates in and u_out that of the dtype it returns,

    tolerance = scale * u + (u_out + 2^-53) * |expected| + tiny

2^-53 is the rounding of the expected value itself, tiny the smallest normal number (results may be flushed to zero). A case
made for one dtype, of nn's text, has a scale that knows of underflow: there tiny is the smallest denormal number, unless a
backend declares that it flushes.
"""

from dataclasses import dataclass
from math import log2, prod, sqrt

import numpy as np

from pcmref.golden.backends import Capabilities
from pcmref.golden.case import Case
from pcmref.golden.numbers import TINY, UNIT_ROUNDOFF
from pcmref.golden.ops import OPS

STORAGE = {"float64": np.float64, "float32": np.float32, "float16": np.float16, "bfloat16": np.float32}
LIBM_ULP = 2.0  # of exp, log and power that the stored scale allows for
KINK_SHARE = 0.1  # at most this part of an output may lie where two branches are right

# The growth of a two-dimensional Winograd convolution F(m x m, 3 x 3), and of its gradient of the weights: the squared product
# of the largest absolute row sums of its three transforms (Lavin & Gray 2016). F(2, 3): 3 * 2 * 1.5, transposed 2 * 2 * 2;
# F(4, 3): 19 * 10 * 1, transposed 15 * 10 * 5/3.
WINOGRAD_GROWTH = {"winograd F(2,3)": (81.0, 64.0), "winograd F(4,3)": (36_100.0, 62_500.0)}
_FACTORS = {"y": ("x", "w"), "dx": ("dy", "w"), "dw": ("dy", "x")}  # what a convolution's outputs are sums of products of
LAYERS_GROWTH = {"direct": 1.0, **{k: v[0] for k, v in WINOGRAD_GROWTH.items()}, "fft": 21 * 20 + 6.0}  # FFT: of 2^20 points
_CHANNELS = {"y": "nc,oc->no", "dx": "no,oc->nc", "dw": "no,nc->oc"}


@dataclass(frozen=True)
class Tolerance:
    """The error above which an element is wrong, and the one above which a right one is remarkable ("loose")."""

    fail: np.ndarray
    loose: np.ndarray
    u: float


def accumulation_roundoff(op: str, capabilities: Capabilities, dtype: str) -> float:
    """u of what the backend accumulates in; between the layers of a composite operation it stores at its own dtype."""
    accumulate = capabilities.accumulate_dtype
    u = UNIT_ROUNDOFF[(accumulate.get(op) if isinstance(accumulate, dict) else accumulate) or dtype]
    return max(u, UNIT_ROUNDOFF[dtype]) if OPS[op].composite else u


def tolerance(
    case: Case, output: str, value, scale, terms: int, capabilities: Capabilities, dtype: str, gradual: bool = False
) -> Tolerance:
    """The tolerance of one output: value and scale are the file's. `gradual`: scale knows of underflow, none is flushed to 0.

    `loose` is 4/sqrt(terms) of the bound: errors that scatter add up to about the square root of the number of terms.
    """
    op, u, u_out = case.op, accumulation_roundoff(case.op, capabilities, dtype), UNIT_ROUNDOFF[dtype]
    if OPS[op].libm:
        scale = scale * max(1.0, capabilities.libm_ulp / LIBM_ULP)
    if is_transformed(case, capabilities):
        scale = np.maximum(scale, transform_scale(case, output, terms, capabilities)[0])
    stored = (u_out + 2.0**-53) * np.abs(value) + TINY[dtype] * (2 * u_out if gradual else 1.0)
    return Tolerance(scale * u + stored, min(1.0, 4 / sqrt(max(terms, 1))) * scale * u + stored, u)


def is_transformed(case: Case, capabilities: Capabilities) -> bool:
    """Whether the backend may compute this convolution by a transform: by FFT any, by Winograd those of 3x3 and stride 1."""
    if capabilities.conv_algorithm == "direct" or not OPS[case.op].is_convolution:
        return False
    return capabilities.conv_algorithm == "fft" or (case.inputs["w"].shape[2:] == (3, 3) and case.params["stride"] == 1)


def transform_scale(case: Case, output: str, terms: int, capabilities: Capabilities) -> tuple[np.ndarray, float]:
    """(scale, the largest number on the way) of an output of a convolution by a transform: normwise, for its errors spread.

    Winograd: growth * terms * max|a| max|b|. FFT of N points: transforms lose 7 log2(N) u each in the 2-norm, products
    and their sum 6 + terms, of the sum over channels of |a|_2 |b|_1, norms over pixels (Higham 2002, theorem 24.2).
    """
    a, b = (np.asarray(case.inputs[name], np.float64) for name in _FACTORS[output])
    if capabilities.conv_algorithm != "fft":
        scale = WINOGRAD_GROWTH[capabilities.conv_algorithm][output == "dw"] * terms * np.abs(a).max() * np.abs(b).max()
        return np.array(scale), float(scale)
    sizes = zip(case.inputs["x"].shape[1:3], case.inputs["w"].shape[2:], strict=True)
    n = 4 * prod(size + 2 * case.params["padding"] + k for size, k in sizes)  # up to the next powers of two
    of_b = np.abs(b).sum((2, 3) if _FACTORS[output][1] == "w" else (1, 2))
    with np.errstate(over="ignore"):
        bound = np.einsum(_CHANNELS[output], np.hypot.reduce(a, (1, 2)), of_b)
    scale = (21 * log2(n) + 6 + terms) * bound
    return scale[:, :, None, None] if output == "dw" else scale[:, None, None], float(n * bound.max(initial=0))


def in_dtype(arrays: dict[str, np.ndarray], dtype: str) -> dict[str, np.ndarray]:
    """Floating-point arrays as the dtype stores them (bfloat16: float32), copies; integers as they are.

    Noise need not be narrow: for bfloat16 it is rounded to nearest, ties to even.
    """

    def convert(array):
        array = np.array(array)
        if array.dtype.kind != "f":
            return array
        array = array.astype(STORAGE[dtype])
        if dtype == "bfloat16":
            bits = array.view(np.uint32)
            array = ((bits + 0x7FFF + ((bits >> 16) & 1)) & np.uint32(0xFFFF0000)).view(np.float32)
        return array

    return {name: convert(array) for name, array in arrays.items()}


def native(values) -> np.ndarray:
    """Results as an array of this machine's byte order; their numbers stay as they are."""
    values = np.asarray(values)
    return values.astype(values.dtype.newbyteorder("="), copy=False)


def is_representable(values: np.ndarray, dtype: str) -> bool:
    """Whether an array could have come from a backend of the dtype: bfloat16 travels as float32 with 16 low bits of zero."""
    if values.dtype != STORAGE[dtype]:
        return False
    return dtype != "bfloat16" or not (np.ascontiguousarray(values).view(np.uint32) & 0xFFFF).any()
