"""The slow twin by operation: arrays in, expected values with their error bounds out.

`expected` finds the coarsest unit roundoff up to which a case's bound is meaningful, so that one stored number an element,
its `scale`, gives the tolerance of every dtype: |error| <= scale * u.
"""

from dataclasses import dataclass
from decimal import Decimal, localcontext

import numpy as np

from pcmref.golden import twin_crossbar, twin_draws, twin_net, twin_nn, twin_pcm
from pcmref.golden.ops import OPS
from pcmref.golden.twin import DIGITS, DRAW, Bounded, TooCoarse, each, errors, flat, grid, lift, nearest

ROUNDOFFS = (2.0**-53, 2.0**-24, 2.0**-11, 2.0**-8)  # float64, float32, float16, bfloat16
_INFLATION = 1.5  # how much the bound may exceed its first-order part before a roundoff counts as too coarse


@dataclass(frozen=True)
class Expected:
    """One output: values, error bound per unit roundoff (None: compared exactly), the largest roundoff it holds for."""

    value: np.ndarray
    scale: np.ndarray | None
    u_max: float
    terms: int  # roundings in the longest chain
    kink: np.ndarray | None = None  # the other right value where two branches meet, NaN elsewhere


def evaluate(op: str, inputs: dict, noise: dict, params: dict, u: float) -> dict[str, np.ndarray]:
    """{output: array of Bounded numbers, or of integers} of an operation at unit roundoff u. Raises TooCoarse."""
    with localcontext(prec=DIGITS):
        arrays = {k: v if np.asarray(v).dtype.kind in "iu" else lift(v, u) for k, v in inputs.items()}
        return TWINS[op](arrays, {k: lift(v, u, DRAW) for k, v in noise.items()}, params, u)


def expected(op: str, inputs: dict, noise: dict, params: dict) -> dict[str, Expected]:
    """{output: Expected}: evaluated at float64's roundoff, the scale at the coarsest one that leaves it meaningful."""
    finest = best = evaluate(op, inputs, noise, params, ROUNDOFFS[0])
    u_max = ROUNDOFFS[0]
    for u in ROUNDOFFS[1:]:
        try:
            coarser = evaluate(op, inputs, noise, params, u)
        except TooCoarse:
            break
        if any((errors(v) > _INFLATION * errors(finest[k])).any() for k, v in coarser.items() if v.dtype == object):
            break
        best, u_max = coarser, u
    outputs = [name for name in best if not name.startswith("kink/")]
    return {name: _expected(op, name, best[name], u_max, best.get(f"kink/{name}")) for name in outputs}


def _expected(op: str, name: str, values: np.ndarray, u_max: float, kink) -> Expected:
    if values.dtype != object:
        return Expected(values, None, 1.0, 1)
    if name in OPS[op].exact:
        return Expected(nearest(values), None, 1.0, 1, kink)
    return Expected(nearest(values), errors(values), u_max, max((b.roundings for b in flat(values)), default=1), kink)


def law(op: str, inputs: dict, params: dict) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """{output: (location, spread)} of a random operation: what its normal draw is multiplied with and added to."""
    with localcontext(prec=DIGITS):
        u = ROUNDOFFS[0]
        a = {name: lift(value, u) for name, value in inputs.items()}
        if op == "inject_weight_noise":
            zero, one = ({name: lift(np.full(v.shape, k), u) for name, v in a.items()} for k in (0.0, 1.0))
            at = [twin_pcm.add_weight_noise(a, z, params["eta"]) for z in (zero, one)]
            return {k: (nearest(at[0][k]), nearest(at[1][k]) - nearest(at[0][k])) for k in a}
        model, g = params["model"], a["g_target_us"]
        if op == "program":
            return {"g_prog_us": (nearest(g), nearest(twin_pcm.as_array(twin_pcm.programming_std_us, g, model=model)))}
        if op == "drift_exponent":
            line = (twin_pcm.drift_exponent_mean, twin_pcm.drift_exponent_std)
            return {"nu": tuple(nearest(twin_pcm.as_array(f, g, model=model)) for f in line)}
        spread = twin_pcm.as_array(twin_pcm.read_noise_std_us, a["g_drift_us"], g, t_s=params["t_s"], model=model)
        return {"g_us": (nearest(a["g_drift_us"]), nearest(spread))}


# ------------------------------------------------------------------------------------- one function an operation


def _conv2d(a, _, p, u):
    return {"y": twin_nn.conv2d(a["x"], a["w"], p["stride"], p["padding"])}


def _conv2d_backward(a, _, p, u):
    return dict(zip(("dx", "dw"), twin_nn.conv2d_backward(a["dy"], a["x"], a["w"], p["stride"], p["padding"]), strict=True))


def _batch_norm(a, _, p, u):
    return {"y": twin_nn.batch_norm(a["x"], a["weight"], a["bias"], a["mean"], a["var"], p["eps"])}


def _batch_norm_backward(a, _, p, u):
    grads = twin_nn.batch_norm_backward(a["dy"], a["x"], a["weight"], a["mean"], a["var"], p["eps"])
    return dict(zip(("dx", "dweight", "dbias"), grads, strict=True))


def _batch_norm_train(a, _, p, u):
    running = twin_nn.running_statistics(a["x"], a["running_mean"], a["running_var"], p["momentum"])
    y = twin_nn.batch_norm_train(a["x"], a["weight"], a["bias"], p["eps"])
    return {"y": y, "running_mean": running[0], "running_var": running[1]}


def _batch_norm_train_backward(a, _, p, u):
    grads = twin_nn.batch_norm_train_backward(a["dy"], a["x"], a["weight"], p["eps"])
    return dict(zip(("dx", "dweight", "dbias"), grads, strict=True))


def _relu_backward(a, _, p, u):
    """At x = 0 both one-sided derivatives are right: 0, or 1 times dy."""
    at_kink = [d.value if v.value == 0 else Decimal("nan") for d, v in zip(flat(a["dy"]), flat(a["x"]), strict=True)]
    other = np.array([float(v) for v in at_kink]).reshape(a["x"].shape)
    return {"dx": twin_nn.relu_backward(a["dy"], a["x"]), "kink/dx": other}


def _linear_backward(a, _, p, u):
    return dict(zip(("dx", "dw", "db"), twin_nn.linear_backward(a["dy"], a["x"], a["w"]), strict=True))


def _cross_entropy(a, _, p, u):
    return {"loss": twin_nn.softmax_cross_entropy(a["logits"], a["labels"], p["smoothing"])}


def _cross_entropy_backward(a, _, p, u):
    return {"dlogits": twin_nn.softmax_cross_entropy_backward(a["logits"], a["labels"], p["smoothing"])}


def _pool(a, _, p, u):
    return {"y": twin_nn.max_pool2d(a["x"], p["kernel"], p["stride"], p["padding"])}


def _pool_backward(a, _, p, u):
    return {"dx": twin_nn.max_pool2d_backward(a["dy"], a["x"], p["kernel"], p["stride"], p["padding"])}


def _basic_block(a, _, p, u):
    return {"y": twin_net.block(a["x"], a, "", p["stride"], p["train"], p["eps"], {})}


def _basic_block_backward(a, _, p, u):
    seen, grads = {}, {}
    twin_net.block(a["x"], a, "", p["stride"], True, p["eps"], seen)
    dx = twin_net.block_backward(a["dy"], a, "", p["stride"], p["eps"], seen, grads)
    return {"dx": dx} | {f"grad/{name}": value for name, value in grads.items()}


def _resnet(a, _, p, u):
    return {"logits": twin_net.resnet(a["x"], a, p["network"], False, p["eps"], {})}


def _resnet_backward(a, _, p, u):
    seen = {}
    logits = twin_net.resnet(a["x"], a, p["network"], True, p["eps"], seen)
    grads = twin_net.resnet_backward(a["dlogits"], a, p["network"], p["eps"], seen)
    return {"logits": logits} | {f"grad/{name}": value for name, value in grads.items()}


def _adabs(a, _, p, u):
    return twin_net.adabs(a["x_calibration"], a, p["network"], p["batch_size"], p["eps"])


def _map(a, _, p, u):
    scale = twin_pcm.weight_scale([a["w"]], p["g_max_us"])
    return {"g_us": twin_pcm.map_weights(a["w"], scale, p["g_max_us"]), "scale": grid((), lambda: scale)}


def _program(a, noise, p, u):
    return {"g_prog_us": twin_pcm.as_array(twin_pcm.program, a["g_target_us"], noise["z"], model=p["model"])}


def _drift_exponent(a, noise, p, u):
    return {"nu": twin_pcm.as_array(twin_pcm.drift_exponent, a["g_target_us"], noise["z"], model=p["model"])}


def _drift(a, _, p, u):
    return {"g_drift_us": twin_pcm.as_array(twin_pcm.drift, a["g_prog_us"], a["nu"], t_s=p["t_s"], model=p["model"])}


def _read(a, noise, p, u):
    arrays = (a["g_drift_us"], a["g_target_us"], noise["z"])
    return {"g_us": twin_pcm.as_array(twin_pcm.read, *arrays, t_s=p["t_s"], model=p["model"])}


def _gdc(a, _, p, u):
    return {"alpha": twin_pcm.gdc_factor(a["g_t0_us"], a["g_t_us"], p["read_out"], p["g_max_us"])}


def _convert(a, _, p, u):
    pairs = [twin_crossbar.convert(v, p["converter"]) for v in flat(a["x"])]
    other = np.array([np.nan if second is None else float(second.value) for _, second in pairs]).reshape(a["x"].shape)
    values = np.empty(len(pairs), object)
    values[:] = [first for first, _ in pairs]
    values = values.reshape(a["x"].shape)
    return {"q": values, "kink/q": other}


def _chip(a, noise, p, u):
    """Map, program, drift and read every crossbar, GDC if asked, and one forward pass with the weights as read."""
    model, out, state = p["model"], {}, dict(a)
    bars = [[name] for name in a if a[name].ndim == 4 and name != "x"] + [["fc.weight", "fc.bias"]]
    for names in bars:
        scale, read, at_t0 = twin_pcm.weight_scale([a[n] for n in names], model["g_max_us"]), {}, {}
        for n in names:
            target = twin_pcm.map_weights(a[n], scale, model["g_max_us"])
            g_prog = twin_pcm.as_array(twin_pcm.program, target, noise[f"program/{n}"], model=model)
            nu = twin_pcm.as_array(twin_pcm.drift_exponent, target, noise[f"drift/{n}"], model=model)
            out[f"g_prog_us/{n}"], out[f"nu/{n}"] = g_prog, nu
            drifted = twin_pcm.as_array(twin_pcm.drift, g_prog, nu, t_s=p["t_s"], model=model)
            read[n] = twin_pcm.as_array(twin_pcm.read, drifted, target, noise[f"read/{n}"], t_s=p["t_s"], model=model)
            if p["gdc"]:
                t_0_s = model["t_0_s"]
                at_t0[n] = twin_pcm.as_array(twin_pcm.read, g_prog, target, noise[f"read_t0/{n}"], t_s=t_0_s, model=model)
        for n in names:
            w = twin_pcm.unmap_weights(read[n], scale)
            if p["gdc"]:
                currents = [np.concatenate([g[m].reshape(2, -1) for m in names], 1) for g in (at_t0, read)]
                alpha = twin_pcm.gdc_factor(*currents, "device sum", model["g_max_us"])[()]
                w = twin_pcm.each(lambda v, alpha=alpha: v * alpha, w)
            out[f"weight/{n}"] = state[n] = w
    return out | {"logits": twin_net.resnet(a["x"], state, p["network"], False, p["eps"], {})}


def _inject_weight_noise(a, noise, p, u):
    return twin_pcm.add_weight_noise(a, noise, p["eta"])


def _clip_weights(a, _, p, u):
    return twin_pcm.clip_crossbar(a, p["alpha"])


def _sgd_step(a, _, p, u):
    settings = (p["learning_rate"], p["momentum"], p["weight_decay"], p["nesterov"])
    return dict(zip(("w", "velocity"), twin_pcm.sgd_step(a["w"], a["grad"], a.get("velocity"), *settings), strict=True))


def _draws(_, __, p, u):
    seed, name, n = p["seed"], p["name"], p["n"]
    z = twin_draws.standard_normal(seed, name, n)
    return {
        "raw": np.array(twin_draws.raw(seed, name, n), np.uint64),
        "uniform": np.array(twin_draws.uniform(seed, name, n)),
        "standard_normal": grid((n,), lambda i: Bounded(z[i], 0.0, u).rounded(DRAW)),
        "permutation": np.array(twin_draws.permutation(seed, name, n)),
        "integers": np.array(twin_draws.integers(seed, name, p["high"], n)),
    }


TWINS = {
    "conv2d": _conv2d,
    "conv2d_backward": _conv2d_backward,
    "batch_norm": _batch_norm,
    "batch_norm_backward": _batch_norm_backward,
    "batch_norm_train": _batch_norm_train,
    "batch_norm_train_backward": _batch_norm_train_backward,
    "relu": lambda a, _, p, u: {"y": twin_nn.relu(a["x"])},
    "relu_backward": _relu_backward,
    "linear": lambda a, _, p, u: {"y": twin_nn.linear(a["x"], a["w"], a["b"])},
    "linear_backward": _linear_backward,
    "global_avg_pool": lambda a, _, p, u: {"y": twin_nn.global_avg_pool(a["x"])},
    "global_avg_pool_backward": lambda a, _, p, u: {"dx": twin_nn.global_avg_pool_backward(a["dy"], a["x"].shape)},
    "max_pool2d": _pool,
    "max_pool2d_backward": _pool_backward,
    "softmax_cross_entropy": _cross_entropy,
    "softmax_cross_entropy_backward": _cross_entropy_backward,
    "basic_block": _basic_block,
    "basic_block_backward": _basic_block_backward,
    "resnet": _resnet,
    "resnet_backward": _resnet_backward,
    "adabs": _adabs,
    "map": _map,
    "program": _program,
    "drift_exponent": _drift_exponent,
    "drift": _drift,
    "read": _read,
    "gdc": _gdc,
    "dac": _convert,
    "adc": _convert,
    "crossbar_mvm": lambda a, _, p, u: {"y": twin_crossbar.multiply(a["x"], a["g_us"], p)},
    "chip": _chip,
    "inject_weight_noise": _inject_weight_noise,
    "clip_weights": _clip_weights,
    "sgd_step": _sgd_step,
    "draws": _draws,
}


def directional_derivative(op: str, output: str, inputs: dict, directions: dict, dy: np.ndarray, params: dict) -> float:
    """d/dh of sum(dy * output(inputs + h * directions)) at 0, by central differences with h = 10^-15 in 50 digits."""
    h, u = Decimal("1e-15"), ROUNDOFFS[0]

    def moved(sign):
        shifted = dict(inputs)
        for name, v in directions.items():
            by = lift(sign * v, u)
            shifted[name] = each(lambda a, b: Bounded(a.value + h * b.value, 0.0, u), lift(inputs[name], u), by)
        y = evaluate(op, shifted, {}, params, u)[output]
        return sum(Decimal(float(d)) * b.value for d, b in zip(np.ravel(dy), flat(y), strict=True))

    with localcontext(prec=DIGITS):
        return float((moved(1) - moved(-1)) / (2 * h))
