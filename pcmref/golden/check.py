"""Running a backend: every case it says it supports, in every dtype asked for, and one verdict for each.

Three routes lead here: a backend object, a file of results, and the pytest suite. All end in `verify.judge`.
"""

import traceback
import zlib
from collections.abc import Collection
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import numpy as np

from pcmref.errors import PcmrefError
from pcmref.golden import relations, sampled
from pcmref.golden.backends import Capabilities, Unsupported, adapted, check_backend
from pcmref.golden.bounds import in_dtype
from pcmref.golden.ops import OPS, RANDOM
from pcmref.golden.verify import Golden, Verdict, is_checked_in, judge, judge_samples, mark_suspects

NO_RESULT = "no result for this case"


def check_case(
    backend,
    capabilities: Capabilities,
    golden: Golden,
    dtype: str,
    n_tests: int = 1,
    n: int = sampled.N_DRAWS,
    seed: int = 0,
    relate: bool = True,
) -> Verdict:
    """The verdict on one case in one dtype; its relations too where `relate`."""
    case = golden.case
    verdict = Verdict.of(golden, dtype, "skip")
    if capabilities.ops and case.op not in capabilities.ops:
        return replace(verdict, status="unsupported", message="not among the backend's operations")
    if dtype not in capabilities.dtypes_of.get(case.op, capabilities.dtypes):
        return replace(verdict, status="unsupported", message=f"the backend does not compute {case.op} in {dtype}")
    if not is_checked_in(case.op, dtype):
        return replace(verdict, message=_not_checked_in(case.op))
    if golden.law is not None and capabilities.accepts_noise:
        return replace(verdict, message="the backend takes the noise: compared to the bound instead")
    if golden.law is None and OPS[case.op].noise and not capabilities.accepts_noise:
        instead = "sampled instead" if case.op in RANDOM else "the operations that it is made of are sampled instead"
        return replace(verdict, message=f"the backend takes no noise: {instead}")
    try:
        if golden.law is not None:
            return _check_samples(backend, capabilities, golden, dtype, n_tests, n, seed)
        results, fault = relations.call(backend, case, dtype)
        verdict = judge(golden, results, capabilities, dtype)
        again = not (relate or fault) and capabilities.deterministic and case.name.startswith("beyond")
        fault = relations.differs(backend, case, dtype, results) if again and verdict.status != "fail" else fault
    except Unsupported as reason:
        return replace(verdict, status="unsupported", message=str(reason))
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a stranger's code: whatever it raises, sys.exit too, is a verdict, not our end
        return replace(verdict, status="error", message=relations.crash(error), trace=_trace(error))
    if fault or verdict.status == "fail" or not relate:
        return _with_fault(verdict, fault)
    return relations.check(backend, capabilities, golden, dtype, results, verdict)


def _trace(error: BaseException) -> str:
    """Where in the backend's own code it was raised: file, line and text, the innermost last."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if Path(f.filename).parent != Path(__file__).parent]
    return "".join(traceback.format_list(frames[-3:]))


def _check_samples(backend, capabilities: Capabilities, golden: Golden, dtype: str, n_tests: int, n: int, seed: int) -> Verdict:
    """The verdict on draws; where determinism is declared, the same seed gives the same ones."""
    case, inputs = golden.case, in_dtype(golden.case.inputs, dtype)

    def sample(n):
        stream = zlib.crc32(case.key.encode()) + seed  # another stream for every case
        return backend.sample(case.op, case.version, dict(inputs), deepcopy(case.params), n=n, seed=stream)

    verdict = judge_samples(golden, sample(n), dtype, n_tests)
    fault = relations.changed(inputs, case.inputs, dtype)
    if not fault and verdict.status != "fail" and capabilities.deterministic:
        first = {k: np.array(v) for k, v in sample(100).items()}
        if relations.other_bits(first, sample(100)):
            fault = "the same seed twice: other draws, though the backend declares itself deterministic"
    return _with_fault(verdict, fault)


def _with_fault(verdict: Verdict, fault: str) -> Verdict:
    """The verdict, or a failure where the backend did what no right one does."""
    return replace(verdict, status="fail", message="; ".join(filter(None, (fault, verdict.message)))) if fault else verdict


def check(
    backend, golden: list[Golden], dtypes: list[str], n: int = sampled.N_DRAWS, seed: int = 0, related: Collection[str] = OPS
) -> list[Verdict]:
    """The verdicts on all cases in all dtypes, failures that follow from others marked; relations only of `related`."""
    backend = adapted(backend)
    capabilities = check_backend(backend, str(getattr(backend, "name", backend)))
    tests = count_tests(golden) * len(dtypes)
    rows = [(g, dtype) for dtype in dtypes for g in golden if g.case.dtype in (None, dtype)]
    verdicts = [check_case(backend, capabilities, g, dtype, tests, n, seed, g.case.op in related) for g, dtype in rows]
    return mark_suspects(verdicts)


def count_tests(golden: list[Golden]) -> int:
    """An upper bound of the statistical tests in one pass over the cases."""
    return max(1, sum(sampled.tests_of(g.law) for g in golden if g.law))


def check_results(
    results: dict[str, np.ndarray], golden: list[Golden], capabilities: Capabilities, dtype: str, cases: list[str] | None = None
) -> list[Verdict]:
    """The verdicts on a file of results: {"<op>/v<N>/<case>/<output>": array}; `cases`: only those.

    Cases for another dtype do not count, cases without any result are unsupported; a case with some outputs missing fails.
    Results of a case that is sampled are draws [n, *shape]. PcmrefError for a name that is no case's, or a dtype that the
    capabilities do not have.
    """
    if dtype not in capabilities.dtypes:
        raise PcmrefError(f"results in {dtype}, but the capabilities name {', '.join(capabilities.dtypes)}")
    by_case: dict[str, dict[str, np.ndarray]] = {}
    for name, array in results.items():
        parts = name.split("/", 3)
        by_case.setdefault("/".join(parts[:3]), {})[parts[-1]] = array
    unknown = sorted(name for name in results if name.count("/") < 3) or sorted(by_case.keys() - {g.case.key for g in golden})
    if unknown:
        raise PcmrefError(f"results for cases that the request does not hold: {unknown[:3]}; names are op/vN/case/output")
    verdicts, n_tests = [], count_tests(golden)
    for g in golden:
        key, found = g.case.key, by_case.get(g.case.key)
        blank = Verdict.of(g, dtype, "unsupported", message=NO_RESULT)
        if g.case.dtype not in (None, dtype) or (cases is not None and key not in cases):
            continue
        if found is None:
            verdicts += [] if g.law is not None or not is_checked_in(g.case.op, dtype) else [blank]
        elif not is_checked_in(g.case.op, dtype):
            verdicts.append(replace(blank, status="skip", message=_not_checked_in(g.case.op)))
        elif g.law is not None:
            verdicts.append(judge_samples(g, found, dtype, n_tests))
        else:
            verdicts.append(judge(g, found, capabilities, dtype))
    return mark_suspects(verdicts)


def _not_checked_in(op: str) -> str:
    return f"{op} is checked in {', '.join(OPS[op].dtypes)}"


def exit_status(verdicts: list[Verdict], strict: bool = False) -> int:
    """0: something was compared and all of it passed; 1: a failure, or nothing but inconclusive; 2: nothing supported.

    strict: 1 also where a case has no result, where a relation was refused, and where a backend supports only some of the
    cases of an operation in a dtype.
    """
    statuses = {v.status for v in verdicts}
    ran = {(v.op, v.dtype) for v in verdicts if v.status not in ("unsupported", "skip")}
    lacking = [v for v in verdicts if v.status == "unsupported" and (v.message == NO_RESULT or (v.op, v.dtype) in ran)]
    if statuses & {"fail", "error", "xpass"} or (strict and (lacking or any(v.refused for v in verdicts))):
        return 1
    if statuses & {"pass", "loose"}:
        return 0
    return 1 if statuses & {"inconclusive", "xfail"} else 2
