"""The verdict: one function that every route into the checker ends in.

`judge` compares what a backend returned with a golden case, element by element: shape and dtype, then NaN, then the error
against the derived tolerance. It never compares nothing: a case without a single element compared fails.
"""

from dataclasses import dataclass, replace
from math import prod

import numpy as np

from pcmref.golden import bounds, sampled
from pcmref.golden.backends import Capabilities
from pcmref.golden.case import Case
from pcmref.golden.expected import Expected
from pcmref.golden.ops import OPS
from pcmref.golden.twin_ops import TWINS

STATUSES = ("pass", "loose", "fail", "error", "unsupported", "skip", "xfail", "xpass", "inconclusive")


@dataclass(frozen=True)
class Golden:
    """A case with its expected outputs; a law instead where it is to be sampled."""

    case: Case
    expected: dict[str, Expected]
    law: dict[str, sampled.Law] | None = None
    special: bool = False  # expects NaN and infinities, which are compared by class


@dataclass(frozen=True)
class Verdict:
    """What came of one case in one dtype; `output` to `times_bound` are those of the worst element."""

    op: str
    case: str  # op/v1/name
    dtype: str
    status: str
    message: str = ""
    output: str = ""
    index: tuple[int, ...] = ()
    got: float | None = None
    wanted: float | None = None
    times_bound: float = 0.0
    ulp: float = 0.0
    compared: int = 0  # elements
    kinks: int = 0  # elements where two values were right
    trace: str = ""  # of an error: where in the backend it was raised
    suspects: tuple[str, ...] = ()  # failed operations that this one is made of
    refused: tuple[str, ...] = ()  # relations that the backend raised Unsupported for: not checked
    why: str = ""  # what the case is for, or its setting
    top1: tuple[int, int] | None = None  # end to end: (images with the golden largest logit, images); never judged

    @classmethod
    def of(cls, golden: Golden, dtype: str, status: str = "pass", **known) -> "Verdict":
        """One on a case, of which nothing else is known yet."""
        return cls(golden.case.op, golden.case.key, dtype, status, why=golden.case.why, **known)


def judge(golden: Golden, results, capabilities: Capabilities, dtype: str) -> Verdict:
    """The verdict on a backend's results, {output: array}, for one case: pass, loose, fail or inconclusive."""
    blank = Verdict.of(golden, dtype)
    if not isinstance(results, dict) or results.keys() != golden.expected.keys():
        found = sorted(results) if isinstance(results, dict) else type(results).__name__
        return replace(blank, status="fail", message=f"outputs {sorted(golden.expected)} wanted, got {found}")
    parts = [_judge_output(golden, name, results[name], capabilities, dtype) for name in golden.expected]
    order = ("fail", "inconclusive", "loose", "pass")
    worst = min(parts, key=lambda v: (order.index(v.status), -v.times_bound))
    compared, kinks = sum(v.compared for v in parts), sum(v.kinks for v in parts)
    if worst.status in ("pass", "loose") and not compared:
        return replace(blank, status="fail", message="nothing was compared")
    return replace(worst, compared=compared, kinks=kinks, top1=_top1(golden, results))


def _top1(golden: Golden, results) -> tuple[int, int] | None:
    """(images whose largest logit is the golden one's, images) where a case goes end to end."""
    if not OPS[golden.case.op].composite or "logits" not in golden.expected:
        return None
    got, wanted = bounds.native(results["logits"]), golden.expected["logits"].value
    if got.shape != wanted.shape or got.dtype.kind != "f":
        return None
    agree = (got.argmax(1) == wanted.argmax(1)) & np.isfinite(got).all(1)
    return int(agree.sum()), len(wanted)


def _judge_output(golden: Golden, name: str, got, capabilities: Capabilities, dtype: str) -> Verdict:
    expected, verdict = golden.expected[name], Verdict.of(golden, dtype, output=name)
    got, wanted = bounds.native(got), expected.value
    if got.shape != wanted.shape:
        message = f"shape {list(wanted.shape)} wanted, got {list(got.shape)}"
        message += ": as many numbers, so give them that shape" if got.size == wanted.size else ""
        return replace(verdict, status="fail", message=message)
    if wanted.dtype.kind in "iu":
        if got.dtype.kind not in "iu":
            return replace(verdict, status="fail", message=f"integers wanted, got {got.dtype}")
        return _exact(verdict, got, wanted, None)
    if not bounds.is_representable(got, dtype):
        return replace(verdict, status="fail", message=f"{dtype} wanted, got {got.dtype} or values outside it")
    special = ~np.isfinite(wanted) if golden.special else np.zeros(wanted.shape, bool)
    wrong = (np.isnan(got) & ~(special & np.isnan(wanted))) | (special & (got != wanted) & ~(np.isnan(got) & np.isnan(wanted)))
    if wrong.any():
        index = tuple(int(i) for i in np.argwhere(wrong)[0])
        values = {"index": index, "got": float(got[index]), "wanted": float(wanted[index])}
        what = "NaN" if np.isnan(got[index]) else "a number for what is none" if np.isnan(wanted[index]) else "no infinity"
        return replace(verdict, status="fail", message=f"{what} in {int(wrong.sum())} of {got.size} elements", **values)
    got, wanted = (np.where(special, v.dtype.type(0), v) for v in (got, wanted))
    kinks = 0 if expected.kink is None else int((~np.isnan(expected.kink)).sum())
    if kinks > bounds.KINK_SHARE * got.size:
        return replace(verdict, status="fail", message=f"{kinks} of {got.size} elements lie on a kink: the case is worthless")
    verdict = replace(verdict, kinks=kinks)
    if expected.scale is None:
        wanted = wanted.astype(got.dtype)
        if capabilities.flush_denormals:
            got = np.where((got == 0) & (np.abs(wanted) < bounds.TINY[dtype]), wanted, got)
        return _exact(verdict, got, wanted, expected.kink)
    scale = np.where(special, 0.0, expected.scale)
    return _within_bound(verdict, golden, replace(expected, value=wanted, scale=scale), got, capabilities)


def _exact(verdict: Verdict, got, wanted, kink) -> Verdict:
    """Equal to the bit, but for the sign of zero; where two branches meet, either value."""
    wrong = got != wanted
    if kink is not None:
        wrong &= ~(~np.isnan(kink) & (got == kink))
    verdict = replace(verdict, compared=int(got.size))
    if not wrong.any():
        return verdict
    index = tuple(int(i) for i in np.argwhere(wrong)[0])
    message = f"{int(wrong.sum())} of {got.size} elements differ{_part(wrong)}; this operation is exact"
    got_, wanted_ = got[index].item(), wanted[index].item()
    return replace(verdict, status="fail", message=message, index=index, got=got_, wanted=wanted_, times_bound=np.inf)


def _within_bound(verdict: Verdict, golden: Golden, expected: Expected, got, capabilities: Capabilities) -> Verdict:
    case, dtype, wanted = golden.case, verdict.dtype, expected.value
    u = bounds.accumulation_roundoff(case.op, capabilities, dtype)
    if u > expected.u_max:
        message = f"the bound says nothing at unit roundoff {u:.1e}, it ends at {expected.u_max:.1e}"
        return replace(verdict, status="inconclusive", message=message)
    gradual = case.dtype is not None and case.op not in TWINS and not capabilities.flush_denormals
    limits = bounds.tolerance(case, verdict.output, wanted, expected.scale, expected.terms, capabilities, dtype, gradual)
    with np.errstate(invalid="ignore", over="ignore"):
        error = np.abs(got.astype(np.float64) - wanted)
        error = np.where(got == wanted, 0.0, np.where(np.isfinite(error), error, np.inf))
        if expected.kink is not None:  # the other right value has the same scale: it lies one code away
            error = np.fmin(error, np.abs(got - expected.kink))
        times = np.where(np.isfinite(limits.fail), error / limits.fail, np.inf)  # no bound, no pass
        ulp = error / (2 * bounds.UNIT_ROUNDOFF[dtype] * np.maximum(np.abs(wanted), bounds.TINY[dtype]))
    worst = int(times.argmax())
    index = tuple(int(i) for i in np.unravel_index(worst, got.shape))
    verdict = replace(
        verdict,
        compared=int(prod(got.shape)),
        index=index,
        got=float(got[index]),
        wanted=float(wanted[index]),
        times_bound=float(times[index]),
        ulp=float(ulp[index]),
    )
    wrong = ~(times <= 1)  # a NaN too
    outside = int(wrong.sum())
    if outside and OPS[case.op].composite and verdict.times_bound <= bounds.LAYERS_GROWTH[capabilities.conv_algorithm]:
        message = f"{outside} of {got.size} elements outside the bound, which knows of no transform within several layers"
        return replace(verdict, status="inconclusive", message=message)
    if outside:
        return replace(verdict, status="fail", message=f"{outside} of {got.size} elements outside the bound{_part(wrong)}")
    if limits.fail.max() >= 0.5 * np.abs(wanted).max(initial=0) and np.abs(wanted).max(initial=0) > 0:
        return replace(verdict, status="inconclusive", message=f"at {dtype} the bound is as large as the values")
    if (error > limits.loose).any():
        return replace(verdict, status="loose", message="within the bound, but errors do not scatter as rounding does")
    return verdict


def _part(wrong: np.ndarray) -> str:
    """`, all in [:, :, :, 16:19]`: the smallest part that holds all wrong elements; nothing where that is the whole."""
    at = np.argwhere(wrong)
    ends = [(int(low), int(last) + 1, n) for low, last, n in zip(at.min(0), at.max(0), wrong.shape, strict=True)]
    spans = [":" if (low, high) == (0, n) else str(low) if high == low + 1 else f"{low}:{high}" for low, high, n in ends]
    return f", all in [{', '.join(spans)}]" if set(spans) - {":"} else ""


def judge_samples(golden: Golden, results, dtype: str, n_tests: int) -> Verdict:
    """The verdict on draws, {output: [n, *shape]}, of an operation whose noise cannot be given.

    n_tests: the tests of the whole run, over which the family-wise error is split.
    """
    verdict = Verdict.of(golden, dtype)
    if not isinstance(results, dict) or results.keys() != golden.law.keys():
        return replace(verdict, status="fail", message=f"samples of {sorted(golden.law)} wanted")
    samples = {name: bounds.native(results[name]) for name in golden.law}
    for name, law in golden.law.items():
        values, failed = samples[name], replace(verdict, status="fail", output=name)
        if values.shape[1:] != law.location.shape or values.ndim == 0 or len(values) < 2:
            return replace(failed, message=f"shape [n, {law.location.shape}] wanted, got {list(values.shape)}")
        if len(values) != len(samples[next(iter(samples))]):
            return replace(failed, message="all outputs must have the same number of draws")
        if not bounds.is_representable(values, dtype):
            return replace(failed, message=f"{dtype} wanted, got {values.dtype} or values outside it")
        if not np.isfinite(values).all():
            return replace(failed, message=f"{int((~np.isfinite(values)).sum())} samples are NaN or infinite")
    if sampled.rounding(golden.law, bounds.UNIT_ROUNDOFF[dtype]) > sampled.MARGIN / 10:
        message = f"the rounding of {dtype} hides what the tests look for; sample in float32 or float64"
        return replace(verdict, status="inconclusive", message=message)
    n, needed = len(samples[name]), sampled.draws_needed(n_tests)
    failures = sampled.failures(sampled.case_tests(golden.law, samples, bounds.UNIT_ROUNDOFF[dtype]), n_tests)
    if failures:
        first = failures[0]
        message = f"{first.what}: p = {first.p:.1e}, off by {100 * first.effect:.3g} %; n = {n}"
        where = {"output": first.output, "index": first.element, "times_bound": np.inf}
        return replace(verdict, status="fail", message=message, **where)
    if n < needed:
        message = f"{n} draws; a 2 % error of the spread takes {needed} to show"
        return replace(verdict, status="inconclusive", output=name, message=message)
    compared = sum(values.size for values in samples.values())
    return replace(verdict, compared=compared, message=f"sampled, n = {n}")


def mark_suspects(verdicts: list[Verdict]) -> list[Verdict]:
    """Failures of operations that are made of failed ones, with the names of those."""
    from pcmref.golden.ops import upstream

    failed = {(v.op, v.dtype) for v in verdicts if v.status in ("fail", "error")}

    def marked(v: Verdict) -> Verdict:
        if v.status not in ("fail", "error"):
            return v
        return replace(v, suspects=tuple(sorted(op for op in upstream(v.op) if (op, v.dtype) in failed)))

    return [marked(v) for v in verdicts]


def is_checked_in(op: str, dtype: str) -> bool:
    """Whether an operation is checked in a dtype at all."""
    return dtype in OPS[op].dtypes
