"""Devices from measurements: what was drawn from a model is recovered, what cannot be told is said, bad tables are named."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import integrate, stats

from pcmref import PCMModel, draws
from pcmref.cli import main
from pcmref.errors import DeviceError, FileError
from pcmref.files.devices import read_device, read_measurements
from pcmref.pcm import fit
from pcmref.pcm.fit import Readings, clipped_line, fit_device, log_likelihood

JOSHI = PCMModel.joshi2020()
TARGETS_US = (0.0, 0.5, 2.5, 12.5, 25.0)
TIMES_S = (20.0, 3_600.0, 86_400.0)


def measured(model, targets_us=TARGETS_US, n=150, times_s=TIMES_S, reads=2, seed=0) -> dict[str, np.ndarray]:
    """The columns of a table of measurements, drawn from a model: n devices a target."""
    g_us = np.repeat(targets_us, n)
    g_prog = model.program(g_us, draws.standard_normal(seed, "program", g_us.shape))
    nu = model.drift_exponent(g_us, draws.standard_normal(seed, "drift", g_us.shape))
    rows = []
    for t_s in times_s:
        for read in range(reads):
            z = draws.standard_normal(seed, f"read/{read}/{t_s}", g_us.shape)
            g = model.read(model.drift(g_prog, nu, t_s), g_us, t_s, z)
            rows.append((np.arange(len(g_us)), g_us, np.full(len(g_us), t_s), g))
    return dict(zip(("device", "target_us", "t_s", "g_us"), map(np.concatenate, zip(*rows, strict=True)), strict=True))


def fitted(model=JOSHI, base=JOSHI, **settings):
    return fit_device(Readings.of_rows(**measured(model, **settings)), base, "mine")


def test_the_likelihood_of_a_device_is_its_integral():
    """By the trapezoidal rule over G_P and nu, of densities as scipy has them; readings of 0 and gaps among them."""
    readings = Readings(
        np.array([2.5, 2.5, 0.0]),
        np.array([[20.0, 20.0, 3600.0], [20.0, np.nan, np.nan], [20.0, 3600.0, 3600.0]]),
        np.array([[2.1, 2.6, 1.4], [2.9, np.nan, np.nan], [0.3, 0.0, 0.2]]),
    )
    std_us, mean, spread, q = values = np.array([0.45, 0.06, 0.02, 0.15])
    got, _ = log_likelihood(values, readings, JOSHI)
    nu, g_prog = np.linspace(mean - 8 * spread, mean + 8 * spread, 201)[:, None], np.linspace(1e-4, 6, 4001)[None]
    for device, (target, t_s, g_us) in enumerate(zip(readings.target_us, readings.t_s, readings.g_us, strict=True)):
        density = stats.norm.pdf(g_prog, target, std_us) * stats.norm.pdf(nu, mean, spread)
        for t, g in zip(t_s[np.isfinite(g_us)], g_us[np.isfinite(g_us)], strict=True):
            g_drift, r = g_prog * (t / 20) ** -nu, q * np.sqrt(JOSHI.read_band(t))
            density = density * (stats.norm.pdf(g, g_drift, r * g_drift) if g > 0 else stats.norm.cdf(-1 / r))
        wanted = integrate.trapezoid(integrate.trapezoid(density, g_prog[0], axis=1), nu[:, 0])
        assert got[device] == pytest.approx(np.log(wanted), abs=2e-3)


def test_a_device_that_reads_nothing_may_be_empty():
    """All readings 0: programmed to 0, or each of them clipped."""
    r = 0.2 * np.sqrt(JOSHI.read_band(20.0))
    readings = Readings(np.array([0.1]), np.full((1, 2), 20.0), np.zeros((1, 2)))
    got, _ = log_likelihood(np.array([0.3, 0.1, 0.04, 0.2]), readings, JOSHI)
    empty = stats.norm.cdf(-0.1 / 0.3)
    assert got[0] == pytest.approx(np.log(empty + (1 - empty) * stats.norm.cdf(-1 / r) ** 2), rel=1e-12)


def test_what_was_drawn_from_a_model_is_recovered():
    """14 numbers, each with an interval of nominal 95 %: three missed have a probability of 3 %, four of .4 %."""
    made = replace(JOSHI, programming=(0.2, 1.5, -0.6), nu_mean_range=(0.04, 0.09), q_factor=0.012, q_exponent=-0.5)
    result = fitted(made, n=250)
    truth = {(e.constant, e.index): np.atleast_1d(getattr(made, e.constant))[e.index or 0] for e in result.estimates}
    assert len(truth) == 14 and not result.notes and not result.misfits
    missed = [e for e in result.estimates if not e.low <= truth[e.constant, e.index] <= e.high]
    assert len(missed) <= 3
    for e in result.estimates:
        assert abs(e.value - truth[e.constant, e.index]) < 2 * (e.high - e.low)
        assert e.value == np.atleast_1d(getattr(result.model, e.constant))[e.index or 0]
    assert (result.model.g_max_us, result.model.t_0_s) == (25.0, 20.0)


@pytest.mark.parametrize(
    ("settings", "says", "untold"),
    [
        ({"times_s": (20.0,), "reads": 1}, "drift cannot be told", {"nu_mean_line", "nu_std_range", "q_max"}),
        ({"times_s": (20.0,), "reads": 3}, "drift cannot be told", {"nu_mean_line", "nu_std_range"}),
        ({"times_s": (20.0, 86_400.0), "reads": 1}, "read noise cannot be told", {"q_factor", "q_exponent", "q_max"}),
        ({"targets_us": (12.5,)}, "one target", {"q_exponent", "q_max", "nu_mean_line", "nu_std_line"}),
    ],
)
def test_what_readings_cannot_tell_is_said_and_stays_the_bases(settings, says, untold):
    result = fitted(n=40, **settings)
    assert any(says in note for note in result.notes)
    told = {e.constant for e in result.estimates if e.low is not None}
    assert "programming" in told and not told & untold
    for name in untold:
        assert getattr(result.model, name) == getattr(JOSHI, name)


def test_devices_without_drift_and_read_noise_are_known_as_such():
    result = fitted(PCMModel.crosssim(), targets_us=(0.25, 2.5, 12.5, 25.0), n=100)
    assert (result.model.drifts, result.model.reads_noisily) == (False, False)
    assert {e.constant for e in result.estimates} == {"programming"} and len(result.notes) == 2
    for level, target in zip(result.levels, (0.25, 2.5, 12.5, 25.0), strict=True):
        assert abs(level.values[0] - PCMModel.crosssim().programming_std_us(target)) < 4 * level.std[0]


def test_where_the_law_does_not_hold_is_said():
    """Programming errors of Student's t with 3 degrees of freedom in place of Gaussian ones."""
    columns = measured(JOSHI, targets_us=(12.5,), n=600, reads=2)
    extra = stats.t(3).ppf(draws.uniform(5, "tails", (600,)))
    columns["g_us"] = columns["g_us"] * np.tile(np.exp(0.15 * extra), 6)
    result = fit_device(Readings.of_rows(**columns), JOSHI, "mine")
    assert [line.split(" is not")[0] for line in result.misfits] == ["programming at 12.5 uS"]


@pytest.mark.parametrize("what", ["drift", "read noise"])
def test_where_drift_or_repeats_are_not_of_the_law_is_said(what):
    """A fifth of the devices drifts ten times faster after a day, or repeats ten times worse."""
    columns = measured(JOSHI, targets_us=(12.5,), n=600, reads=2)
    odd, z = columns["device"] % 5 == 0, draws.standard_normal(5, "odd", columns["g_us"].shape)
    if what == "drift":
        columns["g_us"] = np.where(odd & (columns["t_s"] > 1e4), 0.3 * columns["g_us"], columns["g_us"])
    else:
        columns["g_us"] = np.where(odd, np.maximum(columns["g_us"] * (1 + 0.4 * z), 0), columns["g_us"])
    result = fit_device(Readings.of_rows(**columns), JOSHI, "mine")
    assert f"{what} at 12.5 uS is not distributed" in " ".join(result.misfits)


def test_devices_that_are_read_once_each_tell_no_drift_at_whatever_times():
    """The times differ between devices only."""
    columns = measured(JOSHI, targets_us=(2.5, 25.0), n=40, times_s=(20.0, 86_400.0), reads=1)
    keep = (columns["device"] % 2 == 0) == (columns["t_s"] == 20.0)
    result = fit_device(Readings.of_rows(**{name: column[keep] for name, column in columns.items()}), JOSHI, "mine")
    assert {e.constant for e in result.estimates} == {"programming"}
    assert result.notes[0] == "one time a device: drift cannot be told" and result.model.nu_mean_line == JOSHI.nu_mean_line


def test_a_table_that_would_not_fit_in_memory_is_refused(monkeypatch):
    """One device with as many readings as there are devices: their square."""
    monkeypatch.setattr(fit, "LARGEST", 100)
    device = np.array([*range(11), *[0] * 10])
    with pytest.raises(DeviceError, match="11 devices, of which one has 11 readings: over 100 places"):
        Readings.of_rows(device, np.ones(21), np.full(21, 20.0), np.ones(21))


def test_gaps_rows_in_any_order_and_names_of_devices_change_nothing():
    columns = measured(JOSHI, targets_us=(2.5, 25.0), n=30)
    order = np.argsort(draws.uniform(3, "order", (len(columns["g_us"]),)))
    mixed = {name: column[order] for name, column in columns.items()} | {
        "device": np.char.mod("d%05d", columns["device"][order])
    }
    a, b = (Readings.of_rows(**c) for c in (columns, mixed))
    for field in ("target_us", "t_s"):
        np.testing.assert_array_equal(getattr(a, field), getattr(b, field))
    np.testing.assert_array_equal(np.sort(a.g_us, 1), np.sort(b.g_us, 1))


def test_a_clipped_line_is_found_whichever_way_it_runs():
    x = np.array([0.0, 0.02, 0.1, 0.2, 0.4, 0.7, 1.0])
    log_x = np.log(np.maximum(x, 1e-300))
    for slope, intercept, low, high in ((-0.02, 0.01, 0.02, 0.06), (0.02, 0.09, 0.02, 0.08)):
        y = np.clip(slope * log_x + intercept, low, high)
        law = clipped_line(x, y, np.full(7, 1e-4), (True, True))
        assert law[:2] == pytest.approx((slope, intercept)) and sorted(law[2:]) == pytest.approx([low, high])
        np.testing.assert_allclose(fit.value_of(law, log_x), y)
    law = clipped_line(x, np.full(7, 0.05), np.full(7, 1e-3), (True, True))
    assert np.nanmax(law[2:]) == pytest.approx(0.05) and np.isnan(law[:2]).all()


def test_too_few_devices_and_impossible_settings_are_refused():
    with pytest.raises(DeviceError, match="19 devices of target 0 uS: a fit needs 20"):
        fitted(n=19)
    with pytest.raises(DeviceError, match="target of 25 uS is above G_max, 20 uS"):
        fit_device(Readings.of_rows(**measured(JOSHI, n=20)), JOSHI, "mine", g_max_us=20.0)
    with pytest.raises(DeviceError, match="no longer than a reading"):
        fit_device(
            Readings.of_rows(**measured(replace(JOSHI, t_0_s=1e-6), n=20, times_s=(1e-6,))), replace(JOSHI, t_r_s=1e-3), "mine"
        )


HEAD = "device,target_us,t_s,g_us\n"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "needs the columns"),
        ("device,target_us,g_us\na,1,1\n", "'t_s'"),
        ("device,target_us,t_s,g_us,g_us\n", "'g_us'"),
        (HEAD, "holds no readings"),
        (HEAD + "a,2.5,20,x\n", "row 2: g_us must be a number from 0.*'x'"),
        (HEAD + "a,2.5,20,2.1\nb,2.5,0,2.1\n", "row 3: t_s must be"),
        (HEAD + "a,2.5,20,-2.1\n", "row 2: g_us"),
        (HEAD + "a,inf,20,2.1\n", "row 2: target_us"),
        (HEAD + "a,2.5\n", "row 2: t_s"),
        (HEAD + "a,2.5,20,2.1\na,5.0,20,2.1\n", "device 'a' has two targets"),
        (HEAD + "a,2.5e-6,20,2.1e-6\n", "siemens must be multiplied by 1e6"),
    ],
)
def test_what_is_wrong_in_a_table_is_named(tmp_path, text, says):
    path = tmp_path / "table.csv"
    path.write_text(text)
    with pytest.raises(FileError, match=f"table.csv.*{says}"):
        read_measurements(path)


def test_a_table_may_have_gaps_blanks_other_columns_and_a_byte_order_mark(tmp_path):
    path = tmp_path / "table.csv"
    path.write_bytes(
        b"\xef\xbb\xbft_s, g_us,device,note,target_us\n20, 2.1 ,a,x,2.5\n\n60,,a,,2.5\n60,nan,b,,2.5\n20,0,b\n".replace(
            b"0,b\n", b"0,b,,2.5\n"
        )
    )
    readings = read_measurements(path)
    assert readings.g_us.tolist() == [[2.1], [0.0]] and readings.target_us.tolist() == [2.5, 2.5]


def test_the_command_writes_a_device_that_the_experiments_take(tmp_path, capsys):
    columns, path = measured(JOSHI, targets_us=(0.0, 2.5, 25.0), n=30), tmp_path / "table.csv"
    lines = [",".join(map(str, row)) for row in zip(*columns.values(), strict=True)]
    path.write_text(HEAD + "\n".join(lines) + "\n")
    assert main(["device", "fit", str(path), "--out", str(tmp_path / "mine.toml"), "--based-on", "aihwkit"]) == 0
    out = capsys.readouterr().out
    assert "programming[0]" in out and "95 %" in out
    model = read_device(tmp_path / "mine.toml")
    assert (model.name, model.gdc_read_out, model.nu_law) == ("mine", "one-hot", "gaussian")
    assert (tmp_path / "mine.png").read_bytes().startswith(b"\x89PNG")
