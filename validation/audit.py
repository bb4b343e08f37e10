"""Write AUDIT.md: every constant and equation, its source and line of code, and the independent routes that confirm it.

python validation/audit.py            write AUDIT.md
python validation/audit.py --check    exit with 1 where AUDIT.md is not what this would write (the suite does the same)
python validation/audit.py --routes [NUMBER ...]
                                      alter these equations (default: those without two confirmed routes) and see each route's
                                      test fail; keep the outcome in routes.json

A route is a test that computes the equation's consequence in a way of its own. It counts when the test fails for an altered
equation: mutants of the equation's own function (see mutate.py), one after the other until one is noticed. What was seen
counts for the code and the test it was seen on, helpers and constants of both included (see reach.py): where either has changed
since, the route is not confirmed until --routes has run again. AUDIT.md quotes lines of code and gives no line numbers, so that
it stays true when something else moves.
"""

import ast
import json
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from importlib import import_module
from pathlib import Path

import mutate
import reach

from pcmref.pcm.model import PCMModel

HERE = Path(__file__).parent
ROUTES = HERE / "routes.json"
PACKAGE = mutate.TOP / "pcmref"
MUTANTS_PER_EQUATION = 6
ARITHMETIC = {"- removed", "Add", "Sub", "Mult", "Div", "Pow", "FloorDiv", *mutate.NAMES}
LISTED = tomllib.loads((HERE / "equations.toml").read_text())
NEUTRAL = (0, 1)  # as a default: nothing is added, nothing multiplied, the first is meant


@dataclass(frozen=True)
class Equation:
    """An entry of equations.toml with the code it stands in."""

    number: str
    entry: dict

    @cached_property
    def module(self) -> str:
        """Relative to pcmref/."""
        return self.entry["where"].split(":")[0].replace(".", "/") + ".py"

    @cached_property
    def function(self) -> str:
        return self.entry["where"].split(":")[1]

    @cached_property
    def node(self) -> ast.FunctionDef:
        """The function; ValueError where there is none."""
        for name, node in mutate.functions(self.module):
            if name == self.function:
                return node
        raise ValueError(f"no function {self.function} in pcmref/{self.module}")

    @cached_property
    def constants(self) -> list[str]:
        """The lines of its constants, without their sources."""
        lines = (PACKAGE / self.module).read_text().splitlines()
        return [line for name in self.entry.get("constants", []) for line in lines if line.startswith(f"    {name}:")]

    @property
    def digest(self) -> str:
        """Of the code that the equation stands in and rests on."""
        return reach.digest(PACKAGE / self.module, self.function)

    @property
    def code(self) -> str:
        """The line of code: the one that equations.toml quotes a part of, else the last that returns something."""
        lines = [ast.unparse(node) for node in ast.walk(self.node) if isinstance(node, ast.stmt) and not hasattr(node, "body")]
        if part := self.entry.get("code"):
            found = [line for line in lines if part in line]
            if len(found) != 1:
                raise ValueError(f"({self.number}): {part!r} is in {len(found)} lines of {self.function}, not in one")
            return found[0]
        return [line for line in lines if line.startswith("return ")][-1]

    def confirmed(self, seen: dict) -> dict[str, str]:
        """{test: the change it was seen to fail for} on the code and the test as they are."""
        held = seen.get(self.number, {})
        routes = held.get("routes", {}) if held.get("code") == self.digest else {}
        return {test: was["fails for"] for test, was in routes.items() if was["test"] == mutate.test_digest(test)}

    def is_open(self, seen: dict) -> bool:
        return sum(bool(self.confirmed(seen).get(test)) for _, test in self.entry["routes"]) < 2

    def alterations(self) -> list[mutate.Mutant]:
        """Mutants of its constants, then of its arithmetic, the first few; guards and indices count where there is none."""
        source, every = (PACKAGE / self.module).read_text().splitlines(), _mutants(self.module)
        constants = [m for m in every if source[m.line - 1] in self.constants]
        inside = [m for m in every if f"{m.function}.".startswith(f"{self.function}.")]
        arithmetic = [m for m in inside if m.change.split(" to ")[0] in ARITHMETIC]
        return (constants + arithmetic or inside)[:MUTANTS_PER_EQUATION]


@cache
def _mutants(module: str) -> list[mutate.Mutant]:
    return list(mutate.mutants(module))


EQUATIONS = [Equation(str(entry["number"]), entry) for entry in LISTED["equation"]]


def missing_tests() -> list[str]:
    """The routes that name no test function of the suite."""
    defined = {
        f"{path.name}::{node.name}"
        for path in (mutate.TOP / "tests").glob("test_*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef)
    }
    return [test for equation in EQUATIONS for _, test in equation.entry["routes"] if test not in defined]


def _number(node) -> object:
    """The number, or tuple or dict of numbers, that an expression of literals is; None for anything else."""
    try:
        value = eval(compile(ast.Expression(node), "", "eval"), {"__builtins__": {}})
    except Exception:  # it needs names: no plain number
        return None
    parts = list(value.values()) if isinstance(value, dict) else value if isinstance(value, tuple) else [value]
    return value if parts and all(type(part) in (int, float) for part in parts) else None


def numbers_in(path: Path) -> Iterator[tuple[str, object]]:
    """(name, value) of a module's constants, and of the defaults of its fields and parameters that are not neutral."""
    tree = ast.parse(path.read_text())

    def below(node, prefix):
        for child in getattr(node, "body", []):
            if isinstance(child, ast.ClassDef | ast.FunctionDef):
                yield from below(child, f"{prefix}{child.name}.")
            if isinstance(child, ast.FunctionDef):
                a = child.args
                pairs = [*zip(a.args[::-1], a.defaults[::-1], strict=False), *zip(a.kwonlyargs, a.kw_defaults, strict=True)]
                yield from ((f"{prefix}{child.name}.{argument.arg}", _number(d)) for argument, d in pairs if d is not None)
            if isinstance(node, ast.Module | ast.ClassDef) and isinstance(child, ast.Assign | ast.AnnAssign) and child.value:
                target = child.targets[0] if isinstance(child, ast.Assign) else child.target
                yield prefix + ast.unparse(target), _number(child.value)

    yield from (
        (name, value) for name, value in below(tree, "") if value is not None and ("." not in name or value not in NEUTRAL)
    )


def ungraded() -> list[str]:
    """The numbers of the package that equations.toml lacks; the model grades its own, and G_max is the model's everywhere."""
    listed = {(constant["module"], constant["name"]) for constant in LISTED["constant"]}
    found = []
    for path in sorted(PACKAGE.glob("**/*.py")):
        module = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
        for name, value in numbers_in(path):
            g_max = name.endswith(".g_max_us") and value == PCMModel.g_max_us
            if not (name.startswith("PCMModel.") or g_max or (module, name) in listed):
                found.append(f"{module}:{name} = {value}")
    return found


def value_of(module: str, name: str):
    """What the package holds under this name; ValueError where it holds nothing."""
    for found, value in numbers_in(PACKAGE / f"{module.replace('.', '/')}.py"):
        if found == name:
            return value
    return getattr(import_module(f"pcmref.{module}"), name)


def confirm_routes(equations: list[Equation]) -> None:
    """See which routes notice an altered equation, each in a copy of the project; ROUTES keeps "" for those that do not."""
    altered = {equation.number: equation.alterations() for equation in equations}
    with mutate.Copy() as copy:  # of the same sources, whatever is edited meanwhile
        for equation in equations:
            waiting = [test for _, test in equation.entry["routes"]]
            if failed := copy.failures([f"tests/{test}" for test in waiting]):
                raise SystemExit(f"{failed[0]} fails on the code as it is: nothing can be learnt from it")
            seen = dict.fromkeys(waiting, "")
            for mutant in altered[equation.number]:
                failed = set(waiting) & set(copy.failures([f"tests/{test}" for test in waiting], mutant))
                seen |= dict.fromkeys(failed, mutant.change)
                waiting = [test for test in waiting if test not in failed]
                if not waiting:
                    break
            for test, noticed in seen.items():
                print(f"({equation.number}) {test}: {noticed or 'notices nothing'}", flush=True)
            routes = {test: {"fails for": noticed, "test": mutate.test_digest(test)} for test, noticed in seen.items()}
            known = confirmed_routes() | {equation.number: {"code": equation.digest, "routes": routes}}
            ROUTES.write_text(json.dumps(known, indent=1) + "\n")


def confirmed_routes() -> dict[str, dict]:
    """What earlier runs of --routes have seen, by equation."""
    held = json.loads(ROUTES.read_text()) if ROUTES.exists() else {}
    return {equation.number: held[equation.number] for equation in EQUATIONS if equation.number in held}


def document() -> str:
    """AUDIT.md as text."""
    seen = confirmed_routes()
    lines = [
        "# Audit: what every number and equation rests on",
        "",
        "Written by `make audit`; do not edit. Grades: A, stated by the paper or a definition; B, restated by the model",
        "authors' public toolkit or a co-author's code; C, recalled, derived here or from a third party, not confirmed; D, a",
        "choice of this project, no statement about devices or the paper: the source says why. Sources in brackets",
        "are spelt out at the top of `pcmref/pcm/model.py`.",
        "",
        "## Constants",
        "",
        "The model's and all others of the package: module constants, and defaults other than 0 and 1. The suite fails for one",
        "without a grade and a source.",
        "",
        "| constant | value | unit | grade | source |",
        "|---|---|---|---|---|",
    ]
    for name, value, unit, grade, source in PCMModel.constants():
        lines.append(f"| `PCMModel.{name}` | {value} | {unit or '-'} | {grade} | {source} |")
    for constant in LISTED["constant"]:
        value = value_of(constant["module"], constant["name"])
        graded = " | ".join(constant[key] for key in ("unit", "grade", "source"))
        lines.append(f"| `{constant['module']}.{constant['name']}` | {value} | {graded} |")
    lines += ["", "## Equations", ""]
    for equation in EQUATIONS:
        entry, confirmed = equation.entry, equation.confirmed(seen)
        lines.append(f"**({equation.number})** {entry['text']}  ")
        lines.append(f"[{equation.function}](../pcmref/{equation.module}), grade {entry['grade']}, {entry['source']}  ")
        lines += [f"`{equation.code}`", ""]
        for how, test in entry["routes"]:
            noticed = confirmed.get(test)
            lines.append(f"- {how}: `{test}`" + (f" (fails for `{noticed}`)" if noticed else " (not yet seen to fail)"))
        lines.append("")
    why = "its routes were not yet seen to fail on this code (make audit)"
    left = [f"- ({e.number}) {e.entry['text']}: {e.entry.get('open', why)}" for e in EQUATIONS if e.is_open(seen)]
    lines += ["## Open: fewer than two confirmed routes", "", *(left or ["None."]), ""]
    return "\n".join(lines)


def main(arguments: list[str]) -> int:
    if absent := missing_tests():
        raise SystemExit("no such tests: " + ", ".join(absent))
    if arguments[:1] == ["--routes"]:
        seen = confirmed_routes()
        confirm_routes([e for e in EQUATIONS if (e.number in arguments if arguments[1:] else e.is_open(seen))])
    if lacking := ungraded():
        raise SystemExit("without a grade and a source in validation/equations.toml: " + "; ".join(lacking))
    path = HERE / "AUDIT.md"
    if arguments == ["--check"]:
        current = path.exists() and path.read_text() == document()
        print("AUDIT.md is current" if current else "AUDIT.md is out of date: make audit", file=sys.stderr)
        return 0 if current else 1
    path.write_text(document())
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
