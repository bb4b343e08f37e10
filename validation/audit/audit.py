"""Write AUDIT.md: every constant and equation, its source, the function it stands in, and the tests that confirm it.

python validation/audit/audit.py                     write AUDIT.md
python validation/audit/audit.py --alter [NUMBER ...]
                                                     alter these equations (default: the open ones) first, and see which
                                                     tests fail; what was seen is kept in results/audit.json

equations.toml numbers the equations and names their functions. A test says itself which of them it confirms, in a way of its
own: `@pytest.mark.confirms(12)`. Every function is altered in several ways: the equation's constants by 2 %, its results by a
tenth, its arithmetic, see Equation.alterations. An alteration that makes the code crash says nothing and is left out. A test
notices an alteration when one of its assertions fails; an equation is confirmed when every alteration is noticed by at
least two tests, else it is open, and AUDIT.md says why. What was seen counts for the function and the tests it was seen on
(see digests.py): where any of them has changed, the equation is open until --alter has run again.
"""

import ast
import hashlib
import json
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

import constants
import digests
import mutate

from pcmref import tables

DOCUMENT = Path(__file__).parents[1] / "AUDIT.md"
SEEN = DOCUMENT.parent / "results" / "audit.json"
PACKAGE, TESTS = mutate.TOP / "pcmref", mutate.TOP / "tests"
ALTERATIONS = 8  # of an equation, at most, that do not crash
ARITHMETIC = {"- removed", "Add", "Sub", "Mult", "Div", "Pow", "FloorDiv", *mutate.NAMES}


@cache
def confirming() -> dict[int, list[str]]:
    """{equation: the tests marked to confirm it}, each file::test or file::test[parameter]."""
    found = defaultdict(list)
    for path in sorted(TESTS.glob("test_*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            for decorator in getattr(node, "decorator_list", []):
                for case, number in _marks(decorator):
                    found[number].append(f"{path.name}::{node.name}{case}")
    return found


def _marks(decorator: ast.expr) -> Iterator[tuple[str, int]]:
    """("[parameter]" or "", number of the equation) of the `confirms` marks of a decorator."""
    parameters = [n for n in ast.walk(decorator) if isinstance(n, ast.Call) and ast.unparse(n.func) == "pytest.param"]
    for node in parameters or [decorator]:
        for call in ast.walk(node):
            if isinstance(call, ast.Call) and ast.unparse(call.func) == "pytest.mark.confirms":
                case = f"[{node.args[0].value}]" if parameters else ""
                yield from ((case, argument.value) for argument in call.args)


@dataclass(frozen=True)
class Equation:
    """An entry of equations.toml with the code it stands in."""

    number: int
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

    @property
    def tests(self) -> list[str]:
        return confirming()[self.number]

    @property
    def digest(self) -> str:
        """Of the function and of the tests that confirm it."""
        parts = [digests.digest(PACKAGE / self.module, self.function), *self.tests]
        parts += [mutate.test_digest(test.partition("[")[0]) for test in self.tests]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]

    def why_open(self, seen: dict) -> str:
        """Why the equation is open; "" where every alteration is noticed by two tests."""
        if seen.get("digest") != self.digest:
            return "its tests were not yet seen to fail on this code (make audit)"
        if not seen["alterations"]:
            return "nothing in it could be altered"
        return "; ".join(f"`{change}` is noticed by {n}" for change, n in seen["open"].items())

    def alterations(self) -> list[mutate.Mutant]:
        """Its constants by 2 %, its results by a tenth, its arithmetic; where there is none, anything in it. No guards."""
        source, every = (PACKAGE / self.module).read_text().splitlines(), _mutants(self.module)
        names = tuple(f"    {name}:" for name in self.entry.get("constants", ()))
        own = [m for m in every if names and source[m.line - 1].startswith(names)]
        guards = _guards(self.node)
        inside = [m for m in every if f"{m.function}.".startswith(f"{self.function}.") and m.line not in guards]
        arithmetic = [m for m in inside if m.change.split(" to ")[0] in ARITHMETIC]
        same = self.entry.get("equivalent", ())
        chosen = own + list(_results(self.module, self.function)) + (arithmetic or inside)
        return [m for m in chosen if _change(m) not in same]


def _guards(function: ast.FunctionDef) -> set[int]:
    """The lines of a function that only refuse bad input."""
    lines = set()
    for node in ast.walk(function):
        refuses = isinstance(node, ast.If) and all(isinstance(child, ast.Raise) for child in node.body)
        checks = isinstance(node, ast.Assign | ast.Expr) and re.search(r"\b(whole_number|_?check_\w+)\(", ast.unparse(node))
        if refuses or checks:
            lines |= set(range(node.lineno, node.end_lineno + 1))
    return lines


def _last_return(function: ast.FunctionDef) -> ast.Return | None:
    """The last of its own, not of a function inside."""
    nested = [child for child in ast.walk(function) if isinstance(child, ast.FunctionDef) and child is not function]
    inside = {id(node) for child in nested for node in ast.walk(child)}
    own = [node for node in ast.walk(function) if isinstance(node, ast.Return) and id(node) not in inside]
    return max(own, key=lambda node: node.lineno, default=None)


def _change(mutant: mutate.Mutant) -> str:
    """What names an alteration of an equation."""
    return mutant.change + f" ({mutant.nth})" * (mutant.nth > 1)


def _results(module: str, function: str) -> Iterator[mutate.Mutant]:
    """The module with each result of the function a tenth too large, at its last return; of a call also each argument."""
    tree = ast.parse((PACKAGE / module).read_text())
    last = _last_return(next(node for name, node in mutate.nodes_of_functions(tree) if name == function))
    if last is None:
        return
    places = [(last, "value", None, "result")]
    if isinstance(last.value, ast.Tuple):
        places = [(last.value, "elts", i, f"result {i + 1}") for i in range(len(last.value.elts))]
    elif isinstance(last.value, ast.Call):
        numbers = [i for i, a in enumerate(last.value.args) if not isinstance(a, ast.Constant)]
        places += [(last.value, "args", i, f"argument {i + 1} of the result") for i in numbers]
    for holder, field, index, what in places:
        held = getattr(holder, field) if index is None else getattr(holder, field)[index]
        mutate.set_node(holder, field, index, ast.BinOp(held, ast.Mult(), ast.Constant(1.1)))
        source = ast.unparse(ast.fix_missing_locations(tree)) + "\n"
        yield mutate.Mutant(module, last.lineno, function, f"{what} times 1.1", 1, source)
        mutate.set_node(holder, field, index, held)


@cache
def _mutants(module: str) -> list[mutate.Mutant]:
    return list(mutate.mutants(module))


EQUATIONS = [Equation(entry["number"], entry) for entry in constants.LISTED["equation"]]


def alter(equations: list[Equation]) -> None:
    """See which tests notice which alteration, each in a copy of the project; kept in SEEN equation by equation."""
    planned = [(equation, equation.alterations(), equation.digest) for equation in equations if equation.tests]
    with mutate.Copy() as copy:  # of the same sources, whatever is edited meanwhile
        for equation, alterations, digest in planned:
            tests, noticed, counted = [f"tests/{test}" for test in equation.tests], Counter(), {}
            if failed := copy.failures(tests):
                raise SystemExit(f"{failed[0]} fails on the code as it is: nothing can be learnt from it")
            for mutant in alterations:
                if len(counted) == ALTERATIONS:
                    break
                failed = copy.failures(tests, mutant)
                if set(failed) - set(copy.asserted):
                    continue  # it crashes
                of = [test for test in equation.tests if test in failed or test in copy.cases]
                noticed.update(of)
                counted[_change(mutant)] = len(of)
            few = {change: n for change, n in counted.items() if n < 2}
            new = {
                "digest": digest,
                "alterations": len(counted),
                "noticed": {t: noticed[t] for t in equation.tests},
                "open": few,
            }
            SEEN.write_text(digests.one_a_line(seen_before() | {str(equation.number): new}))
            print(f"({equation.number}) {equation.why_open(new) or f'{len(counted)} alterations noticed'}", flush=True)


def seen_before() -> dict[str, dict]:
    """What earlier runs of --alter have seen, by equation."""
    held = json.loads(SEEN.read_text()) if SEEN.exists() else {}
    return {str(e.number): held[str(e.number)] for e in EQUATIONS if str(e.number) in held}


def document() -> str:
    """AUDIT.md with what is known now."""
    seen, lines, still_open = seen_before(), [], []
    for equation in EQUATIONS:
        entry, held = equation.entry, seen.get(str(equation.number), {})
        lines.append(f"**({equation.number})** {entry['text']}  ")
        lines.append(f"[{equation.function}](../pcmref/{equation.module}), grade {entry['grade']}, {entry['source']}  ")
        last = _last_return(equation.node)
        if last and not isinstance(last.value, ast.Name):
            lines += [f"`{ast.unparse(last)}`  "]
        why = equation.why_open(held)
        current = held.get("digest") == equation.digest
        for test in equation.tests:
            count = f" {held['noticed'][test]} of {held['alterations']}" if current else ""
            lines.append(f"- `{test}`{count}")
        lines.append("")
        still_open += [f"- ({equation.number}) {entry['text']}: {why}"] * bool(why)
    parts = {"constants": constants.table(), "equations": "\n".join(lines[:-1]), "open": "\n".join(still_open or ["None."])}
    return tables.filled(DOCUMENT.read_text(), parts)


def main(arguments: list[str]) -> int:
    if unknown := confirming().keys() - {equation.number for equation in EQUATIONS}:
        raise SystemExit(f"marked to confirm what equations.toml does not number: {sorted(unknown)}")
    if lacking := constants.ungraded():
        raise SystemExit("without a grade and a source in equations.toml: " + "; ".join(lacking))
    if arguments[:1] == ["--alter"]:
        seen, asked = seen_before(), {int(number) for number in arguments[1:]}
        alter([e for e in EQUATIONS if (e.number in asked if asked else e.why_open(seen.get(str(e.number), {})))])
    DOCUMENT.write_text(document())
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
