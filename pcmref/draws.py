"""Portable random numbers: every random number of pcmref, replayable in any language.

A draw is named. Its stream is Philox-4x64-10 (Salmon et al., SC 2011) keyed by a hash of seed and name:

    key = first 16 bytes of SHA-256("pcmref/1/{seed}/{name}"), read little-endian
    raw = 64-bit words of Philox(key), block counters 1, 2, ..., words 0 to 3 of each block in order
    u   = ((raw >> 12) + 0.5) * 2^-52          exact in float64, never 0 or 1
    z   = ndtri(u)                             the inverse of the standard normal distribution function

Raw words and u are the same to the bit everywhere; z to 4 ulp. NumPy guarantees raw streams for ever, but not those of
`Generator.standard_normal` (NEP 19), which is why z is built here. Arrays fill in C order. See validation/DRAWS.md.
"""

import hashlib
from math import prod

import numpy as np
from scipy.special import ndtri

from pcmref.errors import whole_number


def _key(seed: int, name: str) -> int:
    """The 128-bit Philox key of a named stream."""
    digest = hashlib.sha256(f"pcmref/1/{whole_number('seed', seed)}/{name}".encode()).digest()
    return int.from_bytes(digest[:16], "little")


def raw(seed: int, name: str, n: int) -> np.ndarray:
    """The first n raw words of a stream: [n] uint64 (Salmon et al. 2011).

    >>> pcmref.draws.raw(0, "program/fc.bias", 2).tolist()
    [13914284793835566974, 4531291936825600507]
    """
    return np.random.Philox(key=_key(seed, name)).random_raw(whole_number("n", n, 0))


def _uniform_from_raw(words: np.ndarray) -> np.ndarray:
    """u = ((raw >> 12) + 0.5) * 2^-52: the 52 leading bits, centred in their interval, without rounding."""
    return ((words >> np.uint64(12)) + 0.5) * 2.0**-52


def uniform(seed: int, name: str, shape) -> np.ndarray:
    """Uniform draws in the open interval (0, 1): float64 of the given shape, the same to the bit everywhere.

    >>> pcmref.draws.uniform(0, "program/fc.bias", (2, 2)).round(4).tolist()
    [[0.7543, 0.2456], [0.0323, 0.2449]]
    """
    shape = [whole_number("each of a draw's shape", n, 0) for n in np.atleast_1d(shape).tolist()]
    return _uniform_from_raw(raw(seed, name, prod(shape))).reshape(shape)


def standard_normal(seed: int, name: str, shape) -> np.ndarray:
    """Standard-normal draws z = ndtri(u): float64 of the given shape, reproducible to 4 ulp everywhere.

    >>> z = pcmref.draws.standard_normal(0, "program/fc.bias", (2, 10))  # the programming noise of the last layer's biases
    >>> z.shape, round(float(z[0, 0]), 4)
    ((2, 10), 0.6881)
    """
    return ndtri(uniform(seed, name, shape))


def permutation(seed: int, name: str, n: int) -> np.ndarray:
    """A random order of 0 to n-1: the stable argsort of n uniforms, [n] int64.

    >>> pcmref.draws.permutation(0, "shuffle/0", 6).tolist()
    [4, 5, 2, 0, 1, 3]
    """
    return np.argsort(uniform(seed, name, (n,)), kind="stable")


def integers(seed: int, name: str, high: int, shape) -> np.ndarray:
    """Random integers 0 to high-1: floor(u * high), int64 of the given shape; high up to 2^31.

    >>> pcmref.draws.integers(0, "crop/0", 9, (5,)).tolist()
    [1, 4, 0, 1, 4]
    """
    high = whole_number("high", high, 1, 2**31)
    return np.floor(uniform(seed, name, shape) * high).astype(np.int64)
