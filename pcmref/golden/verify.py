"""The verdict: one function that every route into the checker ends in.

`judge` compares what a backend returned with a golden case, element by element: shape and dtype, then NaN, then the error
against the derived tolerance. It never compares nothing: a case without a single element compared fails.
"""

from dataclasses import dataclass, replace

import numpy as np

from pcmref.golden import bounds, sampled
from pcmref.golden.backends import Capabilities
from pcmref.golden.case import Case
from pcmref.golden.expected import Expected
from pcmref.golden.numbers import TINY, UNIT_ROUNDOFF
from pcmref.golden.ops import OPS
from pcmref.golden.twin import TWINS

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
    expected, verdict, got = golden.expected[name], Verdict.of(golden, dtype, output=name), bounds.native(got)
    wanted = expected.value
    if message := _misfit(got, wanted, dtype):
        return replace(verdict, status="fail", message=message)
    special = ~np.isfinite(wanted) if golden.special else np.zeros(wanted.shape, bool)
    wrong = (np.isnan(got) & ~(special & np.isnan(wanted))) | (special & (got != wanted) & ~(np.isnan(got) & np.isnan(wanted)))
    if wrong.any():
        index = tuple(int(i) for i in np.argwhere(wrong)[0])
        what = "NaN" if np.isnan(got[index]) else "a number for what is none" if np.isnan(wanted[index]) else "no infinity"
        values = {"index": index, "got": float(got[index]), "wanted": float(wanted[index])}
        return replace(verdict, status="fail", message=f"{what} in {int(wrong.sum())} of {got.size} elements", **values)
    got, wanted = (np.where(special, v.dtype.type(0), v) for v in (got, wanted))
    kink = np.full(wanted.shape, np.nan) if expected.kink is None else expected.kink
    verdict = replace(verdict, kinks=int((~np.isnan(kink)).sum()))
    if verdict.kinks > bounds.KINK_SHARE * got.size:
        message = f"{verdict.kinks} of {got.size} elements lie on a kink: the case is worthless"
        return replace(verdict, status="fail", message=message)
    exact, u = expected.scale is None, bounds.accumulation_roundoff(golden.case.op, capabilities, dtype)
    if not exact and u > expected.u_max:
        message = f"the bound says nothing at unit roundoff {u:.1e}, it ends at {expected.u_max:.1e}"
        return replace(verdict, status="inconclusive", message=message)
    if not got.size:
        return verdict
    limits = allowed(golden, name, capabilities, dtype)
    with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
        wanted = wanted.astype(got.dtype) if exact else wanted
        if exact:
            flushed = capabilities.flush_denormals & (got == 0) & (np.abs(wanted) < TINY[dtype])
            error = np.where((got == wanted) | (got == kink) | flushed, 0.0, np.inf)
        else:  # the other right value has the same scale: it lies one code away
            error = np.abs(got.astype(np.float64) - wanted)
            error = np.where(got == wanted, 0.0, np.where(np.isfinite(error), error, np.inf))
            error = np.fmin(error, np.abs(got - kink))
        times = np.where(np.isfinite(limits.fail), np.where(error == 0, 0.0, error / limits.fail), np.inf)  # no bound, no pass
        ulp = error / (2 * UNIT_ROUNDOFF[dtype] * np.maximum(np.abs(wanted.astype(np.float64)), TINY[dtype]))
    index = np.unravel_index(int(times.argmax()), got.shape)
    worst = {
        "got": got[index].item(),
        "wanted": wanted[index].item(),
        "times_bound": float(times[index]),
        "ulp": float(ulp[index]),
    }
    verdict = replace(verdict, compared=int(got.size), index=tuple(map(int, index)), **worst)
    wrong = ~(times <= 1)  # a NaN too
    outside = f"{int(wrong.sum())} of {got.size} elements {'differ' if exact else 'outside the bound'}"
    growth = bounds.LAYERS_GROWTH[capabilities.conv_algorithm]
    if wrong.any() and OPS[golden.case.op].composite and verdict.times_bound <= growth:
        message = f"{outside}, which knows of no transform within several layers"
        return replace(verdict, status="inconclusive", message=message)
    if wrong.any():
        message = f"{outside}{_part(wrong)}{'; this operation is exact' if exact else ''}"
        return replace(verdict, status="fail", message=message)
    largest = 0 if exact else np.abs(wanted).max()
    if largest and limits.fail.max() >= largest / 2:
        return replace(verdict, status="inconclusive", message=f"at {dtype} the bound is as large as the values")
    if (error > limits.loose).any():
        return replace(verdict, status="loose", message="within the bound, but errors do not scatter as rounding does")
    return verdict


def allowed(golden: Golden, name: str, capabilities: Capabilities, dtype: str) -> bounds.Tolerance:
    """How far off the elements of an output may be: not at all where it is exact."""
    case, e = golden.case, golden.expected[name]
    if e.scale is None:
        return bounds.Tolerance(np.zeros(e.value.shape), np.zeros(e.value.shape), 0.0)
    special = ~np.isfinite(e.value) & golden.special
    value, scale = (np.where(special, 0.0, v) for v in (e.value, e.scale))
    gradual = case.dtype is not None and case.op not in TWINS and not capabilities.flush_denormals
    return bounds.tolerance(case, name, value, scale, e.terms, capabilities, dtype, gradual)


def _misfit(got: np.ndarray, wanted: np.ndarray, dtype: str) -> str:
    """What is wrong with an output's shape or dtype, in words; "" where both are right."""
    if got.shape != wanted.shape:
        reshaped = ": as many numbers, so give them that shape" if got.size == wanted.size else ""
        return f"shape {list(wanted.shape)} wanted, got {list(got.shape)}{reshaped}"
    if wanted.dtype.kind in "iu":
        return "" if got.dtype.kind in "iu" else f"integers wanted, got {got.dtype}"
    return "" if bounds.is_representable(got, dtype) else f"{dtype} wanted, got {got.dtype} or values outside it"


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
    verdict, u = Verdict.of(golden, dtype), UNIT_ROUNDOFF[dtype]
    if not isinstance(results, dict) or results.keys() != golden.law.keys():
        return replace(verdict, status="fail", message=f"samples of {sorted(golden.law)} wanted")
    samples = {name: bounds.native(results[name]) for name in golden.law}
    for name, values in samples.items():
        if message := _misfit_of_samples(values, golden.law[name], next(iter(samples.values())), dtype):
            return replace(verdict, status="fail", output=name, message=message)
    if sampled.rounding(golden.law, u) > sampled.MARGIN / 10:
        message = f"the rounding of {dtype} hides what the tests look for; sample in float32 or float64"
        return replace(verdict, status="inconclusive", message=message)
    n, needed = len(values), sampled.draws_needed(n_tests)
    if failures := sampled.failures(sampled.case_tests(golden.law, samples, u), n_tests):
        first = failures[0]
        message = f"{first.what}: p = {first.p:.1e}, off by {100 * first.effect:.3g} %; n = {n}"
        where = {"output": first.output, "index": first.element, "times_bound": np.inf}
        return replace(verdict, status="fail", message=message, **where)
    if n < needed:
        message = f"{n} draws; a 2 % error of the spread takes {needed} to show"
        return replace(verdict, status="inconclusive", output=name, message=message)
    return replace(verdict, compared=sum(v.size for v in samples.values()), message=f"sampled, n = {n}")


def _misfit_of_samples(values: np.ndarray, law: sampled.Law, first: np.ndarray, dtype: str) -> str:
    """What is wrong with draws before any test, in words; "" where they can be tested."""
    if values.ndim == 0 or values.shape[1:] != law.location.shape or len(values) < 2:
        return f"shape [n, {law.location.shape}] wanted, got {list(values.shape)}"
    if len(values) != len(first):
        return "all outputs must have the same number of draws"
    if not bounds.is_representable(values, dtype):
        return f"{dtype} wanted, got {values.dtype} or values outside it"
    bad = int((~np.isfinite(values)).sum())
    return f"{bad} samples are NaN or infinite" if bad else ""
