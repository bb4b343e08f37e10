"""Expected values of the network's operations from the text itself: nn's functions, run on numbers that carry a bound.

What one layer hands to the next is closed, as it is when it is stored there: a layer's product closes its sums here, relu and
its backward do by themselves.
"""

from functools import partial
from types import SimpleNamespace

import numpy as np

from pcmref.golden.ops import OPS
from pcmref.nn import functional as F
from pcmref.nn.adabs import adabs
from pcmref.nn.blocks import Saved, layer, layer_backward, residual_block, residual_block_backward
from pcmref.nn.resnet import ResNet
from pcmref.training import sgd_step


def evaluate(op: str, inputs: dict, params: dict, number) -> dict[str, np.ndarray]:
    """{output: array of numbers} of an operation; `number(values, folds)` makes one of an array. Raises TooCoarse."""
    table, settings = OPS[op].inputs, {name: params[name] for name in OPS[op].params}
    arrays = {}
    for name, value in inputs.items():
        folds = name.endswith("weight") or (op, name) == ("batch_norm_backward", "dy")
        arrays[name] = value if np.asarray(value).dtype.kind in "iu" else number(value, folds)
    for name in settings.keys() & {"momentum", "smoothing", "learning_rate", "weight_decay"}:  # 1 - momentum has all its digits
        settings[name] = number(settings[name], False)
    arguments = settings | {name: arrays[name] for name in (key.split(" ")[0] for key in table) if name in arrays}
    if "{param}" in table:
        arguments["state"] = {name: array for name, array in arrays.items() if name not in table}
    found = (_OWN[op] if op in _OWN else getattr(F, op))(**arguments)
    if not isinstance(found, dict):
        found = dict(zip(OPS[op].outputs, found if isinstance(found, tuple) else (found,), strict=True))
    return found


# ------------------------------------------------------------------ operations that are more than one function of nn


def _batch_norm(x, weight, bias, mean, var, eps):
    for first in (x - mean, weight):  # backends divide one or the other first: where that overflows there is no bound
        np.divide(first, np.sqrt(var + eps))
    return F.batch_norm(x, weight, bias, mean, var, eps)


def _batch_norm_backward(dy, x, weight, mean, var, eps):
    for first in (dy, weight):  # the same
        np.divide(first, np.sqrt(var + eps))
    return F.batch_norm_backward(dy, x, weight, mean, var, eps)


def _batch_norm_train(x, weight, bias, running_mean, running_var, eps, momentum):
    y, mean, var = F.batch_norm_train(x, weight, bias, eps)
    np.divide(weight, np.sqrt(var + eps))  # the same
    return y, *F.running_statistics(running_mean, running_var, mean, var, x.size // x.shape[3], momentum)


def _batch_norm_train_backward(dy, x, weight, eps):
    """With deviations from the batch's own mean for x, and 0 for the mean: they are formed first, in every backend."""
    mean, var = F.batch_statistics(x)
    return F.batch_norm_train_backward(dy, (x - mean).close(), weight, 0, var, eps)


def _relu_backward(dy, x):
    """At x = 0 both one-sided derivatives are right: 0, or 1 times dy."""
    other = np.where(x.nearest() == 0, dy.nearest(), np.nan)
    return {"dx": F.relu_backward(dy, F.relu(x)), "kink/dx": other}


def _global_avg_pool_backward(dy, x):
    return F.global_avg_pool_backward(dy, x.shape)


# --------------------------------------------------------------------------------------------- blocks and networks


def _product(x, w):
    return F.matrix_product(x, w).close()


def _layer(train, eps):
    return partial(layer, train=train, eps=eps, product=_product)


def _centred(tape: dict) -> dict:
    """The tape with deviations for each batch norm's input, as in `_batch_norm_train_backward`."""
    layers = {name: saved for name, saved in tape.items() if isinstance(saved, Saved)}
    return tape | {name: s._replace(z=(s.z - s.mean).close(), mean=0) for name, s in layers.items()}


def _basic_block(x, state, stride, train, eps):
    return residual_block(x, state, (stride, 1), _layer(train, eps))[0]


def _basic_block_backward(dy, x, state, stride, eps):
    _, tape = residual_block(x, state, (stride, 1), _layer(True, eps))
    dx, grads = residual_block_backward(dy, state, (stride, 1), _centred(tape), partial(layer_backward, eps=eps))
    return {"dx": dx} | {f"grad/{name}": value for name, value in grads.items()}


class _Network(ResNet):
    """nn's network without the checks of its inputs, which make plain arrays of them."""

    def forward(self, state, x, train=False):
        logits, tape = self._run(state, state["fc.bias"].wrap(x), _layer(train, self.eps), _product)
        return (logits, tape) if train else logits

    def backward(self, state, tape, dlogits):
        return self._backward(_centred(tape), dlogits, partial(layer_backward, eps=self.eps))


def _network(config, eps) -> ResNet:
    return _Network(**{k: tuple(v) if isinstance(v, list) else v for k, v in config.items()}, eps=eps)


def _resnet(x, state, network, eps):
    return _network(network, eps).forward(state, x)


def _resnet_backward(dlogits, x, state, network, eps):
    net = _network(network, eps)
    logits, tape = net.forward(state, x, train=True)
    return {"logits": logits} | {f"grad/{name}": value for name, value in net.backward(state, tape, dlogits).items()}


def _adabs(x_calibration, state, network, batch_size, eps):
    new = adabs(_network(network, eps), state, x_calibration, batch_size)
    return {name: value for name, value in new.items() if "running_" in name}


def _sgd_step(w, grad, learning_rate, velocity=None, **recipe):
    """The step; on the spot with the bound of that which has w * (1 - learning_rate * weight_decay) too, where it is larger.

    Both are right. The stored bounds are those of the equation as it stands.
    """
    old, r = {} if velocity is None else {"w": velocity}, SimpleNamespace(**recipe)
    stepped, v = (new["w"] for new in sgd_step({"w": w}, {"w": grad}, old, learning_rate, r))
    if w.ndim > 1 and w.precision.largest < np.inf:
        pushed = r.momentum * v if r.nesterov else 0 if velocity is None else r.momentum * velocity
        stepped = np.maximum(stepped, w * (1 - learning_rate * r.weight_decay) - learning_rate * (grad + pushed))
    return stepped, v


_OWN = {
    "batch_norm": _batch_norm,
    "batch_norm_backward": _batch_norm_backward,
    "batch_norm_train": _batch_norm_train,
    "batch_norm_train_backward": _batch_norm_train_backward,
    "relu_backward": _relu_backward,
    "global_avg_pool_backward": _global_avg_pool_backward,
    "basic_block": _basic_block,
    "basic_block_backward": _basic_block_backward,
    "resnet": _resnet,
    "resnet_backward": _resnet_backward,
    "adabs": _adabs,
    "sgd_step": _sgd_step,
}
