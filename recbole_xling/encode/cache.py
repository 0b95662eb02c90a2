"""Vectors on disk, so that a text is encoded once per encoder.

Layout: one folder per encoder, named after the hash of its identity. It holds ``encoder.json`` (the identity, for
people) and shards (see ``shard.py``). Shards are only ever added, under names nobody else uses, so several processes
can fill one cache at once; at worst both encode the same text.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from time import perf_counter

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from recbole_xling.disk_cache import clear_write_errors, identity_folder, identity_text
from recbole_xling.encode import shard
from recbole_xling.encode.base import Encoder, Vectors, check_positive
from recbole_xling.errors import EncoderError

logger = logging.getLogger(__name__)

_KEPT = "the vectors stored so far are kept and not encoded anew"
_PROGRESS_STEP = 256  # texts between two updates of the progress bar


class EmbeddingCache:
    """A folder of vectors, keyed by encoder and text.

    Args:
        root: where the encoders' folders lie; made when the first vector is stored.
    """

    def __init__(self, root: Path | str) -> None:
        self.root = Path(root)

    def folder(self, encoder: Encoder) -> Path:
        """Return the folder of ``encoder``'s vectors; it need not exist yet."""
        return identity_folder(self.root, encoder.identity)

    def status(self, encoder: Encoder, texts: Sequence[str]) -> tuple[int, int]:
        """Return how many distinct ``texts`` are stored and how many are still to be encoded."""
        wanted = np.unique(shard.text_digests(texts))
        stored = np.zeros(len(wanted), dtype=bool)
        for places, _ in _stored_blocks(self.folder(encoder), wanted):
            stored[places] = True
        return int(stored.sum()), int((~stored).sum())

    def vectors(
        self, encoder: Encoder, texts: Sequence[str], *, show_progress: bool = True, chunk_size: int = 2048
    ) -> Vectors:
        """Return the vectors of ``texts``, ``(len(texts), dimension)``, encoding those that are not stored yet.

        Where everything is stored already, the encoder's weights are not loaded.

        Args:
            encoder: what to encode with.
            texts: any order, duplicates allowed (they are encoded once).
            show_progress: show a bar with rate and remaining time, where there is a terminal.
            chunk_size: texts per shard, that is, the most work that a killed run loses.

        Raises:
            EncoderError: the encoder returned NaN, infinity or another shape; that chunk is not stored.
            XlingError: the cache cannot be written; what was stored before is kept.
        """
        check_positive(chunk_size=chunk_size)
        digests = shard.text_digests(texts)
        texts = list(texts)
        if not texts:
            return np.empty((0, encoder.dimension), dtype=np.float32)
        _, first, place = np.unique(digests, return_index=True, return_inverse=True)
        result: Vectors | None = None
        for rows, block in self._blocks(encoder, texts, digests, first, chunk_size, show_progress):
            if result is None:
                result = np.empty((len(texts), block.shape[1]), dtype=np.float32)
            result[rows] = block
        assert result is not None  # there is a text, so there was a block
        original = first[place]  # (N,) where each text occurs for the first time
        repeated = np.flatnonzero(original != np.arange(len(texts)))
        result[repeated] = result[original[repeated]]
        return result

    def _blocks(
        self,
        encoder: Encoder,
        texts: list[str],
        digests: shard.Digests,
        first: NDArray[np.int64],
        chunk_size: int,
        show_progress: bool,
    ) -> Iterator[tuple[NDArray[np.int64], Vectors]]:
        """Yield rows of ``texts`` and their vectors until all rows of ``first`` are had: the stored ones, then the new.

        ``first`` are the rows of the distinct texts, in the order of their digests.
        """
        folder = self.folder(encoder)
        missing = np.ones(len(first), dtype=bool)
        dimension: int | None = None
        for places, block in _stored_blocks(folder, digests[first]):
            missing[places] = False
            dimension = block.shape[1]
            yield first[places], block
        todo = np.sort(first[missing])
        if not todo.size:
            return
        if dimension not in (None, encoder.dimension):
            raise EncoderError(
                f"the encoder makes vectors of length {encoder.dimension}, but {folder} holds vectors of length "
                f"{dimension} under the same identity: delete that folder"
            )
        with clear_write_errors(folder, "embedding", _KEPT):
            _prepare(folder, encoder)
        for rows, block in _encoded_blocks(encoder, texts, todo, chunk_size, show_progress):
            with clear_write_errors(folder, "embedding", _KEPT):
                shard.write_shard(folder, digests[rows], block)
            yield rows, block


def _stored_blocks(folder: Path, wanted: shard.Digests) -> Iterator[tuple[NDArray[np.int64], Vectors]]:
    """Yield places in the sorted ``wanted`` and the vectors stored for them; damaged shards are deleted."""
    for sidecar in shard.sidecars(folder) if wanted.size else ():
        try:
            found = shard.read_sidecar(sidecar)
            places, rows = found.rows_of(wanted)
            block = found.read(rows) if rows.size else None
        except FileNotFoundError:
            continue  # another process has just deleted it
        except OSError as error:
            logger.warning("cannot read %s (%s); its texts are encoded again", sidecar, error)
        except shard.DamagedShardError as error:
            logger.warning("deleting the damaged shard %s: %s; its texts are encoded again", sidecar, error)
            shard.delete_shard(sidecar)
        else:
            if block is not None:
                yield places, block


def _encoded_blocks(
    encoder: Encoder, texts: list[str], todo: NDArray[np.int64], chunk_size: int, show_progress: bool
) -> Iterator[tuple[NDArray[np.int64], Vectors]]:
    """Encode the rows ``todo`` of ``texts``; yield rows and vectors, chunk by chunk."""
    began = perf_counter()
    name = str(encoder.identity.get("model") or encoder.identity.get("backend") or "encode")
    # None: only where there is a terminal
    with tqdm(total=todo.size, desc=name, unit="text", disable=None if show_progress else True) as bar:
        for start in range(0, todo.size, chunk_size):
            # by length, so that what one step encodes together needs little padding
            rows = np.array(sorted(todo[start : start + chunk_size], key=lambda row: len(texts[row])), dtype=np.int64)
            blocks = []
            for step in range(0, rows.size, _PROGRESS_STEP):
                batch = [texts[row] for row in rows[step : step + _PROGRESS_STEP]]
                blocks.append(_encode_checked(encoder, batch))
                bar.update(len(batch))
            yield rows, np.concatenate(blocks)
    seconds = perf_counter() - began
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


def _prepare(folder: Path, encoder: Encoder) -> None:
    """Make the folder with its ``encoder.json``; a folder that cannot be written fails here, before any encoding."""
    folder.mkdir(parents=True, exist_ok=True)
    shard.delete_leftovers(folder)
    shard.replace_file(folder / shard.IDENTITY_FILE, identity_text(encoder.identity))
