"""Expected values with their error bounds: the network's from the text itself, all others from the twin.

`Text` is `Reference`, nn's functions, on numbers that carry a bound. `expected` finds the coarsest unit roundoff up to which a
case's bound is meaningful, so that one stored number an element, its `scale`, gives the tolerance of every dtype:
|error| <= scale * u.
"""

from dataclasses import dataclass
from decimal import DivisionByZero, Overflow, localcontext
from functools import partial
from types import SimpleNamespace

import numpy as np

from pcmref.golden.backends import by_name
from pcmref.golden.numbers import DIGITS, UNIT_ROUNDOFF, Numbers, Precision, TooCoarse, is_narrow
from pcmref.golden.ops import OPS
from pcmref.golden.reference import Reference
from pcmref.golden.twin import DRAW, IN_DECIMALS, TWINS
from pcmref.nn import functional as F
from pcmref.nn.blocks import Saved, layer, layer_backward, residual_block, residual_block_backward
from pcmref.nn.resnet import ResNet
from pcmref.training import sgd_step

_STORED = [Precision.decimal(u) for u in UNIT_ROUNDOFF.values()]  # float64's first, each coarser than the one before
_INFLATION = 1.5  # how much the bound may exceed its first-order part before a roundoff counts as too coarse


@dataclass(frozen=True)
class Expected:
    """One output: values, error bound per unit roundoff (None: compared exactly), the largest roundoff it holds for."""

    value: np.ndarray
    scale: np.ndarray | None
    u_max: float
    terms: int  # roundings in the longest chain
    kink: np.ndarray | None = None  # the other right value where two branches meet, NaN elsewhere


def evaluate(op: str, inputs: dict, noise: dict, params: dict, precision: Precision) -> dict[str, np.ndarray]:
    """{output: numbers, or an array of choices} of an operation; kink/output: the other right value. Raises TooCoarse."""
    with localcontext(prec=DIGITS, traps=[DivisionByZero, Overflow]):  # two borders at -infinity compare as they are
        if op not in TWINS:
            return _run_text(op, inputs, params, precision)
        exactly = Precision.decimal(precision.u, precision.is_held) if op in IN_DECIMALS else precision
        arrays = {name: _given(v, exactly) for name, v in inputs.items()}
        drawn = DRAW if "seed" in params else None  # by the backend itself, perhaps
        z = {name: _given(v, exactly, roundings=drawn) for name, v in noise.items()}
        found = TWINS[op](arrays, z, params, exactly)
        if "network" in params:  # and one forward pass with the weights as read
            read = {k.removeprefix("weight/"): v for k, v in found.items() if k.startswith("weight/")}
            found |= _run_text("resnet", inputs | read, params, precision)
        return found


def _given(values, precision: Precision, folds: bool = False, roundings: int | None = None):
    """Inputs as numbers: what a backend does not hold is rounded, and so is a parameter, such as 0.1, that has more bits."""
    if isinstance(values, Numbers):
        values.folds = folds
        return values
    if roundings is None:
        roundings = 0 if precision.is_held and isinstance(values, np.ndarray) else ~is_narrow(values)
    return Numbers.of(values, precision, folds, roundings)


def on_the_spot(op: str, inputs: dict, noise: dict, params: dict, precision: Precision) -> dict[str, Expected]:
    """{output: Expected} for inputs and noise that the dtype under test holds, all its bits counted. Raises TooCoarse."""
    found = evaluate(op, inputs, noise, params, precision)
    return {name: _expected(op, name, found) for name in found if not name.startswith("kink/")}


def _expected(op: str, name: str, found: dict) -> Expected:
    numbers, kink = found[name], found.get(f"kink/{name}")
    if not isinstance(numbers, Numbers):
        return Expected(numbers, None, 1.0, 1)
    value, scale, terms = numbers.expected()
    return Expected(value, *((None, 1.0, 1) if name in OPS[op].exact else (scale, numbers.precision.u, terms)), kink)


def expected(op: str, inputs: dict, noise: dict, params: dict) -> dict[str, Expected]:
    """{output: Expected}: evaluated at float64's roundoff, the scale at the coarsest one that leaves it meaningful."""
    finest = best = on_the_spot(op, inputs, noise, params, _STORED[0])
    for precision in _STORED[1:]:
        try:
            coarser = on_the_spot(op, inputs, noise, params, precision)
        except TooCoarse:
            break
        if any(e.scale is not None and (e.scale > _INFLATION * finest[k].scale).any() for k, e in coarser.items()):
            break
        best = coarser
    return best


def law(op: str, inputs: dict, params: dict) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """{output: (location, spread)} of a random operation: what its draw is added to and multiplied by, if not clamped."""
    params = params | ({"model": params["model"] | {"nu_law": "gaussian"}} if "model" in params else {})
    like = {"z": next(iter(inputs.values()))} if "z" in OPS[op].noise else inputs
    at = ({k: np.full(v.shape, z) for k, v in like.items()} for z in (0.0, 1.0))
    mean, above = (evaluate(op, inputs, noise, params, _STORED[0]) for noise in at)
    with localcontext(prec=DIGITS):
        return {k: (mean[k].nearest(), (above[k] - mean[k]).nearest()) for k in mean}


# ------------------------------------------------------------------------------------------------ the text, with bounds


def _run_text(op: str, inputs: dict, params: dict, precision: Precision) -> dict[str, np.ndarray]:
    arrays = {k: v if v.dtype.kind in "iu" else _given(v, precision, k.endswith("weight")) for k, v in inputs.items()}
    settings = {name: params[name] for name in OPS[op].params}
    for name in settings.keys() & {"momentum", "smoothing", "learning_rate", "weight_decay"}:  # 1 - momentum has all its digits
        settings[name] = _given(settings[name], precision)
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
