"""Write AUDIT.md: every constant and equation, its source and line of code, and the independent routes that confirm it.

python validation/audit.py            write AUDIT.md
python validation/audit.py --check    exit with 1 where AUDIT.md is not what this would write
python validation/audit.py --routes [NUMBER ...]
                                      alter these equations (default: all) and see each route's test fail; keep the outcome
                                      in routes.json

A route is a test that computes the equation's consequence in a way of its own. It counts when the test fails for an altered
equation: mutants of the equation's own function (see mutate.py), one after the other until one is noticed. An equation with
fewer than two confirmed routes is listed as open.
"""

import ast
import json
import sys
import tomllib
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import mutate

from pcmref.pcm.model import PCMModel

HERE = Path(__file__).parent
ROUTES = HERE / "routes.json"
MUTANTS_PER_EQUATION = 6
ARITHMETIC = {"- removed", "Add", "Sub", "Mult", "Div", "Pow", "FloorDiv", *mutate.NAMES}
LISTED = tomllib.loads((HERE / "equations.toml").read_text())


@dataclass(frozen=True)
class Place:
    """Where an equation's code is: module relative to pcmref/, and the function's first line."""

    module: str
    function: str
    line: int


def place(where: str) -> Place:
    """The place of "pcm.model:PCMModel.program"; ValueError where there is none."""
    module, function = where.split(":")
    module = module.replace(".", "/") + ".py"
    for name, node in mutate.functions(module):
        if name == function:
            return Place(module, function, node.lineno)
    raise ValueError(f"no function {function} in pcmref/{module}")


def missing_tests() -> list[str]:
    """The routes that name no test function of the suite."""
    defined = {
        f"{path.name}::{node.name}"
        for path in (mutate.TOP / "tests").glob("test_*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef)
    }
    return [test for equation in LISTED["equation"] for _, test in equation["routes"] if test not in defined]


def alterations(equation: dict) -> list[mutate.Mutant]:
    """Mutants of the equation's constants, then of its arithmetic, the first few; guards and indices say nothing of it."""
    at = place(equation["where"])
    source = (mutate.TOP / "pcmref" / at.module).read_text().splitlines()
    every = list(mutate.mutants(at.module))
    constants = [m for name in equation.get("constants", []) for m in every if source[m.line - 1].startswith(f"    {name}:")]
    arithmetic = [m for m in every if m.function == at.function and m.change.split(" to ")[0] in ARITHMETIC]
    return (constants + arithmetic)[:MUTANTS_PER_EQUATION]


def confirm_routes(numbers: list[str]) -> None:
    """See which routes notice an altered equation, each in a copy of the project; ROUTES keeps "" for those that do not."""
    chosen = [(e, alterations(e)) for e in LISTED["equation"] if not numbers or str(e["number"]) in numbers]
    with mutate.Copy() as copy:  # of the same sources, whatever is edited meanwhile
        for equation, altered in chosen:
            waiting = [test for _, test in equation["routes"]]
            if failed := copy.failures([f"tests/{test}" for test in waiting]):
                raise SystemExit(f"{failed[0]} fails on the code as it is: nothing can be learnt from it")
            seen = dict.fromkeys(waiting, "")
            for mutant in altered:
                failed = set(waiting) & set(copy.failures([f"tests/{test}" for test in waiting], mutant))
                seen |= dict.fromkeys(failed, f"line {mutant.line}: {mutant.change}")
                waiting = [test for test in waiting if test not in failed]
                if not waiting:
                    break
            for test, noticed in seen.items():
                print(f"({equation['number']}) {test}: {noticed or 'notices nothing'}", flush=True)
            known = confirmed_routes() | {f"{equation['number']}: {test}": noticed for test, noticed in seen.items()}
            ROUTES.write_text(json.dumps(known, indent=1) + "\n")


def confirmed_routes() -> dict[str, str]:
    """What earlier runs of --routes have seen."""
    return json.loads(ROUTES.read_text()) if ROUTES.exists() else {}


def document() -> str:
    """AUDIT.md as text."""
    seen = confirmed_routes()
    lines = [
        "# Audit: what every number and equation rests on",
        "",
        "Written by `python validation/audit.py`; do not edit. Grades: A, stated by the paper; B, restated by the model",
        "authors' public toolkit or a co-author's code; C, recalled or from a third party, not confirmed. Sources in brackets",
        "are spelt out at the top of `pcmref/pcm/model.py`.",
        "",
        "## Constants",
        "",
        "| constant | value | unit | grade | source |",
        "|---|---|---|---|---|",
    ]
    for name, value, unit, grade, source in PCMModel.constants():
        lines.append(f"| `PCMModel.{name}` | {value} | {unit or '-'} | {grade} | {source} |")
    for constant in LISTED["constant"]:
        value = getattr(import_module(f"pcmref.{constant['module']}"), constant["name"])
        graded = " | ".join(constant[key] for key in ("unit", "grade", "source"))
        lines.append(f"| `{constant['module']}.{constant['name']}` | {value} | {graded} |")
    lines += ["", "## Equations", ""]
    open_equations = []
    for equation in LISTED["equation"]:
        at = place(equation["where"])
        lines.append(f"**({equation['number']})** {equation['text']}  ")
        lines.append(f"[{at.function}](../pcmref/{at.module}#L{at.line}), grade {equation['grade']}, {equation['source']}")
        lines.append("")
        confirmed = 0
        for how, test in equation["routes"]:
            noticed = seen.get(f"{equation['number']}: {test}", "")
            confirmed += bool(noticed)
            lines.append(f"- {how}: `{test}`" + (f" (fails for {noticed})" if noticed else " (not yet seen to fail)"))
        lines.append("")
        if confirmed < 2:
            open_equations.append(f"- ({equation['number']}) {equation['text']}: {confirmed} confirmed")
    lines += ["## Open: fewer than two confirmed routes", "", *(open_equations or ["None."]), ""]
    return "\n".join(lines)


def main(arguments: list[str]) -> int:
    if absent := missing_tests():
        raise SystemExit("no such tests: " + ", ".join(absent))
    if arguments[:1] == ["--routes"]:
        confirm_routes(arguments[1:])
    path = HERE / "AUDIT.md"
    if arguments == ["--check"]:
        current = path.exists() and path.read_text() == document()
        print("AUDIT.md is current" if current else "AUDIT.md is out of date: python validation/audit.py", file=sys.stderr)
        return 0 if current else 1
    path.write_text(document())
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
