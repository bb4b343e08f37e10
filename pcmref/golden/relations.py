"""Relations that a right backend keeps, whatever its values: they need no other expected value than a case's own.

Most are a case made of a case: the same inputs in another layout, other rows of them, a chip at another time. What the backend
gives for it is judged as every case is. The rest looks at memory: inputs are not changed, outputs lie in memory of their own.
"""

import mmap
import tempfile
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import replace
from functools import partial
from itertools import combinations, cycle
from typing import NamedTuple

import numpy as np

from pcmref.golden import design
from pcmref.golden.backends import Capabilities
from pcmref.golden.bounds import in_dtype, native
from pcmref.golden.case import Case
from pcmref.golden.make import streamed
from pcmref.golden.ops import OPS
from pcmref.golden.verify import Golden

MANY = 23  # rows: more than any case of the file has, and 3 more than a multiple of 4, 7 more than one of 8 and 16
MANY_NUMBERS = 30_000  # no more of them in an input of MANY rows
FEW = 6  # arrays: of no more each is changed alone


def call(backend, case: Case, dtype: str, arrange: Callable = np.array) -> tuple[dict[str, np.ndarray], str]:
    """(results, fault): fault says that the backend changed an input, or that outputs lie in memory of inputs or each other.

    arrange: array -> the same numbers in another layout.
    """
    inputs, noise = ({k: arrange(v) for k, v in in_dtype(a, dtype).items()} for a in (case.inputs, case.noise))
    with np.errstate(all="ignore"):  # what NumPy has to say of NaN and overflow is no verdict
        results = backend.run(case.op, case.version, dict(inputs), dict(noise), deepcopy(case.params))
    fault = changed(inputs, case.inputs, dtype) or changed(noise, case.noise, dtype)
    return results, fault or _shared(results, inputs | noise)


def changed(handed: dict[str, np.ndarray], original: dict[str, np.ndarray], dtype: str) -> str:
    """Which arrays no longer hold what the backend was handed, in words; nothing where all do."""
    names = other_bits(in_dtype(original, dtype), handed)
    return f"changed its input: {', '.join(names)}" if names else ""


def other_bits(first: dict[str, np.ndarray], second: dict) -> list[str]:
    """The names of the arrays that are not the same to the bit, in whatever layout."""
    return [k for k, v in first.items() if native(v).tobytes() != native(second[k]).tobytes()]


def _shared(results, handed: dict[str, np.ndarray]) -> str:
    if not isinstance(results, dict):
        return ""
    outputs = [(f"output {k}", v) for k, v in results.items() if isinstance(v, np.ndarray)]
    inputs = [(f"input {k}", v) for k, v in handed.items()]
    for (a, x), (b, y) in (*combinations(outputs, 2), *((out, given) for out in outputs for given in inputs)):
        if np.may_share_memory(x, y) and np.shares_memory(x, y):
            return f"{a} lies in the memory of {b}"
    return ""


# ------------------------------------------------------------------------------------------------------------- layouts


def _read_only(a):
    a = np.array(a)
    a.flags.writeable = False
    return a


def _with_gaps(a):
    """Every second element of an array that holds NaN, or -1, between them."""
    wide = np.full([2 * n for n in a.shape], np.nan if a.dtype.kind == "f" else -1, a.dtype)
    view = wide[(..., *(slice(None, None, 2),) * a.ndim)]
    view[...] = a
    return view


def _backwards(a):
    around = (..., *(slice(None, None, -1),) * a.ndim)
    return np.array(a[around])[around]


def _mapped(file, a):
    """The array as a read-only map of a place of its own in a file."""
    place, content = file.seek(0, 2), a.tobytes()
    file.write(content + bytes(mmap.ALLOCATIONGRANULARITY - len(content) % mmap.ALLOCATIONGRANULARITY))
    return np.memmap(file, a.dtype, "r", place, a.shape)


def _alternately(*ways: Callable) -> Callable:
    """One way after the other, an array each."""
    turn = cycle(ways)
    return lambda a: next(turn)(np.array(a))


def _layouts(file) -> dict[str, Callable]:
    return {
        "read-only inputs": _read_only,
        "strided inputs": _with_gaps,
        "inputs with negative strides": _backwards,
        "Fortran-ordered inputs": lambda a: np.array(a, order="F"),
        "every second input Fortran-ordered": _alternately(np.asfortranarray, np.array),
        "the other inputs Fortran-ordered": _alternately(np.array, np.asfortranarray),
        "big-endian inputs": lambda a: a.astype(a.dtype.newbyteorder(">")),
        "memory-mapped inputs": partial(_mapped, file),
    }


# ---------------------------------------------------------------------------------------------------- other cases


def rows(golden: Golden, index) -> Golden:
    """The case with other rows: where the first axis is images, or any, of inputs and expected values alike."""
    case, op = golden.case, OPS[golden.case.op]

    def taken(arrays, table):
        return {k: v[index] if k in _by_row(table) else v for k, v in arrays.items()}

    def expected(name, e):
        if name not in _by_row(op.outputs):
            return e
        return replace(e, **{k: getattr(e, k)[index] for k in ("value", "scale", "kink") if getattr(e, k) is not None})

    inputs, noise = taken(case.inputs, op.inputs), taken(case.noise, op.noise)
    return replace(
        golden,
        case=replace(case, inputs=inputs, noise=noise),
        expected={k: expected(k, e) for k, e in golden.expected.items()},
    )


def _by_row(table: dict) -> set[str]:
    return {name.split(" ")[0] for name, array in table.items() if array.dims.split(",")[0] in ("N", "D", "any")}


def _only(golden: Golden, names) -> Golden:
    return replace(golden, expected={k: e for k, e in golden.expected.items() if k in names})


def _other_rows(golden: Golden) -> Iterator[tuple[str, Golden]]:
    """The rows in another order; each alone, and many of them, where they do not depend on each other."""
    case, table = golden.case, OPS[golden.case.op]
    by_row = [case.inputs[k] for k in sorted(_by_row(table.inputs) & case.inputs.keys())]
    if table.rows == "fixed" or not by_row or by_row[0].ndim == 0:
        return
    n = len(by_row[0])
    if n > 1:
        yield "rows in another order", rows(golden, np.roll(np.arange(n), 1))
    if table.rows == "together" or case.params.get("train"):
        return
    alone = _only(golden, golden.expected.keys() - (table.outputs.keys() - _by_row(table.outputs)))  # what a device is stays
    for i in range(n if 1 < n <= 4 else 0):
        yield f"row {i} alone", rows(alone, [i])
    if n < MANY and MANY * max(v[0].size for v in by_row) <= MANY_NUMBERS:
        yield f"{MANY} rows", rows(alone, np.arange(MANY) % n)


def _other(golden: Golden, capabilities: Capabilities, dtype: str, changes: Callable = lambda name, v: True) -> Golden:
    """Other inputs of the same shapes: the arrays that change back to front, half the first of these; a chip at another time.

    Expected is nothing where no bound is.
    """
    case = golden.case
    inputs, noise = (
        {k: v.ravel()[::-1].reshape(v.shape) if changes(k, v) else v for k, v in a.items()} for a in (case.inputs, case.noise)
    )
    first = next((k for k, v in inputs.items() if v.dtype.kind == "f" and changes(k, v)), "")
    inputs |= {first: inputs[first] / 2} if first else {}
    params = case.params
    if "seed" in params and not case.inputs:
        params = params | {"seed": params["seed"] + 1}
    if "seed" in params:  # it names the noise, which a backend may draw by itself
        params = params | ({"t_s": 27.3612345} if "t_s" in params else {})  # a stream's name has all its digits
        noise = streamed(case.op, inputs, params)
    other = replace(case, inputs=inputs, noise=noise, params=params, dtype=dtype)
    return (None if golden.special else design.made(other, capabilities)) or Golden(other, {})


def _others(golden: Golden, capabilities: Capabilities, dtype: str) -> Iterator[tuple[str, Golden]]:
    """Other inputs: all; of a small case of two arrays or more the matrices alone and the vectors alone, or each by itself."""
    yield "other inputs", _other(golden, capabilities, dtype)
    arrays, case = golden.case.inputs, golden.case
    if golden.special or case.level > 1 or len(arrays) < 2 or {"network", "model"} <= case.params.keys():  # a chip is slow
        return
    if len(arrays) <= FEW:
        for one in arrays:
            yield f"only {one} other", _other(golden, capabilities, dtype, lambda name, _, one=one: name == one)
    elif case.dtype is None:
        yield "only vectors other", _other(golden, capabilities, dtype, lambda _, v: v.ndim == 1)
        yield "only weights other", _other(golden, capabilities, dtype, lambda name, v: v.ndim > 1 and name not in ("x", "dy"))


def _in_the_same_memory() -> tuple[Callable, Callable]:
    """Two ways to arrange: arrays as they are; later ones, of the same shapes in the same order, in the memory of those."""
    handed = []

    def first(a):
        handed.append(np.array(a))
        return handed[-1]

    def again(a):
        handed[0][...] = a
        return handed.pop(0)

    return first, again


class Relation(NamedTuple):
    """A case made of a case, in a layout."""

    name: str
    golden: Golden
    arrange: Callable = np.array


def related(golden: Golden, capabilities: Capabilities, dtype: str) -> Iterator[Relation]:
    """All relations of a case, a second call first."""
    first, again = _in_the_same_memory()
    yield Relation("a second call", golden, first)
    for name, other in _others(golden, capabilities, dtype):
        yield Relation(name, other, again if name == "other inputs" else np.array)
    with tempfile.TemporaryFile() as file:
        yield from (Relation(name, golden, arrange) for name, arrange in _layouts(file).items())
    yield from (Relation(*other) for other in _other_rows(golden))
