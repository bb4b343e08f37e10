"""Times as people write them: `1d` in, `1 day` out."""

import re

from pcmref.errors import SettingError

_UNITS_S = {"s": 1, "min": 60, "h": 3600, "d": 86_400, "y": 365 * 86_400}
DAY_S = 86_400.0
_NAMES = {"s": "s", "min": "min", "h": "h", "d": "day", "y": "year"}
# 20 s; 1, 5, 17 min, where accuracy without compensation collapses; 1 h, 1 day, 30 days, 1 year
STANDARD_TIMES_S = (20.0, 60.0, 300.0, 1020.0, 3600.0, DAY_S, 30 * DAY_S, 365 * DAY_S)


def parse_time(text: str) -> float:
    """Seconds from `20s`, `5min`, `1h`, `30d`, `1y` (365 days) or a plain number of seconds; SettingError otherwise."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?(?:e[+-]?\d+)?)\s*(s|min|h|d|y)?\s*", text)
    if match is None:
        raise SettingError(f"{text!r} is not a time; write for example 20s, 5min, 1h, 30d or 1y")
    return float(match[1]) * _UNITS_S[match[2] or "s"]


def human_time(t_s: float) -> str:
    """`20 s`, `1 h`, `1 day`, `30 days`, `1 year`: in the largest unit that gives at least 1."""
    unit = next((u for u in ("y", "d", "h", "min") if t_s >= _UNITS_S[u]), "s")
    count = f"{t_s / _UNITS_S[unit]:.4g}"
    plural = "s" if unit in "dy" and count != "1" else ""
    return f"{count} {_NAMES[unit]}{plural}"
