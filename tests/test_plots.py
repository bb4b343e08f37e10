"""The pictures: drawn from the numbers, the same bytes each time, readable."""

import numpy as np
import pytest

from pcmref.errors import SettingError
from pcmref.plots import PALETTE, STYLE, plot_retention, pyplot
from pcmref.study import RetentionResult, Row

pytest.importorskip("matplotlib", reason="matplotlib is not installed: pictures skipped")

MEANS = {"none": (0.9, 0.1), "gdc": (0.92, 0.9), "adabs": (0.93, 0.92)}
ROWS = tuple(
    Row("n", c, t, k, 0, MEANS[c][i] + 0.01 * k) for c in MEANS for i, t in enumerate((20.0, 86_400.0)) for k in range(2)
)
RESULT = RetentionResult("n", ROWS, 0.94, {"n_images": 1000})


def test_another_kind_of_picture_is_refused(tmp_path):
    for name in ("x.pdf", "x"):
        with pytest.raises(SettingError, match=r"\.png or \.svg"):
            RESULT.plot(tmp_path / name)


@pytest.mark.parametrize("ending", ["png", "svg"])
def test_the_same_numbers_give_the_same_picture(tmp_path, ending):
    for name in ("a", "b"):
        RESULT.plot(tmp_path / f"{name}.{ending}")
    assert (tmp_path / f"a.{ending}").read_bytes() == (tmp_path / f"b.{ending}").read_bytes()


def test_the_picture_shows_what_it_is_about(tmp_path, monkeypatch):
    import matplotlib.pyplot as plt

    figures = []
    monkeypatch.setattr(plt, "close", figures.append)
    plot_retention([RESULT, RESULT], tmp_path / "r.png")
    assert len(figures[0].axes) == 4  # two networks, the whole range and enlarged
    axis, enlarged = figures[0].axes[:2]
    assert axis.get_xscale() == "log" and [t.get_text() for t in axis.get_xticklabels()] == ["20 s", "1 day"]
    curves = {bars.get_label(): bars.lines for bars in axis.containers}
    mean, _, (bars,) = curves["no compensation"]
    assert mean.get_ydata() == pytest.approx([90.5, 10.5]) and "1,000 images, 2 chips" in axis.get_title(loc="left")
    assert [np.ptp(bar[:, 1]) for bar in bars.get_segments()] == pytest.approx([2**0.5] * 2)  # two standard deviations
    assert "software, 94.0 %" in enlarged.get_title(loc="left") and len(curves) == 3
    assert axis.get_ylim() == (0, 101) and 85 < enlarged.get_ylim()[0] < 89.5 and 94 < enlarged.get_ylim()[1] < 96
    monkeypatch.undo()
    plt.close(figures[0])


def test_the_style_cycles_through_the_palette():
    plt = pyplot()
    with plt.style.context(STYLE):
        cycle = plt.rcParams["axes.prop_cycle"].by_key()["color"]
    assert [f"#{colour.lstrip('#')}" for colour in cycle] == list(PALETTE.values())
