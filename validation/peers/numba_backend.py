"""Loops compiled by numba behind pcmref's backend protocol: what LLVM makes of the equations, strictly and with fast-math.

pcmref golden check validation.peers.numba_backend:Backend --level 2
pcmref golden check validation.peers.numba_backend:FastMath --level 2

Every number is of the dtype under test, params too: a float64 among them would make numba compute in float64.
"""

import math
from functools import cache

import numba
import numpy as np

from pcmref.golden import NamedBackend


def conv2d(x, w, stride, padding, y):
    for n, p, q, o in np.ndindex(y.shape):
        for c, i, j in np.ndindex(w.shape[1:]):
            r, s = p * stride + i - padding, q * stride + j - padding
            if 0 <= r < x.shape[1] and 0 <= s < x.shape[2]:
                y[n, p, q, o] += x[n, r, s, c] * w[o, c, i, j]


def conv2d_backward(dy, x, w, stride, padding, dx, dw):
    for n, p, q, o in np.ndindex(dy.shape):
        for c, i, j in np.ndindex(w.shape[1:]):
            r, s = p * stride + i - padding, q * stride + j - padding
            if 0 <= r < x.shape[1] and 0 <= s < x.shape[2]:
                dx[n, r, s, c] += dy[n, p, q, o] * w[o, c, i, j]
                dw[o, c, i, j] += dy[n, p, q, o] * x[n, r, s, c]


def batch_norm(x, weight, bias, mean, var, eps, y):
    for n, h, v, c in np.ndindex(x.shape):
        y[n, h, v, c] = weight[c] * (x[n, h, v, c] - mean[c]) / math.sqrt(var[c] + eps) + bias[c]


def statistics(x, mean, var):
    """Mean and biased variance of each channel, in two passes."""
    count = mean.dtype.type(x.size // x.shape[3])
    for n, h, v, c in np.ndindex(x.shape):
        mean[c] += x[n, h, v, c]
    for c in range(len(mean)):
        mean[c] /= count
    for n, h, v, c in np.ndindex(x.shape):
        var[c] += (x[n, h, v, c] - mean[c]) ** 2
    for c in range(len(mean)):
        var[c] /= count


def relu(x, y):
    for i in range(x.size):
        y.flat[i] = x.flat[i] if x.flat[i] > 0 or math.isnan(x.flat[i]) else 0


def linear(x, w, b, y):
    for n, o in np.ndindex(y.shape):
        y[n, o] = b[o]
        for c in range(x.shape[1]):
            y[n, o] += x[n, c] * w[o, c]


def global_avg_pool(x, y):
    for n, h, v, c in np.ndindex(x.shape):
        y[n, c] += x[n, h, v, c]
    for n, c in np.ndindex(y.shape):
        y[n, c] /= y.dtype.type(x.shape[1] * x.shape[2])


def max_pool2d(x, kernel, stride, padding, y):
    for n, p, q, c in np.ndindex(y.shape):
        y[n, p, q, c] = -np.inf
        for i, j in np.ndindex(kernel, kernel):
            r, s = p * stride + i - padding, q * stride + j - padding
            if not (0 <= r < x.shape[1] and 0 <= s < x.shape[2]):
                continue
            if x[n, r, s, c] > y[n, p, q, c] or math.isnan(x[n, r, s, c]):
                y[n, p, q, c] = x[n, r, s, c]


def softmax_cross_entropy(logits, labels, smoothing, one, loss):
    classes = one * logits.shape[1]
    for n in range(logits.shape[0]):
        top, total, mean = logits[n].max(), one - one, one - one
        for k in range(logits.shape[1]):
            total += math.exp(logits[n, k] - top)
        log_total = math.log(total)
        for k in range(logits.shape[1]):
            mean += (log_total - (logits[n, k] - top)) / classes
        loss[0] += (one - smoothing) * (log_total - (logits[n, labels[n]] - top))
        if smoothing > 0:
            loss[0] += smoothing * mean
    loss[0] /= one * logits.shape[0]


def drift(g_prog_us, nu, ratio, g_drift_us):
    for i in range(nu.size):
        g_drift_us.flat[i] = g_prog_us.flat[i] * math.pow(ratio, -nu.flat[i])


def program(g_target_us, z, g_max_us, c0, c1, c2, zero, share, g_prog_us):
    for i in range(z.size):
        x = g_target_us.flat[i] / g_max_us
        sigma = max(c0 + c1 * x + c2 * (x * x), zero) * share
        g_prog_us.flat[i] = max(g_target_us.flat[i] + sigma * z.flat[i], zero)


def read(g_drift_us, g_target_us, z, g_max_us, q_factor, q_exponent, q_max, band, zero, g_us):
    for i in range(z.size):
        q = q_max
        if g_target_us.flat[i] > 0:
            q = min(q_factor * math.pow(g_target_us.flat[i] / g_max_us, q_exponent), q_max)
        g_us.flat[i] = max(g_drift_us.flat[i] + g_drift_us.flat[i] * q * band * z.flat[i], zero)


@cache
def compiled(kernel, fastmath):
    return numba.njit(fastmath=fastmath)(kernel)


class Backend(NamedBackend):
    """Each kernel writes into the arrays behind its inputs."""

    name, version, dtypes, fastmath = "numba", numba.__version__, ("float64", "float32"), False
    tensor = staticmethod(np.array)  # its own copy, in the machine's byte order

    def into(self, kernel, *arguments):
        compiled(kernel, self.fastmath)(*arguments)
        return arguments[-1]

    def conv2d(self, x, w, stride, padding):
        size = [(n + 2 * padding - k) // stride + 1 for n, k in zip(x.shape[1:3], w.shape[2:], strict=True)]
        return self.into(conv2d, x, w, stride, padding, np.zeros((len(x), *size, len(w)), x.dtype))

    def conv2d_backward(self, dy, x, w, stride, padding):
        dx, dw = np.zeros_like(x), np.zeros_like(w)
        self.into(conv2d_backward, dy, x, w, stride, padding, dx, dw)
        return dx, dw

    def batch_norm(self, x, weight, bias, mean, var, eps):
        return self.into(batch_norm, x, weight, bias, mean, var, x.dtype.type(eps), np.empty_like(x))

    def batch_norm_train(self, x, weight, bias, running_mean, running_var, eps, momentum):
        mean, var, m, count = np.zeros_like(bias), np.zeros_like(bias), x.dtype.type(momentum), x.size // x.shape[3]
        self.into(statistics, x, mean, var)
        unbiased = var * x.dtype.type(count) / x.dtype.type(count - 1)
        running = (1 - m) * running_mean + m * mean, (1 - m) * running_var + m * unbiased
        return self.batch_norm(x, weight, bias, mean, var, eps), *running

    def relu(self, x):
        return self.into(relu, x, np.empty_like(x))

    def linear(self, x, w, b):
        return self.into(linear, x, w, b, np.empty((len(x), len(w)), x.dtype))

    def global_avg_pool(self, x):
        return self.into(global_avg_pool, x, np.zeros((len(x), x.shape[3]), x.dtype))

    def max_pool2d(self, x, kernel, stride, padding):
        size = [(n + 2 * padding - kernel) // stride + 1 for n in x.shape[1:3]]
        return self.into(max_pool2d, x, kernel, stride, padding, np.empty((len(x), *size, x.shape[3]), x.dtype))

    def softmax_cross_entropy(self, logits, labels, smoothing):
        of = logits.dtype.type
        return self.into(softmax_cross_entropy, logits, labels, of(smoothing), of(1), np.zeros(1, logits.dtype))[0]

    def drift(self, g_prog_us, nu, model, t_s):
        of = nu.dtype.type
        return self.into(drift, g_prog_us, nu, of(t_s) / of(model["t_0_s"]), np.empty_like(nu))

    def program(self, g_target_us, z, model):
        of, g_max_us = z.dtype.type, model["g_max_us"]
        constants = (of(v) for v in (g_max_us, *model["programming_us"], 0, g_max_us / 25))
        return self.into(program, g_target_us, z, *constants, np.empty_like(z))

    def read(self, g_drift_us, g_target_us, z, model, t_s):
        of = z.dtype.type
        t, t_r = of(t_s), of(model["t_r_s"])
        band = np.sqrt(np.log((t + t_r) / (t_r + t_r)))
        constants = (*(of(model[k]) for k in ("g_max_us", "q_factor", "q_exponent", "q_max")), band, of(0))
        return self.into(read, g_drift_us, g_target_us, z, *constants, np.empty_like(z))


class FastMath(Backend):
    """LLVM may reorder sums, multiply by reciprocals, contract, and take it that there is no NaN."""

    name, fastmath = "numba, fast-math", True
