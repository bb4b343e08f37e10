"""Errors planted in the draws of backends that take no noise: each turns right samples [n, *shape] into wrong ones."""

import numpy as np


def _wider(samples, inputs):
    centre = next(iter(inputs.values()))
    return np.where(samples == 0, 0, np.maximum(centre + (samples - centre) * 1.02, 0))


def _shared(first: int, second: int):
    """One element has another one's noise, brought to its own scale."""

    def spoil(samples, inputs):
        samples = samples.copy()
        a, b = samples[:, first], samples[:, second]
        samples[:, second] = np.maximum(b.mean() + (a - a.mean()) / a.std() * b.std(), 0)
        return samples

    return spoil


def _uniform(samples, inputs):
    """One element has the right mean and spread, and a flat distribution."""
    samples = samples.copy()
    rank = samples[:, -1].argsort().argsort()
    samples[:, -1] = samples[:, -1].mean() + samples[:, -1].std() * 12**0.5 * ((rank + 0.5) / len(rank) - 0.5)
    return samples


def _stray(value: float):
    """One draw in ten thousand is some other number."""

    def spoil(samples, inputs):
        samples = samples.copy()
        samples[::10_000, 1] = value
        return samples

    return spoil


def _tiled(samples, inputs):
    """The first half twice."""
    half = len(samples) // 2
    return np.concatenate([samples[:half], samples[: len(samples) - half]])


def _few(samples, inputs):
    """One element is drawn from 60,000 numbers again and again."""
    samples = samples.copy()
    pool = np.arange(len(samples)) * 48_271 % 60_000
    samples[:, -1] = samples[pool, -1]
    return samples


SPOILED = [
    ("program", "sigma 2 % off", _wider),
    ("program", "the noise of a pair correlated", _shared(-2, -1)),
    ("program", "the noise of two distant devices correlated", _shared(2, 5)),
    ("program", "one device's draws uniform, mean and spread right", _uniform),
    ("program", "some draws NaN", _stray(np.nan)),
    ("program", "some draws far too large", _stray(1e30)),
    ("program", "some draws 12 standard deviations out", _stray(12.0)),
    ("program", "half the draws, twice", _tiled),
    ("program", "one device's draws from a short list", _few),
    ("program", "draws in another dtype", lambda samples, _: samples.astype(np.float32)),
    ("drift_exponent", "sign of nu", lambda samples, _: -samples),
    ("read", "sigma 2 % off", _wider),
    ("read", "one draw for all repetitions", lambda samples, _: np.broadcast_to(samples[:1], samples.shape)),
]
