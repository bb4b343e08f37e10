"""The README's Python runs, its commands parse, its files are there."""

import re
import shlex
from pathlib import Path

import pytest

from pcmref import cli

TOP = Path(__file__).parent.parent
TEXT = (TOP / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("block", re.findall(r"```python\n(.*?)```", TEXT, re.S))
def test_python_blocks_run(block, capsys):
    exec(compile(block, "README.md", "exec"), {})
    out = capsys.readouterr().out
    assert "121,524 devices" in out and "adabs" in out


def test_pcmref_commands_parse(monkeypatch):
    commands = re.findall(r"^(pcmref .*?)(?:#.*)?$", TEXT, re.M)
    assert commands
    ran = []
    for name in cli.COMMANDS:
        monkeypatch.setattr(f"pcmref.cli.{name.replace('import', 'import_')}.run", lambda arguments: ran.append(arguments) or 0)
    for command in commands:
        assert cli.main(shlex.split(command)[1:]) == 0
    assert len(ran) == len(commands)


def test_files_it_names_are_there():
    for path in re.findall(r"\]\(([\w/.-]+)\)|`(pcmref/[\w/.]+\.py)`", TEXT):
        assert (TOP / (path[0] or path[1])).exists(), path
    make = (TOP / "Makefile").read_text()
    for target in re.findall(r"^make ([\w-]+)", TEXT, re.M):
        assert f"\n{target}:" in make
