"""Running a backend: every case it says it supports, in every dtype asked for, and one verdict for each.

Three routes lead here: a backend object, a file of results, and the pytest suite. All end in `verify.judge`.
"""

import zlib
from copy import deepcopy
from dataclasses import replace

import numpy as np

from pcmref.errors import PcmrefError
from pcmref.golden import sampled
from pcmref.golden.backends import Capabilities, Unsupported, check_backend
from pcmref.golden.bounds import STORAGE
from pcmref.golden.ops import OPS, RANDOM
from pcmref.golden.verify import Golden, Verdict, is_checked_in, judge, judge_samples, mark_suspects


def in_dtype(arrays: dict[str, np.ndarray], dtype: str) -> dict[str, np.ndarray]:
    """Floating-point arrays as the dtype stores them (bfloat16: float32), copies; integers as they are.

    Noise need not be narrow: for bfloat16 it is rounded to nearest, ties to even.
    """

    def convert(array):
        array = np.array(array)
        if array.dtype.kind != "f":
            return array
        array = array.astype(STORAGE[dtype])
        if dtype == "bfloat16":
            bits = array.view(np.uint32)
            array = ((bits + 0x7FFF + ((bits >> 16) & 1)) & np.uint32(0xFFFF0000)).view(np.float32)
        return array

    return {name: convert(array) for name, array in arrays.items()}


def check_case(
    backend, capabilities: Capabilities, golden: Golden, dtype: str, n_tests: int = 1, n: int = sampled.N_DRAWS, seed=0
):
    """The verdict on one case in one dtype."""
    case = golden.case
    verdict = Verdict(case.op, case.key, dtype, "skip")
    if capabilities.ops and case.op not in capabilities.ops:
        return replace(verdict, status="unsupported", message="not among the backend's operations")
    if dtype not in capabilities.dtypes:
        return replace(verdict, status="unsupported", message=f"the backend does not compute in {dtype}")
    if not is_checked_in(case.op, dtype):
        return replace(verdict, message=_not_checked_in(case.op))
    if golden.law is not None and capabilities.accepts_noise:
        return replace(verdict, message="the backend takes the noise: compared to the bound instead")
    if golden.law is None and case.op in RANDOM and not capabilities.accepts_noise:
        return replace(verdict, message="the backend takes no noise: sampled instead")
    inputs, noise = in_dtype(case.inputs, dtype), in_dtype(case.noise, dtype)
    try:
        if golden.law is not None:
            stream = zlib.crc32(case.key.encode()) + seed  # another stream for every case
            results = backend.sample(case.op, case.version, dict(inputs), deepcopy(case.params), n=n, seed=stream)
            verdict = judge_samples(golden, results, dtype, n_tests)
        else:
            results = backend.run(case.op, case.version, dict(inputs), dict(noise), deepcopy(case.params))
            verdict = judge(golden, results, capabilities, dtype)
    except Unsupported as reason:
        return replace(verdict, status="unsupported", message=str(reason))
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a stranger's code: whatever it raises, sys.exit too, is a verdict, not our end
        return replace(verdict, status="error", message=f"{type(error).__name__}: {error}".splitlines()[0][:300])
    changed = _changed(inputs, case.inputs, dtype) + _changed(noise, case.noise, dtype)
    if changed:
        message = f"changed its input: {', '.join(changed)}" + (f"; {verdict.message}" if verdict.message else "")
        return replace(verdict, status="fail", message=message)
    return verdict


def _changed(handed: dict[str, np.ndarray], original: dict[str, np.ndarray], dtype: str) -> list[str]:
    """The names of the arrays that no longer hold what the backend was handed."""
    return [name for name, fresh in in_dtype(original, dtype).items() if fresh.tobytes() != handed[name].tobytes()]


def check(backend, golden: list[Golden], dtypes: list[str], n: int = sampled.N_DRAWS, seed: int = 0) -> list[Verdict]:
    """The verdicts on all cases in all dtypes, failures that follow from others marked."""
    capabilities = check_backend(backend, str(getattr(backend, "name", backend)))
    tests = count_tests(golden) * len(dtypes)
    rows = [(g, dtype) for dtype in dtypes for g in golden if g.case.dtype in (None, dtype)]
    verdicts = [check_case(backend, capabilities, g, dtype, tests, n, seed) for g, dtype in rows]
    return mark_suspects(verdicts)


def count_tests(golden: list[Golden]) -> int:
    """An upper bound of the statistical tests in one pass over the cases."""
    return max(1, sum(sampled.tests_of(g.law) for g in golden if g.law))


def check_results(
    results: dict[str, np.ndarray], golden: list[Golden], capabilities: Capabilities, dtype: str, cases: list[str] | None = None
) -> list[Verdict]:
    """The verdicts on a file of results: {"<op>/v<N>/<case>/<output>": array}; `cases`: only those.

    Cases without any result are unsupported; a case with some outputs missing fails. Results of a case that is sampled are
    draws [n, *shape]. PcmrefError for a name that is no case's, or a dtype that the capabilities do not have.
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
        blank = Verdict(g.case.op, key, dtype, "unsupported", "no result for this case")
        if cases is not None and key not in cases:
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


def exit_status(verdicts: list[Verdict]) -> int:
    """0: something was compared and all of it passed; 1: a failure, or nothing but inconclusive; 2: nothing supported."""
    statuses = {v.status for v in verdicts}
    if statuses & {"fail", "error", "xpass"}:
        return 1
    if statuses & {"pass", "loose"}:
        return 0
    return 1 if statuses & {"inconclusive", "xfail"} else 2
