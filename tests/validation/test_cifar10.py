"""`make cifar10`: train, measure, report, on a small CIFAR-10 in the genuine binary format."""

import json
import shutil
import sys
from argparse import Namespace

import numpy as np
import pytest

import pcmref
from pcmref.cli.executors import open_executor
from tests.helpers import TOP
from tests.helpers.small_files import cifar_batches


@pytest.fixture
def experiment(monkeypatch, tmp_path):
    """validation/experiments/cifar10.py as a module that trains, keeps and reports in tmp_path, with a small recipe."""
    from validation.experiments import cifar10, measurements, sensitivity, studies

    for module in (measurements, studies, sensitivity, cifar10):
        monkeypatch.setattr(module, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(measurements, "open_executor", lambda _: open_executor("threads", 1))
    for module in (studies, cifar10):
        monkeypatch.setattr(module, "N_CALIBRATION", 20)
        monkeypatch.setattr(module, "STANDARD_TIMES_S", (20.0, 1020.0, 86_400.0))
    recipe = (TOP / "reference_weights" / "recipes" / "joshi32-cifar10.toml").read_text()
    for old, new in (("joshi32", "resnet8"), *((f"epochs = {n}\n", "epochs = 1\n") for n in (36, 30, 9)), ("2000", "0")):
        recipe = recipe.replace(old, new)
    recipe = recipe.replace("resnet32-", "small-").replace("flip = true", "flip = true\nbatch_size = 10")
    (tmp_path / "small.toml").write_text(recipe)
    monkeypatch.setattr(cifar10, "RECIPE", tmp_path / "small.toml")
    monkeypatch.setattr(cifar10, "TRAINED", tmp_path / "trained")
    (tmp_path / "validation").mkdir()
    monkeypatch.setattr(cifar10, "VALIDATION", tmp_path / "validation")
    monkeypatch.setattr(cifar10, "DOCUMENT", tmp_path / "validation" / "cifar10.md")
    shutil.copy(TOP / "validation" / "cifar10.md", tmp_path / "validation")
    parts = "".join(f"<!-- {name} -->\n<!-- end -->\n" for name in ("cifar10", "decides"))
    (tmp_path / "README.md").write_text(f"before\n{parts}after\n")
    monkeypatch.setattr(cifar10, "TOP", tmp_path)
    return cifar10


@pytest.fixture
def folder(tmp_path):
    """The six official binary files, twelve images each."""
    path = tmp_path / "cifar-10-batches-bin"
    path.mkdir()
    for name, (pixels, labels) in cifar_batches(12).items():
        (path / f"{name}.bin").write_bytes(np.concatenate([labels[:, None], pixels], 1).astype(np.uint8).tobytes())
    (path / "batches.meta.txt").write_text("\n".join(f"class {i}" for i in range(10)))
    return path


def command(experiment, monkeypatch, *arguments) -> int:
    monkeypatch.setattr(sys, "argv", ["cifar10.py", *map(str, arguments)])
    return experiment.main()


def test_one_command_trains_measures_and_reports_and_goes_on_where_it_was(experiment, folder, monkeypatch, tmp_path):
    pytest.importorskip("matplotlib")
    third = tmp_path / "third.h5"
    run = ["run", "--train", "--data", folder, "--images", 10, "--chips", 2, "--reads", 2, "--sensitivity-chips", 1]
    run += ["--sensitivity-reads", 1, "--workers", 1]
    assert command(experiment, monkeypatch, *run) == 0
    shutil.copy(tmp_path / "trained" / "small-cifar10-noise.h5", third)
    kept = {path.name: path.read_text() for path in (tmp_path / "results").glob("*.json")}
    names = {f"cifar10-{kind}-small-cifar10-{which}.json" for kind in experiment.KINDS for which in ("baseline", "noise")}
    assert kept.keys() == names
    monkeypatch.setattr(
        experiment.recipes, "carry_out", lambda plan, *_, **__: [experiment.TRAINED / f"{n}.h5" for n in plan.stages]
    )
    with_third = ["--third", third, "--mean", 0.5, 0.5, 0.5, "--std", 0.25, 0.25, 0.25]
    assert command(experiment, monkeypatch, *run, *with_third) == 0
    again = {path.name: path.read_text() for path in (tmp_path / "results").glob("*.json")}
    assert {name: again[name] for name in kept} == kept and len(again) == 15
    values = json.loads(again["cifar10-retention-third.json"])["values"]
    counted = json.loads(again["cifar10-reclassified-third.json"])["values"]["a day"]
    for i, compensation in enumerate(experiment.COMPENSATIONS):  # of chip 0, read 0, at the last of three times, read twice
        lost, won = counted[compensation]
        assert lost - won == round(10 * (values["software"] - values["chip 0"][3 * 2 * i + 4]))
    assert values.keys() == {"software", "chip 0", "chip 1"} and len(values["chip 0"]) == 3 * 3 * 2
    assert command(experiment, monkeypatch, "report") == 0
    text = (tmp_path / "validation" / "cifar10.md").read_text()
    assert "| less than 0.37 | B, C |" in text and "10 images, 2 chips, 2 reads" in text
    assert text.index("## small-cifar10-baseline") < text.index("## small-cifar10-noise") < text.index("## third")
    readme = (tmp_path / "README.md").read_text()
    assert (
        readme.startswith("before\n<!-- cifar10 -->\n| network |") and "| third |" in readme and readme.endswith("-->\nafter\n")
    )
    assert {path.name for path in (tmp_path / "validation").glob("*.png")} >= {"cifar10.png", "cifar10-sensitivity-third.png"}


def test_kinds_and_networks_may_be_chosen(experiment, folder, monkeypatch, tmp_path, capsys):
    run = ["run", "--train", "--data", folder, "--images", 10, "--workers", 1, "--kinds", "calibration"]
    assert command(experiment, monkeypatch, *run, "--networks", "small-cifar10-noise") == 0
    assert [path.stem for path in (tmp_path / "results").glob("*")] == ["cifar10-calibration-small-cifar10-noise"]
    with pytest.raises(SystemExit, match="2"):
        command(experiment, monkeypatch, *run, "--networks", "small-cifar10")
    assert "--networks small-cifar10: expected some of small-cifar10-baseline, small-cifar10-noise" in capsys.readouterr().err
    path = tmp_path / "results" / "cifar10-calibration-small-cifar10-noise.json"
    before = path.read_text()
    monkeypatch.setattr(experiment.KeptCifar, "measure_missing", lambda *_: _interrupt())
    with pytest.raises(SystemExit, match="130"):
        command(experiment, monkeypatch, *run, "--networks", "small-cifar10-noise", "--images", 8)
    said = capsys.readouterr().err
    assert f"{path}: what is kept has other images; it is measured anew and replaced" in said
    assert "the same command goes on from it" in said and path.read_text() == before


def test_what_is_missing_is_named(experiment, monkeypatch, capsys, tmp_path):
    with pytest.raises(SystemExit, match="no network is measured yet"):
        command(experiment, monkeypatch, "report")
    with pytest.raises(SystemExit):
        command(experiment, monkeypatch, "run")
    assert "run needs --data FOLDER" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        command(experiment, monkeypatch, "run", "--data", tmp_path / "nothing")
    assert f"{tmp_path / 'nothing'}: " in capsys.readouterr().err


def test_a_third_network_that_cannot_be_read_is_named_before_the_work(experiment, folder, monkeypatch, tmp_path, capsys):
    with pytest.raises(SystemExit, match="2"):
        command(experiment, monkeypatch, "run", "--data", folder, "--third", tmp_path / "no.h5")
    assert str(tmp_path / "no.h5") in capsys.readouterr().err and not (tmp_path / "results").exists()
    third = tmp_path / "small-cifar10-noise.h5"
    net = pcmref.ResNet.resnet8(3)
    pcmref.save(third, net, net.init(0))
    with pytest.raises(SystemExit, match="2"):
        command(experiment, monkeypatch, "run", "--data", folder, "--third", third)
    assert "one of our own networks has this name" in capsys.readouterr().err


def test_an_engine_that_is_missing_is_named_before_the_work(experiment, folder, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(SystemExit, match="2"):
        command(experiment, monkeypatch, "run", "--train", "--data", folder, "--engine", "torch")
    assert "--engine torch needs PyTorch: pip install torch" in capsys.readouterr().err


def test_chips_measured_in_parts_are_those_measured_at_once(experiment, folder, monkeypatch, tmp_path):
    """What costs accuracy: parts of 4 of 10 images, one chip first, then more by a run that is stopped and goes on."""
    from pcmref.experiments.sensitivity import sensitivity as at_once
    from pcmref.pcm.model import PCMModel
    from validation.experiments import measurements, sensitivity

    run = ["run", "--train", "--data", folder, "--images", 10, "--workers", 1, "--kinds", "sensitivity"]
    run += ["--sensitivity-reads", 2]
    run += ["--networks", "small-cifar10-baseline", "--sensitivity-chips"]
    monkeypatch.setattr(sensitivity, "PART", 4)
    images = experiment.KeptCifar.evaluation.func

    def as_in_software(kept):  # labels that the network finds itself, so that what a chip loses differs from chip to chip
        x, _, calibration = images(kept)
        return x, kept.file.net.forward(kept.file.state, x).argmax(1), calibration

    monkeypatch.setattr(experiment.KeptCifar, "evaluation", property(as_in_software))
    assert command(experiment, monkeypatch, *run, 1) == 0
    trained = experiment.TRAINED / "small-cifar10-baseline.h5"
    monkeypatch.setattr(experiment.recipes, "carry_out", lambda *_, **__: [trained, trained])
    more, counts = [*run, 3], measurements._Parts.counts
    with pytest.raises(SystemExit, match="130"):
        monkeypatch.setattr(
            measurements._Parts, "counts", lambda parts, i: counts(parts, i) if parts.of[i] != (2, 4) else _interrupt()
        )
        command(experiment, monkeypatch, *more)
    path = tmp_path / "results" / "cifar10-sensitivity-small-cifar10-baseline.json"
    assert "chip 1, images 8 to 11" in json.loads(path.read_text())["values"]
    asked = []
    monkeypatch.setattr(measurements._Parts, "counts", lambda parts, i: asked.append(parts.of[i]) or counts(parts, i))
    assert command(experiment, monkeypatch, *more) == 0
    assert {(2, 4), (2, 8)} <= {*asked} and not {(0, 0), (1, 0)} & {*asked}
    assert json.loads(path.read_text())["values"].keys() == {"chip 0", "chip 1", "chip 2", "software", "settings"}

    found = sensitivity.kept_result("small-cifar10-baseline")
    file, kept = experiment.read_network(trained), experiment.kept("sensitivity", trained, _asked(folder))
    x, labels, _ = kept.evaluation
    result = at_once(file.net, file.state, PCMModel.joshi2020(), x, labels, n_chips=3, reads=2)
    assert sorted(row[1:] for row in found.rows) == sorted(row[1:] for row in result.rows)
    assert len({tuple(row.accuracy for row in found.rows if row.chip == k) for k in range(3)}) == 3
    assert found.settings["n_chips"] == 3 and found.software_accuracy == result.software_accuracy


def _interrupt():
    raise KeyboardInterrupt


def _asked(folder) -> Namespace:
    return Namespace(images=10, engine="fast", data=folder, third=None)
