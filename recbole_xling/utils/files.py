"""Files and folders that appear whole or not at all, locks on folders, and the folders of caches."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import stat
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

from recbole_xling.errors import XlingError

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None  # type: ignore[assignment]

_OWN_FOLDER = re.compile(r"\.xling-[0-9a-f]{8}\.tmp")
_DAY = 86_400.0  # seconds


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a free path of the same name; the file or folder written there takes the place of ``path`` at the end.

    A reader finds the old content or the new one, whole: the disk has the new one before it moves, and whoever may
    read new files of this process may read it, whatever wrote it. After a failure ``path`` is as it was and the new
    content is gone. What a killed process leaves, a hidden folder ``.xling-*.tmp`` beside ``path``, is removed by the
    next one that replaces something there.
    """
    _remove_leftovers(path)
    with _own_folder(path.parent) as own:
        new = own / path.name
        yield new
        usual = stat.S_IMODE(own.stat().st_mode)
        for written in new.rglob("*") if new.is_dir() else [new]:
            if written.is_file():
                _open_to_others(written, usual & 0o666)
                sync(written)
        os.replace(new, path)


def _open_to_others(written: Path, mode: int) -> None:
    """Give a file the mode of new files: some libraries write such that the owner alone can read."""
    if stat.S_IMODE(written.stat().st_mode) & mode != mode and not written.is_symlink():
        with suppress(OSError):  # not every file system has modes
            written.chmod(mode)


def write_text(path: Path, text: str) -> None:
    """Write a file, all or nothing.

    Raises:
        XlingError: the disk refuses it.
    """
    try:
        with replacing(path) as new:
            new.write_text(text, encoding="utf-8")
    except OSError as error:
        raise XlingError(f"cannot write '{path}': {error}") from error


@contextmanager
def _own_folder(parent: Path) -> Iterator[Path]:
    """Yield a new hidden folder that is locked as long as this process needs it, and gone afterwards."""
    while True:
        own = parent / f".xling-{uuid.uuid4().hex[:8]}.tmp"
        own.mkdir()
        lock = FolderLock(own, wait=True)
        if own.is_dir():
            break  # else another process has taken it for a leftover before it was locked
        lock.release()
    try:
        yield own
    finally:
        shutil.rmtree(own, ignore_errors=True)
        lock.release()


def _remove_leftovers(path: Path) -> None:
    """Remove what killed processes left beside ``path``; a folder in use is locked."""
    older_release = re.compile(rf"\.{re.escape(path.name)}\.[0-9a-f]{{8}}\.tmp")  # files or folders, not locked
    with suppress(OSError):
        for found in path.parent.iterdir():
            if _OWN_FOLDER.fullmatch(found.name):
                lock = FolderLock(found)
                if lock.is_held or (lock.is_impossible and _is_old(found)):
                    shutil.rmtree(found, ignore_errors=True)
                lock.release()
            elif older_release.fullmatch(found.name) and _is_old(found):
                if found.is_dir():
                    shutil.rmtree(found, ignore_errors=True)
                else:
                    found.unlink(missing_ok=True)


def _is_old(path: Path) -> bool:
    """Whether nobody has written to a file or folder for a day."""
    return path.stat().st_mtime < time.time() - _DAY


def sync(path: Path) -> None:
    """Wait until the disk has a file, or the names in a folder where the system can wait for these.

    Raises:
        OSError: the disk refuses the file.
    """
    if not path.is_dir():
        with path.open("rb+") as file:
            os.fsync(file.fileno())
        return
    with suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextmanager
def polars_os_errors(path: Path) -> Iterator[None]:
    """Raise an error of the disk as Python does: polars tells it in the text of other errors, without the file.

    Args:
        path: of the file that polars writes.

    Raises:
        OSError: in place of polars' error.
    """
    try:
        yield
    except Exception as error:  # to name polars' error would import polars
        number = re.search(r"\(os error (\d+)\)", str(error))
        if number is None:
            raise
        raise OSError(int(number[1]), os.strerror(int(number[1])), str(path)) from error


class FolderLock:
    """A lock on a folder itself, or on a file that is not replaced: it leaves no file and ends with the process.

    Args:
        folder: what to lock; nothing is locked if it is gone.
        wait: until another process has released it.

    Attributes:
        is_held: whether this object has the lock.
        is_impossible: whether the system or file system has no locks.
    """

    def __init__(self, folder: Path, *, wait: bool = False) -> None:
        self.is_held = False
        self.is_impossible = fcntl is None
        self._descriptor: int | None = None
        if fcntl is None:
            return
        with suppress(FileNotFoundError):
            self._descriptor = os.open(folder, os.O_RDONLY)
        if self._descriptor is not None:
            try:
                fcntl.flock(self._descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
                self.is_held = True
            except OSError as error:
                self.is_impossible = error.errno not in (errno.EWOULDBLOCK, errno.EACCES)

    def release(self) -> None:
        """Release the lock if it is held."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


@contextmanager
def locked(path: Path, refusal: Exception) -> Iterator[None]:
    """Keep a folder, or a file that is not replaced, for this process meanwhile, as far as its file system has locks.

    Raises:
        Exception: ``refusal``, if another process has it.
    """
    lock = FolderLock(path)
    try:
        if not (lock.is_held or lock.is_impossible):
            raise refusal
        yield
    finally:
        lock.release()


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file's bytes as hexadecimal digits; the file is read in blocks."""
    found = sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            found.update(block)
    return found.hexdigest()


# ---- caches ---------------------------------------------------------------------------------------------------


def identity_folder(root: Path, identity: Mapping[str, Any]) -> Path:
    """Return the folder below ``root`` of what has this identity, named after its hash; it need not exist yet."""
    text = json.dumps(identity, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return root / sha256(text.encode()).hexdigest()[:16]


def write_identity(path: Path, identity: Mapping[str, Any]) -> None:
    """Write the file that tells people whose folder it is in."""
    text = json.dumps(identity, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    with replacing(path) as new:
        new.write_bytes(text.encode("utf-8", "surrogatepass"))


@contextmanager
def clear_write_errors(folder: Path, cache: str, kept: str) -> Iterator[None]:
    """Say what to do when the disk refuses a write.

    Args:
        folder: where the cache writes.
        cache: what the cache is of, for the message.
        kept: what becomes of the content stored before, for the message.

    Raises:
        XlingError: instead of an OSError.
    """
    try:
        yield
    except OSError as error:
        raise XlingError(
            f"cannot write the {cache} cache {folder}: {error.strerror or error}. Make room there or choose another "
            f"folder, then run again: {kept}"
        ) from error
