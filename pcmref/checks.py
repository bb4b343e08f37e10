"""Checks for anyone's functions: a linear map against its adjoint, a gradient against differences, draws against a law.

Each raises AssertionError that says where, what was got and what was wanted. scipy.stats is imported when used.
"""

from collections.abc import Callable

import numpy as np


def check_adjoint(forward: Callable, adjoint: Callable, x, dy, scale: float | None = None) -> None:
    """<forward(x), dy> = <x, adjoint(dy)> for a linear map and its adjoint, within rounding of x's dtype.

    Both inner products and both maps add up at most n = size of x and dy terms, so they differ by at most
    4 n u * scale, scale = sum |A| |x| |dy|. Where the caller does not know scale, the product of norms stands for it, which
    holds for maps that do not cancel (every output near the norm of its row).
    """
    x, dy = np.asarray(x), np.asarray(dy)
    y, dx = np.asarray(forward(x)), np.asarray(adjoint(dy))
    if y.shape != dy.shape or dx.shape != x.shape:
        raise AssertionError(f"forward gives {y.shape} for dy {dy.shape}, adjoint gives {dx.shape} for x {x.shape}")
    left, right = (float((a.astype(np.longdouble) * b).sum()) for a, b in ((y, dy), (x, dx)))
    if scale is None:
        norms = [float(np.hypot.reduce(np.ravel(a).astype(np.float64))) for a in (y, dy, x, dx)]  # squares may overflow
        scale = norms[0] * norms[1] + norms[2] * norms[3]
    bound = 4 * (x.size + dy.size) * float(np.finfo(np.result_type(y, dx)).eps) / 2 * scale
    if not abs(left - right) <= bound < np.inf:
        raise AssertionError(f"<forward(x), dy> = {left!r} but <x, adjoint(dy)> = {right!r}; the bound is {bound:.3g}")


def check_gradient(function: Callable, gradient, x, directions: int = 8, step: float = 2.0**-10) -> None:
    """The gradient of a scalar function at x against central differences along axes and mixed directions.

    D(h) = (f(x + h v) - f(x - h v)) / 2h at h and h/2, extrapolated once (Richardson); its error is taken as the change that
    the extrapolation makes, plus rounding: 4 u max|f| / h, and 32 s/h for f's terms, which may be larger than f, and x + h v.
    s is the standard deviation of f's rounding, estimated from values close by as Moré & Wild (2011) propose; D has some 2 s/h
    of it, and the estimate may be several times too low. x should be float64 or longdouble. Where x has few entries each is
    checked by itself, so that the message can name it.
    """
    x, gradient = np.asarray(x), np.asarray(gradient)
    if gradient.shape != x.shape:
        raise AssertionError(f"the gradient has shape {gradient.shape}, x has {x.shape}")
    u = float(np.finfo(x.dtype).eps) / 2
    axes = [np.eye(1, x.size, i).reshape(x.shape) for i in range(min(x.size, directions))]
    mixed = [np.cos((k + 1.0) * (1 + np.arange(x.size))).reshape(x.shape) for k in range(directions)]
    noise = _rounding(function, x, mixed[0], step)
    for what, v in [(f"[{_index(i, x.shape)}]", v) for i, v in enumerate(axes)] + [
        (f" along direction {k}", v) for k, v in enumerate(mixed)
    ]:
        coarse, top = _difference(function, x, v, step)
        fine, _ = _difference(function, x, v, step / 2)
        wanted = (4 * fine - coarse) / 3
        bound = abs(fine - coarse) + (8 * u * top + 32 * noise) / step + 4 * u * float(np.abs(gradient * v).sum())
        got = (gradient * v).sum()
        if not abs(got - wanted) <= bound < np.inf:
            got, wanted = float(got), float(wanted)
            raise AssertionError(f"gradient{what} = {got!r} but differences give {wanted!r}; the bound is {bound:.3g}")


def _index(i: int, shape) -> str:
    return ", ".join(str(int(k)) for k in np.unravel_index(i, shape))


def _difference(function, x, v, h):
    """(D(h), the largest |f|), both in x's dtype."""
    h = x.dtype.type(h)
    v = v.astype(x.dtype)
    above, below = (x.dtype.type(function(moved)) for moved in (x + h * v, x - h * v))
    return (above - below) / (2 * h), max(abs(above), abs(below))


def _rounding(function, x, v, h, n: int = 20):
    """Standard deviation of the rounding of f(x + h v): what a cubic leaves of n values close by.

    They are irregularly spaced: the rounding of one sum at equal steps may itself be a straight line.
    """
    close = np.cos(np.arange(1.0, n + 1))
    values = [function(x + h * (1 + float(t) / 8) * v.astype(x.dtype)) for t in close]
    changes, (cubics, _) = np.array([value - values[0] for value in values], np.float64), np.linalg.qr(np.vander(close, 4))
    return np.hypot.reduce(changes - cubics @ (cubics.T @ changes)) / np.sqrt(n - 4)  # whose squares may overflow


def check_distribution(samples, distribution: Callable, alpha: float = 1e-6, effect: float = 0.02, atoms=()) -> None:
    """Independent samples against a distribution function: the exact binomial test of each atom, Kolmogorov-Smirnov of all.

    The law is continuous but for `atoms`, values with a mass of their own, where the function jumps: (0.0,) for what is
    clipped at 0. Samples at an atom are spread over its jump, so that the functions differ there by no more than at its ends.
    alpha is the chance, at most, that samples of the right law fail. A distance of `effect` between the distribution functions
    must be found with 99 % power (Dvoretzky, Kiefer & Wolfowitz 1956): fewer samples are inconclusive, which fails too.
    """
    from scipy.stats import binomtest, kstest

    samples = np.ravel(np.asarray(samples, np.float64))
    alpha /= 1 + len(atoms)
    needed = int(np.ceil(((np.log(2 / alpha) / 2) ** 0.5 + (np.log(2 / 0.01) / 2) ** 0.5) ** 2 / effect**2))
    if len(samples) < needed:
        raise AssertionError(f"inconclusive: {len(samples)} samples, a distance of {effect} takes {needed} to show")
    if not np.isfinite(samples).all():
        raise AssertionError(f"sample[{int(np.argmin(np.isfinite(samples)))}] is not finite")
    samples = np.sort(samples)
    shares = np.array(distribution(samples), np.float64)
    for atom in atoms:
        ends, there = distribution(np.array([np.nextafter(atom, -np.inf), atom])), samples == atom
        mass, n = float(np.clip(np.nan_to_num(ends[1] - ends[0]), 0, 1)), int(there.sum())
        if (p := binomtest(n, len(samples), mass).pvalue) < alpha:
            raise AssertionError(f"{n} of {len(samples)} samples are {atom:.6g}, the law's share is {mass:.6g}, p = {p:.1e}")
        shares[there] = ends[0] + mass * (np.arange(n) + 0.5) / max(n, 1)
    test = kstest(shares, "uniform")
    if not test.pvalue >= alpha:
        where = samples[np.searchsorted(shares, test.statistic_location).clip(max=len(samples) - 1)]
        raise AssertionError(
            f"the samples do not follow the law: the distribution functions differ by {test.statistic:.4f} at "
            f"{where:.6g}, p = {test.pvalue:.1e} for {len(samples)} samples"
        )
