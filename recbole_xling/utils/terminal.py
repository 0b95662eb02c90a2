"""What is shown on a terminal, and what is not where the output goes to a file; titles and ids must not steer one."""

from __future__ import annotations

import io
import json
import logging
import os
import re
import sys
from typing import Any

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


def prepare_terminal() -> None:
    """Make everything that is logged from now on safe to print, and printable in the terminal's encoding."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    logging.setLogRecordFactory(_ShownRecord)


class _ShownRecord(logging.LogRecord):
    """A log record whose texts are safe to print; the message itself may have colors, as RecBole's have."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        if isinstance(self.args, tuple):
            is_text = (str, BaseException, os.PathLike)
            self.args = tuple(shown(str(arg)) if isinstance(arg, is_text) else arg for arg in self.args)


def json_line(content: Any) -> str:
    """Return plain data as a line of JSON that is safe to print; letters of all scripts stay readable."""
    line = json.dumps(content, ensure_ascii=False)
    if shown(line) == line:
        return line
    return "".join(char if shown(char) == char else f"\\u{ord(char):04x}" for char in line)
