"""What golden can catch, as a text file with a line an entry: cases, expected values, bounds, relations and shares of bounds.

    PYTHONPATH=. python -m tests.golden.ledger write before.txt --workers 2     (about ten minutes of a core)
    PYTHONPATH=. python -m tests.golden.ledger write after.txt --op conv2d,relu
    PYTHONPATH=. python -m tests.golden.ledger compare before.txt after.txt --op conv2d,relu
    PYTHONPATH=. python -m tests.golden.ledger shares before-shares.txt          (compared in the same way)

A line is a key, a tab and JSON. The key ROUTE/DTYPE/SOURCE/OP/vN/CASE is a case, with digests of its inputs and params;
`null` is a case in which no bound says anything. ` > OUTPUT` behind it is what is expected there: a digest of the values,
[least, sum, largest] of the scale and of the tolerance, u_max, terms, a digest of the kinks. ` | RELATION` is what is asked
of the case besides, with ` > OUTPUT` again. The key shares/DTYPE/BACKEND/OP is the largest share of its bound that a right
backend takes, and of how many cases.

`compare` calls a change no loss if a scale, a tolerance or a share is no larger (but for rounding, SLACK), or if a line is
new. Anything else is a loss, named by its key, and the exit status is 1. Write both files on one machine and with one
OPENBLAS_CORETYPE: expected values of dtypes below float64 are matrix products in float64, whose last bits depend on the
kernel.

What golden is inside stands behind the functions of the first section: follow it there if it moves, and nowhere else.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from hashlib import sha256
from itertools import groupby

import numpy as np

from pcmref import fast
from pcmref.golden import bounds, design, file, ops, relations, special
from pcmref.golden.backends import Capabilities, adapted
from pcmref.golden.check import check
from pcmref.golden.twin import TWINS
from tests.golden.right_backends import CORRECT, Reference

# ------------------------------------------------------------------------------- all that is known of golden's inside

OPS = tuple(ops.OPS)
ROUTES = {
    "direct": {},
    "winograd2": {"conv_algorithm": "winograd F(2,3)"},
    "winograd4": {"conv_algorithm": "winograd F(4,3)"},
    "fft": {"conv_algorithm": "fft"},
    "flush": {"flush_denormals": True},
    "sampled": {"accepts_noise": False},
}


def generated(op: str, dtype: str, capabilities: Capabilities) -> Iterator:
    """(key, case with what is expected, or None where no bound says anything)."""
    for key in design.keys([op], [dtype], 2):
        yield key, design.golden(key, capabilities)


@cache
def stored() -> list:
    return file.read()


def specials(capabilities: Capabilities) -> list:
    return special.cases(capabilities)


def related(golden, capabilities: Capabilities, dtype: str) -> Iterator[tuple]:
    """(name, case with what is expected, the function that arranges an array in memory) of each relation."""
    return relations.related(golden, capabilities, dtype)


def tolerance(golden, output: str, capabilities: Capabilities, dtype: str) -> tuple[np.ndarray, np.ndarray]:
    """(the error above which an element fails, the one above which it is loose)."""
    case, e = golden.case, golden.expected[output]
    gradual = case.dtype is not None and case.op not in TWINS and not capabilities.flush_denormals
    with np.errstate(all="ignore"):
        found = bounds.tolerance(case, output, e.value, e.scale, e.terms, capabilities, dtype, gradual)
    return found.fail, found.loose


def right_backends() -> Iterator[tuple]:
    """(backend, the operations that it computes in its own way)."""
    for make in (fast.Backend, *CORRECT):
        own = [op for op in OPS if getattr(make, op, None) is not getattr(Reference, op, None)]
        backend = adapted(make())
        yield backend, own if backend.capabilities().accepts_noise and own else OPS


def shares(backend, own, dtype: str) -> Iterator[tuple[str, float]]:
    """(operation, share of the bound) of each case that a backend passes."""
    capabilities = backend.capabilities()
    cases = [g for g in (*stored(), *specials(capabilities)) if g.case.op in own and g.case.dtype in (None, dtype)]
    cases += [g for op in own for key in design.keys([op], [dtype], 1) if (g := design.golden(key, capabilities))]
    for verdict in check(backend, cases, [dtype], related=()):
        if verdict.status in ("pass", "loose"):
            yield verdict.op, verdict.times_bound


# --------------------------------------------------------------------------------------------------------- the lines


def digest(*arrays) -> str:
    """Of shapes and values, in float64 or int64: one NaN is like another, 0 is not -0."""
    found = sha256()
    for array in map(np.asarray, arrays):
        wide = array.astype(np.float64 if array.dtype.kind == "f" else np.int64)
        if array.dtype.kind == "f":
            wide = np.where(np.isnan(wide), np.nan, wide)
        found.update(f"{array.dtype.kind}{array.shape}".encode() + np.ascontiguousarray(wide).tobytes())
    return found.hexdigest()[:12]


def extent(values) -> list[float]:
    """[least, sum, largest]."""
    values = np.asarray(values, np.float64)
    with np.errstate(all="ignore"):
        return [float(values.min(initial=np.inf)), float(values.sum()), float(values.max(initial=0))]


def about(case) -> dict:
    named = {**case.inputs, **{f"noise/{k}": v for k, v in case.noise.items()}}
    params = json.dumps(case.params, sort_keys=True, default=str)
    names = ",".join(f"{k}:{np.asarray(named[k]).dtype.str}" for k in sorted(named))
    made_of = digest(*[named[k] for k in sorted(named)])
    return {
        "inputs": f"{made_of} {sha256(names.encode()).hexdigest()[:8]}",
        "params": sha256(params.encode()).hexdigest()[:12],
        "level": case.level,
        "dtype": case.dtype,
    }


def outputs(golden, capabilities: Capabilities, dtype: str) -> Iterator[tuple[str, dict]]:
    for name, e in golden.expected.items():
        found = {
            "value": digest(e.value),
            "kink": None if e.kink is None else digest(e.kink),
            "u_max": e.u_max,
            "terms": e.terms,
        }
        if e.scale is not None:
            fail, loose = tolerance(golden, name, capabilities, dtype)
            found |= {"scale": extent(e.scale), "fail": extent(fail), "loose": extent(loose)}
        yield f" > {name}", found
    for name, law in (golden.law or {}).items():
        yield f" > {name}", {"law": law.kind, "bounds": [law.low, law.high], "value": digest(law.location, law.spread)}


def entry(key: str, golden, capabilities: Capabilities, dtype: str) -> Iterator[tuple[str, dict | None]]:
    yield key, None if golden is None else about(golden.case) | {"special": golden.special}
    if golden is not None:
        yield from ((key + output, found) for output, found in outputs(golden, capabilities, dtype))


def relation_lines(key: str, golden, capabilities: Capabilities, dtype: str) -> Iterator[tuple[str, dict]]:
    for name, other, arrange in related(golden, capabilities, dtype):
        arranged = [arrange(v) for _, v in sorted(other.case.inputs.items())]
        layout = [(type(a).__name__, a.dtype.str, a.strides, a.flags.writeable) for a in arranged]
        found = {"layout": sha256(str(layout).encode()).hexdigest()[:12]}
        yield f"{key} | {name}", found if other is golden else found | about(other.case)
        if other is not golden:
            yield from ((f"{key} | {name}{out}", more) for out, more in outputs(other, capabilities, dtype))


def tasks(chosen: list[str]) -> list[tuple[str, str, str, tuple[str, ...]]]:
    """(route, dtype, source, operations), the long ones first."""
    routes = [("direct", dtype) for dtype in reversed(ops.DTYPES)] + [
        (route, "float32") for route in ROUTES if route != "direct"
    ]
    made = [(route, dtype, "generated", (op,)) for route, dtype in routes for op in chosen if dtype in ops.OPS[op].dtypes]
    made += [("direct", dtype, "stored", (op,)) for dtype in ops.DTYPES for op in chosen if dtype in ops.OPS[op].dtypes]
    return [(route, dtype, "special", tuple(chosen)) for route, dtype in routes] + made


def lines(task) -> list[str]:
    """The lines of a task."""
    route, dtype, source, chosen = task
    capabilities, found = Capabilities(dtypes=(dtype,), **ROUTES[route]), []
    if source == "generated":
        cases = list(generated(*chosen, dtype, capabilities))
    else:
        of = stored() if source == "stored" else specials(capabilities)
        cases = [(g.case.key, g) for g in of if g.case.op in chosen]
    for key, golden in cases:
        key = f"{route}/{dtype}/{source}/{key}"
        found += entry(key, golden, capabilities, dtype)
        if source != "generated" and golden.law is None:
            found += relation_lines(key, golden, capabilities, dtype)
    return [f"{key}\t{json.dumps(one)}" for key, one in found]


def share_lines() -> Iterator[str]:
    """The largest share of its bound that a right backend takes, and of how many cases, for each operation."""
    for backend, own in right_backends():
        for dtype in backend.capabilities().dtypes:
            for op, found in groupby(sorted(shares(backend, own, dtype)), lambda pair: pair[0]):
                each = [share for _, share in found]
                yield f"shares/{dtype}/{backend.name}/{op}\t{json.dumps({'share': max(each), 'compared': len(each)})}"


# -------------------------------------------------------------------------------------------------------- comparison

SLACK = 1e-12  # sums in another order
MAY_FALL = ("scale", "fail", "loose", "share")
MAY_RISE = ("compared",)


def is_no_larger(new, old) -> bool:
    return all(b == a or b <= a * (1 + SLACK) for a, b in zip(np.ravel(old), np.ravel(new), strict=True))


def worse(old: dict | None, new: dict | None) -> list[str]:
    """The names of what a line has lost."""
    if old is None:
        return []
    if new is None:
        return ["no bound"]
    differ = [name for name in old.keys() | new.keys() if old.get(name) != new.get(name)]
    both = {name for name in differ if name in old and name in new}
    fell = {name for name in both.intersection(MAY_FALL) if is_no_larger(new[name], old[name])}
    rose = {name for name in both.intersection(MAY_RISE) if is_no_larger(old[name], new[name])}
    return sorted(set(differ) - fell - rose)


def read(path: str, chosen: list[str]) -> dict[str, dict | None]:
    with open(path, encoding="utf-8") as opened:
        found = dict(line.rstrip("\n").split("\t") for line in opened)
    return {key: json.loads(one) for key, one in found.items() if key.split("/")[3] in chosen}


def compare(old: dict, new: dict) -> tuple[dict[str, int], list[str]]:
    """({kind of line: how many}, the losses in words)."""
    lost = {key: worse(one, new[key]) if key in new else ["the whole line"] for key, one in old.items()}
    losses = [f"LOSS {key}: {', '.join(names)}" for key, names in lost.items() if names]
    equal = sum(key in new and new[key] == one for key, one in old.items())
    counts = {"equal": equal, "smaller or equal": len(old) - equal - len(losses), "new": len(new.keys() - old.keys())}
    return counts | {"LOSS": len(losses)}, losses


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    actions = parser.add_subparsers(dest="action", required=True)
    for action, paths in (("write", ["out"]), ("shares", ["out"]), ("compare", ["old", "new"])):
        one = actions.add_parser(action)
        for path in paths:
            one.add_argument(path)
        if action != "shares":
            one.add_argument("--op", type=lambda text: text.split(","), default=list(OPS), help="only these, with commas")
    actions.choices["write"].add_argument("--workers", type=int, default=1)
    given = parser.parse_args(argv)
    if given.action == "compare":
        counts, losses = compare(read(given.old, given.op), read(given.new, given.op))
        print(*losses, ", ".join(f"{n} {what}" for what, n in counts.items()), sep="\n")
        return 1 if losses else 0
    if given.action == "shares":
        found = list(share_lines())
    else:
        with ProcessPoolExecutor(given.workers) as pool:
            found = [line for part in pool.map(lines, tasks(given.op)) for line in part]
    with open(given.out, "w", encoding="utf-8") as out:
        out.writelines(f"{line}\n" for line in sorted(found))
    print(f"{given.out}: {len(found)} lines")
    return 0


if __name__ == "__main__":
    sys.exit(main())
