"""The golden file: cases with their expected outputs in one of pcmref's checked HDF5 files (see pcmref.store).

Arrays are `cases/<op>/v<N>/<case>/<group>/<name>`, groups inputs, noise, expected, scale, kink; of a case that is sampled
also location and spread. Everything else about a case is JSON in the root attribute `meta`. The same code on the same
libraries writes the same bytes.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np

import pcmref
from pcmref import store
from pcmref.errors import FileError, printable
from pcmref.golden import sampled
from pcmref.golden.backends import Capabilities
from pcmref.golden.case import Case, GoldenError, check_case_fits, check_values_fit
from pcmref.golden.expected import Expected, expected, law
from pcmref.golden.ops import DTYPES, OPS, TABLES
from pcmref.golden.reference import Reference
from pcmref.golden.verify import Golden, judge

SCHEMA, SCHEMA_VERSION = "pcmref-golden", 1
SHIPPED = Path(__file__).parent / "pcmref-golden-1.h5"
MAX_BYTES = 64 << 20


def make(case: Case) -> Golden:
    """A case with its expected outputs; GoldenError where it is incomplete, or pcmref disagrees."""
    check_case_fits(case)
    golden = Golden(case, expected(case.op, case.inputs, case.noise, case.params))
    results = Reference().run(case.op, case.version, case.inputs, case.noise, case.params)
    verdict = judge(golden, results, Capabilities(), "float64")
    if verdict.status not in ("pass", "loose"):
        raise GoldenError(f"{case.key}: pcmref and the expected values disagree: {verdict}")
    return golden


def make_law(case: Case) -> Golden:
    """A case to be sampled, with its law; GoldenError where it is incomplete."""
    check_case_fits(case, to_be_sampled=True)
    kind, low, high = sampled.law_kind(case.op, case.params)
    laws = law(case.op, case.inputs, case.params)
    return Golden(case, {}, {name: sampled.Law(kind, *where, low, high) for name, where in laws.items()})


# ------------------------------------------------------------------------------------------------------------ the file


def write(path, golden: list[Golden]) -> None:
    """Write cases to a golden file, atomically; GoldenError for a case that is not fit, FileError where the disk refuses."""
    arrays, described = {}, {}
    for g in golden:
        described[g.case.key], groups = pack(g)
        arrays |= {f"cases/{g.case.key}/{group}/{name}": v for group, named in groups.items() for name, v in named.items()}
    ops = {
        name: {"version": op.version} | {t: {k: a[:2] for k, a in getattr(op, t).items()} for t in TABLES}
        for name, op in OPS.items()
    }
    meta = {"schema": SCHEMA, "schema_version": SCHEMA_VERSION, "pcmref_version": pcmref.__version__}
    store.write(path, "golden", meta | {"cases": described, "ops": ops}, arrays)


def pack(g: Golden) -> tuple[dict, dict[str, dict[str, np.ndarray]]]:
    """(what is said of a case, {group: {name: array}}); GoldenError for a case that is not fit."""
    check_case_fits(g.case, to_be_sampled=g.law is not None)
    check_values_fit(g)
    about = {"params": g.case.params, "level": g.case.level, "why": g.case.why, "outputs": {}}
    about |= {"dtype": g.case.dtype} if g.case.dtype else {}
    groups = {"inputs": dict(g.case.inputs), "noise": dict(g.case.noise)}
    for name, e in g.expected.items():
        about["outputs"][name] = {"compare": "exact"}
        if e.scale is not None:
            about["outputs"][name] = {"compare": "bound", "u_max": e.u_max, "terms": e.terms}
        for group, array in (("expected", e.value), ("scale", e.scale), ("kink", e.kink)):
            if array is not None:
                groups.setdefault(group, {})[name] = array
    for name, one in (g.law or {}).items():
        bounds = {k: v for k, v in (("low", one.low), ("high", one.high)) if np.isfinite(v)}
        about["outputs"][name] = {"compare": "stat", "law": one.kind} | bounds
        for group, array in (("location", one.location), ("spread", one.spread)):
            groups.setdefault(group, {})[name] = array
    return about, groups


def read(path=SHIPPED) -> list[Golden]:
    """The cases of a golden file; FileError where it is anything else."""
    meta, arrays = store.read(path, "golden", MAX_BYTES)
    if meta.get("schema") != SCHEMA or meta.get("schema_version") != SCHEMA_VERSION:
        raise FileError(
            f"{path}: schema {meta.get('schema')!r} version {meta.get('schema_version')!r}, this pcmref reads {SCHEMA} "
            f"version {SCHEMA_VERSION}"
        )
    grouped: dict[str, dict[str, dict[str, np.ndarray]]] = {}
    for name, array in arrays.items():
        parts = name.split("/", 5)
        if len(parts) != 6 or parts[0] != "cases":
            raise FileError(f"{path}: unexpected array {name!r}")
        grouped.setdefault("/".join(parts[1:4]), {}).setdefault(parts[4], {})[parts[5]] = array
    try:
        if grouped.keys() - meta["cases"].keys():
            raise ValueError(f"arrays of no case: {sorted(grouped.keys() - meta['cases'].keys())[:3]}")
        return [_unpacked(key, about, grouped.get(key, {})) for key, about in meta["cases"].items()]
    except GoldenError as error:
        raise FileError(f"{path}: {error}") from error
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise FileError(f"{path}: a case is incomplete or misshapen: {error!r}") from error


def _unpacked(key: str, about: dict, groups: dict) -> Golden:
    """The case that `pack` made this of; misshapen ones raise whatever they do."""
    op, version, name = key.split("/")
    if op not in OPS:
        raise ValueError(f"unknown operation {op!r}")
    inputs, noise = groups.get("inputs", {}), groups.get("noise", {})
    case = Case(op, name, str(about["why"]), inputs, noise, dict(about["params"]), int(about["level"]), int(version[1:]))
    case = replace(case, dtype=about.get("dtype"))
    if case.dtype not in (None, *DTYPES):
        raise ValueError(f"{case.dtype!r} is no dtype")
    values, laws = {}, {}
    for output, how in about["outputs"].items():
        if how["compare"] == "stat":
            where = groups["location"][output], groups["spread"][output]
            laws[output] = sampled.Law(how["law"], *where, how.get("low", -np.inf), how.get("high", np.inf))
            continue
        value, kink = groups["expected"][output], groups.get("kink", {}).get(output)
        scale = groups["scale"][output] if how["compare"] == "bound" else None
        values[output] = Expected(value, scale, float(how.get("u_max", 1.0)), int(how.get("terms", 1)), kink)
    golden = Golden(case, values, laws or None)
    check_case_fits(case, to_be_sampled=bool(laws))
    check_values_fit(golden)
    return golden


def freeze(path, case: Case) -> Golden:
    """Add a case, a counterexample for one, to a golden file (made if it is not there), its expected values computed."""
    golden = make(case)
    kept = [g for g in read(path) if g.case.key != case.key] if Path(path).exists() else []
    write(path, [*kept, golden])
    return golden


def describe(golden: Golden) -> str:
    """One line: the case, its level and why it is there."""
    return printable(f"{golden.case.key:44} level {golden.case.level}  {golden.case.why}")
