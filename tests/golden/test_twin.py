"""The twin: it shares no code, its draws are the published ones, its equations are right at numbers worked out by hand."""

import ast
import json
from decimal import localcontext
from pathlib import Path

import numpy as np
import pytest

from pcmref import draws
from pcmref.golden import twin
from pcmref.golden.expected import evaluate, expected
from pcmref.golden.make import PROFILES
from pcmref.golden.numbers import DIGITS, Numbers, Precision, TooCoarse
from tests.helpers import TOP

DECIMAL = Precision.decimal(2.0**-24)


def test_the_twin_shares_no_code():
    allowed = {"pcmref.golden.numbers", "numpy", "decimal", "functools", "hashlib", "statistics"}
    for node in ast.walk(ast.parse(Path(twin.__file__).read_text())):
        if isinstance(node, ast.Import):
            assert {alias.name for alias in node.names} <= allowed
        if isinstance(node, ast.ImportFrom):
            assert node.module in allowed


def test_twin_draws_are_the_published_vectors():
    vectors = json.loads((TOP / "validation" / "results" / "draws.json").read_text())
    for vector in vectors["streams"]:
        n = len(vector["raw"])
        assert [f"{w:016x}" for w in twin.raw(vector["seed"], vector["name"], n)] == vector["raw"]
        with localcontext(prec=DIGITS):
            z = [float(v) for v in twin.standard_normal(twin.raw(vector["seed"], vector["name"], n))]
        wanted = np.array([float.fromhex(v) for v in vector["z"]])
        assert (np.abs(np.array(z) - wanted) <= 4 * np.spacing(np.abs(wanted))).all()


def test_draws_beyond_the_solved_ones_are_as_near_as_the_twin_says(monkeypatch):
    at_the_ends = [0, 1 << 12, 1 << 50, 1 << 63, (1 << 63) - (1 << 13), (1 << 63) + (1 << 40), (1 << 64) - 1]
    words = [*at_the_ends, *twin.raw(5, "near", 500)]
    with localcontext(prec=DIGITS):
        exactly = twin.standard_normal(words)
        monkeypatch.setattr(twin, "SOLVED", 10)
        far = [float(abs(z / w - 1)) for z, w in zip(twin.standard_normal(words), exactly, strict=True)]
    assert not any(far[:10]) and 2.0**-53 < max(far[10:]) < twin.DRAW * 2.0**-53


def test_device_equations_at_pinned_numbers():
    """By hand: sigma_prog (D1) at x = 0, 0.5, 1; mu_nu at x = 0.1; Q_s at 1 and 0.01."""
    with localcontext(prec=DIGITS):
        g = [Numbers.of(np.array(values), DECIMAL) for values in ([0, 12.5, 25], [2.5], [25, 0.25, 0])]
        sigma = twin.programming_std_us(g[0], PROFILES["joshi2020"]).nearest()
        mu = twin.drift_exponent_mean(g[1], PROFILES["joshi2020"]).nearest()
        q = twin.read_noise_q(g[2], PROFILES["joshi2020"]).nearest()
    assert sigma == pytest.approx([0.26348, 0.952705, 1.05538], rel=1e-12)
    assert mu == pytest.approx(0.06009, abs=5e-6) and q == pytest.approx([0.0088, 0.175583, 0.2], abs=5e-7)


def test_a_current_counts_as_no_less_than_the_floor_of_its_read_out():
    """One-hot: mean|G+ - G-| not below 1e-4 G_max, here 2.5 nS."""
    with localcontext(prec=DIGITS):
        then, now = (Numbers.of(np.array([[[g]], [[1.0]]]), DECIMAL) for g in (1.5, 1.0))
        assert twin.gdc_factor(then, now, "one-hot", 25.0).nearest() == pytest.approx(0.5 / 0.0025, rel=1e-12)


@pytest.mark.parametrize(("limit", "roundings"), [(0.125, 0), (0.1, 5)])
def test_a_limit_that_a_backend_rounds_is_in_the_bound(limit, roundings):
    """Of 0.1: itself, its sum with itself, two of the quotient, and one of the code's product."""
    converter = {"steps": 16, "limit": limit, "rounding": "half-even", "order": "clip first", "origin": "zero"}
    with localcontext(prec=DIGITS):
        q, _ = twin.convert(Numbers.of(np.ones(1), DECIMAL), converter)
        assert q.nearest() == limit and q.close().error == pytest.approx(roundings * limit, rel=1e-5)


def test_a_branch_takes_the_finest_roundoff_that_decides_it():
    """relu's mask after a difference that is 0 but for roundings is decided by none."""
    one = np.ones((1, 1, 1, 1))
    assert expected("relu_backward", {"dy": one, "x": 2.0**-10 * one}, {}, {})["dx"].value.item() == 1
    with localcontext(prec=DIGITS), pytest.raises(TooCoarse):
        tenth = Numbers.of(0.1 * one, DECIMAL, roundings=1)
        evaluate("relu_backward", {"dy": one, "x": tenth - tenth}, {}, {}, DECIMAL)


def test_evaluate_takes_noise_and_rounds_what_is_not_narrow():
    z = draws.standard_normal(0, "golden/test", (1,))
    params = {"model": PROFILES["joshi2020"]}
    got = evaluate("program", {"g_target_us": np.array([12.5])}, {"z": z}, params, DECIMAL)["g_prog_us"]
    assert got.nearest() == pytest.approx(max(12.5 + 0.952705 * z[0], 0), rel=1e-12)
    assert got.error > got.nearest()
