"""Colors and bars are for terminals."""

from __future__ import annotations

import io
import logging
import sys

import pytest

from recbole_xling.utils.screen import log_to_screen, on_screen


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("stream", "written"), [(Terminal(), "\x1b[1;34mblue\x1b[0m\n"), (io.StringIO(), "blue\n")])
def test_a_log_has_colors_on_a_terminal_only(monkeypatch, stream, written):
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [])
    monkeypatch.setattr(root, "level", root.level)
    monkeypatch.setattr(sys, "stderr", stream)
    assert on_screen() is stream.isatty()
    log_to_screen()
    logging.getLogger("recbole").info("\x1b[1;34mblue\x1b[0m")
    assert stream.getvalue() == written
