"""Recipes: a training run in a small TOML file, carried out stage by stage, with checkpoints.

network = "joshi32"            # or "resnet8", "imagenet34"
data = "fashion-mnist"         # or "cifar-10"
[[stage]]                      # each stage starts from the best state of the one before
name = "my-baseline"           # its network is written to OUT/my-baseline.h5
epochs = 12                    # and any other field of pcmref.training.Recipe
"""

import csv
import io
import json
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pcmref import library, store
from pcmref.data import Dataset, load_cifar10, load_fashion_mnist
from pcmref.errors import FileError, SettingError
from pcmref.nn.resnet import ResNet
from pcmref.training import Progress, Recipe, accuracy, recipe_values, train

NETWORKS = {"joshi32": ResNet.joshi32, "resnet8": ResNet.resnet8, "imagenet34": ResNet.imagenet34}
DATA_SETS = {"fashion-mnist": load_fashion_mnist, "cifar-10": load_cifar10}
_MAX_BYTES = 1 << 20


@dataclass(frozen=True)
class Plan:
    """A recipe file: the network, the data set, and its stages by name."""

    name: str
    network: str
    data: str
    stages: dict[str, Recipe]


def read_plan(path) -> Plan:
    """A plan from a TOML file; FileError names the file and the field that is wrong."""
    path = Path(path)
    try:
        if not path.is_file():
            raise FileError(f"{path}: no such file")
        if path.stat().st_size > _MAX_BYTES:
            raise FileError(f"{path}: over {_MAX_BYTES} bytes is no recipe")
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise FileError(f"{path}: cannot be read as a recipe: {error}") from error
    unknown = values.keys() - {"network", "data", "stage"}
    if unknown:
        raise FileError(f"{path}: unknown entries {sorted(unknown)}; a recipe has network, data and [[stage]]")
    for key, allowed in (("network", NETWORKS), ("data", DATA_SETS)):
        if not isinstance(values.get(key), str) or values[key] not in allowed:
            raise FileError(f"{path}: {key} must be one of {sorted(allowed)}, got {values.get(key)!r}")
    tables = values.get("stage")
    if not isinstance(tables, list) or not tables or not all(isinstance(t, dict) for t in tables):
        raise FileError(f"{path}: needs at least one [[stage]]")
    stages = {}
    for table in tables:
        name, settings = table.get("name"), {k: v for k, v in table.items() if k != "name"}
        if not isinstance(name, str) or not name or name in stages or Path(name).name != name or name.startswith("."):
            raise FileError(f"{path}: every [[stage]] needs a name of its own that can be a file's name, got {name!r}")
        try:
            stages[name] = Recipe(**settings)
        except (SettingError, TypeError) as error:
            raise FileError(f"{path}: stage {name!r}: {error}") from error
    return Plan(path.stem, values["network"], values["data"], stages)


def carry_out(
    plan: Plan,
    data: Dataset,
    out: Path,
    resume: bool = False,
    due: Callable[[], bool] = lambda: False,
    stopped: Callable[[], bool] = lambda: False,
    progress: Callable[[str, int, int], None] | None = None,
    workers: int | None = None,
    commit: str | None = None,
) -> list[Path]:
    """Train every stage of a plan and write its network to out/{stage}.h5 and its log to out/{stage}.csv.

    A checkpoint is written at the end of every epoch, when `due()` says so, and when `stopped()` does, which then ends
    the run with KeyboardInterrupt. With `resume` a run goes on from its checkpoint and from the stages that are done, to the
    same bytes as one that was never stopped. `progress(stage, images, total)` follows every mini-batch.
    `commit` names the source that trains; it goes into the files.
    """
    net = NETWORKS[plan.network](in_channels=data.train_images.shape[3], num_classes=len(data.classes))
    checkpoint = out / f"{plan.name}.checkpoint.h5"
    state, written, done = None, [], []
    for name, recipe in plan.stages.items():
        path = out / f"{name}.h5"
        identity = {"network": net.config(), "data": data.name, "stage": name, "recipe": recipe_values(recipe)}
        identity["start"] = written[-1].stem if written else f"init, seed {recipe.seed}"
        identity = json.loads(json.dumps(identity))  # as a file gives it back
        written.append(path)
        if resume and path.is_file():
            state = _finished(path, identity)
            done.append(identity)
            continue
        if state is None:
            state = net.init(recipe.seed)
        start = _load_checkpoint(checkpoint, identity, done) if resume and checkpoint.is_file() else None
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

        at = train(net, state, data, recipe, start, after_step, workers)
        state = at.best
        _write_log(out / f"{name}.csv", at.history)
        library.save(path, net, state, {**_about(identity, at, net, data, workers), "commit": commit})
        done.append(identity)
        checkpoint.unlink(missing_ok=True)
    return written


def _about(identity: dict, at: Progress, net: ResNet, data: Dataset, workers: int | None) -> dict:
    """What a network's file says of how it was made: no wall-clock figures, the same run writes the same file."""
    return {
        **identity,
        "normalisation": [list(data.mean), list(data.std)],
        "classes": list(data.classes),
        "history": list(at.history),
        "best_epoch": at.best_epoch,
        "software_accuracy": accuracy(net, at.best, data.normalized(data.test_images), data.test_labels, workers),
        "software_accuracy_of": f"{len(data.test_images)} test images",
    }


def _finished(path: Path, identity: dict) -> dict:
    """The state of a stage that is already done; FileError where the file is from another recipe."""
    file = library.read_network(path)
    if {k: file.about.get(k) for k in identity} != identity:
        raise FileError(f"{path}: was made by another recipe; move it away, or train without --resume")
    return file.state


def _save_checkpoint(path: Path, identity: dict, at: Progress) -> None:
    parts = {"state": at.state, "velocity": at.velocity, "best": at.best or {}}
    arrays = {f"{part}/{name}": value for part, values in parts.items() for name, value in values.items()}
    meta = {"identity": identity, "step": at.step, "loss_sum": at.loss_sum, "history": list(at.history)}
    store.write(path, "checkpoint", meta | {"best_epoch": at.best_epoch}, arrays)


def _load_checkpoint(path: Path, identity: dict, done: list[dict]) -> Progress | None:
    """Where a run of this very stage stood; None where the checkpoint is of a stage that is done; else FileError."""
    meta, arrays = store.read(path, "checkpoint")
    parts = {"state": {}, "velocity": {}, "best": {}}
    try:
        if meta["identity"] in done:
            return None
        if meta["identity"] != identity:
            raise FileError(f"{path}: is of another recipe or stage; remove it, or train without --resume")
        for name, value in arrays.items():
            part, _, rest = name.partition("/")
            parts[part][rest] = value
        numbers = (meta["loss_sum"], tuple(meta["history"]), parts["best"] or None, meta["best_epoch"])
        return Progress(meta["step"], parts["state"], parts["velocity"], *numbers)
    except (KeyError, TypeError) as error:
        raise FileError(f"{path}: does not hold a checkpoint: {error!r}") from error


def _write_log(path: Path, history) -> None:
    """The history as CSV, one line an epoch."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, ["epoch", "loss", "learning_rate", "validation_accuracy"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(history)
    with store.replacing(path) as temporary:
        temporary.write_text(text.getvalue(), encoding="utf-8")
