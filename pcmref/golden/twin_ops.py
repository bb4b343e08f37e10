"""The twin by operation: what the device, the steps of training and the draws give, as bounded numbers."""

import numpy as np

from pcmref.golden import twin_crossbar, twin_draws, twin_pcm
from pcmref.golden.twin import DRAW, Bounded, entry, flat, grid, is_wide, joined


def _map(a, _, p, u):
    scale = twin_pcm.weight_scale([a["w"]], p["g_max_us"])
    number = scale.reshape(()) if is_wide(scale) else grid((), lambda: scale)
    return {"g_us": twin_pcm.map_weights(a["w"], scale, p["g_max_us"]), "scale": number}


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
    """Map, program, drift and read every crossbar, GDC if asked: the weights as read."""
    model, out = p["model"], {}
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
                currents = [joined([g[m].reshape(2, -1) for m in names], 1) for g in (at_t0, read)]
                alpha = entry(twin_pcm.gdc_factor(*currents, "device sum", model["g_max_us"]))
                w = twin_pcm.each(lambda v, alpha=alpha: v * alpha, w)
            out[f"weight/{n}"] = w
    return out


def _inject_weight_noise(a, noise, p, u):
    return twin_pcm.add_weight_noise(a, noise, p["eta"])


def _clip_weights(a, _, p, u):
    return twin_pcm.clip_crossbar(a, p["alpha"])


def _draws(_, __, p, u):
    words = twin_draws.raw(p["seed"], p["name"], p["n"])
    z = twin_draws.standard_normal(words)
    return {
        "raw": np.array(words, np.uint64),
        "uniform": np.array(twin_draws.uniform(words)),
        "standard_normal": grid((len(z),), lambda i: Bounded(z[i], 0.0, u).rounded(DRAW * (1 + (i >= twin_draws.SOLVED)))),
        "permutation": np.array(twin_draws.permutation(words)),
        "integers": np.array(twin_draws.integers(words, p["high"])),
    }


TWINS = {
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
    "draws": _draws,
}
ON_ARRAYS = TWINS.keys() - {"dac", "adc", "crossbar_mvm", "draws"}  # those that run on arrays of numbers too
