"""pcmref's own backend: the package's functions behind the backend protocol. Subclass it to override one operation."""

from dataclasses import replace

import numpy as np

import pcmref
from pcmref import draws, training
from pcmref.fast.backend import Networks
from pcmref.golden.backends import NamedBackend, Unsupported
from pcmref.golden.ops import OPS
from pcmref.nn import functional as F
from pcmref.nn.blocks import basic_block, basic_block_backward
from pcmref.nn.resnet import ResNet
from pcmref.pcm import gdc
from pcmref.pcm.crossbar import Converter, Crossbar
from pcmref.pcm.model import PCMModel


class Reference(Networks, NamedBackend):
    """nn's own text, and the device."""

    name, version, network_class = "pcmref", pcmref.__version__, ResNet

    def run(self, op, version, inputs, noise, params):
        if OPS[op].device and any(a.dtype == np.float32 for a in inputs.values()):
            raise Unsupported("the device model computes in float64")
        return super().run(op, version, inputs, noise, params)

    # --------------------------------------------------------------------------------------------------- layers

    conv2d, conv2d_backward = staticmethod(F.conv2d), staticmethod(F.conv2d_backward)
    batch_norm, batch_norm_backward = staticmethod(F.batch_norm), staticmethod(F.batch_norm_backward)
    linear, linear_backward = staticmethod(F.linear), staticmethod(F.linear_backward)
    max_pool2d, max_pool2d_backward = staticmethod(F.max_pool2d), staticmethod(F.max_pool2d_backward)
    softmax_cross_entropy = staticmethod(F.softmax_cross_entropy)
    softmax_cross_entropy_backward = staticmethod(F.softmax_cross_entropy_backward)
    relu, global_avg_pool = staticmethod(F.relu), staticmethod(F.global_avg_pool)

    def batch_norm_train(self, x, weight, bias, running_mean, running_var, eps, momentum):
        y, mean, var = F.batch_norm_train(x, weight, bias, eps)
        return y, *F.running_statistics(running_mean, running_var, mean, var, x.size // x.shape[3], momentum)

    def batch_norm_train_backward(self, dy, x, weight, eps):
        return F.batch_norm_train_backward(dy, x, weight, *F.batch_statistics(x), eps)

    def relu_backward(self, dy, x):
        return F.relu_backward(dy, F.relu(x))

    def global_avg_pool_backward(self, dy, x):
        return F.global_avg_pool_backward(dy, x.shape)

    def basic_block(self, x, state, stride, train, eps):
        return basic_block(x, state, stride, train, eps)[0]

    def basic_block_backward(self, dy, x, state, stride, eps):
        _, tape = basic_block(x, state, stride, True, eps)
        dx, grads = basic_block_backward(dy, state, tape, stride, eps)
        return {"dx": dx} | {f"grad/{name}": value for name, value in grads.items()}

    # --------------------------------------------------------------------------------------------------- the device

    def map(self, w, g_max_us):
        """A crossbar of zeros has the same targets by any scale; the stored case says 1."""
        g_us, scale = pcmref.map_weights(w, g_max_us)
        return g_us, scale if np.any(w) else 1.0

    def program(self, g_target_us, z, model):
        return _model(model).program(g_target_us, z)

    def drift_exponent(self, g_target_us, z, model):
        return _model(model).drift_exponent(g_target_us, z)

    def drift(self, g_prog_us, nu, model, t_s):
        return _model(model).drift(g_prog_us, nu, t_s)

    def read(self, g_drift_us, g_target_us, z, model, t_s):
        return _model(model).read(g_drift_us, g_target_us, t_s, z)

    def gdc(self, g_t0_us, g_t_us, read_out, g_max_us):
        return gdc.factor(*(gdc.read_out([g], g_max_us, read_out) for g in (g_t0_us, g_t_us)))

    def dac(self, x, converter):
        return Converter(**converter).convert(x)

    adc = dac

    def crossbar_mvm(self, x, g_us, tile, dac, adc, g_max_us, scale, alpha):
        dac, adc = (None if settings is None else Converter(**settings) for settings in (dac, adc))
        return Crossbar(g_us, scale, tuple(tile), dac, adc, g_max_us, alpha).multiply(x)

    def chip(self, x, state, noise, model, network, seed, t_s, read, gdc, eps):
        """Seed and names are enough: the draws are the package's own."""
        chip = pcmref.Chip.program(state, _model(model), seed)
        noisy = chip.read(t_s, read, gdc)
        out = {f"g_prog_us/{k}": v for k, v in chip.g_prog_us.items()} | {f"nu/{k}": v for k, v in chip.nu.items()}
        return out | {f"weight/{k}": noisy[k] for k in chip.nu} | {"logits": self.network(network, eps).forward(noisy, x)}

    # ------------------------------------------------------------------------------------------- training and draws

    clip_weights = staticmethod(pcmref.clip_weights)

    def inject_weight_noise(self, state, noise, eta, seed, step):
        return pcmref.inject_weight_noise(state, eta, seed, step)

    def sgd_step(self, w, grad, learning_rate, momentum, weight_decay, nesterov, velocity=None):
        recipe = training.Recipe(momentum=momentum, weight_decay=weight_decay, nesterov=nesterov)
        old = {} if velocity is None else {"w": velocity}
        state, new = training.sgd_step({"w": w}, {"w": grad}, old, learning_rate, recipe)
        return state["w"], new["w"]

    def draws(self, seed, name, n, high):
        whole = draws.permutation(seed, name, n), draws.integers(seed, name, high, (n,))
        return draws.raw(seed, name, n), draws.uniform(seed, name, (n,)), draws.standard_normal(seed, name, (n,)), *whole

    def sample(self, op, version, inputs, params, *, n: int, seed: int) -> dict[str, np.ndarray]:
        """n draws of a random operation; used by subclasses that say they take no noise."""
        if "{param}" in OPS[op].inputs:  # n copies of the crossbar on one: the largest weight stays what it is
            many = {name: np.concatenate([w] * n) for name, w in inputs.items()}
            noisy = self.run(op, version, many, {}, params | {"seed": seed})
            return {name: noisy[name].reshape(n, *w.shape) for name, w in inputs.items()}
        shape = (n, *inputs[next(iter(inputs))].shape)
        z = draws.standard_normal(seed, f"sample/{op}", shape)
        return self.run(op, version, {k: np.broadcast_to(v, shape) for k, v in inputs.items()}, {"z": z}, params)


def _model(wanted: dict) -> PCMModel:
    """The profile of a case with the package's own constants; only what a profile leaves open comes from the case."""
    if wanted["profile"] == "g_max":
        return PCMModel(g_max_us=wanted["g_max_us"])
    return replace(getattr(PCMModel, wanted["profile"])(), nu_law=wanted["nu_law"])
