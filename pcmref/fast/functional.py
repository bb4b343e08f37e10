"""nn's operations on a chunk of images, fast: matrix products on gathered rows, long lines of pixels, sums in float64.

What each must give is written in `pcmref.nn.functional`; where a function here needs `out`, it writes there.
"""

from math import prod
from typing import NamedTuple

import numpy as np

from pcmref.errors import ShapeError
from pcmref.fast.gather import columns, framed, kernel_rows, padded, scratch
from pcmref.nn.functional import conv2d_shape

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
    _sum_of_products(kernel_rows(cols, len(matrices), stride), matrices, out)
    return out


def _sum_of_products(rows, matrices, out) -> None:
    """out [N, H_out, W_out, O] = the sum over the kernel's rows of rows[i] [N, H_out*W_out, K] @ matrices[i] [K, O]."""
    flat = out.reshape(out.shape[0], prod(out.shape[1:3]), out.shape[3])
    for i, (row, matrix) in enumerate(zip(rows, matrices, strict=True)):
        product = np.matmul(row, matrix, out=scratch("product", flat.shape, flat.dtype) if i else flat)
        if i:
            flat += product


def conv2d_backward(dy, x, w, stride: int = 1, padding: int = 0):
    """(dx, dw) as nn's."""
    if dy.shape != conv2d_shape(x.shape, w.shape, stride, padding):
        raise ShapeError(f"dy {dy.shape} is not the shape of conv2d's output for x {x.shape}, w {w.shape}")
    spread_dy, inner = spread(x.shape, w.shape, stride, padding, dy.dtype)
    inner[...] = dy
    dx = np.empty(x.shape, dy.dtype)
    return dx, conv2d_backward_spread(spread_dy, x, w, dx)


def spread(x_shape, w_shape, stride: int, padding: int, dtype) -> tuple[np.ndarray, np.ndarray]:
    """(zeros [N, H + kH - 1, W + kW - 1, O], where in them conv2d_backward's dy is to be written), in scratch memory."""
    (n, h, width, _), (o, _, k_h, k_w) = x_shape, w_shape
    positions = n, h + 2 * padding - k_h + 1, width + 2 * padding - k_w + 1, o  # of a kernel of stride 1
    whole, inner = framed(positions, k_h - 1, k_w - 1, dtype, stride)
    return whole[:, padding : padding + h + k_h - 1, padding : padding + width + k_w - 1], inner


def conv2d_backward_spread(dy, x, w, dx: np.ndarray) -> np.ndarray:
    """dw [O, C, kH, kW], and dx [N, H, W, C] where it is to be written, from dy as `spread` lays it out.

    dx is the convolution of that with the kernel turned by 180 degrees; each weight's gradient meets the same rows.
    """
    (n, h, width, c), (o, _, k_h, k_w) = x.shape, w.shape
    turned = kernel_matrices(w[:, :, ::-1, ::-1].transpose(1, 0, 2, 3))  # [kH, kW*O, C]
    rows = list(kernel_rows(columns(dy, k_w, 1), k_h, 1))  # kH times [N, H*W, kW*O]
    _sum_of_products(rows, turned, dx)
    dw = np.stack([(x.reshape(n, h * width, c).transpose(0, 2, 1) @ row).sum(0) for row in rows])  # [kH, C, kW*O]
    return dw.reshape(k_h, c, k_w, o).transpose(3, 1, 0, 2)[:, :, ::-1, ::-1]


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
    """sum over n, h, w of x*y, per channel: two arrays [N, H, W, C] -> [C], added up as in `channel_sum`."""
    n, h, w, c = x.shape
    columns = np.einsum("rl,rl->l", x.reshape(n * h, w * c), y.reshape(n * h, w * c))
    return columns.astype(np.result_type(x.dtype, np.float64)).reshape(w, c).sum(0)


def centre(x: np.ndarray) -> tuple[Moments, np.ndarray]:
    """(moments, c) of x [N, H, W, C], which becomes x - c in place: c [C] is the mean, rounded to x's dtype. Two-pass."""
    n = x.size // x.shape[3]
    mean = channel_sum(x) / n
    c = mean.astype(x.dtype)
    np.subtract(_lines(x), _line(c, x), out=_lines(x))
    return Moments(n, mean, np.maximum(channel_dot(x, x) - n * (mean - c) ** 2, 0)), c


def merge_moments(parts: list[Moments]) -> Moments:
    """The moments of all parts together, in the given order (Chan, Golub & LeVeque 1983, eq. 2.1)."""
    n, mean, m2 = parts[0]
    for part in parts[1:]:
        delta, total = part.mean - mean, n + part.n
        mean = mean + delta * (part.n / total)
        m2 = m2 + part.m2 + delta**2 * (n * part.n / total)
        n = total
    return Moments(n, mean, m2)


def scale_shift(x, scale, shift, out: np.ndarray) -> np.ndarray:
    """out = scale * x + shift, per channel."""
    lines = np.multiply(_lines(x), _line(scale, x), out=_lines(out))
    lines += _line(shift, x)
    return out


def add_channels(x, shift) -> None:
    """x += shift, per channel."""
    lines = _lines(x)
    lines += _line(shift, x)


def take_off(dy, x, scale, shift, out: np.ndarray) -> None:
    """out = dy - (scale * x + shift), per channel; out need not be contiguous."""
    np.subtract(dy, scale_shift(x, scale, shift, scratch("taken off", x.shape, x.dtype)), out=out)


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
