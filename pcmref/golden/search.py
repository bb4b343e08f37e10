"""Looking for inputs on which a backend is wrong: any case that `make` can make, by hypothesis, and a small one that fails.

A round asks for a few cases of every operation in every dtype, and the next round for others. The same seed gives the same
cases in the same order, however many of them there is time for. Needs hypothesis.
"""

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import product
from math import prod
from zlib import crc32

import numpy as np

from pcmref.errors import MissingExtraError
from pcmref.golden import design, make
from pcmref.golden.backends import Capabilities
from pcmref.golden.check import check_case
from pcmref.golden.ops import OPS, RANDOM
from pcmref.golden.verify import Golden, Verdict

A_ROUND = 5  # cases of an operation in a dtype; the first rounds reach all of them soon
WORK = (6e4,) * 7 + (3e5,) * 2 + (1e6,)  # products of a case: most are as cheap as the design's
REDUCING_S = 20.0  # of a search by time, at most, to make a failure smaller
SPARSE = ((1, True), (1, False), (3, False))  # (numbers left, in all inputs or the largest): what a failure shrinks to


class _Wrong(Exception):
    """The backend failed; hypothesis looks for a smaller input."""


@dataclass
class Found:
    """What a search came to: failures with their verdicts, one for each operation and dtype, and what was tried."""

    failures: list[tuple[Golden, Verdict]] = field(default_factory=list)
    judged: Counter[Verdict] = field(default_factory=Counter)  # operation, dtype, status and the first relation refused
    ranges: dict[str, tuple[int, int]] = field(default_factory=dict)  # of the whole numbers among the factors

    def line(self) -> str:
        """What was covered, in one line."""
        named = {"c": "channels in", "o": "channels or classes out", "n": "images", "devices": "devices", "stride": "stride"}
        reach = [
            f"{name} {low:,} to {high:,}" for f, name in named.items() if f in self.ranges for low, high in [self.ranges[f]]
        ]
        ops, dtypes = (len({getattr(v, name) for v in self.judged}) for name in ("op", "dtype"))
        statuses = sum((Counter({v.status: n}) for v, n in self.judged.items()), Counter())
        counts = ", ".join(f"{n:,} {status}" for status, n in sorted(statuses.items()))
        return f"covered {self.judged.total():,} cases of {ops} operations in {dtypes} dtypes ({counts}); {', '.join(reach)}"


def fuzz(
    backend,
    capabilities: Capabilities,
    dtypes,
    ops=None,
    *,
    seconds: float | None = None,
    examples: int | None = None,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Found:
    """Search for `seconds`, or until every operation has had `examples` cases in every dtype; `progress(done, total)`.

    MissingExtraError without hypothesis.
    """
    try:
        import hypothesis  # noqa: F401
    except ImportError as error:
        raise MissingExtraError("fuzzing needs hypothesis: install pcmref with the extra `test`") from error
    found, started, turn = Found(), time.monotonic(), 0
    todo = [(op, d) for op in ops or capabilities.ops or OPS for d in dtypes if d in OPS[op].dtypes]
    todo = [(op, d) for op, d in todo if capabilities.accepts_noise or op not in RANDOM]
    while todo:
        for op, dtype in list(todo):
            passed = time.monotonic() - started
            if (seconds is not None and passed >= seconds) or (examples is not None and turn * A_ROUND >= examples):
                return found
            number = crc32(f"{seed}/{turn}/{op}/{dtype}".encode())
            limit_s = np.inf if seconds is None else REDUCING_S
            if (failure := _search(backend, capabilities, op, dtype, number, found, limit_s)) is not None:
                found.failures.append(failure)
                todo.remove((op, dtype))
            if progress is not None:
                by_count = found.judged.total(), (examples or 0) * len(todo)
                progress(*(by_count if seconds is None else (int(passed), int(seconds))))
        turn += 1
    return found


def _search(backend, capabilities, op, dtype, number: int, found: Found, limit_s: float) -> tuple[Golden, Verdict] | None:
    """The smallest failure among a round's cases that is found within limit_s of the first."""
    import hypothesis
    from hypothesis import HealthCheck, Phase, Verbosity, given, settings

    last, until = [], np.inf

    @hypothesis.seed(number)
    @settings(
        max_examples=A_ROUND,
        phases=(Phase.generate, Phase.shrink),
        database=None,
        deadline=None,
        verbosity=Verbosity.quiet,
        suppress_health_check=list(HealthCheck),
        report_multiple_bugs=False,
    )
    @given(_recipes(op))
    def one(recipe):
        nonlocal until
        if time.monotonic() > until:  # hypothesis takes this for success, and comes to an end
            return
        golden = _made(recipe, op, dtype, capabilities)
        hypothesis.assume(golden is not None)
        verdict = check_case(backend, capabilities, golden, dtype)
        if not last:  # what a failure is reduced by counts no more
            found.judged[Verdict(op, "", dtype, verdict.status, refused=verdict.refused[:1])] += 1
        for factor, level in recipe[0].items():
            if isinstance(level, int) and not isinstance(level, bool):
                low, high = found.ranges.get(factor, (level, level))
                found.ranges[factor] = min(low, level), max(high, level)
        if verdict.status in ("fail", "error"):
            until = until if last else time.monotonic() + limit_s
            last[:] = [(golden, verdict)]
            raise _Wrong

    try:
        one()
    except (_Wrong, hypothesis.errors.Flaky):  # flaky: a backend that is wrong now and then is wrong, or time is up
        golden, verdict = last[0]
        named = replace(golden.case, name=f"fuzz-{dtype}-{number:08x}")
        return replace(golden, case=named), replace(verdict, case=named.key)
    except hypothesis.errors.Unsatisfiable:  # the bounds left no case of this round
        pass
    return None


def cases(op: str, dtype: str, capabilities: Capabilities):
    """A strategy of any cases that `make` can make, with what is expected of a backend of these capabilities."""
    golden = _recipes(op).map(lambda recipe: _made(recipe, op, dtype, capabilities))
    return golden.filter(lambda one: one is not None)


def _made(recipe: tuple, op: str, dtype: str, capabilities: Capabilities) -> Golden | None:
    """The case of (setting, seed, how sparse); None where no bound says anything of it."""
    setting, seed, sparse = recipe
    case = make.make(op, f"fuzz-{dtype}", setting, dtype, seed)
    return design.made(make.sparse(case, *SPARSE[sparse]) if sparse < len(SPARSE) else case, capabilities)


def _recipes(op: str):
    from hypothesis import strategies as st

    return st.tuples(_setting(op), st.integers(0, 2**16), st.integers(0, 9))


def _beginnings(op: str) -> list[dict]:
    """What a setting begins with: nothing, or, in about two of five (154 of 400), a shape that kernels have fast paths for."""
    shapes = product(*make.DATA["fast"].values())
    fast = [{"kernel": (k, k), "padding": k // 2, "c": c} for k, c in shapes]
    return [{}] * len(fast) + fast if OPS[op].is_convolution else [{}]


def _setting(op: str):
    """A strategy of settings: of every factor a level, or a number in its reach; now and then of more work than a design's."""
    from hypothesis import strategies as st

    reach = make.DATA["reach"]
    levels = {factor: sorted(of, key=_size) for factor, of in design.levels(op, True).items()}  # it shrinks to the first

    @st.composite
    def build(draw):
        def free(like, low, high):
            """Any number of the kind of a level, or as many as are in it, or the profile of that G_max."""
            if isinstance(like, tuple):
                return tuple(free(one, low, high) for one in like)
            number = low * (high / low) ** (draw(st.integers(0, 4095)) / 4095)
            return round(number) if isinstance(like, int) else f"G_max {number} uS" if isinstance(like, str) else number

        setting, begun, work = {}, draw(st.sampled_from(_beginnings(op))), draw(st.sampled_from(WORK))

        def fits(s):
            second = {"c": s["o"]} if OPS[op].composite and "o" in s else {}  # a block's other convolution
            return design.fits(op, s, work) and design.fits(op, s | second, work)

        for factor in sorted(draw(st.permutations(list(levels))), key=lambda factor: factor not in begun):
            level = begun.get(factor, draw(st.sampled_from(levels[factor])))  # drawn in any case: it may shrink to no beginning
            if factor in reach and level is not None and draw(st.booleans()) and factor not in begun:
                low, high = reach[factor]
                level = free(level, levels[factor][0] if factor == "n" else low, high)
            if not fits(setting | {factor: level}):
                possible = [v for v in levels[factor] if fits(setting | {factor: v})]
                level = draw(st.sampled_from(possible)) if possible else draw(st.nothing())
            setting[factor] = level
        return {factor: setting[factor] for factor in levels}

    return build()


def _size(level) -> float:
    """Of a level that is a number, or several; of others none, so that they stay in their order."""
    numbers = level if isinstance(level, tuple) else (level,)
    return prod(numbers) if all(isinstance(n, (int, float)) for n in numbers) else 0
