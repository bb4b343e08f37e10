"""Pictures, in one style: colour-blind-safe colours, units on the axes, time on a log scale with human labels."""

from pathlib import Path

import numpy as np

from pcmref import store
from pcmref.errors import MissingExtraError, SettingError
from pcmref.times import human_time

# Okabe & Ito's colours, distinguishable with any colour vision
COLOURS = {"none": "#D55E00", "gdc": "#0072B2", "adabs": "#009E73"}
MARKERS = {"none": "v", "gdc": "s", "adabs": "o"}
LABELS = {"none": "no compensation", "gdc": "global drift compensation", "adabs": "batch-norm recalibration (AdaBS)"}


def pyplot():
    """matplotlib.pyplot, drawing to files; MissingExtraError where matplotlib is not installed."""
    try:
        import matplotlib
    except ImportError as error:
        raise MissingExtraError("pictures need matplotlib: pip install 'pcmref[show]'") from error
    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    return plt


def plot_retention(results, path) -> None:
    """Accuracy over time, a row a network: the whole range on the left, what lies near the software's accuracy on the right.

    A line a compensation, one standard deviation shaded, the software's accuracy dashed.
    """
    kind = Path(path).suffix.lower().lstrip(".")
    if kind not in ("png", "svg"):
        raise SettingError(f"{path}: a picture's name must end in .png or .svg")
    plt = pyplot()
    style = {"font.size": 11, "axes.spines.top": False, "axes.spines.right": False, "svg.hashsalt": "pcmref"}
    with plt.rc_context(style):
        figure, axes = plt.subplots(len(results), 2, figsize=(11.5, 4.4 * len(results)), squeeze=False)
        for (whole, near), result in zip(axes, results, strict=True):
            for axis in (whole, near):
                _draw_curves(axis, result)
            whole.set_ylim(0, 101)
            whole.set_ylabel("classification accuracy (%)")
            whole.legend(loc="center right", frameon=False)
            near.set_ylim(*_near_software(result))
            near.annotate("software", (1, 100 * result.software_accuracy), (0, 4), xycoords=("axes fraction", "data"),
                          textcoords="offset points", ha="right", fontsize=9)  # fmt: skip
            n_chips = max(s.n_chips for s in result.summary())
            size = f"{result.settings['n_images']:,} images, {n_chips} chip{'s' * (n_chips > 1)}"
            whole.set_title(f"{result.name}: {size}", loc="left", fontsize=11)
            near.set_title(f"enlarged; software {100 * result.software_accuracy:.1f} %", loc="left", fontsize=11)
        figure.tight_layout()
        with store.replacing(path) as temporary:
            figure.savefig(temporary, dpi=160, format=kind, metadata={"Date": None} if kind == "svg" else {"Software": None})
        plt.close(figure)


def _draw_curves(axis, result) -> None:
    summary = result.summary()
    times_s = sorted({s.t_s for s in summary})
    axis.axhline(100 * result.software_accuracy, color="black", linestyle="--", linewidth=1)
    for compensation in dict.fromkeys(s.compensation for s in summary):
        points = sorted((s for s in summary if s.compensation == compensation), key=lambda s: s.t_s)
        t = [s.t_s for s in points]
        mean, std = 100 * np.array([s.mean for s in points]), 100 * np.nan_to_num([s.std for s in points])
        style = {"color": COLOURS[compensation], "marker": MARKERS[compensation], "label": LABELS[compensation]}
        axis.plot(t, mean, linewidth=2, markersize=6, **style)
        axis.fill_between(t, mean - std, mean + std, color=COLOURS[compensation], alpha=0.2, linewidth=0)
    axis.set_xscale("log")
    axis.set_xticks(times_s, [human_time(t) for t in times_s])
    axis.minorticks_off()
    axis.set_xlabel("time since programming")
    axis.grid(axis="y", linewidth=0.5, alpha=0.5)


def _near_software(result) -> tuple[float, float]:
    """The range of accuracy, in percent, that shows the compensated curves and what else is within 10 points of software."""
    software = result.software_accuracy
    near = [s for s in result.summary() if s.mean > software - 0.1 or s.compensation != "none"]
    low = min([software, *(s.mean - np.nan_to_num(s.std) for s in near)])
    high = max([software, *(s.mean + np.nan_to_num(s.std) for s in near)])
    margin = max(0.1 * (high - low), 0.002)
    return 100 * (low - margin), 100 * (high + margin)
