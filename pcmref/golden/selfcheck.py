"""Checking the checker: what must pass passes, what must fail fails where it was planted, and nowhere else."""

from collections.abc import Callable
from typing import NamedTuple

from pcmref.golden.check import check, exit_status
from pcmref.golden.correct_backends import CORRECT
from pcmref.golden.mutants import mutants
from pcmref.golden.reference import Reference
from pcmref.golden.verify import Golden, judge

FAILED = ("fail", "error")


class Finding(NamedTuple):
    """One line of the self-check."""

    right: bool
    what: str
    detail: str


class _Mute(Reference):
    """A backend that returns nothing for anything."""

    def run(self, op, version, inputs, noise, params):
        return {}


def selfcheck(golden: list[Golden], progress: Callable[[int, int], None] | None = None) -> list[Finding]:
    """Findings on correct backends, on every mutant, and on a check that compares nothing."""
    steps: list[Callable[[], Finding]] = [lambda backend=backend: _correct(backend(), golden) for backend in CORRECT]
    steps += [lambda mutant=mutant: _caught(mutant, golden) for mutant in mutants()]
    steps += [lambda: _mute(golden), _nothing]
    findings = []
    for step in steps:
        findings.append(step())
        if progress is not None:
            progress(len(findings), len(steps))
    return findings


def _correct(backend, golden: list[Golden]) -> Finding:
    verdicts = check(backend, golden, ["float64", "float32"])
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


def _mute(golden: list[Golden]) -> Finding:
    statuses = {judge(g, {}, Reference().capabilities(), "float64").status for g in golden if g.law is None}
    verdicts = check(_Mute(), golden, ["float64"])
    return Finding(statuses == {"fail"} and exit_status(verdicts) == 1, "a backend that returns nothing fails", str(statuses))


def _nothing() -> Finding:
    status = exit_status([])
    return Finding(status != 0, "a check that compared nothing fails", f"exit status {status}")
