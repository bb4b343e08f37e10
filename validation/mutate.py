"""Mutation testing of pcmref/nn and pcmref/pcm: plant one small mistake at a time and see whether the own tests notice.

python validation/mutate.py --sample 150 [--seed 0] [--module pcm/model.py] [--json results.json]

A mutant changes one place of one module: an operator, a comparison, a number, a sign, a condition, or a function such as
maximum for minimum. It runs in a copy of the project, against tests/test_<module>.py only, under a time limit. Killed means
that a test failed, or that the tests ran out of time. What is printed is the share killed and every survivor.
"""

import argparse
import ast
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from pcmref import draws

TOP = Path(__file__).parent.parent
ROOMS = ("nn", "pcm")
OWN_TESTS = {"nn/batch.py": "tests/test_resnet.py"}  # where it is not tests/test_<module>.py
TIME_LIMIT_S = 60.0

SWAPS = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.Pow: ast.Mult, ast.FloorDiv: ast.Mult,
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.And: ast.Or, ast.Or: ast.And, ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is,
}  # fmt: skip
NAMES = {"maximum": "minimum", "minimum": "maximum", "max": "min", "min": "max", "abs": "positive", "log": "log10",
         "sqrt": "square", "square": "sqrt", "ones": "zeros", "zeros": "ones", "subtract": "add",
         "divide": "multiply"}  # fmt: skip


@dataclass(frozen=True)
class Mutant:
    """One mistake: `source` is the whole module with it."""

    module: str  # relative to pcmref/
    line: int
    function: str
    change: str
    source: str


def mutants(module: str) -> Iterator[Mutant]:
    """Every mutant of a module, in the order of its lines; messages, annotations and docstrings are left alone."""
    tree = ast.parse((TOP / "pcmref" / module).read_text())
    for function, node in _nodes(tree, ""):
        for change, field, index, value in _edits(node):
            held = getattr(node, field)
            old = held if index is None else held[index]
            _set(node, field, index, value)
            yield Mutant(module, node.lineno, function, change, ast.unparse(tree) + "\n")
            _set(node, field, index, old)


def _set(node, field, index, value):
    if index is None:
        setattr(node, field, value)
    else:
        getattr(node, field)[index] = value


def _nodes(node, function) -> Iterator[tuple[str, ast.AST]]:
    """(enclosing function, node) of all that may be mutated below a node."""
    for name, held in ast.iter_fields(node):
        for child in held if isinstance(held, list) else [held]:
            skipped = name in ("annotation", "returns", "decorator_list") or isinstance(child, ast.Raise | ast.JoinedStr)
            if not isinstance(child, ast.AST) or skipped:
                continue
            inside = function
            if isinstance(child, ast.FunctionDef | ast.ClassDef):
                inside = f"{function}.{child.name}".lstrip(".")
            if hasattr(child, "lineno"):
                yield inside, child
            yield from _nodes(child, inside)


def functions(module: str) -> Iterator[tuple[str, ast.FunctionDef]]:
    """(dotted name, node) of every function of a module."""
    tree = ast.parse((TOP / "pcmref" / module).read_text())
    yield from ((name, node) for name, node in _nodes(tree, "") if isinstance(node, ast.FunctionDef))


def _edits(node) -> list[tuple[str, str, int | None, object]]:
    """(what changes, field, index in the field, new value) of one node."""
    edits = []
    if isinstance(node, ast.BinOp | ast.AugAssign | ast.BoolOp) and type(node.op) in SWAPS:
        edits.append(_swap(node.op, "op", None))
    if isinstance(node, ast.Compare) and type(node.ops[0]) in SWAPS:
        edits.append(_swap(node.ops[0], "ops", 0))
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        edits.append(("- removed", "op", None, ast.UAdd()))
    if isinstance(node, ast.Constant) and type(node.value) in (int, float, bool):
        edits_of = {bool: lambda v: not v, int: lambda v: v + 1, float: lambda v: v * 1.02 or 1.0}
        new = edits_of[type(node.value)](node.value)
        edits.append((f"{node.value!r} to {new!r}", "value", None, new))
    if isinstance(node, ast.If | ast.IfExp):
        edits.append(("condition negated", "test", None, ast.UnaryOp(ast.Not(), node.test)))
    if isinstance(node, ast.Attribute) and node.attr in NAMES:
        edits.append((f"{node.attr} to {NAMES[node.attr]}", "attr", None, NAMES[node.attr]))
    return edits


def _swap(operator, field, index):
    new = SWAPS[type(operator)]
    return f"{type(operator).__name__} to {new.__name__}", field, index, new()


def modules() -> list[str]:
    """The modules of the network and the device, relative to pcmref/."""
    found = [p.relative_to(TOP / "pcmref") for room in ROOMS for p in sorted((TOP / "pcmref" / room).glob("*.py"))]
    return [str(p) for p in found if p.name != "__init__.py"]


def own_tests(module: str) -> str:
    """The test file of a module."""
    return OWN_TESTS.get(module, f"tests/test_{Path(module).stem}.py")


class Copy:
    """A copy of the project in a temporary folder, in which mutants run; use as a context manager."""

    def __enter__(self):
        self.folder = Path(tempfile.mkdtemp(prefix="pcmref-mutants-"))
        for name in ("pcmref", "tests", "validation", "reference_weights"):
            shutil.copytree(TOP / name, self.folder / name, ignore=shutil.ignore_patterns("__pycache__", "*.tmp"))
        shutil.copy(TOP / "pyproject.toml", self.folder)
        return self

    def __exit__(self, *_):
        shutil.rmtree(self.folder, ignore_errors=True)

    def failures(self, tests: list[str], mutant: Mutant | None = None, first: bool = False) -> list[str]:
        """The tests (file::function) that fail with this mutant in place; `first` stops at the first one.

        ["out of time"] where the time limit ended the run, ["no test ran"] where nothing could be collected.
        """
        if mutant is None:
            return self._run(tests, first)
        path = self.folder / "pcmref" / mutant.module
        original = path.read_bytes()
        path.write_text(mutant.source)
        try:
            return self._run(tests, first)
        finally:
            path.write_bytes(original)

    def _run(self, tests, first):
        command = [sys.executable, "-B", "-m", "pytest", "-q", "-rfE", "--tb=no", "-p", "no:cacheprovider", "-m", "not slow"]
        environment = os.environ | {"PYTHONPATH": str(self.folder)}
        settings = {"cwd": self.folder, "env": environment, "timeout": TIME_LIMIT_S, "capture_output": True, "text": True}
        try:
            done = subprocess.run([*command, *["-x"] * first, *tests], **settings)
        except subprocess.TimeoutExpired:
            return ["out of time"]
        failed = re.findall(r"^(?:FAILED|ERROR) tests/(\S+?::\w+)", done.stdout, re.MULTILINE)
        return sorted(set(failed)) or ["no test ran"] * bool(done.returncode)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sample", type=int, default=150, help="mutants to run (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the sample (default: %(default)s)")
    parser.add_argument("--module", choices=modules(), action="append", help="only this module (default: all)")
    parser.add_argument("--json", type=Path, help="write every mutant and its fate here")
    arguments = parser.parse_args()
    chosen = arguments.module or modules()
    everything = [mutant for module in chosen for mutant in mutants(module)]
    order = draws.permutation(arguments.seed, "mutants", len(everything))[: arguments.sample]
    fates = []
    with Copy() as copy:
        for module in chosen:
            if failed := copy.failures([own_tests(module)], first=True):
                raise SystemExit(f"without any mutant: {failed[0]} in {own_tests(module)}; nothing can be learnt from it")
        for i in sorted(order):
            mutant = everything[i]
            killer = copy.failures([own_tests(mutant.module)], mutant, first=True)
            fates.append({k: v for k, v in asdict(mutant).items() if k != "source"} | {"killed by": "".join(killer)})
            if not killer:
                print(f"survived: {mutant.module}:{mutant.line} {mutant.function}: {mutant.change}", flush=True)
    killed = sum(bool(fate["killed by"]) for fate in fates)
    print(f"{killed} of {len(fates)} mutants killed ({100 * killed / len(fates):.1f} %), of {len(everything)} possible")
    if arguments.json:
        arguments.json.write_text(json.dumps(fates, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
