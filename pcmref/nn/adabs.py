"""Adaptive batch-norm statistics (AdaBS): re-estimate every batch norm on the chip as it is now (Joshi et al. 2020)."""

import numpy as np

from pcmref.errors import SettingError, ShapeError, whole_number
from pcmref.nn.resnet import ResNet, changed
from pcmref.precision import wide

BATCH_SIZE = 200  # calibration images that go forward together


def check_batches(net: ResNet, shape: tuple[int, ...], batch_size: int) -> None:
    """ShapeError where the last batch of images [N, H, W, C] has one value a channel somewhere, which has no variance."""
    n, height, width = shape[0] % batch_size or batch_size, *shape[1:3]  # n: images in the last batch
    halvings = len(net.widths) - 1 + (2 if net.stem == "imagenet" else 0)  # each stage behind the first halves the maps
    if n * -(-height // 2**halvings) * -(-width // 2**halvings) == 1:
        raise ShapeError(
            f"adabs: {shape[0]} calibration images in batches of {batch_size} leave one for the last, "
            "whose last maps are single pixels, without a variance; take one image more or less"
        )


def adabs(
    net: ResNet, state: dict, x_calibration, batch_size: int = BATCH_SIZE, momentum: float | None = None, **options
) -> dict:
    """A state with new running means and variances from calibration images, nothing else changed; no labels needed.

    state is a chip's as read, such as `chip.read(t_s, gdc=True)`; x_calibration [N, H, W, C]. Each batch goes forward in
    training mode, so that a layer sees what the new statistics before it give; its means and unbiased variances are averaged,
    each batch counting by its images: a cumulative average that starts from nothing. What batches differ in among each other is
    not counted: shuffle the images. With a momentum the statistics enter as running = (1 - m) running + m new: a moving average
    that starts from the state's own, so it can be continued a batch at a time. Which of the two the paper used, and how many
    images, is not known here. `options` go to `net.forward`: product, and with `pcmref.fast`'s network workers and engine.
    ShapeError without images, SettingError for a momentum outside 0..1.

    >>> net = pcmref.ResNet(in_channels=1, num_classes=3, widths=(4,), blocks=(1,))
    >>> state, x = net.init(dtype=np.float64), pcmref.draws.standard_normal(0, "images", (8, 6, 6, 1))
    >>> again = pcmref.adabs(net, state, x, batch_size=4)
    >>> [name for name in again if not np.array_equal(again[name], state[name])][:2]
    ['bn1.running_mean', 'bn1.running_var']
    """
    batch_size = whole_number("batch_size", batch_size, 1)
    if momentum is not None and not 0 < momentum <= 1:
        raise SettingError(f"adabs: momentum must lie above 0 and at most at 1, or be None; got {momentum!r}")
    if len(x_calibration) == 0:
        raise ShapeError("adabs needs at least one calibration image")
    check_batches(net, np.shape(x_calibration), batch_size)
    new, seen = {name: wide(state[name]) for name in net.shapes() if "running_" in name}, 0
    for first in range(0, len(x_calibration), batch_size):
        batch = np.asarray(x_calibration[first : first + batch_size])
        for bn, (mean, var, count) in net.statistics(state, batch, **options).items():
            for name, value in ((f"{bn}.running_mean", wide(mean)), (f"{bn}.running_var", wide(var) * count / (count - 1))):
                if momentum is not None:
                    new[name] = (1 - momentum) * new[name] + momentum * value
                elif seen == 0:
                    new[name] = value
                else:
                    new[name] = (seen * new[name] + len(batch) * value) / (seen + len(batch))
        seen += len(batch)
    for name, value in new.items():
        new[name] = value.astype(state[name].dtype)
        if value.dtype.kind == "f" and not np.isfinite(new[name]).all():
            raise ShapeError(f"adabs: {name} is not finite; check the calibration images and their dtype")
    return changed(state, new)
