"""A layer over a training batch: in blocks of images, in parallel, with what the whole batch must agree on in between."""

from typing import NamedTuple

import numpy as np

from pcmref.blocks import map_blocks, scratch
from pcmref.nn import functional as F

BLOCK = 16  # images that go through an operation together: what they need stays in a core's cache (measured)


class Saved(NamedTuple):
    """What the backward pass of a convolution with batch norm needs of its forward pass."""

    x: np.ndarray
    x_hat: np.ndarray
    moments: F.Moments
    y: np.ndarray
    stride: int
    padding: int


class Batch:
    """A batch in blocks of images: each layer over all blocks, in parallel, sums added in the blocks' order."""

    def __init__(self, n: int, workers: int | None):
        count = -(-n // BLOCK)
        count = min(n, count + count % 2)  # an even number: two workers, the commonest case, share the work alike
        self.blocks = [slice(n * i // count, n * (i + 1) // count) for i in range(count)]
        self.workers = workers

    def run(self, step) -> list:
        return map_blocks(step, self.blocks, self.workers)

    def each(self, step) -> np.ndarray:
        return np.concatenate(self.run(step))

    def conv_bn(self, x, state, conv, bn, stride, padding, plus=None, relu=False, keep=True):
        """y = relu(batch_norm(conv2d(x)) + plus): (y, x_hat, moments); x_hat survives only where it is to be kept."""
        w = state[f"{conv}.weight"]
        x_hat = np.empty(F.conv2d_shape(x.shape, w.shape, stride, padding), x.dtype)
        y = np.empty_like(x_hat) if keep else x_hat

        def convolve(block):
            return F.channel_moments(F.conv2d(x[block], w, stride, padding, out=x_hat[block]))

        moments = F.merge_moments(self.run(convolve))
        F.check_batch(moments)

        weight, bias = state[f"{bn}.weight"], state[f"{bn}.bias"]

        def normalize(block):
            if keep:
                F.normalize(x_hat[block], moments, out=x_hat[block])
                F.scale_shift(x_hat[block], weight, bias, out=y[block])
            else:
                F.batch_norm(x_hat[block], weight, bias, moments.mean, moments.m2 / moments.n, out=y[block])
            if plus is not None:
                y[block] += plus[block]
            if relu:
                F.relu(y[block], out=y[block])

        self.run(normalize)
        return y, x_hat, moments

    def conv_bn_backward(self, dy, w, bn_weight, saved: Saved, plus=None, relu=False):
        """(dx + plus, dw, d bn weight, d bn bias) of conv_bn; dy is overwritten by its value before the relu."""
        x, x_hat, moments, y, stride, padding = saved

        def sums(block):
            if relu:
                F.relu_backward(dy[block], y[block], out=dy[block])
            return F.channel_dot(dy[block], x_hat[block]), F.channel_sum(dy[block])

        sum_dy_x_hat, sum_dy = (sum(part) for part in zip(*self.run(sums), strict=True))
        dx = np.empty(x.shape, x.dtype)

        def step(block):
            d = scratch("d_conv", dy[block].shape, dy.dtype)
            F.normalize_backward(dy[block], x_hat[block], bn_weight, moments, sum_dy, sum_dy_x_hat, out=d)
            F.conv2d_input_grad(d, w, x[block].shape, stride, padding, out=dx[block])
            if plus is not None:
                dx[block] += plus[block]
            return F.conv2d_weight_grad(d, x[block], w.shape, stride, padding)

        dw = sum(self.run(step))
        return dx, dw, sum_dy_x_hat.astype(dy.dtype), sum_dy.astype(dy.dtype)
