"""nn's operations on a chunk of images, fast: matrix products on gathered rows, long lines of pixels, sums in float64.

What each must give is written in `pcmref.nn.functional`; where a function here needs `out`, it writes there.
"""

from math import prod
from typing import NamedTuple

import numpy as np

from pcmref.errors import ShapeError
from pcmref.fast.gather import columns, kernel_rows, padded, scratch
from pcmref.nn.functional import BN_EPS, conv2d_shape

# ---------------------------------------------------------------------------------------------------- convolution


def kernel_matrices(w: np.ndarray) -> np.ndarray:
    """w [O, C, kH, kW] as one matrix for each row of the kernel: [kH, kW*C, O]."""
    o, c, k_h, k_w = w.shape
    return np.ascontiguousarray(w.transpose(2, 3, 1, 0).reshape(k_h, k_w * c, o))


def conv2d(x: np.ndarray, w: np.ndarray, stride: int = 1, padding: int = 0, out=None) -> np.ndarray:
    """The sum over the kernel's columns and channels is one matrix product per kernel row; the rows' products add up."""
    shape = conv2d_shape(x.shape, w.shape, stride, padding)
    y = np.empty(shape, np.result_type(x, w)) if out is None else out
    return convolve_rows(x, kernel_matrices(w), w.shape[3], stride, padding, y)


def convolve_rows(x, matrices, k_w: int, stride: int, padding: int, out: np.ndarray) -> np.ndarray:
    """out [N, H_out, W_out, O], C-contiguous, from x [N, H, W, C] and `kernel_matrices`."""
    cols = columns(padded(x, padding, padding), k_w, stride)  # [N, H, W_out, kW*C]
    flat = out.reshape(out.shape[0], prod(out.shape[1:3]), out.shape[3])  # [N, H_out*W_out, O]
    for i, (rows, matrix) in enumerate(zip(kernel_rows(cols, len(matrices), stride), matrices, strict=True)):
        if i == 0:
            np.matmul(rows, matrix, out=flat)
        else:
            flat += np.matmul(rows, matrix, out=scratch("product", flat.shape, flat.dtype))
    return out


def conv2d_input_grad(dy, w, x_shape, stride: int, padding: int, out=None) -> np.ndarray:
    """dx = the convolution of dy, spread out by the stride, with the kernel turned by 180 degrees.

    dy [N, H_out, W_out, O], w [O, C, kH, kW] -> dx [N, H, W, C].
    """
    n, h, width, _ = x_shape
    k_h, k_w = w.shape[2:]
    if dy.shape != conv2d_shape(x_shape, w.shape, stride, padding):
        raise ShapeError(f"dy {dy.shape} is not the shape of conv2d's output for x {tuple(x_shape)}, w {w.shape}")
    h_full, w_full = h + 2 * padding - k_h + 1, width + 2 * padding - k_w + 1  # positions of a kernel of stride 1
    if stride > 1:
        spread = np.zeros((n, h_full, w_full, dy.shape[3]), dy.dtype)
        spread[:, ::stride, ::stride] = dy
        dy = spread
    dy = padded(dy, k_h - 1, k_w - 1)
    dy = dy[:, padding : padding + h + k_h - 1, padding : padding + width + k_w - 1]
    return conv2d(dy, w[:, :, ::-1, ::-1].transpose(1, 0, 2, 3), out=out)


def conv2d_weight_grad(dy, x, w_shape, stride: int, padding: int) -> np.ndarray:
    """dw [O, C, kH, kW], one matrix product for each kernel row and image."""
    o, c, k_h, k_w = w_shape
    cols = columns(padded(x, padding, padding), k_w, stride)
    dy = dy.reshape(dy.shape[0], prod(dy.shape[1:3]), o)  # [N, H_out*W_out, O]
    dw = [(rows.transpose(0, 2, 1) @ dy).sum(0) for rows in kernel_rows(cols, k_h, stride)]  # kH times [kW*C, O]
    return np.stack(dw).reshape(k_h, k_w, c, o).transpose(3, 2, 0, 1)


# --------------------------------------------------------------------------------------------- batch normalisation


class Moments(NamedTuple):
    """Count, mean and sum of squared deviations of each channel: what chunks of a batch hand in to be merged."""

    n: int
    mean: np.ndarray  # [C], float64 or wider
    m2: np.ndarray  # [C], float64 or wider


def _lines(x: np.ndarray) -> np.ndarray:
    """x [N, H, W, C] as lines of many pixels, [N, H*W*C] or [N*H, W*C]: long runs are several times faster than C."""
    return x.reshape(-1, _pixels(x) * x.shape[3])


def _pixels(x: np.ndarray) -> int:
    """Pixels in a line: those of an image, or of an image row where an image would not fit in the fastest cache."""
    _, h, w, c = x.shape
    return h * w if h * w * c <= 32_768 else w


def _line(v: np.ndarray, x: np.ndarray) -> np.ndarray:
    """A per-channel vector [C] repeated along a line of x, in x's dtype."""
    return v.astype(x.dtype, copy=False)[None].repeat(_pixels(x), 0).reshape(-1)


def channel_sum(x: np.ndarray) -> np.ndarray:
    """sum over n, h, w: [N, H, W, C] -> [C], in x's dtype along the rows of the images, then in float64 or wider."""
    n, h, w, c = x.shape
    columns = np.ones(n * h, x.dtype) @ x.reshape(n * h, w * c)
    return columns.astype(np.result_type(x.dtype, np.float64)).reshape(w, c).sum(0)


def channel_dot(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """sum over n, h, w of x*y, per channel: two arrays [N, H, W, C] -> [C]."""
    return channel_sum(np.multiply(x, y, out=scratch("channel_dot", x.shape, x.dtype)))


def channel_moments(x: np.ndarray) -> Moments:
    """Count, mean and sum of squared deviations of each channel of x [N, H, W, C], two-pass."""
    n = x.size // x.shape[3]
    mean = channel_sum(x) / n
    rounded = mean.astype(x.dtype)
    deviation = np.subtract(_lines(x), _line(rounded, x), out=scratch("deviation", _lines(x).shape, x.dtype))
    m2 = channel_sum(np.square(deviation, out=deviation).reshape(x.shape)) - n * (mean - rounded) ** 2
    return Moments(n, mean, np.maximum(m2, 0))


def merge_moments(parts: list[Moments]) -> Moments:
    """The moments of all parts together, in the given order (Chan, Golub & LeVeque 1983, eq. 2.1)."""
    n, mean, m2 = parts[0]
    for part in parts[1:]:
        delta, total = part.mean - mean, n + part.n
        mean = mean + delta * (part.n / total)
        m2 = m2 + part.m2 + delta**2 * (n * part.n / total)
        n = total
    return Moments(n, mean, m2)


def normalize(x, mean, var, eps: float = BN_EPS) -> None:
    """x_hat = (x - mean) / sqrt(var + eps), in place: x [N, H, W, C], C-contiguous."""
    lines = _lines(x)
    lines -= _line(mean, x)
    lines *= _line(1 / np.sqrt(var + eps), x)


def scale_shift(x, scale, shift, out: np.ndarray) -> None:
    """out = scale * x + shift, per channel."""
    lines = np.multiply(_lines(x), _line(scale, x), out=_lines(out))
    lines += _line(shift, x)


def add_channels(x, shift) -> None:
    """x += shift, per channel."""
    lines = _lines(x)
    lines += _line(shift, x)


def normalize_backward(dy, x_hat, factor, mean_dy, mean_dy_x_hat, out: np.ndarray) -> np.ndarray:
    """out = factor * (dy - mean(dy) - x_hat * mean(dy*x_hat)), factor = weight / sqrt(var + eps).

    The means run over the whole batch, dy and x_hat may be a chunk of it.
    """
    dx = np.multiply(_lines(x_hat), _line(mean_dy_x_hat, dy), out=_lines(out))
    dx += _line(mean_dy, dy)
    np.subtract(_lines(dy), dx, out=dx)
    dx *= _line(factor, dy)
    return out


def relu(x) -> None:
    """max(x, 0) in place."""
    np.maximum(x, np.zeros(x.shape[1:], x.dtype), out=x)  # NumPy takes a scalar 0 four times slower


def relu_backward(dy, y, out: np.ndarray) -> None:
    """out = dy where y is positive, else 0: by its bits, for NaN and infinities are no numbers to multiply with 0."""
    mask = np.greater(y, 0, out=scratch("mask", y.shape, bool))
    if dy.dtype.itemsize > 8:  # no integer has as many bits
        out[...] = np.where(mask, dy, 0)
        return
    mask, bits = mask.view(np.int8), np.dtype(f"i{dy.dtype.itemsize}")
    np.bitwise_and(dy.view(bits), np.negative(mask, out=mask), out=out.view(bits))  # -1 has all bits set
