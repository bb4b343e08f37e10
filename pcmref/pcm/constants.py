"""The constants of a device: where each comes from, what it may be, and the profiles that ship as PROFILE.toml."""

import hashlib
import json
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, field, fields
from pathlib import Path

import numpy as np

from pcmref.errors import SettingError
from pcmref.pcm.gdc import READ_OUTS

PAPER = "joshi2020"  # the profile whose constants are the defaults of PCMModel
NOT_CONSTANTS = ("based_on", "source")  # entries of a device file beside its constants
BRANCH = (0, 2, 3, 4, 5)  # how many numbers a polynomial from some x on may be, that x among them
CHOICES = {
    "nu_law": ("gaussian", "folded", "clamped"),
    "q_argument": ("target", "programmed", "stretched"),
    "pair": ("kept", "collapsed"),
    "gdc_read_out": READ_OUTS,
    "gdc_baseline": ("read", "programmed", "target"),
}


def constant(value, unit: str, grade: str, source: str, lengths: tuple[int, ...] = ()):
    """A field of the device model with where it comes from: its default, and how many numbers it may be."""
    if isinstance(value, tuple):
        lengths = lengths or (len(value),)
    about = {"unit": unit, "grade": grade, "source": source, "lengths": lengths}
    return field(default=value, metadata=about)


def check(model) -> None:
    """SettingError that names the constant of a device that is of another kind, or impossible."""
    for constant in (f for f in fields(model) if f.metadata):
        _check_kind(constant.name, getattr(model, constant.name), constant.default, **constant.metadata)
    for name in ("g_max_us", "programming_g_max_us", "t_0_s", "t_r_s", "q_max", "noise_exponent"):
        if getattr(model, name) <= 0:
            raise SettingError(f"PCMModel: {name} must be above 0, got {getattr(model, name)!r}")
    if model.q_factor < 0 or model.q_exponent > 0:
        raise SettingError(f"PCMModel: q_factor from 0 and q_exponent to 0, got {model.q_factor!r} and {model.q_exponent!r}")
    if model.pair == "collapsed" and model.devices_per_weight != 1:
        raise SettingError("PCMModel: a pair collapsed to its net is one device a sign; devices_per_weight must be 1")
    ranges = {name: getattr(model, name) for name in ("nu_mean_range", "nu_std_range")}
    for name, (low, high) in (ranges | {"(q_min, q_max)": (model.q_min, model.q_max)}).items():
        if low > high or (name != "nu_mean_range" and low < 0):
            raise SettingError(f"PCMModel: {name} must be (low, high), deviations from 0; got {(low, high)!r}")
    if min(model.stuck) < 0 or sum(model.stuck) > 1:
        raise SettingError(f"PCMModel: stuck must be two shares from 0, together at most 1; got {model.stuck!r}")
    if not 0 <= model.g_min_us < model.g_max_us:
        raise SettingError(f"PCMModel: g_min_us must lie in 0..{model.g_max_us}, got {model.g_min_us!r}")
    if model.t_0_s <= model.t_r_s:
        raise SettingError(f"PCMModel: t_0_s {model.t_0_s} must be longer than a read pulse, t_r_s {model.t_r_s}")


def _check_kind(name: str, value, default, lengths, **_) -> None:
    """True or False, a word, a finite number, or a tuple of as many as may be: as the default."""
    if name in CHOICES:
        fits, expected = isinstance(value, str) and value in CHOICES[name], f"one of {CHOICES[name]}"
    elif name == "devices_per_weight":
        fits = all(type(n) is int and n >= 1 for n in (value.values() if isinstance(value, Mapping) else (value,)))
        expected = "1, or {crossbar: 1}, from 1"
    elif isinstance(default, bool):
        fits, expected = isinstance(value, bool), "True or False"
    else:
        fits = len(value) in lengths if lengths and isinstance(value, tuple) else not lengths
        fits &= all(type(v) in (int, float) and np.isfinite(v) for v in (value if isinstance(value, tuple) else (value,)))
        expected = f"{' or '.join(map(str, lengths))} finite numbers" if lengths else "a finite number"
    if not fits:
        raise SettingError(f"PCMModel: {name} must be {expected}; got {value!r}")


def profiles() -> list[str]:
    """The names of the devices that ship: the paper's first."""
    return [PAPER, *sorted(path.stem for path in Path(__file__).parent.glob("*.toml"))]


def description_of(profile: str) -> dict:
    """What the file of a shipped profile says; SettingError names the profiles."""
    if profile not in profiles():
        raise SettingError(f"device must be one of {profiles()}, got {profile!r}")
    if profile == PAPER:
        return {"name": PAPER}
    return tomllib.loads(Path(__file__).with_name(f"{profile}.toml").read_text(encoding="utf-8"))


def changes(description: Mapping) -> dict[str, tuple[object, str]]:
    """{constant: (value, where it is from)} of all that a device changes of the paper's: by its own file and its bases'."""
    name, base = description.get("name"), description.get("based_on", PAPER)
    source = description.get("source", f"device {name}")
    for what, text in (("name", name), ("source", source)):
        if not (isinstance(text, str) and text.strip() and text.isprintable()):
            raise SettingError(f"a device needs a {what}, a line of text; got {text!r}")
    own = {k: tuple(v) if isinstance(v, list) else v for k, v in description.items() if k not in NOT_CONSTANTS}
    inherited = changes(description_of(base)) if base != PAPER else {}
    return inherited | {k: (v, source) for k, v in own.items()}


def digest(model) -> str:
    """16 hexadecimal digits that two devices share if all their constants are equal, whatever their names."""
    plain = json.dumps({name: value for name, value in asdict(model).items() if name != "name"}, sort_keys=True)
    plain = json.dumps(json.loads(plain, parse_int=float))  # 20 is 20.0
    return hashlib.sha256(plain.encode()).hexdigest()[:16]
