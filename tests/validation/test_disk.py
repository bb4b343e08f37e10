"""Death, full disks and folders that cannot be written: the old file or the new, a clear error, nothing half done."""

import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest

import pcmref
from pcmref import cli, draws
from pcmref.experiments.retention import RetentionResult, Row
from validation.robustness import kill

NET = pcmref.ResNet(1, 3, (3, 4), (1, 1))


@pytest.mark.parametrize("command", ["export .npz", "golden freeze", "retention --resume", "train"])
def test_a_killed_command_leaves_the_old_file_or_the_new(tmp_path, monkeypatch, command):
    """A few kills; `make soak` runs 240, and 20 of a training that is resumed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "matplotlib", None)  # takes longer to import than all the rest
    kill.prepare(tmp_path)
    count = kill.kill_command(command, 3, random.Random(0), tmp_path)
    assert count["killed"] + count["was done"] == 3


def test_a_mixture_would_be_noticed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before, after = {"a": b"old", "first.csv": b"x\n"}, {"a": b"new", "first.csv": b"1\n2\n"}
    for found in ({"a": b"neo"}, {"a": b"new", "first.csv": b"1\n2"}, {"first.csv": b"1\n"}, {"a": b"old", "b": b""}):
        assert kill.mixtures(before, after, found)
    assert not kill.mixtures(before, after, {"a": b"new", "first.csv": b"1\n"})


STATE = pcmref.ResNet(1, 3, (16, 32), (1, 1)).init(0)
WARM = set()
VALUES = draws.uniform(0, "test/disk", (12_000,)).tolist()
RESULT = RetentionResult("n", tuple(Row("n", "none", 20.0, k, 0, v) for k, v in enumerate(VALUES)), 0.9, {"n_images": 4})


def writers() -> dict:
    """What writes a file of over 64 kB, by the file's name."""
    net = pcmref.ResNet.of_state(STATE)
    np.savez("state.npz", **STATE)
    todo = {
        "net.h5": lambda: pcmref.save("net.h5", net, STATE),
        "net.npz": lambda: cli.main(["export", "state.npz", "net.npz"]),
        "imported.h5": lambda: cli.main(["import", "state.npz", "imported.h5"]),
        "chip.h5": lambda: pcmref.Chip.program(STATE, pcmref.PCMModel.joshi2020()).save("chip.h5"),
        "rows.csv": lambda: RESULT.to_csv("rows.csv"),
        "rows.h5": lambda: RESULT.to_hdf5("rows.h5"),
        "rows.png": lambda: RESULT.plot("rows.png"),
        "request.h5": lambda: cli.main(["golden", "write", "request.h5", "--op", "chip", "--level", "1"]),
    }
    while not_yet := todo.keys() - WARM:  # a first time to import all that is needed: another user may not be allowed to
        name = not_yet.pop()
        todo[name]()
        Path(name).unlink()
        WARM.add(name)
    return todo


def outcome(writer) -> str:
    """What a writer says where it cannot write: the message of its FileError, or what its command prints."""
    try:
        with tempfile.TemporaryFile("w+") as said:
            saved, sys.stderr = sys.stderr, said
            try:
                status = writer()
            finally:
                sys.stderr = saved
            said.seek(0)
            return said.read() if status == 2 else f"status {status}"
    except pcmref.PcmrefError as error:
        return str(error)


def in_child(function) -> list[str]:
    """Lines of what `function()` returns, called in a forked child."""
    inward, outward = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.write(outward, "\n".join(function()).encode())
        except BaseException as error:
            os.write(outward, f"{type(error).__name__}: {error}".encode())
        finally:
            os._exit(0)
    os.close(outward)
    with os.fdopen(inward, "rb") as file:
        text = file.read().decode()
    os.waitpid(child, 0)
    return text.splitlines()


def checked_outcomes(folder: Path, reason: str, lines: list[str], before: dict) -> None:
    names = [line.split("|", 1)[0] for line in lines]
    assert names == list(before), lines
    for line in lines:
        assert "cannot write" in line and "nothing there was changed" in line and reason in line, line
    assert {p.name: p.read_bytes() for p in folder.iterdir() if p.name != "state.npz"} == before


def outcomes(writers: dict) -> list[str]:
    return [f"{name}|{outcome(writer)}".replace("\n", " ") for name, writer in writers.items()]


def test_a_file_that_outgrows_its_limit_leaves_what_was_there(tmp_path, monkeypatch):
    """A limit on the size of a file refuses in the middle of the writing, as a full disk does."""
    pytest.importorskip("matplotlib")
    monkeypatch.chdir(tmp_path)
    todo = writers()
    before = {name: b"old " + name.encode() for name in todo}
    for name, content in before.items():
        (tmp_path / name).write_bytes(content)

    def limited():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
        return outcomes(todo)

    checked_outcomes(tmp_path, "File too large", in_child(limited), before)


def test_a_full_disk_leaves_what_was_there(monkeypatch):
    """A file system of 64 kB in memory."""
    pytest.importorskip("matplotlib")
    with tempfile.TemporaryDirectory() as folder:
        if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", folder], capture_output=True).returncode:
            pytest.skip("this user may not mount a small file system")
        try:
            with tempfile.TemporaryDirectory() as elsewhere:
                monkeypatch.chdir(elsewhere)
                todo = writers()  # the input lies elsewhere
                source = Path("state.npz").resolve()
                monkeypatch.chdir(folder)
                Path("state.npz").symlink_to(source)
                before = {name: b"old " + name.encode() for name in todo}
                for name, content in before.items():
                    Path(name).write_bytes(content)
                lines = in_child(lambda: outcomes(todo))
                checked_outcomes(Path(folder), "No space left", lines, before)
        finally:
            monkeypatch.chdir("/")
            subprocess.run(["umount", folder], check=True)


def test_a_folder_that_may_not_be_written_is_named(monkeypatch):
    """As another user where the tests run as root, who may write everywhere."""
    pytest.importorskip("matplotlib").use("agg")
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        monkeypatch.chdir(folder)
        todo = writers()
        before = {name: b"old " + name.encode() for name in todo}
        for name, content in before.items():
            Path(name).write_bytes(content)
        os.chmod("state.npz", 0o644)
        if os.getuid():
            os.chmod(folder, 0o555)

        def unprivileged():
            if not os.getuid():
                os.setgroups([])
                os.setgid(65534)
                os.setuid(65534)
            return outcomes(todo)

        lines = in_child(unprivileged)
        os.chmod(folder, 0o755)
        checked_outcomes(Path(folder), "Permission denied", lines, before)
        monkeypatch.chdir("/")
