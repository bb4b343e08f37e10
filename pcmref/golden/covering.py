"""A design that covers all pairs of levels of each operation's factors, in every dtype; its cases are made when asked for.

Their names say dtype and number, conv2d/v1/cover-float32-17; the same name is the same case for ever. What is stored in the
golden file has eight bits and few channels; mistakes in a vector's tail, beyond some size, for one kernel, or of a product of
fewer bits show here.
"""

from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from itertools import combinations, islice

import numpy as np

from pcmref.golden import drawn, factors
from pcmref.golden.backends import Capabilities
from pcmref.golden.bounds import KINK_SHARE, Precision, accumulation_roundoff, is_transformed, transform_scale
from pcmref.golden.case import Case
from pcmref.golden.expected import Expected, on_the_spot
from pcmref.golden.numbers import TooCoarse
from pcmref.golden.ops import DTYPES, OPS
from pcmref.golden.verify import Golden

TRIES = 6  # seeds, until none of a network's choices is left open by the bounds
LEVEL_1 = {False: 6, True: 3}  # the first cases of an operation, which cover the most pairs: fewer where it is composite


@cache
def design(op: str, most: int | None = None) -> tuple[dict, ...]:
    """Settings in which every pair of levels that fits occurs, or the first of them."""
    return tuple(islice(_settings(op), most))


def _settings(op: str) -> Iterator[dict]:
    """Greedily, each with as many pairs as there are left to add."""
    levels = factors.FACTORS[op]
    pairs = ((a, b) for a, b in combinations(levels, 2) if (a, b) not in factors.APART)
    missing = {((a, x), (b, y)): None for a, b in pairs for x in levels[a] for y in levels[b]}
    while missing:
        first = next(iter(missing))
        setting = _completed(op, dict(first), missing) or _completed(op, dict(first), {})
        if setting is not None:
            found = {factor: setting[factor] for factor in levels}
            for pair in combinations(found.items(), 2):
                missing.pop(pair, None)
            yield found
        missing.pop(first, None)  # where nothing is left to choose, the pair does not fit


def _completed(op: str, setting: dict, missing: dict) -> dict | None:
    """The setting with a level for every factor, each with the most missing pairs; None where a factor has none that fits.

    Such a factor is asked first the next time.
    """
    levels = factors.FACTORS[op]
    order = sorted(levels.keys() - setting.keys(), key=lambda f: (-len(levels[f]), f))
    for _ in range(len(order) + 1):
        whole = dict(setting)
        for factor in order:
            possible = [level for level in levels[factor] if factors.fits(op, whole | {factor: level})]
            if not possible:
                order = [factor, *(f for f in order if f != factor)]
                break
            gains = [sum(_pair(levels, (factor, x), other) in missing for other in whole.items()) for x in possible]
            whole[factor] = possible[int(np.argmax(gains))]
        else:
            return whole
    return None


def _pair(levels: dict, *two: tuple) -> tuple:
    return tuple(sorted(two, key=lambda item: list(levels).index(item[0])))


def names(op: str, dtype: str, level: int) -> list[str]:
    """The names of an operation's cases in a dtype up to a level: from 2 those beyond, joshi32's layers; from 3 ResNet-34's."""
    if op not in factors.FACTORS or dtype not in OPS[op].dtypes:
        return []
    many = {"cover": len(design(op, None if level > 1 else LEVEL_1[OPS[op].composite]))}
    many |= {"beyond": len(factors.beyond(op))} if level > 1 else {}
    if op.startswith("conv2d"):
        many |= {network: len(factors.LAYERS[network]) for network in ("joshi32", "resnet34")[: level - 1]}
    return [f"{kind}-{dtype}-{i}" for kind, n in many.items() for i in range(n)]


def golden(key: str, capabilities: Capabilities) -> Golden | None:
    """The case of a key with what is expected of a backend of these capabilities; None where no bound says anything."""
    op, _, name = key.split("/")
    (kind, dtype, i), quick = name.split("-"), LEVEL_1[OPS[op].composite]
    level = {"beyond": 2, "joshi32": 2, "resnet34": 3}.get(kind, 1 if int(i) < quick else 2)
    of = {"cover": lambda op: design(op, quick if level == 1 else None), "beyond": factors.beyond}.get(kind)
    setting = of(op)[int(i)] if of else factors.layer_setting(*factors.LAYERS[kind][int(i)])
    tries = (made(drawn.make(op, name, setting, dtype, seed, level), capabilities) for seed in range(TRIES))
    return next((one for one in tries if one is not None), None)


def is_key(key: str) -> bool:
    """Whether a case of this design has the key."""
    op, version, name = key.split("/") if key.count("/") == 2 else ("", "", "")
    return op in OPS and version == "v1" and any(name in names(op, dtype, 3) for dtype in DTYPES)


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
    if not OPS[case.op].device or n <= drawn.POOL or case.op not in drawn.ELEMENTWISE:
        return case, None
    first = {k: {name: v[: drawn.POOL] for name, v in getattr(case, k).items()} for k in ("inputs", "noise")}
    return replace(case, **first), np.arange(n) % drawn.POOL


def _taken(e: Expected, index) -> Expected:
    return replace(e, value=e.value[index], scale=None if e.scale is None else e.scale[index])


def keys(ops, dtypes, level: int) -> list[str]:
    """The keys of all cases up to a level."""
    return [f"{op}/v{OPS[op].version}/{name}" for dtype in dtypes for op in ops for name in names(op, dtype, level)]
