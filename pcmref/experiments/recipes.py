"""Recipes: a training run in a small TOML file, carried out stage by stage, with checkpoints.

network = "joshi32"            # or "resnet8", "imagenet34"; or instead, to go on from a network of your own:
                               # start = "mine.h5", any file that pcmref.load reads, relative to the recipe, or a shipped name
data = "fashion-mnist"         # or "cifar-10", or "own": whatever --data holds
[[stage]]                      # each stage starts from the best state of the one before
name = "my-baseline"           # its network is written to OUT/my-baseline.h5
epochs = 12                    # and any other field of pcmref.training.Recipe
"""

import hashlib
import json
import math
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from pcmref import store
from pcmref.errors import FileError, SettingError, whole_number
from pcmref.experiments import tables
from pcmref.fast.resnet import ResNet
from pcmref.files import networks
from pcmref.files.datasets import Dataset, load_cifar10, load_dataset, load_fashion_mnist
from pcmref.training import Progress, Recipe, accuracy, train

NETWORKS = {"joshi32": ResNet.joshi32, "resnet8": ResNet.resnet8, "imagenet34": ResNet.imagenet34}
LOG_COLUMNS = ("epoch", "loss", "learning_rate", "validation_accuracy")
DATA_SETS = {"fashion-mnist": load_fashion_mnist, "cifar-10": load_cifar10, "own": load_dataset}


@dataclass(frozen=True)
class Start:
    """The network that training starts from, and which it is: the name in the recipe and the digest of the file."""

    file: networks.NetworkFile
    identity: str


@dataclass(frozen=True)
class Plan:
    """A recipe file: the network by name or the one to start from, the data set, and its stages by name."""

    name: str
    network: str | None
    data: str
    stages: dict[str, Recipe]
    start: Start | None = None

    def initial(self, data: Dataset, seed: int) -> tuple[ResNet, dict, str]:
        """(network, state, where the state is from) that the first stage starts from; FileError where the data do not fit."""
        channels, classes = data.train_images.shape[3], len(data.classes)
        if self.start is None:
            return (net := NETWORKS[self.network](channels, classes)), net.init(seed), f"init, seed {seed}"
        net, state = self.start.file.net, self.start.file.state
        if (net.in_channels, net.num_classes) != (channels, classes):
            raise FileError(
                f"{self.start.identity}: takes {net.in_channels} channels and tells {net.num_classes} classes, "
                f"{data.name} has {channels} and {classes}"
            )
        state = {k: v.astype("f4" if v.itemsize < 4 else v.dtype.newbyteorder("=")) for k, v in state.items()}
        return net, state, self.start.identity


def read_plan(path) -> Plan:
    """A plan from a TOML file; FileError names the file and the field that is wrong."""
    values = store.read_toml(path)
    unknown = values.keys() - {"network", "start", "data", "stage"}
    if unknown:
        raise FileError(f"{path}: unknown entries {sorted(unknown)}; a recipe has network or start, data and [[stage]]")
    if "start" in values and ("network" in values or not isinstance(values["start"], str)):
        raise FileError(f"{path}: start must be a file's name, and stands instead of network; got {values['start']!r}")
    for key, allowed in (("network", NETWORKS), ("data", DATA_SETS)):
        if key == "network" and "start" in values:
            continue
        if not isinstance(values.get(key), str) or values[key] not in allowed:
            raise FileError(f"{path}: {key} must be one of {sorted(allowed)}, got {values.get(key)!r}")
    tables = values.get("stage")
    if not isinstance(tables, list) or not tables or not all(isinstance(t, dict) for t in tables):
        raise FileError(f"{path}: needs at least one [[stage]]")
    stages = {}
    for table in tables:
        name, settings = table.get("name"), {k: v for k, v in table.items() if k != "name"}
        if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9_][\w+-]{0,99}", name) or name in stages:
            raise FileError(f"{path}: every [[stage]] needs a name of its own, of letters, digits, _, + and -; got {name!r}")
        try:
            stages[name] = Recipe(**settings)
        except (SettingError, TypeError) as error:
            raise FileError(f"{path}: stage {name!r}: {error}") from error
    start = _read_start(path, values["start"]) if "start" in values else None
    return Plan(Path(path).stem, values.get("network"), values["data"], stages, start)


def _read_start(recipe, name: str) -> Start:
    try:
        path = networks.shipped().get(name) or networks.find(Path(recipe).parent / name)
        with open(path, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        return Start(networks.read_network(path), f"{name}, sha256 {digest}")
    except (FileError, OSError) as error:
        raise FileError(f"{recipe}: start: {error}") from error


def carry_out(
    plan: Plan,
    data: Dataset,
    out: Path,
    resume: bool = False,
    due: Callable[[], bool] = lambda: False,
    stopped: Callable[[], bool] = lambda: False,
    progress: Callable[[str, int, int], None] | None = None,
    commit: str | None = None,
    **options,
) -> list[Path]:
    """Train every stage of a plan and write its network to out/{stage}.h5 and its log to out/{stage}.csv.

    A checkpoint is written at the end of every epoch, when `due()` says so, and when `stopped()` does, which then ends
    the run with KeyboardInterrupt. With `resume` a run goes on from its checkpoint and from the stages that are done, to the
    same bytes as one that was never stopped. `progress(stage, images, total)` follows every mini-batch.
    `commit` names the source that trains; it goes into the files.
    """
    net, initial, origin = plan.initial(data, next(iter(plan.stages.values())).seed)
    checkpoint = out / f"{plan.name}.checkpoint.h5"
    state, written, done = None, [], []
    for name, recipe in plan.stages.items():
        path = out / f"{name}.h5"
        identity = {"network": net.config(), "data": data.name, "stage": name, "recipe": asdict(recipe)}
        identity["start"] = written[-1].stem if written else origin
        identity = json.loads(json.dumps(identity))  # as a file gives it back
        written.append(path)
        if resume and path.is_file():
            state = _finished(path, identity)
            done.append(identity)
            continue
        state = initial if state is None else state
        start = _load_checkpoint(checkpoint, identity, done, net) if resume and checkpoint.is_file() else None
        epoch_steps = (len(data.train_images) - recipe.validation) // recipe.batch_size

        def after_step(
            at: Progress, n_steps: int, name=name, recipe=recipe, identity=identity, epoch_steps=epoch_steps
        ) -> None:
            if progress is not None:
                progress(name, at.step * recipe.batch_size, n_steps * recipe.batch_size)
            ends, stop = at.step % epoch_steps == 0, stopped()
            if ends or stop or due():
                _save_checkpoint(checkpoint, identity, at)
            if ends:
                _write_log(out / f"{name}.csv", at.history)
            if stop:
                raise KeyboardInterrupt

        at = train(net, state, data, recipe, start, after_step, **options)
        state = at.best
        _write_log(out / f"{name}.csv", at.history)
        networks.save(path, net, state, {**_about(identity, at, net, data, options), "commit": commit})
        done.append(identity)
        checkpoint.unlink(missing_ok=True)
    return written


def _about(identity: dict, at: Progress, net: ResNet, data: Dataset, options: dict) -> dict:
    """What a network's file says of how it was made: no wall-clock figures, the same run writes the same file."""
    return {
        **identity,
        "normalisation": [list(data.mean), list(data.std)],
        "classes": list(data.classes),
        "history": list(at.history),
        "best_epoch": at.best_epoch,
        "software_accuracy": accuracy(net, at.best, data.normalized(data.test_images), data.test_labels, **options),
        "software_accuracy_of": f"{len(data.test_images)} test images",
    }


def _finished(path: Path, identity: dict) -> dict:
    """The state of a stage that is already done; FileError where the file is from another recipe."""
    file = networks.read_network(path)
    if {k: file.about.get(k) for k in identity} != identity:
        raise FileError(f"{path}: was made by another recipe; move it away, or train without --resume")
    return file.state


def _save_checkpoint(path: Path, identity: dict, at: Progress) -> None:
    parts = {"state": at.state, "velocity": at.velocity, "best": at.best or {}}
    arrays = {f"{part}/{name}": value for part, values in parts.items() for name, value in values.items()}
    meta = {"identity": identity, "step": at.step, "loss_sum": at.loss_sum, "history": list(at.history)}
    store.write(path, "checkpoint", meta | {"best_epoch": at.best_epoch}, arrays)


def _load_checkpoint(path: Path, identity: dict, done: list[dict], net: ResNet) -> Progress | None:
    """Where a run of this very stage stood; None where the checkpoint is of a stage that is done; else FileError."""
    meta, arrays = store.read(path, "checkpoint")
    parts = {"state": {}, "velocity": {}, "best": {}}
    if meta.get("identity") in done:
        return None
    if meta.get("identity") != identity:
        raise FileError(f"{path}: is of another recipe or stage; remove it, or train without --resume")
    try:
        for name, value in arrays.items():
            part, _, rest = name.partition("/")
            parts[part][rest] = value
        velocity_fits = {n: v.shape for n, v in parts["velocity"].items()} == {n: net.shapes()[n] for n in net.trainable()}
        for state in (parts["state"], parts["best"])[: 2 if parts["best"] else 1]:
            net.check_state(state)
        step, best_epoch = (whole_number(k, meta[k], 0) for k in ("step", "best_epoch"))
        history, best, loss_sum = meta["history"], parts["best"] or None, meta["loss_sum"]
        known = all(e.keys() == set(LOG_COLUMNS) for e in history) and bool(best_epoch) == bool(best)
        if not (velocity_fits and known and step > 0 and math.isfinite(loss_sum) and best_epoch <= len(history)):
            raise ValueError("a velocity, step, loss, history or best epoch that does not fit")
        return Progress(step, parts["state"], parts["velocity"], loss_sum, tuple(history), best, best_epoch)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise FileError(f"{path}: does not hold a checkpoint: {error!r}") from error


def _write_log(path: Path, history) -> None:
    """The history as CSV, one line an epoch."""
    tables.write_csv(path, LOG_COLUMNS, [[epoch[column] for column in LOG_COLUMNS] for epoch in history])
