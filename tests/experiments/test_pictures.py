"""The pictures: drawn from the numbers, the same bytes each time, readable."""

import dataclasses
import os
import subprocess
import sys

import pytest

from pcmref.errors import SettingError
from pcmref.experiments import pictures
from pcmref.experiments.pictures import PALETTE, STYLE, plot_retention, time_axis
from pcmref.experiments.retention import RetentionResult, Row
from pcmref.experiments.times import STANDARD_TIMES_S
from tests.helpers import TOP

Figure = pytest.importorskip("matplotlib.figure", reason="matplotlib is not installed: pictures skipped").Figure

MEANS = {"none": (0.9, 0.1), "gdc": (0.92, 0.9), "adabs": (0.93, 0.92)}
ROWS = tuple(
    Row("n", c, t, k, 0, min(MEANS[c][i] + (0, 0.01, 0.09)[k], 1))
    for c in MEANS
    for i, t in enumerate((20.0, 86_400.0))
    for k in range(3)
)
RESULT = RetentionResult("n", ROWS, 0.94, {"n_images": 1000})


def test_another_kind_of_picture_is_refused(tmp_path):
    for name in ("x.pdf", "x"):
        with pytest.raises(SettingError, match=r"\.png or \.svg"):
            RESULT.plot(tmp_path / name)


def test_a_study_without_compensation_has_a_picture_too(tmp_path):
    rows = tuple(row for row in ROWS if row.compensation == "none")
    dataclasses.replace(RESULT, rows=rows).plot(tmp_path / "none.png")
    assert (tmp_path / "none.png").stat().st_size > 10_000


@pytest.mark.parametrize("ending", ["png", "svg"])
def test_the_same_numbers_give_the_same_picture(tmp_path, ending):
    for name in ("a", "b"):
        RESULT.plot(tmp_path / f"{name}.{ending}")
    assert (tmp_path / f"a.{ending}").read_bytes() == (tmp_path / f"b.{ending}").read_bytes()


def test_the_picture_shows_what_it_is_about(tmp_path, monkeypatch):
    figures = []
    monkeypatch.setattr(pictures, "save", lambda figure, path: figures.append(figure))
    plot_retention([RESULT, RESULT], tmp_path / "r.png")
    assert len(figures[0].axes) == 4  # two networks, the whole range and enlarged
    axis, enlarged = figures[0].axes[:2]
    assert axis.get_xscale() == "log" and [t.get_text() for t in axis.get_xticklabels()] == ["20 s", "1 day"]
    curves = {line.get_label(): line for line in axis.lines if not line.get_label().startswith("_")}
    assert curves["no compensation"].get_ydata() == pytest.approx([91, 11])  # the median of 90, 91 and 99
    dots = [line for line in axis.lines if line.get_marker() == "."]
    assert sorted(dots[0].get_ydata()) == pytest.approx([10, 11, 19, 90, 91, 99]) and all(d.get_alpha() < 0.5 for d in dots)
    assert "1,000 images, 3 chips, 1 read" in axis.get_title(loc="left") and len(curves) == len(dots) == 3
    assert "software, 94.0 %" in enlarged.get_title(loc="left")
    assert axis.get_ylim() == (0, 100)
    low, high = enlarged.get_ylim()
    assert 85 < low < 90 and high == 100  # the axis ends where accuracy does


def test_the_style_cycles_through_the_palette():
    import matplotlib.style

    with matplotlib.style.context(STYLE):
        cycle = matplotlib.rcParams["axes.prop_cycle"].by_key()["color"]
    assert [f"#{colour.lstrip('#')}" for colour in cycle] == list(PALETTE.values())


@pytest.mark.parametrize("software", [0.94, 0.3, 1.0])
def test_the_enlargement_keeps_software_and_medians_in_view(tmp_path, monkeypatch, software):
    figures = []
    monkeypatch.setattr(pictures, "save", lambda figure, path: figures.append(figure))
    dataclasses.replace(RESULT, software_accuracy=software).plot(tmp_path / "r.png")
    low, high = figures[0].axes[1].get_ylim()
    assert 0 <= low < 100 * software <= high <= 100
    assert all(low <= 100 * s.median <= high for s in RESULT.summary() if s.compensation != "none")


def test_labels_of_times_leave_each_other_room():
    axis = Figure().subplots()
    time_axis(axis, STANDARD_TIMES_S)
    shown = [label.get_text() for label in axis.get_xticklabels()]
    assert shown == ["20 s", "", "5 min", "", "1 h", "1 day", "30 days", "1 year"]
    assert axis.get_xticks().tolist() == list(STANDARD_TIMES_S)


@pytest.mark.parametrize("backend", ["svg", "module://no_such_module"])
def test_the_users_own_backend_figures_and_style_are_left_alone(tmp_path, backend):
    """A notebook's backend, which may not be there, and text by LaTeX, which is not."""
    code = (
        "import sys\nimport matplotlib\nfrom tests.experiments.test_pictures import RESULT\n"
        "matplotlib.rcParams['text.usetex'] = True\n"
        "before = dict(matplotlib.rcParams)\nRESULT.plot(sys.argv[1])\n"
        "assert dict(matplotlib.rcParams) == before and 'matplotlib.pyplot' not in sys.modules\n"
    )
    path = os.pathsep.join([str(TOP), *(p for p in sys.path if p)])
    environment = os.environ | {"PYTHONPATH": path, "MPLBACKEND": backend}
    subprocess.run([sys.executable, "-c", code, tmp_path / "r.png"], env=environment, check=True)
    RESULT.plot(tmp_path / "same.png")
    assert (tmp_path / "same.png").read_bytes() == (tmp_path / "r.png").read_bytes()
