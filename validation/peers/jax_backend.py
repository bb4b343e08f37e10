"""JAX behind pcmref's backend protocol: lax convolutions, gradients from jax.vjp; float64 and float32.

pcmref golden check validation.peers.jax_backend:Backend --level 2
"""

from dataclasses import replace

import jax
import jax.numpy as jnp
from jax import lax

from pcmref.golden import Unsupported
from validation.peers.autograd import Autograd, trainable

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_default_matmul_precision", "highest")


class Backend(Autograd):
    """Only forwards are written here; every backward is jax.vjp of one."""

    name, version, dtypes = "JAX", jax.__version__, ("float64", "float32")
    tensor = staticmethod(jnp.asarray)

    def capabilities(self):
        """XLA's code for the CPU takes denormals as 0."""
        return replace(super().capabilities(), flush_denormals=True)

    def gradients(self, forward, arrays, dy, names):
        """{gradient: that of forward's output, weighted with dy, in the named input}."""
        y, pull = jax.vjp(lambda part: forward(arrays | part), {name: arrays[name] for name in names.values()})
        found = pull(jnp.ones_like(y) if dy is None else dy)[0]
        return {gradient: found[name] for gradient, name in names.items()}

    def conv2d(self, x, w, stride, padding):
        return conv2d(x, w, stride, padding)

    def conv2d_backward(self, dy, x, w, stride, padding):
        if stride > 1 and w.shape[2] != w.shape[3]:
            raise Unsupported("XLA ends the process for some kernels that are not square, with a stride: see backends.md")
        arrays, names = {"x": x, "w": w}, {"dx": "x", "dw": "w"}
        return self.gradients(lambda a: conv2d(a["x"], a["w"], stride, padding), arrays, dy, names)

    def batch_norm(self, x, weight, bias, mean, var, eps):
        return batch_norm(x, weight, bias, mean, var, eps)

    def batch_norm_train(self, x, weight, bias, eps, running_mean=0.0, running_var=0.0, momentum=0.0):
        y, m = batch_norm_train(x, weight, bias, eps), momentum
        return y, (1 - m) * running_mean + m * x.mean((0, 1, 2)), (1 - m) * running_var + m * x.var((0, 1, 2), ddof=1)

    def relu(self, x):
        return jax.nn.relu(x)

    def linear(self, x, w, b):
        return x @ w.T + b

    def global_avg_pool(self, x):
        return x.mean((1, 2))

    def max_pool2d(self, x, kernel, stride, padding):
        return max_pool(x, kernel, stride, padding)

    def softmax_cross_entropy(self, logits, labels, smoothing):
        classes = logits.shape[1]
        target = jax.nn.one_hot(labels, classes, dtype=logits.dtype) * (1 - smoothing) + smoothing / classes
        return -(target * jnp.where(target == 0, 0, jax.nn.log_softmax(logits))).sum() / len(labels)

    def basic_block(self, x, state, stride, train, eps):
        return block(x, state, "", stride, train, eps)

    def basic_block_backward(self, dy, x, state, stride, eps):
        return self.gradients(
            lambda a: block(a["x"], a, "", stride, True, eps), {"x": x} | state, dy, {"dx": "x"} | trainable(state)
        )

    def resnet(self, x, state, network, eps):
        return resnet(x, state, network, False, eps)

    def resnet_backward(self, dlogits, x, state, network, eps):
        def forward(a):
            return resnet(a["x"], a, network, True, eps)

        a = {"x": x} | state
        return {"logits": forward(a)} | self.gradients(forward, a, dlogits, {"grad/input": "x"} | trainable(state))

    def adabs(self, x_calibration, state, network, batch_size, eps):
        sums, x = {}, x_calibration
        for first in range(0, len(x), batch_size):
            batch, seen = x[first : first + batch_size], {}
            resnet(batch, state, network, True, eps, seen)
            for bn, z in seen.items():
                for entry, value in (("running_mean", z.mean((0, 1, 2))), ("running_var", z.var((0, 1, 2), ddof=1))):
                    sums[f"{bn}.{entry}"] = sums.get(f"{bn}.{entry}", 0) + len(batch) * value
        return {k: v / len(x) for k, v in sums.items()}

    def sgd_step(self, w, grad, learning_rate, momentum, weight_decay, nesterov, velocity=None):
        g = grad + weight_decay * w if w.ndim > 1 else grad
        v = g if velocity is None else momentum * velocity + g
        return w - learning_rate * (g + momentum * v if nesterov else v), v


def conv2d(x, w, stride, padding):
    where = [(padding, padding)] * 2
    return lax.conv_general_dilated(x, w, (stride, stride), where, dimension_numbers=("NHWC", "OIHW", "NHWC"))


def batch_norm(x, weight, bias, mean, var, eps):
    return (x - mean) * lax.rsqrt(var + eps) * weight + bias


def batch_norm_train(x, weight, bias, eps):
    return batch_norm(x, weight, bias, x.mean((0, 1, 2)), x.var((0, 1, 2)), eps)


def max_pool(x, kernel, stride, padding):
    around = ((0, 0), (padding, padding), (padding, padding), (0, 0))
    return lax.reduce_window(x, -jnp.inf, lax.max, (1, kernel, kernel, 1), (1, stride, stride, 1), around)


def conv_bn(x, s, conv, bn, stride, padding, train, eps, seen=None):
    z = conv2d(x, s[f"{conv}.weight"], stride, padding)
    if seen is not None:
        seen[bn] = z
    if train:
        return batch_norm_train(z, s[f"{bn}.weight"], s[f"{bn}.bias"], eps)
    return batch_norm(z, *(s[f"{bn}.{e}"] for e in ("weight", "bias", "running_mean", "running_var")), eps)


def block(x, s, name, stride, train, eps, seen=None):
    """Two layers of 3x3, or three where the state has them; the 3x3 layer that comes first has the stride."""
    last = 3 if f"{name}conv3.weight" in s else 2
    if f"{name}downsample.0.weight" in s:
        shortcut = conv_bn(x, s, f"{name}downsample.0", f"{name}downsample.1", stride, 0, train, eps, seen)
    else:
        zeros = s[f"{name}conv{last}.weight"].shape[0] - x.shape[3]
        shortcut = jnp.pad(x[:, ::stride, ::stride], ((0, 0), (0, 0), (0, 0), (zeros // 2, zeros - zeros // 2)))
    y = x
    for i in range(1, last + 1):
        own = stride if i == last - 1 else 1
        padding = s[f"{name}conv{i}.weight"].shape[2] // 2
        z = conv_bn(y, s, f"{name}conv{i}", f"{name}bn{i}", own, padding, train, eps, seen)
        y = jax.nn.relu(z + shortcut if i == last else z)
    return y


def resnet(x, s, network, train, eps, seen=None):
    small = network["stem"] == "small"
    y = jax.nn.relu(conv_bn(x, s, "conv1", "bn1", *((1, 1) if small else (2, 3)), train, eps, seen))
    if not small:
        y = max_pool(y, 3, 2, 1)
    for stage, count in enumerate(network["blocks"]):
        for b in range(count):
            y = block(y, s, f"layer{stage + 1}.{b}.", 2 if stage and not b else 1, train, eps, seen)
    return y.mean((1, 2)) @ s["fc.weight"].T + s["fc.bias"]
