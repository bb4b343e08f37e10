"""Draws: an independent Philox, the published vectors, and the distributions they promise."""

import hashlib
import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from pcmref import draws
from pcmref.checks import check_distribution
from pcmref.errors import SettingError

VECTORS = json.loads((Path(__file__).parent.parent / "validation" / "results" / "draws.json").read_text())
MASK = (1 << 64) - 1


def philox4x64(counter: int, key: int) -> list[int]:
    """One block of Philox-4x64-10 from its definition (Salmon et al. 2011, section 3.3), in plain integers."""
    c = [(counter >> (64 * i)) & MASK for i in range(4)]
    k = [key & MASK, key >> 64]
    for _ in range(10):
        low, high = 0xD2E7470EE14C6C93 * c[0], 0xCA5A826395121157 * c[2]
        c = [(high >> 64) ^ c[1] ^ k[0], high & MASK, (low >> 64) ^ c[3] ^ k[1], low & MASK]
        k = [(k[0] + 0x9E3779B97F4A7C15) & MASK, (k[1] + 0xBB67AE8584CAA73B) & MASK]
    return c


@pytest.mark.parametrize("shape", [-1, (-1,), (2, -3), 2.5, (1, "2"), (True,), None])
def test_a_shape_that_is_none_is_refused(shape):
    for draw in (draws.uniform, draws.standard_normal, partial(draws.integers, high=3)):
        with pytest.raises(SettingError, match="shape"):
            draw(0, "a", shape=shape)


@pytest.mark.parametrize("n", [-1, 1.5, None])
def test_a_number_of_draws_that_is_none_is_refused(n):
    for draw in (draws.raw, draws.permutation):
        with pytest.raises(SettingError):
            draw(0, "a", n)


@pytest.mark.parametrize("shape", [0, 3, (), (2, 0), [2, 3], np.array([2, 3]), np.int64(2)])
def test_every_shape_of_numpys_is_taken(shape):
    assert draws.uniform(0, "a", shape).shape == np.zeros(shape).shape


@given(st.integers(-(2**70), 2**70), st.text(max_size=30), st.integers(0, 40))
def test_raw_words_are_philox_blocks_one_two_and_so_on(seed, name, n):
    key = int.from_bytes(hashlib.sha256(f"pcmref/1/{seed}/{name}".encode()).digest()[:16], "little")
    expected = [word for block in range(1, n // 4 + 2) for word in philox4x64(block, key)][:n]
    assert draws.raw(seed, name, n).tolist() == expected


@pytest.mark.confirms(41, 74, 75)
@pytest.mark.parametrize("vector", VECTORS["streams"], ids=lambda v: v["name"])
def test_published_vectors(vector):
    n = len(vector["raw"])
    assert [f"{w:016x}" for w in draws.raw(vector["seed"], vector["name"], n)] == vector["raw"]
    u = draws.uniform(vector["seed"], vector["name"], (n,))
    assert [float(v).hex() for v in u] == vector["u"]
    z, expected = draws.standard_normal(vector["seed"], vector["name"], (n,)), np.array([float.fromhex(v) for v in vector["z"]])
    assert (np.abs(z - expected) <= 4 * np.spacing(np.abs(expected))).all()


@pytest.mark.confirms(41)
@given(st.integers(0, 2**64 - 1))
def test_u_is_exact_and_inside_the_open_interval(word):
    u = draws._uniform_from_raw(np.array([word], np.uint64))[0]
    assert 0 < u < 1
    assert u * 2**53 == 2 * (word >> 12) + 1  # exact in integers


def test_shapes_fill_in_c_order_and_streams_do_not_share():
    flat = draws.uniform(3, "a", (24,))
    assert np.array_equal(draws.uniform(3, "a", (2, 3, 4)), flat.reshape(2, 3, 4))
    assert draws.uniform(3, "a", ()) == flat[0]
    assert np.array_equal(draws.uniform(3, "a", 5), flat[:5])
    assert not np.isin(draws.uniform(4, "a", (24,)), flat).any()
    assert not np.isin(draws.uniform(3, "b", (24,)), flat).any()


@pytest.mark.confirms(41, 73, 75)
def test_distributions():
    """Each p-value is uniform if the draws are what they say; 1e-6 is the chance of a false alarm, for each of five."""
    u, z = draws.uniform(0, "test", (100_000,)), draws.standard_normal(0, "test", (100_000,))
    order = draws.permutation(0, "test", 1000)
    check_distribution(u, stats.uniform.cdf)
    check_distribution(z, stats.norm.cdf)
    assert stats.chisquare(np.bincount(draws.integers(0, "test", 7, (100_000,)), minlength=7)).pvalue > 1e-6
    assert abs(stats.pearsonr(z[1:], z[:-1]).statistic) < 5 / np.sqrt(len(z))
    assert np.array_equal(np.sort(order), np.arange(1000)) and stats.spearmanr(order, np.arange(1000)).pvalue > 1e-6


@pytest.mark.confirms(76)
@given(st.integers(0, 100), st.integers(1, 50))
def test_permutation_is_the_stable_argsort_of_the_uniforms(seed, n):
    u = draws.uniform(seed, "p", (n,)).tolist()
    assert draws.permutation(seed, "p", n).tolist() == sorted(range(n), key=lambda i: (u[i], i))


@pytest.mark.confirms(73)
@given(st.integers(1, 2**31))
def test_integers_are_below_high(high):
    assert 0 <= draws.integers(1, "i", high, (20,)).min() <= draws.integers(1, "i", high, (20,)).max() < high


@pytest.mark.parametrize("seed", [True, 1.0, "1", None])
def test_a_seed_that_is_no_integer_is_refused(seed):
    with pytest.raises(SettingError, match="seed"):
        draws.raw(seed, "a", 1)


def test_integers_refuses_an_impossible_range():
    for high in (0, 2**31 + 1):
        with pytest.raises(SettingError, match="high"):
            draws.integers(0, "a", high, (1,))
