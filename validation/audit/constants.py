"""The constants of the paper as code: found in its sources, graded in equations.toml; devices grade their own."""

import ast
import tomllib
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

from pcmref.experiments import tables
from pcmref.pcm.model import PCMModel

PACKAGE = Path(__file__).parents[2] / "pcmref"
LISTED = tomllib.loads(Path(__file__).with_name("equations.toml").read_text())
GRADED = ("nn/*.py", "pcm/*.py", "training.py", "draws.py")
NEUTRAL = (0, 1)  # as a default: nothing is added, nothing multiplied, the first is meant


def _number(node) -> object:
    """What an expression says in numbers: its value where it is made of literals, else its text; None where it has none.

    A 0 or 1 is a number only by itself: beside others it is an index or a neutral default.
    """
    numbers = [part.value for part in ast.walk(node) if isinstance(part, ast.Constant) and type(part.value) in (int, float)]
    try:
        value = eval(compile(ast.Expression(node), "", "eval"), {"__builtins__": {}})
    except Exception:  # it needs names
        value = None
    if not isinstance(value, int | float | str | tuple | list | dict):
        value = ast.unparse(node)
    return value if type(value) in (int, float) or set(numbers) - set(NEUTRAL) else None


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
    """The numbers of the graded modules that equations.toml lacks; the model grades its own, and G_max is its everywhere."""
    listed = {(constant["module"], constant["name"]) for constant in LISTED["constant"]}
    found = []
    for path in sorted(path for pattern in GRADED for path in PACKAGE.glob(pattern)):
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


def table() -> str:
    """The constants of AUDIT.md, in Markdown."""
    lines = [["constant", "value", "unit", "grade", "source"]]
    for name, value, unit, grade, source in PCMModel.constants():
        lines.append([f"`PCMModel.{name}`", str(value), unit or "-", grade, source])
    for constant in LISTED["constant"]:
        value = str(value_of(constant["module"], constant["name"]))
        value = f"`{value[:77]}...`".replace("|", "\\|") if len(value) > 80 else value
        lines.append([f"`{constant['module']}.{constant['name']}`", value, *_graded(constant)])
    return tables.markdown(lines)


def _graded(entry: dict) -> list[str]:
    return [entry[key] for key in ("unit", "grade", "source")]
