"""Write measurements.csv, the table that chapter 10 fits: drawn from a device model of no device, so that the answer is known.

python docs/make_measurements.py
"""

from dataclasses import replace
from pathlib import Path

import numpy as np

from pcmref import PCMModel, draws, store

DEVICE = replace(
    PCMModel.joshi2020(),
    name="the answer",
    g_max_us=20.0,
    programming=(0.32, 1.1, -0.4),
    programming_g_max_us=20.0,
    nu_mean_line=(-0.012, 0.028),
    nu_mean_range=(0.041, 0.085),
    nu_std_line=(-0.009, -0.002),
    nu_std_range=(0.009, 0.04),
    q_factor=0.012,
    q_exponent=-0.55,
    q_max=0.16,
)
TARGETS_US = (0.0, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 15.0, 20.0)
TIMES_S = (20.0, 600.0, 10_000.0, 200_000.0)
DEVICES, READS = 100, 2  # of each target, at each time


def rows():
    """Device, target, time and reading, device by device."""
    target_us = np.repeat(TARGETS_US, DEVICES)
    g_prog_us = DEVICE.program(target_us, draws.standard_normal(10, "measurements/program", target_us.shape))
    nu = DEVICE.drift_exponent(target_us, draws.standard_normal(10, "measurements/drift", target_us.shape))
    z = draws.standard_normal(10, "measurements/read", (len(TIMES_S), READS, len(target_us)))
    for device, target in enumerate(target_us):
        for t_s, of_time in zip(TIMES_S, z, strict=True):
            g_drift_us = DEVICE.drift(g_prog_us[device], nu[device], t_s)
            for of_read in of_time:
                yield device, f"{target:g}", f"{t_s:g}", f"{DEVICE.read(g_drift_us, target, t_s, of_read[device]):.5g}"


if __name__ == "__main__":
    lines = ["device,target_us,t_s,g_us", *(",".join(map(str, row)) for row in rows())]
    store.write_text(Path(__file__).with_name("measurements.csv"), "\n".join(lines) + "\n")
