"""The device, the steps of training and the draws once more, for the expected values: this shares no code with the package.

The equations run on arrays of numbers that carry a bound (`numbers`). Every constant comes from the case, none is written here.
Sources as in pcmref.pcm.model: [N] Nandakumar et al. 2019, [T] aihwkit, [J] Joshi et al. 2020, [S] pcm-bitslicing.
x = G / G_max; conductances in uS, times in seconds.
"""

import hashlib
from decimal import ROUND_HALF_EVEN, ROUND_HALF_UP, Decimal
from functools import reduce
from statistics import NormalDist

import numpy as np

from pcmref.golden.numbers import Numbers, Precision, TooCoarse, is_narrow

DRAW = 8  # roundings in a standard-normal draw that the backend makes itself: 4 ulp
SOLVED = 300  # draws to 30 digits; later ones may be off by DRAW roundings of float64
_FLOAT32 = 2.0**-24
_MASK = (1 << 64) - 1
_PI = Decimal("3.14159265358979323846264338327950288419716939937511")


def _rounded(like: Numbers, *values) -> list[Numbers]:
    """Constants, in decimals, that a backend rounds to its precision."""
    carrier = Precision.decimal(like.precision.u)
    return [Numbers.of(+carrier.carried(v), carrier, roundings=1) for v in values]


def _clip(v, low, high):
    return np.minimum(np.maximum(v, low), high)


def _unless_zero(a, at_zero, function):
    """function(a), but at_zero where a is 0."""
    is_other = a.value != 0
    return np.where(is_other, function(np.where(is_other, a, 1)), at_zero)


def _power(x, exponent):
    """x^y as e^(y ln x); a library's own power is at least as good."""
    return np.exp(np.log(x) * exponent)


# ------------------------------------------------------------------------------------------------ mapping and reading


def peak(arrays):
    """max|W| over the arrays of a crossbar."""
    return reduce(np.maximum, (np.abs(w).max() for w in arrays))


def weight_scale(arrays, g_max_us):
    """scale = G_max / max|W| over the arrays of a crossbar; 1 where all are 0."""
    (g_max,) = _rounded(arrays[0], g_max_us)
    return _unless_zero(peak(arrays), 1, lambda top: g_max / top)


def map_weights(w, scale, g_max_us):
    """G+ = clip(scale * w, 0, G_max), G- = clip(-scale * w, 0, G_max) [T]."""
    (g_max,) = _rounded(w, g_max_us)
    return np.stack([_clip(signed * scale, 0, g_max) for signed in (w, -w)])


def unmap_weights(g_us, scale):
    """w = (G+ - G-) / scale."""
    return (g_us[0] - g_us[1]) / scale


# -------------------------------------------------------------------------------------------------------- one device


def _x(g_us, model):
    (g_max,) = _rounded(g_us, model["g_max_us"])
    return g_us / g_max


def programming_std_us(g_target_us, model):
    """sigma = max(c0 + c1 x + c2 x^2, 0) * G_max/25 [N] [T]."""
    x, (c0, c1, c2, g_max) = _x(g_target_us, model), _rounded(g_target_us, *model["programming_us"], model["g_max_us"])
    return np.maximum(c0 + c1 * x + c2 * (x * x), 0) * (g_max / 25)


def program(g_target_us, z, model):
    """G_P = max(G_T + sigma z, 0) [N] [T]."""
    return np.maximum(g_target_us + programming_std_us(g_target_us, model) * z, 0)


def _clipped_log_line(g_target_us, line, bounds, model):
    """clip(slope * ln x + intercept, low, high); the slopes are negative, so x = 0 ends at the upper bound."""
    low, high, slope, intercept = _rounded(g_target_us, *bounds, *line)
    return _unless_zero(g_target_us, high, lambda g: _clip(slope * np.log(_x(g, model)) + intercept, low, high))


def drift_exponent_mean(g_target_us, model):
    """mu = clip(-0.0155 ln x + 0.0244, 0.049, 0.1) [N] [T]."""
    return _clipped_log_line(g_target_us, model["nu_mean_line"], model["nu_mean_range"], model)


def drift_exponent_std(g_target_us, model):
    """sigma = clip(-0.0125 ln x - 0.0059, 0.008, 0.045) [N] [T]."""
    return _clipped_log_line(g_target_us, model["nu_std_line"], model["nu_std_range"], model)


def drift_exponent(g_target_us, z, model):
    """nu = mu + sigma z [N] [T]; folded: |nu| [T]; clamped: clip(nu, range of mu) [S]."""
    nu = drift_exponent_mean(g_target_us, model) + drift_exponent_std(g_target_us, model) * z
    if model["nu_law"] == "folded":
        return np.abs(nu)
    return _clip(nu, *_rounded(z, *model["nu_mean_range"])) if model["nu_law"] == "clamped" else nu


def drift(g_prog_us, nu, t_s, model):
    """G_D = G_P (t/t_0)^-nu [N] [T]."""
    t, t_0 = _rounded(nu, t_s, model["t_0_s"])
    return g_prog_us * _power(t / t_0, -nu)


def read_noise_q(g_us, model):
    """Q_s = min(0.0088 / x^0.65, 0.2) [N] [T]; 0.2 at x = 0."""
    cap, factor, exponent = _rounded(g_us, *(model[name] for name in ("q_max", "q_factor", "q_exponent")))
    return _unless_zero(g_us, cap, lambda g: np.minimum(factor * _power(_x(g, model), exponent), cap))


def read_noise_std_us(g_drift_us, g_target_us, t_s, model):
    """sigma = G_D Q_s sqrt(ln((t + t_r)/(2 t_r))) [N] [T]."""
    t, t_r = _rounded(g_drift_us, t_s, model["t_r_s"])
    return g_drift_us * read_noise_q(g_target_us, model) * np.sqrt(np.log((t + t_r) / (t_r + t_r)))


def read(g_drift_us, g_target_us, z, t_s, model):
    """G = max(G_D + sigma z, 0) [N] [T]."""
    return np.maximum(g_drift_us + read_noise_std_us(g_drift_us, g_target_us, t_s, model) * z, 0)


# --------------------------------------------------------------------------------------------------- the whole crossbar


def gdc_factor(g_t0_us, g_t_us, read_out, g_max_us):
    """alpha = I(t_0)/I(t), [] or [O]: the read-outs of D10; 1 where no current flows at t. g_us [2, O, ...].

    "device sum": sum(G+ + G-). "ones": |sum(G+ - G-)|. "one-hot": mean|G+ - G-|, not below 1e-4 G_max; "per column" the same
    for each output.
    """

    def current(g_us):
        if read_out == "device sum":
            return g_us.sum()
        if read_out == "ones":
            return np.abs((g_us[0] - g_us[1]).sum())
        net, (g_max,) = np.abs(g_us[0] - g_us[1]), _rounded(g_us, g_max_us)
        net = net.reshape(len(net) if read_out == "per column" else 1, -1)  # [O or 1, all else]
        mean = np.maximum(net.sum(1) / net.shape[1], g_max / 10_000)
        return mean if read_out == "per column" else mean.reshape(())

    return _unless_zero(current(g_t_us), 1, lambda now: current(g_t0_us) / now)


def add_weight_noise(crossbar, z, eta):
    """W + eta max|W| z on every array of a crossbar [J], details recalled (C)."""
    top = peak(list(crossbar.values()))
    (factor,) = _rounded(top, eta)
    return {name: w + factor * top * z[name] for name, w in crossbar.items()}


def clip_crossbar(crossbar, alpha):
    """clip(W, -alpha sigma_W, alpha sigma_W), sigma_W the population standard deviation over the crossbar (D19)."""
    values = np.concatenate([w.reshape(-1) for w in crossbar.values()])
    variance = np.square(values - values.sum() / len(values)).sum() / len(values)
    (factor,) = _rounded(values, alpha)
    limit = factor * _unless_zero(variance, 0, np.sqrt)
    return {name: _clip(w, -limit, limit) for name, w in crossbar.items()}


# ------------------------------------------------------------------------------------------------ converters and tiles


def _tidy(result, *operands):
    """The result without error where the operands have none and every dtype holds it."""
    nearest = result.nearest()
    held = is_narrow(nearest) & (result.value == nearest) & (sum(v.close().error for v in operands) == 0)
    return np.where(~held, result, Numbers.of(nearest, result.precision))


def convert(x, converter: dict):
    """(q, the other right value, NaN where there is none): q = origin + step round((x - origin)/step), within -limit..limit.

    x or q is clipped. Where a value lies so near the middle of two codes that float32 cannot decide, either code is right. A
    value exactly in the middle, when every step to it is exact, obeys the converter's rule for ties.
    """
    limit = Numbers.of(converter["limit"], x.precision, roundings=~is_narrow(converter["limit"]))
    step = _tidy((limit + limit) / converter["steps"], limit)
    clip_first, from_end = converter["order"] == "clip first", converter["origin"] != "zero"
    x = _clip(x, -limit, limit) if clip_first else x
    x = _tidy(x + limit, x, limit) if from_end else x
    codes = _tidy(x / step, x, step).close()
    rule = ROUND_HALF_EVEN if converter["rounding"] == "half-even" else ROUND_HALF_UP  # HALF_UP is away from zero
    nearest = np.frompyfunc(lambda code: code.to_integral_value(rule), 1, 1)(codes.value)
    offset = codes.value - nearest
    to_middle = np.asarray(Decimal("0.5") - np.abs(offset), float)
    is_open = (codes.error > 0) & (to_middle <= codes.error * x.precision.u)
    if is_open.any() and x.precision.u > _FLOAT32:
        raise TooCoarse

    def value(code):
        scaled = _tidy(step * Numbers.of(code, x.precision), step)
        q = _tidy(scaled - limit, limit, scaled) if from_end else scaled
        return q if clip_first else _clip(q, -limit, limit)

    other = value(nearest + np.where(offset > 0, 1, -1)).nearest()
    return value(nearest), np.where(is_open, other, np.nan)


def decided(x, converter: dict | None):
    """The converted values (x itself without a converter); TooCoarse where two codes are right."""
    q, other = (x, np.nan) if converter is None else convert(x, converter)
    if not np.isnan(other).all():
        raise TooCoarse
    return q


def multiply(x, g_us, p: dict):
    """y[n,o] = alpha max|x| sum over tiles of ADC(sum_k DAC(x/max|x|) (G+ - G-) / G_max) G_max/scale.

    x [N, K], g_us [2, K, O] -> y [N, O].
    """
    top = np.abs(x).max(1, keepdims=True)
    top = np.where(top.value != 0, top, 1)
    v, (g_max, scale, alpha) = decided(x / top, p["dac"]), _rounded(x, p["g_max_us"], p["scale"], p["alpha"])
    tiles = [np.s_[k : k + p["tile"][0]] for k in range(0, x.shape[1], p["tile"][0])]
    currents = [v[:, tile] @ g_us[0, tile] - v[:, tile] @ g_us[1, tile] for tile in tiles]
    parts = [decided(i / g_max, p["adc"]) * (g_max / scale) for i in currents]
    return sum(parts).close() * top * alpha


# -------------------------------------------------------------------------------------------------------------- draws


def raw(seed: int, name: str, n: int) -> list[int]:
    """The first n words of a stream: block counters 1, 2, ..., words 0 to 3 of each; the key is 16 bytes of SHA-256."""
    digest = hashlib.sha256(f"pcmref/1/{seed}/{name}".encode()).digest()
    key = [int.from_bytes(digest[i : i + 8], "little") for i in (0, 8)]
    return [word for counter in range(1, -(-n // 4) + 1) for word in _block(counter, key)][:n]


def _block(counter: int, k: list[int]) -> list[int]:
    """Philox-4x64-10 (Salmon, Moraes, Dror & Shaw, SC 2011, section 3.3)."""
    c = [counter, 0, 0, 0]
    for _ in range(10):
        a, b = c[0] * 0xD2E7470EE14C6C93, c[2] * 0xCA5A826395121157
        c = [(b >> 64) ^ c[1] ^ k[0], b & _MASK, (a >> 64) ^ c[3] ^ k[1], a & _MASK]
        k = [(k[0] + 0x9E3779B97F4A7C15) & _MASK, (k[1] + 0xBB67AE8584CAA73B) & _MASK]
    return c


def uniform(words: list[int]) -> list[float]:
    """u = ((raw >> 12) + 1/2) * 2^-52, exact in float64."""
    return [(2 * (word >> 12) + 1) * 2.0**-53 for word in words]


def _density(z: Decimal) -> Decimal:
    return (-z * z / 2).exp() / (2 * _PI).sqrt()


def _distribution(z: Decimal) -> Decimal:
    """Phi(z) = 1/2 + phi(z) (z + z^3/3 + z^5/(3*5) + ...)."""
    term = total = z
    k = 1
    while abs(term) > abs(total) * Decimal("1e-48"):
        k += 2
        term *= z * z / k
        total += term
    return Decimal("0.5") + _density(z) * total


def standard_normal(words: list[int]) -> list[Decimal]:
    """z with Phi(z) = u: of the first SOLVED words to 30 digits, by Newton's method; of more as Python has it."""
    solved = [Decimal(NormalDist().inv_cdf(u)) for u in uniform(words)]
    for i, u in enumerate(uniform(words[:SOLVED])):
        for _ in range(2):
            solved[i] -= (_distribution(solved[i]) - Decimal(u)) / _density(solved[i])
    return solved


def permutation(words: list[int]) -> list[int]:
    """The stable argsort of the uniforms."""
    return sorted(range(len(words)), key=uniform(words).__getitem__)


def integers(words: list[int], high: int) -> list[int]:
    """floor(u * high), the product rounded to float64."""
    return [int(u * high) for u in uniform(words)]


# ------------------------------------------------------------------------------------------------------- by operation


def _map(a, _, p, __):
    scale = weight_scale([a["w"]], p["g_max_us"])
    return {"g_us": map_weights(a["w"], scale, p["g_max_us"]), "scale": scale}


def _convert(a, _, p, __):
    q, other = convert(a["x"], p["converter"])
    return {"q": q, "kink/q": other}


def _chip(a, noise, p, _):
    """Map, program, drift and read every crossbar, GDC if asked: the weights as read."""
    model, out = p["model"], {}
    bars = [[name] for name in a if a[name].ndim == 4 and name != "x"] + [["fc.weight", "fc.bias"]]
    for names in bars:
        scale, as_read, at_t0 = weight_scale([a[n] for n in names], model["g_max_us"]), {}, {}
        for n in names:
            target = map_weights(a[n], scale, model["g_max_us"])
            g_prog = out[f"g_prog_us/{n}"] = program(target, noise[f"program/{n}"], model)
            nu = out[f"nu/{n}"] = drift_exponent(target, noise[f"drift/{n}"], model)
            as_read[n] = read(drift(g_prog, nu, p["t_s"], model), target, noise[f"read/{n}"], p["t_s"], model)
            if p["gdc"]:
                at_t0[n] = read(g_prog, target, noise[f"read_t0/{n}"], model["t_0_s"], model)
        for n in names:
            out[f"weight/{n}"] = unmap_weights(as_read[n], scale)
            if p["gdc"]:
                currents = (np.concatenate([g[m].reshape(2, -1) for m in names], 1) for g in (at_t0, as_read))
                out[f"weight/{n}"] = out[f"weight/{n}"] * gdc_factor(*currents, "device sum", model["g_max_us"])
    return out


def _draws(_, __, p, precision):
    words = raw(p["seed"], p["name"], p["n"])
    z = np.array(standard_normal(words), object)
    return {
        "raw": np.array(words, np.uint64),
        "uniform": np.array(uniform(words)),
        "standard_normal": Numbers.of(z, precision, roundings=DRAW * (1 + (np.arange(len(z)) >= SOLVED))),
        "permutation": np.array(permutation(words)),
        "integers": np.array(integers(words, p["high"])),
    }


# {operation: its outputs of (arrays, noise, params, precision)}
TWINS = {
    "map": _map,
    "program": lambda a, noise, p, _: {"g_prog_us": program(**a, **noise, **p)},
    "drift_exponent": lambda a, noise, p, _: {"nu": drift_exponent(**a, **noise, **p)},
    "drift": lambda a, _, p, __: {"g_drift_us": drift(**a, **p)},
    "read": lambda a, noise, p, _: {"g_us": read(**a, **noise, **p)},
    "gdc": lambda a, _, p, __: {"alpha": gdc_factor(**a, **p)},
    "dac": _convert,
    "adc": _convert,
    "crossbar_mvm": lambda a, _, p, __: {"y": multiply(a["x"], a["g_us"], p)},
    "chip": _chip,
    "inject_weight_noise": lambda a, noise, p, _: add_weight_noise(a, noise, p["eta"]),
    "clip_weights": lambda a, _, p, __: clip_crossbar(a, **p),
    "draws": _draws,
}
IN_DECIMALS = ("dac", "adc", "crossbar_mvm", "draws")  # whatever carries the others: ties and 30 digits are decided in them
