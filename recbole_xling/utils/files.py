"""Files that appear whole or not at all: one of them, a folder, several of a folder together, and those of a cache."""

from __future__ import annotations

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

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None  # type: ignore[assignment]


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a free path next to ``path``; the file or folder written there takes the place of ``path`` at the end.

    A reader finds the old content or the new one, whole: the disk has the new one before it moves. After a failure
    ``path`` is as it was and the new content is gone. A killed process leaves a hidden file or folder ``.*.tmp``.
    """
    new = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        yield new
        for written in new.rglob("*") if new.is_dir() else [new]:
            if written.is_file():
                sync(written)
        os.replace(new, path)
    except BaseException:
        if new.is_dir():
            shutil.rmtree(new, ignore_errors=True)
        else:
            with suppress(OSError):
                new.unlink(missing_ok=True)
        raise


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


# ---- several files of a folder ----------------------------------------------------------------------------------


class Staging:
    """A hidden folder inside the folder of the files that it replaces together.

    New files are written to :attr:`new`; :meth:`commit` moves them into place. The staging folder keeps the previous
    files until all have moved, and its file ``replacing`` lists them meanwhile: a run that fails between two moves is
    undone by :meth:`recover` at its end, one that is killed there at the start of the next.

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

    def commit(self) -> None:
        """Move the new files into place; after a failure :meth:`recover` puts the previous ones back."""
        self._old.mkdir()
        previous = [name for name in self.names if (self.folder / name).exists()]
        for name in previous:
            try:
                os.link(self.folder / name, self._old / name)
            except OSError:  # a file system without hard links
                shutil.copy2(self.folder / name, self._old / name)
        for name in os.listdir(self.new):
            sync(self.new / name)
        for folder in (self.new, self._old):
            sync(folder)
        with replacing(self._replacing) as listed:
            listed.write_text("\n".join(previous), encoding="utf-8")
        sync(self.path)
        for name in self.names:
            if (self.new / name).exists():
                os.replace(self.new / name, self.folder / name)
            else:
                (self.folder / name).unlink(missing_ok=True)
        sync(self.folder)
        self._replacing.unlink()  # from here on the new files count

    def recover(self) -> None:
        """Undo a commit that did not finish, and remove the staging folder."""
        if self._replacing.exists():
            previous = self._replacing.read_text(encoding="utf-8").splitlines()
            for name in self.names:
                if name not in previous:
                    (self.folder / name).unlink(missing_ok=True)
                elif (self._old / name).exists():
                    os.replace(self._old / name, self.folder / name)
            sync(self.folder)
            self._replacing.unlink()
        if self.path.exists():
            shutil.rmtree(self.path)


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
    """Lock the folder itself: this leaves no file and ends with the process."""
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
