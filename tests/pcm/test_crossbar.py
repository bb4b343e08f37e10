"""Crossbars: with ideal converters any tiling is the digital product; converters round and clip as they say."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pcmref import PCMModel, draws
from pcmref.cli import main
from pcmref.errors import DeviceError, SettingError
from pcmref.pcm.crossbar import ADC_LIMIT, Converter, Crossbar, Periphery, tile_scales, tiles

JOSHI = PCMModel.joshi2020()
DAY_S = 86_400.0


def normal(name, *shape, seed=0):
    return draws.standard_normal(seed, f"test crossbar/{name}", shape)


def bound(x, w, extra=0):
    """gamma_k |x||w|: K products, one sum a tile at most, and ten roundings of scaling, each below u."""
    terms = 2 * w.shape[0] + 10 + extra
    return terms * np.finfo(x.dtype).eps / 2 * (abs(x) @ abs(w)) * 1.01


sizes = st.tuples(st.integers(1, 5), st.integers(1, 12), st.integers(1, 7))
tile_sizes = st.tuples(st.integers(1, 14), st.integers(1, 9))


# -------------------------------------------------------------------------------------------------------- tiles


@given(st.tuples(st.integers(1, 20), st.integers(1, 20)), tile_sizes)
def test_tiles_cover_a_matrix_once_and_are_no_larger_than_stated(shape, tile):
    seen = np.zeros(shape, int)
    for rows, columns in tiles(shape, tile):
        seen[rows, columns] += 1
        assert seen[rows, columns].shape <= tuple(tile) and np.less_equal(seen[rows, columns].shape, tile).all()
    assert (seen == 1).all()


@pytest.mark.confirms(25, 26)
@given(sizes, tile_sizes, st.booleans(), st.integers(0, 99), st.sampled_from([np.float32, np.float64, np.longdouble]))
def test_with_ideal_converters_any_tiling_is_the_digital_product(size, tile, per_tile, seed, dtype):
    n, k, o = size
    x, w = normal("x", n, k, seed=seed).astype(dtype), normal("w", k, o, seed=seed).astype(dtype)
    y = Crossbar.of_weights(w, tile, per_tile).multiply(x)
    assert y.dtype == dtype
    limit = bound(x, w) if dtype != np.longdouble else bound(x.astype(float), w.astype(float))  # conductances are float64
    assert (abs(y - x @ w) <= limit).all()


@given(sizes, st.integers(0, 99))
def test_converters_of_many_bits_are_ideal_to_half_a_step(size, seed):
    """A DAC error is at most step/2 a row; an ADC error step/2 a tile, in devices fully on."""
    n, k, o = size
    x, w = normal("x", n, k, seed=seed), normal("w", k, o, seed=seed)
    dac, adc = Converter.of_bits(12), Converter.of_bits(14, 30.0)
    got = Crossbar.of_weights(w, (3, 2), dac=dac, adc=adc).multiply(x)
    largest = abs(x).max(1, keepdims=True)
    n_tiles = -(-k // 3)
    limit = largest * (dac.step / 2 * abs(w).sum(0) + n_tiles * adc.step / 2 * abs(w).max())
    assert (abs(got - x @ w) <= limit + bound(x, w)).all()
    if k > 3:  # and they are there
        assert not np.array_equal(got, Crossbar.of_weights(w, (3, 2)).multiply(x))


@pytest.mark.confirms(12, 26)
def test_scale_is_that_of_the_layer_or_of_each_tile():
    w = np.array([[1.0, 0.1, 0.0], [0.5, -0.02, 0.0]])
    assert (tile_scales(w, (2, 3)) == 25).all()
    np.testing.assert_array_equal(tile_scales(w, (2, 1), 10.0), [[10, 100, 2.0**1010]] * 2)
    assert Crossbar.of_weights(w, (1, 1), per_tile=True).g_us.max(0)[0, 1] == 25  # each tile uses its whole range
    assert Crossbar.of_weights(w, (1, 1)).g_us.max(0)[0, 1] == pytest.approx(2.5)


@pytest.mark.confirms(26)
@given(st.integers(1, 6), st.integers(1, 6), st.sampled_from([(1, 1), (2, 3), (4, 1)]), st.integers(0, 99))
def test_every_tile_uses_its_whole_range(k, o, tile, seed):
    """With a scale a tile the largest device of each is fully on, whatever the sign of its weight."""
    w = normal("w", k, o, seed=seed)
    g = Crossbar.of_weights(w, tile, per_tile=True).g_us
    for rows, columns in tiles((k, o), tile):
        assert g[:, rows, columns].max() == pytest.approx(25, rel=1e-14)
    assert (np.sign(g[0] - g[1]) == np.sign(w)).all()


@pytest.mark.confirms(25)
def test_adc_of_each_tile_clips_by_itself():
    """Two tiles of +20 and -20 devices fully on cancel on one wire, not behind two ADCs of 12 and 6."""
    w = np.concatenate([np.ones(20), -np.ones(10)])[:, None]
    x = np.ones((1, 30))
    adc = Converter(2**40 >> 10, ADC_LIMIT)
    assert Crossbar.of_weights(w, (30, 1), adc=adc).multiply(x)[0, 0] == pytest.approx(10)
    assert Crossbar.of_weights(w, (20, 1), adc=adc).multiply(x)[0, 0] == pytest.approx(12 - 10)


@pytest.mark.confirms(25)
def test_each_vector_is_scaled_by_its_own_largest_input():
    w = np.eye(3)
    x = np.array([[1.0, 0.5, 0.25], [1e-3, 5e-4, 2.5e-4], [0, 0, 0], [-1.0, 0.5, 0.25]])
    y = Crossbar.of_weights(w, dac=Converter(4)).multiply(x)  # codes -1, -.5, 0, .5, 1; .25 is a tie and goes to 0
    np.testing.assert_array_equal(y, x * [1, 1, 0])


def test_nobody_elses_writing_changes_a_crossbar():
    g_us, scale, alpha = np.full((2, 3, 2), 5.0) * [[[1.0]], [[0.5]]], np.full((3, 2), 2.0), np.array([1.0, 2.0])
    bar, x = Crossbar(g_us, scale, alpha=alpha), np.ones((1, 3))
    before = bar.multiply(x)
    for array in (g_us, scale, alpha):
        array += 1
    assert np.array_equal(bar.multiply(x), before)
    with pytest.raises(ValueError, match="read-only"):
        bar.g_us[0] += 1


# --------------------------------------------------------------------------------------------------- converters


@pytest.mark.confirms(24)
@given(st.integers(1, 300), st.floats(0.1, 20), st.sampled_from(["half-even", "half-away"]), st.integers(0, 99))
def test_a_converter_is_odd_monotone_idempotent_and_off_by_half_a_step(steps, limit, rounding, seed):
    converter = Converter(2 * steps, limit, rounding)
    x = np.sort(normal("converter", 50, seed=seed) * limit)
    q = converter.convert(x)
    ulp = 8 * np.finfo(float).eps * limit
    assert (np.diff(q) >= 0).all() and (abs(q) <= limit + ulp).all()
    np.testing.assert_array_equal(converter.convert(-x), -q)
    assert (abs(converter.convert(q) - q) <= ulp).all()
    inside = abs(x) <= limit
    assert (abs(q - x)[inside] <= converter.step / 2 + ulp).all()
    assert (abs(q[~inside]) >= limit - ulp).all()


@pytest.mark.confirms(64, 65)
@pytest.mark.parametrize("order", ["clip first", "round first"])
@pytest.mark.parametrize(("bits", "levels"), [(2, 3), (4, 15), (8, 255)])
def test_levels_of_bits(bits, levels, order):
    codes = replace(Converter.of_bits(bits, 3.0), order=order).convert(np.linspace(-4, 4, 40_001))
    assert len(np.unique(codes)) == levels and 0 in codes
    assert (codes.min(), codes.max()) == (-3, 3)


@pytest.mark.confirms(24)
def test_ties_order_and_origin_are_what_they_are_called():
    ties = np.array([-1.5, -0.5, 0.5, 1.5, 2.5])
    np.testing.assert_array_equal(Converter(10, 5.0).convert(ties), [-2, 0, 0, 2, 2])
    np.testing.assert_array_equal(Converter(10, 5.0, "half-away").convert(ties), [-2, -1, 1, 2, 3])
    x = np.array([-9.0, 0.4, 9.0])
    np.testing.assert_array_equal(Converter(5, 2.5).convert(x), [-2, 0, 2])  # 2.5 is a tie: an odd number has no code there
    np.testing.assert_array_equal(Converter(5, 2.5, order="round first").convert(x), [-2.5, 0, 2.5])
    np.testing.assert_array_equal(Converter(5, 2.5, origin="end").convert(x), [-2.5, 0.5, 2.5])


def test_what_is_not_said_is_ideal_converters_on_tiles_of_256():
    bar, w = Crossbar(np.ones((2, 3, 2)), 1.0), np.full((300, 1), 0.5)
    for default in (bar, Periphery(), Crossbar.of_weights(w)):
        assert (default.tile, default.dac, default.adc) == ((256, 256), None, None)
    assert (bar.g_max_us, bar.alpha, Converter.of_bits(8).limit, Crossbar.of_weights(w).scale) == (25, 1, 1, 50)


def test_the_narrowest_and_the_widest_converters():
    np.testing.assert_array_equal(Converter(1, 2.0, origin="end").convert(np.array([-9.0, -0.1, 0.1])), [-2, -2, 2])
    assert Converter.of_bits(32).steps == 2**32 - 2 and Converter(2**32).steps == 2**32
    with pytest.raises(SettingError, match="from 1 to 2"):
        Converter(2**32 + 1)


@pytest.mark.confirms(67)
def test_fresh_reading_meets_every_vector():
    """Equal inputs differ by the read noise, and their spread is the model's: exact to the given draws."""
    g_target, _ = Crossbar.of_weights(np.array([[0.4, -1.0], [0.2, 0.3]])).g_us, None
    bar = Crossbar(JOSHI.drift(g_target, 0.05, DAY_S), 25.0, (1, 2))
    x, z = np.array([[1.0, 0.5], [1.0, 0.5]]), normal("read", 2, 2, 2, 2)
    y = bar.multiply_reading(x, JOSHI, g_target, DAY_S, z)
    for n in range(2):
        g = JOSHI.read(bar.g_us, g_target, DAY_S, z[n])
        np.testing.assert_allclose(y[n], x[n] @ ((g[0] - g[1]) / 25), rtol=1e-13, atol=1e-15)
    assert not np.array_equal(y[0], y[1])
    still = bar.multiply_reading(x, JOSHI, g_target, DAY_S, np.zeros_like(z))
    np.testing.assert_allclose(still, bar.multiply(x), rtol=1e-14)


@pytest.mark.confirms(67)
@given(st.integers(1, 4), st.integers(1, 4), st.sampled_from([(1, 1), (2, 3), (9, 9)]), st.integers(0, 99))
def test_fresh_reading_without_noise_is_the_drifted_product(k, o, tile, seed):
    """Whatever z: the digital product with (G+ - G-)/scale."""
    g, x = 25 * draws.uniform(seed, "test crossbar/g", (2, k, o)), normal("x", 3, k, seed=seed)
    z, still = normal("z", 3, 2, k, o, seed=seed), replace(JOSHI, reads_noisily=False)
    y = Crossbar(g, 12.5, tile).multiply_reading(x, still, g, DAY_S, z)
    assert (abs(y - x @ (g[0] - g[1]) / 12.5) <= 1e-14 * (abs(x) @ g.sum(0))).all()


# ------------------------------------------------------------------------------------------------------- errors


def test_errors_name_what_is_wrong():
    for bad in ({"steps": 0}, {"steps": True}, {"steps": 4, "limit": 0}, {"steps": 4, "limit": np.nan}):
        with pytest.raises(SettingError, match="Converter: (steps|limit) must be"):
            Converter(**bad)
    for name in ("rounding", "order", "origin"):
        with pytest.raises(SettingError, match=f"{name} must be one of"):
            Converter(254, **{name: "stochastic"})
    for bits in (1, 33, True):
        with pytest.raises(SettingError, match="2 to 32 bits"):
            Converter.of_bits(bits)
    with pytest.raises(SettingError, match="rows and columns from 1"):
        tiles((3, 3), (0, 2))
    with pytest.raises(DeviceError, match=r"\[2, rows, columns\]"):
        Crossbar(np.ones((3, 2, 2)), 1.0)
    with pytest.raises(DeviceError, match="one scale above 0 a tile"):
        Crossbar(np.ones((2, 2, 2)), np.array([[1.0, 2.0], [1.0, 2.0]]))
    with pytest.raises(DeviceError, match="one scale above 0 a tile"):
        Crossbar(np.ones((2, 2, 2)), 0.0)
    with pytest.raises(DeviceError, match=r"\[N, 2\]"):
        Crossbar(np.ones((2, 2, 2)), 1.0).multiply(np.ones((1, 3)))


@pytest.mark.parametrize(
    ("option", "message"),
    [(["--tile", "256"], "rows x columns"), (["--dac", "1"], "2 to 32 bits"), (["--adc", "40"], "2 to 32")],
)
def test_the_command_names_a_bad_tile_or_converter(option, message, capsys):
    assert main(["retention", "no-such-network", *option]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.confirms(66, 84)
def test_the_read_out_voltage_fits_the_adc_and_is_a_code_of_the_dac():
    """12 devices fill the ADC: below 12/64 for 64 rows 8 bits have 23/127, below 12/50 for 50 rows 4 bits have 1/7."""
    from_the_end = Converter(255, origin="end")  # -1 + k 2/255: k = 151 is the last below 12/64
    dacs = (64, Converter.of_bits(8), 23 / 127), (50, Converter.of_bits(4), 1 / 7), (5, Converter.of_bits(4), 1.0)
    for rows, dac, voltage in (*dacs, (64, from_the_end, 151 * 2 / 255 - 1)):
        on = np.stack([np.full((rows, 2), 25.0), np.zeros((rows, 2))])
        bar = Crossbar(on, 25.0, (64, 2), dac, Converter.of_bits(20, 12.0))
        assert bar.read_out() == pytest.approx(bar.read_out(voltage=voltage), rel=1e-14)
        assert bar.read_out() == pytest.approx(rows * 2 * 25, rel=1e-5)
        lost = replace(bar, g_us=0.85 * on)  # fully on at first: any more voltage would hide a part of the loss
        assert lost.compensated(bar.read_out()).alpha == pytest.approx(1 / 0.85, rel=1e-5)
    bar = Crossbar(np.full((2, 100, 3), 12.5), 25.0, (64, 2), Converter.of_bits(2), Converter.of_bits(10, 12.0))
    for kind in ("device sum", "ones"):  # one step of 2 bits drives 64 rows out of the ADC's range
        with pytest.raises(SettingError, match="sums 64 rows: one step of the DAC, 1 of its range"):
            bar.read_out(kind)
    exact, last = replace(bar, dac=None, adc=None).read_out(), 100 % 12  # rows of the last tile
    assert abs(replace(bar, tile=(12, 2)).read_out() / exact - 1) <= bar.adc.step / 2 / last


@pytest.mark.confirms(84)
@pytest.mark.parametrize(
    "converter", [Converter(254), Converter(5, 2.5), Converter(7, 0.3, origin="end"), Converter(1, origin="end")]
)
def test_the_code_below_is_the_highest_that_is_not_above(converter):
    codes = np.unique(converter.convert(np.linspace(-1.1, 1.1, 9_001) * converter.limit))
    for x in [*codes, *(codes[:-1] + 0.7 * converter.step), 3 * converter.limit]:
        assert converter.code_below(float(x)) == pytest.approx(codes[codes <= x + 1e-12].max(), abs=1e-12)
