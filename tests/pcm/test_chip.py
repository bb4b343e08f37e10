"""The chip: counts, replayable draws, compensation, files."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import pcmref
from pcmref import draws, store
from pcmref.errors import DeviceError, FileError, SettingError
from pcmref.pcm.crossbar import Converter, Periphery, multiply
from pcmref.pcm.model import PCMModel
from pcmref.pcm.moments import weight_moments

MODEL = PCMModel.joshi2020()
NET = pcmref.ResNet(1, 3, (3, 4), (1, 1))
QUIET = dataclasses.replace(MODEL, programming=(0.0, 0.0, 0.0), reads_noisily=False)
STILL = dataclasses.replace(QUIET, drifts=False)
UNIFORM = dataclasses.replace(QUIET, nu_mean_range=(0.06, 0.06), nu_std_line=(0.0, 0.0), nu_std_range=(0.0, 0.0))


U = 2.0**-53


def state_of(dtype=np.float64):
    return NET.init(0, dtype) | {"fc.bias": np.array([0.3, -0.2, 0.1], dtype)}


def test_joshi32_takes_723444_devices():
    net = pcmref.ResNet.joshi32()
    chip = pcmref.Chip.program(net.init(), MODEL)
    assert chip.n_devices == 723_444
    assert set(chip.g_prog_us) == set(chip.nu) == set(net.synaptic())
    assert chip.g_prog_us["fc.weight"].shape == (2, 10, 56) and chip.nu["fc.bias"].dtype == np.float64


def test_every_arrow_is_the_models_equation_with_its_named_draws():
    state = state_of()
    chip, name = pcmref.Chip.program(state, MODEL, seed=5), "layer1.0.conv1.weight"
    w = state[name]
    g_target, scale = pcmref.map_weights(w)
    g_prog = MODEL.program(g_target, draws.standard_normal(5, f"program/{name}", (2, *w.shape)))
    nu = MODEL.drift_exponent(g_target, draws.standard_normal(5, f"drift/{name}", (2, *w.shape)))
    z = draws.standard_normal(5, f"read/2/86400.0/{name}", (2, *w.shape))
    g = MODEL.read(MODEL.drift(g_prog, nu, 86_400.0), g_target, 86_400.0, z)
    assert np.array_equal(chip.g_target_us[name], g_target) and np.array_equal(chip.nu[name], nu)
    assert np.array_equal(chip.at(86_400, read=2).g_us[name], g)
    assert np.array_equal(chip.read(86_400, read=2)[name], pcmref.unmap_weights(g, scale))


@pytest.mark.confirms(59)
def test_the_bias_is_a_row_of_the_last_crossbar():
    """One scale for fc.weight and fc.bias, the larger of them deciding; one GDC factor."""
    state = state_of() | {"fc.bias": np.array([-9.0, 1.0, 0.5])}
    chip = pcmref.Chip.program(state, STILL)
    assert chip.scale["fc.bias"] == chip.scale["fc.weight"] == 25 / 9
    assert "fc.bias" not in chip.gdc_factors(86_400.0) and "fc.weight" in chip.gdc_factors(86_400.0)


@pytest.mark.confirms(59)
@pytest.mark.parametrize("several", [3, {"conv1.weight": 2, "fc.weight": 4}])
def test_several_devices_of_a_weight_share_its_target_and_its_scale(several):
    """Each crossbar's largest weight is at the top of the window, whatever the number of its devices."""
    model = dataclasses.replace(STILL, devices_per_weight=several, g_min_us=0.5)
    chip, state = pcmref.Chip.program(state_of(), model), state_of()
    for name, g_us in chip.g_target_us.items():
        crossbar = ["fc.weight", "fc.bias"] if name.startswith("fc") else [name]
        assert max(chip.g_target_us[n].max() for n in crossbar) == 25.0 and g_us.min() == 0.5
        n = model.devices_of(crossbar[0])
        assert (chip.g_prog_us[name].reshape(n, *g_us.shape) == g_us).all() and g_us.shape == (2, *state[name].shape)
        # both devices have a rounding each for scale and minimum, of at most 25 uS
        assert abs(g_us[0] - g_us[1] - chip.scale[name] * state[name]).max() <= 4 * 25 * U


@pytest.mark.confirms(13)
def test_without_noise_and_drift_the_chip_is_the_network():
    """Two roundings: times the scale, and divided by it."""
    state = state_of()
    read = pcmref.Chip.program(state, STILL).read(1e6, gdc=True)
    assert all(np.allclose(read[n], state[n], rtol=2.01 * U, atol=0) for n in state)


def test_digital_parts_and_dtypes_stay():
    state = state_of(np.float32)
    read = pcmref.Chip.program(state, MODEL).read(3600.0)
    assert all(read[n].dtype == np.float32 and read[n].shape == state[n].shape for n in state)
    assert all(np.array_equal(read[n], state[n]) for n in state if n not in NET.synaptic())
    assert not np.array_equal(read["conv1.weight"], state["conv1.weight"])


def writable(arrays):
    """The arrays that can be written to, each with what it holds doubled and 1 added."""
    open_ = [array for array in arrays if array.flags.writeable]
    for array in open_:
        array *= 2
        array += 1
    return open_


@pytest.mark.parametrize("periphery", [None, Periphery(), Periphery(fresh=True)])
@pytest.mark.parametrize("baseline", ["read", "programmed", "target"])
def test_nobody_elses_writing_changes_a_chip(periphery, baseline):
    """Into the state that was programmed, what a chip holds, or what it hands out: a view, its base and the array itself."""
    several = {"conv1.weight": 2}
    model = dataclasses.replace(MODEL, devices_per_weight=several, gdc_baseline=baseline)
    memory = {name: np.stack([array, array]) for name, array in state_of().items()}  # as a live network's might be shared
    state = {name: both[0] for name, both in memory.items()}
    chip, reference = pcmref.Chip.program(state, model), pcmref.Chip.program(state_of(), model)
    several["conv1.weight"] = 7
    assert len(writable([*memory.values(), *state.values()])) == 2 * len(state)
    readings = [chip.at(3600.0, periphery=periphery), chip.baseline(periphery=periphery)]
    readings += [reading.compensated() for reading in readings]
    handed = [chip.read(3600.0), chip.read(3600.0, gdc=True), chip.gdc_factors(3600.0), *(r.state() for r in readings)]
    held = [chip.state, chip.g_target_us, chip.g_prog_us, chip.nu, *(r.g_us for r in readings)]
    assert not writable(array for arrays in held for array in arrays.values())
    assert all(isinstance(array, np.ndarray) for array in handed[0].values())
    assert len(writable(array for array in handed[0].values())) == len(state)
    for arrays in handed[1:]:
        writable(array for array in arrays.values() if isinstance(array, np.ndarray))
        arrays.clear()
    assert chip.n_devices == reference.n_devices and chip.model == reference.model
    for part in ("state", "g_target_us", "g_prog_us", "nu"):
        assert all(np.array_equal(array, getattr(reference, part)[name]) for name, array in getattr(chip, part).items())
    for got, expected in ((chip, reference), *((r.chip, reference) for r in readings)):
        got, expected = got.read(3600.0, gdc=True), expected.read(3600.0, gdc=True)
        assert all(np.array_equal(got[name], array) for name, array in expected.items())


def test_factors_per_column_stay_as_a_reading_has_them():
    model = dataclasses.replace(MODEL, gdc_read_out="per column")
    factors = pcmref.Chip.program(state_of(), model).at(3600.0).compensated().factors
    assert not writable(factors.values()) and {np.ndim(alpha) for alpha in factors.values()} == {1}


@given(st.floats(20, 1e9))
@settings(max_examples=10)
def test_gdc_is_exact_under_uniform_drift_without_read_noise(t_s):
    """But for rounding: two sums of at most n devices, n - 1 each; six of scale, drift and alpha; the power to 4 ulp, twice."""
    state = state_of()
    chip = pcmref.Chip.program(state, UNIFORM)
    read, n = chip.read(t_s, gdc=True), sum(chip.g_prog_us[name].size for name in ("fc.weight", "fc.bias"))
    n = max(n, *(g.size for g in chip.g_prog_us.values()))
    assert all(np.allclose(read[name], w, rtol=1.01 * (2 * (n - 1) + 6 + 2 * 8) * U, atol=0) for name, w in state.items())


@pytest.mark.confirms(15)
def test_gdc_factors_are_summed_currents_at_t0_over_those_at_t():
    chip = pcmref.Chip.program(state_of(), MODEL, seed=1)
    g0, g = chip.at(20.0, 3).g_us, chip.at(86_400.0, 3).g_us
    for bar, alpha in chip.gdc_factors(86_400.0, 3).items():
        names = ["fc.weight", "fc.bias"] if bar == "fc.weight" else [bar]
        assert alpha == sum(g0[n].sum() for n in names) / sum(g[n].sum() for n in names)
        assert alpha > 1
    assert set(chip.gdc_factors(20.0, 3).values()) == {1.0}


def test_a_reading_holds_what_read_and_gdc_factors_give_and_each_reading_is_drawn_once(monkeypatch):
    chip = pcmref.Chip.program(state_of(), MODEL, seed=1)
    reading = chip.at(86_400.0, 3)
    kept = reading.compensated(chip.baseline(3))
    assert reading.factors is None and kept.factors == chip.gdc_factors(86_400.0, 3)
    assert all(kept.g_us[name] is g_us for name, g_us in reading.g_us.items())  # read-only, so one for both
    for state, gdc in ((reading.state(), False), (kept.state(), True)):
        assert all(np.array_equal(state[name], w) for name, w in chip.read(86_400.0, 3, gdc).items())
    drawn, draw = [], draws.standard_normal
    monkeypatch.setattr(draws, "standard_normal", lambda seed, name, shape: drawn.append(name) or draw(seed, name, shape))
    chip.read(86_400.0, 3, gdc=True)
    assert sorted(drawn) == sorted(f"read/3/{t_s}/{name}" for t_s in ("20.0", "86400.0") for name in chip.nu)


def test_gdc_has_no_effect_on_predictions_after_adabs():
    """One number a layer drops out of the recalibrated batch norm; the last stays.

    To the bit for powers of 2, where weights are so large that epsilon is below half an ulp of every variance.
    """
    x = draws.standard_normal(0, "test/chip", (200, 8, 8, 1))
    reading = pcmref.Chip.program({k: 1e9 * v if v.ndim == 4 else v for k, v in state_of().items()}, MODEL, seed=2).at(86_400.0)
    gdc = reading.compensated()
    exact = dataclasses.replace(gdc, factors={bar: 2.0 ** (k % 3 + 1) for k, bar in enumerate(gdc.factors)})
    recalibrated = [pcmref.adabs(NET, r.state(), x) for r in (reading, gdc, exact)]
    plain, compensated, powers = (NET.forward(state, x) for state in recalibrated)
    assert np.array_equal(exact.factors["fc.weight"] * plain, powers)
    assert np.array_equal(compensated.argmax(1), plain.argmax(1)) and len(set(plain.argmax(1))) > 1


@given(st.integers(1, 4), st.integers(2, 4), st.integers(0, 99))
@settings(max_examples=10, deadline=None)
def test_several_devices_of_a_sign_are_devices_each_and_their_mean_is_read(stem, last, seed):
    """With their named draws; the first of them is the one of a chip with one, and other crossbars stay to the bit."""
    several = {"conv1.weight": stem, "fc.weight": last}
    chip = pcmref.Chip.program(state_of(), dataclasses.replace(MODEL, devices_per_weight=several), seed)
    single = pcmref.Chip.program(state_of(), MODEL, seed)
    devices = {"conv1.weight": stem, "fc.weight": last, "fc.bias": last}
    assert chip.n_devices == sum(devices.get(name, 1) * g.size for name, g in single.g_target_us.items())
    reading, programmed = (
        chip.at(3600.0, 1),
        dataclasses.replace(chip, model=dataclasses.replace(chip.model, gdc_baseline="programmed")),
    )
    for name, g in single.g_target_us.items():
        n = devices.get(name, 1)
        shape = g.shape if n == 1 else (n, *g.shape)
        assert chip.g_prog_us[name].shape == chip.nu[name].shape == shape and reading.g_us[name].shape == g.shape
        assert np.array_equal(chip.g_prog_us[name].reshape(n, *g.shape)[0], single.g_prog_us[name])
        assert np.array_equal(chip.nu[name].reshape(n, *g.shape)[0], single.nu[name])
        g_prog, nu, z = (
            draws.standard_normal(seed, f"{what}/{name}", shape).reshape(n, *g.shape)
            for what in ("program", "drift", "read/1/3600.0")
        )
        g_prog = [MODEL.program(g, one) for one in g_prog]
        each = [
            MODEL.read(MODEL.drift(p, MODEL.drift_exponent(g, v), 3600.0), g, 3600.0, r)
            for p, v, r in zip(g_prog, nu, z, strict=True)
        ]
        assert np.array_equal(reading.g_us[name], np.mean(each, 0) if n > 1 else each[0])
        assert np.array_equal(programmed.baseline().g_us[name], np.mean(g_prog, 0) if n > 1 else g_prog[0])


def test_devices_per_weight_is_a_number_for_all_or_for_named_crossbars(tmp_path):
    every = pcmref.Chip.program(state_of(), dataclasses.replace(MODEL, devices_per_weight=3))
    assert every.n_devices == 3 * pcmref.Chip.program(state_of(), MODEL).n_devices
    for model in (every.model, dataclasses.replace(MODEL, devices_per_weight={"conv1.weight": 2})):
        chip = pcmref.Chip.program(state_of(), model)
        chip.save(tmp_path / "chip.h5")
        again = pcmref.Chip.load(tmp_path / "chip.h5")
        assert again.model == model and again.n_devices == chip.n_devices
        assert all(np.array_equal(again.at(60.0).g_us[name], g) for name, g in chip.at(60.0).g_us.items())
    with pytest.raises(SettingError, match="conv9.weight.*crossbars are.*conv1.weight"):
        pcmref.Chip.program(state_of(), dataclasses.replace(MODEL, devices_per_weight={"conv9.weight": 2}))


CONVERTERS = Converter.of_bits(8), Converter.of_bits(8, 12.0)


@pytest.mark.parametrize("small", [0.0, 1e-310, 1e-200, 1e-12])
@pytest.mark.parametrize("periphery", [Periphery(), Periphery((4, 2), *CONVERTERS), Periphery(fresh=True)])
def test_a_network_with_a_crossbar_of_zeros_is_the_limit_of_one_whose_weights_go_to_zero(small, periphery):
    """Devices of zeros hold conductance like any other: as weights, and in the logits, it is worth no more than the limit."""
    names, x = ("fc.weight", "fc.bias"), draws.standard_normal(0, "test/zeros", (5, 8, 8, 1))
    state = state_of() | {name: small * state_of()[name] for name in names}
    chip = pcmref.Chip.program(state, MODEL)
    assert all(chip.g_prog_us[name].any() for name in names)
    reading = chip.at(86_400.0, periphery=periphery).compensated()
    assert reading.factors["fc.weight"] >= 1  # an ADC may see no current
    limit = max(small, 1e-300)
    for got in (NET.forward(chip.read(86_400.0, gdc=True), x), NET.forward(reading.state(), x, product=multiply)):
        assert np.isfinite(got).all() and abs(got).max() <= 10 * limit
    for name in names:
        mean, variance = weight_moments(MODEL, chip.g_target_us[name], chip.scale[name], 86_400.0)
        assert abs(mean).max() <= limit and np.sqrt(variance).max() <= limit


def test_readings_are_independent_and_repeatable_and_chips_differ():
    state = state_of()
    chip = pcmref.Chip.program(state, MODEL, seed=0)
    first = chip.read(3600.0)["fc.weight"]
    assert np.array_equal(pcmref.Chip.program(state, MODEL, seed=0, workers=1).read(3600, workers=1)["fc.weight"], first)
    assert not np.array_equal(chip.read(3600.0, read=1)["fc.weight"], first)
    assert np.array_equal(chip.read(3600.0, read=0)["fc.weight"], first)
    assert chip.gdc_factors(3600.0) == chip.gdc_factors(3600.0, read=0)  # the first reading has number 0
    for one, other in ((chip.at(3600.0), chip.at(3600.0, read=0)), (chip.baseline(), chip.baseline(read=0))):
        assert one.read == other.read and all(np.array_equal(one.g_us[name], g) for name, g in other.g_us.items())
    assert not np.array_equal(chip.read(3601.0)["fc.weight"], first)
    assert not np.array_equal(pcmref.Chip.program(state, MODEL, seed=1).g_prog_us["fc.weight"], chip.g_prog_us["fc.weight"])


@pytest.mark.confirms(61)
def test_profiles_reach_the_chip():
    """Collapsed pairs keep one device at zero; Q_s of the programmed conductance changes the reading and nothing else."""
    state = state_of()
    collapsed = pcmref.Chip.program(state, dataclasses.replace(MODEL, pair="collapsed"))
    kept = pcmref.Chip.program(state, MODEL)
    assert all((g.min(0) == 0).all() for g in collapsed.g_prog_us.values())
    net = {n: g[0] - g[1] for n, g in kept.g_prog_us.items()}
    assert all(np.array_equal(g[0] - g[1], net[n]) for n, g in collapsed.g_prog_us.items())
    programmed = pcmref.Chip.program(state, dataclasses.replace(MODEL, q_argument="programmed"))
    assert np.array_equal(programmed.g_prog_us["fc.weight"], kept.g_prog_us["fc.weight"])
    assert not np.array_equal(programmed.read(100.0)["fc.weight"], kept.read(100.0)["fc.weight"])


def test_a_time_before_t0_is_an_error():
    chip = pcmref.Chip.program(state_of(), MODEL)
    for call in (chip.read, chip.at, chip.gdc_factors):
        with pytest.raises(DeviceError, match="t_0"):
            call(10.0)


def test_a_chip_comes_back_from_its_file(tmp_path):
    chip = pcmref.Chip.program(state_of(np.float32), PCMModel.aihwkit(), seed=4)
    chip.save(tmp_path / "chip.h5")
    again = pcmref.Chip.load(tmp_path / "chip.h5")
    assert again.model == chip.model and again.seed == 4 and again.scale == chip.scale
    a, b = chip.read(86_400.0, gdc=True), again.read(86_400.0, gdc=True)
    assert all(np.array_equal(a[n], b[n]) and a[n].dtype == b[n].dtype for n in a)


@pytest.mark.parametrize(
    "change",
    [
        lambda meta, arrays: arrays.pop("nu/fc.bias"),
        lambda meta, arrays: arrays.update({"nu/fc.bias": np.zeros((2, 4))}),
        lambda meta, arrays: arrays.update({"nu/fc.bias": np.full((2, 3), np.nan)}),
        lambda meta, arrays: arrays.update({"g_prog_us/fc.bias": np.full((2, 3), -1.0)}),
        lambda meta, arrays: arrays.update({"elsewhere/fc.bias": np.zeros((2, 3))}),
        lambda meta, arrays: meta["model"].update(t_0_s=-1),
        lambda meta, arrays: meta["model"].update(unknown=1),
        lambda meta, arrays: meta["model"].update(t_r_s=[1, 2]),
        lambda meta, arrays: meta["model"].update(q_factor="a"),
        lambda meta, arrays: arrays.update({"g_prog_us/fc.bias": np.full((2, 3), 1e300)}),
        lambda meta, arrays: arrays.update({"state/fc.weight": np.zeros((0, 4))}),
        lambda meta, arrays: meta.pop("model"),
        lambda meta, arrays: meta.update(seed="0"),
    ],
)
def test_a_file_that_is_no_chip_is_refused(tmp_path, change):
    pcmref.Chip.program(state_of(), MODEL).save(tmp_path / "chip.h5")
    meta, arrays = store.read(tmp_path / "chip.h5", "chip")
    change(meta, arrays)
    store.write(tmp_path / "chip.h5", "chip", meta, arrays)
    with pytest.raises(FileError, match="chip.h5"):
        pcmref.Chip.load(tmp_path / "chip.h5")


def test_a_reading_number_means_the_same_in_every_integer_type_and_nothing_else_is_one():
    chip = pcmref.Chip.program(state_of(), MODEL)
    expected = chip.read(100.0, read=1)["fc.bias"]
    assert np.array_equal(chip.read(100, read=np.int8(1))["fc.bias"], expected)
    for bad in (1.0, True, "1", None):
        with pytest.raises(SettingError, match="read"):
            chip.read(100.0, read=bad)


@pytest.mark.parametrize(
    ("value", "message"),
    [(np.array([1, 2, -3]), "floating"), (np.array([1.0, np.nan, 0]), "fc.bias.*NaN"), (np.zeros((0,)), "fc.bias")],
)
def test_weights_that_cannot_be_programmed_are_named(value, message):
    with pytest.raises(DeviceError, match=message):
        pcmref.Chip.program(state_of() | {"fc.bias": value}, MODEL)
    with pytest.raises(SettingError, match="PCMModel"):
        pcmref.Chip.program(state_of(), "joshi2020")
