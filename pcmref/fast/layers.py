"""Layers: evaluation's, for a chunk of images, batch norm folded in; training's, over the chunks of a batch.

A training batch goes through a layer in parallel, with what the whole batch must agree on in between.
"""

from itertools import count
from typing import NamedTuple

import numpy as np

from pcmref.fast import functional as F
from pcmref.fast.gather import Recycled, scratch
from pcmref.nn.functional import BN_EPS, conv2d_shape, count_values
from pcmref.threads import map_chunks

CHUNK = 16  # images that go through an operation together: what they need stays in a core's cache


def folded(state: dict, pairs: list[tuple[str, str]], eps: float) -> dict:
    """The state with each batch norm of (conv, bn) folded into its convolution: kernel matrices scaled, a shift as its bias."""
    new = dict(state)
    for conv, bn in pairs:
        w = state[f"{conv}.weight"]
        weight, bias, mean, var = (state[f"{bn}.{e}"] for e in ("weight", "bias", "running_mean", "running_var"))
        scale = weight / np.sqrt(var + weight.dtype.type(eps))
        new[f"{conv}.weight"] = F.kernel_matrices(w * scale[:, None, None, None]), w.shape[3]
        new[f"{bn}.bias"] = bias - mean * scale
    return new


def folded_layer():
    """nn's `layer` in evaluation on a state from `folded`; outputs take turns in four pieces of scratch memory."""
    number = count()

    def layer(x, state, conv, bn, stride, plus=None, relu=True):
        matrices, k_w = state[f"{conv}.weight"]
        k_h, padding = len(matrices), len(matrices) // 2
        shape = conv2d_shape(x.shape, (matrices.shape[2], x.shape[3], k_h, k_w), stride, padding)
        y = F.convolve_rows(x, matrices, k_w, stride, padding, scratch(f"layer {next(number) % 4}", shape, x.dtype))
        F.add_channels(y, state[f"{bn}.bias"])
        if plus is not None:
            y += plus
        if relu:
            F.relu(y)
        return y, None

    return layer


class Saved(NamedTuple):
    """What a layer's backward needs of its forward; without x, deviation and y where no backward follows."""

    x: np.ndarray | None
    deviation: np.ndarray | None  # of the convolution's output from its chunk's centre
    centres: list[np.ndarray]  # of each chunk, [C]
    mean: np.ndarray
    var: np.ndarray  # biased
    count: int
    y: np.ndarray | None


class Layers:
    """nn's `layer` and `layer_backward` for one training batch of n images; sums are added in the chunks' order."""

    def __init__(self, n: int, workers: int | None, keep: bool, memory: Recycled):
        count = -(-n // CHUNK)
        count = min(n, count + count % 2)  # an even number: two workers, the commonest case, share the work alike
        self.chunks = [slice(n * i // count, n * (i + 1) // count) for i in range(count)]
        self.workers, self.keep, self.memory = workers, keep, memory

    def run(self, step, *of_chunk) -> list:
        """step(chunk, what of_chunk has for it) of every chunk."""
        return map_chunks(lambda given: step(*given), zip(self.chunks, *of_chunk, strict=True), self.workers)

    def layer(self, x, state, conv, bn, stride, plus=None, relu=True, eps=BN_EPS):
        """(y, saved) as nn's, in training."""
        w, weight, bias = state[f"{conv}.weight"], state[f"{bn}.weight"], state[f"{bn}.bias"]
        shape = conv2d_shape(x.shape, w.shape, stride, w.shape[2] // 2)
        n, deviation = count_values(shape), self.memory.empty(shape, x.dtype)
        y = self.memory.empty(shape, x.dtype) if self.keep else deviation

        def convolve(chunk):
            return F.centre(F.conv2d(x[chunk], w, stride, w.shape[2] // 2, out=deviation[chunk]))

        moments, centres = zip(*self.run(convolve), strict=True)
        _, mean, m2 = F.merge_moments(moments)
        var = m2 / n
        scale = weight / np.sqrt(var + eps)

        def finish(chunk, centre):
            F.scale_shift(deviation[chunk], scale, (centre - mean) * scale + bias, out=y[chunk])
            if plus is not None:
                y[chunk] += plus[chunk]
            if relu:
                F.relu(y[chunk])

        self.run(finish, centres)
        return y, Saved(x, deviation, centres, mean, var, n, y) if self.keep else Saved(None, None, [], mean, var, n, None)

    def layer_backward(self, dy, state, conv, bn, saved, stride, dx_plus=None, relu=True, eps=BN_EPS):
        """(dx + dx_plus, the gradient of layer's plus, gradients) as nn's.

        Batch norm's factor weight / sqrt(var + eps) is multiplied into the weights before, and into their gradient after.
        """
        w, weight = state[f"{conv}.weight"], state[f"{bn}.weight"]
        x, deviation, centres, mean, var, n, y = saved
        d = self.memory.empty(dy.shape, dy.dtype) if relu else dy

        def sums(chunk, centre):
            if relu:
                F.relu_backward(dy[chunk], y[chunk], out=d[chunk])
            total = F.channel_sum(d[chunk])
            return F.channel_dot(d[chunk], deviation[chunk]) + (centre - mean) * total, total

        d_z, dbias = (sum(part) for part in zip(*self.run(sums, centres), strict=True))  # sums of d*(z - mean) and d
        std, dx = np.sqrt(var + eps), self.memory.empty(x.shape, x.dtype)
        factor, scale = (weight / std)[:, None, None, None], d_z / (var + eps) / n
        folded = (w * factor).astype(w.dtype)

        def step(chunk, centre):
            dz, inner = F.spread(x[chunk].shape, w.shape, stride, w.shape[2] // 2, d.dtype)
            F.take_off(d[chunk], deviation[chunk], scale, (centre - mean) * scale + dbias / n, out=inner)
            dw = F.conv2d_backward_spread(dz, x[chunk], folded, dx[chunk])
            if dx_plus is not None:
                dx[chunk] += dx_plus[chunk]
            return dw

        grads = {f"{conv}.weight": factor * sum(self.run(step, centres)), f"{bn}.weight": d_z / std, f"{bn}.bias": dbias}
        return dx, d, {name: value.astype(d.dtype) for name, value in grads.items()}
