"""The frozen layers of an encoder, which run once per text if the disk can keep what they return."""

from __future__ import annotations

import logging
import mmap
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from recbole_xling.model.text_encoder.tokens import TokenizedTexts, batch_width, length_buckets
from recbole_xling.utils.devices import to_device
from recbole_xling.utils.memory import give_back
from recbole_xling.utils.terminal import on_screen

logger = logging.getLogger(__name__)

_BYTES = np.dtype(np.float16).itemsize
_SHOW_PROGRESS_FROM = 5_000  # texts: fewer take seconds


class FrozenStates:
    """Hidden states in half precision, in a file without a name, which disappears with this object or the process.

    Texts are kept in the order in which they come, until one does not fit below the bound or on the disk. It and
    those after it remain unknown, and so do texts with a value beyond the range of half precision.

    Attributes:
        full: whether a text did not fit.

    Args:
        length: ``(n_texts,)`` rows of each text: its tokens.
        size: width of a row.
        max_bytes: bound of the file's size.
        folder: where the file is; None: the system's folder for temporary files.
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
        give_back(self._map)
        return rows.masked_fill_(~mask[..., None], 0)

    def put(self, text_ids: Tensor, states: Tensor) -> None:
        """Keep the states of distinct texts that are unknown so far, as many as fit.

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
        """Append rows by a write, which can fail; through the map, a full disk would kill the process."""
        data = memoryview(rows.tobytes())
        self._file.seek(self._used * rows.shape[1] * _BYTES)
        try:
            while data:
                data = data[self._file.write(data) :]
        except OSError as error:
            logger.warning("hidden states of frozen layers are no longer kept: %s", error.strerror or error)
            self.full = True
            return False
        return True

    def _positions(self, text_ids: Tensor) -> tuple[Tensor, Tensor]:
        """Return the positions ``(T,)`` of a batch, and which of them each text has, ``(N, T)``."""
        length = self._length[text_ids]
        position = torch.arange(batch_width(length, self._longest))
        return position, position < length[:, None]


class FrozenLayers:
    """What frozen layers return for texts, from the disk if it was kept.

    The first time that a text of a catalog is asked for, all its texts go through the layers, the shortest first, until
    the bound is reached. So what is kept, and every value, is the same in a run that was resumed.

    Args:
        run: ``input_ids`` and ``attention_mask``, both ``(N, T)``, to states, ``(N, T, size)``.
        size: width of a state.
        max_bytes: bound of what is kept, over all catalogs; 0: nothing is kept.
        batch_size: texts run at a time to be kept.
        folder: where it is kept; None: the system's folder for temporary files.
    """

    def __init__(
        self,
        run: Callable[[Tensor, Tensor], Tensor],
        size: int,
        *,
        max_bytes: int,
        batch_size: int,
        folder: Path | None,
    ) -> None:
        self._run, self._size = run, size
        self._max_bytes, self._batch_size, self._folder = max_bytes, batch_size, folder
        self._kept: WeakKeyDictionary[TokenizedTexts, FrozenStates] = WeakKeyDictionary()

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the files: a copy makes its own."""
        return {**self.__dict__, "_kept": WeakKeyDictionary()}

    @torch.no_grad()
    def __call__(self, tokens: TokenizedTexts, text_ids: Tensor, device: torch.device) -> Tensor:
        """Return the states of distinct texts on ``device``, ``(N, T, size)`` float32."""
        if not self._max_bytes:
            return self._compute(tokens, text_ids, device)
        kept = self._kept.get(tokens)
        if kept is None:
            kept = self._kept[tokens] = self._keep(tokens, device)
        known = kept.known(text_ids)
        if known.all():
            return to_device(kept.get(text_ids), device)
        stored = to_device(kept.get(text_ids[known]), device)
        computed = self._compute(tokens, text_ids[~known], device)
        width = max(stored.shape[1], computed.shape[1])
        states = torch.zeros(len(text_ids), width, self._size, device=device)
        for part, found in ((known, stored), (~known, computed)):
            states[to_device(part.nonzero().squeeze(1), device), : found.shape[1]] = found
        return states

    def _compute(self, tokens: TokenizedTexts, text_ids: Tensor, device: torch.device) -> Tensor:
        input_ids, mask = tokens.batch(text_ids)
        return self._run(to_device(input_ids, device), to_device(mask, device)).float()

    def _keep(self, tokens: TokenizedTexts, device: torch.device) -> FrozenStates:
        room = self._max_bytes - sum(kept.n_bytes for kept in self._kept.values())
        kept = FrozenStates(tokens.length, self._size, room, self._folder)
        hidden = tokens.n_texts <= _SHOW_PROGRESS_FROM or not on_screen()
        with tqdm(total=tokens.n_texts, desc="frozen layers", unit="text", disable=hidden) as bar:
            for text_ids in length_buckets(tokens.length, self._batch_size, device):
                if kept.full:
                    break
                kept.put(text_ids, self._compute(tokens, text_ids, device))
                bar.update(len(text_ids))
        return kept
