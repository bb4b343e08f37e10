"""Vectors as JSON: nothing is lost, what comes back is judged, and what is hostile is refused."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pcmref import cli, json_files
from pcmref.cli import golden as golden_command
from pcmref.errors import FileError
from pcmref.golden import Capabilities, Recorded, Reference, check, design, file, json_vectors
from pcmref.golden.check import in_dtype
from pcmref.golden.json_vectors import hexadecimal

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


def decoded(array) -> np.ndarray:
    """An array of a file, by float.fromhex and int alone."""
    number = float.fromhex if array["dtype"] == "float64" else int
    return np.array([number(v) for v in array["data"]], array["dtype"]).reshape(array["shape"])


def test_what_is_written_is_all_that_the_golden_file_holds_to_the_bit(folder):
    for g in GOLDEN:
        written = json.loads((folder / f"{g.case.op}.json").read_text(encoding="utf-8"))["cases"][g.case.key]
        about, groups = file.pack(g)
        assert (written["why"], written["level"]) == (about["why"], about["level"])
        params = {k: str(v) if k == "seed" else v for k, v in about["params"].items()}
        assert written["params"] == json.loads(json.dumps(params))
        for name, how in about["outputs"].items():
            found = written["outputs"][name]
            assert how == {k: float.fromhex(v) if k in ("u_max", "low", "high") else v for k, v in found.items()}
        for group, named in groups.items():
            assert written.get(group, {}).keys() == named.keys()
            for name, array in named.items():
                new = decoded(written[group][name])
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
    written = json.loads((tmp_path / "linear.json").read_text())["cases"]["linear/v1/plain"]
    assert written["dtype"] == "float32" and decoded(written["inputs"]["b"]).tobytes() == case.inputs["b"].tobytes()
    file.write(tmp_path / "x.h5", [one])
    again = file.read(tmp_path / "x.h5")[0].case
    assert again.dtype == "float32" and again.inputs["b"].tobytes() == case.inputs["b"].tobytes()
    for dtype, statuses in (("float64", []), ("float32", ["fail"])):
        results = Recorded("r", {"linear/v1/plain/y": np.zeros((3, 4), dtype)}, Capabilities(dtypes=(dtype,)))
        assert [v.status for v in check(results, [one], [dtype], related=())] == statuses
    file.write(tmp_path / "x.h5", [replace(one, case=replace(case, dtype="float8"))])
    with pytest.raises(FileError, match="'float8' is no dtype"):
        file.read(tmp_path / "x.h5")


def test_each_case_says_what_it_is_for(folder):
    for path in folder.glob("*.json"):
        content = json.loads(path.read_text(encoding="utf-8"))
        for case in content["cases"].values():
            assert set(case["mistakes"]) <= content["mistakes"].keys() and case["why"]
        assert content["equation"]


RESULTS = {
    "schema": "pcmref-golden-results",
    "schema_version": 1,
    "results": {"linear/v1/plain/y": {"shape": [1], "data": ["0x1p+0"]}},
}
Y = ("results", "linear/v1/plain/y")


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


@pytest.mark.parametrize(
    ("way", "new", "message"),
    [
        (("schema",), "other", '"schema": "pcmref-golden-results", "schema_version": 1'),
        (("schema_version",), 2, '"schema_version": 1'),
        (("results",), None, "'results' must be"),
        (("results",), [], "'results' must be"),
        (Y, "0x1p+0", "'linear/v1/plain/y': must be a list"),
        (Y, 3, "must be a list"),
        ((*Y, "shape"), None, "must be a list"),
        ((*Y, "extra"), [], "must be a list"),
        ((*Y, "shape"), [2], "shape .2. is none, or not that of 1 elements"),
        ((*Y, "shape"), [-1], "shape .-1."),
        ((*Y, "shape"), [True], "shape .True."),
        ((*Y, "shape"), [1] * 9, "shape"),
        ((*Y, "shape"), [4_294_967_296] * 8, "shape"),
        ((*Y, "data"), [None], "a number must be one of JSON's or such text as 0x1.8p.1, nan, inf or 12; got None"),
        ((*Y, "data"), ["one"], "got 'one'"),
        ((*Y, "data"), ["0.5"], "got '0.5'"),
        ((*Y, "data"), ["0x1p+9999"], "too large"),
        ((*Y, "data"), [2**64], "too (large|big)|out of bounds"),
        ((*Y, "data"), [[1]], "got .1."),
        (Y, [True], "got True"),
    ],
)
def test_results_that_make_no_sense_are_refused(tmp_path, way, new, message):
    path = tmp_path / "x.json"
    path.write_text(json.dumps(changed(RESULTS, way, new)))
    with pytest.raises(FileError, match=rf"x\.json: .*{message}"):
        json_vectors.read_results(path)


def test_numbers_of_results_are_what_is_written(tmp_path):
    for data, wanted in (
        (
            ["0x1.8p+1", "-0x0p+0", "inf", "-inf", "-nan", "12", 0.1, 3],
            [3.0, -0.0, math.inf, -math.inf, math.nan, 12.0, 0.1, 3.0],
        ),
        (["18446744073709551615", 2], np.array([2**64 - 1, 2], np.uint64)),
        ([-3, "-9223372036854775808"], np.array([-3, -(2**63)])),
        ([1e300, 5e-324], [1e300, 5e-324]),
    ):
        (tmp_path / "x.json").write_text(json.dumps(RESULTS | {"results": {"linear/v1/plain/y": data}}))
        found = json_vectors.read_results(tmp_path / "x.json")["linear/v1/plain/y"]
        wanted = np.asarray(wanted)
        assert found.dtype == wanted.dtype and np.array_equal(found, wanted, equal_nan=found.dtype.kind == "f")
        assert found.dtype.kind != "f" or (np.signbit(found) == np.signbit(wanted))[~np.isnan(wanted)].all()


HOSTILE = [
    (b"[" * 100_000, "levels"),
    (b"[" + b"[]," * 2_000_000 + b"[]]", "2000000 values"),
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
    with pytest.raises(FileError, match=rf"x\.json: .*{message}"):
        json_vectors.read_results(path)


def test_a_file_too_large_is_not_parsed(tmp_path):
    path = tmp_path / "x.json"
    path.write_bytes(b" " * 1001)
    with pytest.raises(FileError, match="over 1000 bytes"):
        json_files.read(path, 1000)
    path.write_bytes(b" " * 999 + b"1")
    assert json_files.read(path, 1000) == 1


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


def test_results_come_back_as_json(tmp_path, capsys):
    results, path = computed(some()), tmp_path / "r.json"
    for number in (hexadecimal, float):
        for flat in (True, False):
            assert run("verify", as_json(path, results, number, flat)) == 0
    wrong = results | {"linear/v1/plain/y": results["linear/v1/plain/y"] * (1 + 1e-13)}
    assert run("verify", as_json(path, wrong)) == 1
    assert "FAIL linear/v1/plain float64" in capsys.readouterr().out
    assert run("verify", as_json(path, {"linear/v1/none/y": np.ones(2)})) == 2
    assert "r.json: no case is called 'linear/v1/none'" in capsys.readouterr().err
    assert run("verify", as_json(path, {"linear/v1/plain/z": np.ones((3, 4))})) == 1
    assert "outputs ['y'] wanted, got ['z']" in capsys.readouterr().out
    assert run("verify", as_json(path, {"linear/v1/plain/y": np.ones((3, 5))})) == 1
    assert run("verify", as_json(path, {"linear/v1/plain/y": np.array([math.nan] * 12)})) == 1


def test_results_that_were_not_sent_are_missing(tmp_path):
    results = computed([g for g in GOLDEN if g.case.op == "linear" and g.case.level == 1])
    path = as_json(tmp_path / "r.json", results)
    assert run("verify", path, "--op", "linear", "--strict") == 0 == run("verify", path, "--strict")
    assert run("verify", path, "--op", "linear", "--level", "2", "--strict") == 1
    results.popitem()
    assert run("verify", as_json(path, results), "--op", "linear") == 0
    assert run("verify", as_json(path, results), "--op", "linear", "--strict") == 1


def test_results_in_float32_must_be_float32(tmp_path):
    batch_norm = [g for g in GOLDEN if g.case.key == "batch_norm/v1/plain"]
    path = as_json(tmp_path / "r.json", computed(batch_norm, "float32"))
    assert run("verify", path, "--dtype", "float32") == 0
    assert run("verify", path, "--dtype", "float64") == 1
    path = as_json(tmp_path / "r.json", {k: v + 1e-12 for k, v in computed(batch_norm).items()})
    assert run("verify", path, "--dtype", "float32") == 1


def test_flat_arrays_come_back_in_their_shape(tmp_path):
    results = computed([g for g in GOLDEN if g.case.key == "linear/v1/plain"])
    np.savez(tmp_path / "r.npz", **{k: v.ravel() for k, v in results.items()})
    assert run("verify", tmp_path / "r.npz") == 0
    np.savez(tmp_path / "r.npz", **{k: v.T.ravel() for k, v in results.items()})
    assert run("verify", tmp_path / "r.npz") == 1


def test_the_name_of_a_request_says_what_is_written(tmp_path, capsys):
    for name in ("request.npz", "request.json", "request"):
        assert run("write", tmp_path / name, "--op", "relu") == 2 and not (tmp_path / name).exists()
        assert "--json FOLDER" in capsys.readouterr().err
    assert run("write", "--op", "relu") == 2 and run("write", tmp_path / "a.h5", "--json", tmp_path / "b", "--op", "relu") == 2


def test_a_folder_of_other_json_is_left_alone(tmp_path, capsys):
    assert run("write", "--json", tmp_path / "q", "--op", "relu") == 0 == run("write", "--json", tmp_path / "q", "--op", "relu")
    assert run("write", "--json", tmp_path / "q", "--op", "linear") == 2
    assert "relu.json" in capsys.readouterr().err and not (tmp_path / "q" / "linear.json").exists()
    assert run("verify", tmp_path / "r.json") == 2


def test_generated_cases_of_a_dtype_are_written_and_judged_too(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(golden_command, "MOST_NUMBERS", 1000)
    ops = ("--op", "linear", "--op", "drift")
    assert run("write", "--json", tmp_path / "q", *ops, "--dtype", "float32") == 0
    assert "left out, as they hold over 1,000 numbers: " in capsys.readouterr().out
    written = [json.loads((tmp_path / "q" / f"{op}.json").read_text())["cases"] for op in ("linear", "drift")]
    keys = [key for cases in written for key, case in cases.items() if "dtype" in case]
    assert len(keys) > 6 and {key.split("/")[0] for key in keys} == {"linear", "drift"}
    assert {"inputs-cut", "tail-of-a-vector"} <= {m for cases in written for case in cases.values() for m in case["mistakes"]}
    generated = [design.golden(key, Capabilities(dtypes=("float32",))) for key in written[0] if "cover" in key]
    right = computed([*generated, *(g for g in GOLDEN if g.case.key in written[0])], "float32")
    assert right.keys() == {f"{key}/y" for key in written[0]}
    path = as_json(tmp_path / "r.json", right)
    assert run("verify", path, "--dtype", "float32") == 0
    cut = {k: (v * np.float32(1 - 2.0**-11)).astype(np.float32) for k, v in right.items() if "cover" in k}
    assert run("verify", as_json(path, cut), "--dtype", "float32", "--case", next(iter(cut)).rpartition("/")[0]) == 1
    assert run("verify", as_json(path, cut), "--dtype", "float32", "--case", "linear/v1/plain") == 2
    assert run("write", tmp_path / "one.h5", "--case", "linear/v1/cover-float32-3", "--dtype", "float32") == 0
    assert [g.case.key for g in file.read(tmp_path / "one.h5")] == ["linear/v1/cover-float32-3"]
