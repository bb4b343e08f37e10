"""AUDIT.md: it is what its tool writes, every constant is graded, and its routes are tests of this suite."""

import sys
from pathlib import Path

import pytest

VALIDATION = Path(__file__).parent.parent / "validation"


@pytest.fixture
def audit(monkeypatch):
    pytest.importorskip("resource", reason="validation/mutate.py limits processor time")
    monkeypatch.syspath_prepend(str(VALIDATION))
    import audit

    yield audit
    for name in ("audit", "mutate"):
        sys.modules.pop(name, None)


def test_audit_md_is_current(audit):
    """`make audit` writes it again: after a change to an equation, it first sees the equation's routes fail."""
    assert (VALIDATION / "AUDIT.md").read_text() == audit.document()


def test_every_constant_has_a_grade_and_a_source(audit):
    assert audit.ungraded() == []
    entries = [(c["grade"], c["source"]) for c in audit.LISTED["constant"]] + [c[3:] for c in audit.PCMModel.constants()]
    assert all(grade in "ABCD" and source for grade, source in entries)
    assert len({(c["module"], c["name"]) for c in audit.LISTED["constant"]}) == len(audit.LISTED["constant"])


def test_every_route_is_a_test_of_this_suite_and_an_equation_has_two_or_says_why(audit):
    assert audit.missing_tests() == []
    assert all(len(e.entry["routes"]) >= 2 or e.entry.get("open") for e in audit.EQUATIONS)


def test_a_constant_without_grade_is_found(audit, tmp_path):
    module = tmp_path / "module.py"
    module.write_text("A = 3\nB = (1.5, 2)\nC = 'text'\nclass K:\n    d: int = 7\n    def f(self, x=1, *, y=2.5): ...\n")
    assert dict(audit.numbers_in(module)) == {"A": 3, "B": (1.5, 2), "K.d": 7, "K.f.y": 2.5}
