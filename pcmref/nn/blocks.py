"""A layer and a block of layers, each forward with its backward directly below (He et al., CVPR 2016).

`state` is a dict of arrays by torchvision's names. The topology stands here and in `resnet.py`, once: `pcmref.fast` replaces
`layer` and `layer_backward` by faster ones and runs the same text.
"""

from functools import partial
from math import prod
from typing import NamedTuple

import numpy as np

from pcmref.nn import functional as F


class Saved(NamedTuple):
    """What a layer's backward needs of its forward in training."""

    x: np.ndarray
    z: np.ndarray  # the convolution's output
    mean: np.ndarray
    var: np.ndarray  # biased
    count: int  # values a channel that mean and var are of
    y: np.ndarray


def layer(x, state, conv, bn, stride=1, plus=None, relu=True, train=False, eps=F.BN_EPS, product=F.matrix_product):
    """y = relu(batch_norm(conv2d(x)) + plus), `plus` and relu where asked for: (y, saved).

    x [N, H, W, C] -> y [N, ceil(H/stride), ceil(W/stride), O]: padded by half the kernel, which is odd. In training batch
    norm takes the batch's own statistics, and `saved` is for `layer_backward`; else the running ones of the state, and
    `saved` is None.
    """
    w, weight, bias = state[f"{conv}.weight"], state[f"{bn}.weight"], state[f"{bn}.bias"]
    z = F.conv2d(x, w, stride, w.shape[2] // 2, product)
    if train:
        y, mean, var = F.batch_norm_train(z, weight, bias, eps)
    else:
        y = F.batch_norm(z, weight, bias, state[f"{bn}.running_mean"], state[f"{bn}.running_var"], eps)
    y = y if plus is None else y + plus
    y = F.relu(y) if relu else y
    return y, (Saved(x, z, mean, var, F.count_values(z.shape), y) if train else None)


def layer_backward(dy, state, conv, bn, saved, stride=1, dx_plus=None, relu=True, eps=F.BN_EPS):
    """(dx + dx_plus, the gradient of layer's plus, {name: gradient} of the layer's parameters).

    dx_plus is what reaches x by another way, as the shortcut's gradient does where a block begins.
    """
    w = state[f"{conv}.weight"]
    d = F.relu_backward(dy, saved.y) if relu else dy
    dz, dweight, dbias = F.batch_norm_train_backward(d, saved.z, state[f"{bn}.weight"], saved.mean, saved.var, eps)
    dx, dw = F.conv2d_backward(dz, saved.x, w, stride, w.shape[2] // 2)
    return dx if dx_plus is None else dx + dx_plus, d, {f"{conv}.weight": dw, f"{bn}.weight": dweight, f"{bn}.bias": dbias}


def residual_block(x, state, strides, layer=layer):
    """y = relu(batch_norm(conv2d(... x ...)) + shortcut(x)), a layer for each of `strides`, two or more: (y, what they saved).

    state holds the block's own names, "conv1.weight" and so on. The shortcut is a 1x1 convolution with batch norm where the
    state has one ("downsample.0.weight"), else x itself, without weights (`F.pad_shortcut`). The default `layer` evaluates.
    """
    tape, last, stride = {}, len(strides), prod(strides)
    if "downsample.0.weight" in state:
        shortcut, tape["downsample.1"] = layer(x, state, "downsample.0", "downsample.1", stride, relu=False)
    else:
        channels = len(state[f"bn{last}.weight"])
        shortcut = F.pad_shortcut(x, channels, stride)  # x itself where nothing changes
    y = x
    for i, layer_stride in enumerate(strides, 1):
        y, tape[f"bn{i}"] = layer(y, state, f"conv{i}", f"bn{i}", layer_stride, plus=shortcut if i == last else None)
    return y, tape


def residual_block_backward(dy, state, strides, tape, layer_backward=layer_backward):
    """(dx, {name: gradient}) of residual_block in training."""
    last, stride = len(strides), prod(strides)
    dy, dshortcut, grads = layer_backward(dy, state, f"conv{last}", f"bn{last}", tape[f"bn{last}"], strides[-1])
    if "downsample.0.weight" in state:
        saved = tape["downsample.1"]
        dshortcut, _, more = layer_backward(dshortcut, state, "downsample.0", "downsample.1", saved, stride, relu=False)
        grads |= more
    else:
        dshortcut = F.pad_shortcut_backward(dshortcut, tape["bn1"].x.shape, stride)
    for i in range(last - 1, 0, -1):
        dx_plus = dshortcut if i == 1 else None  # both ways to x end here
        dy, _, more = layer_backward(dy, state, f"conv{i}", f"bn{i}", tape[f"bn{i}"], strides[i - 1], dx_plus)
        grads |= more
    return dy, grads


def basic_block(x, state, stride: int = 1, train: bool = False, eps: float = F.BN_EPS):
    """relu(bn2(conv2(relu(bn1(conv1 x)))) + shortcut(x)): (y, tape) (He et al. 2016, figure 2)."""
    return residual_block(x, state, (stride, 1), partial(layer, train=train, eps=eps))


def basic_block_backward(dy, state, tape, stride: int = 1, eps: float = F.BN_EPS):
    """(dx, {name: gradient}) of basic_block in training."""
    return residual_block_backward(dy, state, (stride, 1), tape, partial(layer_backward, eps=eps))
