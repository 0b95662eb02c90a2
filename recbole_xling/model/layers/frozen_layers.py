"""The frozen layers of an encoder, run once per text where there is room to keep what they return."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from tqdm import tqdm

from recbole_xling.data.tokens import TokenisedTexts
from recbole_xling.model.layers.buckets import length_buckets
from recbole_xling.model.layers.frozen_states import FrozenStates

_SHOW_PROGRESS_FROM = 5_000  # texts: fewer take seconds


class FrozenLayers:
    """What frozen layers make of texts, from the disk if it is there.

    All texts of a catalogue go through the layers when one of them is asked for first, the shortest first, until the
    bound is reached; so what is kept, and every value, is the same in a run that was resumed.

    Args:
        run: ``input_ids`` and ``attention_mask``, both ``(N, T)``, to states, ``(N, T, size)`` or ``(N, 1, size)``.
        size: width of a state.
        pooled: whether ``run`` returns one state per text.
        max_bytes: bound of what is kept, of all catalogues together; 0: nothing is kept.
        batch_size: texts run at a time to be kept.
        folder: where it is kept; None: the system's folder for temporary files.
    """

    def __init__(
        self,
        run: Callable[[Tensor, Tensor], Tensor],
        size: int,
        *,
        pooled: bool,
        max_bytes: int,
        batch_size: int,
        folder: Path | None,
    ) -> None:
        self._run, self._size, self._pooled = run, size, pooled
        self._max_bytes, self._batch_size, self._folder = max_bytes, batch_size, folder
        self._kept: WeakKeyDictionary[TokenisedTexts, FrozenStates] = WeakKeyDictionary()

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the files: a copy makes its own."""
        return {**self.__dict__, "_kept": WeakKeyDictionary()}

    @torch.no_grad()
    def __call__(self, tokens: TokenisedTexts, text_ids: Tensor, device: torch.device) -> Tensor:
        """Return the states of distinct texts on ``device``, ``(N, T, size)`` or ``(N, 1, size)`` float32."""
        if not self._max_bytes:
            return self._compute(tokens, text_ids, device)
        kept = self._kept.get(tokens)
        if kept is None:
            kept = self._kept[tokens] = self._keep(tokens, device)
        known = kept.known(text_ids)
        if known.all():
            return kept.get(text_ids).to(device)
        stored = kept.get(text_ids[known]).to(device)
        computed = self._compute(tokens, text_ids[~known], device)
        width = max(stored.shape[1], computed.shape[1])
        states = torch.zeros(len(text_ids), width, self._size, device=device)
        states[known.to(device), : stored.shape[1]] = stored
        states[~known.to(device), : computed.shape[1]] = computed
        return states

    def _compute(self, tokens: TokenisedTexts, text_ids: Tensor, device: torch.device) -> Tensor:
        input_ids, mask = tokens.batch(text_ids)
        return self._run(input_ids.to(device), mask.to(device)).float()

    def _keep(self, tokens: TokenisedTexts, device: torch.device) -> FrozenStates:
        room = self._max_bytes - sum(kept.n_bytes for kept in self._kept.values())
        length = torch.ones_like(tokens.length) if self._pooled else tokens.length
        kept = FrozenStates(length, self._size, room, self._folder)
        hidden = None if tokens.n_texts > _SHOW_PROGRESS_FROM else True
        with tqdm(total=tokens.n_texts, desc="frozen layers", unit="text", disable=hidden) as bar:
            for text_ids in length_buckets(tokens.length, self._batch_size, device):
                if kept.full:
                    break
                kept.put(text_ids, self._compute(tokens, text_ids, device))
                bar.update(len(text_ids))
        return kept
