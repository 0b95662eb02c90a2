"""Times that people ask for, in the unit of the data."""

from __future__ import annotations

import argparse

import polars as pl

from recbole_xling.convert.reading.numbers import number_text, written_number
from recbole_xling.convert.writing.interactions import InteractionTable
from recbole_xling.errors import ConfigError
from recbole_xling.utils.arguments import parse_iso_time

UNIX_SECONDS = (473385600.0, 4102444800.0)
"""Between 1985 and 2099: what looks like Unix time."""
UNITS = (1.0, 1e3, 1e6, 1e9)
"""How many units make a second, from seconds to nanoseconds."""
_NAMES = ("seconds", "milliseconds", "microseconds", "nanoseconds")


class Date(float):
    """A time that was given as a date: Unix seconds, whatever the unit of the data; a mere number has theirs."""

    __slots__ = ()


def time_argument(text: str) -> float:
    """Return the time in an argument of the command line.

    Raises:
        argparse.ArgumentTypeError: it is not a time.
    """
    number = written_number(text)
    if number is not None:
        return number
    seconds = parse_iso_time(text)
    if seconds is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not a time; write it like 2015-01-31, or as a number")
    return Date(seconds)


def in_unit_of(interactions: InteractionTable, option: str, time: float | None) -> float | None:
    """Return a time in the unit of a table's times, which is the one in which most of them are between 1985 and 2099.

    Args:
        interactions: the table.
        option: that gave the time.
        time: returned as it is if it was not given as a date, or if the table has no times.

    Raises:
        ConfigError: it was given as a date, and the table's times are none.
    """
    if not isinstance(time, Date) or "timestamp" not in interactions.columns:
        return time
    counts, ends = _dates_by_unit(interactions)
    if not any(counts):
        raise ConfigError(
            f"{option} is a date, but the time stamps of the source ({' to '.join(map(number_text, ends))}) are no "
            "Unix times of 1985 to 2099; give it as a number in their unit"
        )
    return time * UNITS[counts.index(max(counts))]


def mixed_units(interactions: InteractionTable) -> str:
    """Return a note on times that are dates in several units; empty where one unit makes dates of all."""
    if "timestamp" not in interactions.columns:
        return ""
    counts, _ = _dates_by_unit(interactions)
    found = [f"{count:,} in {name}" for count, name in zip(counts, _NAMES, strict=True) if count]
    if len(found) < 2:
        return ""
    return f"times are dates in several units ({', '.join(found)}), so their order is wrong: bring them to one unit"


def _dates_by_unit(interactions: InteractionTable) -> tuple[list[int], tuple[float, float]]:
    """Return how many times are between 1985 and 2099 in each unit, and the first and the last one."""
    times = pl.col("timestamp")
    first, last = UNIX_SECONDS
    dates = (times.is_between(first * unit, last * unit).sum().alias(str(unit)) for unit in UNITS)
    found = interactions.scan().select(*dates, first=times.min(), last=times.max()).collect(engine="streaming").row(0)
    return list(found[: len(UNITS)]), found[len(UNITS) :]
