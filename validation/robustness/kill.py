"""Death at any moment: kill -9 during every command that writes, and look at what is left.

python -m validation.robustness.kill [--kills 240] [--train 20] [--seed 0]

The commands run in a forked child, which imports nothing any more, so that most of its life is the command itself. Half of the
kills come at a random moment of that life. The other half come at a random one of the moments at which Python opens, renames or
removes a file (its audit events), where the danger is. Afterwards every file must be, byte for byte, as before the command or
as after an undisturbed one; what else is there must be a temporary file, whose name begins with a dot. A training run is killed
as often again and resumed each time: its last bytes must be those of a run that was never killed.
"""

import argparse
import contextlib
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np

import pcmref
from pcmref import cli, draws, store
from pcmref.files import networks
from tests.helpers import small_files

NET = pcmref.ResNet(1, 3, (3, 4), (1, 1))
GOLDEN = ["--op", "dac", "--op", "conv2d"]
TRAIN = ["train", "r.toml", "--data", "data", "--out", "out"]
STUDY = ["retention", "state.npz", "--data", "images.npz", "--times", "20s,1d", "--chips", "3", "--out", "out"]
COMMANDS = {
    "train": TRAIN,
    "train --resume": [*TRAIN, "--resume"],
    "retention": STUDY,
    "retention --resume": [*STUDY, "--resume"],
    "import": ["import", "state.npz", "out/net.h5"],
    "export .npz": ["export", "net.h5", "out/net.npz"],
    "export .h5": ["export", "net.h5", "out/copy.h5"],
    "golden write": ["golden", "write", "out/request.h5", *GOLDEN],
    "golden check": ["golden", "check", "pcmref.golden:Reference", *GOLDEN, "--dtype", "float64", "--json", "out/r.json",
                     "--markdown", "out/r.md"],
    "golden freeze": ["golden", "freeze", "out/mine.h5", "relu", "relu.npz", "--name", "found"],
}  # fmt: skip


def prepare(folder: Path) -> None:
    """The inputs of all commands, in the current folder."""
    np.savez(folder / "state.npz", **NET.init(0))
    networks.save(folder / "net.h5", NET, NET.init(0))
    x = draws.standard_normal(0, "kill/x", (30, 8, 8, 1)).astype(np.float32)
    np.savez(folder / "images.npz", images=x, labels=draws.integers(0, "kill/y", 3, (30,)), calibration=x)
    np.savez(folder / "relu.npz", x=np.array([-1.0, 0.0, 2.0]))
    (folder / "r.toml").write_text(small_files.RECIPE)
    (folder / "data").mkdir()
    small_files.write_fashion_mnist(folder / "data", n_train=24, n_test=8)


def contents(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted(folder.iterdir()) if not p.name.startswith(".")}


def fork(arguments: list[str], die_at: int | None = None, count_to: Path | None = None) -> int:
    """Start a command in a child of this process; it kills itself at its `die_at`-th file event, or counts them."""
    sys.stdout.flush()
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1), os.dup2(null, 2)
        seen = [0]

        def notice(event, details):
            writes = event == "open" and isinstance(details[2], int) and details[2] & (os.O_WRONLY | os.O_RDWR)
            if writes or event in ("os.rename", "os.remove", "os.chmod", "tempfile.mkstemp", "os.mkdir"):
                seen[0] += 1
                if seen[0] == die_at:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(notice)
        status = cli.main(arguments)
        if count_to is not None:
            count_to.write_text(str(seen[0]))
    finally:
        os._exit(status)


def undisturbed(arguments: list[str], folder: Path) -> tuple[dict[str, bytes], float, int]:
    """(files afterwards, seconds, file events) of a command that nobody kills, from the state that `out` is in."""
    started = time.monotonic()
    status = os.waitpid(fork(arguments, count_to=folder / "events"), 0)[1]
    if status:
        raise RuntimeError(f"{arguments} ended with {os.waitstatus_to_exitcode(status)}")
    return contents(folder / "out"), time.monotonic() - started, int((folder / "events").read_text())


def starting_point(name: str, folder: Path) -> None:
    """What is in `out` before the command: files of the same names with another content, or what a first run left."""
    shutil.rmtree(folder / "out", ignore_errors=True)
    (folder / "out").mkdir()
    if name.endswith("--resume"):
        arguments = COMMANDS[name.removesuffix(" --resume")]
        die_at = 40 if name.startswith("train") else 5
        os.waitpid(fork(arguments, die_at=die_at), 0)


def mixtures(before: dict, after: dict, found: dict) -> list[str]:
    """What is wrong with the files that a killed command left."""
    wrong = []
    for name, content in found.items():
        if content in (before.get(name), after.get(name)):
            continue
        if name in PASSING:
            sound = store.read_any(Path("out") / name)[0] in ("checkpoint", "study-part")
        else:  # a log grows by a line an epoch
            sound = name in ("first.csv", "second.csv") and content.endswith(b"\n") and after[name].startswith(content)
        if not sound:
            wrong.append(f"{name}: {len(content)} bytes, neither the old nor the new")
    return wrong + [f"{name} is gone" for name in before.keys() & after.keys() - found.keys()]


PASSING = {"r.checkpoint.h5", "retention.part.h5"}  # exist only while a command runs: must be whole whenever they are there


def kill_command(name: str, kills: int, rng: random.Random, folder: Path) -> Counter:
    """Kill one command so many times; how often the child died, and RuntimeError for a mixture."""
    arguments, count = COMMANDS[name], Counter()
    starting_point(name, folder)
    after, seconds, events = undisturbed(arguments, folder)
    for i in range(kills):
        starting_point(name, folder)
        if i % 4 == 2 and not name.endswith("--resume"):  # the command's files are there already, from another run
            for file, content in after.items():
                (folder / "out" / file).write_bytes(content[::-1])
        before = contents(folder / "out")
        if i % 2:
            child = fork(arguments, die_at=rng.randint(1, events))
        else:
            child = fork(arguments)
            time.sleep(rng.uniform(0, 1.05 * seconds))
            os.kill(child, signal.SIGKILL)
        count["killed" if os.WIFSIGNALED(os.waitpid(child, 0)[1]) else "was done"] += 1
        found = contents(folder / "out")
        wrong = mixtures(before, after, found)
        if wrong:
            raise RuntimeError(f"{name}, kill {i}: {wrong}")
        count["new" if found == after else "old" if found == before else "some old, some new"] += 1
        count["temporary files left"] += sum(p.name.startswith(".") for p in (folder / "out").iterdir())
    return count


def kill_training(kills: int, rng: random.Random, folder: Path, n_train: int, epochs: int) -> Counter:
    """Kill a training of a ResNet-8 at random moments, resuming each time; RuntimeError unless the bytes are the same."""
    data, recipe = folder / "more-data", folder / "long.toml"
    data.mkdir()
    small_files.write_fashion_mnist(data, n_train=n_train, n_test=50)
    stages = f"epochs = {epochs}\nbatch_size = 32\n"
    stages = f'[[stage]]\nname = "a"\n{stages}[[stage]]\nname = "b"\n{stages}eta = 0.038\n'
    recipe.write_text(f'network = "resnet8"\ndata = "fashion-mnist"\n{stages}')
    arguments = ["train", str(recipe), "--data", str(data), "--out"]
    started = time.monotonic()
    if os.waitpid(fork([*arguments, str(folder / "whole")]), 0)[1]:
        raise RuntimeError("the undisturbed training failed")
    seconds, count = time.monotonic() - started, Counter()
    while count["killed"] < kills:
        child = fork([*arguments, str(folder / "parts"), "--resume"])
        time.sleep(rng.uniform(0.05, 0.6) * seconds)
        os.kill(child, signal.SIGKILL)
        died = os.WIFSIGNALED(os.waitpid(child, 0)[1])
        count["killed" if died else "was done"] += 1
        if not died:
            _compare(folder, count)
    if os.waitpid(fork([*arguments, str(folder / "parts"), "--resume"]), 0)[1]:
        raise RuntimeError("the resumed training failed")
    _compare(folder, count)
    return count


def _compare(folder: Path, count: Counter) -> None:
    if contents(folder / "parts") != contents(folder / "whole"):
        raise RuntimeError("the resumed training gives other bytes")
    count["complete runs with the same bytes"] += 1
    shutil.rmtree(folder / "parts")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=240, help="in all, shared by the commands")
    parser.add_argument("--train", type=int, default=20, help="of the training that is resumed")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    rng, total = random.Random(arguments.seed), Counter()

    with tempfile.TemporaryDirectory(prefix="pcmref-kill-") as name, contextlib.chdir(name):
        folder = Path(name)
        prepare(folder)
        for command in COMMANDS:
            count = kill_command(command, arguments.kills // len(COMMANDS), rng, folder)
            total += count
            print(f"{command:20} {dict(count)}", flush=True)
        print(f"{'all commands':20} {dict(total)}", flush=True)
        if arguments.train:
            print(f"{'resumed training':20} {dict(kill_training(arguments.train, rng, folder, 160, 3))}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
