"""Expected values with their error bounds: the network's from the text itself, all others from the slow twin.

`Text` is `Reference`, nn's functions, on numbers that carry a bound. `expected` finds the coarsest unit roundoff up to which a
case's bound is meaningful, so that one stored number an element, its `scale`, gives the tolerance of every dtype:
|error| <= scale * u.
"""

from dataclasses import dataclass
from decimal import Decimal, DivisionByZero, Overflow, localcontext
from functools import partial
from types import SimpleNamespace

import numpy as np

from pcmref.golden import twin_pcm
from pcmref.golden.backends import by_name
from pcmref.golden.bounds import Precision
from pcmref.golden.ops import OPS
from pcmref.golden.reference import Reference
from pcmref.golden.twin import DIGITS, DRAW, Bounded, TooCoarse, each, errors, flat, is_narrow, lift, nearest
from pcmref.golden.twin_ops import ON_ARRAYS, TWINS
from pcmref.golden.wide import Wide
from pcmref.nn import functional as F
from pcmref.nn.blocks import Saved, layer, layer_backward, residual_block, residual_block_backward
from pcmref.nn.resnet import ResNet
from pcmref.training import sgd_step

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

    found = run_text(op, inputs, params, number)
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
        return run_text(op, inputs, params, number)
    drawn = DRAW if "seed" in params else 0  # by the backend itself, perhaps
    arrays, z = ({k: Wide.of(v, precision, roundings=n) for k, v in of.items()} for of, n in ((inputs, 0), (noise, drawn)))
    found = TWINS[op](arrays, z, params, precision.u)
    if op == "chip":
        found |= run_text("resnet", _as_read(inputs, found), params, number)
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


# ------------------------------------------------------------------------------------------------ the text, with bounds


def run_text(op: str, inputs: dict, params: dict, number) -> dict[str, np.ndarray]:
    """{output: array of numbers} of an operation; `number(values, folds)` makes one of an array. Raises TooCoarse."""
    arrays = {k: v if np.asarray(v).dtype.kind in "iu" else number(v, k.endswith("weight")) for k, v in inputs.items()}
    settings = {name: params[name] for name in OPS[op].params}
    for name in settings.keys() & {"momentum", "smoothing", "learning_rate", "weight_decay"}:  # 1 - momentum has all its digits
        settings[name] = number(settings[name], False)
    return Text().call(op, settings | by_name("state", arrays, OPS[op].inputs))


def _product(x, w):
    """A layer's product, closed: what one layer hands to the next is, as it is when it is stored there."""
    return F.matrix_product(x, w).close()


def _layer(train, eps):
    return partial(layer, train=train, eps=eps, product=_product)


def _centred(tape: dict) -> dict:
    """The tape with deviations for each batch norm's input, as in `Text.batch_norm_train_backward`."""
    layers = {name: saved for name, saved in tape.items() if isinstance(saved, Saved)}
    return tape | {name: s._replace(z=(s.z - s.mean).close(), mean=0) for name, s in layers.items()}


def _in_either_order(first, second, var, eps):
    """TooCoarse where a factor of batch norm overflows: backends divide one or the other first."""
    for factor in (first, second):
        np.divide(factor, np.sqrt(var + eps))


class _Network(ResNet):
    """nn's network without the checks of its inputs, which make plain arrays of them."""

    def forward(self, state, x, train=False):
        logits, tape = self._run(state, state["fc.bias"].wrap(x), _layer(train, self.eps), _product)
        return (logits, tape) if train else logits

    def backward(self, state, tape, dlogits):
        return self._backward(_centred(tape), dlogits, partial(layer_backward, eps=self.eps))


class Text(Reference):
    """What the text gives of arrays of numbers, arranged where backends may take another order, or either of two values."""

    network_class = _Network

    def batch_norm(self, x, weight, bias, mean, var, eps):
        _in_either_order(x - mean, weight, var, eps)
        return F.batch_norm(x, weight, bias, mean, var, eps)

    def batch_norm_backward(self, dy, x, weight, mean, var, eps):
        dy.folds = True
        _in_either_order(dy, weight, var, eps)
        return F.batch_norm_backward(dy, x, weight, mean, var, eps)

    def batch_norm_train(self, x, weight, eps, **rest):
        np.divide(weight, np.sqrt(F.batch_statistics(x)[1] + eps))  # as in `_in_either_order`
        return super().batch_norm_train(x=x, weight=weight, eps=eps, **rest)

    def batch_norm_train_backward(self, dy, x, weight, eps):
        """With deviations from the batch's own mean for x, and 0 for the mean: they are formed first, in every backend."""
        mean, var = F.batch_statistics(x)
        return F.batch_norm_train_backward(dy, (x - mean).close(), weight, 0, var, eps)

    def relu_backward(self, dy, x):
        """At x = 0 both one-sided derivatives are right: 0, or 1 times dy."""
        return {"dx": super().relu_backward(dy, x), "kink/dx": np.where(x.nearest() == 0, dy.nearest(), np.nan)}

    def basic_block(self, x, state, stride, train, eps):
        return residual_block(x, state, (stride, 1), _layer(train, eps))[0]

    def basic_block_backward(self, dy, x, state, stride, eps):
        _, tape = residual_block(x, state, (stride, 1), _layer(True, eps))
        dx, grads = residual_block_backward(dy, state, (stride, 1), _centred(tape), partial(layer_backward, eps=eps))
        return {"dx": dx} | {f"grad/{name}": value for name, value in grads.items()}

    def sgd_step(self, w, grad, learning_rate, velocity=None, **recipe):
        """The step; on the spot with the bound of the one that has w * (1 - learning_rate * weight_decay), where it is larger.

        Both are right. The stored bounds are those of the equation as it stands.
        """
        old, r = {} if velocity is None else {"w": velocity}, SimpleNamespace(**recipe)
        stepped, v = (new["w"] for new in sgd_step({"w": w}, {"w": grad}, old, learning_rate, r))
        if w.ndim > 1 and w.precision.largest < np.inf:
            pushed = r.momentum * v if r.nesterov else 0 if velocity is None else r.momentum * velocity
            stepped = np.maximum(stepped, w * (1 - learning_rate * r.weight_decay) - learning_rate * (grad + pushed))
        return stepped, v
