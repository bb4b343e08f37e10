"""Tables as text: lists of lines, each a list of cells; numbers in percent."""

import csv
import io
from pathlib import Path

from pcmref import store
from pcmref.experiments.statistics import Interval, Spread


def aligned(lines: list[list[str]]) -> str:
    """Columns as wide as they must be, flush right.

    >>> from pcmref.experiments.tables import aligned
    >>> print(aligned([["time", "gdc"], ["1 day", "75.00"]]))
     time    gdc
    1 day  75.00
    """
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    return "\n".join("  ".join(cell.rjust(w) for cell, w in zip(line, widths, strict=True)) for line in lines)


def counted(n: int, unit: str) -> str:
    """`1 chip`, `1,000 chips`."""
    return f"{n:,} {unit}{'s' * (n != 1)}"


def markdown(lines: list[list[str]]) -> str:
    """The same as a table of Markdown; the first line is its head."""
    head, *rest = (f"| {' | '.join(line)} |" for line in lines)
    return "\n".join([head, "|---" * len(lines[0]) + "|", *rest])


def filled(document: str, parts: dict[str, str]) -> str:
    """A Markdown document with the text of each part between its <!-- name --> and the next <!-- end -->.

    >>> from pcmref.experiments.tables import filled
    >>> filled("a\\n<!-- b -->\\nold\\n<!-- end -->\\n", {"b": "new"})
    'a\\n<!-- b -->\\nnew\\n<!-- end -->\\n'
    """
    for name, text in parts.items():
        before, rest = document.split(f"<!-- {name} -->\n", 1)
        document = f"{before}<!-- {name} -->\n{text}\n<!-- end -->{rest.split('<!-- end -->', 1)[1]}"
    return document


def fill(path: Path, parts: dict[str, str]) -> None:
    """The same to a file, in place."""
    store.write_text(path, filled(path.read_text(encoding="utf-8"), parts))


def range_cell(found: Spread, digits: int = 2) -> str:
    """`median [lowest, highest] mean` in percent; a single reading as it is.

    >>> from pcmref.experiments.statistics import spread
    >>> from pcmref.experiments.tables import range_cell
    >>> range_cell(spread(np.array([[0.5, 0.7], [0.9, 0.9]])), 1)
    '80.0 [50.0, 90.0] 75.0'
    """
    median, lowest, highest, mean = (f"{100 * v:z.{digits}f}" for v in (found.median, found.lowest, found.highest, found.mean))
    return median if found.n_chips == found.n_reads == 1 else f"{median} [{lowest}, {highest}] {mean}"


def mean_cell(found: Spread) -> str:
    """`mean [low, high]` in percent or points; the mean alone where its interval is not known."""
    return interval_cell(found.mean, found.mean_interval)


def interval_cell(value: float, interval: Interval, digits: int = 2) -> str:
    """`value [low, high]` in percent or points; `-` for what cannot be told, the value alone where the interval cannot."""
    if value != value:
        return "-"
    if interval[0] != interval[0]:
        return f"{100 * value:z.{digits}f}"
    return f"{100 * value:z.{digits}f} [{100 * interval[0]:z.{digits}f}, {100 * interval[1]:z.{digits}f}]"


def write_csv(path, head, rows) -> None:
    """Rows of plain values as a CSV file, floating-point numbers with all their digits; written atomically."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(head)
    writer.writerows([repr(v) if isinstance(v, float) else v for v in row] for row in rows)
    store.write_text(path, text.getvalue())
