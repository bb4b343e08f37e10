"""Mistakes of the network and of its kernels; each docstring says the effect, then whom it hits."""

from collections.abc import Callable

import numpy as np

from pcmref.golden.mistakes import changed, cut, mistake, without
from pcmref.nn import blocks
from pcmref.nn import functional as F

SHOWN = "global_avg_pool max_pool2d max_pool2d_backward conv2d conv2d_backward"
IMAGES = f"{SHOWN} global_avg_pool_backward"
BATCHES = f"{IMAGES} linear linear_backward softmax_cross_entropy softmax_cross_entropy_backward"
NORMS = "batch_norm batch_norm_backward batch_norm_train batch_norm_train_backward"
OF_LAYERS = "basic_block basic_block_backward resnet resnet_backward adabs"
DEVICES = "program drift_exponent drift read"
SUMS = "conv2d conv2d_backward linear linear_backward"


@mistake("indexing", f"{SHOWN} {OF_LAYERS}")
def layout_confused(own, **a):
    """reads channels-first data as channels-last: numbers of the right size in the wrong places
    Hits: ports from frameworks whose images are [N, C, H, W]"""
    images = {k: v for k, v in a.items() if k in ("x", "dy", "x_calibration") and v.ndim == 4}
    return own(**{k: v.transpose(0, 3, 1, 2).reshape(v.shape) for k, v in images.items()})


@mistake("indexing", "conv2d conv2d_backward")
def kernel_flipped(own, w, **_):
    """flips the kernel: a true convolution instead of a cross-correlation
    Hits: code from signal processing; symmetric test kernels hide it"""
    return own(w=w[:, :, ::-1, ::-1])


@mistake("indexing", "conv2d conv2d_backward")
def kernel_transposed(own, w, **_):
    """takes the kernel's rows for its columns
    Hits: code that lays kernels out by columns; kernels of one number hide it"""
    return own(w=w.reshape(*w.shape[:2], *w.shape[:1:-1]).swapaxes(2, 3))


@mistake("indexing", "conv2d max_pool2d")
def stride_offset(own, x, stride, **_):
    """starts windows at the wrong pixel where the stride is above 1
    Hits: kernels written for stride 1 and extended"""
    return own(x=np.roll(x, -1, (1, 2)) if stride > 1 else x)


@mistake("indexing", "conv2d conv2d_backward")
def channels_mixed(own, w, **_):
    """walks the channels of the weights in the wrong order
    Hits: blocked and vectorised kernels, 1x1 convolutions taken for a plain product"""
    return own(w=w[:, ::-1])


@mistake("indexing", "conv2d conv2d_backward")
def border_not_zero(own, x, padding, **_):
    """repeats the edge where the border is 0
    Hits: image-processing libraries, whose default border is not zero"""
    inner, wide = np.s_[:, padding : x.shape[1] + padding, padding : x.shape[2] + padding], ((padding, padding),) * 2
    out = own(x=np.pad(x, ((0, 0), *wide, (0, 0)), mode="edge"), padding=0)
    return out | ({"dx": out["dx"][inner]} if "dx" in out else {})


@mistake("indexing", BATCHES)
def image_of_batch(own, **a):
    """takes the first image of the batch for each
    Hits: code tested with one image"""
    name = next(k for k in ("dy", "x", "logits") if k in a)
    return own(**{name: np.repeat(a[name][:1], len(a[name]), 0)})


@mistake("rounding", SUMS)
def sums_in_half(own, **a):
    """computes in 16 bits
    Hits: accelerators and fast-math builds"""
    half = changed(a, lambda v: v.astype(np.float16))
    return changed(own(**half), lambda v: v.astype(next(iter(a.values())).dtype))


@mistake("constants", NORMS)
def epsilon_missing(own, eps, **_):
    """leaves eps out
    Hits: folded batch norms; variances near 1 hide it"""
    return own(eps=eps * 1e-20)


@mistake("constants", "batch_norm batch_norm_backward")
def epsilon_outside_the_root(own, var, eps, **_):
    """adds eps to the deviation, not to the variance
    Hits: batch norms written from memory; variances near 1 hide it"""
    return own(var=(np.sqrt(var) + var.dtype.type(eps)) ** 2 - var.dtype.type(eps))


@mistake("constants", NORMS)
def epsilon_hard_coded(own, **_):
    """takes 1e-5 for eps
    Hits: kernels without a parameter for it"""
    return own(eps=1e-5)


@mistake("rounding", "batch_norm_train")
def one_pass_variance(own, x, weight, bias, eps, **_):
    """computes mean(x^2) - mean(x)^2: no digits are left where the mean is large
    Hits: fused statistics kernels"""
    mean, square = (v.sum((0, 1, 2)) / x[..., 0].size for v in (x, x * x))
    var = np.maximum(square - mean * mean, 0)
    return own() | {"y": (weight * (x - mean) / np.sqrt(var + eps) + bias).astype(x.dtype)}


@mistake("convention", "batch_norm_train")
def unbiased_variance(own, x, bias, eps, **_):
    """normalises with the variance over N - 1
    Hits: reimplementations of PyTorch's batch norm; large batches hide it"""
    out, n, var = own(), x[..., 0].size, x.var((0, 1, 2), dtype=np.float64)
    return out | {"y": ((out["y"] - bias) * np.sqrt((var + eps) / (var * n / (n - 1) + eps)) + bias).astype(x.dtype)}


@mistake("convention", "batch_norm_train")
def biased_running_variance(own, x, running_var, momentum, **_):
    """keeps the variance over N in the running statistics
    Hits: reimplementations of PyTorch's batch norm; large batches hide it"""
    out, n, old = own(), x[..., 0].size, (1 - momentum) * running_var
    return out | {"running_var": (old + (out["running_var"] - old) * (n - 1) / n).astype(x.dtype)}


@mistake("convention", "batch_norm_train")
def momentum_flipped(own, momentum, **_):
    """running = momentum*old + (1 - momentum)*new
    Hits: ports from TensorFlow and Keras, where momentum is the share of the old"""
    return own(momentum=1 - momentum)


@mistake("calculus", "batch_norm_train_backward")
def statistics_held_constant(own, dy, x, weight, eps, **_):
    """leaves out the way of the gradient through mean and variance
    Hits: hand-written backward passes"""
    return own() | {"dx": F.batch_norm_backward(dy, x, weight, *F.batch_statistics(x), eps)[0]}


@mistake("convention", "batch_norm")
def batch_for_running_statistics(own, x, **_):
    """normalises with the batch's own statistics in evaluation
    Hits: frameworks with a mode switch that is easily forgotten"""
    return own(mean=x.mean((0, 1, 2)), var=x.var((0, 1, 2)))


@mistake("convention", "basic_block")
def train_for_eval(own, train, **_):
    """evaluates where it should train, or trains where it should evaluate
    Hits: frameworks with a mode switch that is easily forgotten"""
    return own(train=not train)


@mistake("calculus", "relu")
def leaky(own, x, **_):
    """gives a hundredth of what is negative
    Hits: kernels shared with other activations"""
    return {"y": np.where(x > 0, x, x * x.dtype.type(0.01))}


@mistake("calculus", "relu")
def cut_at_six(own, **_):
    """is cut at 6
    Hits: kernels shared with other activations, code for small devices"""
    return {"y": np.minimum(own()["y"], 6)}


@mistake("calculus", "relu_backward")
def passes_everything(own, dy, **_):
    """lets a gradient through where the input was negative
    Hits: kernels shared with other activations"""
    return {"dx": dy.copy()}


@mistake("indexing", "linear resnet")
def bias_forgotten(own, **a):
    """forgets the bias of the last layer
    Hits: products with a fused bias"""
    return own(b=0 * a["b"]) if "b" in a else own(state=a["state"] | {"fc.bias": 0 * a["state"]["fc.bias"]})


@mistake("convention", "linear_backward")
def bias_gradient_averaged(own, dy, **_):
    """averages the bias's gradient over the batch
    Hits: losses that are summed elsewhere"""
    out = own()
    return out | {"db": out["db"] / len(dy)}


@mistake("convention", "linear_backward basic_block_backward resnet_backward")
def averaged_twice(own, **a):
    """divides a gradient by the images of the batch, as the loss has done already
    Hits: training loops with a loss of another framework"""
    name = "dy" if "dy" in a else "dlogits"
    return own(**{name: a[name] / a[name].dtype.type(len(a[name]))})


@mistake("convention", "global_avg_pool global_avg_pool_backward softmax_cross_entropy softmax_cross_entropy_backward")
def sum_for_mean(own, **a):
    """gives a sum where a mean is wanted
    Hits: pooling and loss kernels with a reduction option"""
    n = a["x"][0, :, :, 0].size if "x" in a else len(a["labels"])
    return changed(own(), lambda v: v * v.dtype.type(n))


@mistake("indexing", "max_pool2d max_pool2d_backward")
def border_wins(own, x, padding, **_):
    """lets a border of zeros beat negative values
    Hits: max-pools behind a padding layer"""
    inner, wide = np.s_[:, padding : x.shape[1] + padding, padding : x.shape[2] + padding], ((padding, padding),) * 2
    out = own(x=np.pad(x, ((0, 0), *wide, (0, 0))), padding=0)
    return {k: v[inner] if k == "dx" else v for k, v in out.items()}


@mistake("calculus", "max_pool2d_backward")
def gradient_misrouted(own, x, **_):
    """hands a window's gradient to the last pixel instead of the largest
    Hits: scatter kernels that lost their indices"""
    return own(x=np.arange(x.size, dtype=x.dtype).reshape(x.shape))


@mistake("range", "softmax_cross_entropy softmax_cross_entropy_backward")
def exponential_overflows(own, logits, **_):
    """takes exponentials without subtracting the largest logit: infinity or NaN where one is above 88
    Hits: softmax written from the formula"""
    return changed(own(), lambda v: v * np.nan) if logits.max() > 88.7 else own()


@mistake("convention", "softmax_cross_entropy softmax_cross_entropy_backward")
def smoothing_on_the_others(own, logits, smoothing, **_):
    """spreads the smoothing over the other classes only
    Hits: label smoothing by another paper's formula"""
    return own(smoothing=smoothing * logits.shape[1] / (logits.shape[1] - 1))


@mistake("topology", "basic_block resnet")
def shortcut_without_batch_norm(own, state, eps, **_):
    """leaves the shortcut's batch norm out
    Hits: hand-assembled residual blocks, graph fusions"""
    found = [name.removesuffix("weight") for name in state if name.endswith("downsample.1.weight")]
    scales = {f"{bn}weight": np.sqrt(state[f"{bn}running_var"] + state[f"{bn}running_var"].dtype.type(eps)) for bn in found}
    return own(state=state | scales | {f"{bn}bias": state[f"{bn}running_mean"] for bn in found})


def _block(x, state, stride, train, eps, joined: Callable) -> dict:
    """A block in which `joined(z, shortcut)` is what the last layer's relu and shortcut make of its batch norm z."""

    def layer(*arguments, plus=None, relu=True):
        y, saved = blocks.layer(*arguments, relu=relu and plus is None, train=train, eps=eps)
        return (y if plus is None else joined(y, plus)), saved

    return {"y": blocks.residual_block(x, state, (stride, 1), layer)[0]}


@mistake("topology", "basic_block")
def shortcut_after_the_relu(own, x, state, stride, train, eps):
    """adds the shortcut behind the last relu
    Hits: hand-assembled residual blocks, graph fusions"""
    return _block(x, state, stride, train, eps, lambda z, shortcut: F.relu(z) + shortcut)


@mistake("topology", "basic_block")
def pad_shortcut_misplaced(own, x, state, stride, train, eps):
    """puts the zero channels of a shortcut without weights behind its own
    Hits: ports of ResNets for CIFAR (option A)"""
    front = 0 if "downsample.0.weight" in state else (len(state["conv1.weight"]) - x.shape[3]) // 2
    return _block(x, state, stride, train, eps, lambda z, shortcut: F.relu(z + np.roll(shortcut, -front, -1)))


@mistake("statistics", "adabs")
def batches_weighted_alike(own, x_calibration, batch_size, **_):
    """averages calibration batches without their numbers of images
    Hits: cumulative averages by PyTorch's momentum=None"""
    parts = [own(x_calibration=x_calibration[i : i + batch_size]) for i in range(0, len(x_calibration), batch_size)]
    return {name: np.mean([part[name] for part in parts], 0, dtype=parts[0][name].dtype) for name in parts[0]}


# ---------------------------------------------------------------------------------- all bits of a dtype, all sizes, its range


@mistake("rounding", f"{SUMS} {NORMS} {OF_LAYERS} {DEVICES} map gdc crossbar_mvm inject_weight_noise sgd_step")
def inputs_cut(own, **a):
    """cuts inputs to 10 bits of mantissa before multiplying (TF32)
    Hits: GPUs and matrix units, whose fast modes may be the default; inputs of few bits hide it"""
    return own(**changed(a, cut(10)))


@mistake("indexing", f"{IMAGES} {NORMS} {DEVICES} relu relu_backward linear linear_backward")
def tail_of_a_vector(own, **_):
    """loses what is left over where 8 does not divide the channels, outputs or devices, above 16
    Hits: vectorised and blocked kernels; small cases never fill a vector"""
    return changed(own(), lambda v: without(v.ndim - 1, lambda n: n // 8 * 8 if n > 16 else n)(v))


@mistake("indexing", f"{IMAGES} {NORMS} linear linear_backward softmax_cross_entropy_backward")
def four_images_at_most(own, **_):
    """is wrong beyond four images or rows, where another block or thread begins
    Hits: kernels that share work out by batch"""
    return changed(own(), without(0, 4), ("y", "dx", "dlogits"))


@mistake("indexing", "conv2d conv2d_backward max_pool2d max_pool2d_backward global_avg_pool_backward")
def eight_rows_at_most(own, **_):
    """is wrong for pixels beyond the eighth row, where another tile begins
    Hits: kernels that tile the image, transforms"""
    return changed(own(), lambda v: without(1, 8)(v) if v.ndim == 4 else v, ("y", "dx"))


@mistake("constants", "softmax_cross_entropy softmax_cross_entropy_backward")
def ten_classes(own, labels, **_):
    """is wrong above ten classes
    Hits: code written for MNIST and CIFAR-10"""
    return own(labels=np.minimum(labels, 9))


@mistake("range", "conv2d relu linear global_avg_pool max_pool2d")
def small_numbers_lost(own, **_):
    """flushes numbers below 1e-30 to 0
    Hits: fast-math, GPUs, squares and exponentials taken too early"""
    return changed(own(), lambda v: np.where(np.abs(v) < 1e-30, v.dtype.type(0), v))
