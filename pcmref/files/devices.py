"""Device files: a device model as a small TOML file, its constants over those of the profile that it is `based_on`.

name = "my-chip"
based_on = "joshi2020"         # or "aihwkit", "crosssim", "hermes"; joshi2020 if it is left out
source = "measured in May"     # where the constants of this file are from
g_max_us = 20.0                # and any other constant of `pcmref device show joshi2020`
"""

import csv
import json
from pathlib import Path

import numpy as np

from pcmref import store
from pcmref.errors import DeviceError, FileError, SettingError
from pcmref.pcm import constants
from pcmref.pcm.fit import DeviceFit, Readings
from pcmref.pcm.model import PCMModel

COLUMNS = ("device", "target_us", "t_s", "g_us")  # of a table of measurements
LARGEST_TABLE = 64 << 20  # bytes


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


# -------------------------------------------------------------------------------------------------------- measurements


def read_measurements(path) -> Readings:
    """The readings in a CSV file with the columns device, target_us, t_s and g_us, a row a reading; others are left aside.

    A row without g_us is a gap. FileError names the row and what it holds: no number, a negative conductance, a time of 0, a
    device with two targets, conductances that look like siemens.
    """
    store.size_limit(path, LARGEST_TABLE)
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            rows = csv.reader(file)
            places = _places(path, next(rows, []))
            table = [[row[i].strip() if i < len(row) else "" for i in places] for row in rows if any(map(str.strip, row))]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise FileError(f"{path}: cannot be read as a CSV file: {error}") from error
    numbers = _numbers(path, table)
    target_us, t_s, g_us = numbers[np.isfinite(numbers[:, 2])].T
    device = np.array([row[0] for row in table])[np.isfinite(numbers[:, 2])]
    if len(g_us) == 0:
        raise FileError(f"{path}: holds no readings")
    if 0 < g_us.max() < 0.01 <= 1e6 * g_us.max():
        raise FileError(f"{path}: no g_us is above {g_us.max():g}; conductances in siemens must be multiplied by 1e6")
    try:
        return Readings.of_rows(device, target_us, t_s, g_us)
    except DeviceError as error:
        raise FileError(f"{path}: {error}") from error


def _places(path, head: list[str]) -> list[int]:
    """Where the columns are in a table."""
    names = [name.strip() for name in head]
    if missing := [name for name in COLUMNS if names.count(name) != 1]:
        raise FileError(f"{path}: needs the columns {', '.join(COLUMNS)}, each once; {missing} not so in {names[:10]}")
    return [names.index(name) for name in COLUMNS]


def _numbers(path, table: list[list[str]]) -> np.ndarray:
    """target_us, t_s and g_us of every row: [n, 3]; NaN for a gap."""
    numbers = np.empty((len(table), 3))
    for i, (_, *texts) in enumerate(table):
        for j, text in enumerate(texts):
            try:
                value = np.nan if j == 2 and text.lower() in ("", "nan", "na") else float(text)
            except ValueError:
                value = -1.0
            if not (0 <= value < np.inf or (j == 2 and np.isnan(value))) or (j == 1 and value == 0):
                raise FileError(f"{path}: row {i + 2}: {COLUMNS[j + 1]} must be a number from 0, a time above 0; got {text!r}")
            numbers[i, j] = value
    return numbers


def fitted(fit: DeviceFit, based_on: str, source: str) -> str:
    """A device file of a fit: each constant with its 95 % interval; what the data cannot tell is left to `based_on`."""
    lines = [f"name = {_toml(fit.model.name)}", f"based_on = {_toml(based_on)}", f"source = {_toml(source)}"]
    lines += [f"# {note}" for note in (*fit.notes, *fit.misfits)]
    default = read_device(based_on)
    for name, *_ in PCMModel.constants():
        value, told = getattr(fit.model, name), [e for e in fit.estimates if e.constant == name]
        if value != getattr(default, name) or told:
            intervals = [f"{e.low:.4g} to {e.high:.4g}" if e.low is not None else "not told by the data" for e in told]
            lines.append(f"{name} = {_toml(value)}" + f"  # 95 %: {', '.join(intervals)}" * bool(told))
    return "\n".join(lines) + "\n"
