"""The fast engine's operations as methods of their names, as golden calls a backend: what is called here the network calls.

pcmref golden check pcmref.fast:Backend --level 2
"""

from functools import partial

import numpy as np

from pcmref.fast import functional as F
from pcmref.fast.gather import Recycled
from pcmref.fast.layers import Layers, folded, folded_layer
from pcmref.fast.resnet import ResNet
from pcmref.nn.adabs import adabs
from pcmref.nn.blocks import residual_block, residual_block_backward
from pcmref.nn.functional import running_statistics


class Networks:
    """Whole networks as operations, as `network_class` runs them."""

    dtypes, network_class = ("float64", "float32"), ResNet

    def network(self, config: dict, eps: float):
        return self.network_class(**{k: tuple(v) if isinstance(v, list) else v for k, v in config.items()}, eps=eps)

    def resnet(self, x, state, network, eps):
        return self.network(network, eps).forward(state, x)

    def resnet_backward(self, dlogits, x, state, network, eps):
        net = self.network(network, eps)
        logits, tape = net.forward(state, x, train=True)
        return {"logits": logits} | {f"grad/{k}": v for k, v in net.backward(state, tape, dlogits).items()}

    def adabs(self, x_calibration, state, network, batch_size, eps):
        new = adabs(self.network(network, eps), state, x_calibration, batch_size)
        return {name: value for name, value in new.items() if "running_" in name}


class Backend(Networks):
    """The operations that are fast's own. Batch norm in training is a layer whose 1x1 convolution changes nothing."""

    name = "pcmref.fast"

    conv2d, conv2d_backward = staticmethod(F.conv2d), staticmethod(F.conv2d_backward)

    def batch_norm_train(self, x, weight, bias, running_mean, running_var, eps, momentum):
        y, saved = _layers(x).layer(x, _alone(weight, bias), "conv", "bn", 1, relu=False, eps=eps)
        running = running_statistics(running_mean, running_var, saved.mean, saved.var, saved.count, momentum)
        return y, *(value.astype(x.dtype) for value in running)

    def batch_norm_train_backward(self, dy, x, weight, eps):
        layers, state = _layers(x), _alone(weight, 0 * weight)
        _, saved = layers.layer(x, state, "conv", "bn", 1, relu=False, eps=eps)
        dx, _, grads = layers.layer_backward(dy, state, "conv", "bn", saved, 1, relu=False, eps=eps)
        return dx, grads["bn.weight"], grads["bn.bias"]

    def relu(self, x):
        y = x.copy()
        F.relu(y)
        return y

    def relu_backward(self, dy, x):
        dx = np.empty_like(dy)
        F.relu_backward(dy, self.relu(x), dx)
        return dx

    def basic_block(self, x, state, stride, train, eps):
        if train:
            return residual_block(x, state, (stride, 1), partial(_layers(x).layer, eps=eps))[0]
        pairs = [("conv1", "bn1"), ("conv2", "bn2"), ("downsample.0", "downsample.1")]
        state = folded(state, [(conv, bn) for conv, bn in pairs if f"{conv}.weight" in state], eps)
        return residual_block(x, state, (stride, 1), folded_layer())[0].copy()  # the next call writes where it lies

    def basic_block_backward(self, dy, x, state, stride, eps):
        layers = _layers(x)
        _, tape = residual_block(x, state, (stride, 1), partial(layers.layer, eps=eps))
        dx, grads = residual_block_backward(dy, state, (stride, 1), tape, partial(layers.layer_backward, eps=eps))
        return {"dx": dx} | {f"grad/{name}": value for name, value in grads.items()}


def _layers(x) -> Layers:
    return Layers(len(x), workers=None, keep=True, memory=Recycled())


def _alone(weight, bias):
    """The state of a layer that is batch norm only."""
    return {"conv.weight": np.eye(len(weight), dtype=weight.dtype)[:, :, None, None], "bn.weight": weight, "bn.bias": bias}
