"""Running a backend: every case it says it supports, in every dtype asked for, and one verdict for each.

Three routes lead here: a backend object, a file of results (`Recorded`), and the pytest suite. All end in `verify.judge`.
"""

import traceback
import zlib
from collections.abc import Collection
from copy import deepcopy
from dataclasses import replace
from itertools import chain, islice
from pathlib import Path

import numpy as np

from pcmref.golden import relations, sampled
from pcmref.golden.backends import BackendError, Capabilities, Unsupported, adapted, check_backend
from pcmref.golden.bounds import KINK_SHARE, STORAGE, in_dtype, native
from pcmref.golden.ops import OPS, upstream
from pcmref.golden.verify import Golden, Verdict, judge, judge_samples


class Recorded:
    """Results from elsewhere as a backend: {"op/vN/case/output": array}, found by a case's key. Draws are [n, *shape].

    BackendError for a name that is no output's.
    """

    version = ""

    def __init__(self, name: str, results: dict[str, np.ndarray], capabilities: Capabilities):
        self.name, self.results = name, {}
        for key, array in results.items():
            op, version, case, output = (*key.split("/", 3), "", "", "")[:4]
            if op not in OPS or not output:
                raise BackendError(f"{name}: {key!r} is no output of a case; names are op/vN/case/output")
            self.results.setdefault(f"{op}/{version}/{case}", {})[output] = array
        self.declared = replace(capabilities, ops=tuple(dict.fromkeys(key.split("/")[0] for key in self.results)))

    def capabilities(self) -> Capabilities:
        return self.declared

    def run(self, golden: Golden, dtype: str) -> dict[str, np.ndarray]:
        """A case's results: flat arrays in their shape, whole numbers and doubles in the dtype where it holds them."""
        if golden.case.key not in self.results:
            raise Unsupported("no result for this case")
        wanted = {k: e.value for k, e in golden.expected.items()} | {k: law.location for k, law in (golden.law or {}).items()}

        def fitted(array, like):
            array, shape = native(array), (-1, *like.shape) if golden.law else like.shape
            if array.ndim == 1 and array.size and (array.size % like.size == 0 if golden.law else array.size == like.size):
                array = array.reshape(shape)
            if like.dtype.kind == "f" and array.dtype in (np.float64, np.int64, np.uint64):
                with np.errstate(over="ignore"):
                    stored = array.astype(STORAGE[dtype])
                return stored if np.array_equal(stored, array, equal_nan=array.dtype.kind == "f") else array
            return array

        return {k: fitted(v, wanted[k]) if k in wanted else v for k, v in self.results[golden.case.key].items()}


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
    """The verdict on one case in one dtype, or on the first of its relations that is broken, where `relate`.

    `refused` names the relations that the backend raised Unsupported for.
    """
    if left_out := _left_out(backend, capabilities, golden, dtype):
        return Verdict.of(golden, dtype, left_out[0], message=left_out[1])
    first, results, verdict, refused = {}, {}, None, []
    of_values = golden.law is None and not isinstance(backend, Recorded)
    most = None if relate else golden.case.name.startswith("beyond")  # of these a second call, for its bits
    others = islice(relations.related(golden, capabilities, dtype), most) if of_values else ()
    for name, related, arrange in chain([relations.Relation("", golden)], others):
        try:
            again, fault = _results(backend, related, dtype, arrange, n, seed)
            if name == "a second call" and capabilities.deterministic and relations.other_bits(first, again):
                fault = fault or "other bits, though the backend declares itself deterministic"
            if relations.other_bits(first, results):
                fault = fault or "it changed the results of an earlier call, which lie in scratch memory"
            found = _judged(related, again, capabilities, dtype, n_tests, bool(name))
            if golden.law is not None and found.status != "fail" and not fault:
                fault = _of_another_seed(backend, capabilities, golden, dtype, seed)
        except Unsupported as reason:
            if not name:
                return Verdict.of(golden, dtype, "unsupported", message=str(reason))
            refused.append(f"{name}: {reason}")
            continue
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # a stranger's code: whatever it raises, sys.exit too, is a verdict, not our end
            fault = f"{type(error).__name__}: {error}".splitlines()[0][:300]
            if not name:
                return Verdict.of(golden, dtype, "error", message=fault, trace=_trace(error))
            found = Verdict.of(related, dtype)
        if fault:
            found = replace(found, status="fail", message="; ".join(filter(None, (fault, found.message))))
        if found.status == "fail":
            return replace(found, message=f"{name}: {found.message}" if name else found.message)
        if not name:
            verdict, results, first = found, again, {k: np.array(v) for k, v in again.items()}
    return replace(verdict, refused=tuple(refused))


def _judged(golden: Golden, results, capabilities: Capabilities, dtype: str, n_tests: int, related: bool) -> Verdict:
    """The verdict on results; of a case made of a case only on what is expected of it, skip where that is nothing."""
    if golden.law is not None:
        return judge_samples(golden, results, dtype, n_tests)
    if related:
        kinks = [np.isfinite(e.kink).mean() for e in golden.expected.values() if e.kink is not None and e.kink.size]
        if not golden.expected or any(share > KINK_SHARE for share in kinks):  # of few rows, more may be either value
            return Verdict.of(golden, dtype, "skip")
        results = {k: v for k, v in results.items() if k in golden.expected} if isinstance(results, dict) else results
    return judge(golden, results, capabilities, dtype)


def _left_out(backend, capabilities: Capabilities, golden: Golden, dtype: str) -> tuple[str, str] | None:
    """(status, why) of a case that a backend is not asked for; None of one that it is."""
    op, of_file = OPS[golden.case.op], isinstance(backend, Recorded) and golden.case.key in backend.results
    if capabilities.ops and op.name not in capabilities.ops:
        return "unsupported", "not among the backend's operations"
    if dtype not in capabilities.dtypes_of.get(op.name, capabilities.dtypes):
        return "unsupported", f"the backend does not compute {op.name} in {dtype}"
    if dtype not in op.dtypes:
        return "skip", f"{op.name} is checked in {', '.join(op.dtypes)}"
    if golden.law is not None and capabilities.accepts_noise and not of_file:
        return "skip", "the backend takes the noise: compared to the bound instead"
    if golden.law is None and op.noise and not capabilities.accepts_noise:
        instead = "sampled instead" if op.law else "the operations that it is made of are sampled instead"
        return "skip", f"the backend takes no noise: {instead}"
    return None


def _results(backend, golden: Golden, dtype: str, arrange, n: int, seed: int) -> tuple[dict, str]:
    """(results, what the backend did that no right one does); of a law n draws."""
    if isinstance(backend, Recorded):
        return backend.run(golden, dtype), ""
    if golden.law is None:
        return relations.call(backend, golden.case, dtype, arrange)
    inputs = in_dtype(golden.case.inputs, dtype)
    return _sample(backend, golden, inputs, n, seed), relations.changed(inputs, golden.case.inputs, dtype)


def _sample(backend, golden: Golden, inputs: dict, n: int, seed: int) -> dict:
    case, stream = golden.case, zlib.crc32(golden.case.key.encode()) + seed  # another stream for every case
    return backend.sample(case.op, case.version, dict(inputs), deepcopy(case.params), n=n, seed=stream)


def _of_another_seed(backend, capabilities: Capabilities, golden: Golden, dtype: str, seed: int) -> str:
    """What is wrong, in words, where determinism is declared and the same seed gives other draws."""
    if not capabilities.deterministic or isinstance(backend, Recorded):
        return ""
    inputs = in_dtype(golden.case.inputs, dtype)
    first = {k: np.array(v) for k, v in _sample(backend, golden, inputs, 100, seed).items()}
    other = relations.other_bits(first, _sample(backend, golden, inputs, 100, seed))
    return "the same seed twice: other draws, though the backend declares itself deterministic" if other else ""


def _trace(error: BaseException) -> str:
    """Where in the backend's own code it was raised: file, line and text, the innermost last."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if Path(f.filename).parent != Path(__file__).parent]
    return "".join(traceback.format_list(frames[-3:]))


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


def mark_suspects(verdicts: list[Verdict]) -> list[Verdict]:
    """The verdicts, failures of operations that are made of failed ones with the names of those."""
    failed = {(v.op, v.dtype) for v in verdicts if v.status in ("fail", "error")}

    def suspects(v):
        return tuple(sorted(op for op in upstream(v.op) if (op, v.dtype) in failed))

    return [replace(v, suspects=suspects(v)) if v.status in ("fail", "error") else v for v in verdicts]


def count_tests(golden: list[Golden]) -> int:
    """An upper bound of the statistical tests in one pass over the cases."""
    return max(1, sum(sampled.tests_of(g.law) for g in golden if g.law))


def exit_status(verdicts: list[Verdict], strict: bool = False) -> int:
    """0: something was compared and all of it passed; 1: a failure, or nothing but inconclusive; 2: nothing supported.

    strict: 1 also where a relation was refused, and where a backend supports only some of the cases of an operation in a dtype.
    """
    statuses = {v.status for v in verdicts}
    ran = {(v.op, v.dtype) for v in verdicts if v.status not in ("unsupported", "skip")}
    lacking = strict and any(v.refused or (v.status == "unsupported" and (v.op, v.dtype) in ran) for v in verdicts)
    if statuses & {"fail", "error", "xpass"} or lacking:
        return 1
    if statuses & {"pass", "loose"}:
        return 0
    return 1 if statuses & {"inconclusive", "xfail"} else 2
