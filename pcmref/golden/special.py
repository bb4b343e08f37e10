"""Special values: NaN, infinities, -0.0, overflow, numbers close to the smallest normal one, and denormals.

Cases of their own, made where they are judged and not stored: of a case with ordinary numbers, some elements are replaced, or
whole arrays scaled. NaN and infinities are compared by class and sign, everything else to the bound. What is planted where is
such that every right order of operations gives the same class: no infinity meets the border of a convolution, and none a
gradient whose mean is taken off in one of several ways.
"""

from dataclasses import replace

import numpy as np

from pcmref.golden import file
from pcmref.golden.backends import Capabilities
from pcmref.golden.bounds import accumulation_roundoff
from pcmref.golden.case import Case
from pcmref.golden.expected import Expected, on_the_spot
from pcmref.golden.make import PROFILES, rounded
from pcmref.golden.numbers import LARGEST, TINY, Precision, TooCoarse
from pcmref.golden.ops import OPS
from pcmref.golden.reference import Reference
from pcmref.golden.twin import TWINS
from pcmref.golden.verify import Golden

SCALES = {"small": 2.0**8, "denormal": 2.0**-3}  # in units of the smallest normal number
PAIRS = Case(
    "program",
    "law_pairs",
    "plus and minus devices of weights, independent of each other; sigma scales with G_max/25",
    {"g_target_us": np.array([[1.25, 2.5, 6.25], [6.25, 2.5, 1.25]])},
    {},
    {"model": PROFILES["joshi2020"] | {"profile": "g_max", "g_max_us": 12.5}},
)


def cases(capabilities: Capabilities) -> list[Golden]:
    """The cases for every dtype of a backend, in which they are fit to judge it; a law more for one that takes no noise.

    A transform algorithm may spread a NaN over its tile: convolutions are judged where they are direct. Where denormals are
    flushed, the bound of an operation that rounds is as large as they are: only those that choose are judged. The bounds of the
    twin and of transforms know nothing of underflow.
    """
    stored = {(g.case.op, g.case.name): replace(g.case, inputs=_in_order(g.case)) for g in file.read()}
    direct, flush = capabilities.conv_algorithm == "direct", capabilities.flush_denormals
    made = [] if capabilities.accepts_noise else [file.make_law(PAIRS)]
    for dtype, op in ((dtype, op) for dtype in capabilities.dtypes for op in OPS.values() if dtype in op.dtypes):
        if direct or not op.is_convolution:
            for one in op.special:
                made += _golden(_planted(stored[op.name, one["of"]], one, dtype), dtype, capabilities)
        no_bound = op.name in TWINS or (flush and not op.exact) or (op.is_convolution and not direct)
        for kind in SCALES if op.scaled else ():
            if kind == "small" or not no_bound:
                made += _golden(_scaled(stored[op.name, op.scaled["of"]], op.scaled, kind, dtype, flush), dtype, capabilities)
    return made


def _in_order(case: Case) -> dict:
    """The inputs as the operation has them, weights before biases."""
    names = [*OPS[case.op].inputs, *sorted(case.inputs, reverse=True)]
    return {name: case.inputs[name] for name in names if name in case.inputs}


def _planted(case: Case, special: dict, dtype: str) -> Case:
    """The case with values planted in elements of its arrays; one of them stands for a number of the dtype."""
    inputs = {k: np.array(v) for k, v in case.inputs.items()}
    for array, values in special["plant"].items():
        for index, value in values.items():
            inputs[array].flat[int(index)] = LARGEST[dtype] if value == "the largest number" else value
    why = "; ".join(f"{name}: {', '.join(map(str, values.values()))}" for name, values in special["plant"].items())
    return replace(case, name=special["name"], why=why, inputs=inputs, dtype=dtype, level=1)


def _scaled(case: Case, scaled: dict, kind: str, dtype: str, flush: bool) -> Case:
    """The case with arrays scaled down; an x that may be taken for 0 has no gradient, so there the first array alone."""
    arrays, factor = scaled["arrays"][: 1 if flush and "dy" in scaled["arrays"] else None], SCALES[kind] * TINY[dtype]
    inputs = {k: rounded(v * factor if k in arrays else v, dtype) for k, v in case.inputs.items()}
    return replace(case, name=kind, why=f"{', '.join(arrays)} scaled by 2^{int(np.log2(factor))}", inputs=inputs, dtype=dtype)


def _golden(case: Case, dtype: str, capabilities: Capabilities) -> list[Golden]:
    """Values of pcmref in float64 as the dtype holds them; the bound of the same case with 0 for what is special.

    None where the accumulation is too coarse for a bound to say anything.
    """
    with np.errstate(all="ignore"):
        found = Reference().run(case.op, case.version, case.inputs, case.noise, case.params)
    limit = LARGEST[dtype]
    ordinary = {k: v if v.dtype.kind in "iu" else np.where(np.abs(v) < limit, v, 0.0) for k, v in case.inputs.items()}
    precision = Precision.of(dtype, accumulation_roundoff(case.op, capabilities, dtype), capabilities.flush_denormals)
    try:
        bounds = on_the_spot(case.op, ordinary, case.noise, case.params, precision)
    except TooCoarse:
        return []
    return [Golden(case, {k: _expected(v, bounds[k], limit) for k, v in found.items()}, special=True)]


def _expected(found: np.ndarray, ordinary: Expected, limit: float) -> Expected:
    with np.errstate(all="ignore"):
        close = np.abs(found - ordinary.value) <= 2.0**-40 * np.abs(found)
        value = np.where(np.abs(found) > limit, np.copysign(np.inf, found), np.where(close, ordinary.value, found))
    return replace(ordinary, value=value)
