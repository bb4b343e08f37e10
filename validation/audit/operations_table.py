"""The tables of operations, generated cases, equations and mistakes in validation/GOLDEN.md, from the package's own.

python -m validation.audit.operations_table
"""

from pathlib import Path

import numpy as np

from pcmref import store
from pcmref.experiments import tables
from pcmref.golden import design, special
from pcmref.golden.backends import Capabilities
from pcmref.golden.make import DATA
from pcmref.golden.mistakes import MISTAKES
from pcmref.golden.numbers import TINY
from pcmref.golden.ops import OPS, Array, Op

DOCUMENT = Path(__file__).parents[1] / "GOLDEN.md"
HEAD = ["operation", "inputs", "noise", "params", "outputs", "checked in"]


def _arrays(arrays: dict[str, Array]) -> str:
    return ", ".join(f"`{n}` [{a.dims}]" + ("" if a.unit == "1" else f" {a.unit}") for n, a in arrays.items()) or "-"


def _row(op: Op) -> list[str]:
    outputs = ", ".join(_arrays({n: what}) + (" exact" if n in op.exact else "") for n, what in op.outputs.items())
    params = ", ".join(f"`{p}`" for p in op.params) or "-"
    return [f"`{op.name}`", _arrays(op.inputs), _arrays(op.noise), params, outputs, ", ".join(op.dtypes)]


def _levels(levels: dict[str, tuple]) -> str:
    return "; ".join(f"{factor}: {', '.join(_level(v) for v in values)}" for factor, values in levels.items())


def _setting(setting: dict) -> str:
    return ", ".join(f"{factor} {_level(level)}" for factor, level in setting.items())


def _level(value) -> str:
    if isinstance(value, (tuple, list)):
        return "x".join(map(str, value))
    return f"{value:,}" if type(value) is int and abs(value) < 2**40 else str(value)


def _specials() -> list[list[str]]:
    """A row a case in float32: operation, case, what is planted, and what pcmref's outputs then hold."""
    rows = []
    for g in special.cases(Capabilities(dtypes=("float32",))):
        outputs = "; ".join(f"`{name}` {_classes(e.value)}" for name, e in g.expected.items())
        rows.append([f"`{g.case.op}`", g.case.name, g.case.why, outputs])
    return rows


def _classes(values: np.ndarray) -> str:
    denormal = (values != 0) & (np.abs(values) < TINY["float32"])
    counts = {"NaN": np.isnan(values), "inf": values == np.inf, "-inf": values == -np.inf, "denormal": denormal}
    found = [f"{int(where.sum())} {name}" for name, where in counts.items() if where.any()]
    return f"{', '.join(found) or 'ordinary'} of {values.size}"


def document(text: str) -> str:
    """The document with the tables as they are now: a row an operation, its equation, a row a mistake."""
    equations = "\n\n".join(f"`{name}`\n```\n{op.equation.strip()}\n```" for name, op in OPS.items())
    mistakes = [[f"`{name}`", m.kind, m.effect, m.hits] for name, m in MISTAKES.items()]
    parts = {"operations": tables.markdown([HEAD, *map(_row, OPS.values())]), "equations": equations}
    covered = [[f"`{op}`", str(len(design.settings(op))), _levels(design.levels(op))] for op in OPS]
    parts["covered"] = tables.markdown([["operation", "cases a dtype", "every pair of these levels that fits"], *covered])
    further = [
        [", ".join(f"`{name}`" for name, op in OPS.items() if group in op.far), "; ".join(map(_setting, settings))]
        for group, settings in DATA["far"].items()
    ]
    parts["beyond"] = tables.markdown([["operations", "settings beyond those levels, all else small"], *further])
    parts["mistakes"] = tables.markdown([["mistake", "kind", "what it does", "whom it hits"], *mistakes])
    parts["special"] = tables.markdown([["operation", "case", "planted", "outputs of pcmref, in float32"], *_specials()])
    return tables.filled(text, parts)


if __name__ == "__main__":
    store.write_text(DOCUMENT, document(DOCUMENT.read_text(encoding="utf-8")))
