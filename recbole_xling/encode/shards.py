"""Shards of the embedding cache: the vectors of some texts, and the checksums by which damage is noticed.

A shard is two files: ``<id>.npy`` with vectors, and its sidecar ``<id>.json`` with the digests of their texts and the
checksums of both. The sidecar is written last; vectors without one do not count.
"""

from __future__ import annotations

import base64
import io
import json
import time
import uuid
import zlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recbole_xling.encode.base import Vectors
from recbole_xling.errors import DataError
from recbole_xling.utils.files import replacing, sync
from recbole_xling.utils.json_text import parse_json

DIGEST_BYTES = 16
IDENTITY_FILE = "encoder.json"
_DAY = 86_400.0  # seconds

Digests = NDArray[np.bytes_]


class DamagedShardError(DataError):
    """A shard's files differ from what was once written to them."""


class SortedDigests:
    """Digests in which those of shards are looked up.

    Args:
        digests: sorted and distinct, at least one, ``(n,)``.
    """

    def __init__(self, digests: Digests) -> None:
        self._digests = digests
        first = _first_half(digests)  # numbers are found in a third of the time
        self._first = first if (first[1:] != first[:-1]).all() else None

    def find(self, digests: Digests) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return which of the digests are among ``digests``, and in which row there each: two ``(hits,)``."""
        if self._first is None:
            place = np.searchsorted(self._digests, digests)
        else:
            place = np.searchsorted(self._first, _first_half(digests))
        place[place == len(self._digests)] = 0
        rows = np.flatnonzero(self._digests[place] == digests)
        return place[rows], rows


def _first_half(digests: Digests) -> NDArray[np.uint64]:
    return np.ascontiguousarray(digests).view(">u8")[::2].astype(np.uint64)


@dataclass(frozen=True)
class Shard:
    """What the sidecar of a block says."""

    sidecar: Path
    digests: Digests  # (count,)
    dimension: int
    vectors_size: int  # bytes of the whole .npy file
    vectors_crc32: int

    def checked(self) -> Path:
        """Return the file of vectors after checking the whole of it.

        Raises:
            DamagedShardError: the file is missing or not the one that was written.
        """
        path = self.sidecar.with_suffix(".npy")
        try:
            state = path.stat()
        except FileNotFoundError:
            raise DamagedShardError("its vectors are missing") from None
        if state.st_size != self.vectors_size:
            raise DamagedShardError(f"its vectors take {state.st_size} bytes instead of {self.vectors_size}")
        if _file_crc32(path, state.st_size, state.st_mtime_ns) != self.vectors_crc32:
            raise DamagedShardError("its vectors do not match their checksum")
        shape = np.load(path, mmap_mode="r", allow_pickle=False).shape
        if shape != (len(self.digests), self.dimension):
            raise DamagedShardError(f"its vectors have shape {shape}, not {(len(self.digests), self.dimension)}")
        return path


def write_shard(folder: Path, digests: Digests, vectors: Vectors) -> Path:
    """Write ``vectors`` ``(count, dimension)`` of the texts of ``digests`` ``(count,)``; return the sidecar.

    Raises:
        OSError: it cannot be written; nothing is left behind then.
    """
    buffer = io.BytesIO()
    np.save(buffer, np.ascontiguousarray(vectors, dtype=np.float32), allow_pickle=False)
    data, raw_digests = buffer.getvalue(), digests.tobytes()
    content = {
        "count": len(digests),
        "dimension": int(vectors.shape[1]),
        "vectors_size": len(data),
        "vectors_crc32": zlib.crc32(data),
        "digests_crc32": zlib.crc32(raw_digests),
        "digests": base64.b64encode(raw_digests).decode("ascii"),
    }
    sidecar = folder / f"{uuid.uuid4().hex}.json"
    vectors_file = sidecar.with_suffix(".npy")
    try:
        vectors_file.write_bytes(data)
        sync(vectors_file)
        with replacing(sidecar) as new:
            new.write_bytes(json.dumps(content, indent=1).encode("ascii"))
    except BaseException:
        with suppress(OSError):
            vectors_file.unlink(missing_ok=True)
        raise
    return sidecar


def read_sidecar(sidecar: Path) -> Shard:
    """Read a sidecar.

    Raises:
        DamagedShardError: it is not what :func:`write_shard` wrote.
        OSError: it cannot be read.
    """
    try:
        content: dict[str, Any] = parse_json(sidecar.read_bytes())
        raw_digests = base64.b64decode(content["digests"], validate=True)
        found = Shard(
            sidecar=sidecar,
            digests=np.frombuffer(raw_digests, dtype=f"S{DIGEST_BYTES}"),
            dimension=int(content["dimension"]),
            vectors_size=int(content["vectors_size"]),
            vectors_crc32=int(content["vectors_crc32"]),
        )
        intact = len(found.digests) == content["count"] and zlib.crc32(raw_digests) == content["digests_crc32"]
    except (ValueError, KeyError, TypeError) as error:
        raise DamagedShardError(f"its sidecar is garbled ({error!r})") from None
    if not intact:
        raise DamagedShardError("its sidecar does not match its checksum")
    return found


def sidecars(folder: Path) -> Iterator[Path]:
    """Yield the sidecars of ``folder`` in a fixed order; none if there is no folder yet."""
    if folder.is_dir():
        yield from sorted(path for path in folder.glob("*.json") if path.name != IDENTITY_FILE)


def delete_shard(sidecar: Path) -> None:
    """Delete a shard, the sidecar first; one that cannot be deleted stays."""
    for path in (sidecar, sidecar.with_suffix(".npy")):
        with suppress(OSError):
            path.unlink(missing_ok=True)


def delete_leftovers(folder: Path, older_than: float = _DAY) -> None:
    """Delete what runs killed more than ``older_than`` seconds ago left: vectors without sidecar, files, claims."""
    oldest_kept = time.time() - older_than
    leftovers = [path for path in folder.glob("*.npy") if not path.with_suffix(".json").exists()]
    for path in [*leftovers, *folder.glob("*.tmp"), *folder.glob(".*.claim")]:
        with suppress(OSError):
            if path.stat().st_mtime < oldest_kept:
                path.rmdir() if path.is_dir() else path.unlink()


@cache
def _file_crc32(path: Path, size: int, mtime_ns: int) -> int:
    """Return the checksum of a file; size and time are in the key so that a process reads each state once."""
    checksum = 0
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            checksum = zlib.crc32(block, checksum)
    return checksum
