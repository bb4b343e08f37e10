"""Device files: a device model as a small TOML file, its constants over those of the profile that it is `based_on`.

name = "my-chip"
based_on = "joshi2020"         # or "aihwkit", "crosssim", "hermes"; joshi2020 if it is left out
source = "measured in May"     # where the constants of this file are from
g_max_us = 20.0                # and any other constant of `pcmref device show joshi2020`
"""

import hashlib
import json
from dataclasses import asdict
from pathlib import Path

from pcmref import store
from pcmref.errors import FileError, SettingError
from pcmref.pcm import constants
from pcmref.pcm.model import PCMModel


def read_description(device) -> dict:
    """What a device file says: a shipped profile's, by its name, or the TOML file at a path. FileError, SettingError."""
    path = Path(device)
    if path.suffix != ".toml":
        return constants.description_of(str(device))
    return store.read_toml(path)


def read_device(device) -> PCMModel:
    """The device model of a shipped profile's name, or of a device file; FileError names the file and the constant.

    >>> from pcmref.files.devices import read_device
    >>> read_device("hermes").t_0_s
    300.0
    """
    try:
        return PCMModel.of_description(read_description(device))
    except FileError:
        raise
    except SettingError as error:
        hint = "" if str(device).endswith(".toml") else "; a device file's name ends in .toml"
        raise FileError(f"{device}: {str(error).removeprefix('PCMModel: ')}{hint}") from error


def digest(model: PCMModel) -> str:
    """16 hexadecimal digits that two devices share if all their constants are equal, whatever their names."""
    constants = json.dumps({name: value for name, value in asdict(model).items() if name != "name"}, sort_keys=True)
    plain = json.dumps(json.loads(constants, parse_int=float))  # 20 is 20.0
    return hashlib.sha256(plain.encode()).hexdigest()[:16]


def described(device) -> str:
    """A device file with every constant of a device, each with its unit, grade and source as a comment."""
    model, changed = read_device(device), constants.changes(read_description(device))
    rows = []
    for name, _, unit, grade, source in PCMModel.constants():
        text = f"{name} = {_toml(getattr(model, name))}"
        origin = changed[name][1] if name in changed else f"{grade}; {source}"
        rows.append((text, "; ".join(filter(None, (unit, origin)))))
    width = max(len(text) for text, _ in rows)
    lines = [f"{text:{width}}  # {comment}" for text, comment in rows]
    return "\n".join([f"name = {_toml(model.name)}", *lines]) + "\n"


def _toml(value) -> str:
    """A constant as TOML writes it."""
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{json.dumps(k)} = {v}" for k, v in value.items()) + " }"
    return json.dumps(value)
