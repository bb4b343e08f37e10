"""Golden vectors as JSON, for any language: one file an operation, and results that come back in the same notation.

A file holds what the golden file holds (`file.pack`), the equation, and for each case the named mistakes that it exists for.
Floats are text as C writes them with %a, integers above 2^53 and seeds are text too. The schemas beside this file say the
rest, and what is read has to fit them.
"""

import json
import re
from functools import cache
from math import prod
from pathlib import Path

import numpy as np

import pcmref
from pcmref import json_files, store
from pcmref.errors import FileError
from pcmref.golden import file
from pcmref.golden.bounds import STORAGE
from pcmref.golden.mistakes import MISTAKES, mistakes_of
from pcmref.golden.ops import OPS, TABLES
from pcmref.golden.verify import Golden

HERE = Path(__file__).parent
_SAFE = 2**53  # integers up to it are a float64, and so a number of JavaScript's


@cache
def schema(name: str) -> dict:
    """The schema of "vectors" or "results"."""
    return json.loads((HERE / f"{name}.schema.json").read_text(encoding="utf-8"))


def write(folder, golden: list[Golden]) -> list[Path]:
    """Write cases to a folder (made if it is not there), a file an operation, each atomically, and the schemas; the files.

    FileError where the folder holds other JSON, which would be taken for a part of this; GoldenError for an unfit case.
    """
    folder = Path(folder)
    texts = {f"{op}.json": _text(_content(op, [g for g in golden if g.case.op == op])) for op in {g.case.op: 0 for g in golden}}
    texts |= {f"{name}.schema.json": _text(schema(name)) for name in ("vectors", "results")}
    others = sorted(path.name for path in folder.glob("*.json") if path.name not in texts)
    if others:
        raise FileError(f"{folder}: holds {others[0]}, which is no part of this; write to an empty folder")
    sizes = [len(text.encode()) for text in texts.values()]
    if sum(sizes) > json_files.MAX_BYTES or any(text.count(",") >= json_files.MAX_VALUES for text in texts.values()):
        raise FileError(f"{folder}: would hold {sum(sizes)} bytes, more than is read; choose fewer cases by --op and --case")
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
    mistakes = {k: {what: m[what] for what in ("kind", "effect", "hits")} for k, m in MISTAKES.items() if k in named}
    about |= {"dtypes": list(op.dtypes), "params": list(op.params), **tables, "mistakes": mistakes}
    return head | about | {"cases": cases}


def _case(golden: Golden) -> dict:
    about, groups = file.pack(golden)
    about["params"] = {k: str(v) if k == "seed" else v for k, v in about["params"].items()}
    for how in about["outputs"].values():
        how |= {k: hexadecimal(v) for k, v in how.items() if isinstance(v, float)}
    arrays = {group: {name: listed(array) for name, array in named.items()} for group, named in groups.items() if named}
    return about | {"mistakes": mistakes_of(golden.case)} | arrays


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


# ------------------------------------------------------------------------------------------------------------- reading


def read(path) -> list[Golden]:
    """The cases of a golden file, of a JSON file, or of all JSON files of a folder; FileError where they are anything else."""
    path = Path(path)
    if path.suffix != ".json" and not path.is_dir():
        return file.read(path)
    files = sorted(p for p in path.glob("*.json") if not p.name.endswith(".schema.json")) if path.is_dir() else [path]
    if sum(p.stat().st_size for p in files if p.is_file()) > json_files.MAX_BYTES:
        raise FileError(f"{path}: its files have over {json_files.MAX_BYTES} bytes; choose fewer cases")
    golden: dict[str, Golden] = {}
    for one in files:
        content = json_files.read(one, schema("vectors"))
        for key, about in content["cases"].items():
            if key in golden or key.partition("/")[0] != content["operation"]:
                raise FileError(f"{one}: {key!r} is there twice, or no case of {content['operation']}")
            with file.misshapen(f"{one}: {key!r}"):
                golden[key] = _unpacked(f"{one}: {key!r}", key, about)
    if not golden:
        raise FileError(f"{path}: holds no golden vectors; `pcmref golden write --json FOLDER` writes them")
    return list(golden.values())


def _unpacked(where: str, key: str, about: dict) -> Golden:
    groups = {
        group: {
            name: _array(f"{where}: {group}: {name!r}", entry, entry["dtype"]) for name, entry in about.get(group, {}).items()
        }
        for group in ("inputs", "noise", "expected", "scale", "kink", "location", "spread")
    }
    params = about["params"] | ({"seed": int(about["params"]["seed"])} if "seed" in about["params"] else {})
    outputs = {
        name: {k: float.fromhex(v) if k in ("u_max", "low", "high") else v for k, v in how.items()}
        for name, how in about["outputs"].items()
    }
    return file.unpack(key, about | {"params": params, "outputs": outputs}, groups)


def _array(where: str, entry, dtype) -> np.ndarray:
    """The array of a list, or of an object with shape and data; FileError."""
    data = entry["data"] if isinstance(entry, dict) else entry
    shape = entry["shape"] if isinstance(entry, dict) else [len(data)]
    if prod(shape) != len(data):
        raise FileError(f"{where}: shape {shape} has {prod(shape)} elements, data {len(data)}")
    try:
        if np.dtype(dtype).kind == "f":
            values = [_float(v) if isinstance(v, str) else float(v) for v in data]
        else:
            values = [int(str(v)) for v in data]  # of 3.5 a ValueError
        return np.array(values, dtype).reshape(shape)
    except (ValueError, OverflowError) as error:
        raise FileError(f"{where}: its data must be numbers of {np.dtype(dtype)}: {error}") from error


def _float(text: str) -> float:
    if "x" not in text and "n" not in text:  # 10 would be read as 16
        raise ValueError(f"{text!r} is neither hexadecimal nor nan, inf or -inf")
    return float.fromhex(text)


def read_results(path, golden: list[Golden], dtype: str) -> dict[str, np.ndarray]:
    """The arrays of a JSON file of results by op/vN/case/output, floats in `dtype` where it holds them exactly; FileError."""
    content, wanted, arrays = json_files.read(path, schema("results")), _wanted(golden), {}
    for key, entry in content["results"].items():
        if key not in wanted:
            raise FileError(f"{path}: results: the request holds no {key!r}; names are op/vN/case/output")
        exact = wanted[key].dtype.kind in "iu"
        arrays[key] = array = _array(f"{path}: results: {key!r}", entry, wanted[key].dtype if exact else np.float64)
        if not exact:
            with np.errstate(over="ignore"):
                narrow = array.astype(STORAGE[dtype])
            arrays[key] = narrow if np.array_equal(narrow, array, equal_nan=True) else array
    return arrays


def shaped(results: dict[str, np.ndarray], golden: list[Golden]) -> dict[str, np.ndarray]:
    """Results, those that came as flat lists of the right length in the shape that is wanted (draws: n times it)."""
    wanted = _wanted(golden)
    sampled = {f"{g.case.key}/{name}" for g in golden for name in g.law or ()}

    def of(key, array):
        if key not in wanted or array.ndim != 1:
            return array
        shape, size = wanted[key].shape, wanted[key].size
        if key in sampled:
            return array.reshape(-1, *shape) if len(array) % size == 0 else array
        return array.reshape(shape) if len(array) == size else array

    return {key: of(key, array) for key, array in results.items()}


def _wanted(golden: list[Golden]) -> dict[str, np.ndarray]:
    values = {f"{g.case.key}/{name}": e.value for g in golden for name, e in g.expected.items()}
    return values | {f"{g.case.key}/{name}": law.location for g in golden for name, law in (g.law or {}).items()}
