"""Sampled candidates of an evaluation (``uniN``, ``popN``): the same ones in every evaluation and for every model."""

from __future__ import annotations

import hashlib
import logging
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from recbole.data.dataloader import NegSampleDataLoader
from recbole.data.interaction import Interaction
from recbole.utils import InputType, ModelType

logger = logging.getLogger(__name__)

IntArray = NDArray[np.int64]


class SampledEvalLoader(NegSampleDataLoader):  # type: ignore[misc]
    """RecBole's loader of targets among sampled negatives, with negatives that depend on nothing but names.

    RecBole draws them from the global generator, so that each evaluation has others, and some twice. Here they are
    drawn without repetition, from the seed, the part of the split and the user's id alone. RecBole also joins the
    targets of one user to one list, scoring each with its own history where the model has one; here each target of a
    sequential model has a list of its own, as with ``mode: full``.

    A batch is what RecBole's ``NegSampleEvalDataLoader`` yields: rows of targets and negatives, the list of each row,
    the list of each target, the targets.

    Args:
        config: the configuration.
        dataset: validation or test part.
        sampler: RecBole's sampler of that part, which knows what may not be drawn.
        shuffle: unused; part of RecBole's signature.
    """

    def __init__(self, config: Any, dataset: Any, sampler: Any, shuffle: bool = False) -> None:
        self._phase: str = sampler.phase
        arguments = config[f"{self._phase}_neg_sample_args"]
        self._set_neg_sample_args(config, dataset, InputType.POINTWISE, arguments)
        self._by_target: bool = config["MODEL_TYPE"] == ModelType.SEQUENTIAL
        if not self._by_target:
            dataset.sort(by=dataset.uid_field)
        users, items = (dataset.inter_feat[field].numpy() for field in (dataset.uid_field, dataset.iid_field))
        first = np.ones(len(users), dtype=bool)
        if not self._by_target:
            first[1:] = users[1:] != users[:-1]
        self._begins = np.append(np.flatnonzero(first), len(users))  # of each list's targets
        self._seen_before = pd.Series(users).groupby([users, items]).cumcount().to_numpy()  # rows of the same pair
        self.sample_size = len(self._begins) - 1
        super().__init__(config, dataset, sampler, shuffle=False)
        weights = np.ones(dataset.item_num)
        if arguments["distribution"] == "popularity":
            weights = np.bincount(sampler._get_candidates_list(), minlength=dataset.item_num) ** float(sampler.alpha)
        absent = getattr(dataset, "absent", {}).get(self.iid_field)
        if absent is not None:  # the model was trained on them, but nobody can choose them now
            weights[absent] = 0
        self._pool = _Pool([str(token) for token in dataset.field2id_token[self.iid_field]], weights)
        self._whole = dataset.whole_histories() if config["exclude_history"] and self._by_target else None
        self._short = False

    def _init_batch_size_and_step(self) -> None:
        largest = int(np.diff(self._begins).max(initial=1)) * self.times
        self.step = max(1, self.config["eval_batch_size"] // largest)
        self.set_batch_size(self.step * largest)

    def collate_fn(self, index: Any) -> tuple[Interaction, torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return the targets and negatives of some lists."""
        targets = self._dataset.inter_feat[self.iid_field].numpy()
        rows, items, labels, lists, target_lists, target_items = [], [], [], [], [], []
        for number, block in enumerate(index):
            mine = np.arange(self._begins[block], self._begins[block + 1])
            negatives = self._negatives(block)
            rows.append(np.resize(mine, len(mine) + len(negatives)))
            items += [targets[mine], negatives]
            labels += [np.ones(len(mine), np.float32), np.zeros(len(negatives), np.float32)]
            lists.append(np.full(len(mine) + len(negatives), number))
            target_lists.append(np.full(len(mine), number))
            target_items.append(targets[mine])
        batch = self.transform(self._dataset, self._dataset[np.concatenate(rows)])
        batch[self.iid_field] = torch.from_numpy(np.concatenate(items))
        batch = self._dataset.join(batch)
        batch.update(Interaction({self.label_field: torch.from_numpy(np.concatenate(labels))}))
        return (batch, *(torch.from_numpy(np.concatenate(part)) for part in (lists, target_lists, target_items)))

    def _negatives(self, block: int) -> IntArray:
        """Return the negatives of a list."""
        begin, end = self._begins[block], self._begins[block + 1]
        table = self._dataset.inter_feat
        user = int(table[self.uid_field][begin])
        excluded = set(table[self.iid_field][begin:end].tolist())
        if not self.config["repeatable"]:
            excluded |= self._sampler.used_ids[user]
        elif self.config["exclude_history"] and self._by_target:
            excluded |= set(self._dataset[np.array([begin])][self._dataset.item_id_list_field].reshape(-1).tolist())
            if self._whole is not None:
                excluded |= set(self._whole.before(np.array([begin])).reshape(-1).tolist())
        name = str(self._dataset.field2id_token[self.uid_field][user])
        key = f"{self.config['seed']}\t{self._phase}\t{name}"
        if self._by_target:  # by the item, and not by its place: rows of other languages may be left out
            target = self._dataset.field2id_token[self.iid_field][table[self.iid_field][begin]]
            key += f"\t{target}\t{self._seen_before[begin]}"
        seed = int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "big")
        wanted = int(end - begin) * int(self.neg_sample_num)
        found = self._pool.draw(wanted, excluded, np.random.default_rng(seed))
        if len(found) < wanted and not self._short:
            self._short = True  # say it once
            logger.warning("user %s has only %d items for %d negatives: all are taken", name, len(found), wanted)
        return found


class _Pool:
    """Items that are drawn by weight without repetition.

    Args:
        names: the items' ids, by whose order draws are made: that of their numbers depends on the file.
        weights: of each item, ``(n_items,)``; the padding item's and those of 0 are never drawn.
    """

    def __init__(self, names: list[str], weights: NDArray[Any]) -> None:
        order = np.argsort(np.array(names[1:])) + 1
        self._items: IntArray = order[weights[order] > 0]
        self._weights = weights[self._items].astype(np.float64)
        self._sums = np.cumsum(self._weights)

    def draw(self, count: int, excluded: set[int], rng: np.random.Generator) -> IntArray:
        """Return ``count`` items, or as many as there are."""
        drawn: dict[int, None] = {}
        for _ in range(20 if 4 * (count + len(excluded)) < len(self._items) else 0):
            places = np.searchsorted(self._sums, rng.random(2 * count) * self._sums[-1], side="right")
            found = self._items[np.minimum(places, len(self._items) - 1)].tolist()
            drawn.update(dict.fromkeys(item for item in found if item not in excluded))
            if len(drawn) >= count:
                return np.array(list(drawn)[:count], dtype=np.int64)
        # a large part of all items, or of all weight: take the first ones by random keys
        allowed = ~np.isin(self._items, list(excluded))
        keys = np.where(allowed, rng.exponential(size=len(self._items)) / self._weights, np.inf)
        order: IntArray = np.argsort(keys, kind="stable")[: min(count, int(allowed.sum()))]
        return self._items[order]
