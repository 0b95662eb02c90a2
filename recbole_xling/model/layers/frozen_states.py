"""What the frozen layers of an encoder make of each text, kept on disk so that it is computed once."""

from __future__ import annotations

import logging
import mmap
import tempfile
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from recbole_xling.data.tokens import batch_width

logger = logging.getLogger(__name__)

_BYTES = np.dtype(np.float16).itemsize


class FrozenStates:
    """Hidden states in half precision, in a file without a name: it is gone with this object or with the process.

    Texts are kept in the order in which they come, until one does not fit below the bound or on the disk. It and
    those after it remain unknown, and so do texts with a value beyond the range of half precision.

    Attributes:
        full: whether a text did not fit.

    Args:
        length: ``(n_texts,)`` rows of each text: its tokens, or 1 where only a pooled vector is kept.
        size: width of a row.
        max_bytes: bound of the file's size.
        folder: where the file lies; None: the system's folder for temporary files.
    """

    def __init__(self, length: Tensor, size: int, max_bytes: int, folder: Path | None = None) -> None:
        self._length = length
        self._longest = int(length.max()) if len(length) else 0
        self._place = torch.full_like(length, -1)  # first row of each text, -1 for unknown ones
        self.full = False
        self._used, self._room = 0, min(int(length.sum()), max_bytes // (size * _BYTES))
        self._file = tempfile.TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115 (it lives as long as this object)
        self._file.truncate(max(1, self._room) * size * _BYTES)  # takes no space until it is written
        self._map = mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_READ)
        self._rows = np.frombuffer(self._map, dtype=np.float16).reshape(-1, size)

    @property
    def n_bytes(self) -> int:
        """The most that the file can grow to."""
        return self._room * self._rows.shape[1] * _BYTES

    def known(self, text_ids: Tensor) -> Tensor:
        """Return which texts are kept, ``(N,)``."""
        return self._place[text_ids] >= 0

    def get(self, text_ids: Tensor) -> Tensor:
        """Return the states of texts that are kept, ``(N, T, size)`` float32, zero beyond each text's length."""
        position, mask = self._positions(text_ids)
        place = (self._place[text_ids][:, None] + position).masked_fill(~mask, 0)  # (N, T)
        rows = torch.from_numpy(self._rows[place.numpy()]).float()  # (N, T, size)
        if hasattr(mmap, "MADV_DONTNEED"):  # not on all systems: what was read need not count as this process's memory
            self._map.madvise(mmap.MADV_DONTNEED)
        return rows.masked_fill_(~mask[..., None], 0)

    def put(self, text_ids: Tensor, states: Tensor) -> None:
        """Keep the states of distinct texts that are unknown so far, as many as there is room for.

        Args:
            text_ids: ``(N,)``.
            states: ``(N, T, size)``; what is beyond a text's length is not kept.
        """
        states = states.detach().half().cpu()
        in_range = states.isfinite().flatten(1).all(dim=1)
        fits = self._used + (self._length[text_ids] * in_range).cumsum(0) <= self._room
        self.full = not bool(fits.all())
        text_ids, states = text_ids[in_range & fits], states[in_range & fits]
        _, mask = self._positions(text_ids)
        rows = states[:, : mask.shape[1]][mask].numpy()  # (tokens, size)
        if len(rows) and self._write(rows):
            length = self._length[text_ids]
            self._place[text_ids] = self._used + length.cumsum(0) - length
            self._used += len(rows)

    def _write(self, rows: np.ndarray) -> bool:
        """Append rows by a write, that can fail, and not through the map, where a full disk kills the process."""
        data = memoryview(rows.tobytes())
        self._file.seek(self._used * rows.shape[1] * _BYTES)
        try:
            while data:
                data = data[self._file.write(data) :]
        except OSError as error:
            logger.warning("no more hidden states of frozen layers are kept: %s", error.strerror or error)
            self.full = True
            return False
        return True

    def _positions(self, text_ids: Tensor) -> tuple[Tensor, Tensor]:
        """Return the positions ``(T,)`` of a batch, and which of them each text has, ``(N, T)``."""
        length = self._length[text_ids]
        position = torch.arange(batch_width(length, self._longest))
        return position, position < length[:, None]
