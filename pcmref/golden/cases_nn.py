"""The network's cases: single layers and their backwards, blocks, small whole networks, AdaBS."""

import numpy as np

from pcmref.golden.case import Case, integers, narrow, normal, positive
from pcmref.nn.resnet import ResNet

EPS = 1e-5
SMALL = {"in_channels": 1, "num_classes": 4, "widths": [3, 4, 5], "blocks": [1, 1, 1], "stem": "small"}
ONE_BLOCK = SMALL | {"widths": [2], "blocks": [1]}
TWO_STAGES = SMALL | {"widths": [3, 4], "blocks": [1, 1]}
WIDE_STEM = {"in_channels": 3, "num_classes": 5, "widths": [2, 3], "blocks": [1, 1], "stem": "imagenet"}
PAD = SMALL | {"widths": [2, 3], "blocks": [1, 2], "shortcut": "pad"}
BOTTLENECK = SMALL | {"widths": [2, 3], "blocks": [1, 1], "block": "bottleneck"}

# name: (x, w, stride, padding, why, level)
_CONVOLUTIONS = {
    "3x3": ((2, 5, 6, 3), (4, 3, 3, 3), 1, 1, "the network's usual layer; height and width differ", 1),
    "stride2_odd": ((1, 7, 5, 2), (3, 2, 3, 3), 2, 1, "the stride leaves nothing over at the border", 1),
    "stride2_even": ((1, 6, 8, 2), (3, 2, 3, 3), 2, 1, "the stride leaves a row and a column over", 1),
    "1x1_stride2": ((2, 5, 5, 3), (2, 3, 1, 1), 2, 0, "the shortcut of a stage's first block", 1),
    "2x4": ((1, 4, 6, 2), (3, 2, 2, 4), 1, 0, "an even kernel that is not square: transposing it shows", 1),
    "stride3_pad2": ((1, 7, 8, 1), (2, 1, 3, 2), 3, 2, "more padding than the kernel reaches", 1),
    "one_pixel": ((1, 1, 1, 1), (1, 1, 3, 3), 1, 1, "all of the kernel but its centre lies on the border", 1),
    "7x7_stem": ((1, 11, 9, 3), (2, 3, 7, 7), 2, 3, "the ImageNet stem", 2),
    "k576": ((1, 3, 3, 64), (2, 64, 3, 3), 1, 1, "576 terms a sum, the longest of ResNet-32's order", 2),
}


def _convolutions():
    for name, (x_shape, w_shape, stride, padding, why, level) in _CONVOLUTIONS.items():
        inputs = {"x": normal(f"conv2d/{name}/x", *x_shape), "w": normal(f"conv2d/{name}/w", *w_shape, scale=0.5)}
        params = {"stride": stride, "padding": padding}
        yield Case("conv2d", name, why, inputs, {}, params, level)
        h, w = ((size + 2 * padding - k) // stride + 1 for size, k in zip(x_shape[1:3], w_shape[2:], strict=True))
        dy = normal(f"conv2d/{name}/dy", x_shape[0], h, w, w_shape[0])
        yield Case("conv2d_backward", name, why, {"dy": dy} | inputs, {}, params, level)
    x = normal("conv2d/cancelling/x", 1, 3, 3, 2, scale=8.0)
    w = np.concatenate([normal("conv2d/cancelling/w", 1, 1, 3, 3)] * 2, 1) * np.array([1, -1]).reshape(1, 2, 1, 1)
    x[..., 1] = x[..., 0] + normal("conv2d/cancelling/rest", 1, 3, 3, scale=2.0**-4)
    inputs = {"x": narrow(x), "w": w}
    yield Case("conv2d", "cancelling", "large terms cancel: the bound is on the terms", inputs, {}, {"stride": 1, "padding": 1})


def _batch_norms():
    shapes = {
        "plain": ((3, 4, 5, 2), 1.0, "three images, uneven sizes", 1),
        "two_values": ((2, 1, 1, 3), 1.0, "the smallest batch with a variance: N - 1 is half of N", 1),
        "small_variance": ((2, 3, 3, 2), 2.0**-9, "the variance is near eps: leaving eps out shows", 1),
        "large_mean": ((2, 4, 3, 2), 1.0, "mean 16 standard deviations away: one-pass variances lose digits", 1),
        "many": ((8, 7, 7, 3), 1.0, "392 values a channel", 2),
    }
    for name, (shape, spread, why, level) in shapes.items():
        c = shape[3:]
        offset = 16.0 if name == "large_mean" else 0.0
        x = narrow(normal(f"batch_norm/{name}/x", *shape, scale=spread) + offset)
        dy, weight = normal(f"batch_norm/{name}/dy", *shape), positive(f"batch_norm/{name}/weight", *c)
        bias, mean = normal(f"batch_norm/{name}/bias", *c), narrow(normal(f"batch_norm/{name}/mean", *c) + offset)
        var = narrow(positive(f"batch_norm/{name}/var", *c) * max(spread**2, 2.0**-13))
        affine, given, eps = {"weight": weight, "bias": bias}, {"mean": mean, "var": var}, {"eps": EPS}
        running = {"running_mean": mean, "running_var": var}
        train = eps | {"momentum": 0.1}
        yield Case("batch_norm", name, why, {"x": x} | affine | given, {}, eps, level)
        yield Case("batch_norm_backward", name, why, {"dy": dy, "x": x, "weight": weight} | given, {}, eps, level)
        yield Case("batch_norm_train", name, why, {"x": x} | affine | running, {}, train, level)
        yield Case("batch_norm_train_backward", name, why, {"dy": dy, "x": x, "weight": weight}, {}, eps, level)
    inputs = {"x": normal("batch_norm/no_variance/x", 2, 2, 2, 2), "weight": np.ones(2), "bias": np.zeros(2)}
    inputs |= {"mean": np.zeros(2), "var": np.array([0.0, 1.0])}
    yield Case("batch_norm", "no_variance", "a running variance of 0: only eps is left", inputs, {}, {"eps": EPS})


def _small_operations():
    x, dy = normal("relu/x", 2, 3, 5, 3), normal("relu/dy", 2, 3, 5, 3)
    x.flat[:4] = (0.0, -0.0, 2.0**-14, -(2.0**-14))
    why = "0, -0 and the smallest numbers among others; at 0 either one-sided derivative is right"
    yield Case("relu", "kink", why, {"x": x})
    yield Case("relu_backward", "kink", why, {"dy": dy, "x": x})
    for name, (n, c, o), level in (("plain", (3, 5, 4), 1), ("one_image", (1, 7, 1), 1), ("k512", (2, 512, 3), 2)):
        x, w, b = normal(f"linear/{name}/x", n, c), normal(f"linear/{name}/w", o, c), normal(f"linear/{name}/b", o)
        why = "the bias counts as a term" if level == 1 else "512 terms a sum, ResNet-34's last layer"
        yield Case("linear", name, why, {"x": x, "w": w, "b": b}, {}, {}, level)
        dy = normal(f"linear/{name}/dy", n, o)
        yield Case("linear_backward", name, why, {"dy": dy, "x": x, "w": w}, {}, {}, level)
    for name, shape in (("3x5", (2, 3, 5, 3)), ("7x7", (1, 7, 7, 2)), ("1x1", (2, 1, 1, 3))):
        x, dy = normal(f"pool/{name}/x", *shape), normal(f"pool/{name}/dy", shape[0], shape[3])
        yield Case("global_avg_pool", name, "H*W is no power of two, or 1", {"x": x})
        yield Case("global_avg_pool_backward", name, "H*W is no power of two, or 1", {"dy": dy, "x": x})
    yield from _max_pools()
    yield from _losses()


def _max_pools():
    pools = {
        "3x3_stride2": ((2, 7, 6, 2), 3, 2, 1, "all values negative: a border of zeros would win"),
        "2x2": ((1, 4, 6, 3), 2, 2, 0, "windows do not overlap"),
        "3x3_stride1": ((1, 4, 5, 2), 3, 1, 1, "windows overlap: gradients add up"),
    }
    for name, (shape, kernel, stride, padding, why) in pools.items():
        order = np.argsort(normal(f"max_pool/{name}/x", *shape).ravel(), kind="stable")
        x = narrow(-(1 + order.reshape(shape)) / 16)  # all different, all negative
        h, w = ((size + 2 * padding - kernel) // stride + 1 for size in shape[1:3])
        dy = integers(f"max_pool/{name}/dy", 15, shape[0], h, w, shape[3]) / 4.0 - 1.75  # sums of these are exact
        params = {"kernel": kernel, "stride": stride, "padding": padding}
        yield Case("max_pool2d", name, why, {"x": x}, {}, params)
        yield Case("max_pool2d_backward", name, why, {"dy": dy, "x": x}, {}, params)


def _losses():
    losses = {
        "plain": (normal("loss/plain", 3, 5), 0.0, "one-hot targets"),
        "smoothing": (normal("loss/smoothing", 4, 3), 0.1, "label smoothing over all classes, the label's own included"),
        "large": (normal("loss/large", 3, 4, scale=100.0), 0.0, "exponentials overflow unless the largest logit is subtracted"),
        "equal": (np.zeros((2, 10)), 0.0, "the loss is ln 10"),
    }
    for name, (logits, smoothing, why) in losses.items():
        inputs = {"logits": logits, "labels": integers(f"loss/{name}/labels", logits.shape[1], len(logits))}
        for op in ("softmax_cross_entropy", "softmax_cross_entropy_backward"):
            yield Case(op, name, why, inputs, {}, {"smoothing": smoothing})


def layer_state(name: str, conv: str, bn: str, shape: tuple[int, ...]) -> dict[str, np.ndarray]:
    """The arrays of a convolution with batch norm under torchvision's names."""
    o = shape[0]
    scale = (2 / (shape[1] * shape[2] * shape[3])) ** 0.5
    return {
        f"{conv}.weight": normal(f"{name}/{conv}", *shape, scale=scale),
        f"{bn}.weight": positive(f"{name}/{bn}/weight", o),
        f"{bn}.bias": normal(f"{name}/{bn}/bias", o, scale=0.25),
        f"{bn}.running_mean": normal(f"{name}/{bn}/mean", o, scale=0.25),
        f"{bn}.running_var": positive(f"{name}/{bn}/var", o),
    }


def network_state(name: str, network: dict) -> dict[str, np.ndarray]:
    """A narrow state for a network of the given description."""
    net, state = ResNet(**network), {}
    for conv, bn, shape in net.conv_bn_pairs():
        state |= layer_state(name, conv, bn, shape)
    classes, features = net.shapes()["fc.weight"]
    state["fc.weight"] = normal(f"{name}/fc.weight", classes, features, scale=features**-0.5)
    state["fc.bias"] = normal(f"{name}/fc.bias", classes, scale=0.25)
    return state


def _blocks():
    for name, (c_in, c_out, stride, why) in {
        "identity": (3, 3, 1, "the shortcut is the input itself"),
        "downsample": (2, 3, 2, "the shortcut is a 1x1 convolution of stride 2 with batch norm"),
        "pad": (2, 5, 2, "the shortcut has no weights: every second pixel, one channel of zeros before and two behind"),
    }.items():
        x = normal(f"block/{name}/x", 2, 5, 4, c_in)
        state = layer_state(f"block/{name}", "conv1", "bn1", (c_out, c_in, 3, 3))
        state |= layer_state(f"block/{name}", "conv2", "bn2", (c_out, c_out, 3, 3))
        if name == "downsample":
            state |= layer_state(f"block/{name}", "downsample.0", "downsample.1", (c_out, c_in, 1, 1))
        params = {"stride": stride, "eps": EPS}
        for train in (False, True):
            label = f"{name}_{'train' if train else 'eval'}"
            yield Case("basic_block", label, why, {"x": x} | state, {}, params | {"train": train})
        dy = normal(f"block/{name}/dy", 2, *(-(-size // stride) for size in (5, 4)), c_out)
        yield Case("basic_block_backward", name, why, {"dy": dy, "x": x} | state, {}, params)


def _networks():
    for name, network, size, level in (
        ("one_block", ONE_BLOCK, 3, 1),
        ("two_stages", TWO_STAGES, 6, 1),
        ("imagenet_stem", WIDE_STEM, 17, 2),
        ("pad_shortcuts", PAD, 5, 1),
        ("bottlenecks", BOTTLENECK, 6, 1),
    ):
        state, params = network_state(f"resnet/{name}", network), {"network": network, "eps": EPS}
        x = normal(f"resnet/{name}/x", 2, size, size - 1, network["in_channels"])
        dlogits = normal(f"resnet/{name}/dlogits", 2, network["num_classes"])
        why = f"a whole network, {name.replace('_', ' ')}, images that are not square"
        yield Case("resnet", name, why, {"x": x} | state, {}, params, level)
        yield Case("resnet_backward", name, why, {"dlogits": dlogits, "x": x} | state, {}, params, level)
        params = params | {"batch_size": 2}
        images = normal(f"adabs/{name}", 5, size, size - 1, network["in_channels"])
        why = "the last batch is short: averages are weighted by images"
        yield Case("adabs", name, why, {"x_calibration": images} | state, {}, params, level)


def cases():
    """All cases of the network."""
    yield from _convolutions()
    yield from _batch_norms()
    yield from _small_operations()
    yield from _blocks()
    yield from _networks()
