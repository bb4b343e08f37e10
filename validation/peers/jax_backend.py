"""JAX behind pcmref's backend protocol: lax convolutions, gradients from jax.vjp; float64 and float32.

cd validation/peers && pcmref golden check jax_backend:Backend --level 2
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from pcmref.golden import Capabilities, Unsupported

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_default_matmul_precision", "highest")


class Backend:
    """Only forwards are written here; every backward is jax.vjp of one."""

    name, version = "JAX", jax.__version__

    def capabilities(self) -> Capabilities:
        return Capabilities(dtypes=("float64", "float32"))

    def run(self, op, version, inputs, noise, params):
        if op not in OPS:
            raise Unsupported(f"not written for JAX: {op}")
        arrays = {k: jnp.asarray(v) for k, v in inputs.items()} | {f"noise/{k}": jnp.asarray(v) for k, v in noise.items()}
        return {k: np.asarray(v) for k, v in OPS[op](arrays, params).items()}


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


def cross_entropy(logits, labels, smoothing):
    classes = logits.shape[1]
    target = jax.nn.one_hot(labels, classes, dtype=logits.dtype) * (1 - smoothing) + smoothing / classes
    return -(target * jax.nn.log_softmax(logits)).sum() / len(labels)


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


def vjp(forward, arrays, dy, names):
    """{gradient: of the named input} of forward(arrays), weighted with dy."""
    _, pull = jax.vjp(lambda part: forward(arrays | part), {name: arrays[name] for name in names.values()})
    found = pull(dy)[0]
    return {gradient: found[name] for gradient, name in names.items()}


def trainable(arrays):
    return {f"grad/{k}": k for k in arrays if "." in k and "running_" not in k}


def running(a, p):
    n, m = a["x"].size // a["x"].shape[3], p["momentum"]
    return {
        "y": batch_norm_train(a["x"], a["weight"], a["bias"], p["eps"]),
        "running_mean": (1 - m) * a["running_mean"] + m * a["x"].mean((0, 1, 2)),
        "running_var": (1 - m) * a["running_var"] + m * a["x"].var((0, 1, 2)) * (n / (n - 1)),
    }


def adabs(a, p):
    sums, x = {}, a["x_calibration"]
    for first in range(0, len(x), p["batch_size"]):
        batch, seen = x[first : first + p["batch_size"]], {}
        resnet(batch, a, p["network"], True, p["eps"], seen)
        for bn, z in seen.items():
            for entry, value in (("running_mean", z.mean((0, 1, 2))), ("running_var", z.var((0, 1, 2), ddof=1))):
                sums[f"{bn}.{entry}"] = sums.get(f"{bn}.{entry}", 0) + len(batch) * value
    return {k: v / len(x) for k, v in sums.items()}


def resnet_backward(a, p):
    def forward(s):
        return resnet(s["x"], s, p["network"], True, p["eps"])

    return {"logits": forward(a)} | vjp(forward, a, a["dlogits"], {"grad/input": "x"} | trainable(a))


def sgd_step(a, p):
    g = a["grad"] + p["weight_decay"] * a["w"] if a["w"].ndim > 1 else a["grad"]
    v = p["momentum"] * a["velocity"] + g if "velocity" in a else g
    return {"w": a["w"] - p["learning_rate"] * (g + p["momentum"] * v if p["nesterov"] else v), "velocity": v}


BN_GRADS = {"dx": "x", "dweight": "weight", "dbias": "bias"}


def with_bias(a):
    return a | {"bias": jnp.zeros_like(a["weight"])}


def backward(forward, names, prepare=dict):
    """The backward operation of a forward f(arrays, params)."""
    return lambda a, p: vjp(lambda b: forward(b, p), prepare(a), a["dy"], names)


def loss(a, p):
    return cross_entropy(a["logits"], a["labels"], p["smoothing"])


OPS = {
    "conv2d": lambda a, p: {"y": conv2d(a["x"], a["w"], p["stride"], p["padding"])},
    "conv2d_backward": backward(lambda b, p: conv2d(b["x"], b["w"], p["stride"], p["padding"]), {"dx": "x", "dw": "w"}),
    "batch_norm": lambda a, p: {"y": batch_norm(a["x"], a["weight"], a["bias"], a["mean"], a["var"], p["eps"])},
    "batch_norm_backward": backward(
        lambda b, p: batch_norm(b["x"], b["weight"], b["bias"], b["mean"], b["var"], p["eps"]), BN_GRADS, with_bias
    ),
    "batch_norm_train": running,
    "batch_norm_train_backward": backward(
        lambda b, p: batch_norm_train(b["x"], b["weight"], b["bias"], p["eps"]), BN_GRADS, with_bias
    ),
    "relu": lambda a, p: {"y": jax.nn.relu(a["x"])},
    "relu_backward": backward(lambda b, p: jax.nn.relu(b["x"]), {"dx": "x"}),
    "linear": lambda a, p: {"y": a["x"] @ a["w"].T + a["b"]},
    "linear_backward": backward(
        lambda b, p: b["x"] @ b["w"].T + b["b"],
        {"dx": "x", "dw": "w", "db": "b"},
        lambda a: a | {"b": jnp.zeros(len(a["w"]), a["w"].dtype)},
    ),
    "global_avg_pool": lambda a, p: {"y": a["x"].mean((1, 2))},
    "global_avg_pool_backward": backward(lambda b, p: b["x"].mean((1, 2)), {"dx": "x"}),
    "max_pool2d": lambda a, p: {"y": max_pool(a["x"], p["kernel"], p["stride"], p["padding"])},
    "max_pool2d_backward": backward(lambda b, p: max_pool(b["x"], p["kernel"], p["stride"], p["padding"]), {"dx": "x"}),
    "softmax_cross_entropy": lambda a, p: {"loss": loss(a, p)},
    "softmax_cross_entropy_backward": lambda a, p: vjp(
        lambda b: loss(b, p), a, jnp.ones((), a["logits"].dtype), {"dlogits": "logits"}
    ),
    "basic_block": lambda a, p: {"y": block(a["x"], a, "", p["stride"], p["train"], p["eps"])},
    "basic_block_backward": lambda a, p: vjp(
        lambda s: block(s["x"], s, "", p["stride"], True, p["eps"]), a, a["dy"], {"dx": "x"} | trainable(a)
    ),
    "resnet": lambda a, p: {"logits": resnet(a["x"], a, p["network"], False, p["eps"])},
    "resnet_backward": resnet_backward,
    "adabs": adabs,
    "sgd_step": sgd_step,
}
