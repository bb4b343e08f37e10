"""Retention: what the rows mean, what they share, and their files."""

import csv
import dataclasses
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context

import numpy as np
import pytest

import pcmref
from pcmref import draws, store
from pcmref.errors import DeviceError, FileError, SettingError, ShapeError
from pcmref.experiments.retention import RetentionResult, Row
from pcmref.pcm.model import PCMModel
from pcmref.training import accuracy

NET, MODEL = pcmref.ResNet(1, 3, (3, 4), (1, 1)), PCMModel.joshi2020()
STATE = NET.init(0)
X = draws.standard_normal(0, "test/study", (60, 8, 8, 1)).astype(np.float32)
STATE["fc.bias"] -= NET.forward(STATE, X).mean(0)  # so that no class wins always, and noise changes answers
Y = NET.forward(STATE, X).argmax(1)  # what the network says in software, so that accuracy is agreement with it
CALIBRATION = draws.standard_normal(1, "test/study", (40, 8, 8, 1)).astype(np.float32)


def study(**changes):
    settings = {"times_s": (20.0, 86_400.0), "n_chips": 2, "seed": 5, "x_calibration": CALIBRATION, "name": "tiny"}
    return pcmref.retention(NET, STATE, MODEL, X, Y, **(settings | changes))


def test_every_row_is_what_the_public_functions_give():
    rows = study(reads=2).rows
    assert len(rows) == 2 * 2 * 2 * 3 and [r.compensation for r in rows[::8]] == ["none", "gdc", "adabs"]
    assert [(r.t_s, r.chip, r.read) for r in rows[:8]] == [(t, k, n) for t in (20.0, 86_400.0) for k in (0, 1) for n in (0, 1)]
    for row in rows:
        chip = pcmref.Chip.program(STATE, MODEL, seed=5 + row.chip)
        state = chip.read(row.t_s, read=row.read, gdc=row.compensation == "gdc")
        if row.compensation == "adabs":
            state = pcmref.adabs(NET, state, CALIBRATION)
        assert row.accuracy == accuracy(NET, state, X, Y) and row.name == "tiny"


def test_without_noise_and_drift_the_chip_is_as_good_as_the_software():
    still = dataclasses.replace(MODEL, programming=(0.0, 0.0, 0.0), drifts=False, reads_noisily=False)
    result = pcmref.retention(NET, STATE, still, X, Y, n_chips=1, compensations=("none", "gdc"))
    assert {row.accuracy for row in result.rows} == {result.software_accuracy} == {1.0}


@pytest.mark.parametrize("kind", ["threads", "processes"])
def test_an_executor_changes_nothing(kind):
    pool = ThreadPoolExecutor(2) if kind == "threads" else ProcessPoolExecutor(2, get_context("spawn"))
    with pool as executor:
        assert study(executor=executor) == study(workers=1)


def test_more_reads_and_more_chips_leave_those_that_were_there():
    few = study().rows
    more = study(reads=3, n_chips=3).rows
    assert set(few) < set(more) and len({row.accuracy for row in more if row.t_s > 20}) > 3


def test_progress_reaches_the_total():
    seen = []
    study(progress=lambda done, total: seen.append((done, total)))
    assert seen == [(i, 12) for i in range(13)]
    seen.clear()
    with ThreadPoolExecutor(1) as executor:
        study(progress=lambda done, total: seen.append((done, total)), executor=executor)
    assert seen == [(0, 12), (6, 12), (12, 12)]


def made_up():
    values = {"none": (0.5, 0.7), "gdc": (0.9, 0.8)}
    rows = tuple(Row("n", c, t, k, 0, a) for c, v in values.items() for t in (20.0, 86_400.0) for k, a in enumerate(v))
    return RetentionResult("n", rows, 0.95, {"n_images": 10})


def test_summary_and_table():
    result = made_up()
    first = result.summary()[0]
    assert (
        (first.compensation, first.t_s) == ("none", 20.0)
        and first.mean == pytest.approx(0.6)
        and first.std == pytest.approx(0.2 / np.sqrt(2))
    )
    meaning, _, *lines = result.table().splitlines()
    assert meaning == "median [lowest, highest] mean" and len(lines) == 3
    assert lines[0].split() == ["time", "software", "none", "gdc"] and lines[2].split("  ")[0] == "1 day"
    assert "60.00 [50.00, 70.00] 60.00" in lines[1] and "95.00" in lines[1] and len({len(line) for line in lines}) == 1
    single = dataclasses.replace(result, rows=tuple(r for r in result.rows if r.chip == 0))
    assert "[" not in single.table() and np.isnan(single.summary()[0].std) and result.size() == "10 images, 2 chips, 1 read"


def test_the_table_of_several_reads_tells_chips_from_reads():
    assert "without intervals: fewer than 5 chips" in study(reads=3).table()
    result = study(reads=3, n_chips=5)
    text = result.table()
    assert "between the reads of a chip" in text and "by bootstrap over chips, nominal 95 %" in text
    for s, line in zip(sorted(result.summary(), key=lambda s: s.t_s), text.splitlines()[-6:], strict=True):
        for value, interval in ((s.between, s.between_interval), (s.within, s.within_interval)):
            shown = f" [{100 * interval[0]:.2f}, {100 * interval[1]:.2f}]" if value > 0 else ""  # 0 is not told from more
            assert f"{100 * value:.2f}{shown}" in line and "nan" not in line
    with pytest.raises(SettingError, match="equally often"):
        dataclasses.replace(result, rows=result.rows[:-1]).summary()


def test_csv_and_hdf5_come_back(tmp_path):
    result = study()
    result.to_csv(tmp_path / "r.csv")
    with open(tmp_path / "r.csv", newline="") as file:
        read = list(csv.DictReader(file))
    assert list(read[0]) == ["name", "compensation", "t_s", "chip", "read", "accuracy"]
    for line, row in zip(read, result.rows, strict=True):
        assert (line["name"], line["compensation"], int(line["chip"]), int(line["read"])) == (*row[:2], row.chip, row.read)
        assert float(line["t_s"]) == row.t_s and float(line["accuracy"]) == row.accuracy
    result.to_hdf5(tmp_path / "r.h5")
    again = RetentionResult.from_hdf5(tmp_path / "r.h5")
    assert again.rows == result.rows and again.software_accuracy == result.software_accuracy
    assert again.settings["n_images"] == 60


@pytest.mark.parametrize(
    "change",
    [
        lambda meta, arrays: arrays.pop("t_s"),
        lambda meta, arrays: meta.pop("compensations"),
        lambda meta, arrays: arrays.update(compensation=np.array([7] * 12)),
        lambda meta, arrays: arrays.update(t_s=np.zeros(3)),
        lambda meta, arrays: meta.update(software_accuracy="x"),
        lambda meta, arrays: meta.update(software_accuracy=7),
        lambda meta, arrays: meta.update(software_accuracy=10**400),
        lambda meta, arrays: meta.update(compensations=["evil"] * 3),
        lambda meta, arrays: arrays.update(compensation=np.array([-1] * 12)),
        lambda meta, arrays: arrays.update(compensation=np.array([np.inf] * 12)),
        lambda meta, arrays: arrays.update(accuracy=np.full(12, np.nan)),
        lambda meta, arrays: arrays.update(t_s=np.full(12, -5.0)),
    ],
)
def test_a_file_that_is_no_result_is_refused(tmp_path, change):
    study().to_hdf5(tmp_path / "r.h5")
    meta, arrays = store.read(tmp_path / "r.h5", "retention")
    change(meta, arrays)
    store.write(tmp_path / "r.h5", "retention", meta, arrays)
    with pytest.raises(FileError, match="r.h5"):
        RetentionResult.from_hdf5(tmp_path / "r.h5")


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"times_s": (10.0,)}, DeviceError, "t_0"),
        ({"times_s": ()}, SettingError, "times"),
        ({"times_s": (20.0, 20.0)}, SettingError, "differ"),
        ({"compensations": ("magic",)}, SettingError, "magic"),
        ({"compensations": ()}, SettingError, "compensations"),
        ({"n_chips": 0}, SettingError, "n_chips"),
        ({"reads": 0}, SettingError, "reads"),
        ({"x_calibration": None}, SettingError, "x_calibration"),
    ],
)
def test_an_impossible_study_is_refused_before_it_starts(change, error, message):
    with pytest.raises(error, match=message):
        study(**change)


@pytest.mark.parametrize("labels", [Y[:-1], Y * 0 + 7, Y * 0 - 1, Y + 0.5, Y.astype(str), Y > 0])
def test_labels_must_fit(labels):
    with pytest.raises(ShapeError, match="labels"):
        pcmref.retention(NET, STATE, MODEL, X, labels, compensations=("none",))


def test_images_that_are_not_numbers_have_no_accuracy():
    for changes in ({"x": np.full_like(X, np.nan)}, {"x_calibration": np.full_like(CALIBRATION, np.inf)}):
        with pytest.raises(ShapeError, match="NaN"):
            pcmref.retention(NET, STATE, MODEL, **({"x": X, "labels": Y, "x_calibration": CALIBRATION} | changes))


def test_numpy_numbers_and_generators_are_as_good_as_pythons():
    times = (np.float32(20.0), np.int64(86_400))
    assert (
        study(times_s=iter(times), compensations=iter(("none", "gdc", "adabs")), n_chips=np.int8(2), seed=np.uint8(5))
        == study()
    )
