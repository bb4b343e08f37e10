"""How often the intervals of `pcmref device fit` hold the constants that measurements were drawn from: into fits.md.

python -m validation.experiments.fit_coverage [--models 40]

Each model has constants of its own, drawn at random; 11 levels of 1,000 devices are read twice at each of four times. A run
goes on from what results/fit-coverage.json has; half a minute of a core a model.
"""

import argparse
import json
from dataclasses import replace
from pathlib import Path

import numpy as np

from pcmref import PCMModel, draws, store
from pcmref.experiments import tables
from pcmref.pcm.fit import Readings, fit_device

VALIDATION = Path(__file__).parents[1]
KEPT, DOCUMENT = VALIDATION / "results" / "fit-coverage.json", VALIDATION / "fits.md"
BASE = PCMModel.joshi2020()
TARGETS_US, DEVICES = np.linspace(0, 25, 11), 1_000
TIMES_S, READS = (20.0, 3_600.0, 86_400.0, 2_592_000.0), 2
LEVEL = 0.95


def model_of(seed: int) -> PCMModel:
    """A device whose laws reach both of their bounds between the lowest and the highest target."""
    u = iter(draws.uniform(seed, "model", (24,)))

    def between(low: float, high: float) -> float:
        return float(low + (high - low) * next(u))

    def line(low: float, high: float) -> tuple[float, float]:
        first, last = np.exp(between(np.log(0.005), np.log(0.03))), between(0.25, 0.7)
        slope = float((low - high) / np.log(last / first))
        return slope, float(high - slope * np.log(first))

    means, spreads = (
        (low, low + between(*range_))
        for low, range_ in ((between(0.03, 0.06), (0.03, 0.07)), (between(0.006, 0.012), (0.02, 0.04)))
    )
    rise = between(1.0, 2.5)
    return replace(
        BASE,
        programming=(between(0.15, 0.4), rise, -between(0.3, 0.55) * rise),
        nu_mean_range=means,
        nu_mean_line=line(*means),
        nu_std_range=spreads,
        nu_std_line=line(*spreads),
        q_factor=between(0.006, 0.012),
        q_exponent=-between(0.4, 0.8),
        q_max=between(0.1, 0.25),
    )


def measured(model: PCMModel, seed: int) -> Readings:
    """The readings of all devices of a model: [devices, times * reads]."""
    target_us = np.repeat(TARGETS_US, DEVICES)
    g_prog_us = model.program(target_us, draws.standard_normal(seed, "measured/program", target_us.shape))
    nu = model.drift_exponent(target_us, draws.standard_normal(seed, "measured/drift", target_us.shape))
    z = draws.standard_normal(seed, "measured/read", (len(TIMES_S), READS, len(target_us)))
    g_us = [model.read(model.drift(g_prog_us, nu, t_s), target_us, t_s, z_t) for t_s, z_t in zip(TIMES_S, z, strict=True)]
    t_s = np.repeat(TIMES_S, READS)
    return Readings(target_us, np.tile(t_s, (len(target_us), 1)), np.concatenate(g_us).T)


def held(seed: int) -> dict[str, bool]:
    """{constant: whether its interval holds the truth} of one model."""
    model = model_of(seed)
    out = {}
    for e in fit_device(measured(model, seed), BASE, "fitted").estimates:
        truth = np.pad(np.atleast_1d(getattr(model, e.constant)), (0, 4))[e.index or 0]
        if e.low is not None:
            out[f"{e.constant}[{e.index}]" if e.index is not None else e.constant] = bool(e.low <= truth <= e.high)
    return out


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=int, default=40, help="default: %(default)s")
    models = parser.parse_args().models
    kept = json.loads(KEPT.read_text()) if KEPT.is_file() else {}
    for seed in range(models):
        if str(seed) not in kept:
            kept[str(seed)] = held(seed)
            store.write_text(KEPT, "{\n" + ",\n".join(f"{json.dumps(k)}: {json.dumps(v)}" for k, v in kept.items()) + "\n}\n")
            print(seed, kept[str(seed)], flush=True)
    names = sorted({name for model in kept.values() for name in model})
    lines = [["constant", f"held by its interval of {100 * LEVEL:g} %", "models"]]
    for name in names:
        told = [model[name] for model in kept.values() if name in model]
        lines.append([f"`{name}`", f"{100 * np.mean(told):.0f} %", str(len(told))])
    every = [value for model in kept.values() for value in model.values()]
    lines.append(["all", f"{100 * np.mean(every):.1f} %", str(len(every))])
    tables.fill(DOCUMENT, {"coverage": tables.markdown(lines)})
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
