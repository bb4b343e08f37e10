"""validation/peers/torch_device.py, an independent device model: its moments are the closed forms, its comparison can fail."""

import math
import sys

import numpy as np
import pytest

import pcmref
from pcmref.pcm.moments import weight_moments

torch = pytest.importorskip("torch", reason="PyTorch is not installed: the independent device model is not run")
from validation.peers import torch_device  # noqa: E402

DAY_S = 86_400.0


@pytest.mark.parametrize("w", [1.0, 0.4, -0.05, 0.0])
@pytest.mark.parametrize("t_s", [20.0, DAY_S])
def test_its_weights_have_the_closed_forms_moments(w, t_s):
    """Five standard errors of the mean and the variance over n devices, of a law close to normal."""
    n, model = 100_000, pcmref.PCMModel.joshi2020()
    bar = torch_device.Crossbar(torch.cat([torch.full((n,), w), torch.ones(1)]).double(), torch.Generator().manual_seed(1))
    reading = bar.read(t_s)
    weights = ((reading[0] - reading[1]) / bar.scale)[:n].numpy()
    g_us = 25 * np.array([[max(w, 0.0)], [max(-w, 0.0)]])
    mean, variance = (float(v[0]) for v in weight_moments(model, g_us, 25.0, t_s))
    assert abs(weights.mean() - mean) < 5 * math.sqrt(variance / n)
    spread = np.mean(np.square(np.square(weights - mean) - variance))
    assert abs(np.square(weights - mean).mean() - variance) < 5 * math.sqrt(spread / n)


def test_a_difference_beyond_chance_is_one():
    losses = pcmref.draws.standard_normal(0, "losses", (10, 5))
    other = pcmref.draws.standard_normal(1, "losses", (10, 5))
    error = math.sqrt(2 * losses.mean(1).var(ddof=1) / 10)
    assert torch_device.compare(losses, other)[2]
    assert torch_device.compare(losses, losses) == (
        0.0,
        pytest.approx(error, rel=1e-12),
        True,
    )
    difference, error, chance = torch_device.compare(losses, other + 2)
    assert not chance and difference > 5 * error


def test_a_network_loses_the_same_on_both_sides(monkeypatch, capsys):
    arguments = ["resnet8-fashionmnist-noise", "--images", "60", "--chips", "3", "--reads", "1"]
    monkeypatch.setattr(sys, "argv", ["torch_device.py", *arguments])
    assert torch_device.main() == 0
    text = capsys.readouterr().out
    assert text.count("its standard error") == 3 and "60 images" in text
