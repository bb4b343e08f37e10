"""The images of a command: which are evaluated, which calibrate, and by what they are normalised, said where sources differ."""

import argparse

import numpy as np
import pytest

import pcmref
from pcmref import cli, draws
from pcmref.cli import images
from pcmref.errors import FileError
from pcmref.files import networks
from tests.helpers import small_files as files

NET = pcmref.ResNet(3, 10, (3, 4), (1, 1))
PIXELS, LABELS = files.pixels("images", 40, 8, 8, 3), np.arange(40) % 10
HALF, QUARTER = ([0.5] * 3, [0.5] * 3), ([0.25] * 3, [0.25] * 3)


def evaluated(tmp_path, *options, recalibrates=True, about=None, **arrays):
    np.savez(tmp_path / "i.npz", **{"images": PIXELS, "labels": LABELS, "calibration": PIXELS[::-1]} | arrays)
    parser = argparse.ArgumentParser()
    images.add_arguments(parser.add_argument)
    arguments = parser.parse_args(["--data", str(tmp_path / "i.npz"), *options])
    arguments.network = "net"
    return images.evaluation(arguments, networks.NetworkFile(NET, {}, about or {}), recalibrates)


def by(pixels, constants):
    return ((pixels / 255 - np.array(constants[0])) / np.array(constants[1])).astype(np.float32)


def test_options_come_before_the_network_and_the_network_before_the_data_and_a_difference_is_said(tmp_path, capsys):
    own, about = {"mean": HALF[0], "std": HALF[1]}, {"normalisation": QUARTER}
    given = ("--mean", ".1", ".1", ".1", "--std", "1", "1", "1")
    for options, file, arrays, wanted, said in (
        ((), {}, own, HALF, []),
        ((), about, {}, QUARTER, []),
        ((), {"normalisation": [[0.5003] * 3, [0.5] * 3]}, own, ([0.5003] * 3, [0.5] * 3), []),  # quoted to three digits
        ((), about, own, QUARTER, ["normalised by net: mean [0.25", "(not by", "i.npz: mean [0.5"]),
        (given, about, own, ([0.1] * 3, [1] * 3), ["normalised by --mean and --std", "net: mean", "i.npz: mean"]),
    ):
        x = evaluated(tmp_path, *options, about=file, **arrays).x
        err = capsys.readouterr().err
        assert np.allclose(x, by(PIXELS, wanted), atol=1e-5) and all(part in err for part in said) and bool(err) == bool(said)


def test_calibration_images_are_drawn_not_the_first(tmp_path):
    chosen = draws.permutation(0, "calibration", 40)[:12]
    got = evaluated(tmp_path, "--calibration", "12", mean=HALF[0], std=HALF[1]).calibration
    assert np.allclose(got, by(PIXELS[::-1][chosen], HALF), atol=1e-5)
    labels = (np.arange(40) // 4)[::-1][chosen]
    assert len(set(labels.tolist())) > 5  # of a file sorted by class, all but few classes are there


def test_a_sorted_file_is_said(tmp_path, capsys):
    mean = {"mean": HALF[0], "std": HALF[1]}
    evaluated(tmp_path, "--images", "20", labels=np.sort(LABELS), **mean)
    assert "sorted by class" in capsys.readouterr().err
    for options, labels in ((["--images", "0"], np.sort(LABELS)), (["--images", "20"], LABELS), ([], LABELS * 0)):
        evaluated(tmp_path, *options, labels=labels, **mean)
        assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("options", "arrays", "message"),
    [
        (["--mean", "125.3", "123", "113.9", "--std", "63", "62", "66.7"], {}, "divide them by 255"),
        (["--mean", ".5", ".5", ".5"], {}, "must be 3 finite numbers each"),
        (["--mean", ".5", ".5", ".5", "--std", "0", "1", "1"], {}, "above 0"),
        (
            ["--mean", ".5", ".5", ".5", "--std", "1", "1", "1"],
            {"images": PIXELS / 255 - 0.5},
            "--mean and --std are for uint8",
        ),
        ([], {"images": PIXELS.astype(float)}, "goes up to 255: write pixels as uint8, or divide them by 255"),
        ([], {}, "--mean and --std"),
        ([], {"images": PIXELS[..., :1], "calibration": PIXELS[..., :1]}, "the network takes 3"),
        ([], {"labels": LABELS + 1}, "labels must be 0 to 9, got 10"),
        (["--calibration", "-1"], {}, "must not be negative"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path, options, arrays, message):
    with pytest.raises(pcmref.PcmrefError, match=message):
        evaluated(tmp_path, *options, **arrays)


def test_training_and_retention_take_the_same_folder(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "r.toml").write_text(
        'network = "resnet8"\ndata = "own"\n[[stage]]\nname = "n"\nepochs = 1\nbatch_size = 8\nlearning_rate = 0.01\n'
    )
    arrays = {"train_images": PIXELS[:16], "train_labels": LABELS[:16], "test_images": PIXELS[:20], "test_labels": LABELS[:20]}
    np.savez("d.npz", **arrays)
    given = ("--mean", ".5", ".5", ".5", "--std", ".5", ".5", ".5")
    assert cli.main(["train", "r.toml", "--data", "d.npz", *given]) == 0
    assert networks.read_network("out/n.h5").about["normalisation"] == [list(part) for part in HALF]
    capsys.readouterr()
    settings = ["--times", "20s,1d", "--chips", "1", "--calibration", "8"]
    assert cli.main(["retention", "out/n.h5", "--data", "d.npz", *settings]) == 0
    captured = capsys.readouterr()
    assert "20 images" in captured.out and "normalised by out/n.h5: mean [0.5, 0.5, 0.5]" in captured.err
    with pytest.raises(FileError, match="needs train_images"):
        np.savez("e.npz", images=PIXELS, labels=LABELS)
        pcmref.files.datasets.load_dataset("e.npz")


@pytest.mark.parametrize(("n", "n_right", "said"), [(100, 18, True), (100, 20, False), (100, 0, True), (49, 0, False)])
def test_accuracy_near_chance_in_software_is_said_before_the_work(capsys, n, n_right, said):
    """Of 100 guesses among 10 classes 10 are right, with a standard deviation of 3."""
    state, x = NET.init(0), draws.standard_normal(0, "test/chance", (n, 8, 8, 3)).astype(np.float32)
    labels = (NET.forward(state, x).argmax(1) + (np.arange(n) >= n_right)) % 10
    images.say_if_near_chance("net", networks.NetworkFile(NET, state, {}), images.Evaluation(x, labels, None))
    err = capsys.readouterr().err
    assert bool(err) == said and err.count("\n") == said
    assert not said or all(part in err for part in (f"net: in software {n_right}.0% of the first 100", "(10.0%)", "eps 1e-5"))


def test_floating_point_images_from_0_to_1_are_pixels(tmp_path, capsys):
    floats = {"images": PIXELS / 255, "calibration": (PIXELS[::-1] / 255).astype(np.float32)}
    for options, about, own, wanted in (
        (("--mean", ".5", ".5", ".5", "--std", ".5", ".5", ".5"), {}, {}, HALF),
        ((), {"normalisation": QUARTER}, {}, QUARTER),
        ((), {}, {"mean": HALF[0], "std": HALF[1]}, HALF),
    ):
        found, pixels = (evaluated(tmp_path, *options, about=about, **own, **images) for images in (floats, {}))
        assert np.allclose(found.x, by(PIXELS, wanted), atol=1e-5) and "normalised by mean" in found.about
        assert np.allclose(found.calibration, pixels.calibration, atol=1e-5) and capsys.readouterr().err == ""
    found = evaluated(tmp_path, **floats)
    assert np.array_equal(found.x, PIXELS / 255) and "taken as they are" in found.about
    assert "images from 0 to 1 are taken as they are; --mean and --std normalise them" in capsys.readouterr().err


def test_the_order_of_the_classes_is_said(tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    for part in ("train", "test"):
        for i, kind in enumerate(("zebra", "ant")):
            (data / part / kind).mkdir(parents=True)
            image = pytest.importorskip("PIL.Image", reason="Pillow is not installed").fromarray(PIXELS[i])
            image.save(data / part / kind / "1.png")
    assert "the first 2 of data" in (about := evaluated(tmp_path, "--data", str(data)).about)
    assert about.endswith("classes by label: ant, zebra")


@pytest.mark.parametrize(("recalibrated", "said"), [(0.88, True), (0.62, False), (0.3, False)])
def test_adabs_far_above_software_is_said(capsys, recalibrated, said):
    """Of 1,000 images each, at 60 %: a difference of 6.6 points is three standard deviations."""
    images.say_if_adabs_is_above(0.6, recalibrated, images.Evaluation(np.zeros((1000, 1)), None, None, "by .5"))
    err = capsys.readouterr().err
    assert bool(err) == said and (not said or "far above software 60.0%" in err and "--mean and --std (by .5)" in err)
