"""For each operation the factors that make a case and their levels, and which settings (a level for each) can be a case."""

from math import prod
from pathlib import Path

import numpy as np

from pcmref import store
from pcmref.golden.cases_pcm import DAY_S, YEAR_S
from pcmref.golden.ops import OPS

CHANNELS = (1, 2, 3, 4, 5, 7, 8, 9, 13, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 128, 129, 130)
OUT = (1, 2, 3, 5, 8, 9, 16, 17, 31, 33, 64, 65, 127, 130)
IMAGES = (1, 2, 3, 5, 17, 64)
SIZES = ((3, 2), (5, 4), (3, 7), (9, 11), (1, 9), (12, 17), (33, 2))
KERNELS = ((1, 1), (3, 3), (2, 2), (4, 4), (5, 5), (6, 6), (7, 7), (1, 3), (3, 1), (2, 5), (7, 2))
CLASSES = (1, 2, 3, 7, 9, 10, 11, 17, 33, 100, 127, 256, 1000)
FILLS = ("eighths", "full", "mixed", "small", "large", "cancelling")
EPS = (1e-5, 1e-3, 0.25, 1e-8)
DEVICES = (1, 3, 17, 64, 1000, 4097, 1_000_000)
TIMES_S = (20.0, 20.5, 60.0, 3600.0, DAY_S, 100_000.1, 30 * DAY_S, YEAR_S, 10 * YEAR_S, 30 * YEAR_S)
PROFILES = ("joshi2020", "aihwkit", "clamped", "G_max 5 uS", "G_max 12.5 uS", "G_max 50 uS")
APART = (("c", "o"), ("o", "c"))  # not every pair of channels in and out: each with every other factor is enough

_WIDE = {"c": CHANNELS, "n": IMAGES, "size": SIZES, "fill": FILLS}
_LARGE = _WIDE | {"size": (*SIZES, (19, 33), (97, 101))}  # of operations that take a number or a mean at a time
_CONV = {"o": OUT, "kernel": KERNELS, "stride": (1, 2, 3, 4), "padding": tuple(range(7))} | _WIDE
_NORM = _WIDE | {"eps": EPS}
_LINEAR = {"n": IMAGES, "c": CHANNELS + (512,), "o": CLASSES, "fill": FILLS}
_LOSS = {"n": IMAGES, "o": CLASSES, "smoothing": (0.0, 0.1, 0.05, 0.5), "spread": (1.0, 30.0, 1e-3)}
_PIXELS = {"kernel": (1, 2, 3, 4, 5, 7), "stride": (1, 2, 3, 4), "padding": (0, 1, 2, 3)}
_BLOCK = {
    "c": (2, 1, 3, 8, 17),
    "o": (2, 3, 5, 9, 17, 33),
    "stride": (1, 2),
    "size": SIZES[1:4],
    "n": (2, 3, 5),
    "eps": EPS[:3],
}
_NET = {
    "widths": ((2,), (2, 3), (3, 4, 5), (4, 9)),
    "blocks": (1, 2, 3),
    "block": ("basic", "bottleneck"),
    "shortcut": ("projection", "pad"),
    "stem": ("small", "imagenet"),
    "classes": (4, 2, 11, 17),
    "n": (2, 3, 5),
    "eps": EPS[:3],
}
_CHIP = {factor: levels[:1] for factor, levels in _NET.items()} | {"widths": ((2,), (3, 2)), "block": ("basic", "bottleneck")}
_CHIP |= {"c": (2, 1, 17), "profile": ("joshi2020", "clamped", *PROFILES[3:]), "t_s": (20.0, 27.3612345, DAY_S, 10 * YEAR_S)}
_CHIP |= {"gdc": (True, False), "read": (0, 1, 17), "seed": (7, -1, 2**64)}
_DEVICE = {"profile": PROFILES, "devices": DEVICES}
_CONVERTER = {
    "steps": (254, 256, 15, 31),
    "limit": (1.0, 12.0),
    "rounding": ("half-even", "half-away"),
    "order": ("clip first", "round first"),
    "origin": ("zero", "end"),
}
_STEPS = {"shape": ((2, 3), (1, 1), (3, 5, 2, 2), (17, 33), (41, 67))}
_SGD = {"learning_rate": (0.1, 0.003), "momentum": (0.9, 0.5), "weight_decay": (5e-4, 0.0, 0.01), "nesterov": (True, False)}
_DRAWS = {"n": (1, 2, 7, 100, 1001), "high": (1, 2, 7, 1000, 2**31), "seed": (0, 1, -1, 2**64), "name": ("a", "read/1/60.0/fc")}
_MVM = {"n": (1, 2, 5), "c": (1, 3, 17, 65, 130, 257), "o": (1, 2, 5, 9, 17, 33), "alpha": (1.0, 0.75, 1.3)}
_MVM |= {"g_max_us": (25.0, 5.0, 50.0), "steps": (None, 254, 15)}

FACTORS: dict[str, dict[str, tuple]] = {
    "conv2d": _CONV,
    "conv2d_backward": _CONV,
    "batch_norm": _NORM,
    "batch_norm_backward": _NORM,
    "batch_norm_train": _NORM | {"momentum": (0.1, 0.01, 0.5, 1.0)},
    "batch_norm_train_backward": _NORM,
    "relu": _LARGE,
    "relu_backward": _LARGE,
    "linear": _LINEAR,
    "linear_backward": _LINEAR,
    "global_avg_pool": _LARGE,
    "global_avg_pool_backward": _LARGE,
    "max_pool2d": _WIDE | _PIXELS,
    "max_pool2d_backward": _WIDE | _PIXELS,
    "softmax_cross_entropy": _LOSS,
    "softmax_cross_entropy_backward": _LOSS,
    "basic_block": _BLOCK | {"shortcut": ("projection", "pad"), "train": (False, True)},
    "basic_block_backward": _BLOCK | {"shortcut": ("projection", "pad")},
    "resnet": _NET,
    "resnet_backward": _NET,
    "adabs": _NET | {"batch_size": (2, 3, 5)},
    "map": {"shape": ((3, 2), (1, 1), (5, 3, 3, 3), (17, 33)), "g_max_us": (25.0, 5.0, 12.5, 50.0), "fill": FILLS[:3]},
    "program": _DEVICE | {"profile": (*PROFILES, "crosssim")},
    "drift_exponent": _DEVICE,
    "drift": _DEVICE | {"t_s": TIMES_S},
    "read": _DEVICE | {"t_s": TIMES_S},
    "gdc": {
        "read_out": ("device sum", "ones", "one-hot", "per column"),
        "o": (1, 2, 3, 9, 17),
        "c": (1, 3, 8, 33, 130),
        "g_max_us": (25.0, 5.0, 50.0),
    },
    "crossbar_mvm": _MVM,
    "chip": _CHIP,
    "dac": _CONVERTER,
    "adc": _CONVERTER,
    "inject_weight_noise": _STEPS | {"eta": (0.038, 0.01, 0.1), "seed": (0, 3, 2**40), "step": (0, 1, 1000)},
    "clip_weights": _STEPS | {"alpha": (2.0, 1.0, 2.5)},
    "sgd_step": _STEPS | _SGD,
    "draws": _DRAWS,
}

# From where a search draws numbers besides the levels, evenly in their logarithm: far beyond them, with all bits
REACH = {"c": (1, 5000), "o": (1, 5000), "n": (1, 1200), "devices": (1, 1_200_000), "classes": (1, 300), "widths": (1, 70)}
REACH |= {"size": (1, 400), "kernel": (1, 11), "stride": (1, 7), "padding": (1, 8), "shape": (1, 400), "blocks": (1, 4)}
REACH |= {"batch_size": (1, 9), "steps": (1, 2**16), "high": (1, 2**31), "numbers": (1, 2000), "tiles": (1, 40)}
REACH |= {"eps": (1e-12, 0.9), "momentum": (1e-4, 0.999), "smoothing": (1e-4, 0.95), "spread": (1e-4, 3000.0)}
REACH |= {"profile": (0.05, 900.0), "g_max_us": (0.05, 900.0), "t_s": (20.0, 3e9), "limit": (0.01, 100.0), "scale": (1e-9, 1e6)}
REACH |= {"eta": (1e-4, 2.0), "alpha": (0.05, 20.0), "learning_rate": (1e-6, 30.0), "weight_decay": (1e-7, 1.0)}
REACH |= {"offset": (1e-3, 1e4)}

# Factors that only a search and the cases beyond the design have: channels, devices or currents of many magnitudes (wild), ...
_WILD = {"wild": (False, True)}
_TILES = {k: v for k, v in _CONVERTER.items() if k != "steps"} | {"tiles": (3, 1, 20), "scale": (20.0, 0.3)}
EXTRA = dict.fromkeys(("program", "drift_exponent", "drift", "read", "gdc"), _WILD)
EXTRA |= dict.fromkeys((op for op in FACTORS if op.startswith("batch_norm")), _WILD)
_TOP = {"top": ("anywhere", "last")}
EXTRA |= dict.fromkeys((op for op in FACTORS if op.startswith("softmax")), {"offset": (0.0, 1000.0, -30.0)} | _TOP)
EXTRA |= {"clip_weights": {"offset": (0.0, 1000.0, -30.0)}, "map": {"scale": (1.0, 1e-9, 1e6)} | _TOP}
EXTRA |= {"resnet": {"size": ((9, 8), (5, 4), (33, 35))}, "chip": {"size": ((5, 4), (9, 8))} | _TOP}
EXTRA |= {"inject_weight_noise": _TOP, "crossbar_mvm": _TILES | _TOP | {"faint": (False, True), "alphas": ("one", "a column")}}
EXTRA |= dict.fromkeys(("dac", "adc"), {"numbers": (150, 1100)}) | {"draws": {"n": (*_DRAWS["n"], 9001)}}

# What a search begins a setting with: nothing, or, in about two of five (154 of 400), a shape that kernels have fast paths for
_FAST = [{"kernel": (k, k), "padding": k // 2, "c": c} for k in (3, 1, 5, 7) for c in (16, 8, 32, 64)]
BEGINNINGS = dict.fromkeys(("conv2d", "conv2d_backward"), [{}] * len(_FAST) + _FAST)

BEYOND = store.read_toml(Path(__file__).parent / "beyond.toml").values()  # groups: operations, and settings that go for each

# (channels in, out, kernel, stride, height and width of the input), one image: every shape of a layer that a network has
_JOSHI32 = (
    (3, 16, 3, 1, 32),
    (16, 16, 3, 1, 32),
    (16, 32, 3, 2, 32),
    (16, 32, 1, 2, 32),
    (32, 32, 3, 1, 16),
    (32, 64, 3, 2, 16),
)
_JOSHI32 += ((32, 64, 1, 2, 16), (64, 64, 3, 1, 8))
_RESNET34 = ((3, 64, 7, 2, 224), (64, 64, 3, 1, 56), (64, 128, 3, 2, 56), (64, 128, 1, 2, 56), (128, 128, 3, 1, 28))
_RESNET34 += ((128, 256, 3, 2, 28), (128, 256, 1, 2, 28), (256, 256, 3, 1, 14), (256, 512, 3, 2, 14), (256, 512, 1, 2, 14))
_RESNET34 += ((512, 512, 3, 1, 7),)
LAYERS = {"joshi32": _JOSHI32, "resnet34": _RESNET34}


def layer_setting(c: int, o: int, kernel: int, stride: int, pixels: int) -> dict:
    """The setting of a convolution of a network, padded by half its kernel."""
    shape = {"size": (pixels, pixels), "kernel": (kernel, kernel), "stride": stride, "padding": kernel // 2}
    return {"n": 1, "c": c, "o": o, "fill": "full"} | shape


def beyond(op: str) -> list[dict]:
    """The settings beyond the design, each in full."""
    first = {factor: levels[0] for factor, levels in FACTORS[op].items()}
    first |= {factor: level for factor, level in {"fill": "full", "size": (5, 4), "shape": (17, 33)}.items() if factor in first}
    found = (setting for group in BEYOND if op in group["ops"] for setting in group["settings"])
    return [first | {k: tuple(v) if isinstance(v, list) else v for k, v in setting.items()} for setting in found]


def fits(op: str, s: dict, work: float = 6e4) -> bool:
    """Whether a setting, or the part of one that is there, can be a case of the operation of at most `work` products."""
    height, width = s.get("size", (1, 1))
    kernel = s.get("kernel", 1)
    k_h, k_w = (kernel, kernel) if isinstance(kernel, int) else kernel
    pools, of_batch = isinstance(kernel, int), OPS[op].of_batch
    if (of_batch and s.get("n", 2) * height * width < 2) or (pools and k_h > 9):
        return False  # a single value has no variance; sums of the gradients of more windows are not exact
    if "kernel" in s and "padding" in s:
        reach = 2 * s["padding"]
        if s["padding"] > (k_h // 2 if pools else max(k_h, k_w) - 1):
            return False
        if "size" in s and (height + reach < k_h or width + reach < k_w):
            return False
    if s.get("shortcut") == "pad" and not all(np.diff(s.get("widths", (s.get("c", 0), s.get("o", 999)))) >= 0):
        return False  # it adds channels and never drops one
    if s.get("fill") in ("large", "small") and of_batch:
        return False  # squares overflow, or vanish
    if "batch_size" in FACTORS[op] and s.get("stem") == "imagenet" and len(s.get("widths", ())) > 2:
        return False  # single pixels in the end, of a last batch that may be one image
    stride = s.get("stride", 1)
    size = prod(s.get(name, 1) for name in ("n", "c", "o")) * k_h * k_w * -(-height // stride) * -(-width // stride)
    size *= max(prod(s.get("shape", (1,))) / 2, 1) * max(s.get("widths", (1,))) ** 2
    return size * OPS[op].cost <= work
