"""The device model and the steps of training, for the slow twin: scalar equations, element by element.

Every constant comes from the case, none is written here. Sources as in pcmref.pcm.model: [N] Nandakumar et al. 2019,
[T] aihwkit, [J] Joshi et al. 2020, [S] pcm-bitslicing. x = G / G_max; conductances in uS, times in seconds.
"""

import numpy as np

from pcmref.golden import twin
from pcmref.golden.twin import Bounded, constant, each, exact, is_wide, joined, largest, magnitude, smallest, sums


def _zero(u):
    return exact(0, u)


def _clip(v, low, high):
    return smallest(largest(v, low), high)


# ------------------------------------------------------------------------------------------------ mapping and reading


def peak(arrays):
    """max|W| over the arrays of a crossbar."""
    top = _zero(roundoff(arrays[0]))
    for w in arrays:
        for v in [magnitude(w).reshape(-1, 1).max(0)] if is_wide(w) else map(magnitude, twin.flat(w)):
            top = largest(top, v)
    return top


def weight_scale(arrays, g_max_us):
    """scale = G_max / max|W| over the arrays of a crossbar; 1 where all are 0."""
    top = peak(arrays)
    return twin.unless_zero(top, exact(1, top.u), lambda top: constant(g_max_us, top.u) / top)


def map_weights(w, scale, g_max_us):
    """G+ = clip(scale * w, 0, G_max), G- = clip(-scale * w, 0, G_max) [T]."""

    def device(v):
        return _clip(v * scale, _zero(v.u), constant(g_max_us, v.u))

    return joined([each(device, signed)[None] for signed in (w, -w)])


def unmap_weights(g_us, scale):
    """w = (G+ - G-) / scale."""
    return each(lambda plus, minus: (plus - minus) / scale, g_us[0], g_us[1])


# -------------------------------------------------------------------------------------------------------- one device


def _x(g_us: Bounded, model) -> Bounded:
    return g_us / constant(model["g_max_us"], g_us.u)


def programming_std_us(g_target_us: Bounded, model) -> Bounded:
    """sigma = max(c0 + c1 x + c2 x^2, 0) * G_max/25 [N] [T]."""
    u, x = g_target_us.u, _x(g_target_us, model)
    c0, c1, c2 = (constant(c, u) for c in model["programming_us"])
    sigma = largest(twin.total([c0, c1 * x, c2 * (x * x)]), _zero(u))
    return sigma * (constant(model["g_max_us"], u) / exact(25, u))


def program(g_target_us: Bounded, z: Bounded, model) -> Bounded:
    """G_P = max(G_T + sigma z, 0) [N] [T]."""
    return largest(g_target_us + programming_std_us(g_target_us, model) * z, _zero(z.u))


def _clipped_log_line(g_target_us: Bounded, line, bounds, model) -> Bounded:
    """clip(slope * ln x + intercept, low, high); the slopes are negative, so x = 0 ends at the upper bound."""
    low, high, slope, intercept = (constant(v, g_target_us.u) for v in (*bounds, *line))
    return twin.unless_zero(g_target_us, high, lambda g: _clip(slope * np.log(_x(g, model)) + intercept, low, high))


def drift_exponent_mean(g_target_us: Bounded, model) -> Bounded:
    """mu = clip(-0.0155 ln x + 0.0244, 0.049, 0.1) [N] [T]."""
    return _clipped_log_line(g_target_us, model["nu_mean_line"], model["nu_mean_range"], model)


def drift_exponent_std(g_target_us: Bounded, model) -> Bounded:
    """sigma = clip(-0.0125 ln x - 0.0059, 0.008, 0.045) [N] [T]."""
    return _clipped_log_line(g_target_us, model["nu_std_line"], model["nu_std_range"], model)


def drift_exponent(g_target_us: Bounded, z: Bounded, model) -> Bounded:
    """nu = mu + sigma z [N] [T]; folded: |nu| [T]; clamped: clip(nu, range of mu) [S]."""
    nu = drift_exponent_mean(g_target_us, model) + drift_exponent_std(g_target_us, model) * z
    if model["nu_law"] == "folded":
        return magnitude(nu)
    if model["nu_law"] == "clamped":
        return _clip(nu, *(constant(b, z.u) for b in model["nu_mean_range"]))
    return nu


def drift(g_prog_us: Bounded, nu: Bounded, t_s, model) -> Bounded:
    """G_D = G_P (t/t_0)^-nu [N] [T]."""
    u = nu.u
    return g_prog_us * twin.power(constant(t_s, u) / constant(model["t_0_s"], u), -nu)


def read_noise_q(g_us: Bounded, model) -> Bounded:
    """Q_s = min(0.0088 / x^0.65, 0.2) [N] [T]; 0.2 at x = 0."""
    cap, factor, exponent = (constant(model[name], g_us.u) for name in ("q_max", "q_factor", "q_exponent"))
    return twin.unless_zero(g_us, cap, lambda g: smallest(factor * twin.power(_x(g, model), exponent), cap))


def read_noise_std_us(g_drift_us: Bounded, g_target_us: Bounded, t_s, model) -> Bounded:
    """sigma = G_D Q_s sqrt(ln((t + t_r)/(2 t_r))) [N] [T]."""
    u = g_drift_us.u
    t, t_r = constant(t_s, u), constant(model["t_r_s"], u)
    band = ((t + t_r) / (t_r + t_r)).log().sqrt()
    return g_drift_us * read_noise_q(g_target_us, model) * band


def read(g_drift_us: Bounded, g_target_us: Bounded, z: Bounded, t_s, model) -> Bounded:
    """G = max(G_D + sigma z, 0) [N] [T]."""
    return largest(g_drift_us + read_noise_std_us(g_drift_us, g_target_us, t_s, model) * z, _zero(z.u))


# --------------------------------------------------------------------------------------------------- the whole crossbar


def gdc_factor(g_t0_us, g_t_us, read_out, g_max_us):
    """alpha = I(t_0)/I(t), [] or [O]: the read-outs of D10; 1 where no current flows at t. g_us [2, O, ...].

    "device sum": sum(G+ + G-). "ones": |sum(G+ - G-)|. "one-hot": mean|G+ - G-|, not below 1e-4 G_max; "per column" the same
    for each output.
    """
    u = roundoff(g_t_us)
    floor = constant("0.0001", u) * constant(g_max_us, u)

    def currents(g_us):
        plus, minus = (g[None] for g in g_us)
        if read_out == "device sum":
            return sums(joined([plus, minus], 1))
        if read_out == "ones":
            return each(magnitude, sums(joined([plus, -minus], 1)))
        net = each(lambda plus, minus: magnitude(plus - minus), plus, minus)[0 if read_out == "per column" else ...]
        return each(lambda s: largest(s / exact(net[0].size, u), floor), sums(net))

    alpha = each(lambda i, now: twin.unless_zero(now, exact(1, u), lambda now: i / now), currents(g_t0_us), currents(g_t_us))
    return alpha if read_out == "per column" else alpha.reshape(())


def add_weight_noise(crossbar, z, eta):
    """W + eta max|W| z on every array of a crossbar [J], details recalled (C)."""
    top = peak(list(crossbar.values()))
    sigma = constant(eta, top.u) * top
    return {name: each(lambda v, d: v + sigma * d, w, z[name]) for name, w in crossbar.items()}


def clip_crossbar(crossbar, alpha):
    """clip(W, -alpha sigma_W, alpha sigma_W), sigma_W the population standard deviation over the crossbar (D19)."""
    values = joined([w.reshape(-1) for w in crossbar.values()])
    u = roundoff(values)

    def mean(v):
        return twin.entry(sums(v[None]).reshape(())) / exact(len(values), u)

    centre = mean(values)
    variance = mean(each(lambda v: (v - centre) * (v - centre), values))
    limit = constant(alpha, u) * twin.unless_zero(variance, _zero(u), np.sqrt)
    return {name: each(lambda v: _clip(v, -limit, limit), w) for name, w in crossbar.items()}


def roundoff(a: np.ndarray) -> float:
    """The unit roundoff that an array's bounds hold for."""
    return a.u if is_wide(a) else a.flat[0].u


def as_array(function, *arrays, **settings) -> np.ndarray:
    """A device equation over arrays."""
    return each(lambda *entries: function(*entries, **settings), *arrays)
