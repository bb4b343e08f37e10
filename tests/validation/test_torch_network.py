"""validation/peers/torch_network.py: PyTorch's logits and batch statistics are pcmref's, so that a study's accuracies are."""

import numpy as np
import pytest

import pcmref
from pcmref.experiments.sensitivity import sensitivity

pytest.importorskip("torch", reason="PyTorch is not installed: its evaluation of our networks is not run")
from validation.peers import torch_network

EPS = float(np.finfo(np.float32).eps)


def shipped():
    net, state = pcmref.load("resnet8-fashionmnist-noise")
    data = pcmref.load_images("fashionmnist-evaluation")
    return net, state, data.normalized(data.images[:300]), data.labels[:300]


def test_logits_and_statistics_are_pcmrefs():
    """Within float32's rounding: 9 layers of at most 9 * 56 products, of the largest; of two images, where n is not n - 1."""
    net, state, x, _ = shipped()
    other = torch_network.TorchResNet.of(net)
    limit = 9 * 56 * 9 * 2 * EPS
    for bn, (mean, var, count) in net.statistics(state, x[:2]).items():
        found = other.statistics(state, x[:2])[bn]
        assert found[2] == count
        for a, b in ((found[0], mean), (found[1], var)):
            assert np.abs(a - b).max() <= limit * max(np.abs(mean).max(), np.sqrt(var).max(), var.max())
    ours = pcmref.predict(net, state, x)
    assert np.abs(pcmref.predict(other, state, x) - ours).max() <= limit * np.abs(ours).max()


def test_statistics_stay_what_they_are_when_others_follow():
    """A batch's means were PyTorch's own buffer, into which the next batch's went."""
    net, state, x, _ = shipped()
    other = torch_network.TorchResNet.of(net)
    first = other.statistics(state, x[:100])
    before = {bn: (mean.copy(), var.copy()) for bn, (mean, var, _) in first.items()}
    other.statistics(state, x[100:200])
    for bn, (mean, var) in before.items():
        assert np.array_equal(first[bn][0], mean) and np.array_equal(first[bn][1], var), bn


def test_a_study_counts_the_same_images_right():
    net, state, x, labels = shipped()
    options = {"times_s": (86_400.0,), "n_chips": 2, "x_calibration": x[:100]}
    found = [
        pcmref.retention(n, state, pcmref.PCMModel.joshi2020(), x[100:], labels[100:], **options)
        for n in (net, torch_network.TorchResNet.of(net))
    ]
    ours, theirs = ([row.accuracy for row in result.rows] for result in found)
    assert np.abs(np.subtract(ours, theirs)).max() <= 1 / 200  # one image on the border of two classes
    assert found[0].software_accuracy == found[1].software_accuracy


def test_another_product_is_refused():
    net, state, x, _ = shipped()
    with pytest.raises(pcmref.errors.SettingError, match="without --engine torch"):
        torch_network.TorchResNet.of(net).forward(state, x, product=np.matmul)


@pytest.mark.parametrize("n_bytes", [0, 3_000_000, 10**9])
def test_remembering_changes_nothing(monkeypatch, n_bytes):
    """Whether nothing, some or all that was computed is still known."""
    monkeypatch.setattr(torch_network, "REMEMBERED_BYTES", n_bytes)
    net, state, x, labels = shipped()
    other = torch_network.TorchResNet.of(net)
    options = {"n_chips": 2, "reads": 1, "workers": 1}
    found = [
        sensitivity(n, state, pcmref.PCMModel.joshi2020(), x[:40], labels[:40], **options).rows
        for n in (other, other.remembering())
    ]
    assert found[0] == found[1]


def test_what_is_remembered_is_of_these_very_numbers():
    """Arrays and images changed in place are other arrays and images; so is each parameter of the network."""
    net, state, x, _ = shipped()
    other, remembering, x = torch_network.TorchResNet.of(net), torch_network.TorchResNet.of(net).remembering(), x[:40].copy()
    for name in [name for name in net.shapes() if "fc" not in name] + ["fc.weight", "fc.bias"]:
        state = state | {name: state[name] * np.float32(1.25)}
        assert np.array_equal(remembering.forward(state, x), other.forward(state, x)), name
    x *= np.float32(0.5)
    assert np.array_equal(remembering.forward(state, x), other.forward(state, x))
