"""Recipes: files in, networks out, and a run that goes on to the same bytes."""

import contextlib
import dataclasses
import hashlib

import numpy as np
import pytest

from pcmref import cli, store
from pcmref.errors import FileError
from pcmref.experiments import recipes
from pcmref.fast.resnet import ResNet
from pcmref.files import networks
from pcmref.files.datasets import load_cifar10, load_fashion_mnist
from pcmref.training import Recipe, train
from tests.helpers import TOP
from tests.helpers import small_files as files
from tests.helpers.small_files import RECIPE as TEXT

SHIPPED = sorted((TOP / "reference_weights" / "recipes").glob("*.toml"))


@pytest.fixture
def plan(tmp_path):
    (tmp_path / "r.toml").write_text(TEXT)
    return recipes.read_plan(tmp_path / "r.toml")


@pytest.fixture
def small(tmp_path):
    files.write_fashion_mnist(tmp_path, n_train=24, n_test=8)
    return load_fashion_mnist(tmp_path)


PAIRS = sorted(name.removesuffix("-noise") for name in networks.shipped() if name.endswith("-noise"))


@pytest.mark.parametrize("path", SHIPPED, ids=lambda p: p.stem)
def test_every_shipped_recipe_begins_without_noise_and_has_it_in_its_last_stage_alone(path):
    first, *more = [(stage.eta, stage.alpha) for stage in recipes.read_plan(path).stages.values()]
    assert first == (0, 0) and (not more or (set(more[:-1]) <= {(0, 0)} and more[-1] == (0.038, 2.0)))


@pytest.mark.parametrize("pair", PAIRS)
def test_every_shipped_pair_is_of_a_recipe_that_trains_with_noise_from_the_baseline(pair):
    plans = [recipes.read_plan(path).stages for path in SHIPPED]
    (stages,) = [[*stages.items()] for stages in plans if f"{pair}-noise" in stages]
    (baseline, plain), (name, noise) = stages[-2:]
    assert (baseline, name) == (f"{pair}-baseline", f"{pair}-noise")
    assert plain.eta == plain.alpha == 0 and (noise.eta, noise.alpha) == (0.038, 2.0)


def contents(folder):
    return {p.name: p.read_bytes() for p in folder.iterdir()}


def test_a_run_writes_networks_that_say_how_they_were_made(plan, small, tmp_path):
    (tmp_path / "out").mkdir()
    paths = recipes.carry_out(plan, small, tmp_path / "out", commit="abc")
    assert sorted(contents(tmp_path / "out")) == ["first.csv", "first.h5", "second.csv", "second.h5"]
    first, second = (networks.read_network(p) for p in paths)
    assert second.about["start"] == "first" and second.about["recipe"]["eta"] == 0.038
    assert first.about["commit"] == second.about["commit"] == "abc"
    assert [e["epoch"] for e in first.about["history"]] == [1, 2] and first.about["normalisation"][0] == list(small.mean)
    assert 0 <= second.about["software_accuracy"] <= 1 and second.about["history"][0]["validation_accuracy"] is None
    assert (tmp_path / "out" / "first.csv").read_text().splitlines()[0] == "epoch,loss,learning_rate,validation_accuracy"


@pytest.mark.parametrize("stop_after", [1, 2, 3, 4, 5, 7])
def test_a_stopped_run_resumes_to_the_same_bytes(plan, small, tmp_path, stop_after):
    for folder in ("whole", "parts"):
        (tmp_path / folder).mkdir()
    recipes.carry_out(plan, small, tmp_path / "whole")
    steps = []
    with pytest.raises(KeyboardInterrupt):
        recipes.carry_out(
            plan,
            small,
            tmp_path / "parts",
            stopped=lambda: len(steps) == stop_after,
            progress=lambda *at: steps.append(at),
        )
    recipes.carry_out(plan, small, tmp_path / "parts", resume=True)
    assert contents(tmp_path / "parts") == contents(tmp_path / "whole")
    recipes.carry_out(plan, small, tmp_path / "parts", resume=True)  # nothing left to do, nothing changes
    assert contents(tmp_path / "parts") == contents(tmp_path / "whole")


def test_a_checkpoint_of_a_finished_stage_is_no_obstacle(plan, small, tmp_path):
    """Death between writing a network and removing its checkpoint."""
    out = tmp_path / "out"
    out.mkdir()
    kept = []
    count = []

    def progress(*_):
        count.append(1)
        if len(count) == 5:  # the second stage's first step: the first is written
            (out / "r.checkpoint.h5").write_bytes(kept[-1])
            raise KeyboardInterrupt
        if (out / "r.checkpoint.h5").exists():
            kept.append((out / "r.checkpoint.h5").read_bytes())

    with pytest.raises(KeyboardInterrupt):
        recipes.carry_out(plan, small, out, progress=progress)
    recipes.carry_out(plan, small, out, resume=True)
    assert "r.checkpoint.h5" not in contents(out)


def test_another_recipes_leavings_are_refused(plan, small, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        recipes.carry_out(plan, small, tmp_path, stopped=lambda: True)
    other = dataclasses.replace(plan, stages={"first": Recipe(epochs=3, batch_size=8)})
    with pytest.raises(FileError, match=r"r\.checkpoint\.h5.*another recipe"):
        recipes.carry_out(other, small, tmp_path, resume=True)
    recipes.carry_out(plan, small, tmp_path)
    with pytest.raises(FileError, match=r"first\.h5.*another recipe"):
        recipes.carry_out(other, small, tmp_path, resume=True)


def test_a_damaged_checkpoint_is_named(plan, small, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        recipes.carry_out(plan, small, tmp_path, stopped=lambda: True)
    path = tmp_path / "r.checkpoint.h5"
    meta, arrays = store.read(path, "checkpoint")
    store.write(path, "checkpoint", {k: v for k, v in meta.items() if k != "step"}, arrays)
    with pytest.raises(FileError, match="does not hold a checkpoint"):
        recipes.carry_out(plan, small, tmp_path, resume=True)


def test_the_cifar10_recipe_runs_on_a_small_file_in_the_genuine_format(tmp_path):
    (tmp_path / "c.tar.gz").write_bytes(files.tar_gz(files.cifar_python(files.cifar_batches(4)), "cifar-10-batches-py"))
    data = load_cifar10(tmp_path / "c.tar.gz")
    plan = recipes.read_plan(next(p for p in SHIPPED if p.stem == "joshi32-cifar10"))
    short = {n: dataclasses.replace(r, epochs=1, batch_size=4, validation=12) for n, r in plan.stages.items()}
    paths = recipes.carry_out(dataclasses.replace(plan, stages=short), data, tmp_path)
    file = networks.read_network(paths[-1])
    assert sum(np.size(file.state[n]) for n in file.net.synaptic()) == 361_722


START = TEXT.replace('network = "resnet8"', 'start = "mine.npz"')


def test_training_starts_from_ones_own_network(small, tmp_path):
    """Stopped and resumed to the same bytes, from that file and from no other."""
    net = ResNet.resnet8(1)
    np.savez(tmp_path / "mine.npz", **{f"module.{k}": v for k, v in net.init(5).items()})
    (tmp_path / "r.toml").write_text(START)
    plan = recipes.read_plan(tmp_path / "r.toml")
    seen = []
    for folder, stop in (("whole", False), ("parts", True)):
        (tmp_path / folder).mkdir()
        with pytest.raises(KeyboardInterrupt) if stop else contextlib.nullcontext():
            recipes.carry_out(plan, small, tmp_path / folder, stopped=lambda stop=stop: stop)
    recipes.carry_out(recipes.read_plan(tmp_path / "r.toml"), small, tmp_path / "parts", resume=True)
    assert contents(tmp_path / "parts") == contents(tmp_path / "whole")
    about = networks.read_network(tmp_path / "whole" / "first.h5").about
    digest = hashlib.sha256((tmp_path / "mine.npz").read_bytes()).hexdigest()
    assert about["start"] == f"mine.npz, sha256 {digest}"
    with pytest.raises(KeyboardInterrupt):
        recipes.carry_out(plan, small, tmp_path, stopped=lambda: True, progress=lambda *_: seen.append(1))
    first = recipes.Recipe(**dataclasses.asdict(plan.stages["first"]))
    expected = train(net, net.init(5), small, first)
    assert np.array_equal(networks.load(tmp_path / "whole" / "first.h5")[1]["fc.weight"], expected.best["fc.weight"])
    np.savez(tmp_path / "mine.npz", **net.init(6))
    with pytest.raises(FileError, match="another recipe"):
        recipes.carry_out(recipes.read_plan(tmp_path / "r.toml"), small, tmp_path, resume=True)


def test_a_network_of_16_bits_is_trained_in_32(small, tmp_path):
    """A step of 1e-4 of a weight is lost in float16."""
    net = ResNet.resnet8(1)
    networks.save(tmp_path / "mine.h5", net, net.init(dtype=np.float16))
    (tmp_path / "r.toml").write_text(START.replace("mine.npz", "mine.h5"))
    _, state, _ = recipes.read_plan(tmp_path / "r.toml").initial(small, 0)
    assert {v.dtype for v in state.values()} == {np.dtype("float32")}
    assert all(np.array_equal(state[name], v.astype(np.float32)) for name, v in net.init(dtype=np.float16).items())


def test_a_start_that_does_not_fit_is_named(small, tmp_path):
    (tmp_path / "r.toml").write_text(START)
    with pytest.raises(FileError, match=r"r\.toml: start: .*mine\.npz: no such file"):
        recipes.read_plan(tmp_path / "r.toml")
    np.savez(tmp_path / "mine.npz", **ResNet.resnet8(3).init())
    with pytest.raises(FileError, match=r"mine\.npz, .* takes 3 channels and tells 10 classes, fashion-mnist has 1 and 10"):
        recipes.carry_out(recipes.read_plan(tmp_path / "r.toml"), small, tmp_path)


def test_a_network_to_start_from_brings_its_normalisation(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    files.write_fashion_mnist(tmp_path, n_train=24, n_test=8)
    net = ResNet.resnet8(1)
    networks.save("mine.h5", net, net.init(), {"normalisation": [[0.25], [0.5]]})
    (tmp_path / "r.toml").write_text(START.replace("mine.npz", "mine.h5"))
    assert cli.main(["train", "r.toml", "--data", "."]) == 0
    assert networks.read_network("out/second.h5").about["normalisation"] == [[0.25], [0.5]]


def test_a_recipe_with_a_byte_order_mark_is_read(plan, tmp_path):
    (tmp_path / "r.toml").write_text(TEXT, encoding="utf-8-sig")
    assert recipes.read_plan(tmp_path / "r.toml") == plan


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("network = ", "cannot be read"),
        (TEXT.replace("resnet8", "resnet9"), "network must be one of"),
        (TEXT.replace("fashion-mnist", "mnist"), "data must be one of"),
        ('start = "mine.h5"\n' + TEXT, "stands instead of network"),
        (TEXT.replace('network = "resnet8"', "start = 3"), "start must be a file's name"),
        (TEXT.replace("[[stage]]", "[[stages]]"), "unknown entries"),
        ('network = "resnet8"\ndata = "fashion-mnist"\nstage = 3', r"\[\[stage\]\]"),
        (TEXT.replace('"second"', '"first"'), "name of its own"),
        (TEXT.replace('"second"', '"../second"'), "name of its own"),
        (TEXT.replace("eta = 0.038", "eta = -1"), "'second'.*eta"),
        (TEXT.replace("eta =", "theta ="), "'second'.*theta"),
        ("#" * (1 << 20) + "\n", "over"),
    ],
)
def test_a_recipe_that_is_wrong_is_named(tmp_path, text, message):
    (tmp_path / "bad.toml").write_text(text)
    with pytest.raises(FileError, match=message) as error:
        recipes.read_plan(tmp_path / "bad.toml")
    assert "bad.toml" in str(error.value)
