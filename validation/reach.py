"""What a piece of code rests on: the functions, members and constants that it names, theirs in turn, and a digest of them all.

Names are followed within a file and through imports of the project's own modules (`from pcmref.pcm import gdc`), in tests
also through arguments, which name fixtures of the file or of conftest.py. What judges the package (tests, golden, checks,
strategies) is followed among itself, not into what it judges; a test that reaches the golden vectors rests on their file too,
and every one on conftest.py's settings. Not followed are methods of objects that come from elsewhere: a name after a dot is
looked for in the same file alone.
"""

import ast
import hashlib
from functools import cache
from pathlib import Path

TOP = Path(__file__).parent.parent


def without_docstrings(tree: ast.AST) -> ast.AST:
    """The tree itself, its docstrings emptied."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
            node.body[0].value = ast.Constant("")
    return tree


def plain(tree: ast.AST) -> str:
    """The code of a tree without comments, layout and docstrings, which change no behaviour."""
    return ast.unparse(without_docstrings(tree))


class Module:
    """The definitions of one file, {dotted name: node}, and where its imported names come from."""

    def __init__(self, path: Path):
        self.path, self.defined, self.imported, self.members = path, {}, {}, {}
        tree = ast.parse(path.read_text(encoding="utf-8"))
        without_docstrings(tree)
        for node in tree.body:
            self._define(node, "")
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module:
                source = module_path(path, node.module)
                for alias in node.names:
                    inner = module_path(path, f"{node.module}.{alias.name}")
                    found = [(inner, None)] * bool(inner) + [(source, alias.name)] * bool(source)
                    self.imported.setdefault(alias.asname or alias.name, []).extend(found)

    def _define(self, node: ast.stmt, prefix: str) -> None:
        names = [node.name] if isinstance(node, ast.FunctionDef | ast.ClassDef) else []
        if isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names = [part.id for target in targets for part in ast.walk(target) if isinstance(part, ast.Name)]
        for name in names:
            self.defined[prefix + name] = node
            if prefix:
                self.members.setdefault(name, []).append(prefix + name)
        if isinstance(node, ast.ClassDef):
            for child in node.body:
                self._define(child, f"{node.name}.")

    def named_by(self, name: str):
        """(module, dotted name) of all that a definition names."""
        for node in ast.walk(self.defined[name]):
            if isinstance(node, ast.Name):
                yield from self._found(node.id)
            elif isinstance(node, ast.arg):
                shared = self.path.parent / "conftest.py"
                yield from (self if node.arg in self.defined or not shared.is_file() else module(shared))._found(node.arg)
            elif isinstance(node, ast.Attribute):
                yield from ((self, member) for member in self.members.get(node.attr, ()))
                of = self.imported.get(node.value.id, []) if isinstance(node.value, ast.Name) else []
                yield from (found for source, inner in of if inner is None for found in module(source)._found(node.attr))

    def _found(self, name: str, asked: tuple = ()):
        """Where a name is defined, here or where it is imported from; `asked` are those on the way, for packages that import
        themselves."""
        if name in self.defined:
            yield self, name
        for source, inner in self.imported.get(name, []):
            if inner is not None and (source, inner) not in asked:
                yield from module(source)._found(inner, (*asked, (source, inner)))


@cache
def module(path: Path) -> Module:
    return Module(path)


def judges(path: Path) -> bool:
    """Whether a file judges the package: a test, or of golden, checks or strategies."""
    parts = path.relative_to(TOP).parts
    return parts[0] != "pcmref" or parts[1] in ("golden", "checks.py", "strategies.py")


def module_path(importer: Path, name: str) -> Path | None:
    """The file of a module or package: of pcmref, or one beside the importer; None for any other, and for what is judged."""
    top = TOP if name.partition(".")[0] == "pcmref" else importer.parent
    stem = top / name.replace(".", "/")
    path = next((p for p in (stem.with_suffix(".py"), stem / "__init__.py") if p.is_file()), None)
    return None if path is None or judges(importer) and not judges(path) else path


def reached(path: Path, name: str) -> set[tuple[Path, str]]:
    """(file, dotted name) of a definition and of all that it rests on."""
    waiting, seen = [(module(path), name)], set()
    while waiting:
        at, name = waiting.pop()
        if (at.path, name) not in seen:
            seen.add((at.path, name))
            waiting += at.named_by(name)
    return seen


@cache
def digest(path: Path, name: str) -> str:
    """Of the code of a definition and of all that it rests on, without comments, layout and docstrings."""
    found = reached(path, name)
    text = sorted("\n".join((p.relative_to(TOP).as_posix(), n, ast.unparse(module(p).defined[n]))) for p, n in found)
    golden, conftest = TOP / "pcmref" / "golden", path.parent / "conftest.py"
    if any(golden in p.parents for p, _ in found):
        text += [hashlib.sha256(file.read_bytes()).hexdigest() for file in sorted(golden.glob("*.h5"))]
    if conftest.is_file():
        text.append(plain(ast.parse(conftest.read_text(encoding="utf-8"))))
    return hashlib.sha256("\n".join(text).encode()).hexdigest()[:16]
