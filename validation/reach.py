"""What a piece of code rests on: the functions, members and constants that it names, theirs in turn, and a digest of them all.

Names are followed within a file and through imports of the project's own modules (`from pcmref.pcm import gdc`), in tests also
through arguments, which name fixtures of the file or of conftest.py. Not followed are methods of objects that come from
elsewhere: a name after a dot is looked for in the same file alone.
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
            if isinstance(node, ast.ImportFrom) and (source := module_path(path, node.module)):
                for alias in node.names:
                    inner = module_path(path, f"{node.module}.{alias.name}")
                    self.imported[alias.asname or alias.name] = (inner, None) if inner else (source, alias.name)

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
                of = self.imported.get(node.value.id, (None, "")) if isinstance(node.value, ast.Name) else (None, "")
                if of[0] and of[1] is None:
                    yield from module(of[0])._found(node.attr)

    def _found(self, name: str):
        if name in self.defined:
            yield self, name
        elif self.imported.get(name, (None, None))[1]:
            source, inner = self.imported[name]
            yield from module(source)._found(inner)


@cache
def module(path: Path) -> Module:
    return Module(path)


def module_path(importer: Path, name: str | None) -> Path | None:
    """The file of a module of the package, or of one beside a test; None for any other."""
    top = TOP if (name or "").partition(".")[0] == "pcmref" and TOP / "pcmref" in importer.parents else importer.parent
    path = top / f"{(name or '').replace('.', '/')}.py"
    return path if path.is_file() else None


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
    found = sorted((p.relative_to(TOP).as_posix(), n, ast.unparse(module(p).defined[n])) for p, n in reached(path, name))
    return hashlib.sha256("\n".join("\n".join(entry) for entry in found).encode()).hexdigest()[:16]
