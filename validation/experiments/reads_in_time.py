"""Draw reads_in_time.png: how much one reading of a device knows of the next.

python validation/experiments/reads_in_time.py [FILE]

The simulators, pcmref among them, draw the 1/f noise of two readings independently. The model's own covariance says when
that is right: the correlation of two readings against the time between them, for readings first taken 20 s, an hour and a
day after programming, and the pairs of times that the experiment uses.
"""

import sys
from pathlib import Path

import numpy as np

from pcmref import PCMModel, store
from pcmref.pcm.moments import read_correlation
from pcmref.plots import STYLE, pyplot, time_axis
from pcmref.times import STANDARD_TIMES_S, human_time

FIRST_READS_S = (20.0, 3600.0, 86_400.0)


def curve(t1_s: float, lags_s: np.ndarray) -> list[float]:
    """The correlation of readings at t1 and t1 + lag."""
    model = PCMModel.joshi2020()
    return [read_correlation(model, t1_s, t1_s + lag) for lag in lags_s]


def experiment_pairs() -> list[tuple[float, float, float]]:
    """(t1, t2, correlation) of neighbours among the standard times."""
    model = PCMModel.joshi2020()
    pairs = zip(STANDARD_TIMES_S, STANDARD_TIMES_S[1:], strict=False)
    return [(t1, t2, read_correlation(model, t1, t2)) for t1, t2 in pairs]


def main(path: Path) -> None:
    plt = pyplot()
    with plt.style.context(STYLE):
        figure, axis = plt.subplots(figsize=(9.6, 4.6))
        for t1_s in FIRST_READS_S:
            lags_s = np.geomspace(1e-6, 2 * t1_s, 300)
            axis.plot(lags_s, curve(t1_s, lags_s), label=f"first read at {human_time(t1_s)}")
        pairs = experiment_pairs()
        axis.plot([t2 - t1 for t1, t2, _ in pairs], [r for _, _, r in pairs], "kx", label="the experiment's times")
        for t1, t2, r in pairs:
            place = {"xytext": (0, 8), "textcoords": "offset points", "fontsize": 8, "rotation": 60}
            axis.annotate(f"{human_time(t1)} and {human_time(t2)}: {r:.0e}", (t2 - t1, r), **place)
        time_axis(axis, (1.0, *STANDARD_TIMES_S[1:]))
        axis.set_xticks([1e-6, 1e-3, *axis.get_xticks()], ["1 µs", "1 ms", *axis.get_xticklabels()])
        axis.set_xlabel("time between two readings of a device")
        axis.set_ylabel("correlation of their read noise")
        axis.set_xlim(right=1e9)
        axis.legend()
        with store.replacing(path) as temporary:
            figure.savefig(temporary, format="png")
        plt.close(figure)
    for t1, t2, r in pairs:
        print(f"{human_time(t1):>8} and {human_time(t2):>8}: correlation {r:9.2e}")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parents[1] / "reads_in_time.png")
