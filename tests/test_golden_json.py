"""Vectors as JSON: nothing is lost, the schemas hold, what comes back is judged, and what is hostile is refused."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pcmref import cli, json_files
from pcmref.cli import golden as golden_command
from pcmref.errors import FileError
from pcmref.golden import Capabilities, Reference, check_results, file, json_vectors
from pcmref.golden.check import in_dtype
from pcmref.golden.json_vectors import hexadecimal, schema
from pcmref.golden.mistakes import mistakes_of

GOLDEN = file.read()
SOME = (
    "relu_backward/v1/kink",
    "draws/v1/far",
    "program/v1/law",
    "linear/v1/plain",
    "dac/v1/round_first",
    "softmax_cross_entropy/v1/equal",
)


def some() -> list:
    return [g for g in GOLDEN if g.case.key in SOME]


def run(*arguments) -> int:
    return cli.main(["golden", *map(str, arguments)])


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("vectors")
    json_vectors.write(path, GOLDEN)
    return path


# --------------------------------------------------------------------------------------------------------- the files


def test_what_is_written_is_read_again_to_the_bit(folder):
    again = {g.case.key: g for g in json_vectors.read(folder)}
    assert again.keys() == {g.case.key for g in GOLDEN}
    for g in GOLDEN:
        (about, groups), (old_about, old_groups) = file.pack(again[g.case.key]), file.pack(g)
        assert about == old_about and groups.keys() == old_groups.keys()
        for group, named in old_groups.items():
            for name, array in named.items():
                new = groups[group][name]
                assert (new.dtype, new.shape, new.tobytes()) == (array.dtype, array.shape, array.tobytes()), (g.case.key, name)


def test_numbers_are_as_c_and_javascript_can_read_them(folder):
    values = (1.0, 0.1, -0.0, 3.0, 5e-324, 1.7976931348623157e308, math.inf, -math.inf)
    wanted = [
        "0x1p+0",
        "0x1.999999999999ap-4",
        "-0x0p+0",
        "0x1.8p+1",
        "0x0.0000000000001p-1022",
        "0x1.fffffffffffffp+1023",
        "inf",
        "-inf",
    ]
    assert [hexadecimal(v) for v in values] == wanted and hexadecimal(math.nan) == "nan"
    draws = json.loads((folder / "draws.json").read_text(encoding="utf-8"))["cases"]["draws/v1/far"]
    assert draws["params"]["seed"] == str(-(2**70)) and draws["params"]["name"] == "größe"
    assert all(isinstance(v, str) for v in draws["expected"]["raw"]["data"])
    relu = json.loads((folder / "relu.json").read_text())["cases"]["relu/v1/kink"]["inputs"]["x"]["data"]
    assert relu[:2] == ["0x0p+0", "-0x0p+0"]


def test_a_case_for_one_dtype_stays_one(tmp_path):
    linear = next(g for g in GOLDEN if g.case.key == "linear/v1/plain")
    case = replace(linear.case, dtype="float32", inputs=linear.case.inputs | {"b": np.float64(np.float32([0.1] * 4))})
    one = replace(linear, case=case)
    json_vectors.write(tmp_path, [one])
    file.write(tmp_path / "x.h5", [one])
    for path in (tmp_path, tmp_path / "x.h5"):
        again = json_vectors.read(path)[0].case
        assert again.dtype == "float32" and again.inputs["b"].tobytes() == case.inputs["b"].tobytes()
    results = {"linear/v1/plain/y": np.zeros((3, 4))}
    assert check_results(results, [one], Capabilities(), "float64") == []
    narrow = {"linear/v1/plain/y": np.zeros((3, 4), np.float32)}
    assert check_results(narrow, [one], Capabilities(dtypes=("float32",)), "float32")[0].status == "fail"
    file.write(tmp_path / "x.h5", [replace(one, case=replace(case, dtype="float8"))])
    with pytest.raises(FileError, match="'float8' is no dtype"):
        file.read(tmp_path / "x.h5")


def test_each_case_says_what_it_is_for(folder):
    for path in folder.glob("*.json"):
        content = json.loads(path.read_text(encoding="utf-8"))
        for case in content.get("cases", {}).values():
            assert set(case["mistakes"]) <= content["mistakes"].keys() and case["why"]
        assert path.name.endswith(".schema.json") or content["equation"]


RELU = "relu_backward/v1/kink"
RESULTS = {
    "schema": "pcmref-golden-results",
    "schema_version": 1,
    "results": {"linear/v1/plain/y": {"shape": [1], "data": ["0x1p+0"]}},
}


def changed(content, way, new):
    """A copy of a JSON value with another entry at the end of the way; None takes it out."""
    content = json.loads(json.dumps(content))
    at = content
    for step in way[:-1]:
        at = at[step]
    if new is None:
        del at[way[-1]]
    else:
        at[way[-1]] = new
    return content


DY = ("cases", RELU, "inputs", "dy")
BROKEN = [
    ("vectors", ("schema",), "other"),
    ("vectors", ("schema_version",), 2),
    ("vectors", ("cases",), None),
    ("vectors", ("cases",), []),
    ("vectors", ("extra",), 1),
    ("vectors", ("cases", RELU, "why"), 3),
    ("vectors", ("cases", RELU, "level"), 0),
    ("vectors", ("cases", RELU, "level"), True),
    ("vectors", (*DY, "dtype"), "object"),
    ("vectors", (*DY, "shape"), [-1]),
    ("vectors", (*DY, "shape"), [1] * 9),
    ("vectors", (*DY, "data", 0), "0x1.8"),
    ("vectors", (*DY, "data", 0), 0.5),
    ("vectors", (*DY, "data", 0), {}),
    ("vectors", ("cases", RELU, "outputs", "dx", "compare"), "roughly"),
    ("results", ("results",), None),
    ("results", ("results", "linear/v1/plain/y"), "0x1p+0"),
    ("results", ("results", "linear/v1/plain/y", "shape"), None),
    ("results", ("results", "linear/v1/plain/y", "data"), [None]),
    ("results", ("results", "linear/v1/plain/y", "data"), ["one"]),
    ("results", ("results", "linear/v1/plain/y"), [True]),
]


def sound(folder, name):
    return RESULTS if name == "results" else json.loads((folder / "relu_backward.json").read_text())


@pytest.mark.parametrize(("name", "way", "new"), BROKEN)
def test_what_does_not_fit_its_schema_is_refused(tmp_path, folder, name, way, new):
    path = tmp_path / "x.json"
    path.write_text(json.dumps(changed(sound(folder, name), way, new)))
    with pytest.raises(FileError, match=r"x\.json: .*(must|missing|not known|at most)"):
        json_vectors.read(path) if name == "vectors" else json_vectors.read_results(path, GOLDEN, "float64")


def test_the_schemas_mean_to_others_what_they_mean_here(folder):
    jsonschema = pytest.importorskip("jsonschema")
    check = {name: jsonschema.Draft202012Validator(schema(name)) for name in ("vectors", "results")}
    for one in check.values():
        one.check_schema(one.schema)
    for path in folder.glob("*.json"):
        if not path.name.endswith(".schema.json"):
            check["vectors"].validate(json.loads(path.read_text(encoding="utf-8")))
    check["results"].validate(RESULTS)
    for name, way, new in BROKEN:
        assert not check[name].is_valid(changed(sound(folder, name), way, new)), (way, new)


HOSTILE = [
    (b"[" * 100_000, "levels"),
    (b"[" + b"[]," * 2_000_000 + b"[]]", "over 2000000 values"),
    (b'{"a": 1, "a": 2}', "twice"),
    (b'{"schema": NaN}', "NaN is no JSON"),
    (b'{"schema": ' + b"1" * 10_000 + b"}", "JSON"),
    (b"\xff\xfe", "JSON"),
    (b'"' + b"\\" * 1_000_001, "JSON"),
    (b'"' + b'\\"' * 1_000_000, "JSON"),
    (b"{" + b'"a":1,' * 500_000 + b'"a":1}', "twice"),
    (b'{"schema": "pcmref-golden-json', "JSON"),
    (b"", "JSON"),
]


@pytest.mark.parametrize(("content", "message"), HOSTILE)
def test_hostile_bytes_are_refused(tmp_path, content, message):
    path = tmp_path / "x.json"
    path.write_bytes(content)
    for read in (json_vectors.read, lambda p: json_vectors.read_results(p, GOLDEN, "float64")):
        with pytest.raises(FileError, match=rf"x\.json: .*{message}"):
            read(path)


def test_a_file_too_large_is_not_parsed(tmp_path):
    path = tmp_path / "x.json"
    path.write_bytes(b" " * 1001)
    with pytest.raises(FileError, match="over 1000 bytes"):
        json_files.read(path, {}, 1000)
    path.write_bytes(b" " * 999 + b"1")
    assert json_files.read(path, {}, 1000) == 1


@pytest.mark.parametrize(
    ("way", "new", "message"),
    [
        ((*DY, "shape"), [7], "elements"),
        ((*DY, "shape"), [4_294_967_296] * 8, "elements"),
        ((*DY, "data", 0), "10", "neither hexadecimal"),
        ((*DY, "data", 0), "0x1p+9999", "must be numbers"),
        (("cases", RELU, "inputs", "x"), None, "'x' is missing"),
        (("cases", RELU, "scale"), {}, None),
        (("operation",), "relu", "no case of relu"),
        (("cases", RELU, "outputs", "dx"), {"compare": "bound"}, "incomplete or misshapen"),
    ],
)
def test_cases_that_make_no_sense_are_refused(tmp_path, folder, way, new, message):
    path = tmp_path / "x.json"
    path.write_text(json.dumps(changed(sound(folder, "vectors"), way, new)))
    if message is None:
        assert len(json_vectors.read(path)) == 1
        return
    with pytest.raises(FileError, match=rf"x\.json: .*{message}"):
        json_vectors.read(path)


# -------------------------------------------------------------------------------------------------- the command line


def computed(golden, dtype="float64") -> dict[str, np.ndarray]:
    found = {}
    for g in golden:
        if g.law is None:
            out = Reference().run(g.case.op, 1, in_dtype(g.case.inputs, dtype), in_dtype(g.case.noise, dtype), g.case.params)
            found |= {f"{g.case.key}/{name}": np.asarray(value) for name, value in out.items()}
    return found


def as_json(path, results, number=hexadecimal, flat=True) -> Path:
    def of(array):
        data = [number(v) if array.dtype.kind == "f" else str(v) for v in array.ravel().tolist()]
        return data if flat else {"shape": list(array.shape), "data": data}

    path.write_text(json.dumps(RESULTS | {"results": {key: of(array) for key, array in results.items()}}))
    return path


@pytest.mark.parametrize("request_name", ["request", "request.h5"])
def test_results_come_back_as_json(tmp_path, request_name, capsys):
    chosen = [word for key in SOME for word in ("--case", key)]
    request = tmp_path / request_name
    assert run("write", *(("--json",) if request.suffix == "" else ()), request, *chosen) == 0
    results, path = computed(some()), tmp_path / "r.json"
    for number in (hexadecimal, float):
        for flat in (True, False):
            assert run("verify", request, as_json(path, results, number, flat)) == 0
    wrong = results | {"linear/v1/plain/y": results["linear/v1/plain/y"] * (1 + 1e-13)}
    assert run("verify", request, as_json(path, wrong)) == 1
    assert "linear/v1/plain" in capsys.readouterr().out
    assert run("verify", request, as_json(path, {"linear/v1/none/y": np.ones(2)})) == 2
    assert "r.json: results: the request holds no 'linear/v1/none/y'" in capsys.readouterr().err
    assert run("verify", request, as_json(path, {"linear/v1/plain/y": np.ones((3, 5))})) == 1
    assert run("verify", request, as_json(path, {"linear/v1/plain/y": np.array([math.nan] * 12)})) == 1


def test_results_in_float32_must_be_float32(tmp_path):
    batch_norm = [g for g in GOLDEN if g.case.key == "batch_norm/v1/plain"]
    assert run("write", "--json", tmp_path / "q", "--case", "batch_norm/v1/plain") == 0
    path = as_json(tmp_path / "r.json", computed(batch_norm, "float32"))
    assert run("verify", tmp_path / "q", path, "--dtype", "float32") == 0
    assert run("verify", tmp_path / "q" / "batch_norm.json", path, "--dtype", "float64") == 1
    path = as_json(tmp_path / "r.json", {k: v + 1e-12 for k, v in computed(batch_norm).items()})
    assert run("verify", tmp_path / "q", path, "--dtype", "float32") == 1


def test_flat_arrays_come_back_in_their_shape(tmp_path):
    assert run("write", tmp_path / "q.h5", "--case", "linear/v1/plain", "--case", "program/v1/law") == 0
    results = computed([g for g in GOLDEN if g.case.key == "linear/v1/plain"])
    np.savez(tmp_path / "r.npz", **{k: v.ravel() for k, v in results.items()})
    assert run("verify", tmp_path / "q.h5", tmp_path / "r.npz") == 0
    np.savez(tmp_path / "r.npz", **{k: v.T.ravel() for k, v in results.items()})
    assert run("verify", tmp_path / "q.h5", tmp_path / "r.npz") == 1
    golden = [g for g in GOLDEN if g.case.key == "program/v1/law"]
    shaped = json_vectors.shaped({"program/v1/law/g_prog_us": np.zeros(12)}, golden)
    assert shaped["program/v1/law/g_prog_us"].shape == (2, 6)


def test_the_name_of_a_request_says_what_is_written(tmp_path, capsys):
    for name in ("request.npz", "request.json", "request"):
        assert run("write", tmp_path / name, "--op", "relu") == 2 and not (tmp_path / name).exists()
        assert "--json FOLDER" in capsys.readouterr().err
    assert run("write", "--op", "relu") == 2 and run("write", tmp_path / "a.h5", "--json", tmp_path / "b", "--op", "relu") == 2


def test_a_folder_of_other_json_is_left_alone(tmp_path, capsys):
    assert run("write", "--json", tmp_path / "q", "--op", "relu") == 0 == run("write", "--json", tmp_path / "q", "--op", "relu")
    assert run("write", "--json", tmp_path / "q", "--op", "linear") == 2
    assert "relu.json" in capsys.readouterr().err and not (tmp_path / "q" / "linear.json").exists()
    (tmp_path / "empty").mkdir()
    assert run("verify", tmp_path / "empty", tmp_path / "r.json") == 2


@pytest.mark.parametrize("limit", ["MAX_BYTES", "MAX_VALUES"])
def test_what_could_not_be_read_again_is_not_written(tmp_path, monkeypatch, limit):
    monkeypatch.setattr(json_files, limit, 1000)
    with pytest.raises(FileError, match="choose fewer cases"):
        json_vectors.write(tmp_path / "q", GOLDEN)
    assert not (tmp_path / "q").exists()


def test_generated_cases_of_a_dtype_are_written_and_judged_too(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(golden_command, "MOST_NUMBERS", 1000)
    ops = ("--op", "linear", "--op", "drift")
    assert run("write", "--json", tmp_path / "q", *ops, "--dtype", "float32") == 0
    assert "left out, as they hold over 1,000 numbers: " in capsys.readouterr().out
    golden = json_vectors.read(tmp_path / "q")
    generated = [g for g in golden if g.case.dtype]
    assert len(generated) > 6 and {g.case.op for g in generated} == {"linear", "drift"}
    assert {"inputs-cut", "tail-of-a-vector"} <= {m for g in generated for m in mistakes_of(g.case)}
    path = as_json(tmp_path / "r.json", computed([g for g in golden if g.case.op == "linear"], "float32"))
    assert run("verify", tmp_path / "q", path, "--dtype", "float32") == 0
    right = computed([g for g in generated if g.case.op == "linear"], "float32")
    cut = {k: (v * np.float32(1 - 2.0**-11)).astype(np.float32) for k, v in right.items()}
    assert run("verify", tmp_path / "q", as_json(path, cut), "--dtype", "float32") == 1
    assert run("write", tmp_path / "one.h5", "--case", "linear/v1/cover-float32-3", "--dtype", "float32") == 0
    assert [g.case.key for g in file.read(tmp_path / "one.h5")] == ["linear/v1/cover-float32-3"]
