"""PinnedIds: users, items and features keep the numbers that they had when a model was trained."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from recbole.data.dataset import Dataset
from recbole.utils import FeatureType

from recbole_xling.data.identity import DataIdentity, Fingerprint, Tokens, fingerprint
from recbole_xling.text.atomic_files import PADDING


class PinnedIds(Dataset):  # type: ignore[misc]
    """A RecBole dataset that knows its files and, once a model was trained on them, the model's ids.

    RecBole numbers ids by their first appearance in the files. Here those that a model was trained on come first, in
    the model's order, and new ones follow.

    Attributes:
        fingerprint: of the files, taken before they are read.
        trained_on: the data that a model was trained on, if these are its data or a later state of them; else None.
        vocabulary: the tokens of each token field, in the order of ids.
        absent: ids of ``trained_on`` that the files lack, by field; they have no interactions and no features.
        known_item_counts: training interactions of each item, where a run that was trained on these or other files
            knows them.
    """

    fingerprint: Fingerprint
    trained_on: DataIdentity | None = None
    vocabulary: dict[str, Tokens]
    absent: dict[str, NDArray[np.int64]]
    known_item_counts: NDArray[np.int64] | None = None

    @property
    def train_item_counts(self) -> NDArray[np.int64]:
        """How often each item occurs in this training split, or in that of ``known_item_counts``, ``(n_items,)``."""
        if self.known_item_counts is not None:
            return self.known_item_counts
        return np.bincount(self.training_pairs()[1], minlength=self.item_num)

    def training_pairs(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return users and items of this training split: its targets, and the first ones of sequences, each once."""
        users, items = (self.inter_feat[field].numpy() for field in (self.uid_field, self.iid_field))
        length = self.config["ITEM_LIST_LENGTH_FIELD"]
        if length not in self.inter_feat:
            return users, items
        begins = np.flatnonzero(self.inter_feat[length].numpy() == 1)
        if self.config["MAX_ITEM_LIST_LENGTH"] == 1:  # so are all rows: those of each user's second interaction
            begins = begins[np.unique(users[begins], return_index=True)[1]]
        first = self.inter_feat[self.iid_field + self.config["LIST_SUFFIX"]].numpy()[begins, 0]
        return np.append(users, users[begins]), np.append(items, first)

    def _load_data(self, token: str, dataset_path: str) -> None:
        self.fingerprint = fingerprint(self.config)
        super()._load_data(token, dataset_path)

    def _remap_ID_all(self) -> None:  # noqa: N802
        """Number all ids, as ``trained_on`` did if these are its data."""
        self.vocabulary, self.absent = {}, {}
        names = self.uid_field, self.iid_field
        if self.trained_on is not None and not self.trained_on.is_of(self.fingerprint, self.inter_feat, *names):
            self.trained_on = None
        super()._remap_ID_all()

    def _remap(self, remap_list: list[tuple[pd.DataFrame, str, FeatureType]]) -> None:
        """Number the ids of fields that share them: those of ``trained_on`` first, as if they came first in a file.

        RecBole's own numbering, but that its dictionary has a numpy object for each token, which takes time and memory.
        """
        if not remap_list:
            return
        fields = [str(field) for _, field, _ in remap_list]
        pinned = self.trained_on.vocabulary if self.trained_on is not None else {}
        known = next((pinned[field] for field in fields if field in pinned), None)
        tokens, ends = self._concat_remaped_tokens(remap_list)
        in_order = tokens if known is None else np.concatenate([known[1:].astype(object), tokens])
        number, different = pd.factorize(in_order)
        ids = number[len(in_order) - len(tokens) :] + 1  # 0 is the padding
        if known is not None:
            used = np.bincount(np.append(ids, 0), minlength=len(known)) > 0
            self.absent[fields[0]] = np.flatnonzero(~used)
        vocabulary = np.array([PADDING, *different])
        number_of = {token: number for number, token in enumerate(vocabulary.tolist())}
        for (table, field, kind), part in zip(remap_list, np.split(ids, ends), strict=True):
            self.field2id_token.setdefault(field, vocabulary)
            self.field2token_id.setdefault(field, number_of)
            values: Any = part
            if kind == FeatureType.TOKEN_SEQ:
                values = np.split(part, np.cumsum(table[field].map(len))[:-1])
            table[field] = values
        self.vocabulary[fields[0]] = self.field2id_token[fields[0]]
