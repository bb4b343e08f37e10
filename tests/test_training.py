"""Training: each step of the algorithm against its equation, and the whole run."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm

import pcmref
from pcmref import draws, training
from pcmref.checks import check_distribution
from pcmref.errors import SettingError, StateError
from pcmref.files.datasets import Dataset
from pcmref.nn import functional as F
from pcmref.training import Recipe
from tests.helpers.roundings import gamma

NET = pcmref.ResNet(1, 3, (4, 6), (1, 1))


def dataset(n=96, size=8):
    """Three easy classes: which third of the rows is bright."""
    y = draws.integers(0, "test/train", 3, (n + 30,))
    images = draws.integers(1, "test/train", 120, (n + 30, size, size, 1)).astype(np.uint8)
    for i, label in enumerate(y):
        images[i, 3 * label : 3 * label + 2] += 130
    mean, std = (0.3,), (0.2,)
    return Dataset("test", ("a", "b", "c"), images[:n], y[:n], images[n:], y[n:], mean, std)


DATA = dataset()
RECIPE = Recipe(epochs=3, batch_size=32, learning_rate=0.05, crop=1, flip=True, cutout=2, eta=0.05, alpha=2.5, validation=30)


@pytest.mark.confirms(37)
def test_noise_is_the_crossbars_eta_times_its_largest_weight():
    state = NET.init() | {"fc.bias": np.array([-5.0, 0, 0], np.float32)}
    noisy = pcmref.inject_weight_noise(state, eta=0.1, seed=3, step=7)
    for name, largest in (("conv1.weight", np.abs(state["conv1.weight"]).max()), ("fc.weight", 5.0), ("fc.bias", 5.0)):
        z = draws.standard_normal(3, f"noise/7/{name}", state[name].shape)
        assert np.array_equal(noisy[name], (state[name] + 0.1 * float(largest) * z).astype(np.float32))
    assert all(np.array_equal(noisy[n], state[n]) for n in state if n not in NET.synaptic())


@pytest.mark.confirms(37)
def test_noise_is_gaussian_of_the_stated_width_and_grows_with_the_weights():
    """(noisy - w)/(eta max|W|) is standard normal (chance of a false alarm 1e-6); twice the weights, twice the noise."""
    state = {"conv1.weight": draws.uniform(0, "test/training noise", (40, 25, 3, 3)) * 3 - 1.5}
    noisy, doubled = (pcmref.inject_weight_noise({n: k * w for n, w in state.items()}, eta=0.038) for k in (1, 2))
    z = (noisy["conv1.weight"] - state["conv1.weight"]) / (0.038 * abs(state["conv1.weight"]).max())
    check_distribution(z, norm.cdf, effect=0.05)
    assert np.array_equal(doubled["conv1.weight"], 2 * noisy["conv1.weight"])


def test_noise_is_fresh_every_step_and_absent_for_eta_zero():
    state = NET.init()
    a, b = (pcmref.inject_weight_noise(state, step=s)["conv1.weight"] for s in (0, 1))
    assert not np.array_equal(a, b)
    assert all(pcmref.inject_weight_noise(state, eta=0.0)[n].tolist() == state[n].tolist() for n in state)


@pytest.mark.confirms(38)
@given(st.floats(0.5, 4), st.integers(0, 20))
def test_clipping_is_at_alpha_population_deviations_of_the_crossbar(alpha, seed):
    state = NET.init(seed, np.float64)
    clipped = pcmref.clip_weights(state, alpha)
    w = np.concatenate([state["fc.weight"].ravel(), state["fc.bias"]])
    limit = alpha * np.sqrt(((w - w.mean()) ** 2).mean())
    assert np.allclose(clipped["fc.weight"], np.clip(state["fc.weight"], -limit, limit), rtol=1e-12)
    assert np.allclose(clipped["fc.bias"], np.clip(state["fc.bias"], -limit, limit), rtol=1e-12)
    assert all(np.array_equal(clipped[n], state[n]) for n in state if n not in NET.synaptic())


def test_clipping_at_the_documents_numbers():
    """[1, 2, 3, 4]: 1.11803 with ddof 0 (1.29099 with ddof 1, 2.73861 as root mean square)."""
    state = {"fc.weight": np.array([[1.0, 2, 3, 4]])}
    assert pcmref.clip_weights(state, 1.0)["fc.weight"].max() == pytest.approx(1.11803, abs=5e-6)


@pytest.mark.confirms(39)
def test_sgd_is_the_formula_over_three_steps():
    recipe = Recipe(momentum=0.9, nesterov=True, weight_decay=0.1)
    state, velocity = {"conv1.weight": np.array([[2.0]]), "bn1.weight": np.array([3.0])}, {}
    w, b, vw, vb = 2.0, 3.0, 0.0, 0.0
    for grad in (1.0, -0.5, 0.25):
        grads = {"conv1.weight": np.array([[grad]]), "bn1.weight": np.array([grad]), "input": np.zeros(3)}
        state, velocity = training.sgd_step(state, grads, velocity, 0.1, recipe)
        g = grad + 0.1 * w
        vw, vb = 0.9 * vw + g, 0.9 * vb + grad
        w, b = w - 0.1 * (g + 0.9 * vw), b - 0.1 * (grad + 0.9 * vb)
    assert state["conv1.weight"][0, 0] == pytest.approx(w, rel=1e-14) and state["bn1.weight"][0] == pytest.approx(b, rel=1e-14)
    assert "input" not in state


@pytest.mark.confirms(39)
@pytest.mark.parametrize("nesterov", [False, True])
def test_sgd_under_a_constant_gradient_has_a_closed_form(nesterov):
    """v_n = g (1 - m^n)/(1 - m), the updates add up to (n - m (1 - m^n)/(1 - m)) g/(1 - m); decay alone is (1 - lr d)^n."""
    m, g, n = 0.75, 0.5, 12
    state, velocity = {"bn1.weight": np.array([2.0])}, {}
    decayed, none = {"conv1.weight": np.array([[2.0]])}, {"conv1.weight": np.zeros((1, 1))}
    steady, decay = Recipe(momentum=m, nesterov=nesterov), Recipe(momentum=0.0, nesterov=False, weight_decay=0.2)
    for _ in range(n):
        state, velocity = training.sgd_step(state, {"bn1.weight": np.array([g])}, velocity, 0.1, steady)
        decayed, _ = training.sgd_step(decayed, none, {}, 0.1, decay)
    v = g * (1 - m**n) / (1 - m)
    updates = (n * g - m * v) / (1 - m)
    total = n * g + m * updates if nesterov else updates
    assert velocity["bn1.weight"][0] == pytest.approx(v, rel=1e-14)
    assert state["bn1.weight"][0] == pytest.approx(2 - 0.1 * total, rel=1e-13)
    assert decayed["conv1.weight"][0, 0] == pytest.approx(2 * 0.98**n, rel=1e-14)


@pytest.mark.confirms(39)
def test_sgd_is_pytorchs():
    torch = pytest.importorskip("torch", reason="PyTorch is not installed: comparison of SGD skipped")
    for nesterov in (False, True):
        recipe = Recipe(momentum=0.8, nesterov=nesterov, weight_decay=0.01)
        parameter = torch.nn.Parameter(torch.tensor([[1.5, -2.0]], dtype=torch.float64))
        optimiser = torch.optim.SGD([parameter], 0.3, momentum=0.8, nesterov=nesterov, weight_decay=0.01)
        state, velocity = {"w": np.array([[1.5, -2.0]])}, {}
        for step in range(5):
            gradient = draws.standard_normal(step, "test/sgd", (1, 2))
            parameter.grad = torch.from_numpy(gradient.copy())
            optimiser.step()
            state, velocity = training.sgd_step(state, {"w": gradient}, velocity, 0.3, recipe)
        assert np.allclose(state["w"], parameter.detach().numpy(), rtol=1e-14)


@pytest.mark.confirms(68, 69, 70, 71)
def test_schedules():
    rates = {
        s: [training.learning_rate(Recipe(schedule=s, learning_rate=2.0), i, 100) for i in range(100)]
        for s in training.SCHEDULES
    }
    assert rates["one-cycle"][0] == pytest.approx(2 / 25) and max(rates["one-cycle"]) == rates["one-cycle"][30] == 2.0
    assert rates["cosine"][0] == 2.0 and rates["cosine"][50] == pytest.approx(1.0)
    assert [rates["step"][i] for i in (0, 49, 50, 75)] == pytest.approx([2, 2, 0.2, 0.02])
    assert rates["one-cycle"][-1] < 0.01 and rates["cosine"][-1] < 0.01


@pytest.mark.confirms(68, 69, 70, 71)
def test_schedules_have_the_means_of_their_integrals():
    """Over the first half and over the whole run: a half cosine has the mean 1/2, its first half 1/2 + 1/pi."""
    down = 0.1 + 0.35 / np.pi * np.sin(2 * np.pi / 7)  # of one cycle, from 30 % to 50 %
    means = {"one-cycle": (0.3 * 0.52 + down, 0.3 * 0.52 + 0.35), "cosine": (0.25 + 0.5 / np.pi, 0.5), "step": (0.5, 0.5275)}
    assert means.keys() == training.SCHEDULES.keys()
    n = 1000
    for schedule, (half, whole) in means.items():
        recipe = Recipe(schedule=schedule, learning_rate=3.0)
        rates = np.array([training.learning_rate(recipe, step, n) for step in range(n)])
        assert rates[: n // 2].sum() / n == pytest.approx(3 * half, abs=3 / n)
        assert rates.mean() == pytest.approx(3 * whole, abs=3 / n)
        assert schedule == "step" or abs(np.diff(rates)).max() < 3 * 6 / n  # no jump


@pytest.mark.confirms(68)
@pytest.mark.parametrize(("steps", "ends"), [(range(31), 1 / 25 + 1), (range(99, 30, -1), 0 + 1)], ids=["up", "down"])
def test_one_cycle_goes_up_and_down_as_half_cosines_do(steps, ends):
    """Between 1/25, 1 and 0 times the peak; turned about its middle, a half cosine is itself.

    An angle has at most 6 roundings of pi, which the peak of 2 halves and doubles, twice; with the rest, below 64 of 1.
    """
    recipe = Recipe(schedule="one-cycle", learning_rate=2.0)
    rates = [training.learning_rate(recipe, step, 100) for step in steps]
    assert rates == sorted(set(rates))
    assert np.add(rates, rates[::-1]) == pytest.approx(2 * ends, abs=gamma(64))


@pytest.mark.confirms(72, 83)
def test_augmentation_crops_flips_and_cuts_as_its_draws_say():
    recipe = Recipe(crop=2, flip=True, cutout=3, seed=4)
    x = draws.standard_normal(0, "test/augment", (10, 8, 8, 1))
    choice = training.Augmentation.of_epoch(recipe, 6, 50, (8, 8))
    index, blank = np.arange(20, 30), np.array([-1.0])
    out = training.augment(x, choice, index, recipe, blank)
    padded = np.pad(x, ((0, 0), (2, 2), (2, 2), (0, 0)), constant_values=-1.0)
    crop = np.floor(draws.uniform(4, "crop/6", (50, 2)) * 5).astype(int)
    flip = draws.uniform(4, "flip/6", (50,)) < 0.5
    cut = np.floor(draws.uniform(4, "cutout/6", (50, 2)) * 8).astype(int)
    for i, k in enumerate(index):
        expected = padded[i, crop[k, 0] : crop[k, 0] + 8, crop[k, 1] : crop[k, 1] + 8]
        expected = np.array(expected[:, ::-1] if flip[k] else expected)
        for r in range(8):
            for s in range(8):
                if -1 <= r - cut[k, 0] <= 1 and -1 <= s - cut[k, 1] <= 1:
                    expected[r, s] = 0
        assert np.array_equal(out[i], expected)
    assert flip[20:30].any() and not flip[20:30].all()


def augmented(x, **settings):
    """x [N, H, W, 1] with the choices of an epoch of a recipe with these settings; -1 pads."""
    recipe = Recipe(**settings)
    choice = training.Augmentation.of_epoch(recipe, 0, len(x), x.shape[1:3])
    return training.augment(x, choice, np.arange(len(x)), recipe, np.array([-1.0]))[..., 0]


@pytest.mark.confirms(72, 83)
def test_augmentation_moves_one_pixel_and_blanks_one_square():
    """Of 3,000 images: a crop moves a pixel by each of -1..1 twice over, a flip half of them, a cutout blanks a square."""
    n, pixel = 3000, np.zeros((3000, 7, 9, 1))
    pixel[:, 3, 2] = 1
    moved = np.argwhere(augmented(pixel, crop=1) == 1)
    assert len(moved) == n and {tuple(at) for at in moved[:, 1:]} == {(r, c) for r in (2, 3, 4) for c in (1, 2, 3)}
    flipped = np.argwhere(augmented(pixel, flip=True) == 1)
    assert {tuple(at) for at in flipped[:, 1:]} == {(3, 2), (3, 6)}
    assert abs((flipped[:, 2] == 6).mean() - 0.5) < 5 * 0.5 / np.sqrt(n)
    cut = augmented(np.ones((n, 7, 9, 1)), cutout=3) == 0
    rows, columns = cut.any(2).sum(1), cut.any(1).sum(1)
    assert (cut.sum((1, 2)) == rows * columns).all() and set(rows) == set(columns) == {2, 3}
    assert abs((rows == 2).mean() - 2 / 7) < 5 * 0.5 / np.sqrt(n) and cut.any(0).all()


def test_without_augmentation_images_pass_unchanged():
    recipe = Recipe()
    x = draws.standard_normal(0, "test/augment", (3, 8, 8, 1))
    assert np.array_equal(
        training.augment(x, training.Augmentation.of_epoch(recipe, 0, 3, (8, 8)), np.arange(3), recipe, None), x
    )


@pytest.mark.confirms(82)
def test_a_step_goes_forward_and_backward_with_noise_and_updates_the_clean_weights():
    """The gradient is that at the noisy weights; the clean ones move; statistics are those of the noisy pass."""
    recipe = Recipe(batch_size=8, eta=0.2, weight_decay=0.0, alpha=0.0, seed=1)
    state, x, y = NET.init(), DATA.normalized(DATA.train_images[:8]), DATA.train_labels[:8]
    at = training.Progress(5, state, {})
    new, _, loss = training.train_step(NET, at, x, y, 0.1, recipe)
    noisy = pcmref.inject_weight_noise(state, 0.2, 1, 5)
    logits, tape = NET.forward(noisy, x, train=True)
    grads = NET.backward(noisy, tape, F.softmax_cross_entropy_backward(logits, y))
    assert loss == F.softmax_cross_entropy(logits, y)
    for name in NET.trainable():
        assert np.allclose(new[name], state[name] - 0.1 * 1.9 * grads[name], rtol=1e-5, atol=1e-7), name
    assert np.array_equal(new["bn1.running_mean"], NET.updated_state(noisy, tape)["bn1.running_mean"])


def test_training_learns():
    recipe = dataclasses.replace(RECIPE, epochs=8, flip=False, crop=0, cutout=0)
    at = training.train(NET, NET.init(), DATA, recipe)
    x = DATA.normalized(DATA.test_images)
    assert training.accuracy(NET, at.best, x, DATA.test_labels) > 0.9
    assert len(at.history) == 8 and at.history[-1]["loss"] < at.history[0]["loss"]
    best = max(entry["validation_accuracy"] for entry in at.history)
    assert at.history[at.best_epoch - 1]["validation_accuracy"] == best


@pytest.mark.parametrize("stop", [1, 2, 4, 5])
def test_a_run_goes_on_to_the_bit_from_wherever_it_was(stop):
    recipe = dataclasses.replace(RECIPE, epochs=3)
    whole = training.train(NET, NET.init(), DATA, recipe)
    seen = []

    def interrupt(at, n_steps):
        seen.append(at)
        if at.step == stop:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        training.train(NET, NET.init(), DATA, recipe, after_step=interrupt)
    resumed = training.train(NET, NET.init(), DATA, recipe, start=seen[-1], workers=1)
    assert resumed.step == whole.step and resumed.history == whole.history
    assert all(np.array_equal(resumed.state[k], whole.state[k]) for k in whole.state)
    assert all(np.array_equal(resumed.best[k], whole.best[k]) for k in whole.best)


@pytest.mark.parametrize(
    "bad",
    [
        {"epochs": 0},
        {"epochs": 1.5},
        {"batch_size": 1},
        {"schedule": "linear"},
        {"learning_rate": float("nan")},
        {"eta": -0.1},
        {"flip": 1},
        {"momentum": 1.0},
        {"seed": True},
    ],
)
def test_an_impossible_recipe_is_refused(bad):
    with pytest.raises(SettingError, match="recipe"):
        Recipe(**bad)


def test_what_cannot_be_trained_is_refused():
    with pytest.raises(SettingError, match="do not fill one batch"):
        training.train(NET, NET.init(), DATA, dataclasses.replace(RECIPE, validation=90))
    with pytest.raises(StateError, match="missing"):
        training.train(NET, {}, DATA, RECIPE)
    with pytest.raises(SettingError, match="diverged"), np.errstate(all="ignore"):
        training.train(NET, NET.init(), DATA, dataclasses.replace(RECIPE, learning_rate=1e30, epochs=2), workers=1)
    for call in (lambda: pcmref.inject_weight_noise({}, -1.0), lambda: pcmref.clip_weights({}, 0.0)):
        with pytest.raises(SettingError):
            call()


@pytest.mark.confirms(82)
def test_a_run_is_its_public_steps_one_after_another():
    """Two epochs by hand: order, augmentation, schedule, smoothing, log and the choice of the best epoch."""
    recipe = dataclasses.replace(RECIPE, epochs=2, label_smoothing=0.1, cutout=0)
    at = training.train(NET, NET.init(), DATA, recipe)
    n, state, velocity, states = 66, NET.init(), {}, []
    x = DATA.normalized(DATA.train_images)
    for step in range(4):
        epoch = step // 2
        index = draws.permutation(0, f"shuffle/{epoch}", n)[32 * (step % 2) : 32 * (step % 2) + 32]
        crop = draws.integers(0, f"crop/{epoch}", 3, (n, 2))[index]
        flip = draws.uniform(0, f"flip/{epoch}", (n,))[index] < 0.5
        black = np.float32((0 - 0.3) / 0.2)
        batch = np.pad(x[index], ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=black)
        batch = np.stack([image[r : r + 8, c : c + 8] for image, (r, c) in zip(batch, crop, strict=True)])
        batch[flip] = batch[flip][:, :, ::-1]
        noisy = pcmref.inject_weight_noise(state, recipe.eta, 0, step)
        logits, tape = NET.forward(noisy, batch, train=True)
        loss = F.softmax_cross_entropy(logits, DATA.train_labels[index], 0.1)
        grads = NET.backward(noisy, tape, F.softmax_cross_entropy_backward(logits, DATA.train_labels[index], 0.1))
        rate = training.learning_rate(recipe, step, 4)
        state, velocity = training.sgd_step(NET.updated_state(state, tape), grads, velocity, rate, recipe)
        state = pcmref.clip_weights(state, recipe.alpha)
        states.append((state, float(loss), rate))
    assert all(np.array_equal(at.state[k], state[k]) for k in state)
    score = [training.accuracy(NET, states[i][0], x[66:], DATA.train_labels[66:]) for i in (1, 3)]
    for epoch, entry in enumerate(at.history):
        assert entry["loss"] == pytest.approx((states[2 * epoch][1] + states[2 * epoch + 1][1]) / 2, rel=1e-12)
        assert entry["validation_accuracy"] == score[epoch] and entry["learning_rate"] == states[2 * epoch + 1][2]
    assert at.best_epoch == (2 if score[1] >= score[0] else 1)
    assert all(np.array_equal(at.best[k], states[2 * at.best_epoch - 1][0][k]) for k in state)


def test_a_recipe_takes_whole_numbers_where_fractions_are_meant():
    assert Recipe(eta=0, learning_rate=1, alpha=2).alpha == 2
