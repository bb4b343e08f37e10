"""JAX behind pcmref's backend protocol: lax convolutions, gradients from jax.vjp; float64 and float32.

cd validation/peers && pcmref golden check jax_backend:Backend --level 2
"""

import jax
import jax.numpy as jnp
import numpy as np
from autograd import Autograd
from jax import lax

from pcmref.golden import Capabilities

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_default_matmul_precision", "highest")


class Backend(Autograd):
    """Only forwards are written here; every backward is jax.vjp of one."""

    name, version = "JAX", jax.__version__
    tensor, array = staticmethod(jnp.asarray), staticmethod(np.asarray)

    def capabilities(self) -> Capabilities:
        return Capabilities(dtypes=("float64", "float32"))

    def gradients(self, forward, arrays, dy, names):
        """{gradient: that of forward's output, weighted with dy, in the named input}."""
        y, pull = jax.vjp(lambda part: forward(arrays | part), {name: arrays[name] for name in names.values()})
        found = pull(jnp.ones_like(y) if dy is None else dy)[0]
        return {gradient: found[name] for gradient, name in names.items()}

    def conv2d(self, a, p):
        return {"y": conv2d(a["x"], a["w"], p["stride"], p["padding"])}

    def batch_norm(self, a, p):
        return {"y": batch_norm(a["x"], a["weight"], a["bias"], a["mean"], a["var"], p["eps"])}

    def batch_norm_train(self, a, p):
        y = {"y": batch_norm_train(a["x"], a["weight"], a["bias"], p["eps"])}
        if "running_mean" not in a:  # its backward
            return y
        m, moments = p["momentum"], {"running_mean": a["x"].mean((0, 1, 2)), "running_var": a["x"].var((0, 1, 2), ddof=1)}
        return y | {k: (1 - m) * a[k] + m * new for k, new in moments.items()}

    def relu(self, a, p):
        return {"y": jax.nn.relu(a["x"])}

    def linear(self, a, p):
        return {"y": a["x"] @ a["w"].T + a["b"]}

    def global_avg_pool(self, a, p):
        return {"y": a["x"].mean((1, 2))}

    def max_pool2d(self, a, p):
        return {"y": max_pool(a["x"], p["kernel"], p["stride"], p["padding"])}

    def softmax_cross_entropy(self, a, p):
        classes = a["logits"].shape[1]
        target = jax.nn.one_hot(a["labels"], classes, dtype=a["logits"].dtype) * (1 - p["smoothing"]) + p["smoothing"] / classes
        return {"loss": -(target * jax.nn.log_softmax(a["logits"])).sum() / len(a["labels"])}

    def basic_block(self, a, p):
        return {"y": block(a["x"], a, "", p["stride"], p["train"], p["eps"])}

    def basic_block_backward(self, a, p):
        return self.gradients(lambda b: self.basic_block(b, p | {"train": True})["y"], a, a["dy"], {"dx": "x"} | trainable(a))

    def resnet(self, a, p):
        return {"logits": resnet(a["x"], a, p["network"], False, p["eps"])}

    def resnet_backward(self, a, p):
        def forward(s):
            return resnet(s["x"], s, p["network"], True, p["eps"])

        return {"logits": forward(a)} | self.gradients(forward, a, a["dlogits"], {"grad/input": "x"} | trainable(a))

    def adabs(self, a, p):
        sums, x = {}, a["x_calibration"]
        for first in range(0, len(x), p["batch_size"]):
            batch, seen = x[first : first + p["batch_size"]], {}
            resnet(batch, a, p["network"], True, p["eps"], seen)
            for bn, z in seen.items():
                for entry, value in (("running_mean", z.mean((0, 1, 2))), ("running_var", z.var((0, 1, 2), ddof=1))):
                    sums[f"{bn}.{entry}"] = sums.get(f"{bn}.{entry}", 0) + len(batch) * value
        return {k: v / len(x) for k, v in sums.items()}

    def sgd_step(self, a, p):
        g = a["grad"] + p["weight_decay"] * a["w"] if a["w"].ndim > 1 else a["grad"]
        v = p["momentum"] * a["velocity"] + g if "velocity" in a else g
        return {"w": a["w"] - p["learning_rate"] * (g + p["momentum"] * v if p["nesterov"] else v), "velocity": v}


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
    shortcut = x
    if f"{name}downsample.0.weight" in s:
        shortcut = conv_bn(x, s, f"{name}downsample.0", f"{name}downsample.1", stride, 0, train, eps, seen)
    y = jax.nn.relu(conv_bn(x, s, f"{name}conv1", f"{name}bn1", stride, 1, train, eps, seen))
    return jax.nn.relu(conv_bn(y, s, f"{name}conv2", f"{name}bn2", 1, 1, train, eps, seen) + shortcut)


def resnet(x, s, network, train, eps, seen=None):
    small = network["stem"] == "small"
    y = jax.nn.relu(conv_bn(x, s, "conv1", "bn1", *((1, 1) if small else (2, 3)), train, eps, seen))
    if not small:
        y = max_pool(y, 3, 2, 1)
    for stage, count in enumerate(network["blocks"]):
        for b in range(count):
            y = block(y, s, f"layer{stage + 1}.{b}.", 2 if stage and not b else 1, train, eps, seen)
    return y.mean((1, 2)) @ s["fc.weight"].T + s["fc.bias"]


def trainable(arrays):
    return {f"grad/{k}": k for k in arrays if "." in k and "running_" not in k}
