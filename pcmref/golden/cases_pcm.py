"""The device's and the training's cases, and the draws. Constants are written out here: the package's own are checked by them.

Noise is part of a case: a backend takes it as given. Where a backend cannot, `law_cases` say what it samples from.
"""

import numpy as np

from pcmref import draws
from pcmref.golden.case import Case, narrow, normal
from pcmref.golden.cases_nn import EPS, ONE_BLOCK, network_state

JOSHI2020 = {
    "profile": "joshi2020",
    "g_max_us": 25.0,
    "programming_us": [0.26348, 1.9650, -1.1731],
    "nu_mean_line": [-0.0155, 0.0244],
    "nu_mean_range": [0.049, 0.1],
    "nu_std_line": [-0.0125, -0.0059],
    "nu_std_range": [0.008, 0.045],
    "nu_law": "gaussian",
    "t_0_s": 20.0,
    "t_r_s": 250e-9,
    "q_factor": 0.0088,
    "q_exponent": -0.65,
    "q_max": 0.2,
}
AIHWKIT = JOSHI2020 | {"profile": "aihwkit", "nu_law": "folded"}
CLAMPED = JOSHI2020 | {"nu_law": "clamped"}
CROSSSIM = JOSHI2020 | {"profile": "crosssim", "programming_us": [0.28638599, 0.07585724 * 25, -0.00178767 * 625]}
DAY_S, YEAR_S = 86_400.0, 31_536_000.0
RESNET8 = {"in_channels": 1, "num_classes": 10, "widths": [4, 6, 8], "blocks": [1, 1, 1], "stem": "small"}

_TARGETS_US = np.array([0.0, 0.0625, 0.203125, 0.5, 1.0, 2.5, 5.0, 10.0, 12.5, 20.0, 25.0])
_DRAWS = np.array([-4.0, -1.25, -0.0625, 0.0, 0.5, 3.0])


def _grid(a, b) -> tuple[np.ndarray, np.ndarray]:
    """Every entry of a with every entry of b: two arrays [len(a), len(b)]."""
    first, second = np.meshgrid(a, b, indexing="ij")
    return first, second


def _mapping():
    mixed = normal("map/mixed", 3, 2, 3, 2)
    for name, w, why in (
        ("convolution", mixed, "one scale for the layer; one device of each pair at 0"),
        ("one_weight", np.array([[-0.75]]), "the largest weight is negative"),
        ("zeros", np.zeros((2, 3)), "a crossbar of zeros has scale 1"),
    ):
        yield Case("map", name, why, {"w": w}, {}, {"g_max_us": 25.0})


def _devices():
    g, z = _grid(_TARGETS_US, _DRAWS)
    for model in (JOSHI2020, CROSSSIM):
        why = "targets from 0 to G_max, draws to 4 sigma: the clip at 0 is reached"
        yield Case("program", model["profile"], why, {"g_target_us": g}, {"z": z}, {"model": model})
    small = JOSHI2020 | {"g_max_us": 12.5}
    why = "sigma scales with G_max/25"
    inputs, noise = {"g_target_us": g / 2}, {"z": z}
    yield Case("program", "half_g_max", why, inputs, noise, {"model": small | {"profile": "g_max"}})
    for model, why in (
        (JOSHI2020, "weak devices may get nu < 0"),
        (AIHWKIT, "the toolkit folds nu (D7)"),
        (CLAMPED, "a co-author's code clamps nu to the range of its mean (D26)"),
    ):
        yield Case("drift_exponent", model["nu_law"], why, {"g_target_us": g}, {"z": z}, {"model": model})
    g, nu = _grid(np.array([0.0, 0.5, 12.5, 25.0, 26.5]), np.array([-0.03125, 0.0, 0.046875, 0.0625, 0.125]))
    for name, t_s in (("t_0", 20.0), ("one_minute", 60.0), ("one_day", DAY_S), ("one_year", YEAR_S)):
        why = "at t_0 nothing has drifted" if name == "t_0" else "t counts from programming, t_0 is 20 s (D6)"
        yield Case("drift", name, why, {"g_prog_us": g, "nu": nu}, {}, {"model": JOSHI2020, "t_s": t_s})
    g, z = _grid(_TARGETS_US, _DRAWS)
    drifted = narrow(g * 0.75 + 0.125)
    for name, t_s in (("t_0", 20.0), ("one_day", DAY_S), ("one_year", YEAR_S)):
        why = "Q_s is of the target, capped for weak devices (D5)"
        inputs = {"g_drift_us": drifted, "g_target_us": g}
        yield Case("read", name, why, inputs, {"z": z}, {"model": JOSHI2020, "t_s": t_s})
    inputs, why = {"g_drift_us": drifted, "g_target_us": drifted}, "target and read conductance are the same: D5 plays no part"
    yield Case("read", "undrifted", why, inputs, {"z": z}, {"model": JOSHI2020, "t_s": 20.0})


def _compensation():
    at_t0, at_t = (narrow(np.abs(normal(f"gdc/{k}", 2, 3, 4, scale=6.0))) for k in ("t0", "t"))
    for read_out, why in (
        ("device sum", "the currents of both devices of every pair add up (D10)"),
        ("ones", "|net outputs for an input of ones|, as the toolkit documents it (D10)"),
        ("one-hot", "mean |net output| over one-hot inputs, as the toolkit has it (D10)"),
        ("per column", "a factor for each output (D10)"),
    ):
        params = {"read_out": read_out, "g_max_us": 25.0}
        yield Case("gdc", read_out.replace(" ", "_"), why, {"g_t0_us": at_t0, "g_t_us": at_t}, {}, params)
    why = "no current at t: the factor is 1"
    inputs = {"g_t0_us": at_t0, "g_t_us": np.zeros_like(at_t)}
    yield Case("gdc", "no_current", why, inputs, {}, {"read_out": "device sum", "g_max_us": 25.0})


def _converter(steps, limit=1.0, rounding="half-even", order="clip first", origin="zero"):
    return {"steps": steps, "limit": limit, "rounding": rounding, "order": order, "origin": origin}


def _periphery():
    x = np.concatenate([normal("converter/x", 40, scale=0.5), [0.0, 1.0, -1.0, 1.5, -4.0]])
    ties = np.array([0.5, 1.5, 2.5, -0.5, -1.5, -2.5, 0.25]) / 8
    for name, values, converter, why in (
        ("8_bit", x, _converter(254), "255 levels, 0 among them (D20)"),
        ("256_steps", x, _converter(256), "257 levels (D20)"),
        ("no_zero_code", x, _converter(255, origin="end"), "codes counted from the end: none at 0 (D20)"),
        ("half_even", ties, _converter(16), "values in the middle of two codes, exactly (D22)"),
        ("half_away", ties, _converter(16, rounding="half-away"), "the same, rounded away from 0 (D22)"),
        ("round_first", x, _converter(15, order="round first"), "the last code lies beyond the limit and is cut (D21)"),
    ):
        yield Case("dac", name, why, {"x": values}, {}, {"converter": converter})
        limited = converter | {"limit": 12.0 if name not in ("half_even", "half_away") else 1.0}
        scaled = narrow(values * limited["limit"])
        yield Case("adc", name, why, {"x": scaled}, {}, {"converter": limited})
    x, g_us = normal("mvm/x", 3, 7), narrow(np.abs(normal("mvm/g", 2, 7, 4, scale=8.0)))
    settings = {"g_max_us": 25.0, "scale": 20.0, "alpha": 1.0625}
    for name, more, why in (
        ("ideal", {"tile": [7, 4], "dac": None, "adc": None}, "without converters this is a matrix product"),
        ("converters", {"tile": [7, 4], "dac": _converter(254), "adc": _converter(254, 12.0)}, "DAC, wire, ADC"),
        ("tiles", {"tile": [3, 2], "dac": _converter(254), "adc": _converter(254, 12.0)}, "an ADC a tile; the last is short"),
    ):
        yield Case("crossbar_mvm", name, why, {"x": x, "g_us": g_us}, {}, settings | more)


def _chips():
    end_to_end = "seed -> G_prog, nu, weights at one day, ten logits"
    x = normal("chip/x", 1, 8, 8, 1)
    yield _chip("resnet8", end_to_end, "chip", RESNET8, x, False, 2)
    yield _chip("resnet8_gdc", end_to_end + ", with drift compensation", "chip", RESNET8, x, True, 2)
    why = "a whole chip of one block: program, drift, read and drift compensation of every crossbar, then the logits"
    yield _chip("one_block_gdc", why, "chip/one_block", ONE_BLOCK, normal("chip/one_block/x", 2, 4, 3, 1), True, 1)


def _chip(name: str, why: str, states: str, network: dict, x, gdc: bool, level: int) -> Case:
    """A chip of seed 7, one day after programming; its noise is what its streams draw."""
    state, seed = network_state(states, network), 7
    noise = chip_noise(state, seed, DAY_S, 0, gdc)
    params = {"model": JOSHI2020, "network": network, "seed": seed, "t_s": DAY_S, "read": 0, "gdc": gdc, "eps": EPS}
    return Case("chip", name, why, {"x": x} | state, noise, params, level)


def chip_noise(state: dict, seed: int, t_s: float, read: int, gdc: bool) -> dict:
    """{what/array: what the stream draws for the devices of an array that is on the chip}; gdc reads at t_0 too."""
    streams = {"program": "program", "drift": "drift", "read": f"read/{read}/{t_s!r}"}
    streams |= {"read_t0": f"read/{read}/20.0"} if gdc else {}
    on_chip = [name for name, w in state.items() if np.ndim(w) > 1 and name != "x"] + ["fc.bias"]
    return {
        f"{what}/{name}": draws.standard_normal(seed, f"{stream}/{name}", (2, *state[name].shape))
        for what, stream in streams.items()
        for name in on_chip
    }


def _training():
    state = {"fc.weight": normal("training/weight", 3, 4), "fc.bias": normal("training/bias", 3, scale=2.0)}
    noise = {name: draws.standard_normal(3, f"noise/5/{name}", w.shape) for name, w in state.items()}
    params, why = {"eta": 0.038, "seed": 3, "step": 5}, "the bias shares the crossbar's largest weight"
    yield Case("inject_weight_noise", "crossbar", why, state, noise, params)
    yield Case(
        "clip_weights", "crossbar", "population standard deviation over weights and bias (D19)", state, {}, {"alpha": 1.5}
    )
    w, grad, velocity = (normal(f"sgd/{k}", 2, 3) for k in ("w", "grad", "velocity"))
    settings = {"learning_rate": 0.1, "momentum": 0.9, "weight_decay": 5e-4, "nesterov": True}
    inputs = {"w": w, "grad": grad}
    moving = inputs | {"velocity": velocity}
    yield Case("sgd_step", "nesterov", "decay on the weights", moving, {}, settings)
    yield Case("sgd_step", "heavy_ball", "momentum without Nesterov", moving, {}, settings | {"nesterov": False})
    yield Case("sgd_step", "first", "without velocity the first is the gradient", inputs, {}, settings)
    one = {name: value[0] for name, value in moving.items()}
    yield Case("sgd_step", "bias", "no decay on one-dimensional parameters", one, {}, settings)


def _streams():
    for case, (seed, name, why) in {
        "program": (0, "program/layer1.0.conv1.weight", "a stream of the first chip"),
        "read": (17, "read/0/86400.0/fc.bias", "the time is written as the shortest decimal"),
        "far": (-(2**70), "größe", "any integer, any text in UTF-8"),
    }.items():
        yield Case("draws", case, why, {}, {}, {"seed": seed, "name": name, "n": 10, "high": 7})


def law_cases():
    """The random operations for backends that take no noise: a few devices each, drawn many times."""
    targets = np.array([0.0, 0.5, 2.5, 12.5, 20.0, 25.0])
    for model in (JOSHI2020, AIHWKIT):
        profile, inputs = model["profile"], {"g_target_us": targets}
        if model is JOSHI2020:
            yield Case("program", "law", "normal around the target, clipped at 0", inputs, {}, {"model": model})
        yield Case("drift_exponent", f"law_{profile}", f"{model['nu_law']} law of nu (D7)", inputs, {}, {"model": model})
    for name, drifted in (("law_drifted", narrow(targets * 0.625)), ("law_undrifted", targets)):
        inputs = {"g_drift_us": drifted[1:], "g_target_us": targets[1:]}
        why = "Q_s is of the target, not of the drifted conductance (D5); clipped at 0"
        yield Case("read", name, why, inputs, {}, {"model": JOSHI2020, "t_s": DAY_S if name == "law_drifted" else 20.0})
    state = {"fc.weight": normal("law/weight", 2, 2), "fc.bias": normal("law/bias", 2)}
    why = "one standard deviation for weights and bias, independent draws"
    yield Case("inject_weight_noise", "law", why, state, {}, {"eta": 0.038, "seed": 0, "step": 0})


def cases():
    """All cases of device, training and draws whose noise is given."""
    yield from _mapping()
    yield from _devices()
    yield from _compensation()
    yield from _periphery()
    yield from _chips()
    yield from _training()
    yield from _streams()
