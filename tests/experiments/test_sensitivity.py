"""Sensitivity: every condition is what the public functions give; differences are of the same devices; the command's files."""

import csv
import dataclasses
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import pcmref
from pcmref import cli, draws
from pcmref.errors import SettingError, ShapeError
from pcmref.experiments.sensitivity import NOISES, OFF, Row, SensitivityResult, conditions, sensitivity
from pcmref.nn.adabs import BATCH_SIZE
from pcmref.pcm.mapping import crossbars
from pcmref.pcm.model import PCMModel
from pcmref.training import accuracy

NET, MODEL, DAY_S = pcmref.ResNet(1, 3, (3, 4), (1, 1)), PCMModel.joshi2020(), 86_400.0
STATE = NET.init(0)
X = draws.standard_normal(0, "test/sensitivity", (60, 8, 8, 1)).astype(np.float32)
STATE["fc.bias"] -= NET.forward(STATE, X).mean(0)  # so that no class wins always, and noise changes answers
Y = NET.forward(STATE, X).argmax(1)
BARS = crossbars(STATE)


def study(**changes) -> SensitivityResult:
    settings = {"n_chips": 2, "reads": 2, "seed": 5, "x_calibration": X[:40], "name": "tiny", "eta": 0.038}
    return sensitivity(NET, STATE, MODEL, X, Y, **(settings | changes))


@pytest.mark.parametrize("compensation", ["none", "gdc", "adabs"])
def test_every_row_is_what_the_public_functions_give(compensation):
    rows = study(compensation=compensation).rows
    assert len(rows) == (1 + 2 * len(BARS) + len(OFF) + len(NOISES)) * 2 * 2 and len({r.accuracy for r in rows}) > 10
    changed = {"programming noise": "programming", "drift": "drifts", "read noise": "reads_noisily"}
    for row in rows:
        model = MODEL
        if row.kind == "without":
            field = changed[row.what]
            model = dataclasses.replace(MODEL, **{field: (0.0,) * 3 if field == "programming" else False})
        held = pcmref.Chip.program(STATE, model, 5 + row.chip).read(DAY_S, row.read, gdc=compensation == "gdc")
        on_chip = {"only": {row.what}, "all but": set(BARS) - {row.what}}.get(row.kind, set(BARS))
        state = STATE | {name: held[name] for bar in on_chip for name in BARS[bar]}
        if row.kind == "weights":
            state = pcmref.inject_weight_noise(STATE, float(row.what), 5 + row.chip, row.read)
        elif compensation == "adabs":
            state = pcmref.adabs(NET, state, X[:40])
        assert row.accuracy == accuracy(NET, state, X, Y), row


def test_without_any_noise_nothing_is_lost():
    still = dataclasses.replace(MODEL, programming=(0.0, 0.0, 0.0), drifts=False, reads_noisily=False)
    result = sensitivity(NET, STATE, still, X, Y, n_chips=1, reads=1)
    assert {row.accuracy for row in result.rows if row.kind != "weights"} == {result.software_accuracy} == {1.0}
    assert result.values("weights", "0.0").item() == 1 > result.values("weights", "0.113").item()


def test_executors_and_what_is_kept_change_nothing():
    result, kept = study(), []
    with ThreadPoolExecutor(2) as executor:
        assert study(executor=executor) == result
    study(n_chips=1, on_chip=lambda measured: kept.append(dict(measured)))
    assert study(known=kept[-1]) == result and list(kept[-1]) == [0]


def made_up() -> SensitivityResult:
    """Software 90 %; the chip 50 %; the first crossbar costs all of it."""
    values = {(*key, read): 0.9 for key in conditions(MODEL, BARS, DAY_S, "gdc") for read in range(2)}
    values |= {("chip", "", read): 0.5 for read in range(2)}
    values |= {("all but", bar, read): 0.5 for bar in list(BARS)[1:] for read in range(2)}
    values |= {("only", "conv1.weight", read): 0.5 for read in range(2)}
    rows = tuple(Row("n", kind, what, k, read, v) for (kind, what, read), v in values.items() for k in range(5))
    return dataclasses.replace(study(), rows=rows, software_accuracy=0.9)


def test_the_crossbar_that_decides_is_named():
    result = made_up()
    text = result.table()
    assert "mean regained is that of conv1.weight, 27 weights" in text and ": 40.00 of the 40.00 points" in text
    assert "of the 40.00 points lost; it exceeds that of " in text and "the next, by 40.00 (means" in text
    line = next(line for line in text.splitlines() if line.strip().startswith("conv1.weight"))
    assert line.split()[1] == "27" and line.count("40.00 [40.00, 40.00] 40.00") == 2 and line.endswith(" 40.00")
    assert "trained with 3.8 %" in text and "figure 2" not in text


def test_those_from_which_it_is_told_are_counted():
    """The first crossbar regains .1 a chip more; the second as much or less by chance, five others nothing."""
    result, (first, second, *_) = made_up(), BARS
    changed = {("all but", first): lambda k: 0.9 + 0.001 * k, ("all but", second): lambda k: 0.9 - 0.01 * (-1) ** k}
    rows = [row._replace(accuracy=changed[row[1:3]](row.chip)) if row[1:3] in changed else row for row in result.rows]
    text = dataclasses.replace(result, rows=tuple(rows)).decisive()
    assert "it exceeds that of layer1.0.conv1.weight, the next, by 0.40 [" in text
    assert "]; to 5 of the 6 others its intervals lie above 0 (" in text
    two_chips = dataclasses.replace(result, rows=tuple(row for row in rows if row.chip < 2))
    assert "intervals lie" not in two_chips.decisive()  # they have none


def test_what_adds_up_stands_beside_what_is_lost():
    """30 points are lost; the first crossbar regains 40 and loses 30 alone, the six others 0 and -10 each."""
    result = made_up()
    drifting = [row._replace(accuracy=0.7) if row.what == "drift" else row for row in result.rows]
    text = dataclasses.replace(result, rows=tuple(drifting), software_accuracy=0.8).table()
    assert "add up to 40.00, less the loss 10.00; what each loses alone on the chip to -30.00, less the loss -60.00." in text
    assert "programming noise less drift 20.00; programming noise less read noise 0.00; drift less read noise -20.00." in text
    assert "All add up to 100.00, less the loss 70.00." in text


def test_the_papers_figure_stands_beside_the_papers_network_only():
    result = made_up()
    paper = dataclasses.replace(result, settings=result.settings | {"papers_network": True})
    head, *lines = paper.weight_lines()
    assert [line[2] for line in lines] == ["93.87", "93.73", "93.63", "93.62", "93.52", "93.28", "92.78", "91.45"]
    assert all("C+" in cell for cell in head[2:]) and [line[0] for line in lines][1:4] == ["2.6", "3.3", "3.8"]
    assert not result.settings["papers_network"]


def test_impossible_studies_are_refused():
    for change in ({"compensation": "magic"}, {"reads": 0}, {"compensation": "adabs", "x_calibration": None}):
        with pytest.raises(SettingError):
            study(**change)


def test_a_last_calibration_image_without_a_variance_is_refused_before_the_work(monkeypatch):
    """As in retention: 201 images of a pixel in batches of 200 leave one for the last, whose maps have one value a channel."""
    monkeypatch.setattr("pcmref.experiments.driver.measure_chips", lambda *_: pytest.fail("the work has begun"))
    with pytest.raises(ShapeError, match="leave one for the last"):
        study(compensation="adabs", x_calibration=np.zeros((BATCH_SIZE + 1, 1, 1, 1), np.float32))


def test_the_command_writes_its_files_and_goes_on(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    np.savez("state.npz", **STATE)
    np.savez("images.npz", images=X, labels=Y)
    arguments = ["sensitivity", "state.npz", "--data", "images.npz", "--chips", "2", "--reads", "1", "--seed", "5"]
    assert cli.main([*arguments, "--out", "whole"]) == 0
    assert "all on the chip at 1 day, gdc" in capsys.readouterr().out
    with open("whole/sensitivity.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [float(r["accuracy"]) for r in rows] == [row.accuracy for row in study(reads=1).rows]
    save = cli.resumed_study.Kept.save

    def save_and_die(self, measured):
        save(self, measured)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(cli.resumed_study.Kept, "save", save_and_die)
        assert cli.main(arguments) == 130
    assert cli.main([*arguments, "--time", "1h", "--resume"]) == 2 and "another study" in capsys.readouterr().err
    assert cli.main([*arguments, "--resume", "--executor", "threads"]) == 0
    assert (tmp_path / "out" / "sensitivity.csv").read_bytes() == (tmp_path / "whole" / "sensitivity.csv").read_bytes()
    assert not (tmp_path / "out" / "sensitivity.part.h5").exists()


def test_the_picture_is_drawn(tmp_path):
    pytest.importorskip("matplotlib", reason="matplotlib is not installed: pictures skipped")
    for name in ("a.png", "b.png"):
        made_up().plot(tmp_path / name)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
