"""The sequential dataset of recbole-xling: each interaction is stored once, histories are cut out per batch."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from recbole.data.dataset import SequentialDataset
from recbole.data.interaction import Interaction

from recbole_xling.data.catalog import ItemCatalog
from recbole_xling.data.mixin import ROW, XLingDatasetMixin, check_raw_times, in_single_precision, take_rows
from recbole_xling.data.sequences import (
    Segments,
    TrainingWindows,
    WholeHistories,
    cut_windows,
    leave_one_out_parts,
    next_item_rows,
    ratio_parts,
)
from recbole_xling.data.splits.build import all_rows, file_parts, split_dataset, with_validation
from recbole_xling.data.splits.files import has_histories
from recbole_xling.data.splits.settings import read_split
from recbole_xling.errors import DataError
from recbole_xling.language.users import Readers

ELAPSED_LIST = "elapsed_list"
"""Field of histories where ``positions: relative_time`` reads times: milliseconds since the first item, ``(B, L)``."""
_LONGEST = 2**62  # of these that two of them can be subtracted from each other


class XLingDataset(XLingDatasetMixin, SequentialDataset):
    """RecBole's ``SequentialDataset`` whose memory grows with interactions, not with interactions times history.

    RecBole stores the padded history of every row. This class stores the interactions once, in a flat array sorted by
    user and time. A row stores the position of its target, and its history is cut out when a batch is asked for. Rows,
    their order, and the fields of a batch equal RecBole's for RecBole's splits (LS, RS, TS).
    """

    _stated_row: NDArray[np.int64] | None = None
    """The row of each position of :attr:`sequence` where files state the histories of rows (``benchmark_filename``)."""

    inter_feat: Any
    """RecBole's table of interactions; after :meth:`build` one row per target."""

    sequence: Interaction
    """All interactions, sorted by user, then time. With LS, RS and TS the parts of a split share one table; with the
    other kinds each part has a table of what it may see."""

    # ---- building ---------------------------------------------------------------------------------------------

    def build(self) -> list[Any]:
        """Return the datasets of training, validation and test.

        Raises:
            ConfigError: ``eval_args.split`` is not understood or does not suit the dataset.
            DataError: time stamps are not loaded, or nothing is left to train or test on.
        """
        if self.config["benchmark_filename"]:
            return [part._from_histories() if has_histories(part) else part for part in file_parts(self)]
        setting = read_split(self.config["eval_args"]["split"])
        parts: list[Any] = with_validation(super().build()) if setting is None else split_dataset(self, setting)
        return parts

    def _from_histories(self) -> XLingDataset:
        """Return this part with its rows, whose histories the file states, one after the other in a flat sequence."""
        table, history = self.inter_feat, self.item_id_list_field
        length = table[self.item_list_length_field]
        target = (length + 1).cumsum(0) - 1  # place of each row's target in the sequence
        row = torch.repeat_interleave(torch.arange(len(table)), length + 1)
        items = torch.empty(len(row), dtype=torch.int64)
        is_history = torch.ones(len(row), dtype=torch.bool)
        is_history[target] = False
        items[target] = table[self.iid_field]
        items[is_history] = table[history][torch.arange(table[history].shape[1]) < length[:, None]]
        columns = {f: v for f, v in table.interaction.items() if not f.endswith(self.config["LIST_SUFFIX"])}
        part: XLingDataset = self.copy(Interaction({**columns, ROW: target}))
        part.sequence = Interaction({self.uid_field: table[self.uid_field][row], self.iid_field: items})
        part._stated_row = row.numpy()
        return part

    def data_augmentation(self) -> None:
        """Replace the interactions by next-item rows (RecBole's augmentation) that point into :attr:`sequence`."""
        self._check_field("uid_field", "time_field")
        self._aug_presets()
        self.sort(by=[self.uid_field, self.time_field], ascending=True)
        self.sequence = self.inter_feat
        target, length = next_item_rows(self.inter_feat[self.uid_field].numpy(), self.max_item_list_len)
        rows = torch.from_numpy(target)
        columns = {field: values[rows] for field, values in self.sequence.interaction.items()}
        columns[self.item_list_length_field] = torch.from_numpy(length)
        columns[ROW] = rows
        self.inter_feat = Interaction(columns)

    def leave_one_out(self, group_by: str | None, leave_one_mode: str) -> list[XLingDataset]:
        """Split as RecBole's ``leave_one_out``; modes ``valid_and_test``, ``valid_only``, ``test_only``."""
        left_out = {"valid_and_test": 2, "valid_only": 1, "test_only": 1}
        if group_by is None or leave_one_mode not in left_out:
            return super().leave_one_out(group_by, leave_one_mode)  # raises RecBole's own error
        parts = leave_one_out_parts(self.inter_feat[group_by].numpy(), left_out[leave_one_mode])
        nothing = np.empty(0, dtype=np.int64)
        if leave_one_mode == "valid_only":
            parts.append(nothing)
        elif leave_one_mode == "test_only":
            parts.insert(1, nothing)
        return self._parts(parts)

    def split_by_ratio(self, ratios: list[float], group_by: str | None = None) -> list[XLingDataset]:
        """Split as RecBole's ``split_by_ratio``, per group or over all rows."""
        total = sum(ratios)
        shares = [ratio / total for ratio in ratios]
        n = len(self.inter_feat)
        groups = np.zeros(n, dtype=np.int64) if group_by is None else self.inter_feat[group_by].numpy()
        return self._parts(ratio_parts(groups, len(shares), lambda size: self._calcu_split_ids(size, shares)))

    def whole_histories(self) -> WholeHistories | None:
        """Return what users chose before rows; None where files state the histories."""
        if self.states_histories or not hasattr(self, "sequence"):
            return None
        return self._whole_histories(self.sequence)

    # ---- batches ----------------------------------------------------------------------------------------------

    def __getitem__(self, index: Any, join: bool = True) -> Interaction:
        """Return rows with their padded histories, each ``(B, MAX_ITEM_LIST_LENGTH)``, as RecBole lays them out."""
        if not hasattr(self, "sequence"):
            if has_histories(self):
                return super().__getitem__(index, join)
            # our splits leave its interactions in order, and run_recbole counts FLOPs with one of their rows
            return all_rows(self)[index]
        rows = take_rows(self.inter_feat, index)
        position = rows[ROW].reshape(-1)
        rows.drop(ROW)
        rows.update(self._histories(position, rows[self.item_list_length_field].reshape(-1)))
        return in_single_precision(self.join(rows) if join else rows)

    def _histories(self, target: torch.Tensor, length: torch.Tensor) -> Interaction:
        """Return the padded lists of all fields but the user: ``length`` interactions before ``target``."""
        steps = torch.arange(self.max_item_list_len)
        inside = steps < length[:, None]  # (B, L)
        where = torch.where(inside, (target - length)[:, None] + steps, 0)
        lists = {}
        for field, values in self.sequence.interaction.items():
            if field == self.uid_field:
                continue
            history = values[where]  # (B, L) or (B, L, ...)
            history[~inside] = 0
            lists[getattr(self, f"{field}_list_field")] = history
        if self.reads_times:
            lists[ELAPSED_LIST] = self.elapsed(where, inside)
        return Interaction(lists)

    @property
    def reads_times(self) -> bool:
        """Whether the model reads when the interactions of a history were."""
        return bool(self.config["positions"] == "relative_time")

    def elapsed(self, where: torch.Tensor, inside: torch.Tensor) -> torch.Tensor:
        """Return the time between the first interaction of histories and each of them, ``(B, L)`` whole milliseconds.

        Single precision would take seconds from what lies years after the first one.

        Args:
            where: places of the interactions in :attr:`sequence`, ``(B, L)``.
            inside: False for padding, ``(B, L)``.

        Raises:
            DataError: files state the histories, and no times in them, or times are normalized.
        """
        check_raw_times(self, "positions=relative_time")
        if self.time_field not in self.sequence:
            raise DataError(
                f"positions=relative_time needs the time of each interaction in seconds, which histories that files "
                f"state ('{self.dataset_name}') do not have: set positions=learned"
            )
        time = self.sequence[self.time_field].double()[where]
        return (1000 * (time - time[:, :1]) * inside).round().clamp(-_LONGEST, _LONGEST).long()

    def inter_matrix(self, form: str = "coo", value_field: str | None = None) -> Any:
        """Return the sparse user-item matrix of this split: its targets and the users' first interactions."""
        trained = self.sequence[torch.from_numpy(self.train_mask)]
        return self._create_sparse_matrix(trained, self.uid_field, self.iid_field, form, value_field)

    # ---- what models and loaders ask for ----------------------------------------------------------------------

    @property
    def owner(self) -> NDArray[np.int64]:
        """To which user each position of :attr:`sequence` belongs, or to which row where files state the histories."""
        return self.sequence[self.uid_field].numpy() if self._stated_row is None else self._stated_row

    @property
    def segments(self) -> Segments:
        """The trainable part of each user's sequence in this split."""
        return Segments.of_targets(self.owner, self.is_target)

    def training_windows(self, max_length: int, stride: int, rng: np.random.Generator) -> TrainingWindows:
        """Return the windows of an epoch (:func:`~recbole_xling.data.sequences.cut_windows`).

        Rows whose histories a file states are one window each, of which the target alone is trained.
        """
        if self._stated_row is None:
            return cut_windows(self.segments, max_length, stride, rng)
        target, length = (self.inter_feat[field].numpy() for field in (ROW, self.item_list_length_field))
        return TrainingWindows(target - length, length, length - 1)

    @property
    def is_target(self) -> NDArray[np.bool_]:
        """Mask over :attr:`sequence` of the positions this split predicts, shape ``(n_interactions,)``."""
        mask = np.zeros(len(self.sequence), dtype=bool)
        mask[self.inter_feat[ROW].numpy()] = True
        return mask

    @property
    def train_mask(self) -> NDArray[np.bool_]:
        """Mask over :attr:`sequence` of what is trained on if this is the training split, shape ``(n_interactions,)``.

        These are its targets and its users' first interactions, which have no history and so are inputs only.
        """
        mask, rows = self.is_target, self.inter_feat
        mask[(rows[ROW][rows[self.item_list_length_field] == 1] - 1).numpy()] = True
        return mask

    @property
    def known_items(self) -> NDArray[np.bool_]:
        """Mask of the items that training has met if this is the training split, in histories too, ``(n_items,)``."""
        known: NDArray[np.bool_] = self.train_item_counts > 0
        if self.states_histories:  # what files state as history need not have been a target
            known[self.sequence[self.iid_field].numpy()] = True
        return known

    def training_pairs(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return users and items of the interactions of :attr:`train_mask`."""
        mask = self.train_mask
        return self.sequence[self.uid_field].numpy()[mask], self.sequence[self.iid_field].numpy()[mask]

    @property
    def states_histories(self) -> bool:
        """Whether files state the histories of rows, so that the rows of a user need not belong together."""
        return self._stated_row is not None

    def met_pairs(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return users and items of all that training shows: :meth:`training_pairs`, and histories that files state."""
        if not self.states_histories:
            return self.training_pairs()
        return self.sequence[self.uid_field].numpy(), self.sequence[self.iid_field].numpy()

    def last_histories(self, n_users: int) -> Interaction:
        """Return the history of users at the end of this split, that is, with their last target in it.

        Args:
            n_users: at most this many users, evenly spaced.

        Returns:
            Users ``(B,)``, item lists ``(B, MAX_ITEM_LIST_LENGTH)``, padded with 0 on the right, and their lengths
            ``(B,)``.
        """
        segments = self.segments
        n = len(segments.start)
        chosen = np.unique(np.linspace(0, n - 1, n_users if n else 0).astype(np.int64))
        end = torch.from_numpy((segments.start + segments.n_targets)[chosen]) + 1
        length = torch.from_numpy(np.minimum(segments.n_targets[chosen] + 1, self.max_item_list_len))
        items, lengths = self.item_id_list_field, self.item_list_length_field
        users = self.sequence[self.uid_field][torch.from_numpy(segments.start[chosen])]
        histories = self._histories(end, length)
        kept = (items, *([ELAPSED_LIST] if self.reads_times else ()))
        return Interaction({self.uid_field: users, **{name: histories[name] for name in kept}, lengths: length})

    @property
    def readers(self) -> Readers:
        """The languages that users state, and those in which models show them items."""
        return self.catalog.readers_of_views([str(token) for token in self.field2id_token[self.uid_field]])

    @cached_property
    def catalog(self) -> ItemCatalog:
        """Texts, languages and text vectors of the items, in the order of this dataset's item ids."""
        tokens = [str(token) for token in self.field2id_token[self.iid_field]]
        known_languages = self.trained_on.languages if self.trained_on is not None else ()
        return ItemCatalog(self.config, tokens, Path(self.dataset_path), self.dataset_name, known_languages)
