"""Global drift compensation: one number a crossbar, read out of the chip itself, undoes the mean loss of conductance.

alpha = I(t_0) / I(t), the read-out current at a constant voltage. Which current is meant differs between codes
(discrepancy D10), so each has a name here:

    device sum   the currents of both devices of every pair, added: a reading for this alone, as in use the two are subtracted
    ones         |the net outputs for an input of ones, summed|: the toolkit's document
    one-hot      mean |net output| over one-hot inputs, not below 1e-4: the toolkit's code
    per column   the same for each column (an output, axis 0 of w) by itself: alpha is a vector over the outputs
"""

import numpy as np

from pcmref.errors import DeviceError

READ_OUTS = ("device sum", "ones", "one-hot", "per column")
_FLOOR = 1e-4  # of the mean |net output| in units of max|W| (grade B: aihwkit's code)


def read_out(arrays_us: list[np.ndarray], g_max_us: float, kind: str = "device sum"):
    """The current at unit voltage, up to a constant, that ideal converters see: arrays_us, a list of [2, O, ...], in uS.

    A float in uS; [O] for "per column". DeviceError for another kind.
    """
    return current([g if kind == "device sum" else g[0] - g[1] for g in arrays_us], g_max_us, kind)


def current(measured_us: list[np.ndarray], g_max_us: float, kind: str):
    """One read-out, in uS, from what was measured: arrays in uS, one a crossbar's weight and one its bias.

    "device sum": every device's conductance, or what converters made of the sums. "ones": net currents, G+ - G- of a pair or
    the sums that converters saw. "one-hot" and "per column": [O, ...], an entry for each output and driven row.
    """
    if kind == "device sum":
        return float(sum(g.sum() for g in measured_us))
    if kind == "ones":
        return float(abs(sum(g.sum() for g in measured_us)))
    if kind == "one-hot":
        mean = sum(np.abs(g).sum() for g in measured_us) / sum(g.size for g in measured_us)
        return float(max(mean, _FLOOR * g_max_us))
    if kind == "per column":
        columns = [g.reshape(len(g), -1) for g in measured_us]
        mean = sum(np.abs(g).sum(1) for g in columns) / sum(g.shape[1] for g in columns)
        return np.maximum(mean, _FLOOR * g_max_us)
    raise DeviceError(f"gdc: read-out must be one of {READ_OUTS}, got {kind!r}")


def factor(current_t0, current_t):
    """alpha = I(t_0) / I(t), 1 where no current flows at t: a float, or [O], read-only, for currents [O]."""
    alpha = np.divide(current_t0, current_t, out=np.ones_like(current_t, float), where=np.asarray(current_t) > 0)
    alpha.flags.writeable = False  # a reading keeps it
    return alpha if alpha.ndim else float(alpha)
