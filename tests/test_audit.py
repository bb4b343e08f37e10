"""AUDIT.md and properties.md: they are what their tools write of the code as it is; every constant is graded."""

import json
import sys
from importlib import import_module
from pathlib import Path

import pytest

VALIDATION = Path(__file__).parent.parent / "validation"


@pytest.fixture
def tool(monkeypatch):
    """A module of validation/ by its name; all of them are forgotten afterwards."""
    pytest.importorskip("resource", reason="validation/mutate.py limits processor time")
    monkeypatch.syspath_prepend(str(VALIDATION))
    yield import_module
    for name in ("audit", "constants", "mutate", "properties", "reach"):
        sys.modules.pop(name, None)


@pytest.fixture
def audit(tool):
    return tool("audit")


def test_audit_md_is_current(audit):
    """`make audit` writes it again: after a change to an equation, it first sees the equation's routes fail."""
    assert (VALIDATION / "AUDIT.md").read_text() == audit.document()


def test_every_constant_has_a_grade_and_a_source(tool):
    constants = tool("constants")
    assert constants.ungraded() == []
    listed = constants.LISTED["constant"]
    entries = [(c["grade"], c["source"]) for c in (*listed, *constants.LISTED["profile"])]
    assert all(grade in "ABCD" and source for grade, source in entries + [c[3:] for c in constants.PCMModel.constants()])
    assert len({(c["module"], c["name"]) for c in listed}) == len(listed)


def test_every_route_is_a_test_of_this_suite_and_an_equation_has_two_or_says_why(audit):
    assert audit.missing_tests() == []
    assert all(len(e.entry["routes"]) >= 2 or e.entry.get("open") for e in audit.EQUATIONS)


def test_a_constant_without_grade_is_found(tool, tmp_path):
    module = tmp_path / "module.py"
    module.write_text(
        "A = 3\nB = (1.5, 2)\nC = 'text'\nD = {'a': None, 'b': 4}\nE = np.float64(0.3)\nF = G[1]\n"
        "class K:\n    d: int = 7\n    def f(self, x=1, *, y=2.5): ...\n"
    )
    assert dict(tool("constants").numbers_in(module)) == {
        "A": 3,
        "B": (1.5, 2),
        "D": {"a": None, "b": 4},
        "E": "np.float64(0.3)",
        "K.d": 7,
        "K.f.y": 2.5,
    }


def test_properties_md_is_current(tool):
    """`make mutation` writes it again; each property says where it comes from, and each kill holds for the code as it is."""
    properties, mutate = tool("properties"), tool("mutate")
    assert (VALIDATION / "properties.md").read_text() == properties.document()
    fates = json.loads(properties.KILLS.read_text())
    assert [fate["mutant"] for fate in fates if not mutate.holds(fate)] == []
    assert len(fates) >= 150 and {fate["module"] for fate in fates} <= set(mutate.modules())


def test_a_digest_follows_helpers_constants_fixtures_and_imports(tool, tmp_path, monkeypatch):
    """What a test rests on changes its digest, in its own file and in others; a comment, or what it does not use, does not."""
    reach = tool("reach")
    monkeypatch.setattr(reach, "TOP", tmp_path)
    parts = {
        "test_x.py": "from helpers import half\nN = 3\ndef two(x): return 2 * x\ndef test_a(shared): two(N) == half(12)\n",
        "helpers.py": "K = 2\ndef half(x): return x / K\ndef other(): return 1\n",
        "conftest.py": "import pytest\n@pytest.fixture\ndef shared(): return 5\n",
    }

    def digest(changed="", old="", new=""):
        for name, text in parts.items():
            (tmp_path / name).write_text(text.replace(old, new) if name == changed else text)
        reach.module.cache_clear(), reach.digest.cache_clear()
        return reach.digest(tmp_path / "test_x.py", "test_a")

    before = digest()
    for changed, old, new in (
        ("test_x.py", "3", "4"),
        ("test_x.py", "2 *", "3 *"),
        ("helpers.py", "K = 2", "K = 3"),
        ("conftest.py", "5", "6"),
    ):
        assert digest(changed, old, new) != before
    assert digest("helpers.py", "return 1", "return 2") == before and digest("test_x.py", "N = 3", "N = 3  # three") == before


def test_a_digest_follows_packages_but_a_judge_is_not_followed_into_what_it_judges(tool, tmp_path, monkeypatch):
    """`from pcmref.pcm import gdc` and `from pcmref import read`; a test of golden rests on golden's code and file only."""
    reach = tool("reach")
    monkeypatch.setattr(reach, "TOP", tmp_path)
    parts = {
        "pcmref/__init__.py": "from pcmref.pcm.gdc import factor as read\n",
        "pcmref/pcm/__init__.py": "",
        "pcmref/pcm/gdc.py": "def factor(a): return 1 / a\n",
        "pcmref/chip.py": "from pcmref.pcm import gdc\ndef alpha(a): return gdc.factor(a)\n",
        "pcmref/study.py": "from pcmref import read\ndef study(a): return read(a)\n",
        "pcmref/golden/__init__.py": "from pcmref.golden.check import check\n",
        "pcmref/golden/check.py": "from pcmref.pcm.gdc import factor\nLIMIT = 2\ndef check(): return factor(4) < LIMIT\n",
        "pcmref/golden/vectors.h5": "values",
        "tests/test_g.py": "from pcmref.golden import check\ndef test_g(): assert check()\n",
    }

    def digests(changed="", old="", new=""):
        for name, text in parts.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(text.replace(old, new) if name == changed else text)
        reach.module.cache_clear(), reach.digest.cache_clear()
        places = ("pcmref/chip.py", "alpha"), ("pcmref/study.py", "study"), ("tests/test_g.py", "test_g")
        return [reach.digest(tmp_path / path, name) for path, name in places]

    before = digests()
    for change, differs in (
        (("pcmref/pcm/gdc.py", "1 / a", "2 / a"), [True, True, False]),
        (("pcmref/golden/check.py", "LIMIT = 2", "LIMIT = 3"), [False, False, True]),
        (("pcmref/golden/vectors.h5", "values", "others"), [False, False, True]),
    ):
        assert [a != b for a, b in zip(before, digests(*change), strict=True)] == differs


def test_an_equation_is_open_until_two_routes_notice_every_alteration(audit):
    equation = audit.EQUATIONS[0]
    routes = {test: {"notices": ["a", "b"], "test": audit.test_digest(test)} for test in equation.tests[:2]}
    seen = {equation.number: {"code": equation.digest, "alterations": ["a", "b"], "routes": routes}}
    assert equation.why_open(seen) == ""
    routes[equation.tests[0]]["notices"] = ["a"]
    assert equation.why_open(seen) == "`b` is noticed by 1"
    routes[equation.tests[0]] |= {"notices": ["a", "b"], "test": "another"}
    assert "is noticed by 1" in equation.why_open(seen)
    assert "make audit" in equation.why_open({equation.number: seen[equation.number] | {"code": "another"}})
