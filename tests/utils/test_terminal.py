"""No text of a dataset can steer the terminal on which it is shown."""

from __future__ import annotations

import io
import logging
import subprocess
import sys
from pathlib import Path

import pytest

from recbole_xling.cli.main import tell
from recbole_xling.errors import DataError, shown
from recbole_xling.utils.run_folder import RunFileHandler
from recbole_xling.utils.terminal import log_to_screen, on_screen, prepare_terminal

EVIL = "\x1b]0;owned\x07\x1b[2J\r\x9b31m\u202egpj\u2028"
HARMLESS = r"\x1b]0;owned\x07\x1b[2J\r\x9b31m\u202egpj\u2028"


@pytest.fixture
def terminal():
    before = logging.getLogRecordFactory()
    prepare_terminal()
    yield
    logging.setLogRecordFactory(before)


def test_escapes_are_shown_and_other_texts_stay() -> None:
    assert shown(EVIL) == HARMLESS
    assert shown("Müll\t七人の侍\n👩‍🚀 שלום") == "Müll\t七人の侍\n👩‍🚀 שלום"
    assert shown("\ud83d") == r"\ud83d"


def test_errors_logs_and_results_show_escapes(terminal, capsys, caplog, monkeypatch) -> None:
    assert str(DataError(f"item '{EVIL}'")) == f"item '{HARMLESS}'"
    tell(f"title {EVIL}")
    assert capsys.readouterr().out == f"title {HARMLESS}\n"
    # RecBole's handlers, which a run of it leaves on the root logger, take the colors out of the records themselves
    monkeypatch.setattr(logging.getLogger(), "handlers", [caplog.handler])
    with caplog.at_level(logging.INFO):
        logging.getLogger("any").info("%s of %d: %s", EVIL, 3, ValueError(EVIL))
        logging.getLogger("any").info("\x1b[1;32mRecBole's own colors\x1b[0m")
    assert caplog.messages == [f"{HARMLESS} of 3: {HARMLESS}", "\x1b[1;32mRecBole's own colors\x1b[0m"]


def test_a_reader_that_has_enough_is_no_error(tmp_path: Path) -> None:
    script = "from recbole_xling.cli.main import tell; tell('x' * 200_000)"
    done = subprocess.run(
        [f"'{sys.executable}' -c \"{script}\" | head -c 5"], shell=True, capture_output=True, text=True
    )
    assert (done.stdout, done.stderr) == ("xxxxx", "")


def test_a_full_disk_does_not_stop_the_log_on_the_terminal(tmp_path: Path, full_disk, capsys) -> None:
    handler = RunFileHandler(tmp_path)
    handler.stream.close()
    handler.stream = type("Full", (), {"write": full_disk, "flush": lambda _: None})()
    handler.emit(logging.LogRecord("any", logging.INFO, "", 0, "message", (), None))
    assert capsys.readouterr().err == ""


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
