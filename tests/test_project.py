"""What the project says of itself agrees with itself."""

import ast
import io
import re
import shutil
import tokenize
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import pcmref

TOP = Path(__file__).parent.parent
TEXT = "nn/*.py pcm/model.py pcm/mapping.py pcm/chip.py pcm/gdc.py training.py draws.py"
BUDGETS = {
    "the paper as code": (" ".join(f"pcmref/{name}" for name in TEXT.split()), 1_000),
    "the package, which may only get smaller": ("pcmref/**/*.py", 8_756),
}
ROOMS = (  # from the ground up: a room may import from those above this line of its own, and from itself
    "errors",
    "draws json_files precision store threads",
    "nn pcm",
    "fast",
    "training",
    "files",
    "experiments",
    "__init__",  # the package's face, as users see it
    "golden",
    "checks strategies",
    "cli conformance",
    "__main__",
)
NO_CODE = {getattr(tokenize, n) for n in ("COMMENT", "NL", "NEWLINE", "INDENT", "DEDENT", "ENDMARKER")}


def text(name: str) -> str:
    return (TOP / name).read_text(encoding="utf-8")


def test_the_citation_has_the_packages_version_and_licence():
    assert re.findall(r"^version: (.*)$", text("CITATION.cff"), re.M) == [pcmref.__version__]
    assert 'version = { attr = "pcmref.__version__" }' in text("pyproject.toml")
    assert f"\n## {pcmref.__version__}" in text("CHANGELOG.md")
    licence = re.search(r'license = \{ text = "(.*)" \}', text("pyproject.toml"))[1]
    assert f"\nlicense: {licence}\n" in text("CITATION.cff")


def test_contributing_names_what_is_there():
    page, make = text("CONTRIBUTING.md"), text("Makefile")
    named = re.findall(r"`make ([^`]+)`|^make ([\w-]+)", page, re.M)
    assert len(named) > 8
    for target in " ".join(" ".join(pair) for pair in named).split():
        assert f"\n{target}:" in make, target
    folders = "pcmref|tests|validation|docs|reference_weights"
    paths = re.findall(rf"`((?:{folders})/[\w/.-]*)`", page)
    paths += [f"{module.replace('.', '/')}.py" for module in re.findall(r"python -m (validation[\w.]+)", page)]
    assert len(paths) > 15
    for path in paths:
        assert (TOP / path).exists(), path


def code_lines(path: Path) -> int:
    """The lines of a Python file that hold code: no blank lines, comments and docstrings."""
    source = path.read_text(encoding="utf-8")
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef)
    strings = [n.body[0] for n in ast.walk(ast.parse(source)) if isinstance(n, documented) and ast.get_docstring(n) is not None]
    tokens = [t for t in tokenize.generate_tokens(io.StringIO(source).readline) if t.type not in NO_CODE]
    lines = {line for t in tokens for line in range(t.start[0], t.end[0] + 1)}
    return len(lines - {line for node in strings for line in range(node.lineno, node.end_lineno + 1)})


def test_lines_of_code_are_counted(tmp_path):
    path = tmp_path / "module.py"
    what = '"""What.\n\nHow.\n"""\n'
    text = what + '\n# why\na = """1\n2"""  # two lines\n\n\ndef f(x):\n    """What."""\n    return (x,\n\n x)\n'
    path.write_text(text)
    assert code_lines(path) == len(["a = 1", "2", "def f(x):", "return (x,", "x)"])


@pytest.mark.parametrize(("patterns", "budget"), BUDGETS.values(), ids=BUDGETS)
def test_the_code_stays_within_its_budget(patterns, budget):
    files = [path for pattern in patterns.split() for path in TOP.glob(pattern)]
    assert files and sum(code_lines(path) for path in files) <= budget


def imports(package: Path) -> dict[str, set[str]]:
    """{module: the package's modules that it imports, wherever in its text}; a folder's face is FOLDER.__init__."""
    modules = {path.relative_to(package).with_suffix("").as_posix().replace("/", "."): path for path in package.rglob("*.py")}
    found = {}
    for module, path in modules.items():
        names = set()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                names |= {f"{node.module}.{alias.name}" for alias in node.names}
        of_ours = {name.partition(".")[2] for name in names if name.split(".")[0] == package.name}
        found[module] = {next(m for m in _meant(name) if m in modules) for name in of_ours}
    return found


def _meant(name: str) -> list[str]:
    """The modules that `a.b.c` may be or be in: a.b.c, the face of that folder, a.b, the face of a.b, ..., the package's."""
    parts = name.split(".")
    heads = [".".join(parts[:n]) for n in range(len(parts), 0, -1)]
    return [module for head in heads for module in (head, f"{head}.__init__")] + ["__init__"]


def wrong_imports(found: dict[str, set[str]]) -> list:
    """What points up or to a neighbour, `importer -> imported`; and a circle, where there is one."""
    floor = {room: i for i, rooms in enumerate(ROOMS) for room in rooms.split()}
    room = {module: module.partition(".")[0] for module in found}
    pairs = [(a, b) for a, names in found.items() for b in sorted(names) if room[a] != room[b]]
    wrong = [f"{a} -> {b}" for a, b in pairs if floor[room[a]] <= floor[room[b]]]
    try:
        TopologicalSorter(found).prepare()
    except CycleError as error:
        wrong.append(sorted(set(error.args[1])))
    return wrong


def test_imports_point_down_and_go_round_in_no_circle():
    found = imports(TOP / "pcmref")
    assert found["experiments.driver"] >= {"nn.adabs", "pcm.chip", "errors"} and len(found) > 60
    assert wrong_imports(found) == []


@pytest.mark.parametrize(
    ("importer", "line", "wrong"),
    [
        ("nn/blocks.py", "from pcmref.pcm import mapping", "nn.blocks -> pcm.mapping"),
        ("training.py", "def f():\n    import pcmref.experiments.tables", "training -> experiments.tables"),
        ("files/networks.py", "from pcmref import load", "files.networks -> __init__"),
        ("fast/layers.py", "from pcmref.golden import Reference", "fast.layers -> golden.__init__"),
        ("pcm/mapping.py", "from pcmref.pcm.chip import Chip", ["pcm.chip", "pcm.mapping"]),
    ],
)
def test_planted_imports_are_found(importer, line, wrong, tmp_path):
    package = shutil.copytree(TOP / "pcmref", tmp_path / "pcmref", ignore=shutil.ignore_patterns("__py*", "*.h5"))
    with open(package / importer, "a", encoding="utf-8") as file:
        file.write(f"\n{line}\n")
    assert wrong in wrong_imports(imports(package))


def test_no_result_hangs_on_a_count_of_references():
    """What `getrefcount` says differs from one Python to the next, and so would what is taken for free memory."""
    assert not [path for path in (TOP / "pcmref").rglob("*.py") if "getrefcount" in path.read_text(encoding="utf-8")]


def test_the_readme_of_validation_says_what_each_file_makes():
    folder, page = TOP / "validation", text("validation/README.md")
    files = [path for path in folder.glob("*/*") if path.suffix in (".py", ".toml")]
    named = set(re.findall(r"`(\w+\.(?:py|toml))`", page))
    attacks = {path.name for path in files if path.stem.startswith("attacks")}  # `attacks*.py`
    assert len(files) > 30 and {path.name for path in files} - attacks == named
