"""The golden file and its command line: reproducible bytes, hostile files, counterexamples, and the document's examples."""

import hashlib
import json
import re
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from pcmref import cli, store
from pcmref.errors import FileError, SettingError
from pcmref.golden import Reference, file, report
from pcmref.golden.check import check_case, in_dtype
from pcmref.golden.ops import OPS
from pcmref.golden.verify import Verdict
from tests.golden.stored import differing
from tests.helpers import TOP
from tests.helpers.narrow import normal

GOLDEN = file.read()
BY_KEY = {g.case.key: g for g in GOLDEN}
VALIDATION = TOP / "validation"
DOCUMENT = (VALIDATION / "GOLDEN.md").read_text(encoding="utf-8")


def same(a, b) -> bool:
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


def test_a_stored_case_never_changes():
    """New cases come behind those that are there; of these every array, parameter and word is pinned."""
    digest = hashlib.sha256()
    for about, groups in map(file.pack, GOLDEN[:147]):
        digest.update(json.dumps(about, sort_keys=True).encode())
        for group, arrays in sorted(groups.items()):
            for name, array in sorted(arrays.items()):
                digest.update(f"{group}/{name} {array.dtype.str} {array.shape}".encode() + array.tobytes())
    assert {g.case.op for g in GOLDEN} == set(
        OPS
    ) and digest.hexdigest() == "1dd47ba98d97230e258c2132bd70946c67510b1e719fae3a7a5a247d326a994d"
    assert file.SHIPPED.stat().st_size < 5e6


@pytest.mark.parametrize(
    "change",
    [
        lambda e: replace(e, value=e.value * (1 + 2.0**-52)),
        lambda e: replace(e, u_max=e.u_max / 2),
        lambda e: replace(e, scale=None),
        lambda e: replace(e, scale=2.01 * e.scale),
        lambda e: replace(e, scale=0.49 * e.scale),
        lambda e: replace(e, kink=np.full_like(e.value, np.nan)),
    ],
)
def test_what_comes_out_otherwise_is_noticed(change):
    old = BY_KEY["linear/v1/plain"]
    assert differing(replace(old, expected={"y": change(old.expected["y"])}), old) == ["y"]
    drift = BY_KEY["drift/v1/one_year"]  # a twin's bound stays as it is
    e = drift.expected["g_drift_us"]
    assert differing(replace(drift, expected={"g_drift_us": replace(e, scale=e.scale * 1.01)}), drift) == ["g_drift_us"]
    law = BY_KEY["program/v1/law"]
    moved = law.law["g_prog_us"]._replace(spread=law.law["g_prog_us"].spread * 1.01)
    assert differing(replace(law, law={"g_prog_us": moved}), law) == ["g_prog_us"]


def test_the_same_cases_give_the_same_bytes(tmp_path):
    chosen = [
        BY_KEY[k] for k in ("conv2d/v1/3x3", "draws/v1/far", "program/v1/law", "relu_backward/v1/kink", "dac/v1/round_first")
    ]
    for name in ("a.h5", "b.h5"):
        file.write(tmp_path / name, chosen)
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()
    for g in file.read(tmp_path / "a.h5"):
        old = BY_KEY[g.case.key]
        assert g.case.params == old.case.params and g.expected.keys() == old.expected.keys()
        assert (g.law is None) == (old.law is None)
        for name, e in g.expected.items():
            assert same(e.value, old.expected[name].value)
            assert (e.kink is None) == (old.expected[name].kink is None)


def test_a_case_on_which_pcmref_is_wrong_stays_out(monkeypatch):
    monkeypatch.setattr(Reference, "drift", lambda self, g_prog_us, nu, model, t_s: g_prog_us)
    with pytest.raises(file.GoldenError, match="disagree"):
        file.make(BY_KEY["drift/v1/one_day"].case)


@pytest.mark.parametrize(
    ("meta", "arrays"),
    [
        ({"schema": "other"}, {}),
        ({"schema_version": 2}, {}),
        ({"cases": {"linear/v1/x": {}}}, {}),
        ({"cases": {"nothing/v1/x": {"why": "", "params": {}, "level": 1, "outputs": {}}}}, {}),
        ({"cases": 3}, {}),
        ({}, {"cases/linear": np.ones(2)}),
        ({"cases": {"linear/v1/x": {"why": "", "params": {}, "level": 1, "outputs": {"y": {"compare": "bound"}}}}}, {}),
    ],
)
def test_a_file_that_is_something_else_is_refused(tmp_path, meta, arrays):
    path = tmp_path / "x.h5"
    store.write(path, "golden", {"schema": "pcmref-golden", "schema_version": 1, "cases": {}} | meta, arrays)
    with pytest.raises(FileError, match="x.h5"):
        file.read(path)


def test_a_negative_scale_is_refused(tmp_path, monkeypatch):
    golden = BY_KEY["linear/v1/plain"]
    y = golden.expected["y"]
    wrong = replace(golden, expected={"y": replace(y, scale=-y.scale)})
    with pytest.raises(file.GoldenError, match="scale"):
        file.write(tmp_path / "x.h5", [wrong])
    with monkeypatch.context() as careless:
        careless.setattr(file, "check_values_fit", lambda golden: None)
        file.write(tmp_path / "x.h5", [wrong])
    with pytest.raises(FileError, match="scale"):
        file.read(tmp_path / "x.h5")


def run(*arguments) -> int:
    return cli.main(["golden", *map(str, arguments)])


def test_check_from_the_command_line(tmp_path, capsys):
    out = tmp_path / "report.json"
    status = run("check", "pcmref.golden:Reference", "--op", "linear", "--dtype", "float32", "--json", out)
    assert status == 0 and "| linear" in capsys.readouterr().out
    found = json.loads(out.read_text())
    assert (found["schema"], found["schema_version"], found["backend"]) == ("pcmref-report", 1, "pcmref")
    assert {v["status"] for v in found["verdicts"]} == {"pass"} and found["verdicts"][0]["compared"] > 0
    assert run("check", "pcmref.golden:Reference", "--op", "linear", "--dtype", "float16") == 2
    assert run("check", "no_such_module:Backend") == 2 and "no_such_module" in capsys.readouterr().err
    assert run("check", "pcmref.golden:Reference", "--case", "conv2d/v1/nothing") == 2
    assert run("list", "--op", "dac") == 0 and "dac/v1/half_even" in capsys.readouterr().out
    assert run("list", "--op", "dac,relu", "--op", "map") == 0
    listed = capsys.readouterr().out
    assert all(f"{op}/v1/" in listed for op in ("dac", "relu", "map")) and "linear/v1/" not in listed


def test_a_failure_is_one_line_with_the_command_that_repeats_it(tmp_path, monkeypatch, capsys):
    module = "from pcmref.golden import Reference\nclass Backend(Reference):\n"
    module += "    def relu(self, x):\n        return x\n"
    (tmp_path / "leaky_backend.py").write_text(module)
    monkeypatch.chdir(tmp_path)
    asked = ["--op", "relu", "--op", "linear", "--dtype", "float64", "--markdown", "table.md"]
    assert run("check", "leaky_backend:Backend", *asked) == 1
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("FAIL")]
    assert len(lines) == 5 and all(re.match(r"FAIL relu/v1/\S+ float64: y\[.* wanted 0\.0", line) for line in lines)
    command = lines[0].split("repeat: pcmref golden ")[1].split()
    assert run(*command) == 1
    assert "| relu " in (tmp_path / "table.md").read_text() and "**fail**" in (tmp_path / "table.md").read_text()


def xfail(tmp_path, **changes):
    entry = {"op": "relu", "reason": "leaks", "issue": "1", "expires": "9.0"} | changes
    path = tmp_path / "x.toml"
    path.write_text("[[xfail]]\n" + "".join(f"{k} = {json.dumps(v)}\n" for k, v in entry.items() if v is not None))
    return path


def test_expected_failures(tmp_path):
    failed, passed = (Verdict("relu", "relu/v1/kink", "float64", status) for status in ("fail", "pass"))
    assert report.expect_failures([failed], xfail(tmp_path))[0].status == "xfail"
    assert report.expect_failures([passed], xfail(tmp_path))[0].status == "xpass"
    assert report.expect_failures([failed], xfail(tmp_path, case="kink", dtype="float64"))[0].status == "xfail"
    for changes, error, message in (
        ({"expires": "0.1"}, SettingError, "expired"),
        ({"op": "conv2d"}, SettingError, "matches nothing"),
        ({"dtype": "float32"}, SettingError, "matches nothing"),
        ({"reason": None}, FileError, "needs"),
        ({"colour": "red"}, FileError, "needs"),
        ({"expires": "soon"}, FileError, "version"),
    ):
        with pytest.raises(error, match=message):
            report.expect_failures([failed], xfail(tmp_path, **changes))


def test_a_counterexample_is_kept(tmp_path, capsys):
    inputs, path = tmp_path / "inputs.npz", tmp_path / "mine.h5"
    np.savez(inputs, x=normal("test/freeze/x", 1, 4, 3, 2), w=np.full((1, 2, 3, 3), 0.1))
    arguments = ("freeze", path, "conv2d", inputs, "--params", '{"stride": 2, "padding": 1}', "--name", "found_it")
    assert run(*arguments) == 0 and run(*arguments) == 0
    assert [g.case.key for g in file.read(path)] == ["conv2d/v1/found_it"]
    assert run("check", "pcmref.golden:Reference", "--file", path) == 0
    assert run("freeze", path, "conv2d", inputs, "--params", "{}", "--name", "incomplete") == 2
    assert "do not fit" in capsys.readouterr().err


def examples() -> list[str]:
    return re.findall(r"```python\n(.*?)```", DOCUMENT, re.DOTALL)


def test_the_documents_backend_is_short_and_passes(tmp_path, monkeypatch, capsys):
    backend = examples()[0]
    assert len(backend.splitlines()) < 30
    (tmp_path / "stranger.py").write_text(backend)
    monkeypatch.chdir(tmp_path)
    assert run("check", "stranger:Backend") == 0
    assert "pass" in capsys.readouterr().out


def test_the_documents_file_route_needs_no_pcmref(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run("write", "request.h5", "--op", "linear") == 0
    check_imports = "\nimport sys\nassert not any(name.startswith('pcmref') for name in sys.modules)\n"
    subprocess.run([sys.executable, "-c", examples()[1] + check_imports], check=True, cwd=tmp_path)
    assert run("verify", "results.npz", "--dtype", "float32") == 0
    assert run("verify", "results.npz", "--dtype", "float64") == 1
    np.savez("wrong.npz", **{k: v * np.float32(1.001) for k, v in np.load("results.npz").items()})
    assert run("verify", "wrong.npz", "--dtype", "float32") == 1
    np.savez("none.npz")
    assert run("verify", "none.npz") == 2


def test_the_documents_table_is_the_packages(monkeypatch):
    from validation.audit import operations_table

    assert operations_table.document(DOCUMENT) == DOCUMENT, "run python -m validation.audit.operations_table"


def test_inputs_reach_a_backend_as_copies_and_changing_them_fails():
    class Spoiler(Reference):
        def linear(self, x, w, b):
            y = Reference.linear(x, w, b)
            x[:] = 7
            return y

    golden = BY_KEY["linear/v1/plain"]
    for _ in range(2):
        v = check_case(Spoiler(), Spoiler().capabilities(), golden, "float64")
        assert (v.status, v.message) == ("fail", "changed its input: x") and v.compared == 12
    assert check_case(Reference(), Spoiler().capabilities(), golden, "float64").status == "pass"
    assert in_dtype(golden.case.inputs, "float32")["x"].dtype == np.float32
