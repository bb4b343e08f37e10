"""What the README and the course say is so: their code runs and prints what they show, their links and pictures are right."""

import re
import shlex
from importlib.util import find_spec
from pathlib import Path

import course
import numpy as np
import pytest

from pcmref import cli

TOP = Path(__file__).parent.parent
TEXT = (TOP / "README.md").read_text(encoding="utf-8")
SOLUTIONS = TOP / "docs" / "solutions.md"
LINK = re.compile(r"\]\((?!https?:)([^)#\s]*)(?:#([^)\s]*))?\)")


def prose(page: Path) -> str:
    return re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)


@pytest.mark.parametrize("page", course.RUNNABLE, ids=lambda page: page.stem)
def test_code_runs_and_prints_what_the_page_shows(page, tmp_path):
    results = course.run(page, tmp_path)
    wrong = {block.line: course.difference(block.printed or "", printed) for block, printed in results if not block.draws}
    if page.name == "README.md":
        (line,) = wrong  # its accuracies are shown by its own tables
        assert "121,524 devices" in results[0][1] and "adabs" in results[0][1] and wrong.pop(line)
    assert not any(wrong.values()), "\n".join(f"line {line}: {w}" for line, w in wrong.items() if w)
    if page in course.CHAPTERS:
        shown = re.findall(r"!\[[^]]*\]\((figures/[\w-]+\.png)\)", prose(page))
        assert shown and all((page.parent / path).is_file() for path in shown)
        if find_spec("matplotlib") is None:
            pytest.skip("matplotlib is not installed: the code ran, its pictures were not drawn")
        assert sorted(f"figures/{path.name}" for path in (tmp_path / "figures").iterdir()) == sorted(shown)
        for path in shown:
            assert_same_picture(tmp_path / path, page.parent / path)


def assert_same_picture(drawn: Path, shipped: Path) -> None:
    """The shipped picture is what the code draws now, where the same matplotlib drew it.

    Rounding may move a few pixels (errors at the limit of float64 are drawn too); the amounts of each colour stay.
    """
    from matplotlib import image

    new, old = image.imread(drawn), image.imread(shipped)
    again = f"{shipped.name} is not what its code draws: `make figures` draws it again"
    assert new.shape == old.shape, again
    if software(drawn) == software(shipped):
        assert (abs(new - old).max(-1) > 0.1).mean() < 0.01, again
        assert abs(amounts_of_colours(new) - amounts_of_colours(old)).sum() < 0.002, again


def amounts_of_colours(picture: np.ndarray) -> np.ndarray:
    """The share of pixels in each of 8 x 8 x 8 colours."""
    red, green, blue = np.minimum(picture[..., :3] * 8, 7).astype(int).transpose(2, 0, 1)
    return np.bincount((red * 64 + green * 8 + blue).ravel(), minlength=512) / red.size


def test_every_picture_is_drawn_by_make_figures(tmp_path, monkeypatch):
    pytest.importorskip("matplotlib", reason="matplotlib is not installed: pictures skipped")
    ours = {path for path in TOP.rglob("*.png") if not {".venv", "build", "dist", "out"} & set(path.relative_to(TOP).parts)}
    drawn = [TOP / "docs" / "retention.png", TOP / "validation" / "reads_in_time.png", TOP / "validation" / "performance.png"]
    experiment = [TOP / "validation" / "retention.png", TOP / "validation" / "calibration.png"]
    cifar = sorted((TOP / "validation").glob("cifar10*.png"))
    by_browser = {TOP / "docs" / "lab.png"}  # make lab-picture
    assert ours - set((TOP / "docs" / "figures").iterdir()) - by_browser == {*drawn, *experiment, *cifar}
    from validation.experiments import cifar10, performance, readme, reads_in_time, retention

    monkeypatch.setattr(readme, "PICTURE", tmp_path / "retention.png")
    readme.main(["picture"])
    reads_in_time.main(tmp_path / "reads_in_time.png")
    monkeypatch.setattr(performance, "PICTURE", tmp_path / "performance.png")
    performance.main(["picture"])
    for shipped in drawn:
        assert_same_picture(tmp_path / shipped.name, shipped)
    (recipe,) = re.findall(r"^figures:.*\n((?:\t.*\n)+)", (TOP / "Makefile").read_text(), re.M)
    assert all(
        script in recipe
        for script in ("docs/course.py", "experiments.readme", "experiments.reads_in_time", "experiments.cifar10")
    )
    cifar10.draw(tmp_path)
    for shipped in cifar:
        assert_same_picture(tmp_path / shipped.name, shipped)
    retention.draw(tmp_path)
    for shipped in experiment:
        assert_same_picture(tmp_path / shipped.name, shipped)


def software(picture: Path) -> bytes:
    """The version of matplotlib that drew a PNG, as the file says."""
    return re.search(rb"tEXtSoftware\0(.*?),", picture.read_bytes())[1]


def test_there_are_ten_short_chapters():
    assert [int(page.name.split("-")[0]) for page in course.CHAPTERS] == list(range(1, 11))
    index = (TOP / "docs" / "README.md").read_text(encoding="utf-8")
    for page in course.CHAPTERS:
        text = page.read_text(encoding="utf-8")
        assert text.count("\n") < 150, page.name
        title = re.match(r"# (.*)\n", text)[1]
        assert page.name in index and f"## {title}\n" in SOLUTIONS.read_text(encoding="utf-8")
        assert re.findall(r"^(\d)\. ", text.split("## Exercises")[1], re.M) == ["1", "2", "3"], page.name


def test_each_exercise_has_a_solution_that_runs():
    for part in SOLUTIONS.read_text(encoding="utf-8").split("\n## ")[1:]:
        answers = re.split(r"^\*\*\d\.\*\* ", part, flags=re.M)[1:]
        assert len(answers) == 3 and all(course.blocks(answer) for answer in answers), part.splitlines()[0]


@pytest.mark.parametrize("page", [*course.CHAPTERS, SOLUTIONS], ids=lambda page: page.stem)
def test_each_number_in_the_text_is_computed(page):
    text, _, exercises = page.read_text(encoding="utf-8").partition("## Exercises")
    assert course.unsupported_numbers(text) == []
    assert course.unsupported_numbers(exercises, text + SOLUTIONS.read_text(encoding="utf-8")) == []


def test_a_number_that_nothing_computes_is_found():
    page = "# 5 things\n1. In chapter 3, 12.5 of 1,000 (40 %) $0.25 x$ [`f`](a.py#L7), not 13.\n"
    page += "\n```python\nprint(12.5, 1000, 0.4)\n```\n"
    assert course.unsupported_numbers(page) == ["0.25", "13"]
    assert course.unsupported_numbers(page, "```python\n-0.25, 13\n```\n") == []


def test_printed_numbers_may_differ_in_their_last_digit_only():
    assert course.difference("a 1.25 b 1e-3 7\n", "a 1.26  b 1e-03 7") is None
    assert course.difference("a 1.25", "a 1.27") and course.difference("7 b", "8 b") and course.difference("7 b", "7 c")
    assert course.difference("", "7") and course.difference("1.0e-3", "1.0e-2") and course.difference("1,000", "1,001")


@pytest.mark.parametrize("page", course.LINKED, ids=lambda page: page.stem)
def test_links_to_code_point_into_the_function_they_name(page):
    assert course.wrong_links(page) == [], "`make docs-links` points them at where the functions are now"
    assert len(re.findall(r"\.py#L", page.read_text(encoding="utf-8"))) == len(
        course.LINK.findall(page.read_text(encoding="utf-8"))
    )
    if page in course.CHAPTERS:
        assert ".py#L" in prose(page)


def test_a_link_beside_its_function_is_found_and_mended(tmp_path):
    (tmp_path / "code.py").write_text(
        'def f():\n    """What."""\n    return 1\n\nclass C:\n    def f(self):\n        return 2\n'
    )
    page = tmp_path / "page.md"
    page.write_text("[`f`](code.py#L6) [`C.f`](code.py#L7-L8) [`g`](code.py#L1)")
    assert len(course.wrong_links(page)) == 3
    page.write_text("[`f`](code.py#L6) [`C.f`](code.py#L7-L8)")
    course.mend_links(page)
    assert page.read_text() == "[`f`](code.py#L3-L3) [`C.f`](code.py#L7-L7)" and course.wrong_links(page) == []


def test_pages_link_to_files_and_headings_that_are_there():
    for page in (TOP / "README.md", TOP / "docs" / "README.md", *course.LINKED):
        for path, heading in LINK.findall(prose(page)):
            target = page.parent / path if path else page
            assert target.exists(), f"{page.name}: {path}"
            if heading and target.suffix == ".md":
                headings = re.findall(r"^#+ (.*)$", target.read_text(encoding="utf-8"), re.M)
                assert heading in {re.sub(r"[^\w -]", "", h).lower().replace(" ", "-") for h in headings}, (
                    f"{page.name}: {heading}"
                )


@pytest.mark.parametrize("page", course.CHAPTERS, ids=lambda page: page.stem)
def test_chapters_open_as_notebooks(page):
    pytest.importorskip("jupytext", reason="jupytext is not installed: notebooks skipped")
    cells = course.notebook(page)["cells"]
    code = ["".join(cell["source"]).strip() for cell in cells if cell["cell_type"] == "code"]
    assert code == [block.code.strip() for block in course.blocks(page.read_text(encoding="utf-8"))]


def test_pcmref_commands_parse(monkeypatch):
    commands = re.findall(r"^(pcmref .*?)(?:#.*)?$", TEXT, re.M)
    pages = [TOP / "docs" / "README.md", *course.LINKED]
    named = [command for page in pages for command in re.findall(r"`(pcmref [^`]+)`", prose(page))]
    assert {command.split()[1] for command in named} <= set(cli.COMMANDS)
    commands += [command for command in named if len(command.split()) > 2]
    assert len(commands) > 3
    ran = []
    for name in cli.COMMANDS:
        monkeypatch.setattr(f"pcmref.cli.{name.replace('import', 'import_')}.run", lambda arguments: ran.append(arguments) or 0)
    for command in commands:
        assert cli.main(shlex.split(command)[1:]) == 0, command
    assert len(ran) == len(commands)


def test_files_it_names_are_there():
    for path in re.findall(r"\]\(([\w/.-]+)\)|`(pcmref/[\w/.]+\.py)`", TEXT):
        assert (TOP / (path[0] or path[1])).exists(), path
    make = (TOP / "Makefile").read_text()
    for target in re.findall(r"^make ([\w-]+)|`make ([\w-]+)", TEXT + (TOP / "docs" / "README.md").read_text(), re.M):
        assert f"\n{''.join(target)}:" in make, target
