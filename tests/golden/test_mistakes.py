"""What stands beside the vectors for people: the named mistakes, and the equations."""

import re
from pathlib import Path

import pytest

import pcmref
from pcmref.golden import Capabilities, design, file
from pcmref.golden.mistakes import MISTAKES, mistakes_of
from pcmref.golden.ops import OPS

BY_KEY = {g.case.key: g for g in file.read()}


def test_a_mistake_is_named_by_its_function_and_says_what_it_does_and_whom_it_hits():
    assert len(MISTAKES) > 60 and {op for m in MISTAKES.values() for op in m.ops} == set(OPS)
    for name, m in MISTAKES.items():
        assert name == m.wrong.__name__.replace("_", "-") and m.effect and m.hits and "\n" not in m.effect + m.hits
        assert len(set(m.ops)) == len(m.ops)


def test_a_case_has_the_mistakes_that_it_notices():
    named = {key: mistakes_of(BY_KEY[key]) for key in NOTICED}
    assert all(set(wanted) <= set(named[key]) for key, wanted in NOTICED.items()), named
    assert not {"kernel-flipped", "kernel-transposed", "border-not-zero"} & set(named["conv2d/v1/1x1_stride2"])
    assert "stride-offset" not in named["conv2d/v1/3x3"] and "inputs-cut" not in named["conv2d/v1/3x3"]
    assert "pad-shortcut-misplaced" not in mistakes_of(BY_KEY["basic_block/v1/identity_eval"])


NOTICED = {
    "conv2d/v1/3x3": ["kernel-flipped", "kernel-transposed", "border-not-zero", "layout-confused"],
    "conv2d/v1/1x1_stride2": ["stride-offset", "channels-mixed"],
    "basic_block/v1/pad_eval": ["pad-shortcut-misplaced", "shortcut-after-the-relu"],
    "batch_norm_train/v1/plain": ["momentum-flipped", "unbiased-variance", "biased-running-variance", "epsilon-missing"],
    "drift/v1/one_day": ["times-swapped", "time-from-t0"],
    "draws/v1/far": ["counter-from-zero", "seed-cut", "stream-of-another-array"],
}


def test_draws_that_are_sampled_notice_what_shares_them():
    assert mistakes_of(BY_KEY["program/v1/law"]) == ["draws-correlated"]


def test_a_generated_case_notices_what_few_bits_and_small_sizes_hide():
    seen = set()
    for op in ("linear", "drift"):
        for key in design.keys([op], ["float32"], 1):
            seen |= {(op, name) for name in mistakes_of(design.golden(key, Capabilities(dtypes=("float32",))))}
    assert {("linear", "inputs-cut"), ("drift", "inputs-cut"), ("drift", "tail-of-a-vector")} <= seen


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
