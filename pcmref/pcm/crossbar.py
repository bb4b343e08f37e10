"""Crossbars with converters: a matrix on tiles of differential pairs, its inputs through DACs, its outputs through ADCs.

    x -> v = DAC(x / x_max) -> I = v (G+ - G-) on every tile -> ADC(I / G_max) -> * G_max / scale
      -> sum over tiles in a column -> * alpha * x_max -> y

The currents of a pair are subtracted on the wire, before the ADC; the tiles of a column are added digitally, after it. Each
input vector is scaled by its own largest magnitude, so that the full voltage range is used (aihwkit's default, grade B).
"""

import hashlib
from dataclasses import dataclass, replace
from math import floor

import numpy as np

from pcmref import draws
from pcmref.errors import DeviceError, SettingError
from pcmref.pcm import gdc
from pcmref.pcm.chip import Chip, Reading
from pcmref.pcm.mapping import crossbars, map_weights, read_only, weight_scale
from pcmref.pcm.model import PCMModel
from pcmref.pcm.moments import read_correlation, split_reading_moments

ADC_LIMIT = 12.0  # devices fully on at full voltage that an ADC's range holds (grade B: aihwkit's default output bound)


@dataclass(frozen=True)
class Converter:
    """A DAC or ADC: `steps` equal steps over -limit..limit, rounding to the nearest code.

    Codes are counted from 0 ("zero": an even number of steps gives steps + 1 levels, 0 among them) or from the end of the
    range ("end": an odd number gives no zero code). order "clip first" limits, then rounds; "round first" the other way, so
    that no output exceeds the limit. The public codes differ in each of these (discrepancies D20, D21, D22).
    """

    steps: int
    limit: float = 1.0
    rounding: str = "half-even"
    order: str = "clip first"
    origin: str = "zero"

    def __post_init__(self):
        choices = {
            "rounding": ("half-even", "half-away"),
            "order": ("clip first", "round first"),
            "origin": ("zero", "end"),
        }
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise SettingError(f"Converter: {name} must be one of {allowed}, got {getattr(self, name)!r}")
        if isinstance(self.steps, bool) or not isinstance(self.steps, int) or not 1 <= self.steps <= 2**32:
            raise SettingError(f"Converter: steps must be a whole number from 1 to 2^32, got {self.steps!r}")
        if not (np.isfinite(self.limit) and self.limit > 0):
            raise SettingError(f"Converter: limit must be above 0, got {self.limit!r}")

    @classmethod
    def of_bits(cls, bits: int, limit: float = 1.0) -> "Converter":
        """2^bits - 1 levels from -limit to limit, 0 among them: 255 for 8 bits. SettingError below 2 or above 32 bits."""
        if isinstance(bits, bool) or not isinstance(bits, int) or not 2 <= bits <= 32:
            raise SettingError(f"a converter has 2 to 32 bits, got {bits!r}")
        return cls(2**bits - 2, limit)

    @property
    def step(self) -> float:
        """The distance of neighbouring codes, 2 limit / steps."""
        return 2 * self.limit / self.steps

    @property
    def _zero(self) -> float:
        """The value that codes are counted from."""
        return 0.0 if self.origin == "zero" else -self.limit

    def code_below(self, x: float) -> float:
        """The highest code up to x, origin + step * floor((x - origin)/step); one within rounding of x counts."""
        return self._zero + self.step * floor((min(x, self.limit) - self._zero) / self.step + 1e-9)

    def convert(self, x: np.ndarray) -> np.ndarray:
        """q = origin + step * round((x - origin)/step), and x or q clipped to -limit..limit; any shape, x's dtype."""
        if self.order == "clip first":
            return self._rounded(np.clip(x, -self.limit, self.limit))
        q = self._rounded(np.array(x))
        return np.clip(q, -self.limit, self.limit, out=q)

    def _rounded(self, x: np.ndarray) -> np.ndarray:
        """x itself, each value moved to its nearest code."""
        x -= self._zero
        x /= self.step
        if self.rounding == "half-even":
            np.rint(x, out=x)
        else:
            np.trunc(x + np.copysign(0.5, x), out=x)
        x *= self.step
        x += self._zero
        return x


def tiles(shape: tuple[int, int], tile: tuple[int, int]) -> list[tuple[slice, slice]]:
    """(rows, columns) of every tile of a matrix [K, O] cut into tiles of at most `tile` rows x columns, row by row."""
    if not all(isinstance(n, int) and not isinstance(n, bool) and n >= 1 for n in tile):
        raise SettingError(f"a tile has whole numbers of rows and columns from 1, got {tile!r}")
    cuts = [[slice(i, min(i + size, n)) for i in range(0, n, size)] for n, size in zip(shape, tile, strict=True)]
    return [(rows, columns) for rows in cuts[0] for columns in cuts[1]]


def tile_scales(w: np.ndarray, tile: tuple[int, int], g_max_us: float = 25.0) -> np.ndarray:
    """scale = G_max / max|W| of each entry's own tile, in uS per unit weight: w [K, O] -> [K, O] (discrepancy D13)."""
    scale = np.empty(w.shape)
    for part in tiles(w.shape, tile):
        scale[part] = weight_scale(float(np.abs(w[part]).max()), g_max_us)
    return scale


@dataclass(frozen=True)
class Crossbar:
    """A matrix as conductances on tiles, with its converters; None is an ideal converter.

    g_us [2, K, O] float64: plus and minus devices, rows are inputs. scale: uS per unit weight, a number or [K, O], the same
    within a tile. alpha: the drift compensation, a number or [O], multiplied onto the digital output.
    """

    g_us: np.ndarray
    scale: float | np.ndarray
    tile: tuple[int, int] = (256, 256)
    dac: Converter | None = None
    adc: Converter | None = None
    g_max_us: float = 25.0
    alpha: float | np.ndarray = 1.0
    fresh: "FreshReads | None" = None  # what every product's own reading adds; None where g_us is the reading

    @classmethod
    def of_weights(cls, w, tile=(256, 256), per_tile: bool = False, g_max_us: float = 25.0, **converters) -> "Crossbar":
        """The targets of w [K, O] with one scale, or one a tile: a crossbar without any noise."""
        w = np.asarray(w)
        g_us, scale = map_weights(w, g_max_us, tile_scales(w, tile, g_max_us) if per_tile else None)
        return cls(g_us, scale, tile, g_max_us=g_max_us, **converters)

    def __post_init__(self):
        for name in ("g_us", "scale", "alpha"):
            if isinstance(getattr(self, name), np.ndarray):
                object.__setattr__(self, name, read_only(getattr(self, name)))
        if self.g_us.ndim != 3 or len(self.g_us) != 2 or not self.g_us.size:
            raise DeviceError(f"Crossbar: g_us must be [2, rows, columns], got shape {self.g_us.shape}")
        for part in tiles(self.g_us.shape[1:], self.tile):
            scale = np.broadcast_to(self.scale, self.g_us.shape[1:])[part]
            if not (scale.flat[0] > 0 and (scale == scale.flat[0]).all()):
                raise DeviceError(f"Crossbar: one scale above 0 a tile; the tile of {part} has {scale.min()}..{scale.max()}")

    def multiply(self, x: np.ndarray) -> np.ndarray:
        """y = x W as the crossbar computes it: x [N, K] -> [N, O], in x's dtype."""
        net_us = self.g_us[0] - self.g_us[1]
        noise_us = self.fresh.noise_us(x) if self.fresh else lambda v, part: 0
        return self._multiply(x, lambda v, part: v @ net_us[part].astype(x.dtype, copy=False) + noise_us(v, part))

    def multiply_reading(self, x: np.ndarray, model: PCMModel, g_target_us: np.ndarray, t_s: float, z: np.ndarray):
        """y = x W where every vector meets a fresh reading of the devices: x [N, K], z [N, 2, K, O] -> [N, O].

        g_us are the drifted conductances then, and g_target_us [2, K, O] what Q_s depends on ([N] [T]: see `model`).
        """
        g_us = model.read(self.g_us, g_target_us, t_s, z)
        net_us = g_us[:, 0] - g_us[:, 1]  # [N, K, O]
        return self._multiply(x, lambda v, part: np.einsum("nk,nko->no", v, net_us[:, *part].astype(x.dtype)))

    def _multiply(self, x, net_current):
        if x.ndim != 2 or x.shape[1] != self.g_us.shape[1]:
            raise DeviceError(f"Crossbar: inputs must be [N, {self.g_us.shape[1]}], got shape {x.shape}")
        largest = np.abs(x).max(1, keepdims=True)
        largest = np.where(largest > 0, largest, 1).astype(x.dtype)
        v = _converted(self.dac, x / largest)
        scale = np.broadcast_to(self.scale, self.g_us.shape[1:])
        y = np.zeros((len(x), self.g_us.shape[2]), x.dtype)
        for rows, columns in tiles(self.g_us.shape[1:], self.tile):
            devices = net_current(v[:, rows], (rows, columns))
            devices /= x.dtype.type(self.g_max_us)  # the current in devices fully on
            y[:, columns] += _converted(self.adc, devices) * x.dtype.type(self.g_max_us / scale[rows, columns].flat[0])
        return y * (largest * np.asarray(self.alpha).astype(x.dtype))

    def read_out(self, kind: str = "device sum", voltage: float | None = None):
        """The drift compensation's current through the crossbar's own converters, in uS: see `gdc` for the kinds.

        `voltage` drives the rows, as a fraction of the DAC's range; the result is divided by it. A sum over many rows may
        leave the ADC's range, so None means the DAC's highest code at which one device a row, fully on, does not (1 for one-hot
        inputs).
        """
        n_rows = self.g_us.shape[1]
        summed = kind in ("device sum", "ones")
        if voltage is None:
            voltage = self._summing_voltage() if summed else 1.0
        v = np.full((1, n_rows), voltage) if summed else voltage * np.eye(n_rows)
        lines = self.g_us.sum(0) if kind == "device sum" else self.g_us[0] - self.g_us[1]
        v, total = _converted(self.dac, v), np.zeros((len(v), lines.shape[1]))
        for rows, columns in tiles(lines.shape, self.tile):
            total[:, columns] += _converted(self.adc, v[:, rows] @ lines[rows, columns] / self.g_max_us)
        return gdc.current([total.T * (self.g_max_us / voltage)], self.g_max_us, kind)

    def _summing_voltage(self) -> float:
        """The DAC's highest code that keeps a tile's sum inside the ADC's range; SettingError where there is none so low."""
        n_rows = min(self.tile[0], self.g_us.shape[1])
        fits = 1.0 if self.adc is None else min(1.0, self.adc.limit / n_rows)
        code = fits if self.dac is None else self.dac.code_below(fits)
        if code <= 0:
            raise SettingError(
                f"drift compensation sums {n_rows} rows: one step of the DAC, {self.dac.step:.3g} of its range, may leave the "
                "ADC's; use smaller tiles, a DAC of more bits, or the read-out one-hot"
            )
        return code

    def compensated(self, baseline, kind: str = "device sum", voltage: float | None = None) -> "Crossbar":
        """This crossbar with alpha = baseline / read_out: `baseline` is what `read_out` gave at t_0."""
        return replace(self, alpha=gdc.factor(baseline, self.read_out(kind, voltage)))


@dataclass(frozen=True)
class FreshReads:
    """The read noise of a crossbar whose every product meets a reading of its own, as noise on a tile's currents.

    variance_us2 [K, O]: of both devices of a pair. The sum over a tile's rows is drawn as a Gaussian of the exact variance
    sum_k v_k^2 variance_k; that each reading is clipped at 0 shows in mean and variance only (the central limit theorem).
    Draws `{label}/{SHA-256 of the inputs}/{first row}/{first column}`: the same inputs in the same block meet the same noise.
    Where another processor or BLAS rounds an input differently it meets other noise, of the same law.
    """

    variance_us2: np.ndarray
    seed: int
    label: str

    def noise_us(self, x: np.ndarray):
        """The noise for inputs x, as a function of the voltages v [N, rows] and the tile (rows, columns): [N, columns]."""
        label = f"{self.label}/{hashlib.sha256(np.ascontiguousarray(x)).hexdigest()}"

        def noise(v, part):
            std_us = np.sqrt(np.square(v) @ self.variance_us2[part].astype(v.dtype))
            z = draws.standard_normal(self.seed, f"{label}/{part[0].start}/{part[1].start}", std_us.shape)
            return std_us * z.astype(v.dtype)

        return noise


@dataclass(frozen=True)
class Layer:
    """A layer's weights on a crossbar, in a state in the place of the array: `shape` is the array's.

    For `net.forward(state, x, product=multiply)`. biased: the crossbar's last row holds the bias and is driven by a constant 1.
    """

    shape: tuple[int, ...]
    bar: Crossbar
    biased: bool = False

    def __len__(self) -> int:
        return self.shape[0]


def multiply(x: np.ndarray, layer: Layer) -> np.ndarray:
    """y = x w' + b as the layer's crossbar computes it: x [M, K] -> [M, O], a `product` for the network."""
    return layer.bar.multiply(np.concatenate([x, np.ones((len(x), 1), x.dtype)], 1) if layer.biased else x)


@dataclass(frozen=True)
class Periphery:
    """What surrounds the devices of a chip: the size of its tiles (rows, columns) and its converters; None is ideal.

    With `fresh`, every matrix-vector product meets a reading of its own; without, all products of a `state` meet one reading.
    Fresh readings are independent, an upper bound of what differs between products: 1/f noise changes little in a microsecond.
    With `products_apart_s` they share what readings so far apart have in common (`read_correlation`), drawn once a `state`.
    """

    tile: tuple[int, int] = (256, 256)
    dac: Converter | None = None
    adc: Converter | None = None
    fresh: bool = False
    products_apart_s: float | None = None

    def __post_init__(self):
        apart_s = self.products_apart_s
        if apart_s is not None and not (self.fresh and isinstance(apart_s, int | float) and 0 < apart_s < np.inf):
            raise SettingError(f"products_apart_s must be seconds above 0, with fresh readings only; got {apart_s!r}")

    def shared(self, model: PCMModel, t_s: float) -> float:
        """The correlation of a device's noise in two products of a state read at t_s; below 0, as far apart, it counts as 0."""
        if self.products_apart_s is None:
            return 0.0
        return max(read_correlation(model, t_s, t_s + self.products_apart_s), 0.0)

    def crossbars(self, chip: Chip, g_us: dict[str, np.ndarray]) -> dict[str, Crossbar]:
        """{name: the crossbar} of a chip as read, {name: [2, *w.shape]} in uS; a bias is the last row of its crossbar."""
        settings = (self.tile, self.dac, self.adc, chip.model.g_max_us)
        return {bar: Crossbar(_matrix(chip, g_us, bar), chip.scale[bar], *settings) for bar in crossbars(chip.state)}

    def currents(self, reading: Reading) -> dict:
        """The read-out current of each crossbar through its own converters, of the kind that the model's GDC measures."""
        chip = reading.chip
        return {name: bar.read_out(chip.model.gdc_read_out) for name, bar in self.crossbars(chip, reading.g_us).items()}

    def state(self, reading: Reading) -> dict:
        """The chip's state with a `Layer` for every crossbar, times its GDC factor if any; for `forward`, not `backward`.

        With `fresh`, the products are of the reading's time and number, and its conductances, one reading, are not used.
        """
        chip, g_us, t_s = reading.chip, reading.g_us, reading.t_s
        state = {name: np.array(values) for name, values in chip.state.items()}
        if self.fresh:
            g_us, variance_us2 = _product_moments(reading, self.shared(chip.model, t_s))
        for name, bar in self.crossbars(chip, g_us).items():
            bar = bar if reading.factors is None else replace(bar, alpha=reading.factors[name])
            if self.fresh:
                label = f"product/{reading.read}/{float(t_s)!r}/{name}"
                bar = replace(bar, fresh=FreshReads(_matrix(chip, variance_us2, name).sum(0), chip.seed, label))
            bias = crossbars(chip.state)[name][1:]
            state[name] = Layer(np.shape(chip.state[name]), bar, bool(bias))
            state |= {n: np.zeros_like(chip.state[n]) for n in bias}  # it is on the crossbar now
        return state


def _matrix(chip: Chip, values: dict[str, np.ndarray], bar: str) -> np.ndarray:
    """The arrays of one crossbar, [2, *w.shape] each, as one matrix [2, K, O]; a bias is the last row."""
    rows = [values[n].reshape(2, len(chip.state[bar]), -1) for n in crossbars(chip.state)[bar]]
    return np.ascontiguousarray(np.concatenate(rows, 2).transpose(0, 2, 1))


def _product_moments(reading: Reading, shared: float) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """({name: means in uS}, {name: variances in uS^2}) over what each product draws; the shared part is the reading's own z."""
    chip, t_s, means, variances = reading.chip, reading.t_s, {}, {}
    for name in chip.g_target_us:
        z = chip.read_draws(name, t_s, reading.read)
        mean, variance = split_reading_moments(chip.model, *chip.drifted(name, t_s), t_s, shared, z)
        means[name] = chip.mean_us(name, mean)
        variances[name] = chip.mean_us(name, variance) * (means[name].size / mean.size)  # of a mean of n devices
    return means, variances


def _converted(converter: Converter | None, x: np.ndarray) -> np.ndarray:
    return x if converter is None else converter.convert(x)
