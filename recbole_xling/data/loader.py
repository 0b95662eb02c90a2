"""Loaders: training windows of similar length in batches planned again for every epoch, and rows of full rankings."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from recbole.data.dataloader import FullSortEvalDataLoader
from recbole.data.interaction import Interaction

from recbole_xling.data.dataset import ELAPSED_LIST, XLingDataset
from recbole_xling.data.language_balance import LanguageBalance
from recbole_xling.data.sequences import EARLIER_LIST, TrainingWindows, crop_windows, reorder, split_windows
from recbole_xling.errors import ConfigError

TARGET_LIST = "target_id_list"
"""Field of a training batch: the item to predict after each input position, ``(B, L)``, 0 where none is trained."""

TARGET_WEIGHT = "target_weight_list"
"""Field of a training batch: weight of each position in the loss, ``(B, L)``; they sum to 1 over the global batch,
on average over batches where languages are weighted."""

FIRST_WEIGHT = "first_weight"
"""Field of a training batch: weight of the first item of each window as a target without a history, ``(B,)``; 0 where
targets of its language are not trained."""

_ORDERS, _CROPS, _MASKS = 1, 2, 3  # tell these random numbers from those of the windows
_CHUNK = 32  # batches whose windows are sorted by length together


class WindowLoader:
    """Iterates over the training windows of an :class:`XLingDataset`, every target once per epoch.

    Where languages are balanced (:class:`~recbole_xling.data.language_balance.LanguageBalance`), those of small ones
    come more often than once, those of large ones less often; where ``languages`` names some, others are no targets.

    ``train_batch_size`` counts targets, as RecBole counts them, so that an epoch makes as many optimizer steps as
    RecBole's with one row per target. A window of more targets than a batch has is divided; its parts see as much
    history. The batches depend on the seed and the epoch alone, so a resumed run sees the same ones as an uninterrupted
    run. Under several processes each takes its share of every batch.

    With ``train_history: set`` every epoch has each history in another random order, so that any item of it is a target
    given any of the others: the order-agnostic training of autoregressive models (Uria et al., *A Deep and Tractable
    Density Estimator*, ICML 2014). ``history_crop``, ``history_mask`` and ``history_reorder`` change histories less, as
    Xie et al., "Contrastive Learning for Sequential Recommendation" (ICDE 2022), do: a window is cut in two, items of
    its inputs are hidden, or a stretch of the history is shuffled. Targets stay what they are, each once per epoch.

    Args:
        config: RecBole or recbole-xling configuration.
        dataset: the training split.
        sampler: unused; part of RecBole's signature.
        shuffle: whether windows and batches are shuffled.
    """

    def __init__(self, config: Any, dataset: XLingDataset, sampler: Any = None, shuffle: bool = True) -> None:
        self.config = config
        self.dataset = self._dataset = dataset
        self.shuffle = shuffle
        self.epoch = 0
        self.sampler = self  # RecBole's trainer calls sampler.set_epoch under several processes
        self._items = dataset.sequence[dataset.iid_field]
        self._users = dataset.sequence[dataset.uid_field]
        self._item_list_field: str = dataset.item_id_list_field
        self._cropped: float = config["history_crop"] or 0.0
        self._masked: float = config["history_mask"] or 0.0
        self._batch_size: int = config["train_batch_size"]
        self._world_size: int = 1 if config["single_spec"] else config["world_size"]
        self._rank: int = 0 if config["single_spec"] else config["local_rank"] + (config["offset"] or 0)
        self._balance = LanguageBalance(config, dataset)
        self._max_length, self._stride = self._balance.max_length, self._balance.stride
        self._reordered = self._balance.reordered
        key = "train_history=set" if config["train_history"] == "set" else "history_reorder"
        if self._reordered and dataset.reads_times:
            raise ConfigError(
                f"{key} gives histories another order, in which positions=relative_time has no times to read: set "
                "positions=learned or rotary, or train_history=sequence and history_reorder=0"
            )
        if self._reordered and self._balance.by_target:
            raise ConfigError(
                f"{key} moves targets within a history, and language_of=target tells them apart by their places: set "
                "language_of=reader, or train_history=sequence and history_reorder=0"
            )
        self._plan: tuple[int, TrainingWindows, list[NDArray[np.int64]]] | None = None

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose batches the next iteration yields."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self._batches()[1])

    def __iter__(self) -> Iterator[Interaction]:
        windows, batches = self._batches()
        n_targets_of = self._balance.n_targets(windows)
        is_trained, weights, first_weights = (
            None if values is None else torch.from_numpy(values)
            for values in (self._balance.is_trained, self._balance.weights, self._balance.first_weights)
        )
        items = self._in_other_orders() if self._reordered else self._items
        for number, batch in enumerate(batches):
            n_targets = int(n_targets_of[batch].sum())  # of all processes
            mine = batch[self._rank :: self._world_size]
            start, length, loss_from = (
                torch.from_numpy(column[mine]) for column in (windows.start, windows.length, windows.loss_from)
            )  # (B,) each
            steps = torch.arange(int(length.max()) if len(mine) else 1)  # (L,)
            inside = steps < length[:, None]  # (B, L)
            where = torch.where(inside, start[:, None] + steps, 0)
            shown = inside & ~self._hidden(number, len(batch))[:, : len(steps)] if self._masked else inside
            trained = inside & (steps >= loss_from[:, None])
            if is_trained is not None:
                trained &= is_trained[where + trained]
            share = self._world_size / max(1, n_targets)
            weight, first_weight = trained * share, torch.full((len(mine),), share)
            if is_trained is not None:
                first_weight *= is_trained[start]
            if weights is not None and first_weights is not None:
                weight = weight * weights[where + trained].float()
                first_weight *= first_weights[start].float()
            times = {ELAPSED_LIST: self.dataset.elapsed(where, inside)} if self.dataset.reads_times else {}
            yield Interaction(
                {
                    **times,
                    self.dataset.uid_field: self._users[start],
                    self._item_list_field: items[where] * shown,
                    self.dataset.item_list_length_field: length,
                    TARGET_LIST: items[where + trained] * trained,
                    TARGET_WEIGHT: weight,
                    FIRST_WEIGHT: first_weight,
                }
            )
        self.epoch += 1

    def _in_other_orders(self) -> torch.Tensor:
        """Return the items of the sequence, each trained part of it reordered, as a whole or in a stretch of it."""
        segments = self.dataset.segments
        # the first item has no history and is no target; a target to which a file states the history stays the target
        sizes = segments.n_targets + (0 if self.dataset.states_histories else 1)
        place = segments.places(sizes)
        order = reorder(sizes, self._reordered, np.random.default_rng([self.config["seed"], self.epoch, _ORDERS]))
        items = self._items.clone()
        items[torch.from_numpy(place)] = self._items[torch.from_numpy(place[order])]
        return items

    def _hidden(self, number: int, n_windows: int) -> torch.Tensor:
        """Draw which inputs of a batch are hidden, of this process's windows, ``(B, longest)``; never the first one."""
        rng = np.random.default_rng([self.config["seed"], self.epoch, _MASKS, number])
        hidden = rng.random((n_windows, self._max_length))[self._rank :: self._world_size] < self._masked
        hidden[:, 0] = False  # every position knows something of the history
        return torch.from_numpy(hidden)

    def _batches(self) -> tuple[TrainingWindows, list[NDArray[np.int64]]]:
        """Return the windows of the current epoch and, for each batch, the numbers of its windows."""
        if self._plan is not None and self._plan[0] == self.epoch:
            return self._plan[1], self._plan[2]
        rng = np.random.default_rng([self.config["seed"], self.epoch])
        windows = self.dataset.training_windows(self._max_length, self._stride, rng)
        if self._cropped:
            crops = np.random.default_rng([self.config["seed"], self.epoch, _CROPS])
            windows = crop_windows(windows, self._cropped, crops)
        n_targets = int(self._balance.n_targets(windows).sum())  # every epoch has as many steps, whatever is drawn
        n_batches = max(1, -(-n_targets // self._batch_size))
        windows = split_windows(windows, max(1, n_targets // n_batches))  # a window of two batches would leave one out
        windows = self._balance.draw(windows, self.epoch)
        order = rng.permutation(len(windows)) if self.shuffle else np.arange(len(windows))
        targets = self._balance.n_targets(windows)
        # sort by length within chunks of some batches: little padding, yet every epoch mixes other users
        chunk = np.cumsum(targets[order]) // (self._batch_size * _CHUNK)
        order = order[np.lexsort((windows.length[order], chunk))]
        filled = np.cumsum(targets[order])
        number = np.minimum((filled - 1) * n_batches // max(1, int(filled[-1]) if len(filled) else 1), n_batches - 1)
        batches = np.split(order, np.flatnonzero(np.diff(number)) + 1) if len(order) else []
        if self.shuffle:
            batches = [batches[index] for index in rng.permutation(len(batches))]
        self._plan = self.epoch, windows, batches
        return windows, batches


class FullRankingLoader(FullSortEvalDataLoader):  # type: ignore[misc]
    """RecBole's loader of rows for which all items are ranked, ``eval_batch_size`` of them at a time for every model.

    For its general models RecBole divides that number by the number of items, down to one row of a large catalog, to
    bound the matrix of scores; here those who rank bound it. Where ``exclude_history`` is set, batches name what users
    chose before their histories begin (:data:`~recbole_xling.data.sequences.EARLIER_LIST`).
    """

    def __init__(self, config: Any, dataset: Any, sampler: Any, shuffle: bool = False) -> None:
        super().__init__(config, dataset, sampler, shuffle=shuffle)
        self._whole = dataset.whole_histories() if config["exclude_history"] else None

    def collate_fn(self, index: Any) -> tuple[Interaction, Any, torch.Tensor, torch.Tensor]:
        """Return rows, what general models do not rank, and rows and items of the targets."""
        rows, known, target_rows, targets = super().collate_fn(index)
        earlier = None if self._whole is None else self._whole.before(np.asarray(index))
        if earlier is not None and earlier.shape[1]:
            rows.update(Interaction({EARLIER_LIST: earlier}))
        return rows, known, target_rows, targets

    def _init_batch_size_and_step(self) -> None:
        self.step = self.config["eval_batch_size"]
        self.set_batch_size(self.step)
