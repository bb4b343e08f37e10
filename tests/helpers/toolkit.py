"""aihwkit as the tests measure it: its formulas with the draws we hand it, and its tiles."""

import numpy as np
import pytest


def near(value, digits=5):
    """As printed with so many decimals."""
    return pytest.approx(value, rel=0, abs=0.51 * 10.0**-digits)


class Toolkit:
    """aihwkit's noise model with the draws we hand it."""

    def __init__(self, monkeypatch):
        self.torch = pytest.importorskip("torch")
        module = pytest.importorskip("aihwkit.inference.noise.pcm")
        self.z = iter(())
        monkeypatch.setattr(module, "randn_like", lambda g: self.tensor(next(self.z)).expand_as(g))
        self.model = module.PCMLikeNoiseModel(g_max=25.0)

    def tensor(self, value):
        return self.torch.tensor(np.array(value, np.float32))

    def call(self, name, *arguments, z=()):
        self.z = iter(z)
        return getattr(self.model, name)(*arguments)

    def program(self, g, z):
        return self.call("apply_programming_noise_to_conductance", self.tensor(g), z=[z]).numpy()

    def exponent(self, g, z):
        return self.call("generate_drift_coefficients", self.tensor(g), z=[z]).numpy()

    def read(self, g_prog, nu, t_inference, z):
        arguments = self.tensor(g_prog), self.tensor(nu), t_inference
        return self.call("apply_drift_noise_to_conductance", *arguments, z=[z]).numpy()


def inference_tile(toolkit: Toolkit, w, **settings):
    """An aihwkit inference tile of weights w [O, K]."""
    from aihwkit.simulator.configs import InferenceRPUConfig
    from aihwkit.simulator.tiles.inference import InferenceTile

    config = InferenceRPUConfig(noise_model=toolkit.model, **settings)
    tile = InferenceTile(w.shape[0], w.shape[1], config)
    tile.set_weights(toolkit.tensor(w))
    return tile
