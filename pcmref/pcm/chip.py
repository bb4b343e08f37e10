"""A network on simulated phase-change memory: program it once, read it at any time.

    weights -> map -> G_target -> program(z) -> G_prog, nu -> drift(t) -> G_drift -> read(z) -> G(t) -> (gdc) -> unmap -> w(t)

Each arrow makes a new value. All draws are named after what they are for, so that any of them can be replayed.
"""

from dataclasses import asdict, dataclass

import numpy as np

from pcmref import draws, store
from pcmref.blocks import map_blocks
from pcmref.errors import DeviceError, FileError, PcmrefError, SettingError, whole_number
from pcmref.pcm import gdc
from pcmref.pcm.mapping import crossbars, map_weights, unmap_weights, weight_scale
from pcmref.pcm.model import PCMModel


@dataclass(frozen=True)
class Chip:
    """A programmed chip: conductances float64 [2, *w.shape] by name, and the digital rest of the network in `state`.

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

    @classmethod
    def program(cls, state: dict, model: PCMModel, seed: int = 0, workers: int | None = None) -> "Chip":
        """Map and program every convolution, fc.weight and fc.bias (two devices a value) and draw their drift exponents.

        Draws `program/{name}` and `drift/{name}`, shape [2, *w.shape]. DeviceError where a weight is not finite.

        >>> chip = pcmref.Chip.program({"fc.weight": np.array([[0.5, -0.25]])}, pcmref.PCMModel.joshi2020(), seed=0)
        >>> chip.g_prog_us["fc.weight"].round(3).tolist()
        [[[24.868, 0.0]], [[0.196, 12.93]]]
        """
        if not isinstance(model, PCMModel):
            raise SettingError(f"model must be a PCMModel, for example PCMModel.joshi2020(); got {model!r}")
        g_target_us, scale = _map(state, model)

        def devices(name):
            g = g_target_us[name]
            g_prog = model.program(g, draws.standard_normal(seed, f"program/{name}", g.shape))
            if model.pair == "collapsed":  # only the net conductance is kept, and split again
                net = g_prog[0] - g_prog[1]
                g_prog = np.maximum(np.stack([net, -net]), 0)
            return g_prog, model.drift_exponent(g, draws.standard_normal(seed, f"drift/{name}", g.shape))

        made = dict(zip(g_target_us, map_blocks(devices, g_target_us, workers), strict=True))
        g_prog_us = {name: g_prog for name, (g_prog, _) in made.items()}
        nu = {name: exponents for name, (_, exponents) in made.items()}
        return cls(model, seed, dict(state), scale, g_target_us, g_prog_us, nu)

    @property
    def n_devices(self) -> int:
        """Devices on the chip: two for every weight and bias.

        >>> pcmref.Chip.program(pcmref.ResNet.resnet8().init(), pcmref.PCMModel.joshi2020()).n_devices
        122100
        """
        return sum(g.size for g in self.g_target_us.values())

    def drifted(self, name: str, t_s: float) -> tuple[np.ndarray, np.ndarray]:
        """(G_D(t), the conductance that Q_s depends on) of one array's devices, [2, *w.shape] in uS."""
        of = self.g_prog_us if self.model.q_argument == "programmed" else self.g_target_us
        return self.model.drift(self.g_prog_us[name], self.nu[name], t_s), of[name]

    def read_conductances(self, t_s: float, read: int = 0, workers: int | None = None) -> dict[str, np.ndarray]:
        """G(t) of every device as read at t_s, {name: [2, *w.shape]} in uS.

        Draws `read/{read}/{repr(float(t_s))}/{name}`: another read index is another, independent reading. DeviceError
        before t_0.
        """
        t_s, read = self.model.check_time(t_s), whole_number("read", read)

        def one(name):
            g_drift, of = self.drifted(name, t_s)
            z = draws.standard_normal(self.seed, f"read/{read}/{float(t_s)!r}/{name}", g_drift.shape)
            return self.model.read(g_drift, of, t_s, z)

        return dict(zip(self.nu, map_blocks(one, self.nu, workers), strict=True))

    def currents(self, g_us: dict[str, np.ndarray]) -> dict:
        """{crossbar: the read-out current, as the model's GDC measures it: a number, or [O] where it reads per column}."""
        kind, g_max_us = self.model.gdc_read_out, self.model.g_max_us
        return {bar: gdc.read_out([g_us[n] for n in names], g_max_us, kind) for bar, names in crossbars(self.state).items()}

    def baseline_conductances(self, read: int = 0, workers: int | None = None) -> dict[str, np.ndarray]:
        """What GDC's I(t_0) is taken of: a reading at t_0, or the programmed or the target conductances, as the model says."""
        if self.model.gdc_baseline == "read":
            return self.read_conductances(self.model.t_0_s, read, workers)
        return self.g_prog_us if self.model.gdc_baseline == "programmed" else self.g_target_us

    def gdc_factors(self, t_s: float, read: int = 0, workers: int | None = None) -> dict:
        """{crossbar: alpha = I(t_0)/I(t)}, I(t) and, unless the model says otherwise, I(t_0) as read with this read index.

        >>> state = {"fc.weight": pcmref.draws.standard_normal(0, "w", (10, 56))}
        >>> chip = pcmref.Chip.program(state, pcmref.PCMModel.joshi2020(), seed=0)
        >>> round(chip.gdc_factors(t_s=86_400.0)["fc.weight"], 3)
        1.53
        """
        at_t0 = self.currents(self.baseline_conductances(read, workers))
        at_t = self.currents(self.read_conductances(t_s, read, workers))
        return {bar: gdc.factor(at_t0[bar], at_t[bar]) for bar in at_t0}

    def weights(self, g_us: dict[str, np.ndarray], factors: dict | None = None) -> dict[str, np.ndarray]:
        """A state from read conductances, each crossbar times its GDC factor if given; in the weights' own dtype."""
        state = dict(self.state)
        for bar, names in crossbars(self.state).items():
            alpha = 1.0 if factors is None else factors[bar]
            for name in names:
                w = (alpha * unmap_weights(g_us[name], self.scale[name]).T).T  # a factor per column meets the outputs, axis 0
                state[name] = w.astype(np.asarray(self.state[name]).dtype)
        return state

    def read(self, t_s: float, read: int = 0, gdc: bool = False, workers: int | None = None) -> dict[str, np.ndarray]:
        """The network's state as the chip holds it t_s seconds after programming, ready for `forward`.

        `read` numbers the reading, `gdc` applies global drift compensation. DeviceError before t_0.

        >>> chip = pcmref.Chip.program({"fc.weight": np.array([[0.5, -0.25]])}, pcmref.PCMModel.joshi2020(), seed=0)
        >>> chip.read(t_s=86_400.0)["fc.weight"].round(3).tolist()
        [[0.325, -0.167]]
        >>> chip.read(t_s=86_400.0, gdc=True)["fc.weight"].round(3).tolist()
        [[0.503, -0.259]]
        """
        factors = self.gdc_factors(t_s, read, workers) if gdc else None
        return self.weights(self.read_conductances(t_s, read, workers), factors)

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
            if part not in parts or kind not in ("f", "float64") or not np.isfinite(value).all():
                raise FileError(f"{path}: unexpected array {name!r}, or one that holds other than finite numbers")
            parts[part][rest] = value
        try:
            values = {k: tuple(v) if isinstance(v, list) else v for k, v in meta["model"].items()}
            model, seed = PCMModel(**values), meta["seed"]
            g_target_us, scale = _map(parts["state"], model)
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError, PcmrefError) as error:
            raise FileError(f"{path}: does not describe a chip: {error}") from error
        for part in ("g_prog_us", "nu"):
            shapes = {name: value.shape for name, value in parts[part].items()}
            if shapes != {name: g.shape for name, g in g_target_us.items()}:
                raise FileError(f"{path}: the arrays under {part!r} do not fit the weights under 'state'")
        possible = all(((g >= 0) & (g <= 100 * model.g_max_us)).all() for g in parts["g_prog_us"].values())
        if isinstance(seed, bool) or not isinstance(seed, int) or not possible:
            raise FileError(f"{path}: the seed must be a whole number, every conductance in 0..{100 * model.g_max_us} uS")
        return cls(model, seed, parts["state"], scale, g_target_us, parts["g_prog_us"], parts["nu"])


def _map(state: dict, model: PCMModel) -> tuple[dict[str, np.ndarray], dict[str, float]]:
    """(g_target_us, scale) of every array on a crossbar, the arrays of one crossbar with one scale."""
    g_target_us, scale = {}, {}
    window_us = model.g_max_us - model.g_min_us  # weights lie above the lowest conductance, which cancels in a pair
    for names in crossbars(state).values():
        for name in names:
            if not np.isfinite(state[name]).all():
                raise DeviceError(f"{name!r} holds NaN or infinity; nothing can be programmed")
        shared = weight_scale(max(float(np.abs(state[name]).max()) for name in names), window_us)
        for name in names:
            g_us, scale[name] = map_weights(state[name], window_us, shared)
            g_target_us[name] = g_us + model.g_min_us
    return g_target_us, scale
