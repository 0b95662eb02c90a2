"""A file or folder is replaced as a whole, and a failure leaves what was there and nothing else."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

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
