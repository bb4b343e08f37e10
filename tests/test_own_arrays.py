"""What is handed out is the caller's own: a change in place reaches neither the state it came from nor anything inside."""

from functools import partial

import numpy as np
import pytest

import pcmref
from pcmref import draws, training
from pcmref.files.datasets import Dataset

NET = pcmref.ResNet(1, 3, (2, 3), (1, 1))
X = draws.standard_normal(0, "test/own arrays", (6, 5, 5, 1)).astype(np.float32)
IMAGES, LABELS = np.abs(50 * X).astype(np.uint8), np.array([0, 1, 2, 0, 1, 2])
DATA = Dataset("test", ("a", "b", "c"), IMAGES, LABELS, IMAGES, LABELS, (0.5,), (0.25,))


def updated(state, engine):
    return NET.updated_state(state, NET.forward(state, X, train=True, engine=engine)[1])


def stepped(state):
    return training.sgd_step(state, {"fc.bias": np.ones(3, np.float32)}, {}, 0.1, training.Recipe())[0]


def trained(state, of):
    return getattr(training.train(NET, state, DATA, training.Recipe(epochs=1, batch_size=3, alpha=2.0)), of)


GIVES_A_STATE = {
    "noise": pcmref.inject_weight_noise,
    "no noise": partial(pcmref.inject_weight_noise, eta=0.0),
    "clipped": pcmref.clip_weights,
    "updated by fast": partial(updated, engine="fast"),
    "updated by the text": partial(updated, engine="plain"),
    "adabs": lambda state: pcmref.adabs(NET, state, X),
    "adabs, a moving average": lambda state: pcmref.adabs(NET, state, X, momentum=0.5),
    "a step": stepped,
    "trained": partial(trained, of="state"),
    "trained, the best": partial(trained, of="best"),
}


@pytest.mark.parametrize("gives", GIVES_A_STATE.values(), ids=GIVES_A_STATE)
def test_a_state_that_is_handed_out_shares_no_memory(gives):
    state = NET.init()
    for value in state.values():
        value.flags.writeable = False
    first = gives(state)
    kept = {name: value.copy() for name, value in first.items()}
    for value in first.values():
        value += 1  # an array that is read-only here, as those of `state` are, would be shared
    again = gives(state)
    assert kept.keys() == state.keys() and all(np.array_equal(kept[name], again[name]) for name in state)


def test_a_layer_that_is_frozen_for_a_while_has_the_steps_of_the_rest():
    """As in PyTorch: it starts from its first gradient, and its velocity waits where it has none."""
    recipe, g = training.Recipe(momentum=0.5, nesterov=False, weight_decay=0.0), {"a": np.ones(1), "b": np.ones(1)}
    state, velocity = training.sgd_step({"a": np.zeros(1), "b": np.zeros(1)}, {"a": g["a"]}, {}, 1.0, recipe)
    assert (state["a"], state["b"], velocity.keys()) == (-1, 0, {"a"})
    state, velocity = training.sgd_step(state, g, velocity, 1.0, recipe)
    assert (velocity["a"], velocity["b"], state["a"], state["b"]) == (1.5, 1, -2.5, -1)
    state, waiting = training.sgd_step(state, {"b": g["b"]}, velocity, 1.0, recipe)
    assert (waiting["a"], waiting["b"], state["a"]) == (1.5, 1.5, -2.5)
    assert not np.shares_memory(waiting["a"], velocity["a"])


def test_the_best_state_of_a_training_is_not_the_last_one():
    progress = training.train(NET, NET.init(), DATA, training.Recipe(epochs=1, batch_size=3))
    assert not any(np.shares_memory(progress.state[name], progress.best[name]) for name in progress.state)
