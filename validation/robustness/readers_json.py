"""The reader of JSON under attack, as `readers.py` has the others: results that came back."""

import json
from functools import cache
from pathlib import Path

import numpy as np

from pcmref.golden import file, json_vectors
from pcmref.golden.backends import Capabilities
from pcmref.golden.check import Recorded, check
from validation.robustness.readers import GOLDEN_CASES, Reader


@cache
def _golden() -> list:
    return [g for g in file.read() if g.case.key.startswith((*GOLDEN_CASES, "draws/v1/far"))]


@cache
def _results() -> bytes:
    exact = {f"{g.case.key}/{name}": json_vectors.listed(e.value) for g in _golden() for name, e in g.expected.items()}
    results = {key: a["data"] if key < "dac" else {"shape": a["shape"], "data": a["data"]} for key, a in exact.items()}
    return json.dumps({"schema": "pcmref-golden-results", "schema_version": 1, "results": results}).encode()


def _same(array, data) -> None:
    """The numbers of a list are those of the array, by float.fromhex and int alone."""
    data = data["data"] if isinstance(data, dict) else data
    read = [float.fromhex(v) if isinstance(v, str) and not v.lstrip("-").isdigit() else float(v) if array.dtype.kind == "f"
            else v for v in data]  # fmt: skip
    assert len(read) == array.size and all(int(v) == int(w) if array.dtype.kind in "iu" else np.array_equal(v, float(w), True)
                                           for v, w in zip(array.ravel().tolist(), read, strict=True))  # fmt: skip


def _judged(path: Path):
    results = json_vectors.read_results(path)
    return results, check(Recorded(str(path), results, Capabilities()), _golden(), ["float64"], related=())


def _check_judged(path: Path, judged) -> None:
    written = json.loads(path.read_text(encoding="utf-8"))["results"]
    assert written.keys() == judged[0].keys()
    for key, data in written.items():
        _same(judged[0][key], data)
    golden = {g.case.key: g for g in _golden()}
    for verdict in judged[1]:
        for name, e in golden[verdict.case].expected.items() if verdict.status == "pass" else ():
            got = judged[0][f"{verdict.case}/{name}"].ravel()
            assert got.size == e.value.size and np.abs(got - e.value.ravel()).max() <= 1e-12


JSON_READERS = [
    Reader("json results", "json", "x.json", lambda: {"x.json": _results()}, _judged, _check_judged),
]
