"""Write properties.md from the tests: what each property says, where it comes from, and what it kills.

python validation/audit/properties.py (part of make audit and make mutation)

The statement is the test's docstring, or its name. It comes from an equation of equations.toml, from a discrepancy, or from
what property_sources.toml says. Kills come from the mutation run (results/mutation.json, written by
mutate.py --json): the mutants that this test was the first to notice. A property without any may still be needed; others
were quicker. At the end stands how the run went, and why each survivor survived.
"""

import ast
import json
import re
import tomllib
from collections import defaultdict
from functools import cache
from pathlib import Path

import audit
import mutate

from pcmref import tables

DOCUMENT = Path(__file__).parents[1] / "properties.md"
KILLS = DOCUMENT.parent / "results" / "mutation.json"
SECTIONS = {
    "Network": ("functional", "exact", "resnet"),
    "Device": ("model", "mapping", "chip", "moments", "moments_in_time", "discrepancies"),
    "Compensations": ("gdc", "adabs"),
    "Converters": ("crossbar", "crossbar_networks", "discrepancies_scales"),
    "Training": ("training",),
    "Random numbers": ("draws",),
}


def statements(stem: str) -> dict[str, str]:
    """{test: what it states} of a test file, in its order; tests of errors say themselves what they refuse."""
    tree = ast.parse((mutate.TOP / "tests" / f"test_{stem}.py").read_text())
    tests = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")]
    return {test.name: _statement(test) for test in tests}


def _statement(test: ast.FunctionDef) -> str:
    text = (ast.get_docstring(test) or test.name.removeprefix("test_").replace("_", " ")).split("\n\n")[0]
    text = " ".join(text.split()).rstrip(".")
    return (text[0].upper() + text[1:]).replace("|", "\\|").replace("<", "&lt;")


def sources() -> dict[str, str]:
    """{file::test: where it comes from}: the equations it confirms and their sources, or what property_sources.toml says."""
    found = defaultdict(list)
    for equation in audit.EQUATIONS:
        for test in equation.tests:
            found[test].append(f"({equation.number}) {equation.entry['source']}")
    for origin in tomllib.loads(Path(__file__).with_name("property_sources.toml").read_text())["origin"]:
        for test in origin["tests"]:
            found[test].append(origin["text"])
    return {test: "; ".join(of) for test, of in found.items()}


@cache
def discrepancies() -> dict[int, str]:
    """{number: "D7, law of nu"} as discrepancies.md has them."""
    rows = re.findall(r"^\| (D(\d+)) \| ([^|]+?) \|", (DOCUMENT.parent / "discrepancies.md").read_text(encoding="utf-8"), re.M)
    return {int(number): f"{label}, {quantity}" for label, number, quantity in reversed(rows)}


def origin(test: str, found: dict[str, str]) -> str:
    """Where a property comes from; "" where its statement is all there is to say."""
    if number := re.search(r"::test_d(\d\d)_", test):
        return "; ".join([discrepancies()[int(number[1])], *([found[test]] if test in found else [])])
    return found.get(test, "")


def kills() -> dict[str, list[dict]]:
    """{file::test: the mutants it was the first to notice}."""
    found = defaultdict(list)
    for fate in json.loads(KILLS.read_text()):
        found[fate["killed by"]].append(fate)
    return found


def document() -> str:
    """properties.md with what is known now."""
    source, killed, parts = sources(), kills(), {}
    for section, stems in SECTIONS.items():
        lines = [["property", "test", "where it comes from", "kills"]]
        for stem in stems:
            for name, statement in statements(stem).items():
                test = f"test_{stem}.py::{name}"
                first = [fate["mutant"] for fate in killed[test]]
                what = f"{len(first)}: `{first[0]}`" + ", ..." * (len(first) > 1) if first else ""
                lines.append([statement, f"`{test}`", origin(test, source), what])
        parts[section] = tables.markdown(lines)
    fates, why = json.loads(KILLS.read_text()), mutate.equivalent()
    survivors = [fate["mutant"] for fate in fates if not fate["killed by"]]
    rows = [[f"`{mutant}`", why.get(mutant, "not explained")] for mutant in survivors]
    parts["mutation"] = f"{mutate.summary(fates)}\n\n{tables.markdown([['survivor', 'why'], *rows])}"
    return tables.filled(DOCUMENT.read_text(), parts)


if __name__ == "__main__":
    DOCUMENT.write_text(document())
