"""Networks and images in files: shipped ones, one's own, and errors."""

import numpy as np
import pytest

import pcmref
from pcmref import store
from pcmref.errors import FileError, PcmrefError
from pcmref.files import networks
from tests.helpers import small_files as files

NET = pcmref.ResNet(1, 3, (3, 4), (1, 1))


def test_a_network_comes_back_from_its_file(tmp_path):
    state = NET.init(1)
    pcmref.save(tmp_path / "n.h5", NET, state, {"note": "é"})
    net, again = pcmref.load(tmp_path / "n.h5")
    assert net == NET and list(again) == list(NET.shapes())
    assert all(np.array_equal(again[k], state[k]) and again[k].dtype == state[k].dtype for k in state)
    assert networks.read_network(tmp_path / "n.h5").about == {"note": "é"}


def test_an_npz_state_by_pytorchs_names_is_a_network(tmp_path):
    state = NET.init(1)
    np.savez(tmp_path / "n.npz", **state, **{"bn1.num_batches_tracked": np.array(7)})
    net, again = pcmref.load(tmp_path / "n.npz")
    assert net == NET and all(np.array_equal(again[k], state[k]) for k in state)


NETWORKS = ("resnet32-cifar10", "resnet32-fashionmnist", "resnet8-fashionmnist")
SHIPPED = [f"{network}-{kind}" for network in NETWORKS for kind in ("baseline", "noise")]


def test_what_ships():
    assert set(networks.shipped()) == {*SHIPPED, "fashionmnist-evaluation"}


@pytest.mark.parametrize("name", SHIPPED)
def test_every_shipped_network_loads_by_name(name):
    net, state = pcmref.load(name)
    net.check_state(state)
    about = networks.read_network(name).about
    assert {"recipe", "history", "normalisation", "start"} <= set(about) and about["software_accuracy"] > 0.89


def test_the_shipped_images_are_the_whole_test_set_and_2000_for_calibration():
    images = pcmref.load_images("fashionmnist-evaluation")
    assert images.images.shape == (10_000, 28, 28, 1) and images.images.dtype == np.uint8
    assert images.calibration.shape == (2000, 28, 28, 1)
    assert np.bincount(images.labels).tolist() == [1000] * 10  # the test set is balanced
    assert images.normalisation[0] == pytest.approx([0.28604], abs=5e-6) and "MIT License" in images.about["licence"]
    assert images.normalisation[1] == pytest.approx([0.35302], abs=5e-6)


def test_own_images(tmp_path):
    pixels, labels = files.pixels("own", 5, 8, 8, 1), np.array([0, 1, 2, 0, 1])
    np.savez(tmp_path / "i.npz", images=pixels, labels=labels, calibration=pixels[:2], mean=[0.5], std=[0.25])
    images = pcmref.load_images(tmp_path / "i.npz")
    x = images.normalized(images.images)
    assert x.dtype == np.float32 and np.allclose(x, (pixels / 255 - 0.5) / 0.25, atol=1e-6)
    np.savez(tmp_path / "f.npz", images=pixels / 255, labels=labels)
    plain = pcmref.load_images(tmp_path / "f.npz")
    assert np.array_equal(plain.normalized(plain.images), pixels / 255) and plain.calibration is None


def test_of_a_data_set_the_test_images_are_evaluated_and_the_training_images_calibrate(tmp_path):
    train, _, test, labels = files.write_fashion_mnist(tmp_path)
    images = pcmref.load_images(tmp_path)
    assert np.array_equal(images.images[..., 0], test) and np.array_equal(images.labels, labels)
    assert np.array_equal(images.calibration[..., 0], train) and images.normalisation[0][0] == pytest.approx(train.mean() / 255)


def test_uint8_images_take_the_networks_normalisation_or_say_what_is_missing(tmp_path):
    np.savez(tmp_path / "i.npz", images=files.pixels("own", 5, 8, 8, 1), labels=np.zeros(5, int))
    images = pcmref.load_images(tmp_path / "i.npz")
    assert images.normalized(images.images, ([0.5], [0.5])).min() >= -1
    with pytest.raises(FileError, match="'mean' and 'std'"):
        images.normalized(images.images)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"images": np.zeros((2, 8, 8, 1))}, "needs the arrays"),
        ({"images": np.zeros((2, 8, 8)), "labels": np.zeros(2, int)}, "images"),
        ({"images": np.zeros((2, 8, 8, 1), int), "labels": np.zeros(2, int)}, "images"),
        ({"images": np.full((2, 8, 8, 1), np.nan), "labels": np.zeros(2, int)}, "NaN"),
        ({"images": np.zeros((2, 8, 8, 1)), "labels": np.zeros(3, int)}, "labels"),
        ({"images": np.zeros((2, 8, 8, 1)), "labels": np.zeros(2)}, "labels"),
        ({"images": np.zeros((2, 8, 8, 1)), "labels": np.zeros((2, 2), int)}, "labels"),
        ({"images": np.zeros((2, 3, 8, 8), np.uint8), "labels": np.zeros(2, int), "mean": [0.5] * 3, "std": [1] * 3}, "NCHW"),
        ({"images": np.zeros((2, 8, 8, 1)), "labels": np.array([0, -1])}, "labels"),
        ({"images": np.zeros((2, 8, 8, 1)), "labels": np.zeros(2, int), "calibration": np.zeros((2, 9, 8, 1))}, "calibration"),
        ({"images": np.zeros((2, 8, 8, 1)), "labels": np.zeros(2, int), "mean": np.zeros(1)}, "'mean' and 'std'"),
        ({"images": np.zeros((2, 8, 8, 1)), "labels": np.zeros(2, int), "mean": [0.0], "std": [0.0]}, "'std' in 0..1, above 0"),
        ({"images": np.zeros((2, 8, 8, 1)), "labels": np.zeros(2, int), "mean": [125.3], "std": [63]}, "divide them by 255"),
    ],
)
def test_images_that_do_not_fit_are_named(tmp_path, arrays, message):
    np.savez(tmp_path / "i.npz", **arrays)
    with pytest.raises(FileError, match=message):
        pcmref.load_images(tmp_path / "i.npz")


@pytest.mark.parametrize(
    "change",
    [
        lambda meta, arrays: meta.pop("network"),
        lambda meta, arrays: meta["network"].update(widths=[3, 5]),
        lambda meta, arrays: meta["network"].update(widths=[3, 1 << 60]),
        lambda meta, arrays: meta["network"].update(depth=3),
        lambda meta, arrays: meta.update(network=[1]),
        lambda meta, arrays: meta["about"].update(normalisation=5),
        lambda meta, arrays: meta["about"].update(normalisation=[["a"], ["b"]]),
        lambda meta, arrays: meta["about"].update(normalisation=[[0.5], [0]]),
        lambda meta, arrays: meta["about"].update(normalisation=[[0.5, 0.5], [1, 1]]),
        lambda meta, arrays: meta["network"].update(widths=[1] * 2000, blocks=[65536] * 2000),
        lambda meta, arrays: arrays.pop("fc.bias"),
        lambda meta, arrays: arrays.update({"fc.bias": np.full(3, np.nan, np.float32)}),
    ],
)
def test_a_file_that_is_no_network_is_refused(tmp_path, change):
    pcmref.save(tmp_path / "n.h5", NET, NET.init())
    meta, arrays = store.read(tmp_path / "n.h5", "network")
    change(meta, arrays)
    store.write(tmp_path / "n.h5", "network", meta, arrays)
    with pytest.raises(FileError, match="n.h5"):
        pcmref.load(tmp_path / "n.h5")


def test_an_npz_that_is_no_state_is_refused(tmp_path):
    for arrays in (
        {"a": np.zeros(3)},
        {"conv1.weight": np.zeros(3)},
        {k: v for k, v in NET.init().items() if k != "fc.weight"},
    ):
        np.savez(tmp_path / "n.npz", **arrays)
        with pytest.raises(FileError, match="n.npz"):
            pcmref.load(tmp_path / "n.npz")


def test_a_name_that_is_not_there_lists_those_that_are():
    with pytest.raises(FileError, match="fashionmnist-evaluation"):
        pcmref.load("resnet99")
    for no_path in ("a" * 300, None, 5, "a\0b"):
        with pytest.raises(FileError, match="no path|no such file"):
            pcmref.load(no_path)


def test_a_state_that_does_not_fit_is_not_saved(tmp_path):
    with pytest.raises(PcmrefError, match="missing"):
        pcmref.save(tmp_path / "n.h5", NET, {})
    with pytest.raises(PcmrefError, match="'std' in 0..1, above 0"):  # what a reader would refuse
        pcmref.save(tmp_path / "n.h5", NET, NET.init(), {"normalisation": [[0.5], [0.0]]})
    assert not (tmp_path / "n.h5").exists()
