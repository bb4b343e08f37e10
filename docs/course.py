"""What keeps the course true: it runs the code in its pages, draws their pictures, compares what is printed, mends links.

    python docs/course.py figures [PAGE ...]   run the chapters in docs/ and write their pictures into docs/figures/
    python docs/course.py outputs [PAGE ...]   run the pages and write what they print into them
    python docs/course.py links                point every link to a function at the lines where it is now

A page is Markdown. Its ```python blocks run in order, in one namespace; a ```text block directly below one is what it prints.
A block with tags=["figure"] draws, and is left out where matplotlib is missing.
"""

import ast
import contextlib
import io
import json
import os
import re
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

TOP = Path(__file__).parent.parent
CHAPTERS = sorted((TOP / "docs").glob("[0-9]*-*.md"), key=lambda page: int(page.stem.split("-")[0]))
RUNNABLE = [TOP / "README.md", *CHAPTERS, TOP / "docs" / "solutions.md"]
LINKED = [*CHAPTERS, TOP / "docs" / "solutions.md", TOP / "CONTRIBUTING.md"]

_FENCED = re.compile(r"^```python(?P<tags>[^\n]*)\n(?P<code>.*?)^```\n(?:\n*^```text\n(?P<printed>.*?)^```\n)?", re.M | re.S)
LINK = re.compile(r"\[`(?P<name>[\w.]+)`\]\((?P<path>[\w./-]+\.py)#L(?P<first>\d+)(?:-L(?P<last>\d+))?\)")
_NAMED = re.compile(
    r"^#.*$|^\s*\d+\. |\[\d+\]\([^)]*\)|\]\([^)]*\)|`[^`]*`|"
    r"chapters? \d+(?:(?:, | and | to )\d+(?!\.?\d))*|\b20[0-2]\d\b|ResNet-\d+",
    re.M | re.I,
)
_NUMBER = re.compile(r"(?<![\w.])-?\d+(?:[,_]\d{3})*(?:\.\d+)?(?:e[+-]?\d+)?", re.ASCII)


class Block(NamedTuple):
    """A block of code, where it stands, and what the page says it prints."""

    code: str
    line: int  # of its first line, from 1
    draws: bool
    printed: str | None
    span: tuple[int, int]  # of the printed text in the page, where there is one


def blocks(text: str) -> list[Block]:
    """The Python blocks of a page, in order."""
    return [
        Block(m["code"], text.count("\n", 0, m.start("code")) + 1, '"figure"' in m["tags"], m["printed"], m.span("printed"))
        for m in _FENCED.finditer(text)
    ]


def run(page: Path, folder: Path) -> list[tuple[Block, str]]:
    """Run a page's blocks with `folder` as the current one (pictures go to figures/ there): (block, what it printed)."""
    (folder / "figures").mkdir(exist_ok=True)
    for table in page.parent.glob("*.csv"):
        if not (folder / table.name).exists():
            shutil.copy(table, folder)
    namespace, results = {"__name__": "page"}, []
    with contextlib.chdir(folder), _own_pictures() as can_draw:
        for block in blocks(page.read_text(encoding="utf-8")):
            printed = io.StringIO()
            if can_draw or not block.draws:
                code = compile("\n" * (block.line - 1) + block.code, str(page), "exec")
                with contextlib.redirect_stdout(printed):
                    exec(code, namespace)
            results.append((block, printed.getvalue()))
    return results


@contextlib.contextmanager
def _own_pictures():
    """matplotlib drawing to files, its settings restored and its figures closed at the end; False where it is missing."""
    if find_spec("matplotlib") is None:
        yield False
        return
    import matplotlib
    import matplotlib.pyplot as plt

    matplotlib.use("agg")
    with plt.rc_context():
        try:
            yield True
        finally:
            plt.close("all")


def difference(wanted: str, printed: str) -> str | None:
    """What differs between two texts, or None: words must agree, a number within one unit of its last digit shown."""
    if _NUMBER.sub("#", wanted).split() != _NUMBER.sub("#", printed).split():
        return f"the page says\n{wanted}but its code prints\n{printed}"
    for w, p in zip(_NUMBER.findall(wanted), _NUMBER.findall(printed), strict=True):
        digits, _, exponent = w.lower().partition("e")
        unit = 0.0 if "." not in w and "e" not in w.lower() else 10.0 ** (int(exponent or 0) - len(digits.partition(".")[2]))
        if abs(value(w) - value(p)) > 1.01 * unit:
            return f"the page says {w}, its code prints {p}"
    return None


def value(number: str) -> float:
    """The value of a number as a page writes it, 1,000 among them."""
    return float(number.replace(",", ""))


def unsupported_numbers(text: str, also: str = "") -> list[str]:
    """The numbers in a page's prose and equations that occur neither in the code of `text` and `also` nor in what that prints.

    Left out: headings, link targets, code in the line, list counters, names (ResNet-32), chapters and years.
    """
    found = [n for m in _FENCED.finditer(text + "\n" + also) for n in _NUMBER.findall(m["code"] + "\n" + (m["printed"] or ""))]
    known = {abs(value(n)) * factor for n in found for factor in (0.01, 1, 100)}  # a percentage may stand for its fraction
    prose = re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)
    numbers = _NUMBER.findall(re.sub(_NAMED, "", prose))
    return [n for n in numbers if not any(abs(abs(value(n)) - k) <= 1e-9 * k for k in known)]


# ------------------------------------------------------------------------------------------------------- links to code


def lines_of(path: Path) -> dict[str, tuple[int, int, int]]:
    """{qualified name: (first line, first line below the docstring, last line)} of a module's functions and classes."""
    found = {}

    def visit(node, prefix):
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.FunctionDef | ast.ClassDef):
                body = child.body[1:] if ast.get_docstring(child) is not None and len(child.body) > 1 else child.body
                found[prefix + child.name] = (child.lineno, body[0].lineno, child.end_lineno)
                visit(child, f"{prefix}{child.name}.")

    visit(ast.parse(path.read_text(encoding="utf-8")), "")
    return found


def wrong_links(page: Path) -> list[str]:
    """The links to lines of code that do not lie within the function that their text names."""
    wrong = []
    for m in LINK.finditer(page.read_text(encoding="utf-8")):
        first, last = int(m["first"]), int(m["last"] or m["first"])
        target = page.parent / m["path"]
        place = lines_of(target).get(m["name"]) if target.is_file() else None
        if place is None or not place[0] <= first <= last <= place[2]:
            wrong.append(f"{page.name}: {m[0]} (the function is in lines {place})")
    return wrong


def mend_links(page: Path) -> None:
    """Point each link at the lines of its function below the docstring."""

    def mended(m):
        place = lines_of(page.parent / m["path"]).get(m["name"])
        if place is None:
            raise SystemExit(f"{page}: {m['path']} has no {m['name']}")
        return f"[`{m['name']}`]({m['path']}#L{place[1]}-L{place[2]})"

    page.write_text(LINK.sub(mended, page.read_text(encoding="utf-8")), encoding="utf-8")


def mend_outputs(page: Path) -> None:
    """Write what each block prints into the page's text block below it, where that says something else."""
    text = page.read_text(encoding="utf-8")
    for block, printed in reversed(run(page, TOP / "docs")):
        if block.printed is not None and difference(block.printed, printed):
            text = text[: block.span[0]] + printed + text[block.span[1] :]
    page.write_text(text, encoding="utf-8")


def notebook(page: Path) -> dict:
    """The page as jupytext reads it: a Jupyter notebook, as a dict (needs jupytext)."""
    import jupytext

    return json.loads(jupytext.writes(jupytext.read(page, fmt="md"), fmt="ipynb"))


def main(arguments: list[str]) -> int:
    match arguments:
        case ["figures", *names]:
            for page in [TOP / "docs" / name for name in names] or CHAPTERS:
                run(page, TOP / "docs")
        case ["outputs", *names]:
            for page in [TOP / "docs" / name for name in names] or RUNNABLE[1:]:
                mend_outputs(page)
        case ["links"]:
            for page in LINKED:
                mend_links(page)
        case _:
            print(__doc__, file=sys.stderr)
            return os.EX_USAGE
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
