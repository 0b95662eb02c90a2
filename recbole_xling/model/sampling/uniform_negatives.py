"""Negatives that are drawn for each target by itself, the same ones however a batch is spread over processes."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recbole_xling.data.dataset import XLingDataset

_DRAW = 0x0DD5  # keeps these draws apart from others of the same batch
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


class UniformNegatives:
    """Draws items of training evenly for each target; the user's own ones are no negatives.

    Items without training interactions are never drawn: they would teach that texts like theirs are never chosen. Even
    draws need no correction: the softmax over them estimates the one over all items, popularity included.

    Args:
        dataset: the training split.
        number: of negatives per target.
    """

    def __init__(self, dataset: XLingDataset, number: int) -> None:
        trained = torch.from_numpy(dataset.train_mask)
        users, items = (dataset.sequence[field][trained].numpy() for field in (dataset.uid_field, dataset.iid_field))
        self._number, self._n_items = number, dataset.item_num
        self._items = np.flatnonzero(np.bincount(items, minlength=dataset.item_num))
        self._own = np.unique(users * self._n_items + items)

    def draw(self, users: Tensor, target: Tensor, *number: int) -> tuple[Tensor, Tensor]:
        """Return negatives of targets, and which of them are no items of the user's own, ``(N, n)`` each, on the CPU.

        Args:
            users: ``(N,)``.
            target: ``(N,)``.
            number: what the batch is known by: seed, optimizer step, and which batch of the step.
        """
        user, item = (ids.cpu().numpy()[:, None] for ids in (users, target))  # (N, 1)
        start = np.random.default_rng([*number, _DRAW]).integers(2**63, dtype=np.uint64)
        key = _mixed(_mixed(user.astype(np.uint64) + start) + item.astype(np.uint64))
        drawn = _mixed(key + _GOLDEN * np.arange(1, self._number + 1, dtype=np.uint64))  # (N, n)
        negative = self._items[(drawn % np.uint64(len(self._items))).astype(np.int64)]
        pair = user * self._n_items + negative
        own = self._own[np.searchsorted(self._own, pair).clip(max=len(self._own) - 1)] == pair
        wrong = (negative != item) & ~own
        return torch.from_numpy(negative), torch.from_numpy(wrong)


def _mixed(keys: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return numbers that look random, one for each key (SplitMix64: Steele, Lea & Flood, OOPSLA 2014)."""
    keys = (keys ^ (keys >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    keys = (keys ^ (keys >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return keys ^ (keys >> np.uint64(31))
