"""Several files of a folder that are replaced together: one protocol for all who write or read a dataset.

A writer puts its new files into a hidden folder, lists what it is about to replace, keeps the previous files until all
new ones have moved, and removes the list. A list that is still there is of a writer that was killed on the way: whoever
comes next, reader or writer, puts the previous files back.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from recbole_xling.errors import DataError
from recbole_xling.utils.files import FolderLock, sync
from recbole_xling.utils.json_text import parse_json

_STAGING = ".xling.staging"
_JOURNAL = "replacing.json"
_OLD_JOURNAL = "replacing"  # of older releases
_PATIENCE = 5.0  # seconds a reader waits for a writer that moves its files


class Staging:
    """A hidden folder inside the folder of the files that it replaces together.

    New files are written to :attr:`new`; :meth:`commit` moves them into place. Until all have moved, the staging folder
    keeps the previous files and its file ``replacing.json`` lists both. So whoever comes next can undo a commit that
    did not finish, whichever command began it.

    Args:
        folder: the folder of the files.
        names: the files that belong together; one that :attr:`new` lacks is removed.
    """

    def __init__(self, folder: Path, names: Sequence[str]) -> None:
        self.folder = folder
        self.names = tuple(names)
        self.path = folder / _STAGING
        self.new = self.path / "new"

    def commit(self) -> None:
        """Move the new files into place."""
        old, journal = self.path / "old", self.path / _JOURNAL
        old.mkdir()
        previous = [name for name in self.names if (self.folder / name).exists()]
        for name in previous:
            try:
                os.link(self.folder / name, old / name)
            except OSError:  # a file system without hard links
                shutil.copy2(self.folder / name, old / name)
                sync(old / name)
        arriving = sorted(os.listdir(self.new))
        for name in arriving:
            sync(self.new / name)
        sync(old)
        sync(self.new)
        draft = journal.with_suffix(".tmp")
        draft.write_text(json.dumps({"old": previous, "new": arriving}), encoding="utf-8")
        sync(draft)
        os.replace(draft, journal)
        sync(self.path)
        sync(self.folder)
        for name in arriving:
            os.replace(self.new / name, self.folder / name)
        for name in previous:
            if name not in arriving:
                (self.folder / name).unlink()
        sync(self.folder)
        journal.unlink()  # from here on the new files count
        sync(self.path)


@contextmanager
def staged(folder: Path, names: Sequence[str]) -> Iterator[Staging]:
    """Yield an empty staging folder; afterwards it is gone, and so are folders that were made for it and stayed empty.

    A commit that fails is undone, and so is one that a killed process left, before anything else is done.

    Args:
        folder: the folder of the files, made if it does not exist.
        names: the files that belong together.

    Raises:
        DataError: another process is writing to ``folder``.
    """
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _locked(folder):
            _recover(folder)
            staging = Staging(folder, names)
            try:
                staging.new.mkdir(parents=True)
                yield staging
            finally:
                _recover(folder)
    except OSError as error:
        if error.filename is None and error.errno in (errno.ENOSPC, errno.EDQUOT):
            error.filename = str(folder)  # a full disk names no file
        raise
    finally:
        for path in made:
            with suppress(OSError):
                path.rmdir()


@contextmanager
def reading(folder: Path, dataset: str) -> Iterator[None]:
    """Read the files of a dataset meanwhile, all as one writer left them.

    Args:
        folder: the folder of the dataset.
        dataset: its name, with which the names of its files begin.

    Raises:
        DataError: as for :func:`settle`, or another process has replaced a file meanwhile.
    """
    settle(folder)
    before = _state(folder, dataset)
    yield
    if _state(folder, dataset) != before:
        raise DataError(f"another process has changed the dataset in {folder} while it was read; run again")


def settle(folder: Path) -> None:
    """Undo what a writer left that was killed while it replaced files of a folder; call this before reading them.

    Raises:
        DataError: another process is replacing files right now, or nothing may be written to ``folder``.
    """
    if not any((path / name).exists() for path in _stagings(folder) for name in (_JOURNAL, _OLD_JOURNAL)):
        return
    interrupted = f"a command that replaced files in {folder} was interrupted, so old and new ones are mixed"
    try:
        with _locked(folder, patience=_PATIENCE) as is_locked:
            if not is_locked:
                raise DataError(f"{interrupted}: run that command again")
            _recover(folder)
    except OSError as error:
        raise DataError(
            f"{interrupted}, and they cannot be restored ({error.strerror or error}): run any command on this dataset "
            "as a user who may write there"
        ) from error


def _state(folder: Path, dataset: str) -> dict[str, tuple[int, int, int]]:
    """Return what changes when a file of a dataset is written or replaced."""
    states = {}
    with suppress(FileNotFoundError):
        for file in os.scandir(folder):
            if file.name.startswith(f"{dataset}."):
                state = file.stat()
                states[file.name] = (state.st_ino, state.st_size, state.st_mtime_ns)
    return states


def _stagings(folder: Path) -> list[Path]:
    """Return the staging folders in a folder; older releases have one for the dataset and one for its card."""
    names = (_STAGING, f".{folder.name}.staging", ".card.staging")
    return [folder / name for name in names if (folder / name).is_dir()]


def _recover(folder: Path) -> None:
    """Undo commits that did not finish, and remove the staging folders."""
    for staging in _stagings(folder):
        for journal in (staging / _JOURNAL, staging / _OLD_JOURNAL):
            if not journal.exists():
                continue
            previous, arriving = _listed(journal)
            for name in previous:
                if (staging / "old" / name).exists():
                    os.replace(staging / "old" / name, folder / name)
            for name in arriving:
                if name not in previous:
                    (folder / name).unlink(missing_ok=True)
            sync(folder)
            journal.unlink()
            sync(staging)
        shutil.rmtree(staging)


def _listed(journal: Path) -> tuple[list[str], list[str]]:
    """Return the names of the previous files, and of those that may have taken their place."""
    text = journal.read_text(encoding="utf-8")
    if journal.name == _JOURNAL:
        names = parse_json(text)
        return names["old"], names["new"]
    # An older release lists the previous files only. A translator has no others; the names of the others are known.
    label, arriving = journal.parent.name[1 : -len(".staging")], []
    if (journal.parent / "records").exists():
        kinds = ("itemtext.jsonl", "inter", "item", "user", "imp", "rejects.jsonl", "convert.json")
        arriving = [f"{label}.{kind}" for kind in kinds]
    elif label == "card":
        arriving = ["card.json", "card.html"]
    return text.splitlines(), arriving


@contextmanager
def _locked(folder: Path, *, patience: float = 0.0) -> Iterator[bool]:
    """Lock a folder meanwhile; yield whether it is, as not every file system has locks.

    Raises:
        DataError: another process keeps it locked.
    """
    end = time.monotonic() + patience
    while True:
        lock = FolderLock(folder)
        if lock.is_held or lock.is_impossible:
            break
        lock.release()
        if time.monotonic() >= end:
            raise DataError(f"another process is writing to {folder}; wait until it has finished")
        time.sleep(0.05)
    try:
        yield lock.is_held
    finally:
        lock.release()
