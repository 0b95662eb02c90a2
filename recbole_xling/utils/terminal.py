"""Logs on a terminal: titles and ids come from anywhere and must not steer it."""

from __future__ import annotations

import io
import logging
import os
import sys
from typing import Any

from recbole_xling.errors import shown


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
