"""A case: what goes into the golden file, without any expected value.

Inputs have at most eight significant bits, so that float64 and bfloat16 start from the same numbers and no rounding of the
input has to be forgiven. Sizes are odd, strides and kernels uneven: a transposed axis or an index off by one shows.
"""

from dataclasses import dataclass, field

import numpy as np

from pcmref import draws

STEP = 2.0**-14  # the finest number in a case: float16 has it


@dataclass(frozen=True)
class Case:
    """One set of inputs for an operation: level 1 takes well under a minute in all, level 2 adds the slow and the rare."""

    op: str
    name: str
    why: str
    inputs: dict[str, np.ndarray] = field(default_factory=dict)
    noise: dict[str, np.ndarray] = field(default_factory=dict)
    params: dict = field(default_factory=dict)
    level: int = 1
    version: int = 1
    dtype: str | None = None  # the only one it is judged in, where its inputs have all the bits of that dtype

    @property
    def key(self) -> str:
        return f"{self.op}/v{self.version}/{self.name}"


def narrow(values) -> np.ndarray:
    """Each value rounded to eight significant bits and to a multiple of 2^-14, as float64."""
    values = np.asarray(values, np.float64)
    mantissa, exponent = np.frexp(values)
    rounded = np.ldexp(np.rint(mantissa * 256) / 256, exponent)
    return np.rint(rounded / STEP) * STEP


def normal(name: str, *shape: int, scale: float = 1.0, seed: int = 0) -> np.ndarray:
    """Narrow normal numbers of the stream `golden/{name}`."""
    return narrow(scale * draws.standard_normal(seed, f"golden/{name}", shape))


def positive(name: str, *shape: int, seed: int = 0) -> np.ndarray:
    """Narrow numbers between 0.5 and 1.5."""
    return narrow(0.5 + draws.uniform(seed, f"golden/{name}", shape))


def integers(name: str, high: int, *shape: int, seed: int = 0) -> np.ndarray:
    return draws.integers(seed, f"golden/{name}", high, shape)
