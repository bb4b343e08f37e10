"""pcmref: the reference implementation of deep-network inference on phase-change memory, in plain NumPy.

The paper is V. Joshi et al., Accurate deep neural network inference using computational phase-change memory, Nature
Communications 11:2473 (2020). The examples in the docstrings assume `import numpy as np` and `import pcmref`.
"""

from pcmref import draws
from pcmref.errors import PcmrefError
from pcmref.experiments.retention import RetentionResult, retention
from pcmref.fast.resnet import ResNet
from pcmref.files.images import load_images
from pcmref.files.networks import load, save
from pcmref.nn.adabs import adabs
from pcmref.nn.resnet import predict
from pcmref.pcm.chip import Chip
from pcmref.pcm.mapping import map_weights, unmap_weights
from pcmref.pcm.model import PCMModel
from pcmref.training import clip_weights, inject_weight_noise

__version__ = "0.1.0"

__all__ = [
    "Chip",
    "PCMModel",
    "PcmrefError",
    "ResNet",
    "RetentionResult",
    "adabs",
    "clip_weights",
    "draws",
    "inject_weight_noise",
    "load",
    "load_images",
    "map_weights",
    "predict",
    "retention",
    "save",
    "unmap_weights",
]
