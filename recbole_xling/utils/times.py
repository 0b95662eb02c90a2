"""Points in time as people and files write them."""

from __future__ import annotations

import argparse
import math
from datetime import datetime, timezone


def parse_time(text: str) -> float | None:
    """Return a time stamp as it is, an ISO date or time (UTC where it names no zone) in Unix seconds, else None."""
    try:
        number = float(text)
        return number if math.isfinite(number) else None
    except ValueError:
        pass
    try:
        time = datetime.fromisoformat(text.strip().replace("Z", "+00:00"))
    except ValueError:
        return None
    return (time if time.tzinfo else time.replace(tzinfo=timezone.utc)).timestamp()


def time_argument(text: str) -> float:
    """Return the time in a word of the command line.

    Raises:
        argparse.ArgumentTypeError: it is none.
    """
    time = parse_time(text)
    if time is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no time; write it like 2015-01-31, or as a number")
    return time
