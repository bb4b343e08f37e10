"""The peers pcmref is compared with, where they are installed: the same network in PyTorch, and in aihwkit."""

import warnings

from pcmref.fast.resnet import ResNet


def torch_resnet(net: ResNet):
    """The architecture of `net` as a torch.nn.Module on NCHW batches, with the same parameter names."""
    import torch.nn.functional as F
    from torch import nn

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


def torch_tasks(net: ResNet, x, labels) -> dict:
    """{"predict", "train step"}: callables of PyTorch, channels-last, on the same images."""
    import torch

    def images():
        return torch.from_numpy(x.transpose(0, 3, 1, 2).copy()).contiguous(memory_format=torch.channels_last)

    evaluated, batch = torch_resnet(net).to(memory_format=torch.channels_last).eval(), images()
    predict = torch.no_grad()(lambda: [evaluated(part) for part in batch.split(128)])
    trained = torch_resnet(net).to(memory_format=torch.channels_last)
    return {"predict": predict, "train step": _torch_step(trained, images()[:128], labels[:128])}


def _torch_step(model, x, labels, optimiser=None):
    import torch

    optimiser = optimiser or torch.optim.SGD(model.parameters(), 0.05, momentum=0.9)
    targets = torch.from_numpy(labels)

    def step():
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(model(x), targets).backward()
        optimiser.step()

    return step


def aihwkit_tasks(net: ResNet, x, labels) -> dict:
    """{"predict", "train step", "program", "read"}: InferenceRPUConfig with converters; its fastest tile for training."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import torch
        from aihwkit.inference import GlobalDriftCompensation, PCMLikeNoiseModel
        from aihwkit.nn.conversion import convert_to_analog
        from aihwkit.optim import AnalogSGD
        from aihwkit.simulator.configs import InferenceRPUConfig, TorchInferenceRPUConfig
        from aihwkit.simulator.parameters.enums import WeightClipType, WeightModifierType

        def analog(config, perfect):
            config.forward.is_perfect = perfect
            config.noise_model, config.drift_compensation = noise, GlobalDriftCompensation()
            config.modifier.type, config.modifier.std_dev = WeightModifierType.ADD_NORMAL, 0.038
            config.clip.type, config.clip.sigma = WeightClipType.LAYER_GAUSSIAN, 2.0
            return convert_to_analog(torch_resnet(net), config)

        noise = PCMLikeNoiseModel(g_max=25.0)
        images = torch.from_numpy(x.transpose(0, 3, 1, 2)[:128].copy())
        evaluated = analog(InferenceRPUConfig(), False).eval()
        evaluated.program_analog_weights()
        evaluated.drift_analog_weights(86_400.0)
        trained = analog(TorchInferenceRPUConfig(), True).train()
        optimiser = AnalogSGD(trained.parameters(), lr=0.05)
        weights = torch.randn(sum(p.numel() for n, p in torch_resnet(net).named_parameters() if "bn" not in n)) * 0.1
        programmed, nu = noise.apply_programming_noise(weights)
    return {
        "predict": torch.no_grad()(lambda: evaluated(images)),
        "train step": _torch_step(trained, images, labels[:128], optimiser),
        "program": lambda: noise.apply_programming_noise(weights),
        "read": lambda: noise.apply_drift_noise(programmed, nu, 86_400.0),
    }
