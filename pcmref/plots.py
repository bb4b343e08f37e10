"""Pictures, in one style: colour-blind-safe colours, units on the axes, time on a log scale with human labels."""

from pathlib import Path

import numpy as np

from pcmref import store
from pcmref.errors import MissingExtraError, SettingError
from pcmref.times import human_time

# Okabe & Ito's colours, distinguishable with any colour vision
PALETTE = {"vermilion": "#D55E00", "blue": "#0072B2", "green": "#009E73", "purple": "#CC79A7", "orange": "#E69F00"}
COLOURS = {"none": PALETTE["vermilion"], "gdc": PALETTE["blue"], "adabs": PALETTE["green"]}
MARKERS = {"none": "v", "gdc": "s", "adabs": "o"}
LABELS = {"none": "no compensation", "gdc": "global drift compensation", "adabs": "batch-norm recalibration (AdaBS)"}
STYLE = "pcmref.pictures"  # pictures.mplstyle, beside this file: for `plt.style.use`


def pyplot():
    """matplotlib.pyplot, drawing to files; MissingExtraError where matplotlib is not installed."""
    try:
        import matplotlib
    except ImportError as error:
        raise MissingExtraError("pictures need matplotlib: pip install 'pcmref[show]'") from error
    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    return plt


def time_axis(axis, times_s) -> None:
    """Make an axis's x logarithmic in the time since programming, with a human label at each of times_s (seconds)."""
    axis.set_xscale("log")
    if len(set(times_s)) == 1:  # no range to be found
        axis.set_xlim(times_s[0] / 2, times_s[0] * 2)
    axis.set_xticks(times_s, [human_time(t_s) for t_s in times_s])
    axis.minorticks_off()
    axis.set_xlabel("time since programming")


def plot_retention(results, path) -> None:
    """Accuracy over time, a row a network: the whole range on the left, what lies near the software's accuracy on the right.

    A line a compensation, one standard deviation over the chips as bars, the software's accuracy dashed.
    """
    kind = Path(path).suffix.lower().lstrip(".")
    if kind not in ("png", "svg"):
        raise SettingError(f"{path}: a picture's name must end in .png or .svg")
    plt = pyplot()
    with plt.style.context(STYLE):
        figure, axes = plt.subplots(len(results), 2, figsize=(11.5, 4.4 * len(results)), squeeze=False)
        for (whole, near), result in zip(axes, results, strict=True):
            for axis in (whole, near):
                _draw_curves(axis, result)
            whole.set_ylim(0, 101)
            whole.legend(loc="center right")
            near.set_ylim(*_near_software(result))
            n_chips = max(s.n_chips for s in result.summary())
            size = f"{result.settings['n_images']:,} images, {n_chips} chip{'s' * (n_chips > 1)}"
            whole.set_title(f"{result.name}: {size}")
            near.set_title(f"enlarged; dashed: software, {100 * result.software_accuracy:.1f} %")
        with store.replacing(path) as temporary:
            figure.savefig(temporary, format=kind, metadata={"Date": None} if kind == "svg" else None)
        plt.close(figure)


def _draw_curves(axis, result) -> None:
    summary = result.summary()
    time_axis(axis, sorted({s.t_s for s in summary}))
    axis.set_ylabel("classification accuracy (%)")
    axis.axhline(100 * result.software_accuracy, color="black", linestyle="--", linewidth=1)
    compensations = list(dict.fromkeys(s.compensation for s in summary))
    for i, compensation in enumerate(compensations):
        points = sorted((s for s in summary if s.compensation == compensation), key=lambda s: s.t_s)
        t = np.array([s.t_s for s in points]) * 1.12 ** (i - (len(compensations) - 1) / 2)  # side by side: bars stay readable
        mean, std = 100 * np.array([s.mean for s in points]), 100 * np.nan_to_num([s.std for s in points])
        style = {"color": COLOURS[compensation], "marker": MARKERS[compensation], "label": LABELS[compensation]}
        axis.errorbar(t, mean, std, markersize=6, capsize=3, elinewidth=1.2, **style)


def _near_software(result) -> tuple[float, float]:
    """The range of accuracy, in percent, that shows the compensated curves and what else is within 10 points of software."""
    software = result.software_accuracy
    near = [s for s in result.summary() if s.mean > software - 0.1 or s.compensation != "none"]
    low = min([software, *(s.mean - np.nan_to_num(s.std) for s in near)])
    high = max([software, *(s.mean + np.nan_to_num(s.std) for s in near)])
    margin = max(0.1 * (high - low), 0.002)
    return 100 * (low - margin), 100 * (high + margin)
