"""The two-by-two experiment of noise and clipping: its arms, its effects, and a run that goes on where it was."""

import sys
from dataclasses import replace

import numpy as np
import pytest

import pcmref
from pcmref import draws
from pcmref.cli.executors import open_executor
from pcmref.experiments import recipes
from pcmref.files import networks
from pcmref.files.datasets import Dataset
from tests.helpers import TOP


@pytest.fixture
def experiment(monkeypatch, tmp_path):
    """validation/experiments/noise_and_clipping.py as a module that trains and keeps in tmp_path."""
    from validation.experiments import measurements, noise_and_clipping, studies

    for module in (measurements, studies, noise_and_clipping):
        monkeypatch.setattr(module, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(measurements, "open_executor", lambda _: open_executor("threads", 1))
    monkeypatch.setattr(noise_and_clipping, "TRAINED", tmp_path / "trained")
    monkeypatch.setattr(noise_and_clipping, "RECIPES", tmp_path)
    recipe = (TOP / "reference_weights" / "recipes" / "resnet8-fashionmnist.toml").read_text()
    first, second = recipe.rsplit("[[stage]]", 1)
    (tmp_path / "resnet8-fashionmnist.toml").write_text(f"{first}[[stage]]{second.replace('5000', '0')}\nbatch_size = 20\n")
    monkeypatch.setattr(noise_and_clipping, "load_fashion_mnist", lambda _: small())
    images = pcmref.load_images("fashionmnist-evaluation")  # a hundred to recalibrate with: 1,280 take most of the time
    monkeypatch.setattr(pcmref, "load_images", lambda _: replace(images, calibration=images.calibration[:100]))
    return noise_and_clipping


def small() -> Dataset:
    """A hundred of the shipped calibration images, with labels that mean nothing."""
    shipped, labels = pcmref.load_images("fashionmnist-evaluation"), draws.integers(0, "test/arms", 10, (100,))
    images = shipped.calibration[:100]
    classes = tuple(networks.read_network("resnet8-fashionmnist-baseline").about["classes"])
    return Dataset("fashion-mnist", classes, images, labels, images[:10], labels[:10], *map(tuple, shipped.normalisation))


def command(experiment, monkeypatch, *arguments) -> int:
    monkeypatch.setattr(sys, "argv", ["noise_and_clipping.py", *arguments])
    return experiment.main()


def test_effects_are_contrasts_of_each_seed(experiment):
    noise, clip, seed, _ = np.ogrid[:2, :2, :3, :1]
    effects = experiment.effects(0.5 + 0.02 * noise + 0.03 * clip - 0.01 * noise * clip + 0.1 * seed)
    points = {"noise alone": 2, "noise beside clipping": 1, "clipping alone": 3, "clipping beside noise": 2, "both": 4}
    for what, expected in (points | {"both, less each alone": -1}).items():
        assert effects[what] == pytest.approx(np.full((3, 1), expected / 100)), what
    trainings = np.array([[0.01], [0.02], [0.03]])
    assert experiment.effect_cell(trainings) == "2.00 [-0.48, 4.48]"  # 4.303 / sqrt(3) to either side
    assert experiment.effect_cell(trainings + [[-0.005, 0.005]]) == "2.00 [-0.48, 4.48]; 1.50 to 2.50"
    assert experiment.effect_cell(trainings[:1]) == "+1.00"


def test_a_small_run_trains_every_arm_and_goes_on_where_it_was(experiment, monkeypatch, tmp_path):
    counts = {"trainings": 2, "epochs": 1, "images": 10, "chips": 2, "reads": 2, "workers": 1}
    options = ["run", "--data", "x", *(f"--{name}={n}" for name, n in counts.items())]
    with pytest.raises(SystemExit, match="no training"):
        experiment.document()
    trained, carry_out = [], recipes.carry_out

    def stops(plan, *arguments, **settings):
        if len(trained) == 5:
            raise KeyboardInterrupt
        trained.append(plan.name)
        return carry_out(plan, *arguments, **settings)

    with monkeypatch.context() as patch:
        patch.setattr(recipes, "carry_out", stops)
        with pytest.raises(KeyboardInterrupt):
            command(experiment, monkeypatch, *options)
    assert "1 trainings an arm" in experiment.document()  # the second is not complete
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "results").iterdir()}
    assert command(experiment, monkeypatch, *options) == 0
    after = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "results").iterdir()}
    assert len(before) == 5 and len(after) == 8 and before.items() <= after.items()
    done = [networks.read_network(path).about["recipe"] for path in sorted((tmp_path / "trained").glob("arm-*.h5"))]
    assert {(r["eta"], r["alpha"], r["seed"]) for r in done} == {(e, a, s) for e in (0, 0.038) for a in (0, 2) for s in (0, 1)}
    assert len({(r["epochs"], r["learning_rate"], r["schedule"], r["batch_size"]) for r in done}) == 1
    assert "2 trainings an arm; each on 10 images, 2 chips, 2 reads" in experiment.document()
