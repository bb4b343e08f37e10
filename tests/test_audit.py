"""AUDIT.md and properties.md: they are what their tools write of the code as it is; every constant is graded."""

import json
from importlib import import_module
from pathlib import Path

import pytest

VALIDATION = Path(__file__).parent.parent / "validation"


@pytest.fixture
def tool(monkeypatch):
    """A module of validation/audit/ by its name."""
    pytest.importorskip("resource", reason="validation/audit/mutate.py limits processor time")
    monkeypatch.syspath_prepend(str(VALIDATION / "audit"))
    return import_module


@pytest.fixture
def audit(tool):
    return tool("audit")


def test_audit_md_is_current(audit):
    """`python validation/audit/audit.py` writes it again; `make audit` first sees the tests of open equations fail."""
    assert (VALIDATION / "AUDIT.md").read_text() == audit.document()


def test_every_constant_has_a_grade_and_a_source(tool):
    constants = tool("constants")
    assert constants.ungraded() == []
    listed = constants.LISTED["constant"]
    entries = [(c["grade"], c["source"]) for c in (*listed, *constants.LISTED["profile"])]
    assert all(grade in "ABCD" and source for grade, source in entries + [c[3:] for c in constants.PCMModel.constants()])
    assert len({(c["module"], c["name"]) for c in listed}) == len(listed)


def test_every_equation_is_confirmed_by_two_tests_or_more(audit):
    numbers = [equation.number for equation in audit.EQUATIONS]
    assert numbers == list(range(1, len(numbers) + 1)) and audit.confirming().keys() == set(numbers)
    assert [equation.number for equation in audit.EQUATIONS if len(equation.tests) < 2] == []


@pytest.mark.slow  # for a release: until then AUDIT.md lists the open ones
def test_no_equation_is_open(audit):
    seen = audit.seen_before()
    assert [e.number for e in audit.EQUATIONS if e.why_open(seen.get(str(e.number), {}))] == []


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
    """`make mutation` runs the mutants again; each property says where it comes from."""
    properties, mutate = tool("properties"), tool("mutate")
    assert (VALIDATION / "properties.md").read_text() == properties.document()
    assert {fate["module"] for fate in json.loads(properties.KILLS.read_text())} <= set(mutate.modules())


@pytest.mark.slow  # for a release: until then properties.md counts the fates of earlier code
def test_every_fate_is_of_the_code_as_it_is(tool):
    properties, mutate = tool("properties"), tool("mutate")
    fates = json.loads(properties.KILLS.read_text())
    assert [fate["mutant"] for fate in fates if not mutate.holds(fate)] == []
    assert len(fates) >= 150 and {fate["module"].split("/")[0] for fate in fates} == set(mutate.ROOMS)


def test_a_digest_follows_helpers_constants_and_fixtures_and_nothing_else(tool, tmp_path):
    """What a test names in its own file, and fixtures, change its digest; a comment, a mark, what it does not use do not."""
    digests = tool("digests")
    parts = {
        "test_x.py": "N = 3\ndef two(x): return 2 * x\ndef one(): return 1\n@pytest.mark.confirms(1)\n"
        "def test_a(shared): two(N) == K().half(12)\nclass K:\n    d = 2\n    def half(self, x): return x / self.d\n",
        "conftest.py": "import pytest\n@pytest.fixture\ndef shared(): return 5\n",
    }

    def digest(changed="", old="", new=""):
        for name, text in parts.items():
            (tmp_path / name).write_text(text.replace(old, new) if name == changed else text)
        digests.definitions.cache_clear(), digests.digest.cache_clear()
        return digests.digest(tmp_path / "test_x.py", "test_a")

    before = digest()
    for changed, old, new in (
        ("test_x.py", "3", "4"),
        ("test_x.py", "2 *", "3 *"),
        ("test_x.py", "d = 2", "d = 3"),
        ("test_x.py", "x / self", "x // self"),
        ("conftest.py", "5", "6"),
    ):
        assert digest(changed, old, new) != before
    for old, new in (("return 1", "return 2"), ("N = 3", "N = 3  # three"), ("(1)", "(1, 2)")):
        assert digest("test_x.py", old, new) == before
    assert digests.digest(tmp_path / "test_x.py", "test_b") == ""


def test_an_equation_is_open_until_two_tests_notice_every_alteration(audit):
    equation = audit.EQUATIONS[0]
    seen = {"digest": equation.digest, "alterations": 2, "noticed": {}, "open": {}}
    assert equation.why_open(seen) == ""
    assert equation.why_open(seen | {"open": {"Add to Sub": 1}}) == "`Add to Sub` is noticed by 1"
    for stale in ({}, seen | {"digest": "another"}):
        assert "make audit" in equation.why_open(stale)
    assert equation.why_open(seen | {"alterations": 0}) == "nothing in it could be altered"


def test_an_altered_equation_is_noticed_by_its_tests(audit, monkeypatch, tmp_path, capfd):
    """One whole run on one equation, in a copy of the project; the outcome is a line of JSON."""
    monkeypatch.setattr(audit, "SEEN", tmp_path / "seen.json")
    equation = next(e for e in audit.EQUATIONS if e.function == "unmap_weights")
    monkeypatch.setattr(audit.Equation, "alterations", lambda self: list(audit._results(self.module, self.function)))
    monkeypatch.setattr(audit, "print", lambda *a, **k: None, raising=False)
    with capfd.disabled():  # the tests' output goes to a file of the copy
        audit.alter([equation])
    held = audit.seen_before()[str(equation.number)]
    assert held["alterations"] and not held["open"] and all(held["noticed"].values())
    assert len(audit.SEEN.read_text().splitlines()) == 3
