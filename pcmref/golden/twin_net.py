"""Blocks, whole networks and their compensation for the slow twin, composed from twin_nn.

A state is a dict of arrays of `Bounded` numbers under torchvision's names. In training mode a layer normalises with its
batch's own statistics.
"""

from pcmref.golden import twin_nn as nn
from pcmref.golden.twin import each, exact


def conv_bn(x, state, conv, bn, stride, padding, train, eps):
    """(y, z): z = conv2d(x), y = batch_norm(z)."""
    z = nn.conv2d(x, state[f"{conv}.weight"], stride, padding)
    weight, bias = state[f"{bn}.weight"], state[f"{bn}.bias"]
    if train:
        return nn.batch_norm_train(z, weight, bias, eps), z
    return nn.batch_norm(z, weight, bias, state[f"{bn}.running_mean"], state[f"{bn}.running_var"], eps), z


def conv_bn_backward(dy, x, z, state, conv, bn, stride, padding, eps, grads):
    """dx; the gradients of the layer's parameters go into `grads`."""
    dz, grads[f"{bn}.weight"], grads[f"{bn}.bias"] = nn.batch_norm_train_backward(dy, z, state[f"{bn}.weight"], eps)
    dx, grads[f"{conv}.weight"] = nn.conv2d_backward(dz, x, state[f"{conv}.weight"], stride, padding)
    return dx


def _add(a, b):
    return each(lambda p, q: p + q, a, b)


def block(x, state, name, stride, train, eps, seen):
    """A basic block (He et al. 2016): relu(bn2(conv2(relu(bn1(conv1 x)))) + shortcut); `seen` keeps what backward needs."""
    a, seen[f"{name}bn1"] = conv_bn(x, state, f"{name}conv1", f"{name}bn1", stride, 1, train, eps)
    hidden = nn.relu(a)
    b, seen[f"{name}bn2"] = conv_bn(hidden, state, f"{name}conv2", f"{name}bn2", 1, 1, train, eps)
    shortcut = x
    if f"{name}downsample.0.weight" in state:
        down = f"{name}downsample"
        shortcut, seen[f"{down}.1"] = conv_bn(x, state, f"{down}.0", f"{down}.1", stride, 0, train, eps)
    before = _add(b, shortcut)
    seen[name] = (x, a, hidden, before)
    return nn.relu(before)


def block_backward(dy, state, name, stride, eps, seen, grads):
    """dx of a basic block in training mode."""
    x, a, hidden, before = seen[name]
    dy = nn.relu_backward(dy, before)
    second = (f"{name}conv2", f"{name}bn2", 1, 1, eps, grads)
    d = nn.relu_backward(conv_bn_backward(dy, hidden, seen[f"{name}bn2"], state, *second), a)
    dx = conv_bn_backward(d, x, seen[f"{name}bn1"], state, f"{name}conv1", f"{name}bn1", stride, 1, eps, grads)
    if f"{name}downsample.0.weight" not in state:
        return _add(dx, dy)
    shortcut = (f"{name}downsample.0", f"{name}downsample.1", stride, 0, eps, grads)
    return _add(dx, conv_bn_backward(dy, x, seen[f"{name}downsample.1"], state, *shortcut))


def _stem(network):
    """Stride and padding of the first convolution."""
    return (1, 1) if network["stem"] == "small" else (2, 3)


def _blocks(network):
    """(name, stride) of every block."""
    for s, count in enumerate(network["blocks"]):
        for b in range(count):
            yield f"layer{s + 1}.{b}.", 2 if s > 0 and b == 0 else 1


def resnet(x, state, network, train, eps, seen):
    """Logits of a residual network (He et al. 2016)."""
    y, seen["bn1"] = conv_bn(x, state, "conv1", "bn1", *_stem(network), train, eps)
    seen["stem"] = (x, y)
    y = nn.relu(y)
    if network["stem"] == "imagenet":
        seen["pool"], y = y, nn.max_pool2d(y, 3, 2, 1)
    for name, stride in _blocks(network):
        y = block(y, state, name, stride, train, eps, seen)
    seen["features"] = (y.shape, nn.global_avg_pool(y))
    return nn.linear(seen["features"][1], state["fc.weight"], state["fc.bias"])


def resnet_backward(dlogits, state, network, eps, seen):
    """Gradients of all parameters and of the input, in training mode."""
    grads, (shape, features) = {}, seen["features"]
    dy, grads["fc.weight"], grads["fc.bias"] = nn.linear_backward(dlogits, features, state["fc.weight"])
    dy = nn.global_avg_pool_backward(dy, shape)
    for name, stride in reversed(list(_blocks(network))):
        dy = block_backward(dy, state, name, stride, eps, seen, grads)
    x, before = seen["stem"]
    if network["stem"] == "imagenet":
        dy = nn.max_pool2d_backward(dy, seen["pool"], 3, 2, 1)
    dy = nn.relu_backward(dy, before)
    grads["input"] = conv_bn_backward(dy, x, seen["bn1"], state, "conv1", "bn1", *_stem(network), eps, grads)
    return grads


def adabs(x, state, network, batch_size, eps):
    """Running means and variances as averages over the calibration batches, weighted by their images (Joshi et al. 2020)."""
    sums = {}
    for first in range(0, len(x), batch_size):
        batch, seen = x[first : first + batch_size], {}
        resnet(batch, state, network, True, eps, seen)
        images = exact(len(batch), x.flat[0].u)
        for bn, z in seen.items():
            if f"{bn}.running_mean" in state:
                means, m2 = nn.moments(z)
                n = exact(z.size // z.shape[3] - 1, images.u)
                entries = {"running_mean": means, "running_var": each(lambda v, n=n: v / n, m2)}
                for entry, value in entries.items():
                    weighted = each(lambda v, images=images: v * images, value)
                    sums[f"{bn}.{entry}"] = _add(sums[f"{bn}.{entry}"], weighted) if f"{bn}.{entry}" in sums else weighted
    count = exact(len(x), x.flat[0].u)
    return {name: each(lambda v: v / count, value) for name, value in sums.items()}
