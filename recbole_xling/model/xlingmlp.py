"""XLingMLP: is this user going to like this item, told from ids, languages, text and further columns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field, PositiveInt
from recbole.data.interaction import Interaction
from recbole.model.abstract_recommender import AbstractRecommender
from recbole.utils import InputType, ModelType
from torch import Tensor, nn

from recbole_xling.data.catalog import ItemCatalog, catalog_of
from recbole_xling.language.users import LANGUAGE_SOURCE, USER_LANGUAGE, Readers
from recbole_xling.model.base import ModelHooks
from recbole_xling.model.layers.feature_columns import FeatureColumns
from recbole_xling.model.layers.language_embedding import LanguageEmbedding, language_numbers
from recbole_xling.utils.typed_config import TypedConfig

_OF_DATASET = ("user_id", "item_id", "columns")  # features whose weights mean nothing on other data
_MOST_HIDDEN = 1 << 24  # numbers of a hidden layer in memory at a time when all items are scored


class XLingMLPConfig(TypedConfig):
    """All settings of XLingMLP."""

    section: ClassVar[str] = "XLingMLP"

    features: list[Literal["user_id", "item_id", "language", "text", "columns"]] = Field(
        ["user_id", "item_id", "language", "text", "columns"],
        min_length=1,
        description="What is known of user and item; `columns` are further ones of the `.user` and `.item` files that "
        "`load_col` names.",
        examples=[["user_id", "text"]],
    )
    embedding_size: int = Field(16, ge=1, description="Size of the vector of an id, a language or a column.")
    text_size: int = Field(64, ge=1, description="Size to which text vectors are projected.")
    mlp_hidden_size: list[PositiveInt] = Field(
        [128, 128], min_length=1, description="Sizes of the hidden layers.", examples=[[128, 128]]
    )
    dropout_prob: float = Field(0.2, ge=0, lt=1, description="Dropout of the last hidden layer.")
    id_dropout_prob: float = Field(
        0.1, ge=0, lt=1, description="Share of ids left out in training, so that those never seen can be left out."
    )
    train_neg_sample_args: dict[str, Any] | None = Field(
        {"distribution": "uniform", "sample_num": 4, "alpha": 1.0, "dynamic": False, "candidate_num": 0},
        description="Sampled negatives of implicit feedback; none: learn from the labels that `threshold` makes.",
        examples=[{"distribution": "uniform", "sample_num": 4}],
    )


class XLingMLP(ModelHooks, AbstractRecommender):
    r"""``sigmoid(FC(Dropout(MLP(Embed(x)))))``, trained by binary cross entropy.

    ``x`` are the user's id and language, the item's id, the language in which the user sees the item, the frozen vector
    of the text that he sees, and further columns of both. Ids without an interaction in training have the zero vector,
    which training meets as well (``id_dropout_prob``).

    A score is the probability of label 1. Labels are those of the data (``threshold``, ``LABEL_FIELD``) with
    ``train_neg_sample_args: ~``; otherwise every interaction is a 1 and sampled items are 0 (He et al., "Neural
    Collaborative Filtering", WWW 2017).

    The first layer of the MLP is linear in what is known of the user plus what is known of the item: so all items are
    scored with one product per user, one per item, and a sum of both.

    Args:
        config: RecBole or recbole-xling configuration; :class:`XLingMLPConfig` lists the keys.
        dataset: the training split, RecBole's own or with this package's mixin.

    Raises:
        ConfigError: a setting is not allowed.
        DataError: ``features`` names the text, and no item has one.
    """

    type = ModelType.CONTEXT
    input_type = InputType.POINTWISE
    config_class: ClassVar = XLingMLPConfig
    ranks_without_history = True
    view: Tensor
    user_language: Tensor
    item_language: Tensor
    text_vectors: Tensor
    text_row: Tensor

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__()
        settings = XLingMLPConfig.of(config)
        self.USER_ID, self.ITEM_ID, self.LABEL = dataset.uid_field, dataset.iid_field, config["LABEL_FIELD"]
        self.features, self.device = set(settings.features), config["device"]
        self.knows_languages_alone = self.features.isdisjoint(("user_id", "columns"))
        self.id_dropout_prob = settings.id_dropout_prob
        size, self.n_items = settings.embedding_size, int(dataset.item_num)
        users, items = (dataset.inter_feat[field].numpy() for field in (self.USER_ID, self.ITEM_ID))
        catalog = catalog_of(dataset)
        readers = catalog.readers_of_views([str(token) for token in dataset.field2id_token[self.USER_ID]])
        self.register_buffer("view", torch.from_numpy(readers.view_of_user), persistent=False)  # (n_users,)
        of_user, of_item = 0, 0  # sizes of what is known of each
        if "user_id" in self.features:
            self.users, of_user = _Ids(users, dataset.user_num, size), of_user + size
        if "item_id" in self.features:
            self.items, of_item = _Ids(items, dataset.item_num, size), of_item + size
        if "language" in self.features:
            self._know_languages(readers, users, items, size)
            of_user, of_item = of_user + size, of_item + size
        if "text" in self.features:
            of_item += settings.text_size
            self._know_texts(catalog, settings.text_size)
        if "columns" in self.features:
            known = {self.USER_ID, USER_LANGUAGE, LANGUAGE_SOURCE}
            self.user_columns = FeatureColumns(dataset, dataset.get_user_feature(), known, size)
            known = {self.ITEM_ID, config["ITEM_LANGUAGE_FIELD"] or "item_language"}
            self.item_columns = FeatureColumns(dataset, dataset.get_item_feature(), known, size)
            of_user += size * len(self.user_columns.names)
            of_item += size * len(self.item_columns.names)
        first, *further = settings.mlp_hidden_size
        # where nothing is known of one side, its part is one number that is 0
        self.of_user, self.of_item = nn.Linear(of_user or 1, first), nn.Linear(of_item or 1, first, bias=False)
        layers: list[nn.Module] = [nn.ReLU()]
        for before, after in zip(settings.mlp_hidden_size, further, strict=False):
            layers += [nn.Linear(before, after), nn.ReLU()]
        self.further = nn.Sequential(*layers)
        self.dropout, self.head = nn.Dropout(settings.dropout_prob), nn.Linear(settings.mlp_hidden_size[-1], 1)

    @classmethod
    def idle_settings(cls, config: Any) -> list[str]:
        """Return what is about histories that come in other texts in training."""
        return ["train_text_view"]

    @classmethod
    def bound_to_data(cls, config: Any) -> list[str]:
        """Return the features that belong to the users, the items or the columns of one dataset."""
        features = XLingMLPConfig.of(config).features
        return [f"features has {name}" for name in _OF_DATASET if name in features]

    # ---- what is known of users and items ---------------------------------------------------------------------

    def _know_languages(self, readers: Readers, users: Any, items: Any, size: int) -> None:
        """Keep each user's language, and that of each item in each view, ``(n_views, n_items)``."""
        spoken = language_numbers(readers.languages(users, items))  # (n_users,)
        seen = torch.stack([language_numbers(readers.seen_by(view)) for view in range(1 + len(readers.own))])
        self.register_buffer("user_language", spoken, persistent=False)
        self.register_buffer("item_language", seen, persistent=False)
        users, items = torch.from_numpy(users), torch.from_numpy(items)
        self.reads = LanguageEmbedding(size, spoken[users])
        self.is_in = LanguageEmbedding(size, seen[self.view[users], items])

    def _know_texts(self, catalog: ItemCatalog, size: int) -> None:
        """Keep the text vectors, of variance 1 on average, and each item's row in them in each view."""
        vectors, row = catalog.model_vectors  # those of training in other views, which come last, are not read
        row = row[: len(catalog.view_languages) if catalog.has_reader_vectors else 1]
        used = vectors[np.unique(row)]
        mean_square = float(np.square(used).sum(axis=1)[used.any(axis=1)].mean())
        scaled = torch.from_numpy(vectors * np.float32(np.sqrt(vectors.shape[1] / mean_square)))
        self.register_buffer("text_vectors", scaled, persistent=False)
        self.register_buffer("text_row", torch.from_numpy(row), persistent=False)  # (1 or n_views, n_items)
        self.text_projection = nn.Linear(vectors.shape[1], size)

    def _of_users(self, user: Tensor) -> Tensor:
        """Return the part of the first layer that depends on users, ``(B, H)``."""
        known = []
        if "user_id" in self.features:
            known.append(self.users(user, self.id_dropout_prob))
        if "language" in self.features:
            known.append(self.reads(self.user_language[user]))
        if "columns" in self.features:
            known += self.user_columns(user)
        return self._first(self.of_user, known, user)

    def _of_items(self, item: Tensor, view: Tensor) -> Tensor:
        """Return the part of the first layer that depends on items in views, ``(B, H)``; both are ``(B,)``."""
        known = []
        if "item_id" in self.features:
            known.append(self.items(item, self.id_dropout_prob))
        if "language" in self.features:
            known.append(self.is_in(self.item_language[view, item]))
        if "text" in self.features:
            row = self.text_row[view if len(self.text_row) > 1 else torch.zeros_like(view), item]
            known.append(self.text_projection(self.text_vectors[row]))
        if "columns" in self.features:
            known += self.item_columns(item)
        return self._first(self.of_item, known, item)

    @staticmethod
    def _first(layer: nn.Linear, known: list[Tensor], ids: Tensor) -> Tensor:
        joined = torch.cat(known, dim=-1) if known else layer.weight.new_zeros(len(ids), 1)
        part: Tensor = layer(joined)
        return part

    def _logits(self, first: Tensor) -> Tensor:
        """Return the logits, ``(...)``, given the first layer before its activation, ``(..., H)``."""
        logits: Tensor = self.head(self.dropout(self.further(first))).squeeze(-1)
        return logits

    # ---- checkpoints ------------------------------------------------------------------------------------------

    def other_parameter(self) -> dict[str, Any]:
        """Return what a checkpoint keeps besides weights: which users and items training had, and scales of columns."""
        known = {name: part.known[:, 0].bool() for name, part in self._id_parts()}
        return {**known, **{name: part.scales for name, part in self._column_parts()}}

    def load_other_parameter(self, para: Mapping[str, Any] | None) -> None:
        """Restore what :meth:`other_parameter` returned; earlier releases kept nothing.

        Users and items that training did not have stay without a vector, whatever interactions they have now.
        """
        for name, part in self._id_parts():
            if para and name in para:
                part.known[:, 0] = para[name].to(part.known)
        self._load_scales(para or {})

    def go_on_from(self, other_parameter: Mapping[str, Any]) -> bool:
        """Know users and items that the earlier run had, and those that have interactions now."""
        for name, part in self._id_parts():
            if name in other_parameter:
                then = other_parameter[name].to(part.known)
                part.known[: len(then), 0] = torch.maximum(part.known[: len(then), 0], then)
        self._load_scales(other_parameter)
        return True

    def _load_scales(self, para: Mapping[str, Any]) -> None:
        for name, part in self._column_parts():
            part.scales = para.get(name, {})

    def _column_parts(self) -> Iterator[tuple[str, FeatureColumns]]:
        return ((name, part) for name, part in self.named_children() if isinstance(part, FeatureColumns))

    def _id_parts(self) -> Iterator[tuple[str, _Ids]]:
        return ((name, part) for name, part in self.named_children() if isinstance(part, _Ids))

    # ---- training and scoring ---------------------------------------------------------------------------------

    def forward(self, user: Tensor, item: Tensor) -> Tensor:
        """Return the logit of label 1 for pairs of users and items, ``(B,)`` each."""
        return self._logits(self._of_users(user) + self._of_items(item, self.view[user]))

    def calculate_loss(self, interaction: Interaction) -> Tensor:
        """Return the mean binary cross entropy of a batch of interactions with labels 0 and 1."""
        logits = self.forward(interaction[self.USER_ID], interaction[self.ITEM_ID])
        return nn.functional.binary_cross_entropy_with_logits(logits.float(), interaction[self.LABEL].float())

    def predict(self, interaction: Interaction) -> Tensor:
        """Return the probability of label 1 for one item per row, ``(B,)``."""
        item = interaction[self.ITEM_ID]
        return self.forward(interaction[self.USER_ID], item).sigmoid().masked_fill(item == 0, float("-inf"))

    def full_sort_predict(self, interaction: Interaction) -> Tensor:
        """Return the probability of label 1 for all items, ``(B, n_items)``; minus infinity for the padding item."""
        user = interaction[self.USER_ID]
        every = torch.arange(self.n_items, device=user.device)
        scores = torch.empty(len(user), self.n_items, device=user.device)
        at_once = max(1, _MOST_HIDDEN // (self.n_items * self.of_user.out_features))
        for view in torch.unique(self.view[user]).tolist():
            of_items = self._of_items(every, torch.full_like(every, view))  # (n_items, H)
            for rows in torch.nonzero(self.view[user] == view)[:, 0].split(at_once):
                first = self._of_users(user[rows])[:, None] + of_items  # (b, n_items, H)
                scores[rows] = self._logits(first).sigmoid().float()
        scores[:, 0] = float("-inf")
        return scores


class _Ids(nn.Module):
    """Embeddings of ids, zero for those that training does not have.

    Args:
        trained: ids of the training interactions.
        number: of all ids.
        size: of an embedding.
    """

    known: Tensor

    def __init__(self, trained: Any, number: int, size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(number, size))
        nn.init.xavier_normal_(self.weight)
        known = torch.from_numpy(np.bincount(trained, minlength=number) > 0)
        self.register_buffer("known", known[:, None].float(), persistent=False)

    def forward(self, ids: Tensor, dropout: float) -> Tensor:
        """Return the embeddings of ids, ``(B, size)``; in training some are left out."""
        kept = self.known[ids]  # (B, 1)
        if self.training:
            kept = kept * (torch.rand_like(kept) >= dropout)
        return nn.functional.embedding(ids, self.weight) * kept
