"""Running a backend: every case it says it supports, in every dtype asked for, and one verdict for each.

Three routes lead here: a backend object, a file of results, and the pytest suite. All end in `verify.judge`.
"""

import zlib
from dataclasses import replace

import numpy as np

from pcmref.errors import PcmrefError
from pcmref.golden import sampled
from pcmref.golden.backends import Capabilities, Unsupported
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
        return replace(verdict, message=f"{case.op} is checked in {', '.join(OPS[case.op].dtypes)}")
    if golden.law is not None and capabilities.accepts_noise:
        return replace(verdict, message="the backend takes the noise: compared to the bound instead")
    if golden.law is None and case.op in RANDOM and not capabilities.accepts_noise:
        return replace(verdict, message="the backend takes no noise: sampled instead")
    inputs, noise, params = in_dtype(case.inputs, dtype), in_dtype(case.noise, dtype), dict(case.params)
    try:
        if golden.law is not None:
            stream = zlib.crc32(case.key.encode()) + seed  # another stream for every case
            results = backend.sample(case.op, case.version, inputs, params, n=n, seed=stream)
            return judge_samples(golden, results, dtype, n_tests)
        return judge(golden, backend.run(case.op, case.version, inputs, noise, params), capabilities, dtype)
    except Unsupported as reason:
        return replace(verdict, status="unsupported", message=str(reason))
    except Exception as error:  # a stranger's code: whatever it raises is a verdict, not our crash
        return replace(verdict, status="error", message=f"{type(error).__name__}: {error}".splitlines()[0][:300])


def check(backend, golden: list[Golden], dtypes: list[str], n: int = sampled.N_DRAWS, seed: int = 0) -> list[Verdict]:
    """The verdicts on all cases in all dtypes, failures that follow from others marked."""
    capabilities = backend.capabilities()
    tests = count_tests(golden) * len(dtypes)
    verdicts = [check_case(backend, capabilities, g, dtype, tests, n, seed) for dtype in dtypes for g in golden]
    return mark_suspects(verdicts)


def count_tests(golden: list[Golden]) -> int:
    """An upper bound of the statistical tests in one pass over the cases: seven an element."""
    return max(1, sum(7 * law.location.size for g in golden if g.law for law in g.law.values()))


def check_results(
    results: dict[str, np.ndarray], golden: list[Golden], capabilities: Capabilities, dtype: str
) -> list[Verdict]:
    """The verdicts on a file of results: {"<op>/v<N>/<case>/<output>": array}. PcmrefError for a name that is no case's.

    Cases without any result are unsupported; a case with some outputs missing fails.
    """
    by_case: dict[str, dict[str, np.ndarray]] = {}
    for name, array in results.items():
        parts = name.split("/", 3)
        by_case.setdefault("/".join(parts[:3]), {})[parts[-1]] = array
    unknown = by_case.keys() - {g.case.key for g in golden}
    if unknown:
        raise PcmrefError(
            f"results for cases that the request does not hold: {sorted(unknown)[:3]}; names are op/vN/case/output"
        )
    verdicts = []
    for g in golden:
        key, found = g.case.key, by_case.get(g.case.key)
        if g.law is not None or not is_checked_in(g.case.op, dtype):
            continue
        if found is None:
            verdicts.append(Verdict(g.case.op, key, dtype, "unsupported", "no result for this case"))
        else:
            verdicts.append(judge(g, found, capabilities, dtype))
    return mark_suspects(verdicts)


def exit_status(verdicts: list[Verdict]) -> int:
    """0: something was compared and all of it passed; 1: a failure, or nothing but inconclusive; 2: nothing supported."""
    statuses = {v.status for v in verdicts}
    if statuses & {"fail", "error", "xpass"}:
        return 1
    if statuses & {"pass", "loose"}:
        return 0
    return 1 if statuses & {"inconclusive", "xfail"} else 2
