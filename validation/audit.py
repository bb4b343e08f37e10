"""Write AUDIT.md: every constant and equation, its source and line of code, and the independent routes that confirm it.

python validation/audit.py            write AUDIT.md
python validation/audit.py --check    exit with 1 where AUDIT.md is not what this would write (the suite does the same)
python validation/audit.py --routes [NUMBER ...]
                                      alter these equations (default: the open ones) and see which routes' tests fail;
                                      keep the outcome in routes.json

A route is a test that computes the equation's consequence in a way of its own. Every equation is altered in several ways:
each of its constants by 2 %, each arithmetic operation of its function (guards left out) and its result, see
Equation.alterations. An alteration that makes the code crash says nothing and is left out. A route notices an alteration when
one of its assertions fails; an equation is confirmed when every alteration is noticed by at least two routes, else it is
open, and AUDIT.md says why. What was seen counts for the code and the tests it was seen on, helpers and constants of both
included (see reach.py): where any of them has changed, the equation is open until --routes has run again. AUDIT.md quotes
lines of code and gives no line numbers, so that it stays true when something else moves.
"""

import ast
import json
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

import constants
import mutate
import reach

HERE = Path(__file__).parent
ROUTES = HERE / "routes.json"
PACKAGE = mutate.TOP / "pcmref"
ALTERATIONS = 8  # of an equation, at most
ARITHMETIC = {"- removed", "Add", "Sub", "Mult", "Div", "Pow", "FloorDiv", *mutate.NAMES}


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

    @cached_property
    def quoted(self) -> ast.stmt:
        """The statement that equations.toml quotes a part of, else the last that returns something."""
        statements = [node for node in ast.walk(self.node) if isinstance(node, ast.stmt) and not hasattr(node, "body")]
        if part := self.entry.get("code"):
            found = [node for node in statements if part in ast.unparse(node)]
            if len(found) != 1:
                raise ValueError(f"({self.number}): {part!r} is in {len(found)} lines of {self.function}, not in one")
            return found[0]
        return _last_return(self.node)

    @property
    def tests(self) -> list[str]:
        return [test for _, test in self.entry["routes"]]

    def noticed(self, seen: dict) -> dict[str, list[str]]:
        """{alteration: the routes that notice it} on the code and the tests as they are."""
        held = seen.get(self.number, {})
        if held.get("code") != self.digest:
            return {}
        routes = {t: r["notices"] for t, r in held["routes"].items() if t in self.tests and r["test"] == test_digest(t)}
        return {change: [test for test in routes if change in routes[test]] for change in held["alterations"]}

    def why_open(self, seen: dict) -> str:
        """Why the equation is open; "" where every alteration is noticed by two routes."""
        noticed = self.noticed(seen)
        if not noticed:
            return "its routes were not yet seen to fail on this code (make audit)"
        lacking = [f"`{change}` is noticed by {len(tests)}" for change, tests in noticed.items() if len(tests) < 2]
        return self.entry.get("open", "; ".join(lacking)) if lacking else ""

    def alterations(self) -> list[mutate.Mutant]:
        """Its constants by 2 %, the arithmetic of the quoted line, its result by a tenth, its other arithmetic; no guards.

        Where there is no arithmetic either, anything in the function: an index, a comparison.
        """
        source, every = (PACKAGE / self.module).read_text().splitlines(), _mutants(self.module)
        constants = [m for m in every if source[m.line - 1] in self.constants]
        guards, quoted = _guards(self.node), _lines(self.quoted)
        inside = [m for m in every if f"{m.function}.".startswith(f"{self.function}.") and m.line not in guards]
        arithmetic = [m for m in inside if m.change.split(" to ")[0] in ARITHMETIC]
        first, rest = ([m for m in arithmetic if (m.line in quoted) == here] for here in (True, False))
        same = set(self.entry.get("equivalent", ()))
        chosen = constants + first + list(_results(self.module, self.function)) + (rest if arithmetic else inside)
        return [m for m in chosen if _change(m) not in same][:ALTERATIONS]


def _guards(function: ast.FunctionDef) -> set[int]:
    """The lines of a function that only refuse bad input."""
    lines = set()
    for node in ast.walk(function):
        refuses = isinstance(node, ast.If) and all(isinstance(child, ast.Raise) for child in node.body)
        checks = isinstance(node, ast.Assign | ast.Expr) and re.search(r"\b(whole_number|_?check_\w+)\(", ast.unparse(node))
        if refuses or checks:
            lines |= _lines(node)
    return lines


def _last_return(function: ast.FunctionDef) -> ast.Return:
    """The last of its own, not of a function inside."""
    inside = {
        id(n)
        for child in ast.walk(function)
        if isinstance(child, ast.FunctionDef) and child is not function
        for n in ast.walk(child)
    }
    own = [node for node in ast.walk(function) if isinstance(node, ast.Return) and id(node) not in inside]
    return max(own, key=lambda node: node.lineno)


def _lines(node: ast.AST) -> set[int]:
    return set(range(node.lineno, node.end_lineno + 1))


def _change(mutant: mutate.Mutant) -> str:
    """What names an alteration of an equation."""
    return mutant.change + f" ({mutant.nth})" * (mutant.nth > 1)


def _results(module: str, function: str) -> Iterator[mutate.Mutant]:
    """The module with each result of the function a tenth too large, at its last return; of a call also each argument."""
    tree = ast.parse((PACKAGE / module).read_text())
    node = next(node for name, node in mutate.nodes_of_functions(tree) if name == function)
    last = _last_return(node)
    places = [(last, "value", None, "result")]
    if isinstance(last.value, ast.Tuple):
        places = [(last.value, "elts", i, f"result {i + 1}") for i in range(len(last.value.elts))]
    elif isinstance(last.value, ast.Call):
        numbers = [i for i, a in enumerate(last.value.args) if not isinstance(a, ast.Constant)]
        places += [(last.value, "args", i, f"argument {i + 1} of the result") for i in numbers]
    for holder, field, index, what in places:
        held = getattr(holder, field) if index is None else getattr(holder, field)[index]
        larger = ast.BinOp(held, ast.Mult(), ast.Constant(1.1))
        mutate.set_node(holder, field, index, larger)
        source = ast.unparse(ast.fix_missing_locations(tree)) + "\n"
        yield mutate.Mutant(module, last.lineno, function, f"{what} times 1.1", 1, source)
        mutate.set_node(holder, field, index, held)


@cache
def _mutants(module: str) -> list[mutate.Mutant]:
    return list(mutate.mutants(module))


EQUATIONS = [Equation(str(entry["number"]), entry) for entry in constants.LISTED["equation"]]


def missing_tests() -> list[str]:
    """The routes that name no test function of the suite."""
    defined = {
        f"{path.name}::{node.name}"
        for path in (mutate.TOP / "tests").glob("test_*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef)
    }
    return [test for equation in EQUATIONS for test in equation.tests if test.partition("[")[0] not in defined]


def confirm_routes(equations: list[Equation]) -> None:
    """See which routes notice which alteration, each in a copy of the project; kept in ROUTES equation by equation."""
    altered = {equation.number: equation.alterations() for equation in equations}
    digests = {test: test_digest(test) for equation in equations for test in equation.tests}
    digests |= {equation.number: equation.digest for equation in equations}
    with mutate.Copy() as copy:  # of the same sources, whatever is edited meanwhile
        for equation in equations:
            tests = [f"tests/{test}" for test in equation.tests]
            if failed := copy.failures(tests):
                raise SystemExit(f"{failed[0]} fails on the code as it is: nothing can be learnt from it")
            notices, counted = {test: [] for test in equation.tests}, []
            for mutant in altered[equation.number]:
                failed = copy.failures(tests, mutant)
                if set(failed) - set(copy.asserted):
                    continue  # it crashes
                counted.append(_change(mutant))
                for test in equation.tests:
                    if test.partition("[")[0] in failed:
                        notices[test].append(_change(mutant))
            routes = {test: {"notices": notices[test], "test": digests[test]} for test in equation.tests}
            new = {equation.number: {"code": digests[equation.number], "alterations": counted, "routes": routes}}
            ROUTES.write_text(json.dumps(confirmed_routes() | new, indent=1) + "\n")
            print(f"({equation.number}) {equation.why_open(new) or f'{len(counted)} alterations noticed'}", flush=True)


def test_digest(test: str) -> str:
    """Of a route's test and all that it rests on."""
    return mutate.test_digest(test.partition("[")[0])


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
        "Written by `make audit`; do not edit. Grades: A, stated by the paper, or a definition, or what follows from one; B,",
        "restated by the model authors' public toolkit or a co-author's code, or a published format or standard; C, recalled,",
        "derived here or from a third party, not confirmed; D, a choice of this project, no statement about devices or the",
        "paper: the source says why. Sources in brackets are spelt out at the top of `pcmref/pcm/model.py`.",
        "",
    ]
    lines += constants.table()
    lines += ["", "## Equations", ""]
    for equation in EQUATIONS:
        entry, noticed = equation.entry, equation.noticed(seen)
        lines.append(f"**({equation.number})** {entry['text']}  ")
        lines.append(f"[{equation.function}](../pcmref/{equation.module}), grade {entry['grade']}, {entry['source']}  ")
        lines += [f"`{ast.unparse(equation.quoted)}`", ""]
        for how, test in entry["routes"]:
            of = sum(test in tests for tests in noticed.values())
            lines.append(f"- {how}: `{test}` notices {of} of {len(noticed)} alterations")
        lines += [f"- altered: {', '.join(f'`{change}`' for change in noticed)}"] * bool(noticed)
        lines.append("")
    left = [f"- ({e.number}) {e.entry['text']}: {why}" for e in EQUATIONS if (why := e.why_open(seen))]
    lines += ["## Open: an alteration that fewer than two routes notice", "", *(left or ["None."]), ""]
    return "\n".join(lines)


def main(arguments: list[str]) -> int:
    if absent := missing_tests():
        raise SystemExit("no such tests: " + ", ".join(absent))
    if arguments[:1] == ["--routes"]:
        seen = confirmed_routes()
        confirm_routes([e for e in EQUATIONS if (e.number in arguments if arguments[1:] else e.why_open(seen))])
    if lacking := constants.ungraded():
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
