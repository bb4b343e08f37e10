"""Pictures, in one style: colour-blind-safe colours, units on the axes, time on a log scale with human labels."""

from contextlib import contextmanager
from pathlib import Path

import numpy as np

from pcmref import store
from pcmref.errors import MissingExtraError, SettingError
from pcmref.experiments.times import human_time

# Okabe & Ito's colours, distinguishable with any colour vision
PALETTE = {"vermilion": "#D55E00", "blue": "#0072B2", "green": "#009E73", "purple": "#CC79A7", "orange": "#E69F00"}
COLOURS = {"none": PALETTE["vermilion"], "gdc": PALETTE["blue"], "adabs": PALETTE["green"]}
MARKERS = {"none": "v", "gdc": "s", "adabs": "o"}
LABELS = {"none": "no compensation", "gdc": "global drift compensation", "adabs": "batch-norm recalibration (AdaBS)"}
STYLE = "pcmref.experiments.pictures"  # pictures.mplstyle, beside this file: for `plt.style.use`


LABEL_DECADES = 0.9  # a time's label needs this much of the axis


def time_axis(axis, times_s) -> None:
    """Make an axis's x logarithmic in the time since programming: ticks at times_s (seconds), human labels where they fit."""
    axis.set_xscale("log")
    times_s = sorted(set(times_s))
    if len(times_s) == 1:  # no range to be found
        axis.set_xlim(times_s[0] / 2, times_s[0] * 2)
    shown = [times_s[-1]]
    for t_s in times_s[:-1]:
        apart = min(abs(np.log10(t_s / other)) for other in shown)
        shown += [t_s] if apart > LABEL_DECADES or t_s == times_s[0] else []
    axis.set_xticks(times_s, [human_time(t_s) if t_s in shown else "" for t_s in times_s])
    axis.minorticks_off()
    axis.set_xlabel("time since programming")


@contextmanager
def picture(path, *shape: int, figsize: tuple[float, float] | None = None, **options):
    """(figure, axes) in the project's style, `Figure.subplots(*shape, **options)`; written to `path` when the block ends well.

    pyplot with its backend and figures, and the user's own style, have no part in it. MissingExtraError without matplotlib.
    """
    try:
        from matplotlib import style
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError("pictures need matplotlib: pip install 'pcmref[show]'") from error
    with style.context(["default", STYLE]):
        figure = Figure(figsize)
        yield figure, figure.subplots(*shape, **options)
        save(figure, path)


def plot_retention(results, path) -> None:
    """Accuracy over time, a row a network: the whole range on the left, what lies near the software's accuracy on the right.

    A line a compensation through the medians, a faint dot each reading of each chip, the software's accuracy dashed.
    """
    with picture(path, len(results), 2, figsize=(11.5, 4.4 * len(results)), squeeze=False) as (_, axes):
        for (whole, near), result in zip(axes, results, strict=True):
            for axis in (whole, near):
                _draw_curves(axis, result)
            whole.set_ylim(0, 100)
            whole.legend(loc="center right")
            near.set_ylim(*_near_software(result))
            whole.set_title(f"{result.name}: {result.size()}")
            compensated = [row.accuracy for row in result.rows if row.compensation != "none"]
            low = 100 * min(compensated, default=1) < near.get_ylim()[0]
            title = f"enlarged, own scale; dashed: software, {100 * result.software_accuracy:.1f} %"
            near.set_title(title + ("\nreadings below are left out" if low else ""))


def save(figure, path) -> None:
    """Write a figure as PNG or SVG, the same bytes for the same figure; SettingError for another kind of file."""
    kind = Path(path).suffix.lower().lstrip(".")
    if kind not in ("png", "svg"):
        raise SettingError(f"{path}: a picture's name must end in .png or .svg")
    with store.replacing(path) as temporary:
        figure.savefig(temporary, format=kind, metadata={"Date": None} if kind == "svg" else None)


def _draw_curves(axis, result) -> None:
    summary = result.summary()
    time_axis(axis, {s.t_s for s in summary})
    axis.set_ylabel("classification accuracy (%)")
    axis.axhline(100 * result.software_accuracy, color="black", linestyle="--", linewidth=1)
    compensations = list(dict.fromkeys(s.compensation for s in summary))
    for i, compensation in enumerate(compensations):
        beside = 1.12 ** (i - (len(compensations) - 1) / 2)  # dots of different compensations side by side
        points = sorted((s for s in summary if s.compensation == compensation), key=lambda s: s.t_s)
        t_s, median = np.array([s.t_s for s in points]), 100 * np.array([s.median for s in points])
        style = {"color": COLOURS[compensation], "marker": MARKERS[compensation], "label": LABELS[compensation]}
        axis.plot(beside * t_s, median, markersize=6, **style)
        dots = [(beside * row.t_s, 100 * row.accuracy) for row in result.rows if row.compensation == compensation]
        axis.plot(
            *zip(*dots, strict=True), ".", color=COLOURS[compensation], alpha=0.4, markersize=6, markeredgewidth=0, zorder=1
        )


def _near_software(result) -> tuple[float, float]:
    """The range in percent with software, medians and most readings of what is compensated or within 10 points of software."""
    software = result.software_accuracy
    near = [s for s in result.summary() if s.median > software - 0.1 or s.compensation != "none"]
    cells = {(s.compensation, s.t_s) for s in near}
    readings = [row.accuracy for row in result.rows if (row.compensation, row.t_s) in cells]
    low = min([software, *(s.median for s in near), *np.quantile(readings or [software], [0.05])])
    high = max([software, *readings])
    margin = max(0.1 * (high - low), 0.002)
    return 100 * max(low - margin, 0), 100 * min(high + margin, 1)


def plot_sensitivity(result, path) -> None:
    """Points lost by crossbar, regained without each kind of noise, and accuracy under Gaussian noise on the weights.

    A faint dot each reading of each chip, medians as markers and lines; software dashed; the training noise dotted.
    """
    bars = list(result.settings["weights"])
    off, etas = ([*dict.fromkeys(row.what for row in result.rows if row.kind == kind)] for kind in ("without", "weights"))
    ratios = {"width_ratios": (max(len(bars) / 6, 2), 1.6, 2)}
    with picture(path, 1, 3, figsize=(15, 4.6), gridspec_kw=ratios) as (_, (layers, kinds, weights)):
        lost, regained = [result.lost("only", bar) for bar in bars], [result.regained("all but", bar) for bar in bars]
        _draw_dots(layers, np.arange(len(bars)), lost, "vermilion", "v", "alone on the chip: lost")
        _draw_dots(layers, np.arange(len(bars)) + 0.2, regained, "green", "o", "alone digital: regained")
        layers.set_xticks(range(len(bars)), [bar.removesuffix(".weight") for bar in bars], rotation=90, fontsize=7)
        layers.set_title(f"{result.name}, {human_time(result.settings['t_s'])}, {result.settings['compensation']}")
        layers.legend()
        _draw_dots(kinds, np.arange(len(off)), [result.regained("without", noise) for noise in off], "blue", "s", None)
        kinds.set_xticks(range(len(off)), [noise.replace(" ", "\n").replace("programming", "progr.") for noise in off])
        kinds.set_xlim(-0.5, len(off) - 0.5)
        kinds.set_title("without it: regained")
        for axis in (layers, kinds):
            axis.set_ylabel("points of accuracy")
        readings = [result.values("weights", eta) for eta in etas]
        _draw_dots(weights, 100 * np.array(etas, float), readings, "purple", "o-", None)
        weights.axhline(100 * result.software_accuracy, color="black", linestyle="--", linewidth=1)
        if result.settings["eta"]:
            weights.axvline(100 * result.settings["eta"], color="black", linestyle=":", linewidth=1)
        weights.set(xlabel="noise on the weights (% of max|W|)", ylabel="classification accuracy (%)")
        weights.set_ylim(top=100)
        weights.set_title("dashed: software" + ("; dotted: trained" if result.settings["eta"] else ""))


def _draw_dots(axis, x, values, colour: str, style: str, label: str | None) -> None:
    """The readings [chips, reads] at each x as faint dots, in percent, and their medians."""
    for at, v in zip(x, values, strict=True):
        axis.plot(np.full(v.size, at), 100 * v.ravel(), ".", color=PALETTE[colour], alpha=0.4, markeredgewidth=0, zorder=1)
    style = {"marker": style[0], "linestyle": "-" if style.endswith("-") else "none", "color": PALETTE[colour], "label": label}
    axis.plot(x, [100 * np.median(v) for v in values], **style)


def plot_fit(fit, path) -> None:
    """Draw a fitted device: for each law its line over the target, and each level's own estimate with two standard errors."""
    targets_us = np.linspace(0, fit.model.g_max_us, 400)
    laws = (
        ("programming noise (µS)", fit.model.programming_std_us(targets_us), 0),
        ("mean drift exponent", fit.model.drift_exponent_mean(targets_us), 1),
        ("spread of drift exponents", fit.model.drift_exponent_std(targets_us), 2),
        ("read noise Q", fit.model.read_noise_q(targets_us), 3),
    )
    with picture(path, 2, 2, figsize=(8.0, 6.0), sharex=True) as (figure, axes):
        figure.suptitle(f"{fit.model.name}: levels (2 standard errors) and fitted laws")
        for axis, (label, law, i) in zip(axes.flat, laws, strict=True):
            axis.plot(targets_us, law, color=PALETTE["blue"])
            told = [level for level in fit.levels if level.free[i]]
            at_us = [level.x * fit.model.g_max_us for level in told]
            bars = {"fmt": "o", "markersize": 4, "color": PALETTE["vermilion"]}
            axis.errorbar(at_us, [level.values[i] for level in told], [2 * level.std[i] for level in told], **bars)
            axis.set_ylabel(label if told else f"{label} (not told by the data)")
        for axis in axes[1]:
            axis.set_xlabel("target conductance (µS)")
