"""Load: mixed commands and calls in one process for ten minutes; memory, open files and threads must not grow.

python -m validation.robustness.soak [--minutes 10]

After two rounds of warming up, what the process holds is read from /proc/self after every round. Growth is a finding where
the last quarter of the rounds holds more open files or threads than the first quarter at any time, or, in the median, over
GROWTH_MB more memory.
"""

import argparse
import gc
import io
import os
import statistics
import sys
import tempfile
import time
from contextlib import chdir, redirect_stderr, redirect_stdout
from pathlib import Path

import numpy as np

import pcmref
from pcmref import cli, store
from validation.robustness import kill

GROWTH_MB = 5.0
BROKEN = (["info", "r.toml"], ["export", "missing.h5", "x.npz"], ["retention", "state.npz", "--data", "state.npz"],
          ["golden", "verify", "state.npz"], ["train", "state.npz", "--data", "data"])  # fmt: skip
COMMANDS = [kill.COMMANDS[name] for name in ("train", "retention", "import", "export .npz", "golden check", "golden freeze")]
COMMANDS += [["info", "net.h5"], ["golden", "list"], [*kill.STUDY, "--executor", "threads", "--workers", "2"]]


def held() -> dict[str, float]:
    """Memory in MB, open files and threads of this process."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    files = len(os.listdir("/proc/self/fd")) - 1  # one is the listing's own
    return {"MB": int(lines["VmRSS"].split()[0]) / 1024, "files": files, "threads": int(lines["Threads"])}


def one_round(number: int) -> int:
    """Every command, every error, and the public functions, once; the number of commands and calls."""
    for arguments in COMMANDS:
        if cli.main(arguments):
            raise RuntimeError(f"{arguments} failed")
    for arguments in BROKEN:
        if cli.main(arguments) != 2:
            raise RuntimeError(f"{arguments} did not end with status 2")
    state = kill.NET.init(number)
    chip = pcmref.Chip.program(state, pcmref.PCMModel.joshi2020(), seed=number)
    x = np.ones((40, 8, 8, 1), np.float32)
    pcmref.predict(kill.NET, pcmref.adabs(kill.NET, chip.read(86_400.0, gdc=True), x), x)
    chip.save("chip.h5")
    pcmref.Chip.load("chip.h5")
    for damaged in (b"", b"pcmref-file 1\n", Path("chip.h5").read_bytes()[:-1]):
        Path("damaged.h5").write_bytes(damaged)
        try:
            store.read_any("damaged.h5")
        except pcmref.PcmrefError:
            continue
        raise RuntimeError("a damaged file was read")
    return len(COMMANDS) + len(BROKEN) + 9


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0)
    arguments = parser.parse_args()
    seen, calls = [], 0
    with tempfile.TemporaryDirectory(prefix="pcmref-soak-") as name, chdir(name):
        kill.prepare(Path(name))
        Path("out").mkdir()
        end = time.monotonic() + 60 * arguments.minutes
        while time.monotonic() < end or len(seen) < 10:
            with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
                calls += one_round(len(seen))
            gc.collect()
            seen.append(held())
    seen = seen[2:]
    quarter = max(len(seen) // 4, 1)
    first, last = seen[:quarter], seen[-quarter:]
    growth = statistics.median(s["MB"] for s in last) - statistics.median(s["MB"] for s in first)
    print(f"{calls} commands and calls in {len(seen) + 2} rounds, {arguments.minutes:g} minutes")
    for what in ("MB", "files", "threads"):
        ranges = (f"{min(s[what] for s in part):.1f} to {max(s[what] for s in part):.1f}" for part in (first, last))
        print(f"{what:8} first quarter {next(ranges)}, last quarter {next(ranges)}")
    grown = [what for what in ("files", "threads") if max(s[what] for s in last) > max(s[what] for s in first)]
    print(f"memory grew by {growth:.1f} MB; open files or threads that grew: {grown or 'none'}")
    return 1 if grown or growth > GROWTH_MB else 0


if __name__ == "__main__":
    sys.exit(main())
