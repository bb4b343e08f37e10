"""The operations' records: their dimensions are those of every case."""

import ast
import re
from pathlib import Path

import numpy as np
import pytest

from pcmref.golden import Reference, design, file, make, ops
from pcmref.golden.ops import OPS, upstream

STORED = file.read()
STEMS = {name[:n] for name in OPS for n in range(3, len(name))}  # with which an operation might be asked for


def shapes(arrays):
    return {name: np.shape(getattr(array, "value", array)) for name, array in arrays.items()}


@pytest.mark.parametrize("name", OPS)
def test_the_dimensions_of_an_operation_are_those_of_all_its_cases(name):
    op = OPS[name]
    for g in (g for g in STORED if g.case.op == name):
        outputs = shapes({k: law.location for k, law in g.law.items()} if g.law else g.expected)
        assert not op.misfit(inputs=shapes(g.case.inputs), noise=shapes(g.case.noise), outputs=outputs), g.case.key
    settings = [*design.settings(name), *design.far(name)]
    for i, setting in enumerate(s for s in settings if s.get("devices", 0) < 5000):
        case = make.make(name, "shape", setting, "float64")
        outputs = Reference().run(name, 1, case.inputs, case.noise, case.params) if i < 8 else {}
        assert not op.misfit(inputs=shapes(case.inputs), noise=shapes(case.noise), outputs=shapes(outputs)), setting


@pytest.mark.parametrize(
    ("op", "inputs", "outputs", "message"),
    [
        ("linear", {"x": (3, 5), "w": (5, 4)}, {}, r"'w' must be \[O,C\] with C = 5, got \[5, 4\]"),
        ("basic_block", {"x": (2, 8, 6, 3)}, {"y": (2, 8, 6)}, r"'y' must be \[N,P,Q,O\] with N = 2, got \[2, 8, 6\]"),
        ("gdc", {"g_t_us": (2, 3, 4)}, {"alpha": (4,)}, r"'alpha' must be \[or O\], got \[4\]"),
        ("map", {"w": (3, 2, 5, 5)}, {"g_us": (2, 3, 2, 5)}, r"'g_us' must be \[2,D\]"),
        ("clip_weights", {"fc.weight": (3, 2)}, {"fc.weight": (2, 3)}, r"'fc.weight' must be \[by name\] with by name = "),
        ("relu", {"x": (3,)}, {"z": (3,)}, "'z' is none of the outputs of relu"),
    ],
)
def test_what_has_other_dimensions_is_named(op, inputs, outputs, message):
    wrong = OPS[op].misfit(inputs=inputs, outputs=outputs)
    assert re.search(message, wrong), wrong
    assert not OPS["gdc"].misfit(inputs={"g_t_us": (2, 3, 4)}, outputs={"alpha": ()})


def test_what_an_operation_is_made_of_is_an_operation():
    assert all({*op.needs} <= OPS.keys() and op.rows in ("apart", "together", "fixed") for op in OPS.values())
    assert {"conv2d", "draws", "batch_norm"} <= upstream("chip") and upstream("relu") == set()


def test_no_line_asks_for_an_operation_by_its_spelling():
    """What is one operation's own stands in its record, or is found under its name: golden compares with no such name."""
    asked, folder = [], Path(ops.__file__).parent
    for path in sorted({*folder.glob("*.py")} - {*folder.glob("mistakes*.py")}):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            is_start = isinstance(node, ast.Call) and getattr(node.func, "attr", "") in ("startswith", "endswith")
            if isinstance(node, (ast.Compare, ast.MatchValue)) or is_start:
                texts = [n.value for n in ast.walk(node) if isinstance(n, ast.Constant)]
                asked += [f"{path.name}:{node.lineno}: {text}" for text in texts if text in OPS or (is_start and text in STEMS)]
    assert asked == []
