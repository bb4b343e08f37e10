"""What a check found, for people and for programs: terminal lines, JSON with a versioned schema, a Markdown table.

Expected failures live in a TOML file; each entry has a reason, an issue and the pcmref version it expires with:

    [[xfail]]
    op = "drift_exponent"
    case = "law_joshi2020"     # optional: without it, all cases of the operation
    dtype = "float32"          # optional
    reason = "folds nu (D7)"
    issue = "https://..."
    expires = "0.3"
"""

import json
import shlex
from collections import Counter
from dataclasses import asdict, dataclass, field, replace

import numpy as np

import pcmref
from pcmref import store
from pcmref.errors import FileError, SettingError, printable
from pcmref.golden.backends import Capabilities
from pcmref.golden.ops import DTYPES, OPS
from pcmref.golden.verify import STATUSES, Verdict

REPORT_SCHEMA, REPORT_VERSION = "pcmref-report", 1
SHOWN = 5  # lines of a kind
_MARKS = {"pass": "pass", "loose": "loose", "fail": "**fail**", "error": "**error**", "unsupported": "-", "skip": "-"}


@dataclass(frozen=True)
class Report:
    """All verdicts of one run, and what was checked."""

    backend: str
    version: str
    route: str  # the command that repeats the run, but for --dtype and --case
    verdicts: tuple[Verdict, ...]
    about: dict = field(default_factory=dict)  # judged with: what a backend declares, the golden file's hash, the level


def declared(capabilities) -> dict:
    """What a backend declares of itself that widens a bound or leaves something out."""
    plain, given = asdict(Capabilities()), asdict(capabilities)
    return {name: value for name, value in given.items() if name not in ("ops", "dtypes") and value != plain[name]}


def line(verdict: Verdict, route: str = "") -> str:
    """One line: where, what was got and wanted, how many times the bound, what it may follow from, how to repeat it."""
    text = f"{verdict.status.upper()} {verdict.case} {verdict.dtype}"
    if verdict.output:
        index = f"[{', '.join(map(str, verdict.index))}]" if verdict.index else ""
        text += f": {verdict.output}{index}"
    if verdict.got is not None:
        text += f" = {verdict.got!r}, wanted {verdict.wanted!r}"
        if np.isfinite(verdict.times_bound):
            text += f", {verdict.times_bound:.3g} times the bound ({verdict.ulp:.3g} ulp)"
    if verdict.message:
        text += f"; {verdict.message}"
    if verdict.top1:
        text += f"; top-1 agrees in {verdict.top1[0]} of {verdict.top1[1]} images"
    if verdict.suspects:
        text += f"; suspect: follows from {', '.join(verdict.suspects)}"
    if verdict.why and verdict.status in ("fail", "error"):
        text += f"; {verdict.why}"
    if route:
        text += f"; repeat: {route} --dtype {verdict.dtype} --case {shlex.quote(verdict.case)}"
    return printable(text)


def not_judged(verdicts) -> dict[tuple[str, str], int]:
    """{(operation, dtype): cases} where cases ran and every one is inconclusive: nothing is known of these operations."""
    ran: dict[tuple[str, str], list[str]] = {}
    for v in verdicts:
        if v.status not in ("unsupported", "skip"):
            ran.setdefault((v.op, v.dtype), []).append(v.status)
    return {where: len(found) for where, found in ran.items() if set(found) == {"inconclusive"}}


def top1(verdicts) -> dict[str, tuple[int, int]]:
    """{dtype: (images whose largest logit is the golden one's, images)} over the end-to-end cases."""
    found = {}
    for v in verdicts:
        if v.top1:
            agree, images = found.get(v.dtype, (0, 0))
            found[v.dtype] = agree + v.top1[0], images + v.top1[1]
    return found


def terminal(report: Report) -> str:
    """Failures and warnings first, one line each, then the table, what was not judged, top-1 agreement and the counts."""
    order = ("fail", "error", "xpass", "loose", "inconclusive")
    shown = sorted((v for v in report.verdicts if v.status in order), key=lambda v: order.index(v.status))
    first = {(v.message, v.trace): v for v in reversed(shown) if v.status == "error"}
    lines = _first_of_each([v for v in shown if v.status != "error"], report.route)
    for (message, trace), v in reversed(first.items()):  # one cause: one line, and the adapter's own code
        same = sum((w.message, w.trace) == (message, trace) for w in shown if w.status == "error") - 1
        more = [printable(f"    {text.strip()}") for text in trace.splitlines()]
        lines += [line(v, report.route), *more, *([f"    the same error in {same} more cases"] if same else [])]
    counts = Counter(v.status for v in report.verdicts)
    summary = ", ".join(f"{counts[s]} {s}" for s in STATUSES if counts[s])
    ran = {v.op for v in report.verdicts if v.status != "unsupported"}
    supported = tuple(v for v in report.verdicts if v.op in ran)
    compared, kinks = sum(v.compared for v in report.verdicts), sum(v.kinks for v in report.verdicts)
    lines += [markdown(replace(report, verdicts=supported))] if supported else []
    lacking = dict.fromkeys(v.op for v in report.verdicts if v.op not in ran)
    lines += [f"not supported: {', '.join(lacking)}"] if lacking else []
    for (op, dtype), n in not_judged(report.verdicts).items():
        lines.append(f"NOT JUDGED {op} {dtype}: all of its {n} cases are inconclusive, which is no pass")
    for refused, n in Counter(text for v in report.verdicts for text in v.refused).items():
        lines.append(printable(f"NOT CHECKED {refused} ({n} case{'s' * (n > 1)})"))
    for dtype, (agree, images) in top1(report.verdicts).items():
        lines.append(f"end to end, {dtype}: top-1 agrees in {agree} of {images} images")
    if report.about.get("level") == 1:
        lines.append("level 1 is a quick look: --level 2 takes all generated cases, `pcmref golden fuzz` looks beyond them")
    if report.about:
        lines.append(printable("judged with " + ", ".join(f"{name} {value}" for name, value in report.about.items())))
    lines.append(f"{report.backend} {report.version}: {summary}; {compared:,} numbers compared, {kinks} of them at a kink")
    return "\n".join(lines)


def _first_of_each(shown: list[Verdict], route: str) -> list[str]:
    """Lines of SHOWN verdicts of each status, operation and dtype, the smallest cases first, and how many more there are."""
    groups: dict[tuple, list[Verdict]] = {}
    for v in shown:
        groups.setdefault((v.status, v.op, v.dtype), []).append(v)
    lines = []
    for (status, op, dtype), found in groups.items():
        first = sorted(found, key=lambda v: v.compared)[:SHOWN]
        lines += [line(v, route if status == "fail" else "") for v in first]
        lines += [f"    {len(found) - SHOWN} more: {op} {dtype} {status}; --json FILE has all"] if len(found) > SHOWN else []
    return lines


def _cell(verdicts: list[Verdict]) -> str:
    """The worst status of an operation in a dtype, the number of cases compared, the largest share of the bound."""
    statuses = Counter(v.status for v in verdicts)
    order = ("error", "fail", "xpass", "xfail", "loose", "pass", "inconclusive", "unsupported", "skip")
    worst = next((s for s in order if statuses[s]), "skip")
    text = _MARKS.get(worst, worst)
    compared = [v for v in verdicts if v.status in ("pass", "loose")]
    if worst in ("pass", "loose"):
        text += f" {len(compared)} ({max(v.times_bound for v in compared):.2g})"
    if worst in ("pass", "loose") and statuses["inconclusive"]:
        text += f", {statuses['inconclusive']} inconclusive"
    if worst in ("fail", "error") and all(v.suspects for v in verdicts if v.status in ("fail", "error")):
        text += " (suspect)"
    return text


def markdown(report: Report) -> str:
    """A table of operations by dtypes; in brackets the largest error in units of the bound."""
    dtypes = list(dict.fromkeys(v.dtype for v in report.verdicts))
    rows = [["operation", *dtypes]]
    for op in dict.fromkeys(v.op for v in report.verdicts):
        rows.append([op, *(_cell([v for v in report.verdicts if (v.op, v.dtype) == (op, d)]) for d in dtypes)])
    widths = [max(len(row[i]) for row in rows) for i in range(len(dtypes) + 1)]
    padded = ["| " + " | ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) + " |" for row in rows]
    return "\n".join([padded[0], "|" + "|".join("-" * (w + 2) for w in widths) + "|", *padded[1:]])


def _plain(value):
    """JSON has no infinity and no NaN: they become text."""
    return repr(value) if isinstance(value, float) and not np.isfinite(value) else value


def to_json(report: Report) -> str:
    """The report as JSON; the schema's name and version come first."""
    rows = [{k: _plain(v) for k, v in asdict(verdict).items()} for verdict in report.verdicts]
    about = {"backend": report.backend, "backend_version": report.version, "repeat": report.route, "judged_with": report.about}
    head = {"schema": REPORT_SCHEMA, "schema_version": REPORT_VERSION, "pcmref_version": pcmref.__version__}
    found = {"not_judged": [list(where) for where in not_judged(report.verdicts)], "top1": top1(report.verdicts)}
    return json.dumps(head | about | found | {"verdicts": rows}, indent=1, allow_nan=False) + "\n"


# ---------------------------------------------------------------------------------------------------- expected failures


def expect_failures(verdicts: list[Verdict], path) -> list[Verdict]:
    """Failures that a TOML file expects become xfail, passes it expects to fail xpass.

    FileError for a file that is not as described above; SettingError for an entry that has expired or matches nothing.
    """
    entries = _entries(path)
    used = [False] * len(entries)
    marked = []
    for verdict in verdicts:
        for i, entry in enumerate(entries):
            name = verdict.case.rsplit("/", 1)[1]
            if (entry["op"], entry.get("case", name), entry.get("dtype", verdict.dtype)) == (verdict.op, name, verdict.dtype):
                used[i] |= verdict.status not in ("unsupported", "skip")
                if verdict.status in ("fail", "error"):
                    verdict = replace(verdict, status="xfail", message=f"{verdict.message}; expected: {entry['reason']}")
                elif verdict.status in ("pass", "loose"):
                    verdict = replace(verdict, status="xpass", message=f"expected to fail: {entry['reason']}")
        marked.append(verdict)
    idle = [entry for entry, was_used in zip(entries, used, strict=True) if not was_used]
    if idle:
        raise SettingError(f"{path}: the entry {idle[0]} matches nothing that was checked; remove it")
    return marked


def _entries(path) -> list[dict]:
    table = store.read_toml(path)
    entries, needed = table.get("xfail"), {"op", "reason", "issue", "expires"}
    if table.keys() != {"xfail"} or not isinstance(entries, list) or not entries:
        found = f"found {sorted(table)}; without any, leave out --xfail"
        raise FileError(f"{path}: only [[xfail]] tables are known, and at least one is needed; {found}")
    for entry in entries:
        texts = isinstance(entry, dict) and all(isinstance(v, str) for v in entry.values())
        if not texts or not needed <= entry.keys() <= needed | {"case", "dtype"}:
            raise FileError(f"{path}: each [[xfail]] needs the texts {sorted(needed)}, may have case and dtype; got {entry!r}")
        if entry["op"] not in OPS or entry.get("dtype", DTYPES[0]) not in DTYPES:
            raise FileError(f"{path}: unknown operation or dtype in {entry!r}")
        try:
            expires, now = ([int(part) for part in version.split(".")] for version in (entry["expires"], pcmref.__version__))
        except ValueError as error:
            raise FileError(f"{path}: expires must be a version such as 0.3, got {entry['expires']!r}") from error
        if expires <= now:
            raise SettingError(f"{path}: the entry for {entry['op']} expired with version {entry['expires']}; look at it again")
    return entries
