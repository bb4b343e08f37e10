"""Studies on executors, on dying workers, and from what an interrupted run has kept: always the same result."""

import contextlib
import json
import os
import pickle
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import numpy as np
import pytest

import pcmref
from pcmref import cli, draws, store
from pcmref.cli import resumed_study
from pcmref.cli.executors import DaskWorkers, Processes, _call, open_executor
from pcmref.cli.resumed_study import Kept, identity
from pcmref.errors import FileError, MissingExtraError, SettingError
from pcmref.experiments.driver import Study

NET = pcmref.ResNet(1, 3, (3, 4), (1, 1))
ARGUMENTS = ["retention", "state.npz", "--data", "images.npz", "--times", "20s,1d", "--chips", "3", "--reads", "2"]
ARGUMENTS += ["--images", "20"]


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A state and images in the current folder, and the result of an undisturbed study of them."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    np.savez("state.npz", **NET.init(0))
    x = draws.standard_normal(0, "test/executors", (20, 8, 8, 1)).astype(np.float32)
    np.savez("images.npz", images=x, labels=draws.integers(0, "test/executors", 3, (20,)), calibration=x)
    assert cli.main([*ARGUMENTS, "--out", "whole"]) == 0
    return tmp_path


def same(folder="out") -> bool:
    contents = [[(Path(f) / f"retention.{kind}").read_bytes() for kind in ("csv", "h5")] for f in (folder, "whole")]
    return contents[0] == contents[1] and not (Path(folder) / "retention.part.h5").exists()


@pytest.mark.parametrize("executor", ["threads", "processes"])
def test_every_executor_gives_the_same_bytes(own, executor):
    assert cli.main([*ARGUMENTS, "--executor", executor, "--workers", "2"]) == 0
    assert same()


def test_a_task_is_small_and_another_study_needs_another_executor():
    assert len(pickle.dumps((_call, 123))) < 500
    executor = Processes(1)
    executor.pool, executor.function = ThreadPoolExecutor(1), len
    with executor, pytest.raises(SettingError, match="another study"):
        executor.submit(sum, [1])


def test_a_worker_leaves_ctrl_c_to_the_studys_process():
    with Processes(1) as pool:
        assert pool.submit(signal.raise_signal, signal.SIGINT).exception() is None


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs POSIX signals")
def test_processes_end_with_a_parent_that_is_killed(tmp_path):
    (tmp_path / "pool.py").write_text(
        "import os, time\nfrom pcmref.cli.executors import Processes\ndef task(seconds): print(os.getpid(), flush=True)\n"
        "if __name__ == '__main__':\n    with Processes(1) as pool: pool.submit(task, 0).result(); time.sleep(60)\n"
    )
    parent = subprocess.Popen([sys.executable, "pool.py"], cwd=tmp_path, stdout=subprocess.PIPE, text=True)
    worker = int(parent.stdout.readline())
    parent.kill()
    try:
        parent.communicate(timeout=30)  # returns when no process is left that might print
    except subprocess.TimeoutExpired:
        os.kill(worker, signal.SIGKILL)
        raise


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs POSIX signals")
@pytest.mark.parametrize("seconds", [[60] * 9, [0, 60, 60]], ids=["all at work, more are queued", "one idle"])
def test_a_study_that_is_stopped_waits_for_no_task(tmp_path, seconds):
    """Ctrl-C, to all processes as a terminal sends it, while workers are at tasks of a minute."""
    (tmp_path / "pool.py").write_text(
        "import signal, time\nfrom pcmref.cli.executors import Processes\n"
        "def task(seconds): print('at it\\n', end='', flush=True), time.sleep(seconds)\n"
        "if __name__ == '__main__':\n"
        "    signal.signal(signal.SIGINT, signal.default_int_handler)  # a script in the background has it ignored\n"
        f"    with Processes(3) as pool: [pool.submit(task, s) for s in {seconds}][-1].result()\n"
    )
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "start_new_session": True}
    study = subprocess.Popen([sys.executable, "pool.py"], cwd=tmp_path, **options)
    try:
        assert [study.stdout.readline() for _ in range(3)] == ["at it\n"] * 3
        time.sleep(0.5)  # the idle one waits for a task
        os.killpg(study.pid, signal.SIGINT)
        _, said = study.communicate(timeout=30)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(study.pid, signal.SIGKILL)
        study.wait()
    assert said.rstrip().endswith("KeyboardInterrupt") and said.count("Traceback") == 1


class DiesOnce:
    """An executor on which a process dies after the first chip, once; afterwards threads."""

    died = False

    def __init__(self, name, workers):
        self.pool = ThreadPoolExecutor(1)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.pool.shutdown()

    def submit(self, function, chip):
        if chip > 0 and not DiesOnce.died:
            return self.pool.submit(self.die)
        return self.pool.submit(function, chip)

    def die(self):
        time.sleep(0.2)  # the first chip is through
        DiesOnce.died = True
        raise BrokenProcessPool("died")


def test_a_dead_worker_process_changes_nothing(own, monkeypatch, capsys):
    monkeypatch.setattr(resumed_study, "open_executor", DiesOnce)
    assert cli.main([*ARGUMENTS, "--executor", "processes"]) == 0
    assert same() and "kept: 1 chip;" in capsys.readouterr().err
    monkeypatch.setattr(DiesOnce, "die", lambda self: (_ for _ in ()).throw(BrokenProcessPool("died")))
    DiesOnce.died = False
    assert cli.main([*ARGUMENTS, "--executor", "processes", "--out", "again"]) == 2
    assert "--resume goes on" in capsys.readouterr().err


def interrupted(n_chips: int, out="out") -> None:
    """Leave what a run leaves that was killed after so many chips."""
    save, count = Kept.save, []

    def save_and_die(self, measured):
        save(self, measured)
        count.append(1)
        if len(count) == n_chips:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Kept, "save", save_and_die)
        assert cli.main([*ARGUMENTS, "--out", out]) == 130


def test_resume_goes_on_from_the_chips_that_are_kept(own, capsys, monkeypatch):
    interrupted(2)
    assert not Path("out/retention.csv").exists()
    measured = []
    measure = Study.measure
    monkeypatch.setattr(Study, "measure", lambda self, k, *rest: measured.append(k) or measure(self, k, *rest))
    assert cli.main(ARGUMENTS) == 2 and "--resume goes on" in capsys.readouterr().err and measured == []
    assert cli.main([*ARGUMENTS, "--resume"]) == 0
    assert same() and measured == [2]


def test_chips_that_are_kept_are_not_thrown_away_by_asking_for_fewer(own, capsys):
    interrupted(2)
    assert cli.main([*ARGUMENTS, "--chips", "1", "--resume"]) == 2
    assert "keeps 2 chips: ask for at least as many" in capsys.readouterr().err
    assert cli.main([*ARGUMENTS, "--resume"]) == 0 and same()


def test_a_finished_study_is_replaced_if_that_is_asked_for(own, capsys, monkeypatch):
    before = Path("whole/retention.h5").read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(Study, "measure", lambda *_: pytest.fail("measured first"))
        for more in ([], ["--resume"]):
            assert cli.main([*ARGUMENTS, "--seed", "1", "--out", "whole", *more]) == 2
            assert "whole/retention.csv is there, from an earlier run" in capsys.readouterr().err
    assert Path("whole/retention.h5").read_bytes() == before
    assert cli.main([*ARGUMENTS, "--seed", "1", "--out", "whole", "--force"]) == 0
    assert Path("whole/retention.h5").read_bytes() != before
    interrupted(1)
    assert cli.main([*ARGUMENTS, "--force"]) == 0


def test_of_two_runs_at_once_one_is_refused(own, capsys, monkeypatch):
    found, save = [], Kept.save
    monkeypatch.setattr(Kept, "save", lambda *args: (found.append(cli.main([*ARGUMENTS, "--resume"])), save(*args)))
    assert cli.main(ARGUMENTS) == 0 and found == [2, 2, 2]
    assert "another `pcmref retention` is writing there now" in capsys.readouterr().err
    assert same("whole") and sorted(os.listdir("out")) == ["retention.csv", "retention.h5"]


def test_chips_of_another_version_of_the_code_are_refused(own, capsys, monkeypatch):
    interrupted(1)
    with monkeypatch.context() as patch:
        patch.setattr("pcmref.cli.resumed_study.source_digest", lambda: "of another commit")
        assert cli.main([*ARGUMENTS, "--resume"]) == 2 and "another study" in capsys.readouterr().err
    assert cli.main([*ARGUMENTS, "--resume"]) == 0 and same()


def test_what_another_study_kept_is_refused(own, capsys):
    interrupted(1)
    for change in (
        ["--seed", "9"],
        ["--times", "20s"],
        ["--reads", "3"],
        ["--images", "19"],
        ["--device", "aihwkit"],
        ["--dac", "8"],
    ):
        assert cli.main([*ARGUMENTS, *change, "--resume"]) == 2
        assert "another study" in capsys.readouterr().err
    assert cli.main([*ARGUMENTS, "--resume"]) == 0 and same()


@pytest.mark.parametrize(
    "change",
    [
        lambda arrays: arrays.pop("chip"),
        lambda arrays: arrays.update(chip=np.array([0.5])),
        lambda arrays: arrays.update(chip=np.array([-1])),
        lambda arrays: arrays.update(chip=np.array([0, 0]), accuracy=np.zeros((2, 2))),
        lambda arrays: arrays.update(accuracy=np.full((1, 2), np.nan)),
        lambda arrays: arrays.update(accuracy=np.zeros((1, 3))),
        lambda arrays: arrays.update(more=np.zeros(1)),
    ],
)
def test_kept_chips_that_are_none_are_refused(tmp_path, change):
    kept = Kept(tmp_path / "k.h5", identity({"a": np.zeros(2)}, {}), 2)
    kept.save({1: [0.5, 0.25]})
    assert kept.load() == {1: [0.5, 0.25]}
    meta, arrays = store.read(kept.path, "study-part")
    change(arrays)
    store.write(kept.path, "study-part", meta, arrays)
    with pytest.raises(FileError, match="k.h5"):
        kept.load()


def test_an_executor_that_is_none_is_named(monkeypatch):
    for name in ("ray", "dask://", "dask://host", "processes:3"):
        with pytest.raises(SettingError, match="threads, processes or dask"):
            open_executor(name)
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(MissingExtraError, match=r"pcmref\[scale\]"):
        open_executor("dask://127.0.0.1:1")


LOOPBACK = ["--host", "127.0.0.1"]


def start(*arguments) -> subprocess.Popen:
    """A Dask process on this machine only; it is stopped by the test, and by itself after two minutes."""
    command = ["timeout", "120", sys.executable, "-m", "distributed.cli." + arguments[0], *arguments[1:]]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    return subprocess.Popen(command, env=environment, start_new_session=True, **quiet)


@pytest.mark.filterwarnings("default")
def test_a_real_dask_cluster_loses_a_worker_and_nothing_else(own, monkeypatch):
    """A scheduler and two workers on loopback; one worker is killed as soon as the first chip is measured."""
    pytest.importorskip("distributed", reason="Dask is not installed: pip install 'pcmref[scale]'")
    scheduler_file = own / "scheduler.json"
    processes = [start("dask_scheduler", *LOOPBACK, "--port", "0", "--no-dashboard", "--scheduler-file", str(scheduler_file))]
    try:
        while not scheduler_file.exists():
            time.sleep(0.05)
        worker = ("dask_worker", *LOOPBACK, "--scheduler-file", str(scheduler_file), "--nthreads", "1", "--no-nanny")
        processes += [start(*worker, "--no-dashboard"), start(*worker, "--no-dashboard")]
        address = json.loads(scheduler_file.read_text())["address"].removeprefix("tcp://")
        with DaskWorkers(address) as executor:
            executor.client.wait_for_workers(2, timeout=60)
        save, killed = Kept.save, []

        def save_and_kill(self, measured):
            save(self, measured)
            if not killed:
                os.killpg(processes[1].pid, signal.SIGKILL)
                killed.append(len(measured))

        monkeypatch.setattr(Kept, "save", save_and_kill)
        assert cli.main([*ARGUMENTS, "--chips", "8", "--executor", f"dask://{address}"]) == 0
        assert killed == [1]
        monkeypatch.setattr(Kept, "save", save)
        assert cli.main([*ARGUMENTS, "--chips", "8", "--out", "whole"]) == 0
        assert same()
    finally:
        for process in processes:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
