"""A file or folder is replaced as a whole, and a failure leaves what was there and nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from interrupted import restore, states_before_each_change

from recbole_xling.utils.files import replacing


def write_file(path: Path, content: str) -> None:
    path.write_text(content)


def write_folder(path: Path, content: str) -> None:
    (path / "inner").mkdir(parents=True)
    (path / "inner" / "file").write_text(content)


def content(path: Path) -> str:
    return (path / "inner" / "file" if path.is_dir() else path).read_text()


@pytest.mark.parametrize("write", [write_file, write_folder])
def test_the_new_content_is_on_the_disk_before_it_takes_the_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: Callable[[Path, str], None]
) -> None:
    steps: list[str] = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda descriptor: (steps.append("sync"), fsync(descriptor)))
    monkeypatch.setattr(os, "replace", lambda old, new: (steps.append("replace"), replace(old, new)))
    with replacing(tmp_path / "it") as new:
        write(new, "new")
        assert not (tmp_path / "it").exists()
    assert steps == ["sync", "replace"]
    assert content(tmp_path / "it") == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["it"]


@pytest.mark.parametrize("write", [write_file, write_folder])
def test_files_that_a_library_keeps_to_their_owner_can_be_read_as_others_are(
    tmp_path: Path, write: Callable[[Path, str], None]
) -> None:
    (tmp_path / "usual").write_text("")
    with replacing(tmp_path / "it") as new:
        write(new, "new")
        written = new / "inner" / "file" if new.is_dir() else new
        written.chmod(0o600)
    written = tmp_path / "it" / "inner" / "file" if (tmp_path / "it").is_dir() else tmp_path / "it"
    assert written.stat().st_mode & 0o777 == (tmp_path / "usual").stat().st_mode & 0o777


@pytest.mark.parametrize("write", [write_file, write_folder])
@pytest.mark.parametrize("error", [OSError("full"), KeyboardInterrupt()])
def test_a_failure_leaves_the_old_content(
    tmp_path: Path, write: Callable[[Path, str], None], error: BaseException
) -> None:
    write(tmp_path / "it", "old")
    with pytest.raises(type(error)), replacing(tmp_path / "it") as new:
        write(new, "new")
        raise error
    assert content(tmp_path / "it") == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["it"]


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_disk_that_refuses_the_new_content_keeps_the_old(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    write_file(tmp_path / "it", "old")

    def refuse(*_: object) -> None:
        raise OSError("full")

    monkeypatch.setattr(os, step, refuse)
    with pytest.raises(OSError, match="full"), replacing(tmp_path / "it") as new:
        write_file(new, "new")
    assert content(tmp_path / "it") == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["it"]


def test_two_writers_of_one_file_do_not_meet(tmp_path: Path) -> None:
    with replacing(tmp_path / "it") as first, replacing(tmp_path / "it") as second:
        write_file(first, "first")
        write_file(second, "second")
    assert content(tmp_path / "it") == "first"
    assert [path.name for path in tmp_path.iterdir()] == ["it"]


@pytest.mark.parametrize("write", [write_file, write_folder])
def test_what_a_killed_process_leaves_is_removed_by_the_next_one(
    tmp_path: Path, write: Callable[[Path, str], None]
) -> None:
    (tmp_path / "first").mkdir()

    def work() -> None:
        with replacing(tmp_path / "first" / "it") as new:
            write(new, "new")

    killed = states_before_each_change(tmp_path / "first", work)
    assert len(killed) > 3
    for number, found in enumerate(killed):
        folder = tmp_path / str(number)
        restore(folder, found)
        (folder / ".mine.tmp").write_text("mine")
        with replacing(folder / "other") as new:
            write(new, "other")
        assert {path.name for path in folder.iterdir()} - {"it"} == {"other", ".mine.tmp"}
        if (folder / "it").exists():
            assert content(folder / "it") == "new"


_WAITING = """
import sys
from pathlib import Path
from recbole_xling.utils.files import replacing
with replacing(Path(sys.argv[1])) as new:
    new.write_text("first")
    print("written", flush=True)
    sys.stdin.read()
"""


def test_another_process_that_still_writes_is_left_alone(tmp_path: Path) -> None:
    pytest.importorskip("fcntl")
    pipe = subprocess.PIPE
    command = [sys.executable, "-c", _WAITING, str(tmp_path / "it")]
    with subprocess.Popen(command, stdin=pipe, stdout=pipe) as other:
        assert other.stdout is not None and other.stdout.readline() == b"written\n"
        with replacing(tmp_path / "it") as new:
            write_file(new, "second")
        assert content(tmp_path / "it") == "second"
        other.communicate()
    assert content(tmp_path / "it") == "first"
    assert [path.name for path in tmp_path.iterdir()] == ["it"]


def test_what_older_releases_left_is_removed_after_a_day(tmp_path: Path) -> None:
    names = [".it.0123abcd.tmp", ".it.9999abcd.tmp", ".other.0123abcd.tmp"]
    for name in names:
        (tmp_path / name).write_text("half")
    for name in names[1:]:
        os.utime(tmp_path / name, (time.time() - 90_000,) * 2)
    with replacing(tmp_path / "it") as new:
        write_file(new, "new")
    assert {path.name for path in tmp_path.iterdir()} == {"it", names[0], names[2]}


def test_the_longest_name_that_a_file_can_have_is_written(tmp_path: Path) -> None:
    with replacing(tmp_path / ("x" * 255)) as new:
        write_file(new, "new")
    assert content(tmp_path / ("x" * 255)) == "new"
