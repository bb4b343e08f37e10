"""The slow twin: its error bounds hold for real float32 arithmetic, it shares no code, its draws are the published ones."""

import ast
import json
from decimal import localcontext
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import pcmref.golden
from pcmref import draws
from pcmref.golden import twin_draws, twin_pcm
from pcmref.golden.case import narrow
from pcmref.golden.cases_pcm import JOSHI2020
from pcmref.golden.expected import evaluate, expected
from pcmref.golden.twin import DIGITS, DRAW, LIBM, TooCoarse, constant, exact, is_narrow, largest, lift, total

U = 2.0**-24
FOLDER = Path(pcmref.golden.__file__).parent
numbers = st.integers(1, 255).map(lambda n: n / 32) | st.integers(-255, -1).map(lambda n: n / 32)


def holds(bounded, got) -> bool:
    """Whether a float32 result is within the bound of the exact value."""
    return abs(float(got) - float(bounded.value)) <= bounded.error * U * (1 + 1e-9)


@given(st.lists(numbers, min_size=1, max_size=30), numbers)
def test_the_bound_holds_for_float32_in_any_order(values, factor):
    with localcontext(prec=DIGITS):
        tenth = constant("0.1", U)
        terms = [exact(v, U) * tenth for v in values]
        sums, f = total(terms), constant("0.3", U)
        products = np.float32(values) * np.float32(0.1)
        forward = products[0]
        for p in products[1:]:
            forward = np.float32(forward + p)
        assert holds(sums, forward) and holds(sums, np.float32(products[::-1].sum(dtype=np.float32)))
        assert holds(sums * f, forward * np.float32(0.3))
        ratio = exact(factor, U) / f
        assert holds(ratio, np.float32(factor) / np.float32(0.3))
        assert holds(ratio, np.float32(factor) * (np.float32(1) / np.float32(0.3)))
        size = (exact(abs(factor), U) * tenth).log()
        logarithm = np.log(np.float32(abs(factor)) * np.float32(0.1))
        assert holds(size, logarithm) and holds(size.exp(), np.exp(logarithm))
        root = (exact(abs(factor), U) * tenth).sqrt()
        assert holds(root, np.sqrt(np.float32(abs(factor)) * np.float32(0.1)))


def test_the_bound_is_not_vacuous():
    """Sums of n terms: n - 1 roundings of the sum of magnitudes, and one of each product."""
    with localcontext(prec=DIGITS):
        terms = [exact(1, 2.0**-53) * exact(1, 2.0**-53) for _ in range(10)]
        assert total(terms).error == pytest.approx(10 + 9 * 10, rel=1e-12)
        assert (exact(3, U) * exact(5, U)).error == 15
        assert exact(3, U).log().error == pytest.approx(LIBM * np.log(3)) and exact(2, U).exp().error == pytest.approx(
            LIBM * np.exp(2)
        )


def test_what_the_bound_does_not_decide_is_refused():
    with localcontext(prec=DIGITS):
        nearly = constant("0.1", U) - exact(0.1, U)
        with pytest.raises(TooCoarse):
            nearly.above(exact(0, U))
        with pytest.raises(TooCoarse):
            nearly.reciprocal()
        assert exact(1, U).above(exact(0, U)) and not exact(0, U).above(exact(0, U))
        assert largest(nearly, exact(0, U)).error == nearly.error
        with pytest.raises(TooCoarse):
            total([exact(1, 2.0**-8)] * 200)


@pytest.mark.parametrize("path", sorted(FOLDER.glob("twin*.py")), ids=lambda p: p.name)
def test_the_twin_shares_no_code(path):
    allowed = ("pcmref.golden.twin", "pcmref.golden.ops", "pcmref.golden", "numpy", "decimal", "math", "dataclasses")
    allowed += ("hashlib", "statistics")
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            assert all(alias.name in allowed for alias in node.names)
        if isinstance(node, ast.ImportFrom):
            assert node.module.startswith("pcmref.golden.twin") or node.module in allowed
            assert node.module != "pcmref.golden" or all(alias.name.startswith("twin") for alias in node.names)


@given(st.floats(-1000, 1000))
def test_narrow_numbers_are_exact_in_every_dtype(value):
    v = float(narrow(value))
    assert is_narrow(v) and float(np.float16(v)) == v
    assert not np.float32(v).view(np.uint32) & 0xFFFF
    assert abs(v - value) <= max(2.0**-8 * abs(value), 2.0**-15)


def test_is_narrow_knows_the_limits():
    assert is_narrow(255.0) and is_narrow(2.0**-14) and is_narrow(0.0) and is_narrow(256.0)
    assert not any(map(is_narrow, (257.0, 0.1, 2.0**-15, 2.0**16)))


def test_twin_draws_are_the_published_vectors():
    vectors = json.loads((Path(__file__).parent.parent / "validation" / "results" / "draws.json").read_text())
    for vector in vectors["streams"]:
        n = len(vector["raw"])
        assert [f"{w:016x}" for w in twin_draws.raw(vector["seed"], vector["name"], n)] == vector["raw"]
        with localcontext(prec=DIGITS):
            z = [float(v) for v in twin_draws.standard_normal(twin_draws.raw(vector["seed"], vector["name"], n))]
        wanted = np.array([float.fromhex(v) for v in vector["z"]])
        assert (np.abs(np.array(z) - wanted) <= 4 * np.spacing(np.abs(wanted))).all()


def test_draws_beyond_the_solved_ones_are_as_near_as_the_twin_says(monkeypatch):
    at_the_ends = [0, 1 << 12, 1 << 50, 1 << 63, (1 << 63) - (1 << 13), (1 << 63) + (1 << 40), (1 << 64) - 1]
    words = [*at_the_ends, *twin_draws.raw(5, "near", 500)]
    with localcontext(prec=DIGITS):
        exactly = twin_draws.standard_normal(words)
        monkeypatch.setattr(twin_draws, "SOLVED", 10)
        far = [float(abs(z / w - 1)) for z, w in zip(twin_draws.standard_normal(words), exactly, strict=True)]
    assert not any(far[:10]) and 2.0**-53 < max(far[10:]) < DRAW * 2.0**-53


def test_device_equations_at_pinned_numbers():
    """By hand: sigma_prog (D1) at x = 0, 0.5, 1; mu_nu at x = 0.1; Q_s at 1 and 0.01."""
    with localcontext(prec=DIGITS):
        sigma = [float(twin_pcm.programming_std_us(exact(g, U), JOSHI2020).value) for g in (0, 12.5, 25)]
        mu = float(twin_pcm.drift_exponent_mean(exact("2.5", U), JOSHI2020).value)
        q = [float(twin_pcm.read_noise_q(exact(g, U), JOSHI2020).value) for g in ("25", "0.25", "0")]
    assert sigma == pytest.approx([0.26348, 0.952705, 1.05538], rel=1e-12)
    assert mu == pytest.approx(0.06009, abs=5e-6) and q == pytest.approx([0.0088, 0.175583, 0.2], abs=5e-7)


def test_a_branch_takes_the_finest_roundoff_that_decides_it():
    """relu's mask after a difference that is 0 but for roundings is decided by none."""
    one, tenth = np.ones((1, 1, 1, 1)), lift(np.full((1, 1, 1, 1), 0.1), U)
    assert expected("relu_backward", {"dy": one, "x": 2.0**-10 * one}, {}, {})["dx"].value.item() == 1
    with localcontext(prec=DIGITS), pytest.raises(TooCoarse):
        evaluate("relu_backward", {"dy": one, "x": tenth - tenth}, {}, {}, U)


def test_evaluate_takes_noise_and_rounds_what_is_not_narrow():
    z = draws.standard_normal(0, "golden/test", (1,))
    got = evaluate("program", {"g_target_us": np.array([12.5])}, {"z": z}, {"model": JOSHI2020}, U)["g_prog_us"][0]
    assert float(got.value) == pytest.approx(max(12.5 + 0.952705 * z[0], 0), rel=1e-12)
    assert got.error > float(got.value)
