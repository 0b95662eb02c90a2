"""Values as people write them, on the command line and in files: lists, numbers and times."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from datetime import datetime, timezone

from recbole_xling.errors import ConfigError

FINER_THAN_MICROSECONDS = r"[.,]\d{6}\d*[1-9]"
"""Matches what :func:`parse_iso_time` cuts off."""


def comma_list(text: str) -> tuple[str, ...]:
    """Return the words between commas, without the empty ones."""
    return tuple(word.strip() for word in text.split(",") if word.strip())


def file_list(text: str) -> list[str]:
    """Return the files between spaces; a file whose own name has spaces is one."""
    return [text] if os.path.isfile(text) else text.split()


def settings_of_words(words: Sequence[str]) -> dict[str, str]:
    """Return the settings of arguments ``--key=value``, as they are written.

    Raises:
        ConfigError: an argument has another form, or two contradict each other.
    """
    settings: dict[str, str] = {}
    for word in words:
        key, equals, value = word.removeprefix("--").partition("=")
        if not word.startswith("--") or not equals or not key:
            raise ConfigError(f"argument '{word}' is not understood; settings are written --key=value")
        if settings.get(key, value) != value:
            raise ConfigError(f"argument '--{key}' is given twice with different values")
        settings[key] = value
    return settings


def finite_number(value: str | float) -> float | None:
    """Return a number, None if it is not finite or not a number."""
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def parse_iso_time(text: str) -> float | None:
    """Return an ISO date or time (UTC if it names no zone) in Unix seconds, None for anything else."""
    try:
        time = datetime.fromisoformat(text.strip().replace("Z", "+00:00"))
    except ValueError:
        return None
    return (time if time.tzinfo else time.replace(tzinfo=timezone.utc)).timestamp()
