"""Numbers that every dtype holds, such as stored cases have."""

import numpy as np

from pcmref import draws

STEP = 2.0**-14  # the finest number in a case: float16 has it


def narrow(values) -> np.ndarray:
    """Each value rounded to eight significant bits and to a multiple of 2^-14, as float64."""
    values = np.asarray(values, np.float64)
    mantissa, exponent = np.frexp(values)
    rounded = np.ldexp(np.rint(mantissa * 256) / 256, exponent)
    return np.rint(rounded / STEP) * STEP


def normal(name: str, *shape: int, scale: float = 1.0, seed: int = 0) -> np.ndarray:
    """Narrow normal numbers of the stream `golden/{name}`."""
    return narrow(scale * draws.standard_normal(seed, f"golden/{name}", shape))
