"""What a piece of code is: a digest of a definition and of all that it names in its own file, of a test also of its fixtures.

Comments, layout and docstrings change no digest. Names are not followed into other files: what a test is of is what its own
file says, and an alteration is seen by running it.
"""

import ast
import hashlib
import json
from functools import cache
from pathlib import Path

TOP = Path(__file__).parents[2]


def plain(tree: ast.AST) -> str:
    """The code of a tree, which loses what changes no behaviour: comments, layout, docstrings, marks of what is confirmed."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            node.decorator_list = [d for d in node.decorator_list if "mark.confirms" not in ast.unparse(d)]
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
            node.body[0].value = ast.Constant("")
    return ast.unparse(tree)


@cache
def definitions(path: Path) -> dict[str, ast.stmt]:
    """{dotted name: node} of the functions, classes, members and constants of a file, conftest.py's fixtures included."""
    found, shared = {}, path.parent / "conftest.py"

    def define(node: ast.stmt, prefix: str) -> None:
        names = [node.name] if isinstance(node, ast.FunctionDef | ast.ClassDef) else []
        if isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names = [part.id for target in targets for part in ast.walk(target) if isinstance(part, ast.Name)]
        found.update({prefix + name: node for name in names})
        for child in node.body if isinstance(node, ast.ClassDef) else ():
            define(child, f"{node.name}.")

    for file in [shared] * shared.is_file() + [path]:
        tree = ast.parse(file.read_text(encoding="utf-8"))
        plain(tree)
        for node in tree.body:
            define(node, "")
    return found


@cache
def digest(path: Path, name: str) -> str:
    """Of a definition and of all that it names in its own file; "" where there is none of this name."""
    defined, waiting, seen = definitions(path), [name], set()
    members = {}
    for dotted in defined:
        members.setdefault(dotted.rpartition(".")[2], []).append(dotted)
    while waiting:
        at = waiting.pop()
        if at in defined and at not in seen:
            seen.add(at)
            for node in ast.walk(defined[at]):
                waiting += [node.id] if isinstance(node, ast.Name) else [node.arg] if isinstance(node, ast.arg) else []
                waiting += members.get(node.attr, ()) if isinstance(node, ast.Attribute) else ()
    text = "\n".join(f"{at}\n{ast.unparse(defined[at])}" for at in sorted(seen))
    return hashlib.sha256(text.encode()).hexdigest()[:16] if seen else ""


def one_a_line(entries: list | dict) -> str:
    """JSON with an entry a line, which a diff shows."""
    if isinstance(entries, list):
        return "[\n" + ",\n".join(json.dumps(entry) for entry in entries) + "\n]\n"
    return "{\n" + ",\n".join(f"{json.dumps(key)}: {json.dumps(entry)}" for key, entry in entries.items()) + "\n}\n"
