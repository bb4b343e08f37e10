"""Sampling: right draws pass, draws that only look right fail at the test made for them, bounds on p-values hold."""

import numpy as np
import pytest

from pcmref import draws
from pcmref.golden import Capabilities, Recorded, check, file, sampled
from pcmref.golden.check import count_tests
from pcmref.golden.verify import judge_samples
from tests.golden.right_backends import Sampled
from tests.helpers import TOP

GOLDEN = {g.case.key: g for g in file.read()}
PROGRAM = GOLDEN["program/v1/law"]
PLAIN = Capabilities()
N = 100_000
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


def clipped(low, high):
    def spoil(samples):
        samples[:] = LAW["y"].location + LAW["y"].spread * np.clip((samples - LAW["y"].location) / LAW["y"].spread, low, high)

    return spoil


def twelve_uniforms(samples):
    z = sum(draws.uniform(i, "test/trust/twelve", (N, 3)) for i in range(12)) - 6
    samples[:] = LAW["y"].location + LAW["y"].spread * z


def student(samples):
    """Thirty degrees of freedom, with the law's own spread: a normal number over an independent root mean square."""
    squares = sum(draws.standard_normal(i, "test/trust/squares", (N, 3)) ** 2 for i in range(30))
    samples[:] = LAW["y"].location + (samples - LAW["y"].location) / np.sqrt(squares / 28)


@pytest.mark.parametrize(
    ("spoil", "what"),
    [
        (clipped(-np.inf, 2.5), "share above 3.1"),
        (clipped(-2.5, 2.5), "share beyond 3.1"),
        (clipped(-3, 3), "share below 3.1"),
        (twelve_uniforms, "share beyond 3.1"),
        (student, "share beyond 3.1"),
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
    text = (TOP / "validation" / "GOLDEN.md").read_text(encoding="utf-8")
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
    for factor, status in ((1.0, "pass"), (1.1, "fail")):
        recorded = Recorded("r", {key: (factor * samples).ravel()}, PLAIN)
        assert [v.status for v in check(recorded, [PROGRAM], ["float64"])] == [status]
