"""What a checker must not believe: odd capabilities, NaN, crashes, overwritten inputs, incomplete files, wrong lists."""

import json
from dataclasses import replace

import numpy as np
import pytest

from pcmref import cli, store
from pcmref.errors import FileError
from pcmref.golden import Capabilities, Recorded, Reference, check, exit_status, file, judge, report
from pcmref.golden.backends import BackendError
from pcmref.golden.case import Case
from pcmref.golden.check import check_case
from pcmref.golden.verify import Verdict
from tests.golden.right_backends import Sampled

GOLDEN = {g.case.key: g for g in file.read()}
LINEAR, PROGRAM = GOLDEN["linear/v1/plain"], GOLDEN["program/v1/law"]
PLAIN = Capabilities()


def run(*arguments) -> int:
    return cli.main(["golden", *map(str, arguments)])


# ---------------------------------------------------------------------------------------------- capabilities and crashes

BROKEN = [
    ("libm_ulp=float('nan')", "libm_ulp"),
    ("libm_ulp=float('inf')", "libm_ulp"),
    ("libm_ulp=-1.0", "libm_ulp"),
    ("libm_ulp=1e9", "libm_ulp"),
    ("libm_ulp='2'", "libm_ulp"),
    ("ops='linear'", "ops"),
    ("ops=('linaer',)", "linaer"),
    ("ops=3", "ops"),
    ("dtypes=('float8',)", "float8"),
    ("dtypes=()", "dtypes"),
    ("dtypes='float64'", "dtypes"),
    ("accumulate_dtype=5", "accumulate_dtype"),
    ("accumulate_dtype={'linaer': 'float32'}", "linaer"),
    ("accumulate_dtype={'linear': 'float8'}", "float8"),
    ("accumulate_dtype={'linear': None}", "accumulate_dtype"),
    ("conv_algorithm=[]", "conv_algorithm"),
    ("accepts_noise='yes'", "accepts_noise"),
]
MODULE = """
import sys
from dataclasses import dataclass
from pcmref.golden import Capabilities, Reference

class Table(Reference):
    def capabilities(self):
        return {"ops": ("linear",)}

class Raises(Reference):
    def capabilities(self):
        raise SystemExit(0)

class Nameless(Reference):
    version = 3

class Leaves:
    def __init__(self):
        sys.exit(0)

class Broken(Reference):
    def capabilities(self):
        return Capabilities(%s)
"""


@pytest.mark.parametrize(("settings", "message"), BROKEN)
def test_broken_capabilities_are_named_in_every_route(settings, message, tmp_path, monkeypatch, capsys):
    with pytest.raises(BackendError, match=message):
        eval(f"Capabilities({settings})")
    module = f"broken_{abs(hash(settings))}"
    (tmp_path / f"{module}.py").write_text(MODULE % settings)
    monkeypatch.chdir(tmp_path)
    assert run("check", f"{module}:Broken", "--op", "linear") == 2
    assert message in capsys.readouterr().err
    broken = type("Broken", (Reference,), {"capabilities": lambda self: eval(f"Capabilities({settings})")})
    with pytest.raises(BackendError, match=message):
        check(broken(), [LINEAR], ["float64"])


@pytest.mark.parametrize(
    ("name", "message"), [("Table", "dict"), ("Raises", "SystemExit"), ("Nameless", "texts"), ("Leaves", "SystemExit")]
)
def test_a_backend_that_says_nothing_of_itself(name, message, tmp_path, monkeypatch, capsys):
    (tmp_path / "odd_backends.py").write_text(MODULE % "")
    monkeypatch.chdir(tmp_path)
    assert run("check", f"odd_backends:{name}", "--op", "linear") == 2
    assert message in capsys.readouterr().err


def test_a_backend_is_any_object_with_methods_named_like_operations(tmp_path, monkeypatch, capsys):
    text = "class Plain:\n    def relu(self, x):\n        return x.clip(0)\n    def helper(self):\n        pass\n"
    (tmp_path / "plain_backends.py").write_text(text + "class Empty:\n    pass\n")
    monkeypatch.chdir(tmp_path)
    assert run("check", "plain_backends:Plain", "--op", "relu") == 0
    assert "Plain 0: " in capsys.readouterr().out
    assert run("check", "plain_backends:Plain", "--op", "relu", "--dtype", "float32") == 2  # it says nothing of float32
    assert run("check", "plain_backends:Empty") == 2
    assert "no method is named like an operation, such as conv2d" in capsys.readouterr().err


def test_odd_settings_of_a_file_of_results(tmp_path, capsys):
    path = tmp_path / "r.npz"
    np.savez(path, **{"linear/v1/plain/y": LINEAR.expected["y"].value + 100})
    for ulp in ("nan", "inf", "-2", "1e9"):
        assert run("verify", path, f"--libm-ulp={ulp}") == 2 and "libm_ulp" in capsys.readouterr().err
    with pytest.raises(SystemExit) as stopped:
        run("verify", path, "--conv-algorithm", "strassen")
    assert stopped.value.code == 2 and "winograd F(2,3)" in capsys.readouterr().err
    for name in ("linear/v1/plain", "y", "linaer/v1/plain/y"):
        with pytest.raises(BackendError, match=f"{name}.*op/vN/case/output"):
            Recorded("r.npz", {name: np.ones(1)}, PLAIN)
    found = check(Recorded("r.npz", {"linear/v1/plain/y": np.ones((3, 4), np.float32)}, PLAIN), [LINEAR], ["float32"])
    assert [v.status for v in found] == ["unsupported"]


def test_nan_in_a_comparison_fails():
    """However the bound came to be NaN or infinite, nothing passes by it."""
    y = LINEAR.expected["y"]
    got = {"y": y.value + 1}
    for scale in (np.nan, np.inf, -np.inf):
        golden = replace(LINEAR, expected={"y": replace(y, scale=np.full_like(y.scale, scale))})
        assert judge(golden, got, PLAIN, "float64").status == "fail"
    wanted = replace(LINEAR, expected={"y": replace(y, value=np.full_like(y.value, np.nan))})
    for value in (np.nan, 1.0):
        assert judge(wanted, {"y": np.full_like(y.value, value)}, PLAIN, "float64").status == "fail"


class Crashing(Reference):
    def __init__(self, error):
        self.error = error

    def linear(self, x, w, b):
        raise self.error


class Stop(BaseException):
    pass


def test_leaving_the_program_is_a_crash_of_the_case():
    for error in (SystemExit(0), SystemExit("bye"), Stop(), GeneratorExit()):
        v = check_case(Crashing(error), PLAIN, LINEAR, "float64")
        assert v.status == "error" and type(error).__name__ in v.message and exit_status([v]) == 1
    with pytest.raises(KeyboardInterrupt):  # a person's Ctrl-C ends the run
        check_case(Crashing(KeyboardInterrupt()), PLAIN, LINEAR, "float64")


def test_noise_and_samples_that_were_overwritten_fail():
    class Noisy(Reference):
        def program(self, g_target_us, z, model):
            z *= 1
            out = super().program(g_target_us, z, model)
            z += 1
            return out

    class Sampling(Sampled):
        def sample(self, op, version, inputs, params, *, n, seed):
            out = super().sample(op, version, inputs, params, n=n, seed=seed)
            inputs["g_target_us"][0] = 3
            params["model"].clear()
            return out

    v = check_case(Noisy(), PLAIN, GOLDEN["program/v1/joshi2020"], "float64")
    assert (v.status, v.message) == ("fail", "changed its input: z")
    before = json.dumps(PROGRAM.case.params)
    v = check_case(Sampling(), Sampling().capabilities(), PROGRAM, "float64", n=1000)
    assert v.status == "fail" and v.message.startswith("changed its input: g_target_us; 1000 draws")
    assert json.dumps(PROGRAM.case.params) == before


def test_results_in_the_other_byte_order_are_converted():
    for dtype in ("float64", "float32"):
        y = {"y": LINEAR.expected["y"].value.astype(dtype)}
        swapped = {"y": y["y"].astype(y["y"].dtype.newbyteorder(">"))}
        assert judge(LINEAR, swapped, PLAIN, dtype) == judge(LINEAR, y, PLAIN, dtype)
        assert judge(LINEAR, swapped, PLAIN, dtype).status == "pass"
    words = {k: e.value.astype(e.value.dtype.newbyteorder(">")) for k, e in GOLDEN["draws/v1/far"].expected.items()}
    assert judge(GOLDEN["draws/v1/far"], words, PLAIN, "float64").status == "pass"


# ----------------------------------------------------------------------------------------------------- files and lists


def test_an_incomplete_case_is_a_file_error(tmp_path, capsys):
    """A case without an input would otherwise fail the backend, or end the checker."""
    results, (meta, arrays) = tmp_path / "r.npz", store.read(file.SHIPPED, "golden")
    np.savez(results, **{"conv2d/v1/3x3/y": GOLDEN["conv2d/v1/3x3"].expected["y"].value})
    for key, group, name in (
        ("conv2d/v1/3x3", "inputs", "w"),
        ("program/v1/joshi2020", "noise", "z"),
        ("conv2d/v1/3x3", "params", "stride"),
        ("resnet/v1/one_block", "inputs", "layer1.0.conv1.weight"),
        ("basic_block/v1/downsample_eval", "inputs", "downsample.1.bias"),
        ("chip/v1/one_block_gdc", "noise", "read_t0/fc.bias"),
        ("inject_weight_noise/v1/crossbar", "noise", "fc.bias"),
        ("clip_weights/v1/crossbar", "inputs", "fc."),
        ("conv2d/v1/3x3", "expected", "y"),
    ):
        path = tmp_path / "x.h5"
        about = json.loads(json.dumps(meta["cases"][key]))
        kept = {k: v for k, v in arrays.items() if k.startswith(f"cases/{key}/")}
        kept = {k: v for k, v in kept.items() if not k.startswith(f"cases/{key}/{group}/{name}")}
        about["params"].pop(name if group == "params" else None, None)
        about["outputs"].pop(name if group == "expected" else None, None)
        store.write(path, "golden", meta | {"cases": {key: about}}, kept)
        with pytest.raises(FileError, match=r"x.h5: .*(missing|shape|no parameters)"):
            file.read(path)
        assert run("check", "pcmref.golden:Reference", "--file", path, "--case", key) == 2
        assert run("verify", results, "--file", path) == 2
        assert str(path) in capsys.readouterr().err


NAN = float("nan")


@pytest.mark.parametrize(
    "change",
    [
        lambda c: replace(c, inputs=c.inputs | {"x": np.where(c.inputs["x"] > 0, np.nan, c.inputs["x"])}),
        lambda c: replace(c, inputs=c.inputs | {"w": c.inputs["w"] * np.inf}),
        lambda c: replace(c, params=c.params | {"stride": NAN}),
        lambda c: replace(c, params=c.params | {"nested": {"list": [1.0, [NAN]]}}),
    ],
)
def test_a_nan_does_not_become_a_case(change):
    with pytest.raises(file.GoldenError, match="NaN or infinite"):
        file.make(change(GOLDEN["conv2d/v1/3x3"].case))


def test_a_nan_in_noise_bounds_masks_or_laws_is_refused(tmp_path):
    case = GOLDEN["program/v1/joshi2020"].case
    with pytest.raises(file.GoldenError, match=r"'z'\[0, 0\] is NaN"):
        file.make(replace(case, noise={"z": np.full_like(case.noise["z"], np.nan)}))
    with pytest.raises(file.GoldenError, match="NaN"):
        file.make_law(Case("program", "x", "", {"g_target_us": np.array([np.nan])}, {}, case.params))
    relu, y = GOLDEN["relu_backward/v1/kink"], LINEAR.expected["y"]
    dx, law = relu.expected["dx"], PROGRAM.law["g_prog_us"]
    for golden, changed in (
        (LINEAR, {"expected": {"y": replace(y, value=y.value * np.nan)}}),
        (LINEAR, {"expected": {"y": replace(y, scale=y.scale * np.inf)}}),
        (LINEAR, {"expected": {"y": replace(y, u_max=NAN)}}),
        (relu, {"expected": {"dx": replace(dx, kink=np.where(np.isnan(dx.kink), np.nan, np.inf))}}),
        (relu, {"expected": {"dx": replace(dx, kink=dx.kink[:1])}}),
        (PROGRAM, {"law": {"g_prog_us": law._replace(spread=law.spread * np.nan)}}),
        (PROGRAM, {"law": {"g_prog_us": law._replace(spread=law.spread * 0)}}),
        (PROGRAM, {"law": {"g_prog_us": law._replace(kind="lognormal")}}),
    ):
        with pytest.raises(file.GoldenError):
            file.write(tmp_path / "x.h5", [replace(golden, **changed)])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "at least one"),
        ("xfail = []\n", "at least one"),
        ("[xfail]\nop = 'relu'\n", "at least one"),
        ("[[xfial]]\nop = 'relu'\n", "xfial"),
        ("[[xfail]]\nop='relu'\nreason='r'\nissue='1'\nexpires='9.0'\n[other]\na = 1\n", "other"),
        ("[[xfail]]\nop='rleu'\nreason='r'\nissue='1'\nexpires='9.0'\n", "rleu"),
        ("[[xfail]]\nop='relu'\ncase=3\nreason='r'\nissue='1'\nexpires='9.0'\n", "texts"),
        ("[[xfail]]\nop='relu'\ndtype='float8'\nreason='r'\nissue='1'\nexpires='9.0'\n", "float8"),
    ],
)
def test_lists_of_expected_failures_that_are_none(text, message, tmp_path):
    path = tmp_path / "x.toml"
    path.write_text(text)
    with pytest.raises(FileError, match=message):
        report.expect_failures([Verdict("relu", "relu/v1/kink", "float64", "fail")], path)
