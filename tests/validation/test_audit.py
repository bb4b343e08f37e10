"""AUDIT.md is what its tool writes of the code as it is; every constant is graded, every equation confirmed."""

from tests.helpers import TOP
from validation.audit import audit, constants

VALIDATION = TOP / "validation"


def test_audit_md_is_current():
    """`make audit` writes it again."""
    assert (VALIDATION / "AUDIT.md").read_text() == audit.document()


def test_every_constant_has_a_grade_and_a_source():
    assert constants.ungraded() == []
    listed = constants.LISTED["constant"]
    entries = [(c["grade"], c["source"]) for c in listed] + [c[3:] for c in constants.PCMModel.constants()]
    assert all(grade in "ABCD" and source for grade, source in entries)
    assert len({(c["module"], c["name"]) for c in listed}) == len(listed)


def test_every_equation_is_confirmed_by_two_tests_or_more():
    numbers = [equation["number"] for equation in audit.EQUATIONS]
    assert numbers == list(range(1, len(numbers) + 1)) and audit.confirming().keys() == set(numbers)
    assert [number for number in numbers if len(audit.confirming()[number]) < 2] == []


def test_a_constant_without_grade_is_found(tmp_path):
    module = tmp_path / "module.py"
    module.write_text(
        "A = 3\nB = (1.5, 2)\nC = 'text'\nD = {'a': None, 'b': 4}\nE = np.float64(0.3)\nF = G[1]\n"
        "class K:\n    d: int = 7\n    def f(self, x=1, *, y=2.5): ...\n"
    )
    assert dict(constants.numbers_in(module)) == {
        "A": 3,
        "B": (1.5, 2),
        "D": {"a": None, "b": 4},
        "E": "np.float64(0.3)",
        "K.d": 7,
        "K.f.y": 2.5,
    }
