"""The table of operations in validation/GOLDEN.md, from the package's own table.

python validation/audit/operations_table.py
"""

from pathlib import Path

from pcmref import store, tables
from pcmref.golden.ops import OPS, Op

DOCUMENT = Path(__file__).parents[1] / "GOLDEN.md"
HEAD = ["operation", "inputs", "noise", "params", "outputs", "checked in"]


def _arrays(arrays: dict[str, tuple[str, str]]) -> str:
    return ", ".join(f"`{n}` [{dims}]" + ("" if unit == "1" else f" {unit}") for n, (dims, unit) in arrays.items()) or "-"


def _row(op: Op) -> list[str]:
    outputs = ", ".join(_arrays({n: what}) + (" exact" if n in op.exact else "") for n, what in op.outputs.items())
    params = ", ".join(f"`{p}`" for p in op.params) or "-"
    return [f"`{op.name}`", _arrays(op.inputs), _arrays(op.noise), params, outputs, ", ".join(op.dtypes)]


def document(text: str) -> str:
    """The document with the table as it is now, a row an operation."""
    return tables.filled(text, {"operations": tables.markdown([HEAD, *map(_row, OPS.values())])})


if __name__ == "__main__":
    store.write_text(DOCUMENT, document(DOCUMENT.read_text(encoding="utf-8")))
