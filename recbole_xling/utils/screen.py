"""What is shown on a terminal, and what is not where the output goes to a file."""

from __future__ import annotations

import logging
import re
import sys

from recbole_xling.errors import shown

_COLORS = re.compile(r"\x1b\[[0-9;]*m")


def on_screen() -> bool:
    """Whether somebody sees error output as it comes, on a terminal or in a notebook: bars and colors are for him."""
    return sys.stderr.isatty() or "ipykernel" in sys.modules


class PlainFormatter(logging.Formatter):
    """Formats records without the colors of RecBole's messages."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the text of a record."""
        return shown(_COLORS.sub("", super().format(record)))


def log_to_screen(level: int = logging.INFO) -> None:
    """Send what is logged to error output, with colors on a terminal; nothing happens where logging is set up."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s") if on_screen() else PlainFormatter("%(message)s"))
    logging.basicConfig(level=level, handlers=[handler])
