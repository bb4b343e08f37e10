"""A network on simulated phase-change memory: program it once, read it at any time.

    weights -> map -> G_target -> program(z) -> G_prog, nu -> drift(t) -> G_drift -> read(z) -> G(t) -> (gdc) -> unmap -> w(t)

Each arrow makes a new value. All draws are named after what they are for, so that any of them can be replayed.
"""

from dataclasses import asdict, dataclass, replace

import numpy as np

from pcmref import draws, store
from pcmref.errors import DeviceError, FileError, PcmrefError, SettingError, whole_number
from pcmref.pcm.gdc import factor, read_out
from pcmref.pcm.mapping import crossbars, map_weights, read_only, unmap_weights, weight_scale
from pcmref.pcm.model import PCMModel
from pcmref.threads import map_chunks


@dataclass(frozen=True)
class Chip:
    """A programmed chip: conductances float64 [2, *w.shape] by name, and the digital rest of the network in `state`.

    Its arrays are its own and read-only; what `read` returns is the caller's. Where the model has n > 1 devices a sign, those
    of the single devices (g_prog_us, nu) are [n, 2, *w.shape].

    >>> state = {"fc.weight": np.array([[0.5, -0.25]]), "fc.bias": np.array([0.1])}
    >>> chip = pcmref.Chip.program(state, pcmref.PCMModel.joshi2020())
    >>> chip.g_target_us["fc.weight"].tolist()
    [[[25.0, 0.0]], [[0.0, 12.5]]]
    """

    model: PCMModel
    seed: int
    state: dict[str, np.ndarray]
    scale: dict[str, float]  # uS per unit weight, by array; arrays of one crossbar share it
    g_target_us: dict[str, np.ndarray]
    g_prog_us: dict[str, np.ndarray]
    nu: dict[str, np.ndarray]

    def __post_init__(self):
        for part in ("state", "g_target_us", "g_prog_us", "nu"):
            object.__setattr__(self, part, {name: read_only(values) for name, values in getattr(self, part).items()})

    @classmethod
    def program(cls, state: dict, model: PCMModel, seed: int = 0, workers: int | None = None) -> "Chip":
        """Map and program every convolution, fc.weight and fc.bias (two devices a value) and draw their drift exponents.

        Draws `program/{name}` and `drift/{name}`, in the shape of the devices. DeviceError where a weight is not finite.

        >>> chip = pcmref.Chip.program({"fc.weight": np.array([[0.5, -0.25]])}, pcmref.PCMModel.joshi2020(), seed=0)
        >>> chip.g_prog_us["fc.weight"].round(3).tolist()
        [[[24.868, 0.0]], [[0.196, 12.93]]]
        """
        if not isinstance(model, PCMModel):
            raise SettingError(f"model must be a PCMModel, for example PCMModel.joshi2020(); got {model!r}")
        g_target_us, scale, shapes = _map(state, model)

        def devices(name):
            g = g_target_us[name]
            g_prog = model.program(g, draws.standard_normal(seed, f"program/{name}", shapes[name]))
            if any(model.stuck):
                g_prog = model.stick(g_prog, draws.uniform(seed, f"stuck/{name}", shapes[name]))
            if model.pair == "collapsed":  # only the net conductance is kept, and split again
                net = g_prog[0] - g_prog[1]
                g_prog = np.maximum(np.stack([net, -net]), 0)
            return g_prog, model.drift_exponent(g, draws.standard_normal(seed, f"drift/{name}", shapes[name]))

        made = dict(zip(g_target_us, map_chunks(devices, g_target_us, workers), strict=True))
        g_prog_us = {name: g_prog for name, (g_prog, _) in made.items()}
        nu = {name: exponents for name, (_, exponents) in made.items()}
        return cls(model, seed, state, scale, g_target_us, g_prog_us, nu)

    @property
    def n_devices(self) -> int:
        """Devices on the chip: two for every weight and bias, times the model's `devices_per_weight`.

        >>> pcmref.Chip.program(pcmref.ResNet.resnet8().init(), pcmref.PCMModel.joshi2020()).n_devices
        122100
        """
        return sum(g.size for g in self.g_prog_us.values())

    def drifted(self, name: str, t_s: float) -> tuple[np.ndarray, np.ndarray]:
        """(G_D(t), the conductance that Q_s depends on) of one array's devices, in uS."""
        g_drift_us = self.model.drift(self.g_prog_us[name], self.nu[name], t_s)
        if self.model.q_argument == "target":
            return g_drift_us, self.g_target_us[name]
        if self.model.q_argument == "programmed":
            return g_drift_us, self.g_prog_us[name]
        (names,) = (names for names in crossbars(self.state).values() if name in names)
        largest_us = max(self.g_prog_us[n].max() for n in names)  # mapped again by it, before drift (D4)
        return g_drift_us, self.g_prog_us[name] * (self.model.g_max_us / largest_us if largest_us > 0 else 1.0)

    def read_draws(self, name: str, t_s: float, read: int) -> np.ndarray:
        """z of one array's devices in the reading that `read` numbers."""
        return draws.standard_normal(self.seed, f"read/{read}/{float(t_s)!r}/{name}", self.nu[name].shape)

    def mean_us(self, name: str, g_us: np.ndarray) -> np.ndarray:
        """The mean over the devices of a sign, which is what a weight is: one array's devices -> [2, *w.shape]."""
        return g_us.mean(0) if g_us.ndim > self.g_target_us[name].ndim else g_us

    def at(self, t_s: float, read: int = 0, workers: int | None = None, periphery=None) -> "Reading":
        """Every device as read at t_s: the reading that `read` numbers, another number another, independent reading.

        Draws `read/{read}/{repr(float(t_s))}/{name}`, as many as devices. DeviceError before t_0.

        >>> chip = pcmref.Chip.program({"fc.weight": np.array([[0.5, -0.25]])}, pcmref.PCMModel.joshi2020(), seed=0)
        >>> chip.at(t_s=86_400.0).g_us["fc.weight"].round(3).tolist()
        [[[16.274, 0.0]], [[0.0, 8.359]]]
        """
        t_s, read = self.model.check_time(t_s), whole_number("read", read)

        def one(name):
            g_drift, of = self.drifted(name, t_s)
            return self.mean_us(name, self.model.read(g_drift, of, t_s, self.read_draws(name, t_s, read)))

        g_us = dict(zip(self.nu, map_chunks(one, self.nu, workers), strict=True))
        return Reading(self, t_s, read, g_us, periphery)

    def baseline(self, read: int = 0, workers: int | None = None, periphery=None) -> "Reading":
        """What GDC's I(t_0) is taken of: a reading at t_0, or the programmed or the target conductances, as the model says."""
        if self.model.gdc_baseline == "read":
            return self.at(self.model.t_0_s, read, workers, periphery)
        of = self.g_prog_us if self.model.gdc_baseline == "programmed" else self.g_target_us
        g_us = {name: self.mean_us(name, g) for name, g in of.items()}
        return Reading(self, self.model.t_0_s, read, g_us, periphery)

    def gdc_factors(self, t_s: float, read: int = 0, workers: int | None = None) -> dict:
        """{crossbar: alpha = I(t_0)/I(t)} of one reading; DeviceError before t_0.

        >>> state = {"fc.weight": pcmref.draws.standard_normal(0, "w", (10, 56))}
        >>> chip = pcmref.Chip.program(state, pcmref.PCMModel.joshi2020(), seed=0)
        >>> round(chip.gdc_factors(t_s=86_400.0)["fc.weight"], 3)
        1.53
        """
        return self.at(t_s, read, workers).compensated(workers=workers).factors

    def read(self, t_s: float, read: int = 0, gdc: bool = False, workers: int | None = None) -> dict[str, np.ndarray]:
        """The network's state as the chip holds it t_s seconds after programming, ready for `forward`.

        `read` numbers the reading, `gdc` applies global drift compensation. DeviceError before t_0.

        >>> chip = pcmref.Chip.program({"fc.weight": np.array([[0.5, -0.25]])}, pcmref.PCMModel.joshi2020(), seed=0)
        >>> chip.read(t_s=86_400.0)["fc.weight"].round(3).tolist()
        [[0.325, -0.167]]
        >>> chip.read(t_s=86_400.0, gdc=True)["fc.weight"].round(3).tolist()
        [[0.503, -0.259]]
        """
        reading = self.at(t_s, read, workers)
        return (reading.compensated(workers=workers) if gdc else reading).state()

    def save(self, path) -> None:
        """Write the chip to an HDF5 file, atomically; targets and scales follow from the state and are not stored."""
        arrays = {f"state/{name}": value for name, value in self.state.items()}
        arrays |= {f"g_prog_us/{name}": value for name, value in self.g_prog_us.items()}
        arrays |= {f"nu/{name}": value for name, value in self.nu.items()}
        store.write(path, "chip", {"model": asdict(self.model), "seed": int(self.seed)}, arrays)

    @classmethod
    def load(cls, path) -> "Chip":
        """A chip from a file that `save` wrote; FileError names what does not fit."""
        meta, arrays = store.read(path, "chip")
        parts = {part: {} for part in ("state", "g_prog_us", "nu")}
        for name, value in arrays.items():
            part, _, rest = name.partition("/")
            kind = value.dtype.kind if part == "state" else str(value.dtype)
            if part not in parts or kind not in ("f", "i", "u", "float64") or not np.isfinite(value).all():
                raise FileError(f"{path}: unexpected array {name!r}, or one that holds other than finite numbers")
            parts[part][rest] = value
        try:
            values = {k: tuple(v) if isinstance(v, list) else v for k, v in meta["model"].items()}
            model, seed = PCMModel(**values), meta["seed"]
            g_target_us, scale, wanted = _map(parts["state"], model)
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError, PcmrefError) as error:
            raise FileError(f"{path}: does not describe a chip: {error}") from error
        for part in ("g_prog_us", "nu"):
            shapes = {name: value.shape for name, value in parts[part].items()}
            if shapes != wanted:
                raise FileError(f"{path}: the arrays under {part!r} do not fit the weights under 'state'")
        possible = all(((g >= 0) & (g <= 100 * model.g_max_us)).all() for g in parts["g_prog_us"].values())
        if isinstance(seed, bool) or not isinstance(seed, int) or not possible:
            raise FileError(f"{path}: the seed must be a whole number, every conductance in 0..{100 * model.g_max_us} uS")
        return cls(model, seed, parts["state"], scale, g_target_us, parts["g_prog_us"], parts["nu"])


@dataclass(frozen=True)
class Reading:
    """A chip as read once: g_us {name: [2, *w.shape]} in uS, and GDC's factors {crossbar: alpha} once compensated.

    `periphery` (a `crossbar.Periphery`) puts tiles and converters around the devices; None computes with the weights as read.
    """

    chip: Chip
    t_s: float
    read: int
    g_us: dict[str, np.ndarray]
    periphery: object = None
    factors: dict | None = None

    def __post_init__(self):
        object.__setattr__(self, "g_us", {name: read_only(values) for name, values in self.g_us.items()})

    def currents(self) -> dict:
        """{crossbar: the read-out current, as the model's GDC measures it: a number, or [O] where it reads per column}."""
        if self.periphery is not None:
            return self.periphery.currents(self)
        kind, g_max_us = self.chip.model.gdc_read_out, self.chip.model.g_max_us
        bars = crossbars(self.chip.state)
        return {bar: read_out([self.g_us[n] for n in names], g_max_us, kind) for bar, names in bars.items()}

    def compensated(self, baseline: "Reading | None" = None, workers: int | None = None) -> "Reading":
        """The same reading with alpha = I(t_0)/I(t) on every crossbar; `baseline` is `chip.baseline(read)`, if at hand.

        I(t) is of these very conductances: the read noise that the network meets is in alpha too.

        >>> chip = pcmref.Chip.program({"fc.weight": np.array([[0.5, -0.25]])}, pcmref.PCMModel.joshi2020(), seed=0)
        >>> round(chip.at(t_s=86_400.0).compensated().factors["fc.weight"], 3)
        1.547
        """
        at_t0 = (baseline or self.chip.baseline(self.read, workers, self.periphery)).currents()
        return replace(self, factors={bar: factor(at_t0[bar], at_t) for bar, at_t in self.currents().items()})

    def state(self) -> dict:
        """The state with these conductances' weights, each crossbar times its factor; in the weights' own dtype."""
        if self.periphery is not None:
            return self.periphery.state(self)
        state = {name: np.array(values) for name, values in self.chip.state.items()}
        for bar, names in crossbars(state).items():
            alpha = 1.0 if self.factors is None else self.factors[bar]
            for name in names:
                w = unmap_weights(self.g_us[name], self.chip.scale[name])
                w = (alpha * w.T).T  # .T: alpha is a number, or [O] for the outputs, axis 0 of w
                state[name] = w.astype(np.asarray(state[name]).dtype)
        return state


def _map(state: dict, model: PCMModel) -> tuple[dict[str, np.ndarray], dict[str, float], dict[str, tuple]]:
    """(g_target_us, scale, shape of its devices) of every array on a crossbar, the arrays of one crossbar with one scale."""
    g_target_us, scale, shapes = {}, {}, {}
    bars, several = crossbars(state), model.devices_per_weight
    unknown = set() if isinstance(several, int) else set(several) - set(bars)
    if unknown:
        raise SettingError(f"devices_per_weight names {sorted(unknown)}; this network's crossbars are {list(bars)}")
    window_us = model.g_max_us - model.g_min_us  # weights lie above the lowest conductance, which cancels in a pair
    for bar, names in bars.items():
        for name in names:
            if not np.isfinite(state[name]).all():
                raise DeviceError(f"{name!r} holds NaN or infinity; nothing can be programmed")
        shared = weight_scale(max(float(np.abs(state[name]).max()) for name in names), window_us)
        for name in names:
            g_us, scale[name] = map_weights(state[name], window_us, shared)
            g_target_us[name] = g_us + model.g_min_us
            n = model.devices_of(bar)
            shapes[name] = g_us.shape if n == 1 else (n, *g_us.shape)
    return g_target_us, scale, shapes
