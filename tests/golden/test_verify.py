"""Verdicts: every status, either value at a kink, suspects, exit statuses, sampling, and the self-check."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import chi2

from pcmref import draws
from pcmref.golden import Capabilities, Recorded, Reference, Unsupported, check, design, exit_status, file, judge, sampled
from pcmref.golden.backends import BackendError, load_backend
from pcmref.golden.case import Case
from pcmref.golden.check import check_case, in_dtype, mark_suspects
from pcmref.golden.ops import upstream
from pcmref.golden.verify import Verdict
from tests.golden import selfcheck
from tests.golden.right_backends import CORRECT, Sampled

GOLDEN = {g.case.key: g for g in file.read()}
LINEAR = GOLDEN["linear/v1/plain"]
PLAIN = Capabilities()


def results(key, dtype="float64"):
    """pcmref's own results for a case."""
    case = GOLDEN[key].case
    return Reference().run(case.op, 1, in_dtype(case.inputs, dtype), in_dtype(case.noise, dtype), case.params)


def verdict(key, spoil, dtype="float64"):
    """The verdict on pcmref's results with one output spoiled."""
    out = {k: np.array(v) for k, v in results(key, dtype).items()}
    spoil(out)
    return judge(GOLDEN[key], out, PLAIN, dtype)


def test_one_wrong_element_is_named():
    def spoil(out):
        out["y"][2, 1] *= 1 + 1e-12

    v = verdict("linear/v1/plain", spoil)
    assert (v.status, v.output, v.index) == ("fail", "y", (2, 1)) and v.times_bound > 100 and v.compared == 12
    assert v.wanted == LINEAR.expected["y"].value[2, 1] and v.got == pytest.approx(v.wanted * (1 + 1e-12), rel=1e-15)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda out: out.update(y=out["y"][:-1]), "shape"),
        (lambda out: out.update(y=out["y"].astype(np.float32)), "float64 wanted"),
        (lambda out: out.update(y=np.where(out["y"] > 0, np.nan, out["y"])), "NaN"),
        (lambda out: out.update(y=out["y"] * 0), "outside the bound"),
        (lambda out: out.update(y=np.full_like(out["y"], np.inf)), "outside the bound"),
        (lambda out: out.pop("y"), "outputs"),
        (lambda out: out.update(z=out["y"]), "outputs"),
    ],
)
def test_what_is_wrong_fails(spoil, message):
    v = verdict("linear/v1/plain", spoil)
    assert v.status == "fail" and message in v.message


def test_a_failure_says_in_which_part_of_the_array_it_lies():
    """All of it: nothing more; a column; one element of an operation that is exact; a number."""

    def column(out):
        out["y"][1:, 2] *= 1.5

    def one(out):
        out["y"][0, 1, 2, 0] += 1

    assert verdict("linear/v1/plain", lambda out: out.update(y=out["y"] + 1)).message.endswith("outside the bound")
    assert verdict("linear/v1/plain", column).message == "2 of 12 elements outside the bound, all in [1:3, 2]"
    found = verdict("max_pool2d/v1/2x2", one)
    assert "differ, all in [:, 1, 2, 0]; this" in found.message and found.index == (0, 1, 2, 0)
    assert "1 of 1 elements outside the bound" in verdict("gdc/v1/ones", lambda out: out.update(alpha=out["alpha"] * 2)).message


def test_a_failure_near_zero_is_measured_in_the_dtypes_own_ulp():
    zero = {"x": np.zeros((1, 2)), "w": np.ones((1, 2)), "b": np.zeros(1)}
    for dtype, denormal in (("float64", 2.0**-1074), ("float32", 2.0**-149)):
        golden = design.made(Case("linear", "zero", "", zero, {}, {}, dtype=dtype), PLAIN)
        found = judge(golden, {"y": np.full((1, 1), 2.0**20 * denormal, dtype)}, PLAIN, dtype)
        assert found.status == "fail" and found.ulp == 2.0**20


def test_exact_operations_allow_nothing():
    def spoil(out):
        out["y"].flat[7] = np.nextafter(out["y"].flat[7], 1)

    assert verdict("max_pool2d/v1/2x2", lambda out: None).status == "pass"
    assert verdict("max_pool2d/v1/2x2", spoil).status == "fail"
    assert verdict("draws/v1/program", lambda out: out["raw"].__setitem__(3, out["raw"][3] + 1)).status == "fail"
    assert verdict("draws/v1/program", lambda out: out.update(raw=out["raw"].astype(float))).status == "fail"


def test_at_a_kink_either_value_is_right_but_no_third():
    dy = GOLDEN["relu_backward/v1/kink"].case.inputs["dy"]
    v = verdict("relu_backward/v1/kink", lambda out: out["dx"].flat.__setitem__(0, dy.flat[0]))
    assert v.status == "pass" and v.kinks == 2
    assert verdict("relu_backward/v1/kink", lambda out: out["dx"].flat.__setitem__(0, dy.flat[0] / 2)).status == "fail"
    assert verdict("relu_backward/v1/kink", lambda out: out["dx"].flat.__setitem__(3, dy.flat[3])).status == "fail"


def test_kinks_are_capped():
    g = GOLDEN["relu_backward/v1/kink"]
    e = g.expected["dx"]
    many = replace(
        g, expected={"dx": replace(e, kink=np.where(np.arange(e.kink.size).reshape(e.kink.shape) < 20, 0.0, np.nan))}
    )
    assert "worthless" in judge(many, results("relu_backward/v1/kink"), PLAIN, "float64").message


def test_a_converter_may_give_either_code_where_float32_cannot_decide():
    key = "dac/v1/round_first"
    kink = GOLDEN[key].expected["q"].kink
    at = np.flatnonzero(~np.isnan(kink))
    assert at.size
    assert verdict(key, lambda out: out["q"].__setitem__(at, kink[at])).status == "pass"
    assert verdict(key, lambda out: out["q"].__setitem__(0, out["q"][0] + 2 / 15)).status == "fail"


def test_too_coarse_a_precision_is_inconclusive_not_a_pass():
    key = "resnet_backward/v1/two_stages"
    coarse = verdict(key, lambda out: None, "float32")
    assert coarse.status == "inconclusive" and "it ends at" in coarse.message
    v = judge(GOLDEN["linear/v1/k512"], results("linear/v1/k512"), Capabilities(accumulate_dtype="bfloat16"), "float64")
    assert v.status == "inconclusive"


def test_errors_that_do_not_scatter_are_loose():
    e = GOLDEN["linear/v1/k512"].expected["y"]
    v = verdict("linear/v1/k512", lambda out: out.update(y=e.value + 0.5 * e.scale * 2.0**-53))
    assert v.status == "loose" and exit_status([v]) == 0


def test_statuses_of_a_run():
    class Odd(Reference):
        def linear(self, x, w, b):
            raise Unsupported("no linear layers here")

        def relu(self, x):
            raise RuntimeError("out of memory\nmore")

    found = {v.case: v for v in check(Odd(), [LINEAR, GOLDEN["relu/v1/kink"], GOLDEN["conv2d/v1/3x3"]], ["float64", "float16"])}
    assert found["linear/v1/plain"].status == "unsupported"
    by = {(v.op, v.dtype): v for v in check(Odd(), [GOLDEN["relu/v1/kink"]], ["float64", "float16"])}
    assert by["relu", "float64"].status == "error" and by["relu", "float64"].message == "RuntimeError: out of memory"
    assert by["relu", "float16"].status == "unsupported"
    assert check_case(Odd(), PLAIN, GOLDEN["drift/v1/t_0"], "float16").status == "unsupported"
    narrow = Capabilities(dtypes=("float16",))
    assert check_case(Odd(), narrow, GOLDEN["drift/v1/t_0"], "float16").status == "skip"


def test_exit_status_needs_something_compared():
    def of(*statuses):
        return exit_status([Verdict("conv2d", "c", "float64", s) for s in statuses])

    assert of("pass") == of("loose", "unsupported") == of("pass", "inconclusive", "xfail") == 0
    assert of("pass", "fail") == of("error") == of("xpass", "pass") == of("inconclusive") == of("xfail") == 1
    assert of() == of("unsupported", "skip") == 2


def test_failures_downstream_are_suspects():
    marked = mark_suspects([Verdict(op, op, "float64", "fail") for op in ("conv2d", "resnet", "linear")])
    assert [v.suspects for v in marked] == [(), ("conv2d", "linear"), ()]
    assert {"conv2d", "relu", "batch_norm"} <= upstream("resnet") and "resnet" in upstream("chip")


def test_results_from_a_file():
    out = {f"linear/v1/plain/{k}": v for k, v in results("linear/v1/plain").items()}
    both = [LINEAR, GOLDEN["relu/v1/kink"], GOLDEN["program/v1/law"]]
    recorded = Recorded("r", out | {"relu/v1/other/y": np.ones(1)}, PLAIN)
    found = check(recorded, both, ["float64"], related=())
    assert [v.status for v in found] == ["pass", "unsupported", "unsupported"] and found[1].message == "no result for this case"
    assert exit_status(found) == 0


@pytest.mark.parametrize(
    "name", ["nothing", "no.such.module:B", "pcmref.golden:NoSuch", "pcmref.golden:Capabilities", "os:getpid"]
)
def test_a_backend_that_is_none_is_named(name):
    with pytest.raises(BackendError, match="backend"):
        load_backend(name)


def laws():
    return [g for g in GOLDEN.values() if g.law]


@pytest.mark.parametrize(("n_tests", "about"), [(1, 65_125), (100, 81_150)])
def test_draws_needed_show_an_error_of_two_percent(n_tests, about):
    """About (z_alpha/2 + z_power)^2 / (2 effect^2); exactly: the chi-squared test's power at a spread 2 % too large."""
    n = sampled.draws_needed(n_tests)
    assert abs(n - about) < 0.02 * about

    def power(n):
        return chi2.sf(chi2.isf(1e-6 / n_tests / 2, n - 1) / 1.02**2, n - 1)

    assert power(n) >= 0.99 > power(n - 1)


def test_too_few_draws_are_inconclusive():
    v = check_case(Sampled(), Sampled().capabilities(), GOLDEN["program/v1/law"], "float64", n=2000)
    assert v.status == "inconclusive" and exit_status([v]) == 1


@pytest.mark.parametrize("seeds", [range(1), pytest.param(range(200), marks=pytest.mark.slow)])
def test_no_correct_sampled_backend_fails(seeds):
    for seed in seeds:
        found = {v.status for v in check(Sampled(), laws(), ["float64"], n=100_000, seed=1000 * seed)}
        assert found == {"pass"}, (seed, found)


@pytest.mark.parametrize("n", [4, pytest.param(200, marks=pytest.mark.slow)])
def test_no_correct_backend_fails_on_fresh_inputs(n):
    for seed in range(n):
        for key in ("conv2d/v1/stride2_odd", "batch_norm_train/v1/plain", "linear/v1/plain", "softmax_cross_entropy/v1/plain"):
            old = GOLDEN[key].case
            fresh = {k: _fresh(f"{key}/{k}", v, seed) for k, v in old.inputs.items()}
            golden = file.make(Case(old.op, "fresh", "", fresh, {}, old.params))
            declared = [(b(), Capabilities(conv_algorithm=b().capabilities().conv_algorithm, dtypes=DTYPES_2)) for b in CORRECT]
            found = {check_case(b, of, golden, dtype).status for b, of in declared for dtype in DTYPES_2}
            assert found <= {"pass", "loose"}, (key, seed, found)


DTYPES_2 = ("float64", "float32")


def _fresh(name, old, seed):
    if old.dtype.kind in "iu":
        return draws.integers(seed, name, int(old.max()) + 1, old.shape)
    values = np.abs(old).max() * draws.standard_normal(seed, name, old.shape) / 4
    return np.abs(values) + 2.0**-6 if (old > 0).all() else values


@pytest.mark.parametrize("share", [4, pytest.param(1, marks=pytest.mark.slow)])
def test_the_checker_catches_every_planted_error_and_passes_what_is_right(share, monkeypatch):
    """One in four of them; all, which takes minutes, with `make test-slow`, as `tests/golden/selfcheck.py` does."""
    monkeypatch.setattr(selfcheck, "CORRECT", selfcheck.CORRECT[::share])
    some, of_kernels = (list(planted())[::share] for planted in (selfcheck.mutants, selfcheck.kernel_mutants))
    monkeypatch.setattr(selfcheck, "MISTAKES", dict(list(selfcheck.MISTAKES.items())[::share]))
    monkeypatch.setattr(selfcheck, "mutants", lambda: some)
    monkeypatch.setattr(selfcheck, "kernel_mutants", lambda: of_kernels)
    findings = selfcheck.selfcheck(list(GOLDEN.values()))
    assert len(findings) >= 60 and not [f for f in findings if not f.right]
