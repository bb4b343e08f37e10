"""Expected values with their error bounds: the network's from the text itself, all others from the slow twin.

`expected` finds the coarsest unit roundoff up to which a case's bound is meaningful, so that one stored number an element,
its `scale`, gives the tolerance of every dtype: |error| <= scale * u.
"""

from dataclasses import dataclass
from decimal import Decimal, DivisionByZero, Overflow, localcontext

import numpy as np

from pcmref.golden import text, twin_pcm
from pcmref.golden.bounds import Precision
from pcmref.golden.ops import OPS
from pcmref.golden.twin import DIGITS, DRAW, Bounded, TooCoarse, each, errors, flat, is_narrow, lift, nearest
from pcmref.golden.twin_ops import ON_ARRAYS, TWINS
from pcmref.golden.wide import Wide

ROUNDOFFS = (2.0**-53, 2.0**-24, 2.0**-11, 2.0**-8)  # float64, float32, float16, bfloat16
_INFLATION = 1.5  # how much the bound may exceed its first-order part before a roundoff counts as too coarse


@dataclass(frozen=True)
class Expected:
    """One output: values, error bound per unit roundoff (None: compared exactly), the largest roundoff it holds for."""

    value: np.ndarray
    scale: np.ndarray | None
    u_max: float
    terms: int  # roundings in the longest chain
    kink: np.ndarray | None = None  # the other right value where two branches meet, NaN elsewhere


def evaluate(op: str, inputs: dict, noise: dict, params: dict, u: float, is_exact=is_narrow) -> dict[str, np.ndarray]:
    """{output: array of Bounded numbers, or of integers} of an operation at unit roundoff u. Raises TooCoarse.

    `is_exact` says of an array's value whether every backend meant here holds it without rounding.
    """
    with localcontext(prec=DIGITS, traps=[DivisionByZero, Overflow]):  # two borders at -infinity compare as they are
        if op not in TWINS:
            return _from_text(op, inputs, params, u, is_exact)
        lifted = {k: lift(v, u, is_exact=is_exact) for k, v in inputs.items()}
        found = TWINS[op](lifted, {k: lift(v, u, DRAW, is_exact) for k, v in noise.items()}, params, u)
        if op == "chip":  # and one forward pass with the weights as read
            found |= _from_text("resnet", _as_read(inputs, found), params, u, is_exact)
        return found


def _from_text(op, inputs, params, u, is_exact):
    def number(values, folds):
        return Wide.lifted(values, u, folds, is_exact if isinstance(values, np.ndarray) else is_narrow)

    found = text.evaluate(op, inputs, params, number)
    return {name: value if name.startswith("kink/") else value.bounded() for name, value in found.items()}


def on_the_spot(op: str, inputs: dict, noise: dict, params: dict, precision: Precision) -> dict[str, Expected]:
    """{output: Expected} for inputs and noise that the dtype under test holds, all its bits counted. Raises TooCoarse.

    Most operations run on arrays of numbers and take milliseconds; the others on the twin's, 50 digits each.
    """
    u = precision.u
    if op in TWINS and op not in ON_ARRAYS:
        found = evaluate(op, inputs, noise, params, u, lambda value: True)
        return {k: _expected(op, k, v, u, found.get(f"kink/{k}")) for k, v in found.items() if not k.startswith("kink/")}
    found, made = _on_arrays(op, inputs, noise, params, precision), {}
    for name in found.keys() - {k for k in found if k.startswith("kink/")}:
        value, scale, terms = found[name].expected()
        kink = found.get(f"kink/{name}")
        is_choice = name in OPS[op].exact
        made[name] = Expected(value, None if is_choice else scale, 1.0 if is_choice else u, max(terms, 1), kink)
    return made


def _on_arrays(op, inputs, noise, params, precision):
    def number(values, folds):
        return _wide(values, folds, precision)

    if op not in TWINS:
        return text.evaluate(op, inputs, params, number)
    drawn = DRAW if "seed" in params else 0  # by the backend itself, perhaps
    arrays, z = ({k: Wide.of(v, precision, roundings=n) for k, v in of.items()} for of, n in ((inputs, 0), (noise, drawn)))
    found = TWINS[op](arrays, z, params, precision.u)
    if op == "chip":
        found |= text.evaluate("resnet", _as_read(inputs, found), params, number)
    return found


def _as_read(inputs: dict, found: dict) -> dict:
    """A chip's network, and its images: the weights are those that were read."""
    return inputs | {k.removeprefix("weight/"): v for k, v in found.items() if k.startswith("weight/")}


def _wide(values, folds: bool, precision: Precision) -> Wide:
    """Inputs as they are; a parameter such as 0.1, a number and no array, is rounded to the precision."""
    if isinstance(values, Wide):
        values.folds = folds
        return values
    return Wide.of(values, precision, folds, 0 if isinstance(values, np.ndarray) or is_narrow(values) else 1)


def expected(op: str, inputs: dict, noise: dict, params: dict) -> dict[str, Expected]:
    """{output: Expected}: evaluated at float64's roundoff, the scale at the coarsest one that leaves it meaningful."""
    finest = best = evaluate(op, inputs, noise, params, ROUNDOFFS[0])
    u_max = ROUNDOFFS[0]
    for u in ROUNDOFFS[1:]:
        try:
            coarser = evaluate(op, inputs, noise, params, u)
        except TooCoarse:
            break
        if any((errors(v) > _INFLATION * errors(finest[k])).any() for k, v in coarser.items() if v.dtype == object):
            break
        best, u_max = coarser, u
    outputs = [name for name in best if not name.startswith("kink/")]
    return {name: _expected(op, name, best[name], u_max, best.get(f"kink/{name}")) for name in outputs}


def _expected(op: str, name: str, values: np.ndarray, u_max: float, kink) -> Expected:
    if values.dtype != object:
        return Expected(values, None, 1.0, 1)
    if name in OPS[op].exact:
        return Expected(nearest(values), None, 1.0, 1, kink)
    return Expected(nearest(values), errors(values), u_max, max((b.roundings for b in flat(values)), default=1), kink)


def law(op: str, inputs: dict, params: dict) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """{output: (location, spread)} of a random operation: what its normal draw is multiplied with and added to."""
    with localcontext(prec=DIGITS):
        u = ROUNDOFFS[0]
        a = {name: lift(value, u) for name, value in inputs.items()}
        if op == "inject_weight_noise":
            zero, one = ({name: lift(np.full(v.shape, k), u) for name, v in a.items()} for k in (0.0, 1.0))
            at = [twin_pcm.add_weight_noise(a, z, params["eta"]) for z in (zero, one)]
            return {k: (nearest(at[0][k]), nearest(at[1][k]) - nearest(at[0][k])) for k in a}
        model, g = params["model"], a["g_target_us"]
        if op == "program":
            return {"g_prog_us": (nearest(g), nearest(twin_pcm.as_array(twin_pcm.programming_std_us, g, model=model)))}
        if op == "drift_exponent":
            line = (twin_pcm.drift_exponent_mean, twin_pcm.drift_exponent_std)
            return {"nu": tuple(nearest(twin_pcm.as_array(f, g, model=model)) for f in line)}
        spread = twin_pcm.as_array(twin_pcm.read_noise_std_us, a["g_drift_us"], g, t_s=params["t_s"], model=model)
        return {"g_us": (nearest(a["g_drift_us"]), nearest(spread))}


def directional_derivative(op: str, output: str, inputs: dict, directions: dict, dy: np.ndarray, params: dict) -> float:
    """d/dh of sum(dy * output(inputs + h * directions)) at 0, by central differences with h = 10^-15 in 50 digits."""
    h, u = Decimal("1e-15"), ROUNDOFFS[0]

    def moved(sign):
        shifted = dict(inputs)
        for name, v in directions.items():
            by = lift(sign * v, u)
            shifted[name] = each(lambda a, b: Bounded(a.value + h * b.value, 0.0, u), lift(inputs[name], u), by)
        y = evaluate(op, shifted, {}, params, u)[output]
        return sum(Decimal(float(d)) * b.value for d, b in zip(np.ravel(dy), flat(y), strict=True))

    with localcontext(prec=DIGITS):
        return float((moved(1) - moved(-1)) / (2 * h))
