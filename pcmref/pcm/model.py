"""The statistical model of a phase-change memory device: programming noise, drift and 1/f read noise.

Symbols: G_T target, G_P programmed, G_D(t) drifted, G(t) read conductance, all in uS; x = G_T / G_max; sigma_prog and sigma_nG
the spreads of programming and of a reading in uS; nu the drift exponent, its mean mu_nu and spread sigma_nu; Q_s the relative
strength of the 1/f noise, S_G its spectrum; t in seconds since programming, t_0 the first reading (others write t_c), t_r the
length of a reading; z standard-normal draws, given by the caller.

Grades of the constants: A stated by the paper's abstract or taken from the project's sources; B restated by the model authors'
public toolkit or by a co-author's code; C recalled or taken from a third party, not confirmed; C+ from a third party that says
it took the number from the paper; D chosen by this project.

Sources: [J] Joshi et al., Nat. Commun. 11:2473 (2020). [N] Nandakumar et al., IEEE ICECS 2019, pp. 727-730. [T] aihwkit,
docs/source/pcm_inference.rst and inference/noise/pcm.py. [X] CrossSim 3.2.0, its PCM device file. [S] pcm-bitslicing,
src/pcm_sim, by a co-author of Le Gallo et al. (2022). What other profiles change stands beside this file, in PROFILE.toml.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields

import numpy as np
from numpy.polynomial.polynomial import polyval

from pcmref.errors import DeviceError, SettingError
from pcmref.pcm import constants
from pcmref.pcm.constants import constant

_ABOVE = "from x = the first number on, a polynomial in x of the others, c0 first"


@dataclass(frozen=True)
class PCMModel:
    """The device model as a set of constants; the equations below read them. Profiles differ in named fields only.

    >>> from dataclasses import replace
    >>> model = replace(pcmref.PCMModel.joshi2020(), nu_law="clamped")
    >>> model.g_max_us, model.t_0_s, model.nu_law
    (25.0, 20.0, 'clamped')
    """

    name: str = "joshi2020"
    g_max_us: float = constant(25.0, "uS", "B", "[N] [T]; that [J]'s chip goes up to 25 uS is recalled (C)")
    g_min_us: float = constant(0.0, "uS", "B", "[T]; CrossSim's device bottoms at .25 uS [X]")
    programming: tuple[float, ...] = constant((0.26348, 1.9650, -1.1731), "uS", "B", "[N] [T] code", (1, 2, 3, 4))
    programming_g_max_us: float = constant(25.0, "uS", "B", "[N] [T] code: G_max of the devices that were measured")
    programming_contains_read: bool = constant(False, "", "B", "[T] code adds all read noise to it; see programming_std_us")
    nu_mean_line: tuple[float, float] = constant((-0.0155, 0.0244), "1, 1", "B", "[N] [T] slope of ln x, intercept")
    nu_mean_range: tuple[float, float] = constant((0.049, 0.1), "1", "B", "[N] [T]")
    nu_mean_above: tuple[float, ...] = constant((), "1", "B", f"[N] [T]: none; {_ABOVE}", constants.BRANCH)
    nu_std_line: tuple[float, float] = constant((-0.0125, -0.0059), "1, 1", "B", "[N] [T] slope of ln x, intercept")
    nu_std_range: tuple[float, float] = constant((0.008, 0.045), "1", "B", "[N] [T]")
    nu_std_above: tuple[float, ...] = constant((), "1", "B", f"[N] [T]: none; {_ABOVE}", constants.BRANCH)
    nu_law: str = constant("gaussian", "", "B", "[N] [T] document; the toolkit's code folds it")
    stuck: tuple[float, float] = constant((0.0, 0.0), "1", "D", "shares at 0, at G_max; 99.1 % programmed is quoted (C+)")
    t_0_s: float = constant(20.0, "s", "B", "[T] code; [X] states 27.36 s for the chip's first reading (B)")
    t_r_s: float = constant(250e-9, "s", "B", "[N] [T] width of a read pulse")
    noise_exponent: float = constant(1.0, "1", "B", "[N] [T] 1/f; that [J] observed 1/f^1.21 is quoted (C+): D30")
    q_factor: float = constant(0.0088, "1", "B", "[N] [T]")
    q_exponent: float = constant(-0.65, "1", "B", "[N] [T]")
    q_line: tuple[float, ...] = constant((), "1, 1", "B", "[N] [T]: none; slope of ln x, intercept, for the power", (0, 2))
    q_min: float = constant(0.0, "1", "B", "[N] [T]")
    q_max: float = constant(0.2, "1", "B", "[N] [T]")
    q_above: tuple[float, ...] = constant((), "1", "B", f"[N] [T]: none; {_ABOVE}", constants.BRANCH)
    q_argument: str = constant("target", "", "B", "[N] [T] document; [T] code: programmed G, stretched")
    pair: str = constant("kept", "", "A", "[J] two devices a weight")
    devices_per_weight: int | Mapping[str, int] = constant(1, "a sign", "A", "[J] two devices a weight, one a sign")
    gdc_read_out: str = constant("device sum", "", "C", "derived: the currents of both devices of every pair add up")
    gdc_baseline: str = constant("read", "", "C", "derived: a chip knows its own readings only; [T] code: programmed")
    drifts: bool = constant(True, "", "B", "[N] [T]")
    reads_noisily: bool = constant(True, "", "B", "[N] [T]")

    def __post_init__(self):
        constants.check(self)
        if isinstance(self.devices_per_weight, Mapping):
            object.__setattr__(self, "devices_per_weight", dict(self.devices_per_weight))  # the caller's may change

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
        return cls.profile("aihwkit")

    @classmethod
    def crosssim(cls) -> "PCMModel":
        """CrossSim's PCM: programming error only, its own fit [X].

        >>> pcmref.PCMModel.crosssim().drifts
        False
        """
        return cls.profile("crosssim")

    @classmethod
    def profile(cls, name: str) -> "PCMModel":
        """A device by its name: "joshi2020", "aihwkit", "crosssim" or "hermes"; SettingError names them.

        >>> pcmref.PCMModel.profile("hermes").g_max_us
        20.7
        """
        return cls.of_description(constants.description_of(name))

    @classmethod
    def of_description(cls, description: Mapping) -> "PCMModel":
        """The device that a device file describes: its constants over those of the profile it is `based_on`.

        SettingError names a constant that does not exist, is of another kind, or impossible.

        >>> pcmref.PCMModel.of_description({"name": "mine", "based_on": "hermes", "t_0_s": 60.0}).g_max_us
        20.7
        """
        values = {name: value for name, (value, _) in constants.changes(description).items()}
        known = [f.name for f in fields(cls)]
        if unknown := sorted(values.keys() - set(known)):
            raise SettingError(f"unknown constants {unknown}; a device has {known}")
        return cls(**values)

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
        """sigma_prog = max(c0 + c1*x + c2*x^2 + c3*x^3, 0) uS, in proportion to G_max ([N]; code [T]): any shape.

        With joshi2020's coefficients it is above 0 everywhere; the limit is for others.

        Where the measured sigma holds a reading at t_0 (`programming_contains_read`, discrepancy D29), what is left without it:
        s^2 = (sigma^2 - (r G_T)^2)/(1 + r^2), r = sigma_nG/G at t_0, so that the reading's variance s^2 + r^2 (G_T^2 + s^2) is
        sigma^2 again, but for the clips at 0. That holds of the measurement, also where this model's readings are noiseless.

        >>> pcmref.PCMModel.joshi2020().programming_std_us(np.array([0.0, 12.5, 25.0])).round(5).tolist()
        [0.26348, 0.9527, 1.05538]
        """
        std_us = np.maximum(polyval(self._x(g_target_us), self.programming), 0) * (self.g_max_us / self.programming_g_max_us)
        if not self.programming_contains_read:
            return std_us
        r = self.read_noise_q(g_target_us) * np.sqrt(self.read_band(self.t_0_s))
        return np.sqrt(np.maximum(np.square(std_us) - np.square(r * g_target_us), 0) / (1 + np.square(r)))

    def program(self, g_target_us, z):
        """G_P = max(G_T + sigma_prog * z, 0): what write-and-verify leaves in the device ([N], [T]).

        >>> pcmref.PCMModel.joshi2020().program(np.array([0.0, 12.5]), z=np.array([-1.0, 1.0])).round(5).tolist()
        [0.0, 13.4527]
        """
        return np.maximum(g_target_us + self.programming_std_us(g_target_us) * z, 0)

    def stick(self, g_prog_us, u):
        """G_P of devices of which some cannot be programmed: 0 where u < stuck[0], G_max where u >= 1 - stuck[1] (D).

        u are uniform draws. A stuck device keeps the drift exponent and the read noise of its target: an assumption.

        >>> from dataclasses import replace
        >>> model = replace(pcmref.PCMModel.joshi2020(), stuck=(0.1, 0.2))
        >>> model.stick(np.array([5.0, 5.0, 5.0]), u=np.array([0.05, 0.5, 0.9])).tolist()
        [0.0, 5.0, 25.0]
        """
        at_zero, at_g_max = self.stuck
        return np.where(u < at_zero, 0.0, np.where(u >= 1 - at_g_max, self.g_max_us, g_prog_us))

    # ------------------------------------------------------------------------------------------------------- drift

    def _in_branches(self, x, low, above):
        """`low` below x = above[0], from there on the polynomial in x with the coefficients above[1:]."""
        return np.where(x >= above[0], polyval(x, above[1:]), low) if above else low

    def _clipped_log_line(self, x, line, bounds):
        """clip(slope * ln x + intercept, *bounds), x = 0 taken as the smallest number, which ends at a bound."""
        return np.clip(line[0] * np.log(np.maximum(x, np.finfo(np.float64).tiny)) + line[1], *bounds)

    def drift_exponent_mean(self, g_target_us):
        """mu_nu = clip(-0.0155 ln x + 0.0244, 0.049, 0.1) ([N], [T]); 0 in a profile without drift.

        >>> pcmref.PCMModel.joshi2020().drift_exponent_mean(np.array([0.0, 2.5, 25.0])).round(5).tolist()
        [0.1, 0.06009, 0.049]
        """
        x = self._x(g_target_us)
        line = self._clipped_log_line(x, self.nu_mean_line, self.nu_mean_range)
        return self._in_branches(x, line, self.nu_mean_above) * self.drifts

    def drift_exponent_std(self, g_target_us):
        """sigma_nu = clip(-0.0125 ln x - 0.0059, 0.008, 0.045) ([N], [T]); 0 in a profile without drift.

        >>> pcmref.PCMModel.joshi2020().drift_exponent_std(np.array([0.0, 2.5, 25.0])).round(5).tolist()
        [0.045, 0.02288, 0.008]
        """
        x = self._x(g_target_us)
        line = self._clipped_log_line(x, self.nu_std_line, self.nu_std_range)
        return np.maximum(self._in_branches(x, line, self.nu_std_above), 0) * self.drifts

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

        A profile may have a line in ln x in place of the power, and a polynomial from some x on.

        >>> pcmref.PCMModel.joshi2020().read_noise_q(np.array([0.0, 2.5, 25.0])).round(5).tolist()
        [0.2, 0.03931, 0.0088]
        """
        x = np.maximum(np.asarray(g_us) / self.g_max_us, np.finfo(np.float64).tiny)  # a programmed G may exceed G_max
        if self.q_line:
            low = self._clipped_log_line(x, self.q_line, (self.q_min, self.q_max))
        else:
            with np.errstate(over="ignore"):
                low = np.clip(self.q_factor * x**self.q_exponent, self.q_min, self.q_max)
        return np.maximum(self._in_branches(x, low, self.q_above), 0)

    def read_noise_std_us(self, g_drift_us, g_target_us, t_s: float):
        """sigma_nG = G_D * Q_s * sqrt(ln((t + t_r)/(2 t_r))): 1/f noise from 1/(t + t_r) to 1/(2 t_r) ([N], [T])."""
        return g_drift_us * self.read_noise_q(g_target_us) * np.sqrt(self.read_band(t_s)) * self.reads_noisily

    def read_band(self, t_s: float):
        """ln((t + t_r)/(2 t_r)): 1/f noise over the band, in units of Q_s^2 ([N], [T]).

        Where S_G/G^2 = Q_s^2 c/f^gamma, gamma the noise_exponent: c (a(t + t_r) - a(2 t_r)), a(t) = t^(gamma - 1)/(gamma - 1).
        What is known of gamma says nothing of c (D30): here c makes the band at t_0 that of 1/f noise (D).
        """
        ends_s = np.array([self.check_time(t_s) + self.t_r_s, self.t_0_s + self.t_r_s, 2 * self.t_r_s])
        if self.noise_exponent == 1:
            return np.log(ends_s[0] / ends_s[2])
        at_t, at_t_0, shortest = ends_s ** (self.noise_exponent - 1)
        return np.log(ends_s[1] / ends_s[2]) * (at_t - shortest) / (at_t_0 - shortest)

    def read(self, g_drift_us, g_target_us, t_s: float, z):
        """G(t) = max(G_D + sigma_nG * z, 0): one reading of each device ([N], [T]).

        g_target_us is what Q_s depends on; a profile with q_argument "programmed" is given G_P there.

        >>> round(float(pcmref.PCMModel.joshi2020().read(16.6, 25.0, t_s=86_400.0, z=1.0)), 3)
        17.343
        """
        return np.maximum(g_drift_us + self.read_noise_std_us(g_drift_us, g_target_us, t_s) * z, 0)
