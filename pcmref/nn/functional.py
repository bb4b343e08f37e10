"""The network's operations, each forward with its hand-written backward directly below.

Activations are channels-last, x [N, H, W, C]; convolution weights are OIHW as in PyTorch. Every function computes in the
dtype it is given (float32 for speed, float64 for truth, longdouble works) and changes none of its arguments unless
`out=` says so. A backward takes dy, the gradient of a scalar loss with respect to the forward's output, and returns the
gradients with respect to the forward's inputs: each is the adjoint of the forward's derivative, <J v, dy> = <v, J' dy>.
"""

from typing import NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from pcmref.blocks import scratch
from pcmref.errors import ShapeError, whole_number
from pcmref.nn.gather import columns, kernel_rows, padded

BN_EPS = 1e-5  # batch normalisation's epsilon: Ioffe & Szegedy 2015, algorithm 1; the value is PyTorch's default


# ---------------------------------------------------------------------------------------------------- convolution


def conv2d_shape(x_shape, w_shape, stride: int = 1, padding: int = 0) -> tuple[int, int, int, int]:
    """The shape of conv2d's output, H_out = (H + 2*padding - kH)//stride + 1; ShapeError where there is none."""
    if len(x_shape) != 4 or len(w_shape) != 4:
        raise ShapeError(f"conv2d needs x [N, H, W, C] and w [O, C, kH, kW]; got x {x_shape} and w {w_shape}")
    (n, h, width, c_x), (o, c, k_h, k_w) = x_shape, w_shape
    if c_x != c:
        nchw = "; x looks like NCHW: x.transpose(0, 2, 3, 1) makes it channels-last" if h == c else ""
        raise ShapeError(f"conv2d: x {x_shape} has {c_x} channels (last axis), w {w_shape} wants {c}{nchw}")
    stride, padding = whole_number("conv2d: stride", stride, 1), whole_number("conv2d: padding", padding, 0)
    if min(h + 2 * padding - k_h, width + 2 * padding - k_w) < 0 or 0 in w_shape:
        raise ShapeError(f"conv2d: kernel {(k_h, k_w)} is larger than the padded image {(h, width)} + 2*{padding}")
    return n, (h + 2 * padding - k_h) // stride + 1, (width + 2 * padding - k_w) // stride + 1, o


def conv2d(x: np.ndarray, w: np.ndarray, stride: int = 1, padding: int = 0, out=None) -> np.ndarray:
    """y[n,p,q,o] = sum_{i,j,c} x[n, p*stride+i-padding, q*stride+j-padding, c] * w[o,c,i,j] (cross-correlation).

    x [N, H, W, C], w [O, C, kH, kW] -> y [N, H_out, W_out, O]. The sum over j and c is one matrix product per kernel
    row i; the products of the rows add up. A w that is no array computes by itself (`w.convolve`). Raises ShapeError.
    """
    shape = conv2d_shape(x.shape, w.shape, stride, padding)
    if not isinstance(w, np.ndarray):
        return w.convolve(x, stride, padding, np.empty(shape, x.dtype) if out is None else out)
    o, c, k_h, k_w = w.shape
    x = padded(x, (padding, padding), (padding, padding))
    w_rows = w.transpose(2, 3, 1, 0).reshape(k_h, k_w * c, o)
    cols = columns(x, k_w, stride)  # [N, H, W_out, kW*C]
    y = np.empty(shape, np.result_type(x, w)) if out is None else _check_out(out)
    y_flat = y.reshape(shape[0], -1, o)  # [N, H_out*W_out, O]
    for i, (rows, w_row) in enumerate(zip(kernel_rows(cols, k_h, stride), w_rows, strict=True)):
        if i == 0:
            np.matmul(rows, w_row, out=y_flat)
        else:
            y_flat += np.matmul(rows, w_row, out=scratch("product", y_flat.shape, y.dtype))
    return y


def conv2d_input_grad(dy, w, x_shape, stride: int = 1, padding: int = 0, out=None) -> np.ndarray:
    """dx = the convolution of dy, spread out by the stride, with the kernel turned by 180 degrees.

    dy [N, H_out, W_out, O], w [O, C, kH, kW] -> dx [N, H, W, C].
    """
    n, h, width, _ = x_shape
    k_h, k_w = w.shape[2:]
    if dy.shape != conv2d_shape(x_shape, w.shape, stride, padding):
        raise ShapeError(f"dy {dy.shape} is not the shape of conv2d's output for x {tuple(x_shape)}, w {w.shape}")
    if stride > 1:
        spread = np.zeros((n, (dy.shape[1] - 1) * stride + 1, (dy.shape[2] - 1) * stride + 1, dy.shape[3]), dy.dtype)
        spread[:, ::stride, ::stride] = dy
        dy = spread
    top, left = k_h - 1 - padding, k_w - 1 - padding
    dy = padded(dy, (top, h + k_h - 1 - top - dy.shape[1]), (left, width + k_w - 1 - left - dy.shape[2]))
    return conv2d(dy, w[:, :, ::-1, ::-1].transpose(1, 0, 2, 3), out=out)


def conv2d_weight_grad(dy, x, w_shape, stride: int = 1, padding: int = 0) -> np.ndarray:
    """dw[o,c,i,j] = sum_{n,p,q} dy[n,p,q,o] * x[n, p*stride+i-padding, q*stride+j-padding, c], as [O, C, kH, kW]."""
    o, c, k_h, k_w = w_shape
    cols = columns(padded(x, (padding, padding), (padding, padding)), k_w, stride)
    dy = dy.reshape(dy.shape[0], -1, o)  # [N, H_out*W_out, O]
    dw = [(rows.transpose(0, 2, 1) @ dy).sum(0) for rows in kernel_rows(cols, k_h, stride)]  # kH times [kW*C, O]
    return np.stack(dw).reshape(k_h, k_w, c, o).transpose(3, 2, 0, 1)


def conv2d_backward(dy, x, w, stride: int = 1, padding: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """(dx, dw) of conv2d: shapes of x and w."""
    return conv2d_input_grad(dy, w, x.shape, stride, padding), conv2d_weight_grad(dy, x, w.shape, stride, padding)


# --------------------------------------------------------------------------------------------- batch normalisation


class Moments(NamedTuple):
    """Count, mean and sum of squared deviations of each channel: what blocks of a batch hand in to be merged."""

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


def _check_out(out) -> np.ndarray:
    """out itself; ShapeError where its memory is not in C order (what is written to a reshaped copy would be lost)."""
    if not out.flags.c_contiguous:
        raise ShapeError("out= must be a C-contiguous array")
    return out


def _out_lines(out, x):
    """Where to write: the lines of `out`, or of a new array like x."""
    return _lines(np.empty_like(x, order="C") if out is None else _check_out(out))


def batch_norm(x, weight, bias, mean, var, eps: float = BN_EPS, out=None) -> np.ndarray:
    """y = weight * (x - mean) / sqrt(var + eps) + bias with given statistics (evaluation), as one scale and one shift.

    x [N, H, W, C], the others [C] -> y [N, H, W, C]; out=x works in place.
    """
    scale = weight / np.sqrt(var + eps)
    return scale_shift(x, scale, bias - mean * scale, out)


def batch_norm_backward(dy, x, weight, mean, var, eps: float = BN_EPS):
    """(dx, dweight, dbias) of batch_norm, the statistics being constants."""
    inv_std = 1 / np.sqrt(var + eps)
    x_hat = scale_shift(x, inv_std, -mean * inv_std)
    dx = _lines(dy) * _line(weight * inv_std, dy)
    return dx.reshape(dy.shape), channel_dot(dy, x_hat).astype(dy.dtype), channel_sum(dy).astype(dy.dtype)


def scale_shift(x, scale, shift, out=None) -> np.ndarray:
    """y = scale * x + shift, per channel."""
    y = np.multiply(_lines(x), _line(scale, x), out=_out_lines(out, x))
    y += _line(shift, x)
    return y.reshape(x.shape)


def normalize(x, moments: Moments, eps: float = BN_EPS, out=None) -> np.ndarray:
    """x_hat = (x - mean) / sqrt(var + eps) with the biased variance of the batch, var = m2/n (Ioffe & Szegedy 2015)."""
    y = np.subtract(_lines(x), _line(moments.mean, x), out=_out_lines(out, x))
    y *= _line(1 / np.sqrt(moments.m2 / moments.n + eps), x)
    return y.reshape(x.shape)


def normalize_backward(dy, x_hat, weight, moments: Moments, sum_dy, sum_dy_x_hat, eps: float = BN_EPS, out=None):
    """dx = weight/sqrt(var + eps) * (dy - mean(dy) - x_hat * mean(dy*x_hat)): the statistics depend on x too.

    The sums run over the whole batch, dy and x_hat may be a block of it (Ioffe & Szegedy 2015, section 3).
    """
    dx = np.multiply(_lines(x_hat), _line(sum_dy_x_hat / moments.n, dy), out=_out_lines(out, dy))
    dx += _line(sum_dy / moments.n, dy)
    np.subtract(_lines(dy), dx, out=dx)
    dx *= _line(weight / np.sqrt(moments.m2 / moments.n + eps), dy)
    return dx.reshape(dy.shape)


def batch_norm_train(x, weight, bias, eps: float = BN_EPS):
    """y = weight * x_hat + bias with the batch's own statistics: (y, x_hat, moments).

    x [N, H, W, C], weight and bias [C]. N*H*W = 1 leaves no variance: ShapeError.
    """
    moments = channel_moments(x)
    check_batch(moments)
    x_hat = normalize(x, moments, eps)
    return scale_shift(x_hat, weight, bias), x_hat, moments


def batch_norm_train_backward(dy, x_hat, weight, moments: Moments, eps: float = BN_EPS):
    """(dx, dweight, dbias) of batch_norm_train."""
    dbias, dweight = channel_sum(dy), channel_dot(dy, x_hat)
    dx = normalize_backward(dy, x_hat, weight, moments, dbias, dweight, eps)
    return dx, dweight.astype(dy.dtype), dbias.astype(dy.dtype)


def check_batch(moments: Moments) -> None:
    """Raise ShapeError where one value per channel leaves no variance to estimate."""
    if moments.n < 2:
        raise ShapeError("batch norm in training needs more than one value per channel; use a batch of 2 or more images")


# ----------------------------------------------------------------------------------------------- the small operations


def relu(x, out=None) -> np.ndarray:
    """y = max(x, 0), elementwise."""
    return np.maximum(x, np.zeros(x.shape[1:], x.dtype), out=out)  # NumPy takes a scalar 0 four times slower


def relu_backward(dy, y, out=None) -> np.ndarray:
    """dx = dy where the output y was positive, else 0 (the subgradient at 0 is 0, as in PyTorch)."""
    return np.multiply(dy, np.greater(y, 0, out=scratch("mask", y.shape, bool)), out=out)


def linear(x, w, b) -> np.ndarray:
    """y = x w' + b: x [N, C], w [O, C], b [O] -> y [N, O]; a w that is no array computes x w' by itself (`w.multiply`)."""
    return (x @ w.T if isinstance(w, np.ndarray) else w.multiply(x)) + b


def linear_backward(dy, x, w):
    """(dx, dw, db) of linear."""
    return dy @ w, dy.T @ x, dy.sum(0)


def global_avg_pool(x) -> np.ndarray:
    """y[n,c] = mean over height and width: [N, H, W, C] -> [N, C]."""
    return x.mean((1, 2), dtype=x.dtype)


def global_avg_pool_backward(dy, x_shape) -> np.ndarray:
    """dx: each of the H*W pixels gets dy/(H*W)."""
    n, h, w, c = x_shape
    return np.broadcast_to((dy / (h * w)).reshape(n, 1, 1, c), x_shape).copy()


def _pool_windows(x, kernel, stride, padding) -> np.ndarray:
    """The values under each pooling window: [N, H, W, C] -> [N, H_out, W_out, C, kernel*kernel]; the border is -inf."""
    x = padded(x, (padding, padding), (padding, padding), -np.inf)
    windows = sliding_window_view(x, (kernel, kernel), axis=(1, 2))[:, ::stride, ::stride]
    return windows.reshape(*windows.shape[:4], -1)


def max_pool2d(x, kernel: int, stride: int, padding: int = 0) -> np.ndarray:
    """The largest value under each window: [N, H, W, C] -> [N, H_out, W_out, C]; the border never wins."""
    kernel, stride = whole_number("max_pool2d: kernel", kernel, 1), whole_number("max_pool2d: stride", stride, 1)
    whole_number("max_pool2d: padding (at most half the kernel, or windows would be empty)", padding, 0, kernel // 2)
    if x.ndim != 4 or min(x.shape[1:3]) + 2 * padding < kernel or x.dtype.kind != "f":
        raise ShapeError(f"max_pool2d needs floating-point x [N, H, W, C] of at least {kernel} pixels, got {x.dtype} {x.shape}")
    return _pool_windows(x, kernel, stride, padding).max(-1)


def max_pool2d_backward(dy, x, kernel: int, stride: int, padding: int = 0) -> np.ndarray:
    """dx: each window's dy goes to its first largest value in row-major order (PyTorch's choice among equals)."""
    n, h, w, c = x.shape
    winner = _pool_windows(x, kernel, stride, padding).argmax(-1)  # [N, H_out, W_out, C]
    dx = np.zeros((n, h + 2 * padding, w + 2 * padding, c), dy.dtype)
    h_out, w_out = dy.shape[1:3]
    for tap in range(kernel * kernel):
        i, j = divmod(tap, kernel)
        reached = np.s_[:, i : i + (h_out - 1) * stride + 1 : stride, j : j + (w_out - 1) * stride + 1 : stride]
        dx[reached] += dy * (winner == tap)
    return dx[:, padding : padding + h, padding : padding + w]


def _softmax(logits) -> np.ndarray:
    e = np.exp(logits - logits.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def check_labels(labels, n: int, classes: int) -> np.ndarray:
    """labels as an array [n] of integers in 0..classes-1; ShapeError where they are anything else."""
    labels = np.asarray(labels)
    if labels.shape != (n,) or labels.dtype.kind not in "iu":
        raise ShapeError(f"labels must be {n} integers, one an image; got shape {labels.shape}, dtype {labels.dtype}")
    if n and (labels.min() < 0 or labels.max() >= classes):
        raise ShapeError(f"labels must lie in 0..{classes - 1}, got {labels.min()}..{labels.max()}")
    return labels


def _targets(logits, labels, smoothing) -> np.ndarray:
    """(1 - smoothing) on the label, smoothing spread evenly over all classes: [N, classes]."""
    labels = check_labels(labels, *logits.shape)
    t = np.full(logits.shape, smoothing / logits.shape[1], logits.dtype)
    t[np.arange(len(labels)), labels] += 1 - smoothing
    return t


def softmax_cross_entropy(logits, labels, smoothing: float = 0.0):
    """loss = mean_n of -sum_k t[n,k] * log softmax(logits)[n,k]: logits [N, classes], labels [N] integers -> scalar.

    t is one-hot for smoothing 0, else (1 - smoothing) on the label and smoothing/classes on every class (Szegedy 2016).
    """
    shifted = logits - logits.max(1, keepdims=True)
    log_p = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
    return -(_targets(logits, labels, smoothing) * log_p).sum() / len(labels)


def softmax_cross_entropy_backward(logits, labels, smoothing: float = 0.0) -> np.ndarray:
    """dlogits = (softmax(logits) - t) / N."""
    return (_softmax(logits) - _targets(logits, labels, smoothing)) / len(labels)
