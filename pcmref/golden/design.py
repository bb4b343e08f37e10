"""A design that covers all pairs of levels of each operation's factors, in every dtype; its cases are made when asked for.

Their names say dtype and number, conv2d/v1/cover-float32-17; the same name is the same case for ever. What is stored in the
golden file has eight bits and few channels; mistakes in a vector's tail, beyond some size, for one kernel, or of a product of
fewer bits show here. The factors are in an operation's record, levels that several have and settings far beyond them in
design.toml.
"""

from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from itertools import combinations, islice
from math import prod

import numpy as np

from pcmref.golden import make
from pcmref.golden.backends import Capabilities
from pcmref.golden.bounds import KINK_SHARE, accumulation_roundoff, is_transformed, transform_scale
from pcmref.golden.case import Case
from pcmref.golden.expected import Expected, on_the_spot
from pcmref.golden.numbers import Precision, TooCoarse
from pcmref.golden.ops import DTYPES, OPS
from pcmref.golden.verify import Golden

TRIES = 6  # seeds, until none of a network's choices is left open by the bounds
LEVEL_1 = {False: 6, True: 3}  # the first cases of an operation, which cover the most pairs: fewer where it is composite
APART = {"c", "o"}  # not every pair of channels in and out: each with every other factor is enough


def _level(value):
    """A level as it goes into a setting: lists become tuples, "none" is None."""
    return tuple(map(_level, value)) if isinstance(value, list) else None if value == "none" else value


@cache
def levels(op: str, search: bool = False) -> dict[str, tuple]:
    """{factor: levels} of an operation; with those that a search and the cases far beyond the design have besides."""
    named = OPS[op].levels | (OPS[op].search if search else {})
    return {factor: _level(make.DATA["levels"][of] if isinstance(of, str) else of) for factor, of in named.items()}


@cache
def far(op: str) -> tuple[dict, ...]:
    """The settings far beyond the design, each in full."""
    first = {factor: of[0] for factor, of in levels(op).items()}
    first |= {factor: level for factor, level in {"fill": "full", "size": (5, 4), "shape": (17, 33)}.items() if factor in first}
    found = (setting for group in OPS[op].far for setting in make.DATA["far"][group])
    return tuple(first | {factor: _level(level) for factor, level in setting.items()} for setting in found)


@cache
def _layers(network: str) -> tuple[dict, ...]:
    """The settings of the convolutions that a network has, of one image, padded by half their kernel."""

    def setting(c, o, kernel, stride, pixels):
        shape = {"size": (pixels, pixels), "kernel": (kernel, kernel), "stride": stride, "padding": kernel // 2}
        return {"n": 1, "c": c, "o": o, "fill": "full"} | shape

    return tuple(setting(*layer) for layer in make.DATA["layers"][network])


def fits(op: str, s: dict, work: float = 6e4) -> bool:
    """Whether a setting, or the part of one that is there, can be a case of the operation of at most `work` products."""
    height, width = s.get("size", (1, 1))
    kernel, of_batch = s.get("kernel", 1), OPS[op].of_batch
    pools = isinstance(kernel, int)
    k_h, k_w = (kernel, kernel) if pools else kernel
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
    if "batch_size" in OPS[op].levels and s.get("stem") == "imagenet" and len(s.get("widths", ())) > 2:
        return False  # single pixels in the end, of a last batch that may be one image
    stride = s.get("stride", 1)
    size = prod(s.get(name, 1) for name in ("n", "c", "o")) * k_h * k_w * -(-height // stride) * -(-width // stride)
    size *= max(prod(s.get("shape", (1,))) / 2, 1) * max(s.get("widths", (1,))) ** 2
    return size * OPS[op].cost <= work


# ----------------------------------------------------------------------------------------------------------- the design


@cache
def settings(op: str, most: int | None = None) -> tuple[dict, ...]:
    """Settings in which every pair of levels that fits occurs, or the first of them."""
    return tuple(islice(_greedily(op), most))


def _greedily(op: str) -> Iterator[dict]:
    """Each with as many pairs as there are left to add."""
    of = levels(op)
    pairs = (pair for pair in combinations(of, 2) if {*pair} != APART)
    missing = {((a, x), (b, y)): None for a, b in pairs for x in of[a] for y in of[b]}
    while missing:
        first = next(iter(missing))
        setting = _completed(op, dict(first), missing) or _completed(op, dict(first), {})
        if setting is not None:
            found = {factor: setting[factor] for factor in of}
            for pair in combinations(found.items(), 2):
                missing.pop(pair, None)
            yield found
        missing.pop(first, None)  # where nothing is left to choose, the pair does not fit


def _completed(op: str, setting: dict, missing: dict) -> dict | None:
    """The setting with a level for every factor, each with the most missing pairs; None where a factor has none that fits.

    Such a factor is asked first the next time.
    """
    of = levels(op)
    order, place = sorted(of.keys() - setting.keys(), key=lambda f: (-len(of[f]), f)), list(of).index
    for _ in range(len(order) + 1):
        whole = dict(setting)
        for factor in order:
            possible = [level for level in of[factor] if fits(op, whole | {factor: level})]
            if not possible:
                order = [factor, *(f for f in order if f != factor)]
                break
            pairs = ([((factor, x), other) for other in whole.items()] for x in possible)
            gains = [sum(tuple(sorted(pair, key=lambda item: place(item[0]))) in missing for pair in of_x) for of_x in pairs]
            whole[factor] = possible[int(np.argmax(gains))]
        else:
            return whole
    return None


# ------------------------------------------------------------------------------------------------------ cases by name


def setting(op: str, kind: str, i: int) -> dict:
    """The setting of the i-th case of a kind, which is that of its name."""
    if kind == "cover":
        quick = LEVEL_1[OPS[op].composite]
        return settings(op, quick if i < quick else None)[i]
    return (far(op) if kind == "beyond" else _layers(kind))[i]


def _level_of(op: str, kind: str, i: int) -> int:
    return {"beyond": 2, "joshi32": 2, "resnet34": 3}.get(kind, 1 if i < LEVEL_1[OPS[op].composite] else 2)


def names(op: str, dtype: str, level: int) -> list[str]:
    """The names of an operation's cases in a dtype up to a level: from 2 those beyond, joshi32's layers; from 3 ResNet-34's."""
    if dtype not in OPS[op].dtypes:
        return []
    many = {"cover": len(settings(op, None if level > 1 else LEVEL_1[OPS[op].composite]))}
    many |= {"beyond": len(far(op))} if level > 1 else {}
    if OPS[op].is_convolution:
        many |= {network: len(_layers(network)) for network in ("joshi32", "resnet34")[: level - 1]}
    return [f"{kind}-{dtype}-{i}" for kind, n in many.items() for i in range(n)]


def keys(ops, dtypes, level: int) -> list[str]:
    """The keys of all cases up to a level."""
    return [f"{op}/v{OPS[op].version}/{name}" for dtype in dtypes for op in ops for name in names(op, dtype, level)]


def is_key(key: str) -> bool:
    """Whether a case of this design has the key."""
    op, version, name = key.split("/") if key.count("/") == 2 else ("", "", "")
    return op in OPS and version == "v1" and any(name in names(op, dtype, 3) for dtype in DTYPES)


def golden(key: str, capabilities: Capabilities) -> Golden | None:
    """The case of a key with what is expected of a backend of these capabilities; None where no bound says anything."""
    op, _, name = key.split("/")
    kind, dtype, i = name.split("-")
    of, level = setting(op, kind, int(i)), _level_of(op, kind, int(i))
    tries = (made(make.make(op, name, of, dtype, seed, level), capabilities) for seed in range(TRIES))
    return next((one for one in tries if one is not None), None)


def made(case: Case, capabilities: Capabilities) -> Golden | None:
    """A drawn case with what is expected of a backend of these capabilities; None where no bound says anything."""
    u, flush = accumulation_roundoff(case.op, capabilities, case.dtype), capabilities.flush_denormals
    precision = Precision.of(case.dtype, u, flush)
    few, index = _distinct(case)
    try:
        with np.errstate(over="ignore", invalid="ignore"):  # what overflows has no bound
            expected = on_the_spot(case.op, few.inputs, few.noise, case.params, precision)
    except TooCoarse:
        return None
    if index is not None:
        expected = {k: _taken(e, index) for k, e in expected.items()}
    bounds = [
        (e.scale.max(initial=0) * precision.u, np.abs(e.value).max(initial=0)) for e in expected.values() if e.scale is not None
    ]
    if is_transformed(case, capabilities):
        largest = max(transform_scale(case, k, e.terms, capabilities)[1] for k, e in expected.items())
        if not largest <= precision.largest:
            return None
    if any(e.kink is not None and np.isfinite(e.kink).mean() > KINK_SHARE for e in expected.values()):
        return None
    loose = bounds and all(bound > largest / 4 > 0 for bound, largest in bounds)
    return None if loose else Golden(case, expected)


def _distinct(case: Case) -> tuple[Case, np.ndarray | None]:
    """The case with each of its devices once, and where each device is among these; the case itself where all are different."""
    n = max((v.size for v in case.inputs.values()), default=0)
    if n <= make.POOL or not make.is_pooled(case.op):
        return case, None
    first = {k: {name: v[: make.POOL] for name, v in getattr(case, k).items()} for k in ("inputs", "noise")}
    return replace(case, **first), np.arange(n) % make.POOL


def _taken(e: Expected, index) -> Expected:
    return replace(e, value=e.value[index], scale=None if e.scale is None else e.scale[index])
