"""Cases of any size and any values: a setting, which names a level for every factor of an operation, as inputs and params.

`covering` takes settings by a design, `fuzz` by chance; both make the case here.
Inputs have all the bits of the dtype under test, from draws of the case's own name, and the expected values belong to them.
"""

from dataclasses import replace
from math import prod, sqrt

import numpy as np

from pcmref import draws
from pcmref.golden.bounds import LARGEST, TINY, UNIT_ROUNDOFF, in_dtype
from pcmref.golden.case import Case
from pcmref.golden.cases_pcm import AIHWKIT, CLAMPED, CROSSSIM, JOSHI2020, chip_noise
from pcmref.golden.ops import OPS
from pcmref.nn.resnet import ResNet

POOL = 150  # distinct devices of a case; of more devices, each is one of these
_FAR = 32.0
ELEMENTWISE = ("program", "drift_exponent", "drift", "read")


def rounded(values, dtype: str) -> np.ndarray:
    """What the dtype holds, as float64."""
    with np.errstate(over="ignore"):
        return in_dtype({"": np.asarray(values, np.float64)}, dtype)[""].astype(np.float64)


def make(op: str, name: str, setting: dict, dtype: str, seed: int = 0, level: int = 2) -> Case:
    """The case of a setting, with numbers that the dtype holds."""
    maker = _Maker(f"golden/{op}/{name}", setting, dtype, seed)
    with np.errstate(over="ignore"):  # numbers beyond the range have no bound: no case is made of them
        inputs, noise, params = maker.of(op)
    inputs = {k: v if v.dtype.kind in "iu" else rounded(v, dtype) for k, v in inputs.items()}
    if "seed" not in params:
        noise = {k: rounded(v, dtype) for k, v in noise.items()}
    why = ", ".join(f"{factor} {level}" for factor, level in setting.items())
    return Case(op, name, why, inputs, noise, params, level, dtype=dtype)


def sparse(case: Case, kept: int, everywhere: bool) -> Case:
    """The case with all but the last few numbers of its largest input 0, or of all; of many devices, POOL again and again."""
    largest = max(case.inputs, key=lambda k: (case.inputs[k].ndim, case.inputs[k].size), default=None)
    inputs = dict(case.inputs)
    for name, array in inputs.items():
        if array.dtype.kind == "f" and (everywhere or name == largest):
            few = array.ravel()[: POOL if case.op in ELEMENTWISE else None].copy()
            few[:-kept] = 0
            inputs[name] = np.resize(few, array.shape)
    return replace(case, inputs=inputs)


class _Maker:
    """Arrays and parameters of one setting."""

    def __init__(self, stream: str, setting: dict, dtype: str, seed: int):
        self.stream, self.s, self.dtype, self.seed = stream, setting, dtype, seed

    def of(self, op: str) -> tuple[dict, dict, dict]:
        s = self.s
        if op in ("conv2d", "conv2d_backward"):
            return self.conv2d(op)
        if op.startswith("batch_norm"):
            return self.batch_norm(op)
        if op in ("linear", "linear_backward"):
            x, w = self.pair((s["n"], s["c"]), (s["o"], s["c"]), 1)
            rest = {"b": self.fill("b", s["o"], terms=s["c"])} if op == "linear" else {"dy": self.normal("dy", s["n"], s["o"])}
            return {"x": x, "w": w} | rest, {}, {}
        if op.startswith("max_pool2d"):
            return self.max_pool2d(op)
        if op.startswith("softmax"):
            logits = s.get("offset", 0) + s["spread"] * self.topped(self.normal("logits", s["n"], s["o"]), rows=True)
            return {"logits": logits, "labels": self.integers("labels", s["o"], s["n"])}, {}, {"smoothing": s["smoothing"]}
        if op.startswith("basic_block"):
            return self.block(op)
        if "network" in OPS[op].params:
            return self.network(op)
        if op in ("relu", "relu_backward", "global_avg_pool", "global_avg_pool_backward"):
            x = self.fill("x", s["n"], *s["size"], s["c"], terms=prod(s["size"]))
            dy = self.fill("dy", *((s["n"], s["c"]) if "pool" in op else x.shape))
            return ({"dy": dy} if op.endswith("backward") else {}) | {"x": x}, {}, {}
        return getattr(self, op)()

    # ------------------------------------------------------------------------------------------------------- numbers

    def normal(self, name: str, *shape: int) -> np.ndarray:
        return draws.standard_normal(self.seed, f"{self.stream}/{name}", shape)

    def tailed(self, name: str) -> np.ndarray:
        """Draws for POOL devices, every 25th farther from 0 than any of so few would be."""
        z = self.normal(name, POOL)
        z[24::25] = np.resize((4.5, -4.5, 8.0, -8.0), len(z[24::25]))
        return z

    def magnitudes(self, name: str, *shape: int) -> np.ndarray:
        """Powers of two, many where the setting is wild, else 1."""
        reach = (3 if self.dtype == "float16" else 30) * self.s.get("wild", False)
        return np.exp2(self.integers(f"{name}/exponents", 2 * reach + 1, *shape) - reach)

    def uniform(self, name: str, *shape: int) -> np.ndarray:
        return draws.uniform(self.seed, f"{self.stream}/{name}", shape)

    def topped(self, a: np.ndarray, rows: bool = False) -> np.ndarray:
        """The array with its largest magnitude at its end, or at the end of each row, where the setting says so."""
        if self.s.get("top") == "last":
            (a[..., -1:] if rows else a.reshape(-1)[-1:])[...] = 1.5 * np.abs(a).max()
        return a

    def integers(self, name: str, high: int, *shape: int) -> np.ndarray:
        return draws.integers(self.seed, f"{self.stream}/{name}", high, shape)

    def fill(self, name: str, *shape: int, terms: int = 1) -> np.ndarray:
        """Numbers of the setting's kind, so that sums of `terms` of them, times numbers about 1, stay in the dtype's range."""
        z, kind, dtype = self.normal(name, *shape), self.s.get("fill", "full"), self.dtype
        if kind == "eighths":
            return np.rint(8 * z) / 8
        if kind == "small":  # normal numbers near the smallest
            return np.sign(z) * (np.abs(z) + 0.1) * TINY[dtype] * 2.0**12
        if kind == "large":
            return np.clip(z, -4, 4) * (LARGEST[dtype] / terms / (2.0**20 if dtype == "float64" else 64))
        if kind == "mixed":
            spread = {"float64": 60, "float16": 3}.get(dtype, 12)
            return z * np.exp2(self.integers(f"{name}/exponents", 2 * spread + 1, *shape) - spread)
        if kind == "cancelling":  # far from 0, and so close together that their squares tell them apart no more
            return _FAR + 4 * _FAR * sqrt(UNIT_ROUNDOFF[dtype]) * z
        return z

    def pair(self, x_shape, w_shape, axis: int) -> tuple[np.ndarray, np.ndarray]:
        """Inputs and weights of sums over a last axis of x and an axis of w; the terms cancel where they are to."""
        x, w = self.fill("x", *x_shape, terms=prod(w_shape[1:])), self.normal("w", *w_shape) * 0.5
        if self.s["fill"] == "cancelling" and w_shape[axis] > 1:
            half = w_shape[axis] // 2
            first, second = ([slice(None)] * len(w_shape) for _ in range(2))
            first[axis], second[axis] = slice(0, half), slice(half, 2 * half)
            w[tuple(second)] = -w[tuple(first)]
        return x, w

    # ------------------------------------------------------------------------------------------------------- layers

    def conv2d(self, op):
        s, (k_h, k_w), (h, width) = self.s, self.s["kernel"], self.s["size"]
        x, w = self.pair((s["n"], h, width, s["c"]), (s["o"], s["c"], k_h, k_w), 1)
        out = ((size + 2 * s["padding"] - k) // s["stride"] + 1 for size, k in ((h, k_h), (width, k_w)))
        dy = {"dy": self.normal("dy", s["n"], *out, s["o"])} if op.endswith("backward") else {}
        return dy | {"x": x, "w": w}, {}, {"stride": s["stride"], "padding": s["padding"]}

    def batch_norm(self, op):
        s, c = self.s, self.s["c"]
        x, weight = self.fill("x", s["n"], *s["size"], c, terms=s["n"] * prod(s["size"])), self.normal("weight", c)
        mean, var = _FAR * (s["fill"] == "cancelling") + self.normal("mean", c), 0.5 + self.uniform("var", c)
        if s.get("wild"):
            x, var, weight[::3] = x * self.magnitudes("x", c), var * self.magnitudes("var", c), 0
        given = {"batch_norm": {"mean": mean, "var": var}, "batch_norm_backward": {"mean": mean, "var": var}}
        running = {"running_mean": mean, "running_var": var}
        if op.endswith("backward"):
            inputs = {"dy": self.normal("dy", *x.shape), "x": x, "weight": weight} | given.get(op, {})
        else:
            inputs = {"x": x, "weight": weight, "bias": self.normal("bias", c)} | given.get(op, running)
        return inputs, {}, {name: s[name] for name in OPS[op].params}

    def max_pool2d(self, op):
        s, k, (h, width) = self.s, self.s["kernel"], self.s["size"]
        shape, params = (s["n"], h, width, s["c"]), {name: s[name] for name in OPS[op].params}
        if not op.endswith("backward"):
            return {"x": self.fill("x", *shape)}, {}, params
        m = max(7, k)
        place = (np.arange(h)[:, None] % m * m + np.arange(width) % m)[None, :, :, None]  # all different under a window
        order = np.argsort(self.uniform("order", s["n"], m * m, s["c"]), axis=1)
        x = np.take_along_axis(order, np.broadcast_to(place, shape).reshape(s["n"], -1, s["c"]), 1).reshape(shape) / 8 - 3
        out = ((size + 2 * s["padding"] - k) // s["stride"] + 1 for size in (h, width))
        return {"dy": self.integers("dy", 15, s["n"], *out, s["c"]) / 4 - 1.75, "x": x}, {}, params  # sums of these are exact

    def block(self, op):
        s, c, o = self.s, self.s["c"], self.s["o"]
        state = self.layer("conv1", "bn1", (o, c, 3, 3)) | self.layer("conv2", "bn2", (o, o, 3, 3))
        if s["shortcut"] == "projection" and (c != o or s["stride"] > 1):
            state |= self.layer("downsample.0", "downsample.1", (o, c, 1, 1))
        x, params = self.normal("x", s["n"], *s["size"], c), {name: s[name] for name in OPS[op].params}
        out = (-(-size // s["stride"]) for size in s["size"])
        return ({"dy": self.normal("dy", s["n"], *out, o)} if op.endswith("backward") else {}) | {"x": x} | state, {}, params

    def layer(self, conv, bn, shape):
        o = shape[0]
        state = {f"{conv}.weight": self.normal(conv, *shape) * sqrt(2 / prod(shape[1:])), f"{bn}.weight": self.normal(bn, o)}
        state[f"{bn}.bias"], state[f"{bn}.running_mean"] = (self.normal(f"{bn}/{k}", o) / 4 for k in ("bias", "mean"))
        return state | {f"{bn}.running_var": 0.5 + self.uniform(f"{bn}/var", o)}

    def network(self, op):
        s, c = self.s, self.s.get("c", 2)
        pixels = s.get("size", (9, 8) if s["stem"] == "imagenet" else (5, 4))
        config = {"in_channels": c, "num_classes": s["classes"], "widths": list(s["widths"]), "stem": s["stem"]}
        config |= {"blocks": np.resize(s["blocks"], len(s["widths"])).tolist(), "shortcut": s["shortcut"], "block": s["block"]}
        net, state = ResNet(**{k: tuple(v) if isinstance(v, list) else v for k, v in config.items()}), {}
        for conv, bn, shape in net.conv_bn_pairs():
            state |= self.layer(conv, bn, shape)
            state[f"{conv}.weight"] = self.topped(state[f"{conv}.weight"])
        classes, features = net.shapes()["fc.weight"]
        state["fc.weight"], state["fc.bias"] = self.normal("fc", classes, features) / sqrt(features), self.normal("b", classes)
        name = "x_calibration" if op == "adabs" else "x"
        inputs = {name: self.normal("x", s["n"] + (op == "adabs"), *pixels, c)} | state
        if op == "resnet_backward":
            inputs = {"dlogits": self.normal("dlogits", s["n"], classes)} | inputs
        params = {"network": config} | {name: s[name] for name in OPS[op].params if name in s}
        if op != "chip":
            return inputs, {}, params
        noise = chip_noise(state, s["seed"], s["t_s"], s["read"], s["gdc"])
        return inputs, noise, params | {"model": self.model()}

    # ------------------------------------------------------------------------------------------- device and training

    def model(self) -> dict:
        profile = self.s["profile"]
        if profile.startswith("G_max"):
            return JOSHI2020 | {"profile": "g_max", "g_max_us": float(profile.split()[1])}
        return {"joshi2020": JOSHI2020, "aihwkit": AIHWKIT, "clamped": CLAMPED, "crosssim": CROSSSIM}[profile]

    def devices(self, name: str, values) -> np.ndarray:
        """As many devices as asked for, each one of the values; all arrays of a case take the same ones."""
        n = self.s["devices"]
        return values[np.arange(n) % POOL] if n > POOL else values[:n]

    def targets_us(self) -> np.ndarray:
        g = self.model()["g_max_us"] * np.minimum(1.05 * self.uniform("g", POOL), 1.0)
        weak = np.exp2(-20 * self.s.get("wild", False) * self.uniform("magnitude", POOL))
        return np.where(self.uniform("weak", POOL) < 0.2, 0.0, g * weak)

    def program(self):
        inputs, noise = {"g_target_us": self.targets_us()}, {"z": self.tailed("z")}
        return self.spread(inputs), self.spread(noise), {"model": self.model()}

    drift_exponent = program

    def spread(self, arrays: dict) -> dict:
        return {name: self.devices(name, v) for name, v in arrays.items()}

    def drift(self):
        inputs = {"g_prog_us": self.targets_us() * (1 + 0.1 * self.uniform("off", POOL)), "nu": 0.06 * self.normal("nu", POOL)}
        return self.spread(inputs), {}, {"model": self.model(), "t_s": self.s["t_s"]}

    def read(self):
        g = self.targets_us()
        inputs, z = {"g_drift_us": g * self.uniform("left", POOL), "g_target_us": g}, {"z": self.tailed("z")}
        return self.spread(inputs), self.spread(z), {"model": self.model(), "t_s": self.s["t_s"]}

    def map(self):
        w = self.s.get("scale", 1.0) * self.topped(self.fill("w", *self.s["shape"]))
        return {"w": w}, {}, {"g_max_us": self.s["g_max_us"]}

    def gdc(self):
        g = {f"g_{k}_us": self.s["g_max_us"] * self.uniform(k, 2, self.s["o"], self.s["c"]) for k in ("t0", "t")}
        if self.s.get("wild") and self.s["read_out"] in ("one-hot", "per column"):  # the current at t is at its floor
            g["g_t_us"][1] = g["g_t_us"][0]
        return g, {}, {"read_out": self.s["read_out"], "g_max_us": self.s["g_max_us"]}

    def crossbar_mvm(self):
        s = self.s
        x = self.topped(self.normal("x", s["n"], s["c"]), rows=True) * (sqrt(TINY[self.dtype]) if s.get("faint") else 1)
        inputs = {"x": x, "g_us": s["g_max_us"] * self.uniform("g", 2, s["c"], s["o"])}
        setting = {"steps": s["steps"], "rounding": "half-even", "order": "clip first", "origin": "zero"}
        setting |= {k: s[k] for k in setting.keys() & s.keys()}
        limits = {"dac": s.get("limit", 3.0), "adc": 4 * s.get("limit", 3.0)}
        converters = {k: None if s["steps"] is None else setting | {"limit": limit} for k, limit in limits.items()}
        tile = {"tile": [-(-s["c"] // s.get("tiles", 3)), -(-s["o"] // 2)]}
        alpha = (s["alpha"] * (0.5 + self.uniform("alpha", s["o"]))).tolist() if s.get("alphas") == "a column" else s["alpha"]
        return inputs, {}, converters | tile | {"scale": s.get("scale", 20.0), "alpha": alpha, "g_max_us": s["g_max_us"]}

    def dac(self):
        converter = {k: v for k, v in self.s.items() if k != "numbers"}
        return {"x": self.s["limit"] / 2 * self.normal("x", self.s.get("numbers", 150))}, {}, {"converter": converter}

    adc = dac

    def inject_weight_noise(self):
        s, shape = self.s, self.s["shape"]
        state = {"fc.weight": self.topped(self.normal("w", *shape)), "fc.bias": self.normal("b", shape[0])}
        noise = {k: draws.standard_normal(s["seed"], f"noise/{s['step']}/{k}", v.shape) for k, v in state.items()}
        return state, noise, {name: s[name] for name in ("eta", "seed", "step")}

    def clip_weights(self):
        state = {"fc.weight": self.normal("w", *self.s["shape"]), "fc.bias": self.normal("b", self.s["shape"][0])}
        return {k: self.s.get("offset", 0) + v for k, v in state.items()}, {}, {"alpha": self.s["alpha"]}

    def sgd_step(self):
        inputs = {name: self.normal(name, *self.s["shape"]) for name in ("w", "grad", "velocity")}
        return inputs, {}, {name: self.s[name] for name in OPS["sgd_step"].params}

    def draws(self):
        return {}, {}, {name: self.s[name] for name in ("seed", "name", "n", "high")}
