"""What a checker must not believe: draws that only look right, odd capabilities, crashes, incomplete files, wrong lists."""

import json
import shlex
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pcmref import cli, draws, store
from pcmref.errors import FileError, PcmrefError
from pcmref.golden import Capabilities, Reference, check, exit_status, file, judge, report, sampled
from pcmref.golden.backends import BackendError
from pcmref.golden.cases import Case
from pcmref.golden.check import check_case, check_results, count_tests
from pcmref.golden.correct import Sampled
from pcmref.golden.verify import Verdict, judge_samples

GOLDEN = {g.case.key: g for g in file.read()}
LINEAR, PROGRAM = GOLDEN["linear/v1/plain"], GOLDEN["program/v1/law"]
PLAIN = Capabilities()
N = 100_000


def run(*arguments) -> int:
    return cli.main(["golden", *map(str, arguments)])


# ------------------------------------------------------------------------------------------------------------- sampling

LAW = {"y": sampled.Law("gaussian", np.array([0.0, 2.0, -5.0]), np.array([1.0, 0.5, 0.25]), -np.inf, np.inf)}


def right(seed=0, dtype=np.float64):
    """Draws of LAW, [N, 3]."""
    z = draws.standard_normal(seed, "test/trust", (N, 3))
    return (LAW["y"].location + LAW["y"].spread * z).astype(dtype)


def found(samples, u=2.0**-53) -> list[str]:
    """What fails, the clearest first, at one run of all its tests."""
    return [t.what for t in sampled.failures(sampled.case_tests(LAW, {"y": samples}, u), sampled.tests_of(LAW))]


@pytest.mark.parametrize(("dtype", "u"), [(np.float64, 2.0**-53), (np.float32, 2.0**-24)])
def test_right_draws_pass_in_both_dtypes(dtype, u):
    for seed in range(3):
        assert found(right(seed, dtype), u) == []


def flat(samples):
    """One element uniform, with the law's own mean and spread."""
    u = draws.uniform(0, "test/trust/flat", (N,))
    samples[:, 1] = 2 + 0.5 * 12**0.5 * (u - 0.5)


def stray(samples):
    samples[7, 2] = -5 + 0.25 * 12


def from_a_short_list(samples):
    samples[:, 0] = samples[draws.integers(0, "test/trust/list", 60_000, (N,)), 0]


def tiled(samples):
    samples[:] = np.tile(samples[: N // 2], (2, 1))


def distant(samples):
    samples[:, 2] = -5 + 0.25 * samples[:, 0]


def stream_that_starts_again(samples):
    """A stream of 200,001 normal numbers, used again from its start: no element meets the same number twice."""
    z = draws.standard_normal(1, "test/trust/stream", (200_001,))
    samples[:] = LAW["y"].location + LAW["y"].spread * np.resize(z, 3 * N).reshape(N, 3)


@pytest.mark.parametrize(
    ("spoil", "what"),
    [
        (flat, "shape of the distribution"),
        (stray, "standard deviations out"),
        (from_a_short_list, "repeated values"),
        (tiled, "repeated values"),
        (tiled, "repeats itself 150000 draws later"),
        (distant, "correlation with element [2]"),
        (stream_that_starts_again, "repeats itself 200001 draws later"),
    ],
)
def test_draws_that_only_look_right_fail(spoil, what):
    samples = right()
    spoil(samples)
    assert any(what in name for name in found(samples)), found(samples)


def test_the_bounds_on_p_values_hold():
    """Chance of a p-value below 0.2 in 60 runs of right draws: a bound from above, so no more than exact tests would give."""
    p = {"repeated values": [], "repeats itself": [], "shape": [], "standard deviations out": []}
    for seed in range(60):
        z = {"y": draws.standard_normal(seed, "test/trust/p", (400, 2))}
        law = {"y": sampled.Law("gaussian", np.zeros(2), np.ones(2), -np.inf, np.inf)}
        for t in sampled.case_tests(law, z, 2.0**-53):
            for name in p:
                if name in t.what:
                    p[name].append(t.p)
    assert all(len(values) >= 60 for values in p.values())
    for values in p.values():  # exact tests: 24 of 120 expected, standard deviation 4.4; bounds: fewer
        assert sum(v < 0.2 for v in values) <= 24 + 5 * 4.4


def test_a_draw_that_the_law_does_not_give_fails():
    """Far above a clipped law the normal score is infinite: it used to be left out."""
    case = PROGRAM.case
    samples = Sampled().sample("program", 1, case.inputs, case.params, n=N, seed=1)
    assert judge_samples(PROGRAM, samples, "float64", 1).status == "pass"
    for value in (1e30, np.nan, np.inf, -1.0):
        wrong = {"g_prog_us": samples["g_prog_us"].copy()}
        wrong["g_prog_us"][::10_000, 3] = value
        v = judge_samples(PROGRAM, wrong, "float64", 1)
        assert v.status == "fail" and v.output == "g_prog_us", value
    narrow = {"g_prog_us": samples["g_prog_us"].astype(np.float32)}
    assert "float64 wanted" in judge_samples(PROGRAM, narrow, "float64", 1).message
    swapped = {"g_prog_us": samples["g_prog_us"].astype(">f8")}
    assert judge_samples(PROGRAM, swapped, "float64", 1).status == "pass"


def test_the_documents_number_of_tests():
    text = (Path(__file__).parent.parent / "validation" / "GOLDEN.md").read_text(encoding="utf-8")
    assert f"({count_tests(list(GOLDEN.values()))} a dtype" in text


def test_a_dtype_whose_rounding_hides_the_effect_is_inconclusive():
    g = GOLDEN["inject_weight_noise/v1/law"]
    samples = {k: np.zeros((10, *law.location.shape), np.float16) for k, law in g.law.items()}
    v = judge_samples(g, samples, "float16", 1)
    assert v.status == "inconclusive" and "rounding of float16" in v.message
    assert sampled.rounding(g.law, 2.0**-24) < sampled.MARGIN / 100


def test_drawn_results_come_by_file_too():
    case = PROGRAM.case
    samples = Sampled().sample("program", 1, case.inputs, case.params, n=N, seed=2)["g_prog_us"]
    key = f"{case.key}/g_prog_us"
    assert [v.status for v in check_results({key: samples}, [PROGRAM], PLAIN, "float64")] == ["pass"]
    assert [v.status for v in check_results({key: 1.1 * samples}, [PROGRAM], PLAIN, "float64")] == ["fail"]


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


def test_odd_settings_of_a_file_of_results(tmp_path, capsys):
    file.write(tmp_path / "request.h5", [LINEAR])
    np.savez(tmp_path / "r.npz", **{"linear/v1/plain/y": LINEAR.expected["y"].value + 100})
    files = (tmp_path / "request.h5", tmp_path / "r.npz")
    for ulp in ("nan", "inf", "-2", "1e9"):
        assert run("verify", *files, f"--libm-ulp={ulp}") == 2 and "libm_ulp" in capsys.readouterr().err
    with pytest.raises(SystemExit) as stopped:
        run("verify", *files, "--conv-algorithm", "fft")
    assert stopped.value.code == 2 and "winograd F(2,3)" in capsys.readouterr().err
    for names in ({"linear/v1/plain": np.ones(1)}, {"y": np.ones(1)}):
        with pytest.raises(PcmrefError, match="op/vN/case/output"):
            check_results(names, [LINEAR], PLAIN, "float64")
    with pytest.raises(PcmrefError, match="capabilities name float64"):
        check_results({}, [LINEAR], PLAIN, "float32")


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

    def linear(self, a, _, p):
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
        def program(self, a, noise, p):
            noise["z"] *= 1
            out = super().program(a, noise, p)
            noise["z"] += 1
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
        assert run("verify", path, results, "--conv-algorithm", "winograd F(2,3)") == 2
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


# -------------------------------------------------------------------------------------------------------------- reports


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
    file.write("my request.h5", [LINEAR, GOLDEN["linear/v1/one_image"], GOLDEN["conv2d/v1/3x3"], PROGRAM])
    results = {f"linear/v1/{n}/y": GOLDEN[f"linear/v1/{n}"].expected["y"].value for n in ("plain", "one_image")}
    results["linear/v1/plain/y"] = results["linear/v1/plain/y"] * (1 + 2.0**-40)
    np.savez("r.npz", **{k: v.astype(np.float32) for k, v in results.items()} | {"linear/v1/plain/y": np.ones((3, 4), "f4")})
    options = ("--dtype", "float32", "--conv-algorithm", "winograd F(2,3)", "--libm-ulp", "3", "--accumulate-dtype", "float32")
    assert run("verify", "my request.h5", "r.npz", *options) == 1
    line, status = repeated(capsys.readouterr().out)
    assert status == 1 and "--conv-algorithm 'winograd F(2,3)' --libm-ulp 3.0 --dtype float32 --case linear/v1/plain" in line
    again = capsys.readouterr().out
    assert line in again and "one_image" not in again and "1 fail;" in again
    assert run("verify", "my request.h5", "r.npz", "--case", "linear/v1/none") == 2

    backend = "from pcmref.golden.correct import Sampled\nclass Backend(Sampled):\n    def sample(self, op, *a, **k):\n"
    (folder / "wide_backend.py").write_text(
        backend + "        return {n: 1.1 * v for n, v in super().sample(op, *a, **k).items()}\n"
    )
    capsys.readouterr()
    assert run("check", "wide_backend:Backend", "--file", "my request.h5", "--op", "program", "--seed", "5") == 1
    line, status = repeated(capsys.readouterr().out)
    assert status == 1 and "--file 'my request.h5' --seed 5 " in line and line in capsys.readouterr().out


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
        def chip(self, a, noise, p):
            out = super().chip(a, noise, p)
            return out | {"logits": np.where(np.arange(2)[:, None] == 1, -out["logits"], out["logits"])}

    verdicts = check(Turned(), [g, LINEAR], ["float64"])
    assert verdicts[0].top1 == (1, 2) and verdicts[1].top1 is None
    made = report.Report("b", "1", "pcmref golden check b", tuple(verdicts))
    text = report.terminal(made)
    assert "top-1 agrees in 1 of 2 images; repeat" in text and "end to end, float64: top-1 agrees in 1 of 2 images" in text
    assert json.loads(report.to_json(made))["top1"] == {"float64": [1, 2]}


def test_help_says_what_the_exit_statuses_mean(capsys):
    with pytest.raises(SystemExit):
        run("--help")
    text = capsys.readouterr().out
    assert "1  a case failed or crashed" in text and "every case was inconclusive" in text and "2  nothing was compared" in text
