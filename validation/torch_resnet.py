"""The paper's network in PyTorch, with the same names: what pcmref is compared with and timed against."""

import torch.nn.functional as F
from torch import nn


class Block(nn.Module):
    def __init__(self, c_in, c_out, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(c_in, c_out, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(c_out)
        self.conv2 = nn.Conv2d(c_out, c_out, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(c_out)
        self.downsample = None
        if stride != 1 or c_in != c_out:
            self.downsample = nn.Sequential(nn.Conv2d(c_in, c_out, 1, stride, bias=False), nn.BatchNorm2d(c_out))

    def forward(self, x):
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(y + (x if self.downsample is None else self.downsample(x)))


class TorchResNet(nn.Module):
    """The same architecture as a pcmref.ResNet, on NCHW batches."""

    def __init__(self, net):
        super().__init__()
        big = net.stem == "imagenet"
        kernel, stride, padding = (7, 2, 3) if big else (3, 1, 1)
        self.conv1 = nn.Conv2d(net.in_channels, net.widths[0], kernel, stride, padding, bias=False)
        self.bn1 = nn.BatchNorm2d(net.widths[0])
        self.maxpool = nn.MaxPool2d(3, 2, 1) if big else nn.Identity()
        c_in, self.stages = net.widths[0], []
        for s, (c_out, count) in enumerate(zip(net.widths, net.blocks, strict=True)):
            blocks = [Block(c_in if b == 0 else c_out, c_out, 2 if s and b == 0 else 1) for b in range(count)]
            setattr(self, f"layer{s + 1}", nn.Sequential(*blocks))
            self.stages.append(f"layer{s + 1}")
            c_in = c_out
        self.fc = nn.Linear(c_in, net.num_classes)

    def forward(self, x):
        x = self.maxpool(F.relu(self.bn1(self.conv1(x))))
        for stage in self.stages:
            x = getattr(self, stage)(x)
        return self.fc(x.mean((2, 3)))
