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
from pcmref.golden.bounds import LARGEST, TINY, Precision, accumulation_roundoff, in_dtype
from pcmref.golden.case import Case
from pcmref.golden.cases import all_cases
from pcmref.golden.cases_pcm import JOSHI2020
from pcmref.golden.expected import Expected, on_the_spot
from pcmref.golden.numbers import TooCoarse
from pcmref.golden.ops import OPS
from pcmref.golden.reference import Reference
from pcmref.golden.twin import TWINS
from pcmref.golden.verify import Golden

NAN, INF, LARGE = np.nan, np.inf, "the largest number"
WINDOW = dict.fromkeys((0, 2, 12, 14), -INF)  # the whole of a corner's

# (operation, ordinary case, name of the case made of it, {array: {element: value}})
PLANTED = (
    ("conv2d", "3x3", "special", {"x": {0: NAN, 100: INF}}),
    ("conv2d", "2x4", "special_2x4", {"x": {1: NAN, 20: INF}}),
    ("conv2d", "1x1_stride2", "overflow", {"x": {0: LARGE}, "w": {0: 2.0, 3: -2.0}}),
    ("conv2d_backward", "3x3", "special", {"dy": {56: NAN, 182: INF}}),
    ("conv2d_backward", "2x4", "special_2x4", {"dy": {4: NAN}}),
    ("batch_norm", "plain", "special", {"x": {0: NAN, 3: INF, 8: -INF, 119: NAN}}),
    ("batch_norm_backward", "plain", "special", {"dy": {0: NAN}}),
    ("batch_norm_train", "plain", "special", {"x": {0: NAN, 1: NAN}}),
    ("batch_norm_train_backward", "plain", "special", {"dy": {0: NAN, 1: NAN}}),
    ("relu", "kink", "special", {"x": {3: NAN, 7: INF, 11: -INF, 13: -0.0, 17: LARGE, 88: NAN, 89: INF}}),
    ("relu_backward", "kink", "special", {"dy": {0: NAN, 2: NAN, 3: INF, 5: INF, 10: -INF, 12: -0.0, 88: NAN, 89: INF}}),
    ("linear", "plain", "special", {"x": {0: NAN, 6: INF}, "b": {3: -INF}}),
    ("linear", "one_image", "overflow", {"x": {0: LARGE}, "w": {0: -2.0}}),
    ("linear", "plain", "zero times infinity", {"x": {0: 0.0, 1: -0.0}, "w": {0: INF, 1: NAN}}),
    ("linear_backward", "plain", "special", {"dy": {1: NAN, 6: INF}}),
    ("global_avg_pool", "3x5", "special", {"x": {0: NAN, 4: INF, 50: INF, 53: -INF}}),
    ("global_avg_pool_backward", "3x5", "special", {"dy": {0: NAN, 1: INF, 5: -INF}}),
    ("max_pool2d", "3x3_stride2", "special", {"x": {5: NAN, 90: INF, 100: -INF, 140: LARGE} | WINDOW}),
    ("max_pool2d", "2x2", "special_2x2", {"x": {0: NAN, 20: INF, 31: -INF, 50: LARGE, 71: NAN}}),
    ("max_pool2d", "3x3_stride1", "special_3x3_stride1", {"x": {1: NAN, 17: INF, 30: -INF}}),
    ("max_pool2d_backward", "3x3_stride2", "special", {"dy": {5: NAN, 30: INF, 40: -INF}}),
    ("max_pool2d_backward", "2x2", "special_2x2", {"dy": {5: NAN, 7: INF}}),
    ("max_pool2d_backward", "3x3_stride2", "a window of -infinity", {"x": WINDOW, "dy": {0: 2.0}}),
    ("softmax_cross_entropy", "plain", "special", {"logits": {1: NAN}}),
    ("softmax_cross_entropy", "plain", "masked classes", {"logits": {0: -INF, 12: -INF}}),
    ("softmax_cross_entropy", "smoothing", "masked and smoothed", {"logits": {0: -INF}}),
    ("softmax_cross_entropy_backward", "plain", "special", {"logits": {1: NAN, 6: INF, 12: -INF}}),
    ("drift", "one_day", "special", {"g_prog_us": {0: NAN, 1: INF}}),
    ("read", "one_day", "special", {"g_drift_us": {0: NAN}}),
    ("dac", "8_bit", "special", {"x": {0: NAN, 1: INF, 2: -INF}}),
    ("adc", "8_bit", "special", {"x": {0: NAN, 1: INF, 2: -INF}}),
    ("crossbar_mvm", "ideal", "special", {"x": {0: NAN}}),
    ("clip_weights", "crossbar", "special", {"fc.weight": {0: NAN}}),
    ("sgd_step", "nesterov", "special", {"grad": {0: NAN, 1: INF, 2: -INF}}),
)
# (operation, ordinary case, arrays that are scaled)
SCALED = (
    ("conv2d", "3x3", ("x",)),
    ("conv2d_backward", "3x3", ("dy",)),
    ("batch_norm", "plain", ("weight", "bias")),
    ("batch_norm_backward", "plain", ("dy",)),
    ("relu", "kink", ("x",)),
    ("relu_backward", "kink", ("dy", "x")),
    ("linear", "plain", ("x", "b")),
    ("linear_backward", "plain", ("dy",)),
    ("global_avg_pool", "3x5", ("x",)),
    ("global_avg_pool_backward", "3x5", ("dy",)),
    ("max_pool2d", "3x3_stride2", ("x",)),
    ("max_pool2d_backward", "3x3_stride2", ("dy",)),
    ("drift", "one_day", ("g_prog_us",)),
    ("sgd_step", "nesterov", ("w", "grad", "velocity")),
)
SCALES = {"small": 2.0**8, "denormal": 2.0**-3}  # in units of the smallest normal number

PAIRS = Case(
    "program",
    "law_pairs",
    "plus and minus devices of weights, independent of each other; sigma scales with G_max/25",
    {"g_target_us": np.array([[1.25, 2.5, 6.25], [6.25, 2.5, 1.25]])},
    {},
    {"model": JOSHI2020 | {"profile": "g_max", "g_max_us": 12.5}},
)


def cases(capabilities: Capabilities) -> list[Golden]:
    """The cases for every dtype of a backend, in which they are fit to judge it; a law more for one that takes no noise.

    A transform algorithm may spread a NaN over its tile: convolutions are judged where they are direct. Where denormals are
    flushed, the bound of an operation that rounds is as large as they are: only those that choose are judged. The bounds of the
    twin and of transforms know nothing of underflow.
    """
    base = {(case.op, case.name): case for case in all_cases(1)}
    direct, flush = capabilities.conv_algorithm == "direct", capabilities.flush_denormals
    made = [] if capabilities.accepts_noise else [file.make_law(PAIRS)]
    for dtype in capabilities.dtypes:
        for op, base_name, name, plants in PLANTED:
            if dtype in OPS[op].dtypes and (direct or not op.startswith("conv2d")):
                made += _golden(_planted(base[op, base_name], name, plants, dtype), dtype, capabilities)
        for kind, factor in SCALES.items():
            for op, name, arrays in SCALED:
                arrays = arrays[:1] if flush and op == "relu_backward" else arrays  # an x taken for 0 has no gradient
                no_bound = op in TWINS or (flush and not OPS[op].exact) or (op.startswith("conv2d") and not direct)
                if dtype in OPS[op].dtypes and not (kind == "denormal" and no_bound):
                    case = _scaled(base[op, name], kind, arrays, factor * TINY[dtype], dtype)
                    made += _golden(case, dtype, capabilities)
    return made


def _planted(case: Case, name: str, plants: dict, dtype: str) -> Case:
    inputs = {k: np.array(v) for k, v in case.inputs.items()}
    for array, values in plants.items():
        for index, value in values.items():
            inputs[array].flat[index] = LARGEST[dtype] if value is LARGE else value
    why = "; ".join(f"{name}: {', '.join(map(str, values.values()))}" for name, values in plants.items())
    return replace(case, name=name, why=why, inputs=inputs, dtype=dtype, level=1)


def _scaled(case: Case, kind: str, arrays: tuple[str, ...], factor: float, dtype: str) -> Case:
    inputs = in_dtype({k: v * factor if k in arrays else v for k, v in case.inputs.items()}, dtype)
    inputs = {k: v if v.dtype.kind in "iu" else v.astype(np.float64) for k, v in inputs.items()}
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


def table() -> list[list[str]]:
    """A row a case in float32: operation, case, what is planted, and what pcmref's outputs then hold."""
    rows = []
    for g in cases(Capabilities(dtypes=("float32",))):
        outputs = "; ".join(f"`{name}` {_classes(e.value)}" for name, e in g.expected.items())
        rows.append([f"`{g.case.op}`", g.case.name, g.case.why, outputs])
    return rows


def _classes(values: np.ndarray) -> str:
    denormal = (values != 0) & (np.abs(values) < TINY["float32"])
    counts = {"NaN": np.isnan(values), "inf": values == INF, "-inf": values == -INF, "denormal": denormal}
    found = [f"{int(where.sum())} {name}" for name, where in counts.items() if where.any()]
    return f"{', '.join(found) or 'ordinary'} of {values.size}"
