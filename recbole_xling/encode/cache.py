"""Vectors on disk, so that a text is encoded once per encoder.

Layout: one folder per encoder, named after the hash of its identity. It contains ``encoder.json`` (the identity, for
people) and shards of two files each: ``<id>.npy`` with vectors, and its sidecar ``<id>.json`` with the digests of their
texts and the checksums of both. The sidecar is written last; vectors without one do not count. Shards are only ever
added, under names nobody else uses, so several processes can fill one cache at once; at worst they encode the same
texts.
"""

from __future__ import annotations

import base64
import io
import json
import logging
import time
import uuid
import zlib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm.auto import tqdm

from recbole_xling.encode.base import ENCODERS, Encoder, Vectors
from recbole_xling.errors import DataError, EncoderError
from recbole_xling.utils.files import clear_write_errors, identity_folder, replacing, sync, write_identity
from recbole_xling.utils.terminal import on_screen

logger = logging.getLogger(__name__)

DIGEST_BYTES = 16
IDENTITY_FILE = "encoder.json"
_DAY = 86_400.0  # seconds
_KEPT = "the vectors stored so far are kept and not encoded again"
_PROGRESS_STEP = 256  # texts between two updates of the progress bar

Digests = NDArray[np.bytes_]


class EmbeddingCache:
    """A folder of vectors, keyed by encoder and text.

    Args:
        root: the folder of the encoders' folders; made when the first vector is stored.
    """

    def __init__(self, root: Path | str) -> None:
        self.root = Path(root)

    def folder(self, encoder: Encoder) -> Path:
        """Return the folder of ``encoder``'s vectors; it need not exist yet."""
        return identity_folder(self.root, encoder.identity)

    def status(self, encoder: Encoder, texts: Sequence[str]) -> tuple[int, int]:
        """Return how many distinct ``texts`` are stored and how many are still to be encoded."""
        wanted = np.unique(text_digests(texts))
        stored = np.zeros(len(wanted), dtype=bool)
        for places, _ in _stored_blocks(self.folder(encoder), wanted):
            stored[places] = True
        return int(stored.sum()), int((~stored).sum())

    def vectors(
        self, encoder: Encoder, texts: Sequence[str], *, show_progress: bool = True, chunk_size: int = 2048
    ) -> Vectors:
        """Return the vectors of ``texts``, ``(len(texts), dimension)``, encoding those that are not stored yet.

        The encoder's weights are loaded only if a text is missing.

        Args:
            encoder: what to encode with.
            texts: any order, duplicates allowed (they are encoded once).
            show_progress: show a bar with rate and remaining time, on a terminal only.
            chunk_size: texts per shard, that is, the most work that a killed run loses.

        Raises:
            EncoderError: the encoder returned NaN, infinity or another shape; that chunk is not stored.
            XlingError: the cache cannot be written; what was stored before is kept.
        """
        ENCODERS.check_positive(chunk_size=chunk_size)
        digests = text_digests(texts)
        texts = list(texts)
        if not texts:
            return np.empty((0, encoder.dimension), dtype=np.float32)
        # U distinct texts, in the order of their digests: row of each one's first occurrence, and place of each row's
        _, first, place = np.unique(digests, return_index=True, return_inverse=True)  # (U,), (N,)
        result: Vectors | None = None  # (N, D)
        for rows, block in self._blocks(encoder, texts, digests, first, chunk_size, show_progress):
            if result is None:
                result = np.empty((len(texts), block.shape[1]), dtype=np.float32)
            result[rows] = block
        assert result is not None  # each text is stored or missing
        original = first[place]  # (N,) row of the first occurrence of each row's text
        repeated = np.flatnonzero(original != np.arange(len(texts)))
        result[repeated] = result[original[repeated]]
        return result

    def blocks(
        self, encoder: Encoder, texts: Sequence[str], *, show_progress: bool = True, chunk_size: int = 2048
    ) -> Iterator[tuple[NDArray[np.int64], Vectors]]:
        """Yield rows of distinct ``texts`` and their vectors, a block at a time; otherwise as :meth:`vectors`."""
        digests = text_digests(texts)
        first = np.argsort(digests)
        yield from self._blocks(encoder, list(texts), digests, first, chunk_size, show_progress)

    def _blocks(
        self,
        encoder: Encoder,
        texts: list[str],
        digests: Digests,
        first: NDArray[np.int64],
        chunk_size: int,
        show_progress: bool,
    ) -> Iterator[tuple[NDArray[np.int64], Vectors]]:
        """Yield rows and vectors of the texts in rows ``first``, which are distinct and in the order of digests."""
        folder = self.folder(encoder)
        missing, dimension = np.ones(len(first), dtype=bool), None
        for places, block in _stored_blocks(folder, digests[first]):
            missing[places], dimension = False, block.shape[1]
            yield first[places], block
        todo = np.sort(first[missing])
        if not todo.size:
            return
        if dimension not in (None, encoder.dimension):
            raise EncoderError(
                f"the encoder makes vectors of length {encoder.dimension}, but {folder} contains vectors of length "
                f"{dimension} under the same identity: delete that folder"
            )
        with clear_write_errors(folder, "embedding", _KEPT):  # before anything is encoded
            folder.mkdir(parents=True, exist_ok=True)
            delete_leftovers(folder)
            write_identity(folder / IDENTITY_FILE, encoder.identity)
        for rows, block in _encoded_blocks(encoder, texts, todo, chunk_size, show_progress):
            with clear_write_errors(folder, "embedding", _KEPT):
                write_shard(folder, digests[rows], block)
            yield rows, block


def text_digests(texts: Sequence[str]) -> Digests:
    """Return the BLAKE2b digest of every text, ``(len(texts),)`` of 16 bytes each.

    Raises:
        EncoderError: one of ``texts`` is not a string, or they all are one.
    """
    if isinstance(texts, str):
        raise EncoderError(f"one string {texts[:80]!r} was given in place of a list of texts: put it into a list")
    for number, text in enumerate(texts):
        if not isinstance(text, str):
            raise EncoderError(f"text {number} is {text!r}, a {type(text).__name__}: only strings can be encoded")
    encoded = (text.encode("utf-8", "surrogatepass") for text in texts)
    joined = b"".join(blake2b(text, digest_size=DIGEST_BYTES).digest() for text in encoded)
    return np.frombuffer(joined, dtype=f"S{DIGEST_BYTES}")


def _stored_blocks(folder: Path, wanted: Digests) -> Iterator[tuple[NDArray[np.int64], Vectors]]:
    """Yield places in the sorted ``wanted`` and the vectors stored for them; damaged shards are deleted."""
    for sidecar in sidecars(folder) if wanted.size else ():
        try:
            found = read_sidecar(sidecar)
            places, rows = found.rows_of(wanted)
            block = found.read(rows) if rows.size else None
        except FileNotFoundError:
            continue  # another process has just deleted it
        except OSError as error:
            logger.warning("cannot read %s (%s); its texts are encoded again", sidecar, error)
        except DamagedShardError as error:
            logger.warning("deleting the damaged shard %s: %s; its texts are encoded again", sidecar, error)
            delete_shard(sidecar)
        else:
            if block is not None:
                yield places, block


def _encoded_blocks(
    encoder: Encoder, texts: list[str], todo: NDArray[np.int64], chunk_size: int, show_progress: bool
) -> Iterator[tuple[NDArray[np.int64], Vectors]]:
    """Encode the rows ``todo`` of ``texts``; yield rows and vectors, chunk by chunk."""
    began = time.perf_counter()
    name = str(encoder.identity.get("model") or encoder.identity.get("backend") or "encode")
    # None: on a terminal only
    with tqdm(total=todo.size, desc=name, unit="text", disable=not (show_progress and on_screen())) as bar:
        for start in range(0, todo.size, chunk_size):
            # by length, so that what one step encodes together needs little padding
            rows = np.array(sorted(todo[start : start + chunk_size], key=lambda row: len(texts[row])), dtype=np.int64)
            blocks = []
            for step in range(0, rows.size, _PROGRESS_STEP):
                batch = [texts[row] for row in rows[step : step + _PROGRESS_STEP]]
                blocks.append(_encode_checked(encoder, batch))
                bar.update(len(batch))
            yield rows, np.concatenate(blocks)
    seconds = time.perf_counter() - began
    logger.info("%s: %d texts encoded in %.1f s, %.0f a second", name, todo.size, seconds, todo.size / seconds)


def _encode_checked(encoder: Encoder, texts: list[str]) -> Vectors:
    """Encode ``texts`` and refuse what cannot be used as vectors."""
    block = np.asarray(encoder.encode(texts))
    expected = (len(texts), encoder.dimension)
    if block.shape != expected:
        raise EncoderError(f"the encoder {encoder.identity} returned an array of shape {block.shape}, not {expected}")
    vectors = block.astype(np.float32, copy=False)
    finite = np.isfinite(vectors).all(axis=1)  # (N,)
    if not finite.all():
        text = texts[int(np.flatnonzero(~finite)[0])]
        raise EncoderError(
            f"the encoder {encoder.identity} returned NaN or infinity for {int((~finite).sum())} of {len(texts)} "
            f"texts, the first being {text[:80]!r}: try dtype='float32' or another model"
        )
    return vectors


# ---- shards --------------------------------------------------------------------------------------------------


class DamagedShardError(DataError):
    """A shard's files differ from what was once written to them."""


@dataclass(frozen=True)
class Shard:
    """What the sidecar of a block says."""

    sidecar: Path
    digests: Digests  # (count,)
    dimension: int
    vectors_size: int  # bytes of the whole .npy file
    vectors_crc32: int

    def rows_of(self, wanted: Digests) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return which of the sorted, distinct ``wanted`` are here, and in which row each: two ``(hits,)``."""
        place = np.searchsorted(wanted, self.digests)
        place[place == len(wanted)] = 0
        rows = np.flatnonzero(wanted[place] == self.digests)
        return place[rows], rows

    def read(self, rows: NDArray[np.int64]) -> Vectors:
        """Return the vectors of ``rows``, ``(len(rows), dimension)``, after checking the whole file.

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
        vectors = np.load(path, mmap_mode="r", allow_pickle=False)
        return np.asarray(vectors[rows])


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
        content: dict[str, Any] = json.loads(sidecar.read_bytes())
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
    """Delete what runs killed more than ``older_than`` seconds ago left: vectors without sidecar, temporary files."""
    oldest_kept = time.time() - older_than
    leftovers = [path for path in folder.glob("*.npy") if not path.with_suffix(".json").exists()]
    for path in [*leftovers, *folder.glob("*.tmp")]:
        with suppress(OSError):
            if path.stat().st_mtime < oldest_kept:
                path.unlink()


@cache
def _file_crc32(path: Path, size: int, mtime_ns: int) -> int:
    """Return the checksum of a file; size and time are in the key so that a process reads each state once."""
    checksum = 0
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            checksum = zlib.crc32(block, checksum)
    return checksum
