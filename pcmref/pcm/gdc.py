"""Global drift compensation: one number a crossbar, read out of the chip itself, undoes the mean loss of conductance.

alpha = I(t_0) / I(t), the summed read-out current at a constant voltage. Which current is meant differs between codes
(discrepancy D10), so it has a name here: "device sum" adds the currents of both devices of every pair, which is what a
column wire carries; "one-hot" is aihwkit's mean of |net output| over one-hot inputs.
"""

import numpy as np

from pcmref.errors import DeviceError

_ONE_HOT_FLOOR = 1e-4  # of the mean |net output| in units of max|W| (grade B: aihwkit's code)


def read_out(arrays_us: list[np.ndarray], g_max_us: float, kind: str = "device sum") -> float:
    """The crossbar's current at unit voltage, up to a constant: arrays_us, a list of [2, *shape], in uS."""
    if kind == "device sum":
        return float(sum(g.sum() for g in arrays_us))
    if kind == "one-hot":
        total = sum(np.abs(g[0] - g[1]).sum() for g in arrays_us)
        mean = total / sum(g[0].size for g in arrays_us)
        return float(max(mean, _ONE_HOT_FLOOR * g_max_us))
    raise DeviceError(f"gdc: read-out must be 'device sum' or 'one-hot', got {kind!r}")


def factor(current_t0: float, current_t: float) -> float:
    """alpha = I(t_0) / I(t); 1 where no current flows at t."""
    return current_t0 / current_t if current_t > 0 else 1.0
