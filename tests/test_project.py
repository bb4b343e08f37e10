"""What the project says of itself agrees with itself."""

import re
from pathlib import Path

import pcmref

TOP = Path(__file__).parent.parent


def text(name: str) -> str:
    return (TOP / name).read_text(encoding="utf-8")


def test_the_citation_has_the_packages_version_and_licence():
    assert re.findall(r"^version: (.*)$", text("CITATION.cff"), re.M) == [pcmref.__version__]
    assert 'version = { attr = "pcmref.__version__" }' in text("pyproject.toml")
    assert f"\n## {pcmref.__version__}" in text("CHANGELOG.md")
    licence = re.search(r'license = \{ text = "(.*)" \}', text("pyproject.toml"))[1]
    assert f"\nlicense: {licence}\n" in text("CITATION.cff")


def test_contributing_names_what_is_there():
    page, make = text("CONTRIBUTING.md"), text("Makefile")
    named = re.findall(r"`make ([^`]+)`|^make ([\w-]+)", page, re.M)
    assert len(named) > 8
    for target in " ".join(" ".join(pair) for pair in named).split():
        assert f"\n{target}:" in make, target
    folders = "pcmref|tests|validation|docs|reference_weights"
    paths = re.findall(rf"`((?:{folders})/[\w/.-]*)`|python (validation/[\w/]+\.py)", page)
    files = re.findall(r"`((?:twin_ops|mutants|cases_nn|cases_pcm)\.py)`", page)
    assert len(paths) > 15 and len(files) == 4
    for path in [*("".join(pair) for pair in paths), *(f"pcmref/golden/{name}" for name in files)]:
        assert (TOP / path).exists(), path
