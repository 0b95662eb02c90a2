"""Vectors on disk, so that a text is encoded once per encoder.

One folder per encoder, named after the hash of its identity, contains ``encoder.json`` (the identity, for people) and
shards of vectors (``shards.py``). These are only ever added, under names nobody else uses, so several processes can
fill one cache at once. Those that ask for the same texts share the work: each encodes chunks that no other one has
claimed. At worst, where the file system has no locks, they encode the same texts.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from hashlib import blake2b
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from tqdm.auto import tqdm

from recbole_xling.encode.base import ENCODERS, Encoder, Vectors
from recbole_xling.encode.shards import (
    DIGEST_BYTES,
    IDENTITY_FILE,
    DamagedShardError,
    Digests,
    Shard,
    SortedDigests,
    delete_leftovers,
    delete_shard,
    read_sidecar,
    sidecars,
    write_shard,
)
from recbole_xling.errors import EncoderError
from recbole_xling.utils.files import FolderLock, clear_write_errors, identity_folder, write_identity
from recbole_xling.utils.terminal import on_screen

logger = logging.getLogger(__name__)

_CHUNK = 2048  # texts that are stored together
_KEPT = "the vectors stored so far are kept and not encoded again"
_PROGRESS_STEP = 256  # texts between two updates of the progress bar


class Block(NamedTuple):
    """Vectors of some texts."""

    texts: NDArray[np.int64]  # (n,) number of each
    source: Vectors | Path  # of these and perhaps of others; the file of a shard is opened when it is read
    rows: NDArray[np.int64]  # (n,) row of each there
    dimension: int

    def vectors(self, which: NDArray[np.int64] | slice = slice(None)) -> Vectors:
        """Return the vectors of the texts, or of those in some places of ``texts``, ``(n, dimension)``."""
        held = self.source
        if isinstance(held, Path):
            held = np.load(held, mmap_mode="r", allow_pickle=False)
        return np.asarray(held[self.rows[which]])


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
        for block in _stored(self.folder(encoder), wanted, {}):
            stored[block.texts] = True
        return int(stored.sum()), int((~stored).sum())

    def vectors(
        self, encoder: Encoder, texts: Sequence[str], *, show_progress: bool = True, chunk_size: int = _CHUNK
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
        for block in self._blocks(encoder, texts, digests, first, chunk_size, show_progress):
            if result is None:
                result = np.empty((len(texts), block.dimension), dtype=np.float32)
            result[block.texts] = block.vectors()
        assert result is not None  # each text is stored or missing
        original = first[place]  # (N,) row of the first occurrence of each row's text
        repeated = np.flatnonzero(original != np.arange(len(texts)))
        result[repeated] = result[original[repeated]]
        return result

    def fill(self, encoder: Encoder, texts: Sequence[str], *, show_progress: bool = True) -> None:
        """Encode and store those ``texts`` that are not stored yet; otherwise as :meth:`vectors`."""
        digests = text_digests(texts)
        first = np.unique(digests, return_index=True)[1]
        for _ in self._blocks(encoder, list(texts), digests, first, _CHUNK, show_progress):
            pass

    def blocks(
        self, encoder: Encoder, texts: Sequence[str], digests: Digests, *, show_progress: bool = True
    ) -> list[Block]:
        """Return where the vectors of distinct ``texts`` are stored, given their digests; else as :meth:`vectors`."""
        first = np.unique(digests, return_index=True)[1]
        if len(first) < len(texts):
            raise EncoderError(f"{len(texts) - len(first)} texts occur a second time: blocks are of distinct texts")
        while True:
            found, missing = [], np.ones(len(first), dtype=bool)
            for block in _stored(self.folder(encoder), digests[first], {}):
                missing[block.texts] = False
                found.append(block._replace(texts=first[block.texts]))
            if not missing.any():
                return found
            self.fill(encoder, texts, show_progress=show_progress)

    def _blocks(
        self,
        encoder: Encoder,
        texts: list[str],
        digests: Digests,
        first: NDArray[np.int64],
        chunk_size: int,
        show_progress: bool,
    ) -> Iterator[Block]:
        """Yield blocks of the texts in rows ``first``, which are distinct and in the order of digests."""
        folder = self.folder(encoder)
        missing, dimension = np.ones(len(first), dtype=bool), None
        known: dict[Path, Shard | None] = {}
        for block in _stored(folder, digests[first], known):
            missing[block.texts], dimension = False, block.dimension
            yield block._replace(texts=first[block.texts])
        known = dict.fromkeys(known)
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
        yield from _encoded_blocks(folder, encoder, texts, digests, todo, known, chunk_size, show_progress)


def text_digests(texts: Sequence[str]) -> Digests:
    """Return the BLAKE2b digest of every text, ``(len(texts),)`` of 16 bytes each.

    Raises:
        EncoderError: one of ``texts`` is not a string, or they all are one.
    """
    if isinstance(texts, str):
        raise EncoderError(f"one string {texts[:80]!r} was given in place of a list of texts: put it into a list")
    if not all(issubclass(kind, str) for kind in set(map(type, texts))):
        number, text = next((number, text) for number, text in enumerate(texts) if not isinstance(text, str))
        raise EncoderError(f"text {number} is {text!r}, a {type(text).__name__}: only strings can be encoded")
    encoded = (text.encode("utf-8", "surrogatepass") for text in texts)
    joined = b"".join(blake2b(text, digest_size=DIGEST_BYTES).digest() for text in encoded)
    return np.frombuffer(joined, dtype=f"S{DIGEST_BYTES}")


def _stored(folder: Path, wanted: Digests, known: dict[Path, Shard | None]) -> Iterator[Block]:
    """Yield what is stored of the sorted ``wanted``, texts by their place there; damaged shards are deleted.

    Sidecars are read once and then ``known``; those that are None there have nothing that is wanted any more.
    """
    if not wanted.size:
        return
    sought = SortedDigests(wanted)
    for sidecar in sidecars(folder):
        if sidecar in known and known[sidecar] is None:
            continue
        try:
            found = known[sidecar] = known.get(sidecar) or read_sidecar(sidecar)
            places, rows = sought.find(found.digests)
            file = found.checked() if rows.size else None
        except FileNotFoundError:
            continue  # another process has just deleted it
        except OSError as error:
            logger.warning("cannot read %s (%s); its texts are encoded again", sidecar, error)
        except DamagedShardError as error:
            logger.warning("deleting the damaged shard %s: %s; its texts are encoded again", sidecar, error)
            delete_shard(sidecar)
        else:
            if file is not None:
                yield Block(places, file, rows, found.dimension)


def _encoded_blocks(
    folder: Path,
    encoder: Encoder,
    texts: list[str],
    digests: Digests,
    todo: NDArray[np.int64],
    known: dict[Path, Shard | None],
    chunk_size: int,
    show_progress: bool,
) -> Iterator[Block]:
    """Encode and store the rows ``todo`` of ``texts``; yield them chunk by chunk.

    Chunks that another process is encoding meanwhile are read when it has stored them.
    """
    began, n_encoded = time.perf_counter(), 0
    name = str(encoder.identity.get("model") or encoder.identity.get("backend") or "encode")
    waiting = deque(todo[start : start + chunk_size] for start in range(0, todo.size, chunk_size))
    taken = 0  # chunks in a row that others are encoding; once all are, one of them is waited for
    # None: on a terminal only
    with tqdm(total=todo.size, desc=name, unit="text", disable=not (show_progress and on_screen())) as bar:
        while waiting:
            rows = waiting.popleft()
            blocks: list[Block] = []
            with claimed(folder, digests[rows], wait=taken > len(waiting)) as ours:
                if ours:
                    rows = rows[np.argsort(digests[rows])]
                    missing = np.ones(len(rows), dtype=bool)
                    for block in _stored(folder, digests[rows], known):
                        missing[block.texts] = False
                        blocks.append(block._replace(texts=rows[block.texts]))
                        bar.update(len(block.texts))
                    if missing.any():
                        # by length, so that what one step encodes together needs little padding
                        own = np.array(sorted(np.sort(rows[missing]), key=lambda row: len(texts[row])), dtype=np.int64)
                        vectors = _encode_chunk(encoder, [texts[row] for row in own], bar)
                        with clear_write_errors(folder, "embedding", _KEPT):
                            known[write_shard(folder, digests[own], vectors)] = None
                        blocks.append(Block(own, vectors, np.arange(len(own)), vectors.shape[1]))
                        n_encoded += len(own)
            taken = 0 if ours else taken + 1
            if not ours:
                waiting.append(rows)
            yield from blocks
    seconds = time.perf_counter() - began
    logger.info("%s: %d texts encoded in %.1f s, %.0f a second", name, n_encoded, seconds, n_encoded / seconds)


@contextmanager
def claimed(folder: Path, digests: Digests, *, wait: bool) -> Iterator[bool]:
    """Yield whether this process has claimed a chunk meanwhile; otherwise, another one that wants the same has.

    Args:
        folder: of the encoder.
        digests: of the chunk's texts.
        wait: until the other one has ended its claim.
    """
    own = folder / f".{blake2b(digests.tobytes(), digest_size=DIGEST_BYTES).hexdigest()}.claim"
    with clear_write_errors(folder, "embedding", _KEPT):
        own.mkdir(exist_ok=True)
    lock = FolderLock(own, wait=wait)
    try:
        yield lock.is_held or lock.is_impossible
    finally:
        if lock.is_held:
            with suppress(OSError):
                own.rmdir()
        lock.release()


def _encode_chunk(encoder: Encoder, texts: list[str], bar: Any) -> Vectors:
    """Encode texts in steps, after each of which the progress bar moves on."""
    blocks = []
    for step in range(0, len(texts), _PROGRESS_STEP):
        batch = texts[step : step + _PROGRESS_STEP]
        blocks.append(_encode_checked(encoder, batch))
        bar.update(len(batch))
    return np.concatenate(blocks)


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
