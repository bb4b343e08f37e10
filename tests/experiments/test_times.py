"""Times as people write them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pcmref.errors import SettingError
from pcmref.experiments.times import STANDARD_TIMES_S, human_time, parse_time


@pytest.mark.parametrize(
    ("text", "t_s"),
    [
        ("20s", 20),
        ("20", 20),
        ("5min", 300),
        ("1h", 3600),
        ("1d", 86_400),
        ("30d", 2_592_000),
        ("1y", 31_536_000),
        ("1.5 h", 5400),
    ],
)
def test_times_are_parsed(text, t_s):
    assert parse_time(text) == t_s


def test_times_are_shown_as_people_say_them():
    shown = [
        "20 s",
        "1 min",
        "5 min",
        "17 min",
        "1 h",
        "1 day",
        "30 days",
        "1 year",
    ]
    assert [human_time(t) for t in STANDARD_TIMES_S] == shown
    assert [human_time(t) for t in (90, 172_800, 2 * 31_536_000, 0.5)] == ["1.5 min", "2 days", "2 years", "0.5 s"]


@given(st.sampled_from(["s", "min", "h", "d", "y"]), st.integers(1, 20))
def test_what_is_shown_parses_back(unit, count):
    t_s = parse_time(f"{count}{unit}")
    number, name = human_time(t_s).split()
    assert parse_time(number + {"day": "d", "days": "d", "year": "y", "years": "y"}.get(name, name)) == pytest.approx(
        t_s, rel=1e-3
    )


@pytest.mark.parametrize("text", ["", "1w", "-1s", "day", "nan", "inf", "1e999s x"])
def test_what_is_no_time_is_named(text):
    with pytest.raises(SettingError, match="is not a time"):
        parse_time(text)
