"""What stands beside the vectors for people: the named mistakes, and the equations."""

import re
from pathlib import Path

import pytest

import pcmref
from pcmref.golden import covering, drawn, factors, file
from pcmref.golden.case import Case
from pcmref.golden.mistakes import MISTAKES, PROPERTIES, mistakes_of
from pcmref.golden.ops import OPS

GOLDEN = file.read()


def generated(op: str) -> list[Case]:
    """The first cases that are generated for an operation, and drift's of few devices, without their expected values."""
    settings = covering.design(op) if op in factors.FACTORS else ()
    few = [(i, s) for i, s in enumerate(settings) if i < 20 or (op == "drift" and s["devices"] < 1000)]
    return [drawn.make(op, f"cover-float32-{i}", setting, "float32") for i, setting in few]


def test_every_case_is_for_a_named_mistake_and_every_mistake_has_a_case():
    cases = [g.case for g in GOLDEN] + [case for op in OPS for case in generated(op)]
    named = {case.key: mistakes_of(case) for case in cases}
    assert [key for key, mistakes in named.items() if not mistakes] == []
    assert {m for mistakes in named.values() for m in mistakes} == MISTAKES.keys()
    assert {what for m in MISTAKES.values() for what in m.get("where", ())} == PROPERTIES.keys()
    for mistake in MISTAKES.values():
        assert mistake.keys() - {"where", "case"} == {"kind", "effect", "hits", "ops"} and set(mistake["ops"]) <= OPS.keys()


def test_a_case_is_for_what_it_can_show():
    named = {g.case.key: mistakes_of(g.case) for g in GOLDEN}
    assert "kernel-turned" in named["conv2d/v1/3x3"] and "kernel-turned" not in named["conv2d/v1/1x1_stride2"]
    assert "sums-in-half" in named["linear/v1/k512"] and "sums-in-half" not in named["linear/v1/plain"]
    assert "pad-shortcut-misplaced" in named["basic_block/v1/pad_eval"]
    assert not {"pad-shortcut-misplaced"} & {*named["basic_block/v1/identity_eval"], *named["basic_block/v1/downsample_eval"]}


@pytest.mark.parametrize("op", OPS)
def test_an_operations_equation_names_all_that_enters_and_leaves_it(op):
    words = set(re.findall(r"[\w{}./]+", OPS[op].equation)) | set(re.findall(r"\w+", OPS[op].equation))
    words |= {word.strip(".") for word in words}
    names = [*OPS[op].inputs, *OPS[op].outputs, *OPS[op].params, *OPS[op].noise]
    assert [n for n in names if n.split(" ")[0] not in words] == []
    for source in OPS[op].source:
        where, function = source.split(": ")
        text = (Path(pcmref.__file__).parent / where).read_text(encoding="utf-8")
        assert re.search(rf"^(def|class) {function}\b", text, re.M), source
