"""The table of operations in validation/GOLDEN.md, from the package's own table.

python validation/audit/operations_table.py
"""

import sys
from pathlib import Path

from pcmref import store
from pcmref.golden.ops import OPS, Op

DOCUMENT = Path(__file__).parents[1] / "GOLDEN.md"
BEGIN, END = "<!-- operations: written by `python validation/audit/operations_table.py` -->\n", "<!-- end of operations -->\n"


def _arrays(arrays: dict[str, tuple[str, str]]) -> str:
    return ", ".join(f"`{n}` [{dims}]" + ("" if unit == "1" else f" {unit}") for n, (dims, unit) in arrays.items()) or "-"


def _row(op: Op) -> str:
    outputs = ", ".join(_arrays({n: what}) + (" exact" if n in op.exact else "") for n, what in op.outputs.items())
    params = ", ".join(f"`{p}`" for p in op.params) or "-"
    return f"| `{op.name}` | {_arrays(op.inputs)} | {_arrays(op.noise)} | {params} | {outputs} | {', '.join(op.dtypes)} |\n"


def table() -> str:
    """The Markdown table, a row an operation."""
    head = "| operation | inputs | noise | params | outputs | checked in |\n|---|---|---|---|---|---|\n"
    return head + "".join(_row(op) for op in OPS.values())


def document(text: str) -> str:
    """The document with the table as it is now."""
    before, rest = text.split(BEGIN)
    return before + BEGIN + "\n" + table() + "\n" + END + rest.split(END)[1]


def main() -> int:
    with store.replacing(DOCUMENT) as temporary:
        temporary.write_text(document(DOCUMENT.read_text(encoding="utf-8")), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
