"""Hostile files for every reader: each must be read rightly or refused with a PcmrefError that names it, and nothing else.

python -m validation.robustness.fuzz --files 20000 [--seed 0] [--reader network] [--first 0] [--keep FOLDER]

File i of a seed is the same on every run. A child process reads the files; it is given up when it computes for TIME_LIMIT_S on
one file, and started again after a crash. Findings: an exception that is no PcmrefError; a message without the file's name, or
without the field where the attack knows it; a value that is not what the bytes say; a file read that had to be refused; memory
beyond MEMORY_LIMIT; a MemoryError underneath; a file written, a process started, a connection opened; a crash; a hang.
"""

import argparse
import json
import math
import os
import random
import resource
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from pathlib import Path

from pcmref.errors import PcmrefError
from validation.robustness import attacks, attacks_hdf5, attacks_npz, attacks_tar
from validation.robustness.attacks import Attacked
from validation.robustness.readers import READERS as OTHERS
from validation.robustness.readers import Reader
from validation.robustness.readers_json import JSON_READERS

TIME_LIMIT_S = 30.0
MEMORY_LIMIT = 1 << 30  # bytes beyond what the process had before, for one file of at most 40 MB
ADDRESS_SPACE = 6 << 30
ATTACKS = {"hdf5": attacks_hdf5.ATTACKS, "npz": attacks_npz.ATTACKS, "tar": attacks_tar.ATTACKS, "idx": (attacks.idx,),
           "toml": (attacks.toml,), "json": (attacks.changed_json,)}  # fmt: skip
READERS = [*OTHERS, *JSON_READERS]
_CHANGES = ("os.", "shutil.", "subprocess.", "socket.", "pty.", "ctypes.", "exec")
_HARMLESS = ("os.listdir", "os.scandir", "os.walk", "os.fwalk", "os.getxattr")


class Watch:
    """Notices writing, starting and connecting in this process, by Python's audit events."""

    def __init__(self):
        self.active, self.seen = False, []
        sys.addaudithook(self.notice)

    def notice(self, event: str, arguments: tuple) -> None:
        if not self.active:
            return
        if event == "open":
            path, mode, flags = (*arguments, None, None, None)[:3]
            writes = isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
            if writes and not str(path).startswith("/proc/self/"):
                self.seen.append(f"open({path!r}, {mode!r})")
        elif event.startswith(_CHANGES) and event not in _HARMLESS and event != "exec":
            self.seen.append(event)


def case(seed: int, index: int, readers: list[Reader]):
    """(reader, attack's name, Attacked) of file `index`: three in ten suffer as bytes, others by what their format means."""
    rng = random.Random(f"pcmref fuzz/{seed}/{index}")
    reader = readers[index % len(readers)]
    sound = reader.sound()[reader.target]
    if rng.random() < 0.3:
        change = rng.choice(attacks.ANY)
        content = change(rng, sound)
        return reader, change.__name__, Attacked(content, reader.kind == "hdf5" and content != sound)
    of_kind = ATTACKS[reader.kind]
    change = rng.choice(of_kind) if len(of_kind) > 1 else of_kind[0]  # no draw where there is no choice
    return reader, change.__name__, Attacked(*change(rng, sound))


def _peak_bytes() -> tuple[int, int]:
    """(resident now, highest since the last reset)."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return tuple(int(lines[k].split()[0]) * 1024 for k in ("VmRSS", "VmHWM"))


def _last_frame(error: BaseException):
    where = error.__traceback__
    while where.tb_next is not None:
        where = where.tb_next
    return where.tb_frame


def _memory_error_below(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, MemoryError) and Path(_last_frame(error).f_code.co_filename).name != "ast.py":
            return True  # (Python's parser calls brackets that are nested too deep a MemoryError)
        error = error.__cause__ or error.__context__
    return False


def judge(reader: Reader, attacked, folder: Path, watch: Watch) -> dict:
    """Write one hostile file beside the sound ones, read it, and say what came of it."""
    for name, content in reader.sound().items():
        if not (folder / name).exists():
            (folder / name).write_bytes(content)
    (folder / reader.target).write_bytes(attacked.content)
    before = {p.name: p.stat().st_size for p in folder.iterdir()}
    Path("/proc/self/clear_refs").write_text("5")
    start_bytes, started, found = _peak_bytes()[0], time.process_time(), {"outcome": "refused"}
    watch.seen, watch.active = [], reader.name != "checkpoint"  # a run that goes on writes its own checkpoint
    try:
        value = reader.load(folder / reader.target)
        watch.active = False
        found["outcome"] = "read"
        if attacked.refused:
            found["finding"] = "read, but had to be refused"
        else:
            reader.check(folder / reader.target, value)
    except PcmrefError as error:
        watch.active = False
        message = str(error)
        if _memory_error_below(error):
            found["finding"] = f"a MemoryError underneath: {message[:200]}"
        elif reader.target.split(".")[0] not in message and folder.name not in message:
            found["finding"] = f"the message does not name the file: {message[:200]}"
        elif attacked.field not in message:
            found["finding"] = f"the message does not name {attacked.field}: {message[:200]}"
    except AssertionError as error:
        found["finding"] = f"a wrong value: {error}"
    except Exception as error:
        stage = "reading" if watch.active else "checking"
        frame = _last_frame(error)
        place = f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}"
        found["finding"] = f"{type(error).__name__} while {stage}, at {place}: {str(error)[:200]}"
    watch.active = False
    found["seconds"], found["bytes"] = time.process_time() - started, _peak_bytes()[1] - start_bytes
    if found["bytes"] > MEMORY_LIMIT:
        found["finding"] = f"{found['bytes'] / 1e6:.0f} MB of memory; {found.get('finding', '')}"
    after = {p.name: p.stat().st_size for p in folder.iterdir()}
    if after != before or watch.seen:
        found["finding"] = f"wrote or started something: {sorted(after.items() - before.items())} {watch.seen[:3]}"
        for name in after.keys() - before.keys():
            (folder / name).unlink()
    return found


def _child(out: int, indices: list[int], seed: int, readers: list[Reader], folder: Path) -> None:
    """Judge files one after the other; a line of JSON for each, after its index was announced."""
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    warnings.simplefilter("ignore")
    watch, null = Watch(), os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1), os.dup2(null, 2)
    for index in indices:
        reader, name, attacked = case(seed, index, readers)
        place = folder / reader.name.replace(" ", "-")
        place.mkdir(exist_ok=True)
        os.chdir(place)
        os.write(out, json.dumps({"starts": index}).encode() + b"\n")
        _limit_time()
        found = judge(reader, attacked, place, watch)
        os.write(out, json.dumps({"index": index, "reader": reader.name, "attack": name} | found).encode() + b"\n")


def _limit_time() -> None:
    """The kernel ends this process where it computes for TIME_LIMIT_S from now on, or lasts twenty times that.

    On a busy machine only the time it computes says something.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (math.ceil(time.process_time() + TIME_LIMIT_S), hard))
    signal.alarm(math.ceil(20 * TIME_LIMIT_S))


def _one_child(indices: list[int], seed: int, readers: list[Reader], folder: Path) -> list[dict]:
    """What a child process finds until it is done, hangs or dies."""
    inward, outward = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        errors = os.fdopen(os.dup(2), "w")
        try:
            _child(outward, indices, seed, readers, folder)
            status = 0
        except BaseException:  # a mistake in the attack itself
            traceback.print_exc(file=errors)
        finally:
            errors.flush()
            os._exit(status)
    os.close(outward)
    with os.fdopen(inward) as file:
        lines = [json.loads(line) for line in file]
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if lines and "starts" in lines[-1]:
        hangs = status in (-signal.SIGXCPU, -signal.SIGALRM)
        ended = f"a hang: over {TIME_LIMIT_S:.0f} s" if hangs else f"a crash: the process ended with {status}"
        reader, name, _ = case(seed, lines[-1]["starts"], readers)
        lines.append({"index": lines[-1]["starts"], "reader": reader.name, "attack": name, "outcome": "crash", "finding": ended,
                      "seconds": 0.0, "bytes": 0})  # fmt: skip
    return [line for line in lines if "outcome" in line]


def fuzz(files: int, seed: int = 0, first: int = 0, readers: list[Reader] | None = None, progress=None) -> list[dict]:
    """What came of `files` hostile files, from number `first` on: outcome, time, memory, and a finding where there is one."""
    readers = readers or READERS
    for reader in readers:
        reader.sound()
    for index in range(100):  # what the attacks make once is made before the child is forked
        case(seed, index, readers)
    todo, results = list(range(first, first + files)), []
    with tempfile.TemporaryDirectory(prefix="pcmref-fuzz-", dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as folder:
        while todo:
            part = _one_child(todo[:2000], seed, readers, Path(folder))
            if not part:
                raise RuntimeError("the reading process ended before its first file")
            results += part
            todo = todo[len(part) :]
            if progress is not None:
                progress(len(results))
    return results


def read_kept(paths: list[Path]) -> list[dict]:
    """What comes of files that were kept, READER--WHAT.ending, read in this process."""
    watch, results, by_name = Watch(), [], {r.name.replace(" ", "-"): r for r in READERS}
    for index, path in enumerate(paths):
        reader = by_name[path.name.split("--")[0]]
        with tempfile.TemporaryDirectory(prefix="pcmref-fuzz-") as folder, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = judge(reader, Attacked(path.read_bytes(), True), Path(folder), watch)
        results.append({"index": index, "reader": reader.name, "attack": path.name} | found)
    return results


def report(results: list[dict]) -> str:
    """A line a reader, then the findings by kind."""
    lines = [f"{'reader':14} {'files':>6} {'refused':>8} {'read':>6} {'findings':>8} {'slowest':>9} {'memory':>9}"]
    for reader in dict.fromkeys(r["reader"] for r in sorted(results, key=lambda r: r["index"])):
        rows = [r for r in results if r["reader"] == reader]
        count = Counter(r["outcome"] for r in rows)
        n_found = sum("finding" in r for r in rows)
        slowest, memory = max(r["seconds"] for r in rows), max(r["bytes"] for r in rows)
        counts = f"{len(rows):6} {count['refused']:8} {count['read']:6} {n_found:8}"
        lines.append(f"{reader:14} {counts} {slowest:7.2f} s {memory / 1e6:6.0f} MB")
    lines.append(f"{len(results):,} files, {sum('finding' in r for r in results)} findings")
    for r in (r for r in results if "finding" in r):
        lines.append(f"FINDING {r['index']} {r['reader']}, {r['attack']}: {r['finding']}")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--reader", action="append", choices=[r.name for r in READERS], help="only this one (may repeat)")
    parser.add_argument("--keep", type=Path, help="folder for the files that were found out")
    arguments = parser.parse_args()
    readers = [r for r in READERS if arguments.reader is None or r.name in arguments.reader]
    started = time.perf_counter()
    results = fuzz(arguments.files, arguments.seed, arguments.first, readers,
                   lambda n: print(f"\r{n} of {arguments.files}", end="", file=sys.stderr, flush=True))  # fmt: skip
    print(file=sys.stderr)
    print(report(results))
    print(f"{time.perf_counter() - started:.0f} s")
    if arguments.keep:
        arguments.keep.mkdir(parents=True, exist_ok=True)
        for r in results:
            if "finding" in r:
                reader, name, attacked = case(arguments.seed, r["index"], readers)
                (arguments.keep / f"{r['index']}-{name}-{reader.target}").write_bytes(attacked.content)
    return 1 if any("finding" in r for r in results) else 0


if __name__ == "__main__":
    sys.exit(main())
