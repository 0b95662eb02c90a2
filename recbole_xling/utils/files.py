"""Replacing several files of a folder together."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

from recbole_xling.errors import DataError, XlingError


def replace_file(path: Path, data: bytes) -> None:
    """Let ``path`` hold ``data`` by one ``os.replace``, so that a reader finds the old content or the new one."""
    temporary = path.with_name(f"{uuid.uuid4().hex}.tmp")
    try:
        write_synced(temporary, data)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


def write_synced(path: Path, data: bytes) -> None:
    """Write ``data`` and wait until the disk has it."""
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def write_text(path: Path, text: str) -> None:
    """Write a file so that it is whole or not there."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(temporary, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise XlingError(f"cannot write '{path}': {error}") from error


def identity_folder(root: Path, identity: Mapping[str, Any]) -> Path:
    """Return the folder below ``root`` of what has this identity, named after its hash; it need not exist yet."""
    text = json.dumps(identity, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return root / sha256(text.encode()).hexdigest()[:16]


def identity_text(identity: Mapping[str, Any]) -> bytes:
    """Return the file that tells people whose folder it is."""
    text = json.dumps(identity, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    return text.encode("utf-8", "surrogatepass")


@contextmanager
def clear_write_errors(folder: Path, cache: str, kept: str) -> Iterator[None]:
    """Say what to do where the disk refuses a write.

    Args:
        folder: where is written.
        cache: what the cache holds, for the message.
        kept: what becomes of what is stored already, for the message.

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


try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None  # type: ignore[assignment]


class Staging:
    """A hidden folder beside the files it will replace.

    New files are written to :attr:`new`; :meth:`commit` moves them into place. What is there before is kept in the
    staging folder until all have been moved, and the file ``replacing`` lists it meanwhile: a run that fails between
    two moves is undone by :meth:`recover` at its end, one that is killed there at the start of the next.

    Args:
        folder: the folder of the files.
        label: part of the name of the staging folder.
        names: the files that belong together; one that :attr:`new` lacks is removed.
    """

    def __init__(self, folder: Path, label: str, names: Sequence[str]) -> None:
        self.folder = folder
        self.names = tuple(names)
        self.path = folder / f".{label}.staging"
        self.new = self.path / "new"
        self._old = self.path / "old"
        self._replacing = self.path / "replacing"

    def recover(self) -> None:
        """Undo what is half done and remove the staging folder."""
        if self._replacing.exists():
            self._roll_back()
        if self.path.exists():
            shutil.rmtree(self.path)

    def commit(self) -> None:
        """Move the new files into place; after a failure :meth:`recover` puts the previous ones back."""
        self._old.mkdir()
        previous = [name for name in self.names if (self.folder / name).exists()]
        for name in previous:
            _link(self.folder / name, self._old / name)
        for name in os.listdir(self.new):
            _sync(self.new / name)
        for folder in (self.new, self._old):
            _sync(folder)
        draft = self.path / "draft"
        draft.write_text("\n".join(previous), encoding="utf-8")
        _sync(draft)
        os.replace(draft, self._replacing)
        _sync(self.path)
        for name in self.names:
            if (self.new / name).exists():
                os.replace(self.new / name, self.folder / name)
            else:
                (self.folder / name).unlink(missing_ok=True)
        _sync(self.folder)
        self._replacing.unlink()  # from here on the new files are the ones

    def _roll_back(self) -> None:
        previous = self._replacing.read_text(encoding="utf-8").splitlines()
        for name in self.names:
            if name not in previous:
                (self.folder / name).unlink(missing_ok=True)
            elif (self._old / name).exists():
                os.replace(self._old / name, self.folder / name)
        _sync(self.folder)
        self._replacing.unlink()


@contextmanager
def staged(folder: Path, label: str, names: Sequence[str]) -> Iterator[Staging]:
    """Yield an empty staging folder; afterwards it is gone, and so is a new ``folder`` that stayed empty.

    Raises:
        DataError: another process is writing to ``folder``.
    """
    is_new = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    with _lock(folder):
        staging = Staging(folder, label, names)
        staging.recover()
        try:
            staging.new.mkdir(parents=True)
            yield staging
        finally:
            staging.recover()
            if is_new:
                with suppress(OSError):
                    folder.rmdir()


@contextmanager
def _lock(folder: Path) -> Iterator[None]:
    """Hold a lock on the folder itself: it leaves no file and ends with the process."""
    if fcntl is None:
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            os.close(descriptor)
            raise DataError(f"another process is writing to {folder}; wait until it has finished") from None
        # a file system without locks: go on without one
    try:
        yield
    finally:
        os.close(descriptor)


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # a file system without hard links
        shutil.copy2(source, target)


def _sync(path: Path) -> None:
    """Make a file or folder durable, where the system can."""
    with suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
