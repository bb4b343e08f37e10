"""The mistakes that implementations make, each with its code: what it does, whom it hits, in which operations.

A mistake is a function of the right operation, `own`, which takes arguments other than the case's own, and of those by name;
its docstring says the effect, then whom it hits. What a case notices is what its code then shows: `mistakes_of`.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from pcmref.golden.check import check_case
from pcmref.golden.ops import OPS
from pcmref.golden.reference import Reference
from pcmref.golden.verify import Golden


class Mistake(NamedTuple):
    """A row of the table; `wrong(own, **arguments)` gives what an operation becomes."""

    kind: str
    effect: str
    hits: str
    ops: tuple[str, ...]
    wrong: Callable


class Mistaken(Reference):
    """pcmref's backend with one mistake in the operations that it is made in."""

    def __init__(self, mistake: Mistake, accepts_noise: bool = True):
        self.mistake, self.accepts_noise = mistake, accepts_noise

    def capabilities(self):
        return replace(super().capabilities(), accepts_noise=self.accepts_noise)

    def call(self, op, arguments):
        def own(**changes):
            return super(Mistaken, self).call(op, arguments | changes)

        return self.mistake.wrong(own, **arguments) if op in self.mistake.ops else own()

    def run(self, op, version, inputs, noise, params):
        """The device in float64, whatever it is asked in, rounded at the end."""
        wide = {k: v.astype(np.float64) if OPS[op].device else v for k, v in inputs.items()}
        out = super().run(op, version, wide, noise, params)
        return {k: v.astype(next(iter(inputs.values())).dtype) for k, v in out.items()} if OPS[op].device else out


MISTAKES: dict[str, Mistake] = {}


def mistakes_of(golden: Golden) -> list[str]:
    """The names of the mistakes that a case notices: what each makes of it lies outside its bounds."""
    dtype, sampled = golden.case.dtype or "float64", golden.law is not None
    found = []
    for name, mistake in MISTAKES.items():
        if golden.case.op in mistake.ops and not (sampled and mistake.kind != "statistics"):
            backend = Mistaken(mistake, not sampled)
            capabilities = replace(backend.capabilities(), dtypes=(dtype,))
            if check_case(backend, capabilities, golden, dtype, relate=False).status in ("fail", "error"):
                found.append(name)
    return found


def mistake(kind: str, ops: str):
    """Enter a function into the table under its name."""

    def enter(wrong):
        effect, _, hits = (wrong.__doc__ or "").partition("\n    Hits: ")  # none under -OO
        MISTAKES[wrong.__name__.replace("_", "-")] = Mistake(kind, effect, hits, tuple(ops.split()), wrong)
        return wrong

    return enter


# ------------------------------------------------------------------------------------------------- what the table is made with


def changed(arrays: dict, change: Callable, names=()) -> dict:
    """Arguments or results with the arrays of these names, or all floating-point ones, replaced; those of a state too."""

    def new(name, v):
        if isinstance(v, dict):
            return changed(v, change) if name in ("state", "noise") else v
        floats = isinstance(v, (np.ndarray, np.floating)) and v.dtype.kind == "f"
        return change(v) if floats and (not names or name in names) else v

    return {name: new(name, v) for name, v in arrays.items()}


def cut(bits: int) -> Callable:
    """Numbers of so many bits behind the first."""

    def to_bits(v):
        mantissa, exponent = np.frexp(v)
        return np.ldexp(np.rint(mantissa * 2.0 ** (bits + 1)) / 2.0 ** (bits + 1), exponent).astype(v.dtype)

    return to_bits


def without(axis: int, first) -> Callable:
    """Zeros along an axis, where there is one, from an element on: a number, or a function of the length."""

    def zeros_behind(v):
        v = np.array(v)
        if axis < v.ndim:
            rest = np.moveaxis(v, axis, 0)
            rest[first(len(rest)) if callable(first) else first :] = 0
        return v

    return zeros_behind
