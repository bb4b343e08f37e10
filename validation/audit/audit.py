"""Write AUDIT.md: every constant and equation, its source, the function it stands in, and the tests that confirm it.

python -m validation.audit.audit

equations.toml numbers the equations and names their functions. A test says itself which of them it confirms, in a way of its
own: `@pytest.mark.confirms(12)`. Two tests or more confirm every equation; `make mutation` shows what the tests notice.
"""

import ast
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from pcmref.experiments import tables
from validation.audit import constants

TOP = Path(__file__).parents[2]
DOCUMENT = TOP / "validation" / "AUDIT.md"
EQUATIONS = constants.LISTED["equation"]


@cache
def confirming() -> dict[int, list[str]]:
    """{equation: the tests marked to confirm it}, each file::test or file::test[parameter]."""
    tests = defaultdict(list)
    for path in sorted((TOP / "tests").rglob("test_*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            for decorator in getattr(node, "decorator_list", []):
                for case, number in _marks(decorator):
                    tests[number].append(f"{path.relative_to(TOP / 'tests').as_posix()}::{node.name}{case}")
    return tests


def _marks(decorator: ast.expr) -> Iterator[tuple[str, int]]:
    """("[parameter]" or "", number of the equation) of the `confirms` marks of a decorator."""
    parameters = [n for n in ast.walk(decorator) if isinstance(n, ast.Call) and ast.unparse(n.func) == "pytest.param"]
    for node in parameters or [decorator]:
        for call in ast.walk(node):
            if isinstance(call, ast.Call) and ast.unparse(call.func) == "pytest.mark.confirms":
                case = f"[{node.args[0].value}]" if parameters else ""
                yield from ((case, argument.value) for argument in call.args)


def function_of(equation: dict) -> ast.FunctionDef:
    """The function that an equation stands in; ValueError where there is none."""
    module, dotted = equation["where"].split(":")
    node = ast.parse((TOP / "pcmref" / f"{module.replace('.', '/')}.py").read_text(encoding="utf-8"))
    for name in dotted.split("."):
        inside = [n for n in ast.walk(node) if isinstance(n, ast.FunctionDef | ast.ClassDef) and n is not node]
        node = next((n for n in inside if n.name == name), None)
        if node is None:
            raise ValueError(f"no function {dotted} in pcmref/{module}")
    return node


def document() -> str:
    """AUDIT.md as the code is now."""
    lines = []
    for equation in EQUATIONS:
        module, function = equation["where"].split(":")
        function_of(equation)
        path = f"../pcmref/{module.replace('.', '/')}.py"
        source = f"grade {equation['grade']}, {equation['source']}"
        lines += [f"**({equation['number']})** {equation['text']}  ", f"[{function}]({path}), {source}  "]
        lines += [f"- `{test}`" for test in confirming()[equation["number"]]] + [""]
    return tables.filled(DOCUMENT.read_text(), {"constants": constants.table(), "equations": "\n".join(lines[:-1])})


if __name__ == "__main__":
    DOCUMENT.write_text(document())
