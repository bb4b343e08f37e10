"""Cases of any size and any values: a setting, which names a level for every factor of an operation, as inputs and params.

`design` takes settings by a plan, `search` by chance; both make the case here. An operation's record says what dimensions an
array has, to whose letters the setting gives sizes, and of what kind its numbers are: a kind is a method of `_Maker`.
Inputs have all the bits of the dtype under test, from draws of the case's own name, and the expected values belong to them.
"""

from dataclasses import replace
from math import prod, sqrt
from pathlib import Path

import numpy as np

from pcmref import draws, store
from pcmref.golden.bounds import in_dtype
from pcmref.golden.case import Case
from pcmref.golden.numbers import LARGEST, TINY, UNIT_ROUNDOFF
from pcmref.golden.ops import OPS
from pcmref.nn.resnet import ResNet

DATA = store.read_toml(Path(__file__).parent / "design.toml")
PROFILES = {name: DATA["profiles"]["joshi2020"] | changes for name, changes in DATA["profiles"].items()}
POOL = 150  # distinct devices of a case; of more devices, each is one of these
_FAR = 32.0


def make(op: str, name: str, setting: dict, dtype: str, seed: int = 0, level: int = 2) -> Case:
    """The case of a setting, with numbers that the dtype holds."""
    maker = _Maker(op, f"golden/{op}/{name}", setting, dtype, seed)
    with np.errstate(over="ignore"):  # numbers beyond the range have no bound: no case is made of them
        inputs, params = maker.arrays("inputs"), {param: maker.param(param) for param in OPS[op].params}
        inputs = {k: rounded(v, dtype) for k, v in inputs.items()}
        noise = {k: rounded(v, dtype) for k, v in maker.arrays("noise").items()}
    why = ", ".join(f"{factor} {level}" for factor, level in setting.items())
    return Case(op, name, why, inputs, noise | streamed(op, inputs, params), params, level, dtype=dtype)


def rounded(values, dtype: str) -> np.ndarray:
    """What the dtype holds, as float64; integers as they are."""
    with np.errstate(over="ignore"):
        held = in_dtype({"": values}, dtype)[""]
    return held.astype(np.float64) if held.dtype.kind == "f" else held


def streamed(op: str, inputs: dict, params: dict) -> dict[str, np.ndarray]:
    """{noise: what its stream draws} of an operation whose params name the streams."""
    streams = OPS[op].streams({name: np.shape(array) for name, array in inputs.items()}, params)
    return {name: draws.standard_normal(params["seed"], *stream) for name, stream in streams.items()}


def is_pooled(op: str) -> bool:
    """Whether of many devices of a case POOL are different."""
    return "devices" in OPS[op].levels


def sparse(case: Case, kept: int, everywhere: bool) -> Case:
    """The case with all but the last few numbers of its largest input 0, or of all; of many devices, POOL again and again."""
    largest = max(case.inputs, key=lambda k: (case.inputs[k].ndim, case.inputs[k].size), default=None)
    inputs = dict(case.inputs)
    for name, array in inputs.items():
        if array.dtype.kind == "f" and (everywhere or name == largest):
            few = array.ravel()[: POOL if is_pooled(case.op) else None].copy()
            few[:-kept] = 0
            inputs[name] = np.resize(few, array.shape)
    return replace(case, inputs=inputs)


class _Maker:
    """The arrays and parameters of one setting."""

    def __init__(self, op: str, stream: str, setting: dict, dtype: str, seed: int):
        self.op, self.stream, self.s, self.dtype, self.seed = OPS[op], stream, setting, dtype, seed

    def arrays(self, table: str) -> dict[str, np.ndarray]:
        """Those of a table that have a kind; a name in braces stands for all that the kind makes."""
        made, sizes = {}, self.sizes()
        for name, array in getattr(self.op, table).items():
            kind, _, over = array.kind.partition(" over ")  # sums over these dimensions stay in the dtype's range
            if kind and not kind.startswith("stream"):
                shape = tuple(int(n) for d in array.dims.split(",") for n in np.atleast_1d(sizes.get(d, d)))
                own = name.split(" ")[0]
                one = getattr(self, kind)(own, shape, prod(sizes[d] for d in over.split(",") if d))
                made |= one if "{" in name else {own: one}
        return made

    def sizes(self) -> dict:
        """The sizes that the letters of dimensions stand for."""
        s, size, kernel = self.s, self.size(), self.s.get("kernel", 3)
        kernel = kernel if isinstance(kernel, tuple) else (kernel, kernel)
        out = ((n + 2 * s.get("padding", 1) - k) // s.get("stride", 1) + 1 for n, k in zip(size, kernel, strict=True))
        letters = {"N": s.get("n"), "C": s.get("c", 2), "K": s.get("c"), "O": s.get("o", s.get("classes"))}
        letters |= zip(("H", "W", "KH", "KW", "P", "Q"), (*size, *kernel, *out), strict=True)
        whole = (s["n"], *size, s.get("c")) if "n" in s else s.get("shape", (s.get("numbers", 150),))
        return letters | {"any": whole, "D": s.get("shape", (POOL,)), "by name": ()}

    def size(self) -> tuple[int, int]:
        """Height and width of images."""
        return self.s.get("size", (9, 8) if self.s.get("stem") == "imagenet" else (5, 4))

    # ------------------------------------------------------------------------------------------------------- numbers

    def normal(self, name: str, shape, terms: int = 1) -> np.ndarray:
        return draws.standard_normal(self.seed, f"{self.stream}/{name}", shape)

    def uniform(self, name: str, shape=(POOL,)) -> np.ndarray:
        return draws.uniform(self.seed, f"{self.stream}/{name}", shape)

    def integers(self, name: str, high: int, shape) -> np.ndarray:
        return draws.integers(self.seed, f"{self.stream}/{name}", high, shape)

    def magnitudes(self, name: str, shape) -> np.ndarray:
        """Powers of two, many where the setting is wild, else 1."""
        reach = (3 if self.dtype == "float16" else 30) * self.s.get("wild", False)
        return np.exp2(self.integers(f"{name}/exponents", 2 * reach + 1, shape) - reach)

    def topped(self, a: np.ndarray, rows: bool = False) -> np.ndarray:
        """The array with its largest magnitude at its end, or at the end of each row, where the setting says so."""
        if self.s.get("top") == "last":
            (a[..., -1:] if rows else a.reshape(-1)[-1:])[...] = 1.5 * np.abs(a).max()
        return a

    def fill(self, name: str, shape, terms: int = 1) -> np.ndarray:
        """Numbers of the setting's kind, so that sums of `terms` of them, times numbers about 1, stay in the dtype's range."""
        z, kind, dtype = self.normal(name, shape), self.s.get("fill", "full"), self.dtype
        if kind == "eighths":
            z = np.rint(8 * z) / 8
        if kind == "small":  # normal numbers near the smallest
            z = np.sign(z) * (np.abs(z) + 0.1) * TINY[dtype] * 2.0**12
        if kind == "large":
            z = np.clip(z, -4, 4) * (LARGEST[dtype] / terms / (2.0**20 if dtype == "float64" else 64))
        if kind == "mixed":
            spread = {"float64": 60, "float16": 3}.get(dtype, 12)
            z = z * np.exp2(self.integers(f"{name}/exponents", 2 * spread + 1, shape) - spread)
        if kind == "cancelling":  # far from 0, and so close together that their squares tell them apart no more
            z = _FAR + 4 * _FAR * sqrt(UNIT_ROUNDOFF[dtype]) * z
        return z * self.magnitudes(name, shape[-1:])

    # ------------------------------------------------------------------------------------------------------- layers

    def factor(self, name, shape, terms):
        """Weights of sums over the second axis, the terms of which cancel where they are to."""
        w, half = 0.5 * self.normal(name, shape), shape[1] // 2
        if self.s["fill"] == "cancelling":
            w[:, half : 2 * half] = -w[:, :half]
        return w

    def gain(self, name, shape, terms):
        weight = self.normal(name, shape)
        if self.s.get("wild"):
            weight[::3] = 0
        return weight

    def mean(self, name, shape, terms):
        return _FAR * (self.s["fill"] == "cancelling") + self.normal("mean", shape)

    def variance(self, name, shape, terms):
        return (0.5 + self.uniform("var", shape)) * self.magnitudes("var", shape)

    def logits(self, name, shape, terms):
        return self.s.get("offset", 0) + self.s["spread"] * self.topped(self.normal(name, shape), rows=True)

    def label(self, name, shape, terms):
        return self.integers(name, self.s["o"], shape)

    def places(self, name, shape, terms):
        """Numbers that are all different under a window."""
        (n, h, w, c), m = shape, max(7, self.s["kernel"])
        place = (np.arange(h)[:, None] % m * m + np.arange(w) % m)[None, :, :, None]
        order = np.argsort(self.uniform("order", (n, m * m, c)), axis=1)
        return np.take_along_axis(order, np.broadcast_to(place, shape).reshape(n, -1, c), 1).reshape(shape) / 8 - 3

    def quarters(self, name, shape, terms):
        """Numbers whose sums are exact."""
        return self.integers(name, 15, shape) / 4 - 1.75

    def layer(self, conv, bn, shape):
        o = shape[:1]
        state = {f"{conv}.weight": self.normal(conv, shape) * sqrt(2 / prod(shape[1:])), f"{bn}.weight": self.normal(bn, o)}
        state[f"{bn}.bias"], state[f"{bn}.running_mean"] = (self.normal(f"{bn}/{k}", o) / 4 for k in ("bias", "mean"))
        return state | {f"{bn}.running_var": 0.5 + self.uniform(f"{bn}/var", o)}

    def block(self, *_):
        c, o = self.s["c"], self.s["o"]
        state = self.layer("conv1", "bn1", (o, c, 3, 3)) | self.layer("conv2", "bn2", (o, o, 3, 3))
        if self.s["shortcut"] == "projection" and (c != o or self.s["stride"] > 1):
            state |= self.layer("downsample.0", "downsample.1", (o, c, 1, 1))
        return state

    def network(self, *_):
        net, state = ResNet(**{k: tuple(v) if isinstance(v, list) else v for k, v in self.param("network").items()}), {}
        for conv, bn, shape in net.conv_bn_pairs():
            state |= self.layer(conv, bn, shape)
            state[f"{conv}.weight"] = self.topped(state[f"{conv}.weight"])
        classes, features = net.shapes()["fc.weight"]
        fc = {"fc.weight": self.normal("fc", (classes, features)) / sqrt(features), "fc.bias": self.normal("b", (classes,))}
        return state | fc

    def calibration(self, name, shape, terms):
        """One image more than whole batches."""
        return self.normal("x", (shape[0] + 1, *shape[1:]))

    # ------------------------------------------------------------------------------------------- device and training

    def spread(self, values: np.ndarray) -> np.ndarray:
        """As many devices as asked for, each one of the values; all arrays of a case take the same ones."""
        n = self.s["devices"]
        return values[np.arange(n) % POOL] if n > POOL else values[:n]

    def targets_us(self) -> np.ndarray:
        g = self.param("model")["g_max_us"] * np.minimum(1.05 * self.uniform("g"), 1.0)
        weak = np.exp2(-20 * self.s.get("wild", False) * self.uniform("magnitude"))
        return np.where(self.uniform("weak") < 0.2, 0.0, g * weak)

    def target(self, *_):
        return self.spread(self.targets_us())

    def programmed(self, *_):
        return self.spread(self.targets_us() * (1 + 0.1 * self.uniform("off")))

    def drifted(self, *_):
        return self.spread(self.targets_us() * self.uniform("left"))

    def exponent(self, name, shape, terms):
        return self.spread(0.06 * self.normal(name, shape))

    def tailed(self, name, shape, terms):
        """Draws, every 25th farther from 0 than any of so few would be."""
        z = self.normal(name, shape)
        z[24::25] = np.resize((4.5, -4.5, 8.0, -8.0), len(z[24::25]))
        return self.spread(z)

    def peaked(self, name, shape, terms):
        return self.s.get("scale", 1.0) * self.topped(self.fill(name, shape))

    def currents(self, name, shape, terms):
        g = self.s["g_max_us"] * self.uniform(name.split("_")[1], shape)
        if self.s.get("wild") and self.s["read_out"] in ("one-hot", "per column") and name == "g_t_us":
            g[1] = g[0]  # the current at t is at its floor
        return g

    def converted(self, name, shape, terms):
        return self.s["limit"] / 2 * self.normal(name, shape)

    def voltages(self, name, shape, terms):
        return self.topped(self.normal(name, shape), rows=True) * (sqrt(TINY[self.dtype]) if self.s.get("faint") else 1)

    def conductances(self, name, shape, terms):
        return self.s["g_max_us"] * self.uniform("g", shape)

    def crossbar(self, *_):
        shape = self.s["shape"]
        state = {"fc.weight": self.topped(self.normal("w", shape)), "fc.bias": self.normal("b", shape[:1])}
        return {k: self.s.get("offset", 0) + v for k, v in state.items()}

    # -------------------------------------------------------------------------------------------------------- params

    def param(self, name: str):
        """A parameter: the factor of its name, or what is made of several."""
        return getattr(self, f"param_{name}", lambda: self.s[name])()

    def param_network(self):
        s = self.s
        config = {"in_channels": s.get("c", 2), "num_classes": s["classes"], "widths": list(s["widths"]), "stem": s["stem"]}
        blocks = np.resize(s["blocks"], len(s["widths"])).tolist()
        return config | {"blocks": blocks, "shortcut": s["shortcut"], "block": s["block"]}

    def param_model(self):
        profile = self.s["profile"]
        if profile.startswith("G_max"):
            return PROFILES["joshi2020"] | {"profile": "g_max", "g_max_us": float(profile.split()[1])}
        return PROFILES[profile]

    def param_converter(self, times: float = 1.0):
        plain = {"limit": 3.0, "rounding": "half-even", "order": "clip first", "origin": "zero"}
        setting = {"steps": self.s["steps"]} | {k: self.s.get(k, v) for k, v in plain.items()}
        return None if self.s["steps"] is None else setting | {"limit": times * setting["limit"]}

    param_dac = param_converter

    def param_adc(self):
        return self.param_converter(4)

    def param_tile(self):
        return [-(-self.s["c"] // self.s.get("tiles", 3)), -(-self.s["o"] // 2)]

    def param_scale(self):
        return self.s.get("scale", 20.0)

    def param_alpha(self):
        alpha = self.s["alpha"]
        return (alpha * (0.5 + self.uniform("alpha", (self.s["o"],)))).tolist() if self.s.get("alphas") == "a column" else alpha
