"""Reports: the command that repeats a failure, what was not judged, top-1 agreement, exit statuses in the help."""

import hashlib
import json
import shlex
from dataclasses import replace

import numpy as np
import pytest

from pcmref import cli
from pcmref.golden import (
    BackendError,
    Capabilities,
    NamedBackend,
    Reference,
    Unsupported,
    check,
    design,
    exit_status,
    file,
    report,
)
from pcmref.golden.check import check_case
from tests.golden.right_backends import Sampled

GOLDEN = {g.case.key: g for g in file.read()}
LINEAR, PROGRAM = GOLDEN["linear/v1/plain"], GOLDEN["program/v1/law"]
PLAIN = Capabilities()


def run(*arguments) -> int:
    return cli.main(["golden", *map(str, arguments)])


def test_failures_come_before_what_is_inconclusive():
    verdict = check_case(Reference(), PLAIN, LINEAR, "float64")
    verdicts = tuple(replace(verdict, status=status) for status in ("inconclusive", "loose", "fail"))
    lines = report.terminal(report.Report("b", "1", "r", verdicts)).splitlines()
    assert [line.split()[0] for line in lines[:3]] == ["FAIL", "LOOSE", "INCONCLUSIVE"]


def repeated(output: str) -> tuple[str, int]:
    """The first line of a failure, and the exit status of the command it gives."""
    line = next(line for line in output.splitlines() if line.startswith("FAIL"))
    words = shlex.split(line.split("; repeat: ")[1])
    assert words[0] == "pcmref"
    return line, cli.main(words[1:])


def test_the_command_of_a_failure_repeats_it(tmp_path, monkeypatch, capsys):
    """For results from a file, and for draws of another seed: the same line comes out again."""
    folder = tmp_path / "a folder's name"
    folder.mkdir()
    monkeypatch.chdir(folder)
    file.write("my cases.h5", [LINEAR, GOLDEN["linear/v1/one_image"], GOLDEN["conv2d/v1/3x3"], PROGRAM])
    results = {f"linear/v1/{n}/y": GOLDEN[f"linear/v1/{n}"].expected["y"].value for n in ("plain", "one_image")}
    results["linear/v1/plain/y"] = results["linear/v1/plain/y"] * (1 + 2.0**-40)
    np.savez("r.npz", **{k: v.astype(np.float32) for k, v in results.items()} | {"linear/v1/plain/y": np.ones((3, 4), "f4")})
    options = ("--dtype", "float32", "--conv-algorithm", "winograd F(2,3)", "--libm-ulp", "3", "--accumulate-dtype", "float32")
    assert run("verify", "r.npz", "--file", "my cases.h5", *options) == 1
    line, status = repeated(capsys.readouterr().out)
    assert status == 1 and "--conv-algorithm 'winograd F(2,3)' --libm-ulp 3.0 --dtype float32 --case linear/v1/plain" in line
    again = capsys.readouterr().out
    assert line in again and "one_image" not in again and "1 fail;" in again
    assert run("verify", "r.npz", "--file", "my cases.h5", "--case", "linear/v1/none") == 2

    backend = "from tests.golden.right_backends import Sampled\nclass Backend(Sampled):\n    def sample(self, op, *a, **k):\n"
    (folder / "wide_backend.py").write_text(
        backend + "        return {n: 1.1 * v for n, v in super().sample(op, *a, **k).items()}\n"
    )
    capsys.readouterr()
    assert run("check", "wide_backend:Backend", "--file", "my cases.h5", "--op", "program", "--seed", "5") == 1
    line, status = repeated(capsys.readouterr().out)
    assert status == 1 and "--file 'my cases.h5' --seed 5 " in line and line in capsys.readouterr().out


def test_an_operation_of_which_nothing_is_known_is_shown(tmp_path, capsys):
    undecided = GOLDEN["resnet_backward/v1/two_stages"]
    verdicts = check(Reference(), [undecided, LINEAR], ["float32"])
    assert [v.status for v in verdicts] == ["inconclusive", "pass"] and exit_status(verdicts) == 0
    made = report.Report("b", "1", "pcmref golden check b", tuple(verdicts))
    assert "NOT JUDGED resnet_backward float32: all of its 1 cases are inconclusive" in report.terminal(made)
    assert json.loads(report.to_json(made))["not_judged"] == [["resnet_backward", "float32"]]
    assert run("check", "pcmref.golden:Reference", "--dtype", "float32", "--case", undecided.case.key) == 1
    assert "NOT JUDGED resnet_backward float32" in capsys.readouterr().out
    with_a_pass = (*verdicts, replace(verdicts[0], status="pass"))
    assert "NOT JUDGED" not in report.terminal(replace(made, verdicts=with_a_pass))


def test_end_to_end_cases_report_top_1_agreement(capsys):
    g = GOLDEN["chip/v1/one_block_gdc"]
    assert g.case.level == 1 and g.case.params["gdc"]
    v = check_case(Reference(), PLAIN, g, "float64")
    assert (v.status, v.top1) == ("pass", (2, 2))

    class Turned(Reference):
        def chip(self, **a):
            out = super().chip(**a)
            return out | {"logits": np.where(np.arange(2)[:, None] == 1, -out["logits"], out["logits"])}

    verdicts = check(Turned(), [g, LINEAR], ["float64"])
    assert verdicts[0].top1 == (1, 2) and verdicts[1].top1 is None
    made = report.Report("b", "1", "pcmref golden check b", tuple(verdicts))
    text = report.terminal(made)
    assert f"top-1 agrees in 1 of 2 images; {g.case.why}; repeat" in text
    assert "end to end, float64: top-1 agrees in 1 of 2 images" in text
    assert json.loads(report.to_json(made))["top1"] == {"float64": [1, 2]}


def test_help_says_what_the_exit_statuses_mean(capsys):
    with pytest.raises(SystemExit):
        run("--help")
    text = capsys.readouterr().out
    assert "1  a case failed or crashed" in text and "every case was inconclusive" in text and "2  nothing was compared" in text


# ----------------------------------------------------------------------------------------- what is declared, what is missing


def test_strict_takes_no_case_for_granted(tmp_path, capsys):
    class NoStride(Reference):
        def conv2d(self, x, w, stride, padding):
            if stride != 1:
                raise Unsupported("only stride 1")
            return super().conv2d(x, w, stride, padding)

    both = check(NoStride(), [GOLDEN["conv2d/v1/3x3"], GOLDEN["conv2d/v1/stride2_odd"]], ["float64"])
    assert [v.status for v in both] == ["pass", "unsupported"]
    assert exit_status(both) == 0 and exit_status(both, strict=True) == 1
    other = replace(both[1], op="linear")  # an operation that it does not have at all is no gap
    assert exit_status([both[0], other], strict=True) == 0
    assert exit_status([replace(both[0], refused=("strided inputs: no",))], strict=True) == 1

    file.write(tmp_path / "two.h5", [LINEAR, GOLDEN["linear/v1/one_image"]])
    np.savez(tmp_path / "r.npz", **{"linear/v1/plain/y": LINEAR.expected["y"].value})
    files = (tmp_path / "r.npz", "--file", tmp_path / "two.h5")
    assert run("verify", *files) == 0 and run("verify", *files, "--strict") == 1
    np.savez(
        tmp_path / "r.npz", **{f"{k}/y": GOLDEN[k].expected["y"].value for k in ("linear/v1/plain", "linear/v1/one_image")}
    )
    assert run("verify", *files, "--strict") == 0


def test_a_backend_without_noise_is_not_held_against_noise_that_it_was_not_given():
    class Own(Sampled):
        def chip(self, seed, **a):
            return super().chip(seed=seed + 1, **a)

    v = check_case(Own(), Own().capabilities(), GOLDEN["chip/v1/one_block_gdc"], "float64")
    assert v.status == "skip" and "made of are sampled" in v.message
    assert check_case(Own(), PLAIN, GOLDEN["chip/v1/one_block_gdc"], "float64").status == "fail"


def test_the_report_says_what_was_judged_with(tmp_path, capsys):
    file.write(tmp_path / "one.h5", [LINEAR])
    np.savez(tmp_path / "r.npz", **{"linear/v1/plain/y": LINEAR.expected["y"].value})
    out = tmp_path / "report.json"
    assert run("verify", tmp_path / "r.npz", "--file", tmp_path / "one.h5", "--libm-ulp", "8", "--json", out) == 0
    digest = hashlib.sha256((tmp_path / "one.h5").read_bytes()).hexdigest()
    assert json.loads(out.read_text())["judged_with"] == {"golden_sha256": digest, "libm_ulp": 8.0}
    assert f"judged with golden_sha256 {digest}, libm_ulp 8.0" in capsys.readouterr().out
    assert run("check", "pcmref.golden:Reference", "--case", LINEAR.case.key, "--json", out) == 0
    assert "level" not in json.loads(out.read_text())["judged_with"]  # one case, whatever its level
    assert run("check", "pcmref.golden:Reference", "--op", "dac", "--json", out) == 0
    assert json.loads(out.read_text())["judged_with"]["level"] == 1 and "level 1 is a quick look" in capsys.readouterr().out
    slack = Capabilities(accumulate_dtype="float32", conv_algorithm="winograd F(2,3)", flush_denormals=True)
    assert report.declared(slack).keys() == {"accumulate_dtype", "conv_algorithm", "flush_denormals"}


def test_failures_are_the_smallest_few_with_their_settings_and_what_is_not_supported_is_one_line():
    class Wrong(NamedBackend):
        def relu(self, x):
            return x

    named = [design.golden(f"relu/v1/cover-float64-{i}", PLAIN) for i in range(9)]
    text = report.terminal(report.Report("b", "1", "r", tuple(check(Wrong(), [*named, LINEAR], ["float64"]))))
    assert text.count("FAIL relu") == report.SHOWN and "4 more: relu float64 fail" in text and "not supported: linear\n" in text
    smallest = min(named, key=lambda g: g.case.inputs["x"].size)
    assert text.startswith(f"FAIL {smallest.case.key} ") and f"; {smallest.case.why}; repeat" in text


def test_equal_errors_are_one_line_with_the_line_that_raised_them():
    class Broken(Reference):
        def linear(self, x, w, b):
            raise RuntimeError("no such kernel")  # here

    verdicts = check(Broken(), [LINEAR, GOLDEN["linear/v1/one_image"], GOLDEN["linear/v1/k512"]], ["float64"])
    text = report.terminal(report.Report("b", "1", "r", tuple(verdicts)))
    assert text.count("ERROR linear") == 1 and "the same error in 2 more cases" in text
    assert 'raise RuntimeError("no such kernel")  # here' in text and "test_reports.py" in text
    assert "relations.py" not in verdicts[0].trace


def test_dtypes_of_one_operation():
    few = Capabilities(dtypes=("float64", "float32"), dtypes_of={"linear": ("float32",)})
    assert check_case(Reference(), few, LINEAR, "float64").status == "unsupported"
    assert check_case(Reference(), few, LINEAR, "float32").status == "pass"
    for wrong in ({"linaer": ("float64",)}, {"linear": ("float16",)}, {"linear": "float64"}, 3):
        with pytest.raises(BackendError, match="dtypes_of"):
            Capabilities(dtypes=("float64",), dtypes_of=wrong)


def test_capabilities_may_be_a_key():
    assert hash(Capabilities()) == hash(Capabilities(dtypes_of={"linear": ("float64",)}))
