"""Training with noise on the weights (the method: Joshi et al. 2020; details C): the algorithm, one function a step.

For each mini-batch: `augment` the images, `inject_weight_noise` into every crossbar, go forward and backward with the
noisy weights, `sgd_step` the clean ones, `clip_weights`. Batch norm and its running statistics are digital and see the
noisy pass. With eta = 0 and alpha = 0 this is ordinary training, which makes the baseline that noise training starts from.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import NamedTuple

import numpy as np

from pcmref import draws
from pcmref.errors import SettingError, whole_number
from pcmref.fast.resnet import ResNet
from pcmref.nn import functional as F
from pcmref.nn.resnet import changed, predict
from pcmref.pcm.mapping import crossbars
from pcmref.threads import map_chunks

ETA = 0.038  # training noise sigma / max|W| (grade B: aihwkit's documentation; Joshi et al. 2020)
ALPHA = 2.0  # clipping at alpha * sigma_W after every update (grade B for CIFAR-10; ImageNet 2.5: grade C)


@dataclass(frozen=True)
class Recipe:
    """How a network is trained, by default without noise and clipping; all fields are plain values, for files to hold."""

    epochs: int = 12
    batch_size: int = 128
    learning_rate: float = 0.1  # the schedule's peak
    schedule: str = "one-cycle"  # "one-cycle", "cosine" or "step"
    momentum: float = 0.9
    nesterov: bool = True
    weight_decay: float = 5e-4
    label_smoothing: float = 0.0
    crop: int = 0  # pixels of padding for the random crop
    flip: bool = False
    cutout: int = 0  # side of the square that is blanked
    eta: float = 0.0  # weight noise, sigma / max|W| of each crossbar
    alpha: float = 0.0  # weight clipping in standard deviations; 0: none
    validation: int = 0  # training images held back, the last ones of the file; the best epoch is chosen on them
    seed: int = 0

    def __post_init__(self):
        for field in fields(self):
            value = getattr(self, field.name)
            wanted = (int, float) if field.type is float else field.type
            if not isinstance(value, wanted) or (isinstance(value, bool) and field.type is not bool):
                raise SettingError(f"recipe: {field.name} must be of type {field.type.__name__}, got {value!r}")
            if field.type in (int, float) and not (np.isfinite(value) and value >= 0):
                raise SettingError(f"recipe: {field.name} must not be negative, got {value!r}")
        if self.epochs < 1 or self.batch_size < 2:
            raise SettingError(f"recipe: needs epochs >= 1 and batch_size >= 2, got {self.epochs} and {self.batch_size}")
        if self.schedule not in SCHEDULES:
            raise SettingError(f"recipe: schedule must be one of {sorted(SCHEDULES)}, got {self.schedule!r}")
        if self.label_smoothing >= 1 or self.momentum >= 1:
            raise SettingError("recipe: label_smoothing and momentum must be below 1")


# ------------------------------------------------------------------------------------------- the steps of the algorithm


def inject_weight_noise(state: dict, eta: float = ETA, seed: int = 0, step: int = 0, workers: int | None = None) -> dict:
    """W + eta * max|W| * z on every crossbar, fresh for every step: a new state (Joshi et al. 2020; details C).

    max|W| is the crossbar's, fc.bias included with fc.weight; z are the draws `noise/{step}/{name}`. No gradient flows
    through the standard deviation. Batch norm is untouched. The first step has its noise like any other, which one
    toolkit leaves out (D24 in validation/discrepancies.md). Toolkits also offer noise that depends on each weight's
    value (a polynomial, D14 and D15; proportional, D17), drift (D16) and rounding (D18): other trainings.

    >>> state = {"fc.weight": np.array([[0.5, -1.0]]), "fc.bias": np.array([0.25])}
    >>> pcmref.inject_weight_noise(state, eta=0.1, seed=0, step=7)["fc.weight"].round(3).tolist()
    [[0.484, -1.053]]
    """
    if not (np.isfinite(eta) and eta >= 0):
        raise SettingError(f"eta must be a finite number from 0, got {eta!r}")
    noisy, step = {}, whole_number("step", step)

    def add(names):  # of one crossbar
        sigma = eta * max(float(np.abs(state[name]).max()) for name in names)
        for name in names:
            w = np.asarray(state[name])
            noisy[name] = (w + sigma * draws.standard_normal(seed, f"noise/{step}/{name}", w.shape)).astype(w.dtype)

    if eta > 0:
        map_chunks(add, crossbars(state).values(), workers)
    return changed(state, noisy)


def clip_weights(state: dict, alpha: float = ALPHA) -> dict[str, np.ndarray]:
    """Every crossbar clipped to +-alpha * sigma_W about 0, sigma_W its population standard deviation: a new state.

    fc.bias counts to fc.weight's crossbar. Toolkits that use the sample standard deviation (ddof 1) differ by a factor
    sqrt(N/(N-1)) (D19 in validation/discrepancies.md); code that clips the noisy weights in the forward pass and never
    the clean ones (D27), or only at the start, trains something else.

    >>> w = np.array([[3.0, -0.1, 0.2, 0.0]])
    >>> pcmref.clip_weights({"fc.weight": w}, alpha=2.0)["fc.weight"].round(3).tolist()
    [[2.578, -0.1, 0.2, 0.0]]
    """
    if not (np.isfinite(alpha) and alpha > 0):
        raise SettingError(f"alpha must be a finite number above 0, got {alpha!r}")
    clipped = {}
    for names in crossbars(state).values():
        sigma = np.concatenate([np.ravel(state[name]) for name in names]).std(dtype=np.float64)
        for name in names:
            w = np.asarray(state[name])
            limit = (alpha * sigma).astype(w.dtype)
            clipped[name] = np.clip(w, -limit, limit)
    return changed(state, clipped)


def sgd_step(state: dict, grads: dict, velocity: dict, learning_rate: float, recipe: Recipe) -> tuple[dict, dict]:
    """(state, velocity) after one step of SGD with momentum, as PyTorch defines it; new dicts.

    g = grad + weight_decay*w;  v = momentum*v + g;  w -= learning_rate * (g + momentum*v if nesterov else v). The decay
    acts on convolution and fc weights, not on batch norm and biases. A name without a velocity starts from v = g; one
    without a gradient stays as it is, with its velocity.
    """
    stepped, new_velocity = {}, {name: v.copy() for name, v in velocity.items() if name not in grads}
    for name, w in state.items():
        if name in grads:
            g = grads[name] + recipe.weight_decay * w if np.ndim(w) > 1 else grads[name]
            v = recipe.momentum * velocity[name] + g if name in velocity else g
            update = g + recipe.momentum * v if recipe.nesterov else v
            stepped[name] = (w - learning_rate * update).astype(w.dtype)
            new_velocity[name] = v.astype(w.dtype)
    return changed(state, stepped), new_velocity


def _one_cycle(progress: float) -> float:
    """Up from 1/25 to 1 over the first 30 %, then down to 0, both as half cosines (Smith & Topin 2019)."""
    if progress < 0.3:
        return 1 - (1 - 1 / 25) * (1 + np.cos(np.pi * progress / 0.3)) / 2
    return (1 + np.cos(np.pi * (progress - 0.3) / 0.7)) / 2


def _cosine(progress: float) -> float:
    """Down from 1 to 0 as a half cosine (Loshchilov & Hutter 2017)."""
    return (1 + np.cos(np.pi * progress)) / 2


def _step(progress: float) -> float:
    """A tenth from 1/2 on, a hundredth from 3/4 on (He et al. 2016)."""
    return 0.1 ** ((progress >= 0.5) + (progress >= 0.75))


SCHEDULES: dict[str, Callable[[float], float]] = {"one-cycle": _one_cycle, "cosine": _cosine, "step": _step}


def learning_rate(recipe: Recipe, step: int, n_steps: int) -> float:
    """The schedule's learning rate at step 0 <= step < n_steps."""
    return float(recipe.learning_rate * SCHEDULES[recipe.schedule](step / n_steps))


class Augmentation(NamedTuple):
    """One epoch's random choices for every image of the training set."""

    crop: np.ndarray | None  # [N, 2] offsets in 0..2*pad
    flip: np.ndarray | None  # [N] bool
    cutout: np.ndarray | None  # [N, 2] centre of the blank square

    @classmethod
    def of_epoch(cls, recipe: Recipe, epoch: int, n: int, size: tuple[int, int]) -> "Augmentation":
        """The draws `crop/{epoch}`, `flip/{epoch}` and `cutout/{epoch}` for n images of the given size."""
        seed = recipe.seed
        return cls(
            crop=draws.integers(seed, f"crop/{epoch}", 2 * recipe.crop + 1, (n, 2)) if recipe.crop else None,
            flip=draws.uniform(seed, f"flip/{epoch}", (n,)) < 0.5 if recipe.flip else None,
            cutout=np.floor(draws.uniform(seed, f"cutout/{epoch}", (n, 2)) * size).astype(np.int64) if recipe.cutout else None,
        )


def augment(x: np.ndarray, choice: Augmentation, index: np.ndarray, recipe: Recipe, blank: np.ndarray) -> np.ndarray:
    """Random crop of the padded image, then flip, then cutout: normalised images [N, H, W, C] -> the same shape.

    index [N] are the images' numbers in the training set; blank [C] is a black pixel, normalised, which pads.
    Cutout (DeVries & Taylor 2017) sets a square to 0, the mean; where it crosses the border only a part is blank.
    """
    n, h, w, c = x.shape
    out = np.array(x)
    if choice.crop is not None:
        p = recipe.crop
        padded = np.empty((n, h + 2 * p, w + 2 * p, c), x.dtype)
        padded[...] = blank
        padded[:, p : p + h, p : p + w] = x
        for i, (top, left) in enumerate(choice.crop[index]):
            out[i] = padded[i, top : top + h, left : left + w]
    if choice.flip is not None:
        out = np.where(choice.flip[index, None, None, None], out[:, :, ::-1], out)
    if choice.cutout is not None:
        half = recipe.cutout // 2
        for i, (row, column) in enumerate(choice.cutout[index]):
            out[i, max(row - half, 0) : row - half + recipe.cutout, max(column - half, 0) : column - half + recipe.cutout] = 0
    return out


# ------------------------------------------------------------------------------------------------------- the whole run


@dataclass(frozen=True)
class Progress:
    """Where a training run stands; enough to go on from to the bit."""

    step: int  # mini-batches done
    state: dict
    velocity: dict
    loss_sum: float = 0.0  # of the epoch under way
    history: tuple[dict, ...] = ()  # one entry an epoch: epoch, loss, learning_rate, validation_accuracy
    best: dict | None = None  # the state with the best validation accuracy so far
    best_epoch: int = 0


def accuracy(net: ResNet, state: dict, x: np.ndarray, labels: np.ndarray, **options) -> float:
    """The share of images whose largest logit is their label's; `options` go to `net.forward`. ShapeError.

    >>> from pcmref.training import accuracy
    >>> net, state = pcmref.load("resnet8-fashionmnist-noise")
    >>> data = pcmref.load_images("fashionmnist-evaluation")
    >>> accuracy(net, state, data.normalized(data.images[:50]), data.labels[:50]) > 0.8
    True
    """
    labels = F.check_labels(labels, len(x), net.num_classes)
    return float((predict(net, state, x, **options).argmax(1) == labels).mean())


def train(
    net: ResNet,
    state: dict,
    data,
    recipe: Recipe,
    start: Progress | None = None,
    after_step: Callable[[Progress, int], None] | None = None,
    **options,
) -> Progress:
    """Train from `state` (or go on from `start`) to the recipe's end, on the training images of a `files.datasets.Dataset`.

    `after_step(progress, n_steps)` is called after every mini-batch, to save or to show where the run stands. The
    result depends on the arguments alone, not on where it was interrupted. A last incomplete batch is left out. `options` go
    to `net.forward`: product, and with `pcmref.fast`'s network workers and engine.
    """
    n_train = len(data.train_images) - recipe.validation
    steps_per_epoch = n_train // recipe.batch_size
    if steps_per_epoch < 1:
        raise SettingError(f"recipe: {n_train} training images do not fill one batch of {recipe.batch_size}")
    if recipe.crop > min(data.train_images.shape[1:3]):
        raise SettingError(f"recipe: crop {recipe.crop} is more than the images are wide")
    net.check_state(state)
    dtype = state["fc.weight"].dtype
    x = data.normalized(data.train_images, dtype)
    validation = (x[n_train:], data.train_labels[n_train:])
    blank = data.normalized(np.zeros((1, 1, 1, x.shape[3]), np.uint8), dtype)[0, 0, 0]
    n_steps = recipe.epochs * steps_per_epoch
    at = start or Progress(0, state, {})
    for epoch in range(at.step // steps_per_epoch, recipe.epochs):
        order = draws.permutation(recipe.seed, f"shuffle/{epoch}", n_train)
        choice = Augmentation.of_epoch(recipe, epoch, n_train, x.shape[1:3])
        for step in range(at.step, (epoch + 1) * steps_per_epoch):
            first = (step % steps_per_epoch) * recipe.batch_size
            index = order[first : first + recipe.batch_size]
            batch = augment(x[index], choice, index, recipe, blank)
            rate = learning_rate(recipe, step, n_steps)
            state, velocity, loss = train_step(net, at, batch, data.train_labels[index], rate, recipe, **options)
            at = replace(at, step=step + 1, state=state, velocity=velocity, loss_sum=at.loss_sum + loss)
            if at.step % steps_per_epoch == 0:
                at = _end_epoch(net, at, epoch, steps_per_epoch, rate, validation, options)
            if after_step is not None:
                after_step(at, n_steps)
    return at


def train_step(net: ResNet, at: Progress, x, labels, rate: float, recipe: Recipe, **options):
    """(state, velocity, loss) after one mini-batch."""
    noisy = inject_weight_noise(at.state, recipe.eta, recipe.seed, at.step, options.get("workers"))
    logits, tape = net.forward(noisy, x, train=True, **options)
    loss = float(F.softmax_cross_entropy(logits, labels, recipe.label_smoothing))
    if not np.isfinite(loss):
        raise SettingError(f"training diverged at step {at.step}: the loss is {loss}; lower the learning rate")
    grads = net.backward(noisy, tape, F.softmax_cross_entropy_backward(logits, labels, recipe.label_smoothing))
    state, velocity = sgd_step(net.updated_state(at.state, tape), grads, at.velocity, rate, recipe)
    return (clip_weights(state, recipe.alpha) if recipe.alpha else state), velocity, loss


def _end_epoch(net, at: Progress, epoch, steps_per_epoch, rate, validation, options) -> Progress:
    """The epoch's entry in the history, and the best state if this is it (without validation images: the last)."""
    score = accuracy(net, at.state, *validation, **options) if len(validation[0]) else None
    entry = {"epoch": epoch + 1, "loss": at.loss_sum / steps_per_epoch, "learning_rate": rate, "validation_accuracy": score}
    if score is None or at.best is None or score >= at.history[at.best_epoch - 1]["validation_accuracy"]:
        at = replace(at, best=changed(at.state, {}), best_epoch=epoch + 1)
    return replace(at, loss_sum=0.0, history=(*at.history, entry))
