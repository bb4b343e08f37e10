"""Golden vectors as JSON, for any language: one file an operation, and results that come back in the same notation.

A file holds what the golden file holds (`file.pack`), the equation, and for each case the named mistakes that it notices.
Floats are text as C writes them with %a, integers above 2^53 and seeds are text too.
"""

import json
import re
import reprlib
from math import prod
from pathlib import Path

import numpy as np

import pcmref
from pcmref import json_files, store
from pcmref.errors import FileError
from pcmref.golden import file
from pcmref.golden.mistakes import MISTAKES, mistakes_of
from pcmref.golden.ops import OPS, TABLES
from pcmref.golden.verify import Golden

RESULTS = {"schema": "pcmref-golden-results", "schema_version": 1}  # what a file of results says of itself
_SAFE = 2**53  # integers up to it are a float64, and so a number of JavaScript's
_NUMBER = re.compile(r"-?0x[0-9a-f](\.[0-9a-f]{1,28})?p[+-]?[0-9]{1,5}|-?nan|-?inf(inity)?|-?[0-9]{1,20}")


def write(folder, golden: list[Golden]) -> list[Path]:
    """Write cases to a folder (made if it is not there), a file an operation, each atomically; the files.

    FileError where the folder holds other JSON, which would be taken for a part of this; GoldenError for an unfit case.
    """
    folder = Path(folder)
    texts = {f"{op}.json": _text(_content(op, [g for g in golden if g.case.op == op])) for op in {g.case.op: 0 for g in golden}}
    others = sorted(path.name for path in folder.glob("*.json") if path.name not in texts)
    if others:
        raise FileError(f"{folder}: holds {others[0]}, which is no part of this; write to an empty folder")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FileError(f"{folder}: cannot be made: {error.strerror}") from error
    for name, text in texts.items():
        store.write_text(folder / name, text + "\n")
    return [folder / name for name in texts]


def _content(name: str, golden: list[Golden]) -> dict:
    op, cases = OPS[name], {g.case.key: _case(g) for g in golden}
    named = {mistake for case in cases.values() for mistake in case["mistakes"]}
    tables = {table: {k: {"dimensions": a.dims, "unit": a.unit} for k, a in getattr(op, table).items()} for table in TABLES}
    head = {"schema": "pcmref-golden-json", "schema_version": 1, "pcmref_version": pcmref.__version__, "operation": name}
    about = {"equation": op.equation.strip().splitlines(), "source": list(op.source)}
    mistakes = {k: {what: getattr(m, what) for what in ("kind", "effect", "hits")} for k, m in MISTAKES.items() if k in named}
    about |= {"dtypes": list(op.dtypes), "params": list(op.params), **tables, "mistakes": mistakes}
    return head | about | {"cases": cases}


def _case(golden: Golden) -> dict:
    about, groups = file.pack(golden)
    about["params"] = {k: str(v) if k == "seed" else v for k, v in about["params"].items()}
    for how in about["outputs"].values():
        how |= {k: hexadecimal(v) for k, v in how.items() if isinstance(v, float)}
    arrays = {group: {name: listed(array) for name, array in named.items()} for group, named in groups.items() if named}
    return about | {"mistakes": mistakes_of(golden)} | arrays


def hexadecimal(value: float) -> str:
    """A float64 as C writes it with %a: "0x1.8p+1", "-0x0p+0", "nan", "inf"."""
    return re.sub(r"\.?0*p", "p", float(value).hex(), count=1)


def listed(array) -> dict:
    """An array as its dtype, shape and flat data in C order."""
    array, data = np.asarray(array), np.ravel(array).tolist()
    if array.dtype.kind == "f":
        return {"dtype": "float64", "shape": list(array.shape), "data": [hexadecimal(v) for v in data]}
    if any(abs(v) > _SAFE for v in data):
        data = [str(v) for v in data]
    return {"dtype": "uint64" if array.dtype.kind == "u" else "int64", "shape": list(array.shape), "data": data}


def _text(value, margin: str = "\n") -> str:
    """JSON, an object or list of others an entry a line, data on one."""
    inner = margin + " "
    if isinstance(value, dict) and any(isinstance(v, (dict, list)) for v in value.values()):
        return "{" + ",".join(f"{inner}{json.dumps(k)}: {_text(v, inner)}" for k, v in value.items()) + margin + "}"
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


# ------------------------------------------------------------------------------------------------------------ results


def read_results(path) -> dict[str, np.ndarray]:
    """The arrays of a JSON file of results by op/vN/case/output, flat where no shape is given; FileError."""
    content = json_files.read(path)
    if not isinstance(content, dict) or any(content.get(k) != v for k, v in RESULTS.items()):
        raise FileError(f'{path}: must be an object with {json.dumps(RESULTS)[1:-1]} and "results": {{...}}')
    if not isinstance(content.get("results"), dict):
        raise FileError(f"{path}: 'results' must be an object of arrays by op/vN/case/output")
    return {key: _array(f"{path}: results: {key!r}", entry) for key, entry in content["results"].items()}


def _array(where: str, entry) -> np.ndarray:
    """The array of a list, or of an object with shape and data: integers where all are, float64 otherwise; FileError."""
    entry = {"shape": [len(entry)], "data": entry} if isinstance(entry, list) else entry
    if not isinstance(entry, dict) or entry.keys() != {"shape", "data"} or not all(isinstance(v, list) for v in entry.values()):
        raise FileError(f"{where}: must be a list, or an object of the lists 'shape' and 'data'")
    shape, data = entry["shape"], entry["data"]
    if len(shape) > 8 or not all(type(n) is int and n >= 0 for n in shape) or prod(shape) != len(data):
        raise FileError(f"{where}: shape {reprlib.repr(shape)} is none, or not that of {len(data)} elements")
    try:
        numbers = [_number(v) for v in data]
        whole = all(type(v) is int for v in numbers)
        return np.array(numbers, (np.int64 if min(numbers, default=0) < 0 else np.uint64) if whole else float).reshape(shape)
    except (TypeError, ValueError, OverflowError) as error:
        raise FileError(f"{where}: {error}") from error


def _number(value) -> int | float:
    if isinstance(value, str) and _NUMBER.fullmatch(value):
        return int(value) if value.lstrip("-").isdigit() else float.fromhex(value)
    if type(value) not in (int, float):
        raise ValueError(f"a number must be one of JSON's or such text as 0x1.8p+1, nan, inf or 12; got {reprlib.repr(value)}")
    return value
