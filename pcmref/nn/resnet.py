"""Residual networks: their description, their state, forward and backward (He et al., CVPR 2016).

A network is a frozen description; its parameters are a state, a dict with torchvision's names and PyTorch's layouts, so
that `torch_model.load_state_dict({k: torch.from_numpy(v) for k, v in state.items()})` takes it.
"""

from copy import deepcopy
from dataclasses import asdict, dataclass, fields
from functools import partial

import numpy as np

from pcmref import draws
from pcmref.errors import SettingError, ShapeError, StateError
from pcmref.nn import functional as F
from pcmref.nn.blocks import layer, layer_backward, residual_block, residual_block_backward
from pcmref.nn.states import check_description, check_state, check_values, checked_images, checked_state

IN_FLIGHT = 256  # images that `predict` takes at a time


def part(state: dict, name: str) -> dict:
    """The entries below a name, by the names they have there: "layer1.0.conv1.weight" becomes "conv1.weight"."""
    return {key.removeprefix(f"{name}."): value for key, value in state.items() if key.startswith(f"{name}.")}


def changed(state: dict, new: dict) -> dict:
    """The state with new entries for some of its own. Every array is the caller's own: the others are copied."""
    return {name: new[name] if name in new else deepcopy(value) for name, value in state.items()}


@dataclass(frozen=True)
class ResNet:
    """A residual network: stem, stages of blocks (the first of a later stage halves the image), head.

    block "basic" has two 3x3 layers of the stage's width; "bottleneck" three, 1x1, 3x3 and 1x1, the last four times as wide.
    shortcut "projection": a 1x1 convolution where the shape changes; "pad": no weights, zero channels (He et al.'s option A).
    stem "small" is a 3x3 convolution (images of 28 or 32 pixels); "imagenet" a 7x7 one of stride 2 and a 3x3 max-pool.

    >>> len(pcmref.ResNet(in_channels=1, num_classes=10, widths=(8, 16), blocks=(1, 2)).conv_bn_pairs())
    8
    """

    in_channels: int = 3
    num_classes: int = 10
    widths: tuple[int, ...] = (16, 28, 56)
    blocks: tuple[int, ...] = (5, 5, 5)
    stem: str = "small"
    shortcut: str = "projection"
    block: str = "basic"
    eps: float = F.BN_EPS

    __post_init__, check_state = check_description, check_state

    @classmethod
    def joshi32(cls, in_channels: int = 3, num_classes: int = 10) -> "ResNet":
        """The paper's ResNet-32, for CIFAR-10; its widths and the bias row are derived from the 361,722 synaptic weights.

        >>> sum(w.size for w in pcmref.ResNet.joshi32().init().values() if w.ndim > 1)  # and 10 biases
        361712
        """
        return cls(in_channels, num_classes)

    @classmethod
    def resnet8(cls, in_channels: int = 3, num_classes: int = 10) -> "ResNet":
        """One block a stage, for tests and class.

        >>> pcmref.ResNet.resnet8(in_channels=1).blocks
        (1, 1, 1)
        """
        return cls(in_channels, num_classes, blocks=(1, 1, 1))

    @classmethod
    def imagenet34(cls, in_channels: int = 3, num_classes: int = 1000) -> "ResNet":
        """torchvision's resnet34 (He et al. 2016, table 1).

        >>> pcmref.ResNet.imagenet34().shapes()["conv1.weight"]
        (64, 3, 7, 7)
        """
        return cls(in_channels, num_classes, (64, 128, 256, 512), (3, 4, 6, 3), "imagenet")

    @classmethod
    def of_state(cls, state: dict) -> "ResNet":
        """The network whose names and shapes a state has; StateError where there is none."""
        try:
            block = "bottleneck" if "layer1.0.conv3.weight" in state else "basic"
            widths, blocks = [], []
            while f"layer{len(widths) + 1}.0.conv1.weight" in state:
                stage = f"layer{len(widths) + 1}"
                widths.append(int(state[f"{stage}.0.conv1.weight"].shape[0]))
                blocks.append(sum(f"{stage}.{b}.conv1.weight" in state for b in range(len(state))))
            stem = "imagenet" if state["conv1.weight"].shape[2:] == (7, 7) else "small"
            padded = len(widths) > 1 or block == "bottleneck"  # where there is a shortcut that changes the shape
            shortcut = "pad" if padded and not any(".downsample." in name for name in state) else "projection"
            channels, classes = state["conv1.weight"].shape[1], state["fc.weight"].shape[0]
            return cls(channels, classes, widths, blocks, stem, shortcut, block)
        except (KeyError, IndexError, SettingError) as error:
            raise StateError(
                "no ResNet of basic or bottleneck blocks has these names and shapes (conv1.weight, layer1.0.conv1.weight, ..., "
                f"fc.weight): {error}; found {sorted(state)[:3]}"
            ) from error

    def config(self) -> dict:
        """The description as plain values; ResNet(**config) builds it again."""
        defaults = {field.name: field.default for field in fields(self) if field.name in ("shortcut", "block", "eps")}
        return {k: v for k, v in asdict(self).items() if v != defaults.get(k)}  # older files lack these

    # ------------------------------------------------------------------------------------------------- structure

    def _stem(self) -> tuple[int, int]:
        """Kernel and stride of the first convolution."""
        return (3, 1) if self.stem == "small" else (7, 2)

    def _blocks(self):
        """(name, channels in, channels out, strides of its layers) of every block, in order."""
        c_in = self.widths[0]
        for s, (width, count) in enumerate(zip(self.widths, self.blocks, strict=True)):
            c_out = width if self.block == "basic" else 4 * width
            for b in range(count):
                stride = 2 if s > 0 and b == 0 else 1
                yield f"layer{s + 1}.{b}", c_in, c_out, (stride, 1) if self.block == "basic" else (1, stride, 1)
                c_in = c_out

    def conv_bn_pairs(self) -> list[tuple[str, str, tuple[int, int, int, int]]]:
        """(convolution, its batch norm, OIHW shape) for every convolution, in the order of the state."""
        k = self._stem()[0]
        pairs = [("conv1", "bn1", (self.widths[0], self.in_channels, k, k))]
        for name, c_in, c_out, strides in self._blocks():
            if self.block == "basic":
                shapes = [(c_out, c_in, 3, 3), (c_out, c_out, 3, 3)]
            else:
                width = c_out // 4
                shapes = [(width, c_in, 1, 1), (width, width, 3, 3), (c_out, width, 1, 1)]
            pairs += [(f"{name}.conv{i}", f"{name}.bn{i}", shape) for i, shape in enumerate(shapes, 1)]
            if self.shortcut == "projection" and (max(strides) != 1 or c_in != c_out):
                pairs.append((f"{name}.downsample.0", f"{name}.downsample.1", (c_out, c_in, 1, 1)))
        return pairs

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Name and shape of every entry of a state, batch-norm buffers included."""
        shapes = {}
        for conv, bn, oihw in self.conv_bn_pairs():
            shapes[f"{conv}.weight"] = oihw
            for entry in ("weight", "bias", "running_mean", "running_var"):
                shapes[f"{bn}.{entry}"] = oihw[:1]
        features = list(self._blocks())[-1][2]
        return shapes | {"fc.weight": (self.num_classes, features), "fc.bias": (self.num_classes,)}

    def trainable(self) -> list[str]:
        """The names that training changes: all but the batch-norm buffers."""
        return [name for name in self.shapes() if "running_" not in name]

    def synaptic(self) -> list[str]:
        """The names on the chip: convolution and fc weights, and fc.bias (derived from the paper's 361,722 weights)."""
        return [f"{conv}.weight" for conv, _, _ in self.conv_bn_pairs()] + ["fc.weight", "fc.bias"]

    def init(self, seed: int = 0, dtype=np.float32) -> dict[str, np.ndarray]:
        """An initial state: convolutions N(0, 2/(O*kH*kW)) (He et al. 2015), fc uniform in +-1/sqrt(C), batch norm 1, 0.

        >>> pcmref.ResNet.resnet8().init(seed=0)["conv1.weight"].shape
        (16, 3, 3, 3)
        """
        state = {}
        for name, shape in self.shapes().items():
            if len(shape) == 4:
                value = draws.standard_normal(seed, f"init/{name}", shape) * np.sqrt(2 / (shape[0] * shape[2] * shape[3]))
            elif name.startswith("fc."):
                value = (2 * draws.uniform(seed, f"init/{name}", shape) - 1) / np.sqrt(self.shapes()["fc.weight"][1])
            else:
                value = np.full(shape, 1.0 if name.endswith((".weight", ".running_var")) else 0.0)
            state[name] = value.astype(dtype)
        return state

    # ------------------------------------------------------------------------------------------- forward, backward

    def forward(self, state: dict, x, train: bool = False, product=F.matrix_product):
        """Logits of a batch: x [N, H, W, C] -> [N, num_classes], in x's dtype.

        train=False normalises with the running statistics; train=True with the batch's own and returns (logits, tape)
        for `backward` and `updated_state`; the tape refers to x and the state: leave both as they are until then. `product`
        multiplies a layer's inputs with its weights (`functional.conv2d`). Raises ShapeError (an NCHW batch is recognised) and
        StateError, for NaN too; in training NaN in a state is for the loss to show.

        >>> net = pcmref.ResNet.resnet8(in_channels=1)
        >>> x = pcmref.draws.standard_normal(0, "images", (2, 28, 28, 1)).astype(np.float32)
        >>> net.forward(net.init(), x).shape
        (2, 10)
        """
        x = checked_images(self, x)
        state = checked_state(self, state, x.dtype, arrays_only=product is F.matrix_product)
        if not train:
            check_values(state)
        logits, tape = self._run(state, x, partial(layer, train=train, eps=self.eps, product=product), product)
        return (logits, tape) if train else logits

    def _run(self, state, x, layer, product=F.matrix_product):
        """(logits, tape): stem, blocks, pool and the last product, with the given layer.

        The tape holds what `backward` needs: state, bn1, BLOCK.bn1 and so on (what each layer saved), last, features.
        """
        tape = {"state": state}
        y, tape["bn1"] = layer(x, state, "conv1", "bn1", self._stem()[1])  # [N, H/s, W/s, widths[0]], s its stride
        if self.stem == "imagenet":
            y = F.max_pool2d(y, 3, 2, 1)
        for name, _, _, strides in self._blocks():
            y, saved = residual_block(y, part(state, name), strides, layer)  # [N, ceil(H/stride), ceil(W/stride), c_out]
            tape |= {f"{name}.{bn}": value for bn, value in saved.items()}
        tape["last"], tape["features"] = y.shape, F.global_avg_pool(y)  # [N, c_out]
        return F.linear(tape["features"], state["fc.weight"], state["fc.bias"], product), tape

    def backward(self, state: dict, tape: dict, dlogits) -> dict[str, np.ndarray]:
        """Gradients of a loss from dlogits = dloss/dlogits [N, num_classes]: the trainable names, and "input".

        tape is that of the forward pass with train=True; it holds the state in the pass's dtype, which is what is used.

        >>> net = pcmref.ResNet(in_channels=1, num_classes=3, widths=(4,), blocks=(1,))
        >>> state, x = net.init(dtype=np.float64), pcmref.draws.standard_normal(0, "images", (2, 6, 6, 1))
        >>> logits, tape = net.forward(state, x, train=True)
        >>> net.backward(state, tape, np.ones_like(logits))["fc.bias"].tolist()
        [2.0, 2.0, 2.0]
        """
        return self._backward(tape, dlogits, partial(layer_backward, eps=self.eps))

    def _backward(self, tape, dlogits, layer_backward):
        """The same way back, with the given layer_backward."""
        state, features, grads = tape["state"], tape["features"], {}
        if np.shape(dlogits) != (len(features), self.num_classes):
            raise ShapeError(f"dlogits must be {[len(features), self.num_classes]} as the logits, got {np.shape(dlogits)}")
        dlogits = dlogits.astype(features.dtype, copy=False)
        dy, grads["fc.weight"], grads["fc.bias"] = F.linear_backward(dlogits, features, state["fc.weight"])
        dy = F.global_avg_pool_backward(dy, tape["last"])
        for name, _, _, strides in reversed(list(self._blocks())):
            dy, more = residual_block_backward(dy, part(state, name), strides, part(tape, name), layer_backward)
            grads |= {f"{name}.{key}": value for key, value in more.items()}
        if self.stem == "imagenet":
            dy = F.max_pool2d_backward(dy, tape["bn1"].y, 3, 2, 1)
        grads["input"], _, more = layer_backward(dy, state, "conv1", "bn1", tape["bn1"], self._stem()[1])
        return grads | more

    def statistics(self, state: dict, x, **options) -> dict:
        """{batch norm: (mean [C], biased variance [C], number of values a channel)} of a training pass over x."""
        return self._statistics(self.forward(state, x, train=True, **options)[1])

    def _statistics(self, tape: dict) -> dict:
        return {bn: (tape[bn].mean, tape[bn].var, tape[bn].count) for _, bn, _ in self.conv_bn_pairs()}

    def updated_state(self, state: dict, tape: dict, momentum: float = 0.1) -> dict[str, np.ndarray]:
        """The state after this batch: running = (1 - m)*old + m*new, the new variance unbiased (PyTorch's convention).

        >>> net = pcmref.ResNet(in_channels=1, num_classes=3, widths=(4,), blocks=(1,))
        >>> state, x = net.init(dtype=np.float64), pcmref.draws.standard_normal(0, "images", (2, 6, 6, 1))
        >>> new = net.updated_state(state, net.forward(state, x, train=True)[1])
        >>> [name for name in new if not np.array_equal(new[name], state[name])][:2]
        ['bn1.running_mean', 'bn1.running_var']
        """
        new = {}
        for _, bn, _ in self.conv_bn_pairs():
            names = f"{bn}.running_mean", f"{bn}.running_var"
            old = [state[name] for name in names]
            values = F.running_statistics(*old, tape[bn].mean, tape[bn].var, tape[bn].count, momentum)
            new |= {name: v.astype(o.dtype) for name, v, o in zip(names, values, old, strict=True)}
        return changed(state, new)


def predict(net: ResNet, state: dict, x, **options) -> np.ndarray:
    """Logits for any number of images, [N, num_classes]; x may be any sliceable array (a memory map, an HDF5 data set).

    Only the images in flight are held in memory besides x and the result. `options` go to `net.forward`: product, and with
    `pcmref.fast`'s network (`pcmref.ResNet` is that) workers and engine.

    >>> net, state = pcmref.load("resnet8-fashionmnist-noise")
    >>> data = pcmref.load_images("fashionmnist-evaluation")
    >>> pcmref.predict(net, state, data.normalized(data.images[:6])).argmax(1).tolist(), data.labels[:6].tolist()
    ([9, 2, 1, 1, 6, 1], [9, 2, 1, 1, 6, 1])
    """
    parts = (np.asarray(x[i : i + IN_FLIGHT]) for i in range(0, len(x) or 1, IN_FLIGHT))  # of no images one, to be refused
    return np.concatenate([net.forward(state, part, **options) for part in parts])
