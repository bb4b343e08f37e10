"""Mutation testing of nn, pcm and fast: plant one small mistake at a time and see whether the own tests notice.

python -m validation.audit.mutate --sample 160 --json validation/results/mutation.json [--seed 0] [--module pcm/model.py]

A mutant changes one place of one module: an operator, a comparison, a number, a sign, a condition, or a function such as
maximum for minimum. It runs in a copy of the project, against the module's own tests only, under a time limit. Killed means
that a test failed, or that the tests ran out of time. One that keeps the package from being imported is stillborn: no test had
to notice it, so it counts neither way. What is printed is the share killed and every survivor.

The sample does not depend on what else changes: each mutant has a random number of its own, and the lowest are taken. The file
of --json is written as the run goes, and a run goes on from it: mutants it names as killed are not run again unless their
module has changed. equivalent_mutants.toml says of a survivor why no test can notice it; the others run again.
"""

import argparse
import ast
import hashlib
import json
import os
import re
import resource
import shutil
import signal
import sys
import tempfile
import tomllib
import traceback
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import hypothesis  # noqa: F401 (loaded once for all mutants)
import pytest
import scipy.integrate
import scipy.stats  # noqa: F401

from pcmref import draws

TOP = Path(__file__).parents[2]
EQUIVALENT = Path(__file__).parent / "equivalent_mutants.toml"
ROOMS = ("nn", "pcm", "fast")
ALSO = {"nn/blocks.py": ["resnet"], "nn/states.py": ["resnet"], "pcm/constants.py": ["profiles"], "pcm/crossbar.py": ["gdc"]}
STILLBORN = "no test ran"
CPU_LIMIT_S = 60  # of processor time, whatever else runs; the own tests take under 10 s

UNSHRUNK = """
from hypothesis import Phase
settings.register_profile("unshrunk", settings.get_profile("pcmref"), phases=[Phase.explicit, Phase.generate])
settings.load_profile("unshrunk")
"""  # any failure will do; a small one takes long

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
    nth: int  # among the same changes in the same function
    source: str

    @property
    def label(self) -> str:
        """What names it in equivalent_mutants.toml, whatever line it is on."""
        return f"{self.module} {self.function}: {self.change}" + f" ({self.nth})" * (self.nth > 1)

    @property
    def digest(self) -> str:
        """The SHA-256 of its module, with the mistake and without comments."""
        return hashlib.sha256(self.source.encode()).hexdigest()


def mutants(module: str) -> Iterator[Mutant]:
    """Every mutant of a module, in the order of its lines; messages, annotations and docstrings are left alone."""
    tree, met = ast.parse((TOP / "pcmref" / module).read_text()), Counter()
    for function, node in _nodes(tree, ""):
        for change, field, index, value in _edits(node):
            held = getattr(node, field)
            old = held if index is None else held[index]
            met[function, change] += 1
            set_node(node, field, index, value)
            yield Mutant(module, node.lineno, function, change, met[function, change], ast.unparse(tree) + "\n")
            set_node(node, field, index, old)


def set_node(node, field, index, value):
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
    """The modules of the rooms, relative to pcmref/."""
    found = [p.relative_to(TOP / "pcmref") for room in ROOMS for p in sorted((TOP / "pcmref" / room).glob("*.py"))]
    return [str(p) for p in found if p.name != "__init__.py"]


def own_tests(module: str) -> list[str]:
    """Its room's test_<stem>.py and test_<stem>_<more>.py; for nn test_exact.py too; for fast all, and nn's network."""
    room, _, name = module.partition("/")
    stems = [name.removesuffix(".py"), *ALSO.get(module, []), *["exact"] * (room == "nn")]
    patterns = [f"{room}/test_{stem}{more}.py" for stem in stems for more in ("", "_*")]
    patterns = ["fast/test_*.py", "nn/test_resnet.py"] if room == "fast" else patterns
    return [str(path.relative_to(TOP)) for pattern in patterns for path in sorted((TOP / "tests").glob(pattern))]


def sampled(modules: list[str], n: int, seed: int) -> tuple[list[Mutant], int]:
    """(n of the modules' mutants by the lowest random numbers, in the order of their lines; how many there are)."""
    everything = [mutant for module in modules for mutant in mutants(module)]
    rank = {mutant: float(draws.uniform(seed, f"mutants/{mutant.label}", ())) for mutant in everything}
    chosen = set(sorted(everything, key=rank.get)[:n])
    return [mutant for mutant in everything if mutant in chosen], len(everything)


def equivalent() -> dict[str, str]:
    """{label: why no test can notice it} of the mutants that were looked at."""
    return {entry["mutant"]: entry["why"] for entry in tomllib.loads(EQUIVALENT.read_text())["equivalent"]}


class Copy:
    """A copy of the project in a temporary folder, in which mutants run; use as a context manager."""

    def __enter__(self):
        self.folder = Path(tempfile.mkdtemp(prefix="pcmref-mutants-"))
        for name in ("pcmref", "tests", "validation", "reference_weights"):
            shutil.copytree(TOP / name, self.folder / name, ignore=shutil.ignore_patterns("__pycache__", "*.tmp"))
        shutil.copy(TOP / "pyproject.toml", self.folder)
        with open(self.folder / "tests" / "conftest.py", "a") as file:
            file.write(UNSHRUNK)
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
        """A forked process runs the tests: the libraries are loaded already, pcmref comes from the copy."""
        sys.stdout.flush()
        child = os.fork()
        if child == 0:
            try:
                status = self._pytest([*["-x"] * first, *tests])
            except BaseException:
                traceback.print_exc()
                status = 70
            finally:
                sys.stdout.flush()
                os._exit(status)
        status = os.waitpid(child, 0)[1]
        if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGXCPU:
            return ["out of time"]
        failed = set(re.findall(r"^(?:FAILED|ERROR) tests/(\S+?::\w+)", (self.folder / "output").read_text(), re.MULTILINE))
        return sorted(failed) or [STILLBORN] * bool(status)

    def _pytest(self, arguments) -> int:
        resource.setrlimit(resource.RLIMIT_CPU, (CPU_LIMIT_S, CPU_LIMIT_S + 1))
        os.chdir(self.folder)
        output = os.open("output", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(output, 1)
        os.dup2(output, 2)
        loaded = tuple(f"{TOP / room}{os.sep}" for room in ("tests", "docs", "validation"))
        for name, module in list(sys.modules.items()):  # pcmref by name: it may be installed from another checkout
            if name.partition(".")[0] == "pcmref" or str(getattr(module, "__file__", None)).startswith(loaded):
                del sys.modules[name]
        sys.path.insert(0, str(self.folder))
        os.environ |= {"PYTHONPATH": str(self.folder), "COLUMNS": "400"}
        rewrite = "ignore::pytest.PytestAssertRewriteWarning"  # hypothesis is loaded
        options = ["-q", "-rfE", "--tb=no", "-p", "no:cacheprovider", "-m", "not slow", "-W", rewrite]
        return int(pytest.main([*options, *arguments]))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sample", type=int, default=160, help="mutants to run (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the sample (default: %(default)s)")
    parser.add_argument("--module", choices=modules(), action="append", help="only this module (default: all)")
    parser.add_argument("--json", type=Path, help="write every mutant and its fate here, and go on from what is there")
    arguments = parser.parse_args()
    sample, possible = sampled(arguments.module or modules(), arguments.sample, arguments.seed)
    known = json.loads(arguments.json.read_text()) if arguments.json and arguments.json.exists() else []
    why = equivalent()
    killers = {fate["digest"]: fate["killed by"] for fate in known if fate["killed by"] or fate["mutant"] in why}
    waiting = [mutant for mutant in sample if mutant.digest not in killers]
    with Copy() as copy:
        for module in dict.fromkeys(mutant.module for mutant in waiting):
            if failed := copy.failures(own_tests(module), first=True):
                raise SystemExit(f"without any mutant: {failed[0]} for {module}; nothing can be learnt from it")
        for mutant in waiting:
            killers[mutant.digest] = "".join(copy.failures(own_tests(mutant.module), mutant, first=True))
            if not killers[mutant.digest]:
                print(f"survived: {mutant.label}, line {mutant.line}", flush=True)
            if arguments.json:
                fates = [_fate(mutant, killers[mutant.digest]) for mutant in sample if mutant.digest in killers]
                arguments.json.write_text("[\n" + ",\n".join(map(json.dumps, fates)) + "\n]\n")
    print(summary([_fate(mutant, killers[mutant.digest]) for mutant in sample]) + f" They are of {possible:,} possible ones.")
    return 0


def _fate(mutant: Mutant, killer: str) -> dict:
    return {"mutant": mutant.label, "module": mutant.module, "line": mutant.line, "digest": mutant.digest, "killed by": killer}


def summary(fates: list[dict]) -> str:
    """How many were killed, and how many of the survivors are explained."""
    born = [fate for fate in fates if fate["killed by"] != STILLBORN]
    killed, late = (sum(test(fate["killed by"]) for fate in born) for test in (bool, "out of time".__eq__))
    why = equivalent()
    explained = sum(not fate["killed by"] and fate["mutant"] in why for fate in born)
    return (
        f"{killed} of {len(born)} sampled mutants are killed ({100 * killed / len(born):.1f} %), {late} of them by the time "
        f"limit; of the {len(born) - killed} survivors {explained} are explained. {len(fates) - len(born)} more were "
        "stillborn: the package could not be imported with them."
    )


if __name__ == "__main__":
    raise SystemExit(main())
