"""Checking the checker: what must pass passes, what must fail fails where it was planted, and nowhere else.

python -m tests.golden.selfcheck            (minutes; each finding in a line, exit status 1 where one is not as it must be)
"""

import sys
from collections.abc import Callable
from functools import cache
from itertools import chain
from typing import NamedTuple

from pcmref.golden import design, file, special
from pcmref.golden.check import check, check_case, exit_status
from pcmref.golden.mistakes import MISTAKES, Mistaken
from pcmref.golden.ops import OPS, RANDOM
from pcmref.golden.reference import Reference
from pcmref.golden.verify import Golden, judge
from tests.golden.planted import mutants
from tests.golden.planted_kernels import kernel_mutants
from tests.golden.right_backends import CORRECT

FAILED = ("fail", "error")


class Finding(NamedTuple):
    """One line of the self-check."""

    right: bool
    what: str
    detail: str


class _Named(Mistaken):
    """A mistake of the package's table in one of its operations."""

    def __init__(self, name: str, op: str):
        super().__init__(MISTAKES[name]._replace(ops=(op,)))
        self.error, self.planted, self.dtype = name, op, OPS[op].dtypes[:2][-1]


class _Mute(Reference):
    """A backend that returns nothing for anything."""

    def run(self, op, version, inputs, noise, params):
        return {}


def selfcheck(golden: list[Golden], found: Callable[[Finding], None] = lambda finding: None) -> list[Finding]:
    """Findings on correct backends, on every mutant, and on a check that compares nothing; `found(finding)` after each."""
    specials, generated = cache(special.cases), cache(design.golden)
    steps: list[Callable[[], Finding]] = [lambda one=one: _correct(one(), golden, specials, generated) for one in CORRECT]
    steps += [lambda mutant=mutant: _caught(mutant, golden) for mutant in mutants()]
    kernels = [*(_Named(name, op) for name, m in MISTAKES.items() for op in m.ops), *kernel_mutants()]
    steps += [lambda mutant=mutant: _noticed(mutant, golden, specials, generated) for mutant in kernels]
    steps += [lambda: _mute(golden), _nothing]
    findings = []
    for step in steps:
        findings.append(step())
        found(findings[-1])
    return findings


def _correct(backend, golden: list[Golden], specials: Callable, generated: Callable) -> Finding:
    """Whether all stored cases pass, and the generated ones of level 1, where the backend is not the same as `Reference`."""
    own = [op for op in OPS if getattr(type(backend), op, None) is not getattr(Reference, op, None)]
    dtypes, capabilities = ["float64", "float32"], backend.capabilities()
    ops = (own or OPS) if capabilities.accepts_noise else RANDOM
    verdicts = check(backend, [g for g in (*golden, *specials(capabilities)) if g.case.op in ops], dtypes)
    more = [g for key in design.keys(ops, dtypes, 1) if (g := generated(key, capabilities)) is not None]
    verdicts += [check_case(backend, capabilities, g, g.case.dtype, relate=False) for g in more]
    wrong = [v.case for v in verdicts if v.status in FAILED]
    compared = sum(v.status in ("pass", "loose") for v in verdicts)
    return Finding(not wrong and exit_status(verdicts) == 0, f"{backend.name} passes", f"{compared} passed, wrong {wrong[:3]}")


def _caught(mutant, golden: list[Golden]) -> Finding:
    if not mutant.takes_noise:  # of the operations that it does not touch, one is enough
        untouched = next(g.case.key for g in golden if g.law and g.case.op != mutant.planted)
        golden = [g for g in golden if g.law and (g.case.op == mutant.planted or g.case.key == untouched)]
    verdicts = check(mutant, golden, ["float64"], related=(mutant.planted,))
    failed = {v.op for v in verdicts if v.status in FAILED}
    times = max((v.times_bound for v in verdicts if v.status in FAILED), default=0.0)
    cases = sum(v.status in FAILED for v in verdicts)
    detail = f"failed {sorted(failed)}, {cases} cases, {times:.2g} times the bound"
    return Finding(failed == {mutant.planted}, f"{mutant.planted}: {mutant.error}", detail)


def _noticed(mutant, golden: list[Golden], specials: Callable, generated: Callable) -> Finding:
    """Whether `check --level 2` notices a mistake that is right on most inputs: the first case, or relation, that does."""
    op, dtype, capabilities = mutant.planted, mutant.dtype, mutant.capabilities()
    stored = (g for g in chain(golden, specials(capabilities)) if g.case.op == op and g.law is None)
    stored = ((g, True) for g in stored if g.case.dtype in (None, dtype))
    more = ((g, False) for key in design.keys([op], [dtype], 2) if (g := generated(key, capabilities)) is not None)
    verdicts = (check_case(mutant, capabilities, g, dtype, relate=relate) for g, relate in chain(stored, more))
    failed = next((v for v in verdicts if v.status in FAILED), None)
    detail = "no case failed" if failed is None else f"{failed.case}: {failed.message}"
    return Finding(failed is not None, f"{op} in {dtype}: {mutant.error}", detail)


def _mute(golden: list[Golden]) -> Finding:
    statuses = {judge(g, {}, Reference().capabilities(), "float64").status for g in golden if g.law is None}
    verdicts = check(_Mute(), golden, ["float64"])
    return Finding(statuses == {"fail"} and exit_status(verdicts) == 1, "a backend that returns nothing fails", str(statuses))


def _nothing() -> Finding:
    status = exit_status([])
    return Finding(status != 0, "a check that compared nothing fails", f"exit status {status}")


if __name__ == "__main__":
    findings = selfcheck(file.read(), lambda f: print(f"{'ok   ' if f.right else 'WRONG'} {f.what} ({f.detail})", flush=True))
    print(f"{len(findings)} findings, {sum(not finding.right for finding in findings)} wrong")
    sys.exit(not all(finding.right for finding in findings))
