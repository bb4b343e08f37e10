"""The statistical model of a phase-change memory device: programming noise, drift and 1/f read noise.

Symbols: G_T target, G_P programmed, G_D(t) drifted, G(t) read conductance, all in uS; x = G_T / G_max; sigma_prog and sigma_nG
the spreads of programming and of a reading in uS; nu the drift exponent, its mean mu_nu and spread sigma_nu; Q_s the relative
strength of the 1/f noise, S_G its spectrum; t in seconds since programming, t_0 the first reading (others write t_c), t_r the
length of a reading; z standard-normal draws, given by the caller.

Grades of the constants: A stated by the paper's abstract or taken from the project's sources; B restated by the model authors'
public toolkit or by a co-author's code; C recalled or taken from a third party, not confirmed; C+ from a third party that says
it took the number from the paper.

Sources: [J] Joshi et al., Nat. Commun. 11:2473 (2020). [N] Nandakumar et al., IEEE ICECS 2019, pp. 727-730. [T] aihwkit,
docs/source/pcm_inference.rst and inference/noise/pcm.py. [X] CrossSim 3.2.0, its PCM device file. [S] pcm-bitslicing,
src/pcm_sim, by a co-author of Le Gallo et al. (2022).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace

import numpy as np

from pcmref.errors import DeviceError, SettingError
from pcmref.pcm import gdc


def _constant(value, unit: str, grade: str, source: str):
    """A field of the model with where it comes from; `PCMModel.constants()` lists them."""
    return field(default=value, metadata={"unit": unit, "grade": grade, "source": source})


def _check_constant(name: str, value, default) -> None:
    """SettingError unless value is of the default's kind: True or False, a finite number, or as many of them."""
    if name == "devices_per_weight":
        fits = all(type(n) is int and n >= 1 for n in (value.values() if isinstance(value, Mapping) else (value,)))
        default = "1, or {crossbar: 1}, from 1"
    elif isinstance(default, bool):
        fits = isinstance(value, bool)
    else:
        expected = len(default) if isinstance(default, tuple) else 1
        numbers = value if isinstance(default, tuple) and isinstance(value, tuple) else (value,)
        plain = all(isinstance(v, int | float) and not isinstance(v, bool) and np.isfinite(v) for v in numbers)
        fits = plain and len(numbers) == expected
    if not fits:
        raise SettingError(f"PCMModel: {name} must be like {default}, finite; got {value!r}")


@dataclass(frozen=True)
class PCMModel:
    """The device model as a set of constants; the equations below read them. Profiles differ in named fields only.

    >>> from dataclasses import replace
    >>> model = replace(pcmref.PCMModel.joshi2020(), nu_law="clamped")
    >>> model.g_max_us, model.t_0_s, model.nu_law
    (25.0, 20.0, 'clamped')
    """

    name: str = "joshi2020"
    g_max_us: float = _constant(25.0, "uS", "B", "[N] [T]; that [J]'s chip goes up to 25 uS is recalled (C)")
    g_min_us: float = _constant(0.0, "uS", "B", "[T]; CrossSim's device bottoms at .25 uS [X]")
    programming: tuple[float, float, float] = _constant((0.26348, 1.9650, -1.1731), "uS for G_max = 25 uS", "B", "[N] [T] code")
    programming_contains_read: bool = _constant(False, "", "B", "[T] code adds all read noise to it; see programming_std_us")
    nu_mean_line: tuple[float, float] = _constant((-0.0155, 0.0244), "1, 1", "B", "[N] [T] slope of ln x, intercept")
    nu_mean_range: tuple[float, float] = _constant((0.049, 0.1), "1", "B", "[N] [T]")
    nu_std_line: tuple[float, float] = _constant((-0.0125, -0.0059), "1, 1", "B", "[N] [T] slope of ln x, intercept")
    nu_std_range: tuple[float, float] = _constant((0.008, 0.045), "1", "B", "[N] [T]")
    nu_law: str = _constant("gaussian", "", "B", "[N] [T] document; the toolkit's code folds it")
    t_0_s: float = _constant(20.0, "s", "B", "[T] code; [X] states 27.36 s for the chip's first reading (B)")
    t_r_s: float = _constant(250e-9, "s", "B", "[N] [T] width of a read pulse")
    q_factor: float = _constant(0.0088, "1", "B", "[N] [T]")
    q_exponent: float = _constant(-0.65, "1", "B", "[N] [T]")
    q_max: float = _constant(0.2, "1", "B", "[N] [T]")
    q_argument: str = _constant("target", "", "B", "[N] [T] document; the toolkit's code takes the programmed G")
    pair: str = _constant("kept", "", "A", "[J] two devices a weight")
    devices_per_weight: int | Mapping[str, int] = _constant(1, "a sign", "A", "[J] two devices a weight, one a sign")
    gdc_read_out: str = _constant("device sum", "", "C", "derived: the currents of both devices of every pair add up")
    gdc_baseline: str = _constant("read", "", "C", "derived: a chip knows its own readings only; [T] code: programmed")
    drifts: bool = _constant(True, "", "B", "[N] [T]")
    reads_noisily: bool = _constant(True, "", "B", "[N] [T]")

    def __post_init__(self):
        choices = {
            "nu_law": ("gaussian", "folded", "clamped"),
            "q_argument": ("target", "programmed"),
            "pair": ("kept", "collapsed"),
            "gdc_read_out": gdc.READ_OUTS,
            "gdc_baseline": ("read", "programmed", "target"),
        }
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise SettingError(f"PCMModel: {name} must be one of {allowed}, got {getattr(self, name)!r}")
        for constant in (f for f in fields(self) if f.metadata and not isinstance(f.default, str)):
            _check_constant(constant.name, getattr(self, constant.name), constant.default)
        for name in ("g_max_us", "t_0_s", "t_r_s", "q_max"):
            if getattr(self, name) <= 0:
                raise SettingError(f"PCMModel: {name} must be above 0, got {getattr(self, name)!r}")
        if self.q_factor < 0 or self.q_exponent > 0:
            raise SettingError(f"PCMModel: q_factor from 0 and q_exponent to 0, got {self.q_factor!r} and {self.q_exponent!r}")
        if self.pair == "collapsed" and self.devices_per_weight != 1:
            raise SettingError("PCMModel: a pair collapsed to its net is one device a sign; devices_per_weight must be 1")
        for name in ("nu_mean_range", "nu_std_range"):
            low, high = getattr(self, name)
            if low > high or (name == "nu_std_range" and low < 0):
                raise SettingError(f"PCMModel: {name} must be (low, high), deviations from 0; got {(low, high)!r}")
        if not 0 <= self.g_min_us < self.g_max_us:
            raise SettingError(f"PCMModel: g_min_us must lie in 0..{self.g_max_us}, got {self.g_min_us!r}")
        if self.t_0_s <= self.t_r_s:
            raise SettingError(f"PCMModel: t_0_s {self.t_0_s} must be longer than a read pulse, t_r_s {self.t_r_s}")

    @classmethod
    def joshi2020(cls) -> "PCMModel":
        """The model as its authors document it [N] [T], for the paper's chip [J].

        >>> pcmref.PCMModel.joshi2020().programming
        (0.26348, 1.965, -1.1731)
        """
        return cls()

    @classmethod
    def aihwkit(cls) -> "PCMModel":
        """As aihwkit's code has it: folded nu, Q_s of the programmed G, pairs collapsed to their net, one-hot GDC.

        >>> pcmref.PCMModel.aihwkit().nu_law, pcmref.PCMModel.joshi2020().nu_law
        ('folded', 'gaussian')
        """
        changes = {
            "nu_law": "folded",
            "q_argument": "programmed",
            "pair": "collapsed",
            "gdc_read_out": "one-hot",
            "gdc_baseline": "programmed",
        }
        return replace(cls(), name="aihwkit", **changes)

    @classmethod
    def crosssim(cls) -> "PCMModel":
        """CrossSim's PCM: programming error only, its own fit (in G/25 uS: .28638599, .07585724*25, -.00178767*625) [X].

        >>> pcmref.PCMModel.crosssim().drifts
        False
        """
        fit = (0.28638599, 0.07585724 * 25, -0.00178767 * 625)
        return replace(cls(), name="crosssim", g_min_us=0.25, programming=fit, drifts=False, reads_noisily=False)

    @classmethod
    def constants(cls) -> list[tuple[str, object, str, str, str]]:
        """(field, value in joshi2020, unit, grade, source) of every constant.

        >>> pcmref.PCMModel.constants()[0]
        ('g_max_us', 25.0, 'uS', 'B', "[N] [T]; that [J]'s chip goes up to 25 uS is recalled (C)")
        """
        graded = [f for f in fields(cls) if f.metadata]
        return [(f.name, f.default, f.metadata["unit"], f.metadata["grade"], f.metadata["source"]) for f in graded]

    def devices_of(self, bar: str | None = None) -> int:
        """Devices of each sign behind every weight of a crossbar, all programmed to one target; their mean is read.

        `devices_per_weight` is this number for all crossbars, or {crossbar: number} for some; the others then have 1.

        >>> pcmref.PCMModel(devices_per_weight={"conv1.weight": 4}).devices_of("conv1.weight")
        4
        """
        if not isinstance(self.devices_per_weight, Mapping):
            return self.devices_per_weight
        if bar is None:
            raise DeviceError("devices_per_weight differs between crossbars: name the crossbar, for example 'conv1.weight'")
        return self.devices_per_weight.get(bar, 1)

    # ------------------------------------------------------------------------------------------------- programming

    def _x(self, g_us):
        """x = G / G_max in float64 or wider; DeviceError outside 0..G_max or where G is not a number."""
        g_us = np.asarray(g_us)
        x = g_us.astype(np.result_type(g_us.dtype, np.float64)) / self.g_max_us
        if not ((x >= 0).all() and (x <= 1 + 1e-12).all()):
            raise DeviceError(f"target conductances must lie in 0..{self.g_max_us} uS, got {np.min(g_us)}..{np.max(g_us)}")
        return x

    def programming_std_us(self, g_target_us):
        """sigma_prog = max(c0 + c1*x + c2*x^2, 0) uS, in proportion to G_max/25 ([N]; code [T]): any shape.

        With joshi2020's coefficients it is above 0 everywhere; the limit is for others.

        Where the measured sigma holds a reading at t_0 (`programming_contains_read`, discrepancy D29), what is left without it:
        s^2 = (sigma^2 - (r G_T)^2)/(1 + r^2), r = sigma_nG/G at t_0, so that the reading's variance s^2 + r^2 (G_T^2 + s^2) is
        sigma^2 again, but for the clips at 0. That holds of the measurement, also where this model's readings are noiseless.

        >>> pcmref.PCMModel.joshi2020().programming_std_us(np.array([0.0, 12.5, 25.0])).round(5).tolist()
        [0.26348, 0.9527, 1.05538]
        """
        x, (c0, c1, c2) = self._x(g_target_us), self.programming
        std_us = np.maximum((c2 * x + c1) * x + c0, 0) * (self.g_max_us / 25.0)
        if not self.programming_contains_read:
            return std_us
        r = self.read_noise_q(g_target_us) * self._read_band(self.t_0_s)
        return np.sqrt(np.maximum(np.square(std_us) - np.square(r * g_target_us), 0) / (1 + np.square(r)))

    def program(self, g_target_us, z):
        """G_P = max(G_T + sigma_prog * z, 0): what write-and-verify leaves in the device ([N], [T]).

        >>> pcmref.PCMModel.joshi2020().program(np.array([0.0, 12.5]), z=np.array([-1.0, 1.0])).round(5).tolist()
        [0.0, 13.4527]
        """
        return np.maximum(g_target_us + self.programming_std_us(g_target_us) * z, 0)

    # ------------------------------------------------------------------------------------------------------- drift

    def _clipped_log_line(self, g_target_us, line, bounds):
        """clip(slope * ln x + intercept, *bounds), x = 0 taken as the smallest number, which ends at a bound."""
        x = np.maximum(self._x(g_target_us), np.finfo(np.float64).tiny)
        return np.clip(line[0] * np.log(x) + line[1], *bounds)

    def drift_exponent_mean(self, g_target_us):
        """mu_nu = clip(-0.0155 ln x + 0.0244, 0.049, 0.1) ([N], [T]); 0 in a profile without drift.

        >>> pcmref.PCMModel.joshi2020().drift_exponent_mean(np.array([0.0, 2.5, 25.0])).round(5).tolist()
        [0.1, 0.06009, 0.049]
        """
        return self._clipped_log_line(g_target_us, self.nu_mean_line, self.nu_mean_range) * self.drifts

    def drift_exponent_std(self, g_target_us):
        """sigma_nu = clip(-0.0125 ln x - 0.0059, 0.008, 0.045) ([N], [T]); 0 in a profile without drift.

        >>> pcmref.PCMModel.joshi2020().drift_exponent_std(np.array([0.0, 2.5, 25.0])).round(5).tolist()
        [0.045, 0.02288, 0.008]
        """
        return self._clipped_log_line(g_target_us, self.nu_std_line, self.nu_std_range) * self.drifts

    def drift_exponent(self, g_target_us, z):
        """nu = mu_nu + sigma_nu * z, drawn once when programmed ([N], [T]); below 0, the device's conductance grows.

        Its absolute value where the law is folded [T]; held inside the range of mu_nu where it is clamped [S].

        >>> pcmref.PCMModel.joshi2020().drift_exponent(np.array([25.0, 25.0]), z=np.array([0.0, 1.0])).round(5).tolist()
        [0.049, 0.057]
        """
        nu = self.drift_exponent_mean(g_target_us) + self.drift_exponent_std(g_target_us) * z
        if self.nu_law == "clamped":
            return np.clip(nu, *self.nu_mean_range) * self.drifts
        return np.abs(nu) if self.nu_law == "folded" else nu

    def drift(self, g_prog_us, nu, t_s: float):
        """G_D(t) = G_P * (t/t_0)^-nu: structural relaxation after programming ([N], [T]).

        >>> round(float(pcmref.PCMModel.joshi2020().drift(25.0, 0.049, t_s=86_400.0)), 3)  # a day after programming
        16.588
        """
        return g_prog_us * (self.check_time(t_s) / self.t_0_s) ** -np.asarray(nu)

    def check_time(self, t_s: float) -> float:
        """t_s as a float (a longdouble stays one); DeviceError before t_0, when nothing has been read yet, or no number."""
        try:
            seconds = t_s if isinstance(t_s, np.longdouble) else float(None if isinstance(t_s, str | bytes) else t_s)
        except (TypeError, ValueError, OverflowError):
            seconds = np.nan
        if not (np.isfinite(seconds) and seconds >= self.t_0_s):
            raise DeviceError(f"t_s must be a time from t_0 = {self.t_0_s} s after programming on, got {t_s!r}")
        return seconds

    # -------------------------------------------------------------------------------------------------- read noise

    def read_noise_q(self, g_us):
        """Q_s = min(0.0088 / x^0.65, 0.2): the 1/f noise's relative strength, S_G/G^2 = Q_s^2/f ([N], [T]).

        >>> pcmref.PCMModel.joshi2020().read_noise_q(np.array([0.0, 2.5, 25.0])).round(5).tolist()
        [0.2, 0.03931, 0.0088]
        """
        x = np.maximum(np.asarray(g_us) / self.g_max_us, np.finfo(np.float64).tiny)  # a programmed G may exceed G_max
        with np.errstate(over="ignore"):
            return np.minimum(self.q_factor * x**self.q_exponent, self.q_max)

    def read_noise_std_us(self, g_drift_us, g_target_us, t_s: float):
        """sigma_nG = G_D * Q_s * sqrt(ln((t + t_r)/(2 t_r))): 1/f noise from 1/(t + t_r) to 1/(2 t_r) ([N], [T])."""
        return g_drift_us * self.read_noise_q(g_target_us) * self._read_band(t_s) * self.reads_noisily

    def _read_band(self, t_s: float):
        return np.sqrt(np.log((self.check_time(t_s) + self.t_r_s) / (2 * self.t_r_s)))

    def read(self, g_drift_us, g_target_us, t_s: float, z):
        """G(t) = max(G_D + sigma_nG * z, 0): one reading of each device ([N], [T]).

        g_target_us is what Q_s depends on; a profile with q_argument "programmed" is given G_P there.

        >>> round(float(pcmref.PCMModel.joshi2020().read(16.6, 25.0, t_s=86_400.0, z=1.0)), 3)
        17.343
        """
        return np.maximum(g_drift_us + self.read_noise_std_us(g_drift_us, g_target_us, t_s) * z, 0)
