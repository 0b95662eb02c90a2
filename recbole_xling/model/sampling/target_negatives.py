"""Negatives that are drawn for each target by itself, the same ones however a batch is spread over processes."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recbole_xling.data.dataset import XLingDataset
from recbole_xling.model.sampling.hard_negatives import DEPTH
from recbole_xling.utils.chunks import score_chunks

_DRAW = 0x0DD5  # keeps these draws apart from others of the same batch
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


class TargetNegatives:
    """Draws items for each target: evenly from those of training, and from the head of the user's list.

    Items without training interactions are no even draws: they would teach that texts like theirs are never chosen.
    The softmax over even draws estimates the one over all items, popularity included. A user's own items of training,
    those of histories that files state included, are no negatives of his.

    Args:
        dataset: the training split.
        number: of even draws per target.
        hard: of draws from lists.
    """

    def __init__(self, dataset: XLingDataset, number: int, hard: int) -> None:
        self._dataset, self._number, self._hard, self._n_items = dataset, number, hard, dataset.item_num
        self._items = np.flatnonzero(np.bincount(dataset.training_pairs()[1], minlength=dataset.item_num))
        users, items = dataset.met_pairs()
        self._own = np.unique(users * self._n_items + items)
        self._lists = np.zeros((dataset.user_num, 1), dtype=np.int32)

    def prepare(self) -> None:
        """Make the lists that hard negatives are drawn from: the items nearest to the mean of each user's history.

        Nearness is that of the catalog's frozen vectors, so that a resumed run has the same lists.
        """
        if not self._hard:
            return
        with torch.random.fork_rng(devices=[]):  # building an encoder draws weights; training goes on as without it
            vectors = torch.from_numpy(self._dataset.catalog.vectors)  # (n_items, D)
        vectors = torch.nn.functional.normalize(vectors - vectors[1:].mean(dim=0), dim=1)
        rows = self._dataset.last_histories(self._dataset.user_num)
        users, histories = rows[self._dataset.uid_field], rows[self._dataset.item_id_list_field]
        untrained = torch.ones(self._n_items, dtype=torch.bool)  # would teach that texts like theirs are never chosen
        untrained[self._items] = False
        lists = torch.zeros(self._dataset.user_num, min(DEPTH, self._n_items - 1), dtype=torch.int32)
        for part in score_chunks(len(rows), self._n_items):
            read = (vectors[histories[part]] * (histories[part] > 0)[..., None]).sum(dim=1)  # (B, D)
            scores = (read @ vectors.T).scatter(1, histories[part], -torch.inf)
            scores[:, untrained] = -torch.inf
            best, item = scores.topk(lists.shape[1], dim=1)
            lists[users[part]] = (item * ~best.isinf()).int()
        self._lists = lists.numpy()

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
        drawn = _mixed(key + _GOLDEN * np.arange(1, self._number + self._hard + 1, dtype=np.uint64))  # (N, n)
        even, hard = np.split(drawn, [self._number], axis=1)
        negative = np.concatenate(
            [self._items[_below(even, len(self._items))], self._lists[user, _below(hard, self._lists.shape[1])]], axis=1
        ).astype(np.int64)
        pair = user * self._n_items + negative
        own = self._own[np.searchsorted(self._own, pair).clip(max=len(self._own) - 1)] == pair
        wrong = (negative != item) & (negative != 0) & ~own
        return torch.from_numpy(negative), torch.from_numpy(wrong)


def _below(drawn: NDArray[np.uint64], number: int) -> NDArray[np.int64]:
    return (drawn % np.uint64(number)).astype(np.int64)


def _mixed(keys: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return numbers that look random, one for each key (SplitMix64: Steele, Lea & Flood, OOPSLA 2014)."""
    keys = (keys ^ (keys >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    keys = (keys ^ (keys >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return keys ^ (keys >> np.uint64(31))
