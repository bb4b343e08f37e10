"""How a command runs a study of chips: on any executor, every chip kept in a file from which another run goes on."""

import hashlib
import json
import sys
from collections.abc import Callable
from concurrent.futures import BrokenExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from functools import cache, partial
from pathlib import Path

import numpy as np

import pcmref
from pcmref import store
from pcmref.cli import images
from pcmref.cli.device import DEVICE_HELP
from pcmref.cli.executors import open_executor, versions
from pcmref.cli.progress import ProgressBar
from pcmref.errors import FileError, SettingError, printable, whole_number
from pcmref.experiments import tables
from pcmref.experiments.driver import Measured
from pcmref.fast.resnet import ENGINES
from pcmref.pcm import constants

KIND = "study-part"
NETWORK = "a shipped network's name, a file of pcmref.save, or a state in a PyTorch file, .safetensors or .npz"
RESTARTS = 3  # of the worker processes, where some died


def add_arguments(add, n_images: int, reads: int) -> None:
    """What every study is asked: a network, images, chips, readings and device model, and how it is run."""
    add("network", help=f"{NETWORK} (see `pcmref info`)")
    images.add_arguments(add, n_images)
    add("--chips", type=int, default=3, help="chips to program (default: %(default)s)")
    add("--reads", type=int, default=reads, help="readings of every chip at each time (default: %(default)s)")
    add("--device", default=constants.PAPER, help=f"{DEVICE_HELP} (default: %(default)s)")
    add("--seed", type=int, default=0, help="seed of the first chip (default: %(default)s)")
    add("--engine", choices=ENGINES, default="fast", help="plain: the text of pcmref.nn itself, slow (default: fast)")
    add("--workers", type=int, default=None, help="threads, or processes with --executor (default: one per core)")
    add("--executor", default=None, help="whole chips at the same time on: threads, processes or dask://HOST:PORT")
    add("--resume", action="store_true", help="go on from the chips that an interrupted run in --out has measured")
    add("--out", type=Path, default=Path("out"), help="folder for the results (default: %(default)s)")
    add_force(add)


def add_force(add) -> None:
    """--force, of commands whose results take long, which `check_free` obeys."""
    add("--force", action="store_true", help="replace the results of an earlier run")


def check_free(path: Path, force: bool, instead: str = "--out writes elsewhere") -> None:
    """SettingError for results of an earlier run that are not to be replaced."""
    if path.is_file() and not force:
        raise SettingError(f"{path} is there, from an earlier run: {instead}, --force replaces it")


def source_digest() -> str:
    """SHA-256 of the package's source: the version's number stays the same from commit to commit."""
    digest, top = hashlib.sha256(), Path(pcmref.__file__).parent
    for path in sorted(top.rglob("*.py")):
        digest.update(f"{path.relative_to(top).as_posix()}\n".encode() + path.read_bytes())
    return digest.hexdigest()


def identity(arrays: dict[str, np.ndarray], settings: dict) -> dict:
    """What must be the same for two runs to be of one study: settings as plain values, digests of arrays and code, versions."""
    digest = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        digest.update(f"{name} {np.asarray(array).dtype.str} {np.shape(array)}\n".encode())
        digest.update(np.ascontiguousarray(array).data)
    plain = json.loads(json.dumps(settings, default=asdict))
    return {"arrays": digest.hexdigest(), "code": source_digest(), "versions": versions(), "settings": plain}


class Kept:
    """The chips measured so far: `save` after each, `load` to go on, `remove` when the results are written."""

    def __init__(self, path: Path, identity: dict, n_values: int):
        """n_values: accuracies of each chip, in an order that follows from the settings in `identity`."""
        self.path, self.identity, self.n_values = path, identity, n_values

    def save(self, measured: Measured) -> None:
        """Write all chips measured so far, atomically."""
        chips = sorted(measured)
        accuracy = np.array([measured[k] for k in chips])
        store.write(self.path, KIND, {"identity": self.identity}, {"chip": np.array(chips), "accuracy": accuracy})

    def load(self) -> Measured:
        """The chips of the file, none where there is no file; FileError where it is of another study or holds no chips."""
        if not self.path.exists():
            return {}
        meta, arrays = store.read(self.path, KIND)
        if meta.get("identity") != self.identity:
            raise FileError(
                f"{self.path}: is of another study (network, images, settings, code or versions); "
                "move it away, or leave out --resume"
            )
        chips, accuracy = arrays.get("chip"), arrays.get("accuracy")
        fits = len(arrays) == 2 and chips is not None and accuracy is not None and chips.dtype.kind == "i" and chips.ndim == 1
        if not fits or accuracy.shape != (len(chips), self.n_values) or len(set(chips.tolist())) < len(chips):
            raise FileError(f"{self.path}: 'chip' and 'accuracy' do not hold the chips of a study")
        if not ((accuracy >= 0) & (accuracy <= 1)).all() or (chips < 0).any():
            raise FileError(f"{self.path}: 'accuracy' must lie in 0..1, 'chip' from 0")
        return dict(zip(chips.tolist(), accuracy.tolist(), strict=True))


@contextmanager
def alone(folder: Path, study: str):
    """Make the folder for a study's results, and keep other runs of the study out of it; FileError, SettingError."""
    path = folder / f".{study}.lock"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        path.touch()
    except OSError as error:
        raise FileError(f"--out {folder}: cannot be made or written to: {error.strerror}") from error
    with open(path, "a") as file:
        if store.lock(file) is False:
            raise SettingError(f"--out {folder}: another `pcmref {study}` is writing there now; choose another folder")
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def run_study(study: Callable, arguments, file, model, evaluation: images.Evaluation, n_conditions: int, **design):
    """(what is kept, result) of study(net, state, model, x, labels, **design, ...), so many conditions of each chip.

    It goes on from the chips that are kept, and with the others where worker processes die.
    """
    reads = whole_number("--reads", arguments.reads, 1)
    parts = {"net": file.net, "state": file.state, "model": model, "x_calibration": evaluation.calibration}
    parts |= {"x": evaluation.x, "labels": evaluation.labels, "seed": arguments.seed, "reads": reads, **design}
    arrays = {name: value for name, value in {**file.state, **evaluation._asdict()}.items() if isinstance(value, np.ndarray)}
    settings = {name: value for name, value in parts.items() if name not in ("state", "x", "labels", "x_calibration")}
    label = study.__name__
    kept = Kept(arguments.out / f"{label}.part.h5", identity(arrays, {"study": label, **settings}), n_conditions * reads)
    parts |= {"n_chips": arguments.chips, "name": printable(Path(arguments.network).stem), "engine": arguments.engine}
    parts["workers"] = arguments.workers if arguments.executor is None else 1
    known = {}
    if not kept.path.exists():
        check_free(arguments.out / f"{label}.csv", arguments.force)
    elif arguments.resume:
        known = kept.load()
    else:
        check_free(kept.path, arguments.force, "it keeps the chips of an interrupted study, --resume goes on from it")
    if known and max(known) >= arguments.chips:
        n_kept = tables.counted(max(known) + 1, "chip")
        raise SettingError(f"{kept.path} keeps {n_kept}: ask for at least as many with --chips, or move it away")
    hint = cache(partial(images.say_if_near_chance, arguments.network, file, evaluation))
    with ProgressBar(label, "measurement") as bar:

        def progress(done: int, total: int) -> None:
            hint()  # once, when the study's settings are checked and before its work
            bar.update(done, total)

        for _ in range(1 + RESTARTS):
            executor = None if arguments.executor is None else open_executor(arguments.executor, arguments.workers)
            try:
                with executor or nullcontext():
                    return kept, study(**parts, executor=executor, progress=progress, known=known, on_chip=kept.save)
            except BrokenExecutor:
                known = kept.load()
                n_kept = tables.counted(len(known), "chip")
                print(f"\na worker process died; kept: {n_kept}; the others start again", file=sys.stderr)
    raise SettingError(
        f"--executor {arguments.executor}: worker processes died {1 + RESTARTS} times (is the memory enough? --workers); "
        f"what was measured is kept in {kept.path}: --resume goes on from it"
    )


def finish(kept: Kept, result, stem: Path, *written: str) -> None:
    """Write the result's rows, forget what was kept, draw it where that can be; say what is written: stem and endings."""
    result.to_csv(stem.with_suffix(".csv"))
    kept.path.unlink(missing_ok=True)
    try:
        result.plot(stem.with_suffix(".png"))
        written = (*written, "png")
    except Exception as error:  # whatever matplotlib and a user's settings of it raise: the numbers are written
        print(f"no picture: {error}", file=sys.stderr)
    print(f"\nwritten: {', '.join(f'{stem}.{ending}' for ending in ('csv', *written))}")
