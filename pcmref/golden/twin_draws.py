"""The draws in plain integers and decimals, for the slow twin: its own Philox, its own inverse normal distribution.

Philox-4x64-10 from Salmon, Moraes, Dror & Shaw (SC 2011), section 3.3. z solves Phi(z) = u by Newton's method on the
series Phi(z) = 1/2 + phi(z) (z + z^3/3 + z^5/(3*5) + ...), to 30 digits.
"""

import hashlib
from decimal import Decimal
from statistics import NormalDist

_MASK = (1 << 64) - 1
SOLVED = 300  # draws to 30 digits; later ones may be off by twin.DRAW roundings of float64
_PI = Decimal("3.14159265358979323846264338327950288419716939937511")


def key(seed: int, name: str) -> int:
    """The first 16 bytes of SHA-256("pcmref/1/{seed}/{name}"), little-endian."""
    return int.from_bytes(hashlib.sha256(f"pcmref/1/{seed}/{name}".encode()).digest()[:16], "little")


def _block(counter: int, key_: int) -> list[int]:
    c, k = [counter, 0, 0, 0], [key_ & _MASK, key_ >> 64]
    for _ in range(10):
        a, b = c[0] * 0xD2E7470EE14C6C93, c[2] * 0xCA5A826395121157
        c = [(b >> 64) ^ c[1] ^ k[0], b & _MASK, (a >> 64) ^ c[3] ^ k[1], a & _MASK]
        k = [(k[0] + 0x9E3779B97F4A7C15) & _MASK, (k[1] + 0xBB67AE8584CAA73B) & _MASK]
    return c


def raw(seed: int, name: str, n: int) -> list[int]:
    """The first n words of a stream: block counters 1, 2, ..., words 0 to 3 of each."""
    k, words, counter = key(seed, name), [], 0
    while len(words) < n:
        counter += 1
        words += _block(counter, k)
    return words[:n]


def uniform(words: list[int]) -> list[float]:
    """u = ((raw >> 12) + 1/2) * 2^-52, exact in float64."""
    return [(2 * (word >> 12) + 1) * 2.0**-53 for word in words]


def _density(z: Decimal) -> Decimal:
    return (-z * z / 2).exp() / (2 * _PI).sqrt()


def _distribution(z: Decimal) -> Decimal:
    term = total = z
    k = 1
    while abs(term) > abs(total) * Decimal("1e-48"):
        k += 2
        term *= z * z / k
        total += term
    return Decimal("0.5") + _density(z) * total


def standard_normal(words: list[int]) -> list[Decimal]:
    """z with Phi(z) = u: of the first SOLVED words to 30 digits, of more as Python has it."""
    solved = [Decimal(NormalDist().inv_cdf(u)) for u in uniform(words)]
    for i, u in enumerate(uniform(words[:SOLVED])):
        for _ in range(2):
            solved[i] -= (_distribution(solved[i]) - Decimal(u)) / _density(solved[i])
    return solved


def permutation(words: list[int]) -> list[int]:
    """The stable argsort of the uniforms."""
    return sorted(range(len(words)), key=uniform(words).__getitem__)


def integers(words: list[int], high: int) -> list[int]:
    """floor(u * high), the product rounded to float64."""
    return [int(u * high) for u in uniform(words)]
