"""The network's operations as equations, each forward with its hand-written backward directly below.

Activations are channels-last, x [N, H, W, C]; convolution weights are OIHW as in PyTorch. Every function works on whole
batches, in whatever numbers its arrays hold (float16 to longdouble; numbers of one's own, with `sqrt`, `exp` and `log` where
the equation has them), and changes none of its arguments. A batch without images has results where the equation has a value
for it, else ShapeError. A backward takes dy, the gradient of a scalar loss with respect to the forward's output, and returns
the gradients with respect to the forward's inputs: each is the adjoint of the forward's derivative, <J v, dy> = <v, J' dy>;
' is the transpose. `pcmref.fast` does the same work faster; what it must give is written here.
"""

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from pcmref.errors import ShapeError, whole_number
from pcmref.precision import computed_wide

BN_EPS = 1e-5  # batch normalisation's epsilon: Ioffe & Szegedy 2015, algorithm 1; the value is PyTorch's default


# ---------------------------------------------------------------------------------------------------- convolution


def windows(x, kernel: tuple[int, int], stride: int, padding: int, fill=0):
    """What lies under the kernel at each of its positions: x [N, H, W, C] -> [N, H_out, W_out, C, kH, kW].

    The kernel moves by `stride` over the image in a border of `padding` pixels that hold `fill`.
    """
    x = np.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)), constant_values=fill)
    return sliding_window_view(x, kernel, axis=(1, 2))[:, ::stride, ::stride]


@computed_wide
def windows_backward(dy, x_shape, stride: int, padding: int):
    """dx: each pixel adds up what the windows that hold it hand back, 0 where none does.

    dy [N, H_out, W_out, C, kH, kW] -> [N, H, W, C].
    """
    n, h, width, c = x_shape
    _, h_out, w_out, _, k_h, k_w = dy.shape
    dx = np.zeros_like(dy, shape=(n, h + 2 * padding, width + 2 * padding, c))
    for i, j in np.ndindex(k_h, k_w):
        dx[:, i : i + h_out * stride : stride, j : j + w_out * stride : stride] += dy[..., i, j]  # h_out by w_out pixels
    return dx[:, padding : padding + h, padding : padding + width]  # without the border


def matrix_product(x, w):
    """y = x w', a layer's product: x [M, K], w [O, ...] with K weights an output, both in the same order -> [M, O]."""
    return x @ w.reshape(len(w), -1).T


def conv2d_shape(x_shape, w_shape, stride: int = 1, padding: int = 0) -> tuple[int, int, int, int]:
    """The shape of conv2d's output, H_out = (H + 2*padding - kH)//stride + 1; ShapeError where there is none."""
    if len(x_shape) != 4 or len(w_shape) != 4:
        raise ShapeError(f"conv2d needs x [N, H, W, C] and w [O, C, kH, kW]; got x {x_shape} and w {w_shape}")
    (n, h, width, c_x), (o, c, k_h, k_w) = x_shape, w_shape
    if c_x != c:
        nchw = "; x looks like NCHW: x.transpose(0, 2, 3, 1) makes it channels-last" if h == c else ""
        raise ShapeError(f"conv2d: x {x_shape} has {c_x} channels (last axis), w {w_shape} wants {c}{nchw}")
    stride, padding = whole_number("conv2d: stride", stride, 1), whole_number("conv2d: padding", padding, 0)
    if 0 in w_shape:
        raise ShapeError(f"conv2d: w {w_shape} is empty")
    if min(h + 2 * padding - k_h, width + 2 * padding - k_w) < 0:
        raise ShapeError(f"conv2d: kernel {(k_h, k_w)} is larger than the padded image {(h, width)} + 2*{padding}")
    return n, (h + 2 * padding - k_h) // stride + 1, (width + 2 * padding - k_w) // stride + 1, o


def conv2d(x, w, stride: int = 1, padding: int = 0, product=matrix_product):
    """y[n,p,q,o] = sum_{c,i,j} x[n, p*stride+i-padding, q*stride+j-padding, c] * w[o,c,i,j] (cross-correlation).

    x is 0 outside the image.
    x [N, H, W, C], w [O, C, kH, kW] -> y [N, H_out, W_out, O]. `product(patches [M, C*kH*kW], w)` multiplies every patch
    with the weights: a matrix product, or what a crossbar makes of it. Raises ShapeError.
    """
    n, h_out, w_out, o = conv2d_shape(x.shape, w.shape, stride, padding)
    patches = windows(x, w.shape[2:], stride, padding)  # [N, H_out, W_out, C, kH, kW], the order of w's last three axes
    return product(patches.reshape(n * h_out * w_out, np.prod(w.shape[1:])), w).reshape(n, h_out, w_out, o)


@computed_wide
def conv2d_backward(dy, x, w, stride: int = 1, padding: int = 0):
    """(dx, dw): each product x*w in the forward's sum hands dy*w to its x and dy*x to its w.

    dw[o,c,i,j] = sum_{n,p,q} dy[n,p,q,o] * x[n,r,s,c] with r = p*stride+i-padding, s = q*stride+j-padding;
    dx[n,r,s,c] = sum_{p,q,o,i,j} dy[n,p,q,o] * w[o,c,i,j] over those p,q,i,j for which r,s are these.
    dy [N, H_out, W_out, O] -> dx [N, H, W, C], dw [O, C, kH, kW].
    """
    if dy.shape != conv2d_shape(x.shape, w.shape, stride, padding):
        raise ShapeError(f"dy {dy.shape} is not the shape of conv2d's output for x {x.shape}, w {w.shape}")
    patches = windows(x, w.shape[2:], stride, padding)  # [N, H_out, W_out, C, kH, kW]
    dw = np.tensordot(dy, patches, ((0, 1, 2), (0, 1, 2)))  # [O, C, kH, kW]
    dpatches = np.tensordot(dy, w, (3, 0))  # [N, H_out, W_out, C, kH, kW]
    return windows_backward(dpatches, x.shape, stride, padding), dw


# --------------------------------------------------------------------------------------------- batch normalisation

_PIXELS = (0, 1, 2)  # the axes that a channel's statistics run over: images, height, width


@computed_wide
def batch_norm(x, weight, bias, mean, var, eps: float = BN_EPS):
    """y = weight * (x - mean) / sqrt(var + eps) + bias with given statistics: evaluation (Ioffe & Szegedy 2015).

    x [N, H, W, C], the others [C] -> y [N, H, W, C]; weight and bias are the source's gamma and beta.
    """
    return weight * (x - mean) / np.sqrt(var + eps) + bias


@computed_wide
def batch_norm_backward(dy, x, weight, mean, var, eps: float = BN_EPS):
    """(dx, dweight, dbias) of batch_norm, the statistics being constants: dx = dy * weight / sqrt(var + eps).

    dy, x, dx [N, H, W, C], the others [C]. Training does not use it: there the statistics depend on x, see below.
    """
    std = np.sqrt(var + eps)
    return dy * weight / std, (dy * (x - mean) / std).sum(_PIXELS), dy.sum(_PIXELS)


def count_values(shape) -> int:
    """Values a channel of a batch [N, H, W, C] in training; ShapeError where there are too few for a variance."""
    n, h, width, _ = shape
    if n * h * width < 2:
        raise ShapeError("batch norm in training needs more than one value per channel; use a batch of 2 or more images")
    return n * h * width


@computed_wide
def batch_statistics(x):
    """(mean, biased variance) of each channel: x [N, H, W, C] -> [C], [C]; ShapeError where there is no variance."""
    count_values(x.shape)
    mean = x.mean(_PIXELS)
    return mean, np.square(x - mean).mean(_PIXELS)


@computed_wide
def batch_norm_train(x, weight, bias, eps: float = BN_EPS):
    """(y, mean, var): batch_norm with the batch's own statistics (Ioffe & Szegedy 2015, algorithm 1).

    x, y [N, H, W, C], the others [C].
    """
    mean, var = batch_statistics(x)
    return batch_norm(x, weight, bias, mean, var, eps), mean, var


@computed_wide
def batch_norm_train_backward(dy, x, weight, mean, var, eps: float = BN_EPS):
    """(dx, dweight, dbias) of batch_norm_train, whose statistics depend on x too (Ioffe & Szegedy 2015, section 3).

    dx = weight / sqrt(var + eps) * (dy - mean(dy) - x_hat * mean(dy * x_hat)), the means over all pixels of a channel: what
    reaches x through y, through the mean (dmean/dx = 1/count), and through var (dvar/dx = 2 (x - mean)/count).
    dy, x, dx [N, H, W, C], the others [C]; mean and var are batch_norm_train's, on which the loss depends through y alone.
    """
    count = count_values(x.shape)
    std = np.sqrt(var + eps)
    x_hat = (x - mean) / std
    dweight, dbias = (dy * x_hat).sum(_PIXELS), dy.sum(_PIXELS)
    mean_dy, mean_dy_x_hat = dbias / count, dweight / count
    return weight / std * (dy - mean_dy - x_hat * mean_dy_x_hat), dweight, dbias


@computed_wide
def running_statistics(running_mean, running_var, mean, var, count: int, momentum: float = 0.1):
    """(running_mean, running_var) after a batch: (1 - m)*old + m*new, the new variance unbiased (PyTorch's convention).

    mean and biased var [C] are of the batch, count is its number of values a channel.
    """
    unbiased = var * count / (count - 1)
    return (1 - momentum) * running_mean + momentum * mean, (1 - momentum) * running_var + momentum * unbiased


# ----------------------------------------------------------------------------------------------- the small operations


def relu(x):
    """y = max(x, 0), elementwise."""
    return np.maximum(x, 0)


def relu_backward(dy, y):
    """dx = dy where the output y was positive, else 0 (the subgradient at 0 is 0, as in PyTorch)."""
    return np.where(y > 0, dy, 0)


def linear(x, w, b, product=matrix_product):
    """y = x w' + b: x [N, C], w [O, C], b [O] -> y [N, O]; `product` as in conv2d."""
    return product(x, w) + b


@computed_wide
def linear_backward(dy, x, w):
    """(dx, dw, db) of linear: dx = dy w, dw = dy' x, db = sum_n dy."""
    return dy @ w, dy.T @ x, dy.sum(0)


def pad_shortcut(x, channels: int, stride: int = 1):
    """The shortcut without weights: every `stride`-th pixel, channels of zeros on both sides (He et al. 2016, option A).

    x [N, H, W, C] -> [N, ceil(H/stride), ceil(W/stride), channels]; with an odd number of zeros one more behind.
    """
    new = channels - x.shape[3]
    if not new and stride == 1:
        return x
    return np.pad(x[:, ::stride, ::stride], ((0, 0), (0, 0), (0, 0), (new // 2, new - new // 2)))


def pad_shortcut_backward(dy, x_shape, stride: int = 1):
    """dx: dy at the pixels and channels that went through, else 0."""
    before = (dy.shape[3] - x_shape[3]) // 2
    if dy.shape == x_shape:
        return dy
    dx = np.zeros_like(dy, shape=x_shape, order="C")
    dx[:, ::stride, ::stride] = dy[..., before : before + x_shape[3]]
    return dx


@computed_wide
def global_avg_pool(x):
    """y[n,c] = mean over height and width: [N, H, W, C] -> [N, C]."""
    return x.mean((1, 2))


@computed_wide
def global_avg_pool_backward(dy, x_shape):
    """dx: each of the H*W pixels gets dy/(H*W)."""
    _, h, w, _ = x_shape
    return (dy / (h * w))[:, None, None, :].repeat(h, 1).repeat(w, 2)


def max_pool2d(x, kernel: int, stride: int, padding: int = 0):
    """The largest value under each window: [N, H, W, C] -> [N, H_out, W_out, C]; the border never wins."""
    kernel, stride = whole_number("max_pool2d: kernel", kernel, 1), whole_number("max_pool2d: stride", stride, 1)
    whole_number("max_pool2d: padding (at most half the kernel, or windows would be empty)", padding, 0, kernel // 2)
    if x.ndim != 4 or min(x.shape[1:3]) + 2 * padding < kernel or x.dtype.kind not in "fOV":  # "OV": exact, or with a bound
        raise ShapeError(f"max_pool2d needs floating-point x [N, H, W, C] of at least {kernel} pixels, got {x.dtype} {x.shape}")
    return windows(x, (kernel, kernel), stride, padding, -np.inf).max((4, 5))


def max_pool2d_backward(dy, x, kernel: int, stride: int, padding: int = 0):
    """dx: each window's dy goes to its first largest value in row-major order, or to its last NaN (PyTorch's choices)."""
    nan = np.isnan(x) if x.dtype.kind == "f" else np.zeros(x.shape, bool)
    under, inside, nan = (
        windows(values, (kernel, kernel), stride, padding, fill).reshape(*dy.shape, kernel * kernel)
        for values, fill in ((x, -np.inf), (np.ones(x.shape, bool), False), (nan, False))
    )
    number = np.arange(kernel * kernel)
    # argmax finds the first; where that is the border, at 0, all pixels are -infinity, and the first of them comes later
    last_nan = nan.any(-1) * (number[-1] - nan[..., ::-1].argmax(-1))  # 0 where there is none
    winner = np.maximum.reduce([under.argmax(-1), inside.argmax(-1), last_nan])  # [N, H_out, W_out, C]
    chosen = (winner[..., None] == number).reshape(*dy.shape, kernel, kernel)
    return windows_backward(np.where(chosen, dy[..., None, None], 0), x.shape, stride, padding)


# ---------------------------------------------------------------------------------------------------------- the loss


def check_labels(labels, n: int, classes: int) -> np.ndarray:
    """labels as an array [n] of integers in 0..classes-1; ShapeError where they are anything else."""
    labels = np.asarray(labels)
    if labels.shape != (n,) or labels.dtype.kind not in "iu":
        raise ShapeError(f"labels must be {n} integers, one an image; got shape {labels.shape}, dtype {labels.dtype}")
    if n and (labels.min() < 0 or labels.max() >= classes):
        raise ShapeError(f"labels must lie in 0..{classes - 1}, got {labels.min()}..{labels.max()}")
    return labels


def _targets(logits, labels, smoothing):
    """(1 - smoothing) on the label, smoothing spread evenly over all classes: [N, classes]."""
    labels = check_labels(labels, *logits.shape)
    if not logits.size:
        raise ShapeError(f"the loss is a mean over images of a sum over classes, and logits {logits.shape} have none")
    t = np.full(logits.shape, smoothing / logits.shape[1], logits.dtype)
    t[np.arange(len(labels)), labels] += 1 - smoothing
    return t


@computed_wide
def softmax_cross_entropy(logits, labels, smoothing: float = 0.0):
    """loss = mean_n of -sum_k t[n,k] * log softmax(logits)[n,k]: logits [N, classes], labels [N] integers -> scalar.

    t is one-hot for smoothing 0, else (1 - smoothing) on the label and smoothing/classes on every class (Szegedy 2016).
    Without smoothing the other classes' logits add nothing here, whatever they are: one that is masked out has -inf.
    """
    t, shifted = _targets(logits, labels, smoothing), logits - logits.max(1, keepdims=True)
    minus_log_p = np.log(np.exp(shifted).sum(1, keepdims=True)) - shifted
    weighs = (np.arange(logits.shape[1]) == np.asarray(labels)[:, None]) | bool(smoothing)  # [N, classes]; 0 * inf is NaN
    return np.multiply(t, minus_log_p, out=np.zeros_like(minus_log_p), where=weighs).sum() / len(labels)


@computed_wide
def softmax_cross_entropy_backward(logits, labels, smoothing: float = 0.0):
    """dlogits = (softmax(logits) - t) / N."""
    t, e = _targets(logits, labels, smoothing), np.exp(logits - logits.max(1, keepdims=True))
    return (e / e.sum(1, keepdims=True) - t) / len(labels)
