"""The operations a backend can be checked in: a record each, which is a table of operations.toml."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from pcmref import store

DTYPES = ("float64", "float32", "float16", "bfloat16")
TABLES = ("inputs", "noise", "outputs")  # of arrays
_OF_ANY_SHAPE = ("D", "any", "by name")


class Array(NamedTuple):
    """An array of an operation: dimensions such as "N,H,W,C", unit, and the kind of the numbers that cases have in it."""

    dims: str
    unit: str
    kind: str

    def binds(self, shape: tuple[int, ...], sizes: dict) -> bool:
        """Whether an array of this shape has these dimensions; `sizes`, {letter: size}, gains the letters that it lacks."""
        for dims in self.dims.split("or "):  # "or O" is a number, or an array [O]
            names = [name for name in dims.split(",") if name]
            if names and names[-1] in _OF_ANY_SHAPE:
                shape = (*shape[: len(names) - 1], shape[len(names) - 1 :])
            if len(names) == len(shape):
                named = zip(names, shape, strict=True)
                return all(n == (int(name) if name.isdigit() else sizes.setdefault(name, n)) for name, n in named)
        return False


@dataclass(frozen=True)
class Op:
    """One operation at one version; a case may leave out inputs marked (optional)."""

    name: str
    inputs: dict[str, Array]
    outputs: dict[str, Array]
    equation: str
    source: tuple[str, ...]
    noise: dict[str, Array] = field(default_factory=dict)
    params: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()  # the operations it is made of: where they fail, its failure is a suspect
    exact: tuple[str, ...] = ()  # outputs that are compared bit by bit: choices and copies, no arithmetic
    dtypes: tuple[str, ...] = DTYPES  # draws are defined in float64, conductances need more than 16 bits
    device: bool = False  # conductances
    composite: bool = False  # several layers, between which a backend stores at its own dtype
    libm: bool = False  # takes exponentials, logarithms or powers: a backend's `libm_ulp` counts
    rows: str = "apart"  # or "together": they depend on each other, not on their order; or "fixed": on their order too
    law: str = ""  # of draws that can be sampled: "gaussian", "clipped" at 0, or "nu_law", as the model has it
    levels: dict = field(default_factory=dict)  # of the factors that a case is made by (design.py)
    search: dict = field(default_factory=dict)  # of factors that only a search and the cases far beyond the design have
    far: tuple[str, ...] = ()  # the groups of settings far beyond the design that go for it
    special: tuple[dict, ...] = ()  # cases made of stored ones, with values planted in elements of their arrays (special.py)
    scaled: dict = field(default_factory=dict)  # the stored case of which arrays are scaled down to denormals
    of_batch: bool = False  # takes the variance of a batch: two values a channel, whose squares are in range
    cost: float = 1.0  # of a case's expected values, for every product of the case
    version: int = 1

    @property
    def is_convolution(self) -> bool:
        """Whether a backend may compute it by a transform."""
        return any("KH" in array.dims for array in self.inputs.values())

    def misfit(self, **tables: dict[str, tuple[int, ...]]) -> str:
        """What is wrong with the shapes of a case's arrays, inputs={name: shape} and so on, in words; "" where all fit."""
        sizes: dict = {}
        for table, shapes in tables.items():
            for name, shape in shapes.items():
                array, param = _entry(getattr(self, table), name)
                if array is None:
                    return f"{name!r} is none of the {table} of {self.name}"
                known = dict(sizes) if param is None else {"by name": tables["inputs"].get(param, shape)}
                before = ", ".join(f"{letter} = {known[letter]}" for letter in array.dims.split(",") if letter in known)
                if not array.binds(tuple(shape), sizes if param is None else known):
                    return f"{name!r} must be [{array.dims}]{' with ' * bool(before)}{before}, got {list(shape)}"
        return ""

    def streams(self, shapes: dict[str, tuple], params: dict) -> dict[str, tuple[str, tuple]]:
        """{noise: (stream, shape)} where params name the streams of the noise of each parameter: shapes {input: shape}."""
        found = {}
        for key, array in self.noise.items():
            if array.kind.startswith("stream ") and not (key.endswith("(with gdc)") and not params["gdc"]):
                stream, pair = array.kind.split(" ")[1].format(**params), (2,) * array.dims.startswith("2,")
                for name in self.on_crossbars(shapes):
                    found[key.split(" ")[0].replace("{param}", name)] = f"{stream}/{name}", (*pair, *shapes[name])
        return found

    def on_crossbars(self, shapes: dict[str, tuple]) -> list[str]:
        """Which of the parameters lie on crossbars: of a network no batch norms."""
        params = [name for name in shapes if name not in self.inputs]
        return [name for name in params if "network" not in self.params or len(shapes[name]) > 1 or name == "fc.bias"]


def _entry(table: dict[str, Array], name: str) -> tuple[Array | None, str | None]:
    """(the record of an array, what its name has for the braces there, None without any)."""
    for key, array in table.items():
        pattern = re.sub(r"\\{\w+\\}", "(.+)", re.escape(key.split(" ")[0]))
        if found := re.fullmatch(pattern, name):
            return array, found[1] if found.groups() else None
    return None, None


def _record(name: str, table: dict) -> Op:
    units = table.pop("units", {})

    def array(name, text):
        dims, kind = re.fullmatch(r"\[(.*?)\] ?(.*)", text).groups()
        return Array(dims, units.get(name, "uS" if "_us" in name else "1"), kind)

    arrays = {k: {n: array(n, text) for n, text in table.pop(k).items()} for k in TABLES if k in table}
    return Op(name, **arrays, **{k: tuple(v) if isinstance(v, list) else v for k, v in table.items()})


OPS = {name: _record(name, table) for name, table in store.read_toml(Path(__file__).parent / "operations.toml").items()}
RANDOM = tuple(name for name, op in OPS.items() if op.law)  # those that can be sampled


def upstream(name: str) -> set[str]:
    """All operations that an operation is made of, directly or not."""
    return set().union(*({part} | upstream(part) for part in OPS[name].needs))
