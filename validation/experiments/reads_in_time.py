"""Draw reads_in_time.png: how much one reading of a device knows of the next.

python -m validation.experiments.reads_in_time [FILE]

The simulators, pcmref among them, draw the 1/f noise of two readings independently. The model's own covariance says when
that is right: the correlation of two readings against the time between them, for readings first taken 20 s, an hour and a
day after programming, and the pairs of times that the experiment uses.
"""

import sys
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np

from pcmref import PCMModel
from pcmref.experiments.pictures import picture, time_axis
from pcmref.experiments.times import STANDARD_TIMES_S, human_time
from pcmref.pcm.moments import read_correlation

FIRST_READS_S = (20.0, 3600.0, 86_400.0)


def main(path: Path) -> None:
    correlation = partial(read_correlation, PCMModel.joshi2020())
    pairs = [(t1, t2, correlation(t1, t2)) for t1, t2 in pairwise(STANDARD_TIMES_S)]
    with picture(path, figsize=(9.6, 4.6)) as (_, axis):
        for t1_s in FIRST_READS_S:
            lags_s = np.geomspace(1e-6, 2 * t1_s, 300)
            axis.plot(lags_s, [correlation(t1_s, t1_s + lag) for lag in lags_s], label=f"first read at {human_time(t1_s)}")
        axis.plot([t2 - t1 for t1, t2, _ in pairs], [r for _, _, r in pairs], "kx", label="the times of our studies")
        for t1, t2, r in pairs:
            place = {"xytext": (0, 8), "textcoords": "offset points", "fontsize": 8, "rotation": 60}
            axis.annotate(f"{human_time(t1)} and {human_time(t2)}: {r:.0e}", (t2 - t1, r), **place)
        time_axis(axis, (1.0, *STANDARD_TIMES_S[1:]))
        axis.set_xticks([1e-6, 1e-3, *axis.get_xticks()], ["1 µs", "1 ms", *axis.get_xticklabels()])
        axis.set_xlabel("time between two readings of a device")
        axis.set_ylabel("correlation of their read noise")
        axis.set_xlim(right=1e9)
        axis.legend()
    for t1, t2, r in pairs:
        print(f"{human_time(t1):>8} and {human_time(t2):>8}: correlation {r:9.2e}")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parents[1] / "reads_in_time.png")
