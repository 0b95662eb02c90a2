"""Folders kept for later runs: made once, by one process, checked, refused with a reason, and not kept forever."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest

from recbole_xling.errors import XlingError
from recbole_xling.utils.kept_folder import kept_folder


def _maker(content: str = "one", seconds: float = 0.0):
    calls = []

    def make(folder: Path) -> None:
        calls.append(folder)
        (folder / "file").write_text(content)
        time.sleep(seconds)

    return make, calls


def test_files_are_made_once_and_again_when_one_is_missing(tmp_path):
    make, calls = _maker()
    for _ in range(2):
        assert (kept_folder(tmp_path / "all" / "a", make, "things") / "file").read_text() == "one"
    assert len(calls) == 1
    (tmp_path / "all" / "a" / "file").unlink()
    kept_folder(tmp_path / "all" / "a", make, "things")
    assert len(calls) == 2 and os.listdir(tmp_path / "all") == ["a"]


def test_one_makes_them_and_others_wait(tmp_path):
    make, calls = _maker(seconds=0.2)
    several = [threading.Thread(target=kept_folder, args=(tmp_path / "a", make, "things")) for _ in range(3)]
    for one in several:
        one.start()
    for one in several:
        one.join()
    assert len(calls) == 1


def test_nothing_half_written_stays(tmp_path):
    def fail(folder: Path) -> None:
        (folder / "file").write_text("half")
        raise OSError(28, "No space left on device")

    with pytest.raises(XlingError, match=r"cannot write the things cache.*No space left"):
        kept_folder(tmp_path / "all" / "a", fail, "things")
    assert not os.listdir(tmp_path / "all")


def test_what_no_run_has_used_for_long_is_deleted_when_something_is_made(tmp_path):
    make, _ = _maker()
    for name in ("old", "used"):
        kept_folder(tmp_path / name, make, "things")
        os.utime(tmp_path / name / "checksums.json", (1, 1))
    kept_folder(tmp_path / "used", make, "things")
    kept_folder(tmp_path / "new", make, "things")
    assert sorted(os.listdir(tmp_path)) == ["new", "used"]


def test_what_somebody_reads_who_may_not_touch_it_is_kept(tmp_path):
    make, _ = _maker()
    for name, read in (("read", time.time()), ("old", 1)):
        kept_folder(tmp_path / name, make, "things")
        os.utime(tmp_path / name / "checksums.json", (read, 1))
    kept_folder(tmp_path / "new", make, "things")
    assert sorted(os.listdir(tmp_path)) == ["new", "read"]
