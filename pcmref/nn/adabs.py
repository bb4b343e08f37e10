"""Adaptive batch-norm statistics (AdaBS): re-estimate every batch norm on the chip as it is now (Joshi et al. 2020)."""

import numpy as np

from pcmref.blocks import blocks_of
from pcmref.errors import ShapeError, whole_number
from pcmref.nn.resnet import ResNet


def adabs(net: ResNet, state: dict, x_calibration, batch_size: int = 200, workers: int | None = None) -> dict:
    """A state with new running means and variances from calibration images, nothing else changed; no labels needed.

    x_calibration [N, H, W, C]. Each batch goes forward in training mode; its means and unbiased variances enter a
    cumulative average weighted by its number of images, starting from nothing. ShapeError without images.
    """
    batch_size = whole_number("batch_size", batch_size, 1)
    if len(x_calibration) == 0:
        raise ShapeError("adabs needs at least one calibration image")
    sums, seen = {}, 0
    for batch in blocks_of(len(x_calibration), batch_size):
        n = batch.stop - batch.start
        seen += n
        for bn, moments in net.batch_moments(state, np.asarray(x_calibration[batch]), workers).items():
            mean, var = sums.get(bn, (0, 0))
            sums[bn] = mean + n * moments.mean, var + n * moments.m2 / (moments.n - 1)
    new = dict(state)
    for bn, (mean, var) in sums.items():
        dtype = np.asarray(state[f"{bn}.running_mean"]).dtype
        new[f"{bn}.running_mean"] = (mean / seen).astype(dtype)
        new[f"{bn}.running_var"] = (var / seen).astype(dtype)
        if not np.isfinite([new[f"{bn}.running_mean"], new[f"{bn}.running_var"]]).all():
            raise ShapeError(f"adabs: statistics of {bn} are not finite; check the calibration images and their dtype")
    return new
