"""pcmref's network evaluated by PyTorch, on a GPU where there is one: for studies of more images than a CPU has time for.

Devices, draws, readings and gdc stay pcmref's own; PyTorch takes a state and images to logits, and to the statistics of batch
norm for AdaBS, in float32 without TF32. Its sums have another order: an image whose two largest logits lie within rounding may
be classified otherwise.
"""

from collections import OrderedDict
from dataclasses import fields
from hashlib import blake2b
from threading import local

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from pcmref import ResNet
from pcmref.errors import SettingError
from pcmref.nn.functional import matrix_product
from pcmref.nn.states import checked_state

torch.backends.cudnn.allow_tf32 = False
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
# On two cores 32 images at a time, channels last, were 2.0 times as fast as 256 in NCHW; a GPU takes all that it gets, in NCHW
AT_A_TIME, LAYOUT = (10_000, torch.contiguous_format) if DEVICE == "cuda" else (32, torch.channels_last)
# Of activations, a thread: on a CPU about five times those of 500 images of 32 x 32, on a GPU 1.5 times those of 10,000
REMEMBERED_BYTES = 10_000_000_000 if DEVICE == "cuda" else 1_500_000_000
_of_thread = local()


def described() -> str:
    """The version of PyTorch and the device, to be kept beside results."""
    return f"PyTorch {torch.__version__}, {torch.cuda.get_device_name() if DEVICE == 'cuda' else 'CPU'}"


def torch_resnet(net: ResNet):
    """The architecture of `net` as a torch.nn.Module on NCHW batches, with the same parameter names."""

    def conv_bn(c_in, c_out, kernel, stride):
        return nn.Conv2d(c_in, c_out, kernel, stride, kernel // 2, bias=False), nn.BatchNorm2d(c_out, net.eps)

    class Pad(nn.Module):
        def __init__(self, new, stride):
            super().__init__()
            self.stride, self.border = stride, (0, 0, 0, 0, new // 2, new - new // 2)

        def forward(self, x):
            return F.pad(x[:, :, :: self.stride, :: self.stride], self.border)

    class Block(nn.Module):
        def __init__(self, c_in, c_out, stride):
            super().__init__()
            width = c_out // 4
            layers = [(c_in, c_out, 3, stride), (c_out, c_out, 3, 1)]
            if net.block == "bottleneck":
                layers = [(c_in, width, 1, 1), (width, width, 3, stride), (width, c_out, 1, 1)]
            for i, shape in enumerate(layers, 1):
                for name, module in zip((f"conv{i}", f"bn{i}"), conv_bn(*shape), strict=True):
                    self.add_module(name, module)
            self.depth, self.downsample = len(layers), nn.Identity()
            if stride != 1 or c_in != c_out:
                projection = net.shortcut == "projection"
                self.downsample = nn.Sequential(*conv_bn(c_in, c_out, 1, stride)) if projection else Pad(c_out - c_in, stride)

        def forward(self, x):
            y = x
            for i in range(1, self.depth + 1):
                y = getattr(self, f"bn{i}")(getattr(self, f"conv{i}")(y))
                y = F.relu(y) if i < self.depth else F.relu(y + self.downsample(x))
            return y

    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            big = net.stem == "imagenet"
            self.conv1, self.bn1 = conv_bn(net.in_channels, net.widths[0], *((7, 2) if big else (3, 1)))
            self.maxpool = nn.MaxPool2d(3, 2, 1) if big else nn.Identity()
            c_in, self.stages = net.widths[0], []
            for s, (width, count) in enumerate(zip(net.widths, net.blocks, strict=True)):
                c_out = width if net.block == "basic" else 4 * width
                blocks = [Block(c_out if b else c_in, c_out, 2 if s and not b else 1) for b in range(count)]
                self.add_module(f"layer{s + 1}", nn.Sequential(*blocks))
                self.stages.append(f"layer{s + 1}")
                c_in = c_out
            self.fc = nn.Linear(c_in, net.num_classes)

        def parts(self):
            """(what the names of its parameters begin with, what it does to its input), from the stem to the head."""
            yield ("conv1.", "bn1."), lambda x: self.maxpool(F.relu(self.bn1(self.conv1(x))))
            for stage in self.stages:
                yield from (((f"{stage}.{b}.",), block) for b, block in getattr(self, stage).named_children())
            yield ("fc.",), lambda x: self.fc(x.mean((2, 3)))

        def forward(self, x):
            for _, part in self.parts():
                x = part(x)
            return x

    return Network()


class TorchResNet(ResNet):
    """A ResNet whose evaluation and batch statistics are PyTorch's, whatever `workers` and `engine` say."""

    @classmethod
    def of(cls, net: ResNet) -> "TorchResNet":
        return cls(**{field.name: getattr(net, field.name) for field in fields(net)})

    def remembering(self) -> "Remembering":
        return Remembering.of(self)

    def forward(self, state, x, workers=None, engine="fast", product=matrix_product):
        """Logits of a batch in evaluation, as nn's; SettingError for a product of the caller's own."""
        if product is not matrix_product:
            raise SettingError("PyTorch has products of its own: what needs those of crossbars goes without --engine torch")
        module = self._module(state).eval()
        with torch.no_grad():
            return torch.cat([module(part) for part in _on_device(x).split(AT_A_TIME)]).cpu().numpy()

    def statistics(self, state, x, workers=None, engine="fast"):
        """{batch norm: (mean, biased variance, number of values a channel)} of a training pass, as nn's.

        On a CPU of 200 images a few 1e-5 from the exact ones, where nn's float32 is 1e-7 from them: PyTorch adds one by one.
        """
        module, counts = self._module(state).train(), {}
        norms = {name: part for name, part in module.named_modules() if isinstance(part, nn.BatchNorm2d)}
        hooks = [
            part.register_forward_hook(lambda _, inputs, y, name=name: counts.update({name: y.numel() // y.shape[1]}))
            for name, part in norms.items()
        ]
        for part in norms.values():
            part.momentum = 1.0  # its running statistics become this batch's: 1.7 times as fast as var_mean on the CPU
        with torch.no_grad():
            module(_on_device(x))
        for hook in hooks:
            hook.remove()
        _of_thread.state = None  # the state's running statistics are gone
        found = {}
        for name, n in counts.items():
            mean, unbiased = (value.cpu().numpy().copy() for value in (norms[name].running_mean, norms[name].running_var))
            found[name] = mean, unbiased * np.float32((n - 1) / n), n
        return found

    def _module(self, state) -> torch.nn.Module:
        """This thread's PyTorch network with the state's arrays; a state is sent to the device once for many batches."""
        if getattr(_of_thread, "net", None) != self:
            _of_thread.net, _of_thread.state = self, None
            _of_thread.module = torch_resnet(self).to(DEVICE, memory_format=LAYOUT)
        if _of_thread.state is not state:
            arrays = {name: torch.from_numpy(np.array(value)) for name, value in checked_state(self, state, np.float32).items()}
            _of_thread.module.load_state_dict(arrays)
            _of_thread.state = state
        return _of_thread.module


class Remembering(TorchResNet):
    """A TorchResNet that goes on from the last block whose output it knows, of the same images and arrays by their contents.

    For a sensitivity study, most of whose networks differ from one before in a single block.
    """

    def forward(self, state, x, workers=None, engine="fast", product=matrix_product):
        if product is not matrix_product:
            return super().forward(state, x, workers, engine, product)
        known = vars(_of_thread).setdefault("known", OrderedDict())
        parts, contents, keys = list(self._module(state).eval().parts()), blake2b(np.ascontiguousarray(x)), []
        for begins, _ in parts:
            for name in (name for name in self.shapes() if name.startswith(begins)):
                contents.update(np.ascontiguousarray(state[name]))
            keys.append((x.shape, begins, contents.digest()))
        done = max((i + 1 for i, key in enumerate(keys) if key in known), default=0)
        pieces = known[keys[done - 1]] if done else _on_device(x).split(AT_A_TIME)
        with torch.no_grad():
            for key, (_, part) in list(zip(keys, parts, strict=True))[done:]:
                pieces = known[key] = [part(piece) for piece in pieces]
        for key in keys:
            if key in known:
                known.move_to_end(key)
        while sum(piece.nbytes for output in known.values() for piece in output) > REMEMBERED_BYTES:
            known.popitem(last=False)
        return torch.cat(pieces).cpu().numpy()


def _on_device(x: np.ndarray) -> torch.Tensor:
    """NHWC -> NCHW, in the LAYOUT: on an H200 10,000 images took .153 s contiguous, 500 at a time, .216 as they come."""
    images = torch.from_numpy(np.ascontiguousarray(x, np.float32)).to(DEVICE).permute(0, 3, 1, 2)
    return images.contiguous(memory_format=LAYOUT)
