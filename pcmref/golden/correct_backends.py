"""Backends that are right and add up in another order, or are sampled: the checker must pass them everywhere."""

from dataclasses import replace

import numpy as np

from pcmref.golden.reference import Reference
from pcmref.nn import functional as F


class Reordered(Reference):
    """Sums over channels, inputs and pixels the other way round."""

    name = "reordered sums"

    def conv2d(self, x, w, stride, padding):
        return F.conv2d(x[..., ::-1], w[:, ::-1], stride, padding)

    def conv2d_backward(self, dy, x, w, stride, padding):
        dx, dw = F.conv2d_backward(dy[..., ::-1], x[..., ::-1], w[::-1, ::-1], stride, padding)
        return dx[..., ::-1], dw[::-1, ::-1]

    def linear(self, x, w, b):
        return b + x[:, ::-1] @ w[:, ::-1].T

    def global_avg_pool(self, x):
        return x.sum((2, 1)) / x[0, :, :, 0].size

    def batch_norm(self, x, weight, bias, mean, var, eps):
        return (x - mean) / np.sqrt(var + var.dtype.type(eps)) * weight + bias


class Blocked(Reference):
    """Matrix products and convolutions in pieces of two terms, added up one after the other."""

    name = "blocked products"

    def conv2d(self, x, w, stride, padding):
        parts = [np.s_[c : c + 2] for c in range(0, w.shape[1], 2)]
        return sum(F.conv2d(x[..., c], w[:, c], stride, padding) for c in parts)

    def linear(self, x, w, b):
        parts = [np.s_[:, c : c + 2] for c in range(0, w.shape[1], 2)]
        return sum(x[c] @ w[c].T for c in parts) + b


class Sampled(Reference):
    """pcmref as a backend that takes no noise."""

    name = "pcmref, sampled"

    def capabilities(self):
        return replace(super().capabilities(), accepts_noise=False)


CORRECT = (Reference, Reordered, Blocked, Sampled)
