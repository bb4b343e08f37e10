"""Backends that are right and compute in another way, or are sampled: the checker must pass them everywhere."""

from dataclasses import replace
from functools import partial

import numpy as np
from scipy import fft

from pcmref.golden.ops import OPS
from pcmref.golden.reference import Reference
from pcmref.nn import functional as F
from pcmref.nn.blocks import residual_block


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


class Direct(Reference):
    """A convolution as a sum over the kernel's taps, no patches."""

    name = "a product for each tap"

    def conv2d(self, x, w, stride, padding):
        n, h, width, _ = F.conv2d_shape(x.shape, w.shape, stride, padding)
        x = np.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
        rows, columns = ((size - 1) * stride + 1 for size in (h, width))
        taps = np.ndindex(*w.shape[2:])
        return sum(x[:, i : i + rows : stride, j : j + columns : stride] @ w[..., i, j].T for i, j in taps)


class Pairwise(Reference):
    """Every product's terms as an array, which NumPy adds up pairwise."""

    name, add = "pairwise sums", staticmethod(partial(np.sum, axis=-1))

    def conv2d(self, x, w, stride, padding):
        return F.conv2d(x, w, stride, padding, self._product)

    def linear(self, x, w, b):
        return F.linear(x, w, b, self._product)

    def _product(self, x, w):
        w = w.reshape(len(w), -1)
        return np.stack([self.add(x * row) for row in w], 1)


class Sequential(Pairwise):
    """One term after the other."""

    name, add = "sequential sums", staticmethod(lambda terms: np.add.accumulate(terms, -1)[..., -1])


class Folding(Reference):
    """Blocks that evaluate with each batch norm folded into its convolution, the backend's own."""

    def basic_block(self, x, state, stride, train, eps):
        if train:
            return super().basic_block(x, state, stride, train, eps)
        return residual_block(x, state, (stride, 1), partial(_folded, eps=eps, convolve=self.conv2d))[0]


class Fused(Folding):
    """Batch norm as a factor and a summand, too."""

    name = "folded batch norm"

    def batch_norm(self, x, weight, bias, mean, var, eps):
        factor = weight / np.sqrt(var + eps)
        return x * factor + (bias - mean * factor)


def _folded(x, state, conv, bn, stride=1, plus=None, relu=True, *, eps, convolve):
    weight, bias, mean, var = (state[f"{bn}.{k}"] for k in ("weight", "bias", "running_mean", "running_var"))
    factor, w = weight / np.sqrt(var + eps), state[f"{conv}.weight"]
    y = convolve(x, w * factor[:, None, None, None], stride, w.shape[2] // 2) + (bias - mean * factor)
    y = y if plus is None else y + plus
    return (F.relu(y) if relu else y), None


class Longer(Reference):
    """Computes in float64 and rounds what comes out."""

    name = "float64 inside"

    def capabilities(self):
        return replace(super().capabilities(), accumulate_dtype="float64")

    def run(self, op, version, inputs, noise, params):
        dtype = next((v.dtype for v in inputs.values() if v.dtype.kind == "f"), np.float64)
        if dtype == np.float64 or OPS[op].device:
            return super().run(op, version, inputs, noise, params)
        longer = ({k: v.astype(float) if v.dtype.kind == "f" else v for k, v in given.items()} for given in (inputs, noise))
        return {k: np.asarray(v, dtype) for k, v in super().run(op, version, *longer, params).items()}


class Copying(Reference):
    """Copies what is not contiguous."""

    name, tensor = "contiguous copies", staticmethod(partial(np.array, order="C"))


def _flushed(v):
    v = np.asarray(v)
    return np.where(np.abs(v) < np.finfo(v.dtype).tiny, 0, v).astype(v.dtype) if v.dtype.kind == "f" else v


class Flushing(Reference):
    """Takes and gives 0 for numbers below the smallest normal one, and says so."""

    name, tensor, array = "denormals flushed", staticmethod(_flushed), staticmethod(_flushed)

    def capabilities(self):
        return replace(super().capabilities(), flush_denormals=True)


class Transformed(Folding):
    """Convolutions by a transform, and says so; blocks are made of them."""

    def capabilities(self):
        return replace(super().capabilities(), conv_algorithm=self.name)


class Winograd(Transformed):
    """Those of 3x3 and stride 1: A'((G w G') * (B' x B))A, tiles of m x m outputs (Lavin & Gray 2016)."""

    name, m = "winograd F(2,3)", 2
    b_t = ((1, 0, -1, 0), (0, 1, 1, 0), (0, -1, 1, 0), (0, 1, 0, -1))
    g = ((1, 0, 0), (1 / 2, 1 / 2, 1 / 2), (1 / 2, -1 / 2, 1 / 2), (0, 0, 1))
    a_t = ((1, 1, 1, 0), (0, 1, -1, -1))

    def transforms(self, x, padding):
        """B', G and A', and the tiles of x, transformed: [N, P, Q, C, m+2, m+2]."""
        b_t, g, a_t = (np.array(of, x.dtype) for of in (self.b_t, self.g, self.a_t))
        more = ((padding, padding - (size + 2 * padding - 2) % -self.m) for size in x.shape[1:3])
        tiles = F.windows(np.pad(x, ((0, 0), *more, (0, 0))), (self.m + 2, self.m + 2), self.m, 0)
        return g, a_t, b_t @ tiles @ b_t.T

    def conv2d(self, x, w, stride, padding):
        if w.shape[2:] != (3, 3) or stride != 1:
            return F.conv2d(x, w, stride, padding)
        n, h, width, o = F.conv2d_shape(x.shape, w.shape, stride, padding)
        g, a_t, tiles = self.transforms(x, padding)
        products = np.einsum("npqcij,ocij->npqoij", tiles, g @ w @ g.T)
        y = (a_t @ products @ a_t.T).transpose(0, 1, 4, 2, 5, 3)  # [N, P, m, Q, m, O]
        return y.reshape(n, self.m * y.shape[1], -1, o)[:, :h, :width]

    def conv2d_backward(self, dy, x, w, stride, padding):
        if w.shape[2:] != (3, 3) or stride != 1 or padding > 2:
            return F.conv2d_backward(dy, x, w, stride, padding)
        g, a_t, tiles = self.transforms(x, padding)
        more = ((0, -size % self.m) for size in dy.shape[1:3])
        dy_tiles = F.windows(np.pad(dy, ((0, 0), *more, (0, 0))), (self.m, self.m), self.m, 0)
        dw = g.T @ np.einsum("npqoij,npqcij->ocij", a_t.T @ dy_tiles @ a_t, tiles) @ g
        return self.conv2d(dy, w.transpose(1, 0, 2, 3)[:, :, ::-1, ::-1], 1, 2 - padding), dw


class Winograd4(Winograd):
    """Tiles of 4 x 4."""

    name, m = "winograd F(4,3)", 4
    b_t = ((4, 0, -5, 0, 1, 0), (0, -4, -4, 1, 1, 0), (0, 4, -4, -1, 1, 0))
    b_t += ((0, -2, -1, 2, 1, 0), (0, 2, -1, -2, 1, 0), (0, 4, 0, -5, 0, 1))
    g = ((1 / 4, 0, 0), (-1 / 6, -1 / 6, -1 / 6), (-1 / 6, 1 / 6, -1 / 6))
    g += ((1 / 24, 1 / 12, 1 / 6), (1 / 24, -1 / 12, 1 / 6), (0, 0, 1))
    a_t = ((1, 1, 1, 1, 1, 0), (0, 1, -1, 2, -2, 0), (0, 1, 1, 4, 4, 0), (0, 1, -1, 8, -8, 1))


class Fourier(Transformed):
    """All of them, as products of spectra."""

    name = "fft"

    def spectra(self, x, w, padding):
        """(the size, the spectra of x in its border and of w)."""
        x = np.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
        size = x.shape[1:3]
        return size, fft.rfft2(x, size, (1, 2)), fft.rfft2(w, size, (2, 3))

    def conv2d(self, x, w, stride, padding):
        _, h, width, _ = F.conv2d_shape(x.shape, w.shape, stride, padding)
        size, x, w = self.spectra(x, w, padding)
        y = fft.irfft2(np.einsum("nijc,ocij->nijo", x, w.conj()), size, (1, 2))
        return y[:, : h * stride : stride, : width * stride : stride]

    def conv2d_backward(self, dy, x, w, stride, padding):
        (h, width), (k_h, k_w), (rows, columns) = x.shape[1:3], w.shape[2:], dy.shape[1:3]
        size, x, w = self.spectra(x, w, padding)
        spread = np.zeros((len(dy), *size, dy.shape[3]), dy.dtype)
        spread[:, : rows * stride : stride, : columns * stride : stride] = dy
        dy = fft.rfft2(spread, size, (1, 2))
        dx = fft.irfft2(np.einsum("nijo,ocij->nijc", dy, w), size, (1, 2))
        dw = fft.irfft2(np.einsum("nijc,nijo->ocij", x, dy.conj()), size, (2, 3))
        return dx[:, padding : padding + h, padding : padding + width], dw[:, :, :k_h, :k_w]


class Sampled(Reference):
    """pcmref as a backend that takes no noise."""

    name = "pcmref, sampled"

    def capabilities(self):
        return replace(super().capabilities(), accepts_noise=False)


CORRECT = (
    Reference,
    Reordered,
    Blocked,
    Direct,
    Pairwise,
    Sequential,
    Fused,
    Longer,
    Copying,
    Flushing,
    Winograd,
    Winograd4,
    Fourier,
    Sampled,
)
