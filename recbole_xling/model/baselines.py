"""Baselines that are not trained: neighbors by text or by co-occurrence, EASE of ids or texts, popularity per language.

RecBole's ItemKNN and EASE know a user by his row of the training interactions, so whoever is not in training gets the
same score for all items. These models score the history that a row states, so they serve readers of a language that
training has not seen: the controls that every cross-lingual gain is held against.
"""

from __future__ import annotations

from hashlib import sha256
from typing import Any, ClassVar

import numpy as np
import scipy.sparse as sp
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from pydantic import Field
from recbole.data.interaction import Interaction
from recbole.model.general_recommender.itemknn import ComputeSimilarity
from scipy.linalg import blas, lapack
from torch import Tensor

from recbole_xling.data.dataset import XLingDataset
from recbole_xling.errors import CheckpointError, ConfigError
from recbole_xling.evaluator.streaming import Factors
from recbole_xling.language.tags import UNDETERMINED
from recbole_xling.model.base import WindowsConfig, XLingRecommender
from recbole_xling.model.layers.item_representation import whiten
from recbole_xling.model.layers.language_centering import LanguageCentering
from recbole_xling.model.layers.reader_views import ReaderViews
from recbole_xling.utils.typed_config import TypedConfig


class BaselineConfig(WindowsConfig):
    """What models without weights need to go through the same run loop."""

    section: ClassVar[str] = "training"

    epochs: int = Field(1, ge=0, description="One: nothing is learned after the model is built.")
    train_neg_sample_args: dict[str, Any] | None = Field(
        None, description="RecBole's own negative sampling is not used."
    )


class HistoryConfig(TypedConfig):
    """How a history weighs its items."""

    section: ClassVar[str] = "history"

    history_decay: float = Field(
        1.0, gt=0, le=1, description="Weight of an item of the history compared to that of the one after it."
    )


class Baseline(XLingRecommender):
    """A model without weights: everything it knows comes from the training split as it is built."""

    def __init__(self, config: Any, dataset: XLingDataset) -> None:
        super().__init__(config, dataset)
        decay = config["history_decay"]
        self._decay = 1.0 if decay is None else float(decay)

    @classmethod
    def idle_settings(cls, config: Any) -> list[str]:
        """Return what is about steps of training."""
        return [*WindowsConfig.model_fields, "train_text_view"]

    def calculate_loss(self, interaction: Interaction) -> Tensor:
        """Return 0: there is nothing to learn."""
        return torch.zeros((), device=interaction[self.USER_ID].device, requires_grad=True)

    def predict(self, interaction: Interaction) -> Tensor:
        """Score one given item per history, ``(B,)``."""
        scores: Tensor = self.full_sort_predict(interaction)
        return scores.gather(1, interaction[self.ITEM_ID][:, None])[:, 0]

    def history_weights(self, interaction: Interaction) -> Tensor:
        """Return the weight of each place of the histories, ``(B, L)``, 0 where there is no item."""
        item_seq, length = interaction[self.ITEM_SEQ], interaction[self.ITEM_SEQ_LEN]
        place = torch.arange(item_seq.shape[1], device=item_seq.device)
        weight = self._decay ** (length[:, None] - 1 - place).clamp_min(0)
        return weight * (place < length[:, None])


# ---- by text --------------------------------------------------------------------------------------------------


class ContentConfig(TypedConfig):
    """How text vectors are prepared."""

    section: ClassVar[str] = "text"

    centering: bool = Field(True, description="Take from vectors what all texts of their language have in common.")
    text_whitening: bool = Field(False, description="Bring the principal axes of the vectors to like variance.")


def text_tables(config: Any, dataset: XLingDataset, n_views: int) -> Tensor:
    """Return the text vectors of items, ``(n_views, n_items, D)`` of unit length; zero without a text."""
    settings = ContentConfig.of(config)
    vectors, row = dataset.catalog.model_vectors  # (n, D), (n_views, n_items)
    languages = torch.from_numpy(dataset.catalog.model_language_ids)
    tables = torch.from_numpy(vectors[row[:n_views]])
    has_text = tables.abs().sum(dim=-1) > 0
    if settings.centering:
        center = LanguageCentering().eval()
        centered = [
            center(F.normalize(table, dim=-1), language, text.float())
            for table, language, text in zip(tables, languages, has_text, strict=False)
        ]
        tables = torch.stack(centered) * has_text[..., None]
    if settings.text_whitening:
        tables = torch.from_numpy(whiten(tables.flatten(0, 1).numpy())).view_as(tables)
    return F.normalize(tables, dim=-1)


def mean_of_texts(tables: Tensor, text: Tensor) -> Tensor:
    """Return the mean of the vectors of each item's different texts, ``(n_items, D)``.

    Args:
        tables: vectors of the items in each view, ``(n_views, n_items, D)``. A text that several views show counts as
            it is in the first of them: centering makes it a little different in each.
        text: number of each of these texts, ``(n_views, n_items)``.
    """
    total = torch.zeros_like(tables[0])
    for view, table in enumerate(tables):
        seen = (text[:view] == text[view]).any(dim=0)  # (n_items,), in a view before
        total += table * ~seen[:, None]
    return F.normalize(total, dim=-1)


class ContentKNNConfig(ContentConfig, HistoryConfig, BaselineConfig):
    """All settings of ContentKNN."""


class ContentKNN(Baseline):
    """Items whose text is like the texts of the history: cosine with the weighted mean of its frozen text vectors.

    This is late fusion of a frozen encoder (NaSE, Iana et al., 2024), the strongest zero-shot method published for
    xMIND. With ``reader_vectors: reader`` everybody's history and candidates are the texts that he sees.
    """

    config_class: ClassVar = ContentKNNConfig
    tables: Tensor

    def __init__(self, config: Any, dataset: XLingDataset) -> None:
        super().__init__(config, dataset)
        self.views = ReaderViews(dataset)
        self.register_buffer("tables", text_tables(config, dataset, self.views.number), persistent=False)

    @classmethod
    def bound_to_data(cls, config: Any) -> list[str]:
        """Return nothing: all that the model knows are texts."""
        return []

    def factors(self, interaction: Interaction) -> list[tuple[Tensor, Factors]]:
        """Return the means of histories and the item vectors, all of unit length, for the rows of each view."""

        def of(rows: Interaction, view: int) -> Factors:
            table, weight = self.tables[view], self.history_weights(rows)
            user = torch.einsum("bl,bld->bd", weight, table[rows[self.ITEM_SEQ]])
            return Factors(F.normalize(user, dim=-1), table, None)

        return self.views.factors(interaction, of)


# ---- by what is read together ---------------------------------------------------------------------------------


class OfInteractions(Baseline):
    """A model of the training interactions alone: loaded again, it is computed again from those it was trained on."""

    def __init__(self, config: Any, dataset: XLingDataset) -> None:
        super().__init__(config, dataset)
        self.matrix = dataset.inter_matrix(form="csr").astype(np.float32)
        self.matrix.sum_duplicates()
        parts = (self.matrix.indptr, self.matrix.indices, self.matrix.data, self.matrix.shape)
        self.trained_on = sha256(b"".join(np.asarray(part, dtype=np.int64).tobytes() for part in parts)).hexdigest()

    def other_parameter(self) -> dict[str, Any]:
        """Return what a checkpoint keeps: which interactions the model comes from."""
        return {"trained_on": self.trained_on}

    def load_other_parameter(self, para: dict[str, Any] | None) -> None:
        """Check what :meth:`other_parameter` returned; earlier releases kept nothing of LanguagePop.

        Raises:
            CheckpointError: the training interactions are others than those of the run.
        """
        if para and para["trained_on"] != self.trained_on:
            raise CheckpointError(
                f"the training interactions are not those of the run, and {type(self).__name__} consists of nothing "
                "else: restore the files, or run it again"
            )


class ItemSimilarity(OfInteractions):
    """Scores are sums of similarities to the items of the history; similarities come from the training interactions.

    Attributes:
        similarity: column ``j`` has what each item adds to the score of item ``j``, ``(n_items, n_items)``.
    """

    def __init__(self, config: Any, dataset: XLingDataset) -> None:
        super().__init__(config, dataset)
        self.similarity: Any = self.similarities(config, dataset)

    def similarities(self, config: Any, dataset: XLingDataset) -> Any:
        """Return the similarities of items, ``(n_items, n_items)``."""
        raise NotImplementedError

    def full_sort_predict(self, interaction: Interaction) -> Tensor:
        """Score all items per history, ``(B, n_items)``; the padding item gets minus infinity."""
        item_seq, weight = interaction[self.ITEM_SEQ].cpu().numpy(), self.history_weights(interaction).cpu().numpy()
        row = np.repeat(np.arange(len(item_seq)), item_seq.shape[1])
        shape = (len(item_seq), self.n_items)
        histories = sp.csr_matrix((weight.ravel(), (row, item_seq.ravel())), shape=shape)
        found = histories @ self.similarity
        dense = np.asarray(found.toarray() if sp.issparse(found) else found, dtype=np.float32)
        scores = torch.from_numpy(dense).to(interaction[self.ITEM_SEQ].device)
        scores[:, 0] = float("-inf")
        return scores


class HistoryItemKNNConfig(HistoryConfig, BaselineConfig):
    """All settings of HistoryItemKNN: names and defaults of RecBole's ItemKNN."""

    section: ClassVar[str] = "neighbors"

    k: int = Field(100, ge=1, description="Neighbors of each item.")
    shrink: float = Field(0.0, ge=0, description="Added to the denominator of the cosine.")


class HistoryItemKNN(ItemSimilarity):
    """RecBole's ItemKNN (Deshpande and Karypis, TOIS 2004), scored on the history of the row."""

    config_class: ClassVar = HistoryItemKNNConfig

    def similarities(self, config: Any, dataset: XLingDataset) -> Any:
        """Return the cosines of items with their ``k`` nearest ones."""
        settings = HistoryItemKNNConfig.of(config)
        return ComputeSimilarity(self.matrix, topk=settings.k, shrink=settings.shrink).compute_similarity()[1]


class HistoryEASEConfig(HistoryConfig, BaselineConfig):
    """All settings of HistoryEASE: names and defaults of RecBole's EASE."""

    section: ClassVar[str] = "regression"

    reg_weight: float = Field(250.0, gt=0, description="Weight of the L2 penalty; smaller for small data.")


class HistoryEASE(ItemSimilarity):
    """EASE (Steck, *Embarrassingly Shallow Autoencoders for Sparse Data*, WWW 2019), scored on the row's history.

    Memory grows with the square of the number of items: while it is computed 1 GB at 8,000 of them and 12 GB at 27,000,
    afterwards a quarter of that.
    """

    config_class: ClassVar = HistoryEASEConfig

    def similarities(self, config: Any, dataset: XLingDataset) -> Any:
        """Return the weights of the regression of each item on all others."""
        known = np.unique(self.matrix.indices)  # an item without interactions has no weight, and is none's
        return _regression(self.matrix, known, HistoryEASEConfig.of(config).reg_weight)


_COLUMNS = 1024  # of the inverse that are copied at a time


def _regression(
    matrix: sp.csr_matrix, items: NDArray[Any], penalty: float, texts: NDArray[np.float64] | None = None
) -> NDArray[np.float32]:
    """Return the weights of EASE, ``(n_items, n_items)``: of the inverse of a Gram matrix each column by its diagonal.

    The matrix is inverted where it lies, by its Cholesky factor: in less than half of the memory and of the time of a
    general inverse.

    Args:
        matrix: how often users chose items, ``(n_users, n_items)``.
        items: those that have weights, ``(n,)``.
        penalty: of the weights.
        texts: what is explained besides, ``(n, D)``.

    Raises:
        ConfigError: the penalty is too small for the matrix to have an inverse in double precision.
    """
    chosen = matrix[:, items].astype(np.float64)
    gram: NDArray[np.float64] = (chosen.T @ chosen).toarray(order="F")
    if texts is not None:
        gram = blas.dsyrk(1.0, texts, beta=1.0, c=gram, lower=1, overwrite_c=1)
    gram[np.diag_indices_from(gram)] += penalty
    factor, failed = lapack.dpotrf(gram, lower=1, clean=0, overwrite_a=1)  # as all here, of the lower triangle
    if not failed:
        inverse, failed = lapack.dpotri(factor, lower=1, overwrite_c=1)
    if failed:
        raise ConfigError(f"the regression has no solution in double precision: raise reg_weight={penalty:g}")
    diagonal = inverse.diagonal()
    weights = np.zeros((matrix.shape[1],) * 2, dtype=np.float32)
    for begin in range(0, len(items), _COLUMNS):
        end = min(begin + _COLUMNS, len(items))
        below = inverse[begin:, begin:end]  # (n - begin, columns)
        square = below[: end - begin]
        square[:] = np.tril(square) + np.tril(square, -1).T
        weights[np.ix_(items[begin:], items[begin:end])] = -below / diagonal[begin:end]
        weights[np.ix_(items[begin:end], items[begin:])] = -below.T / diagonal[begin:]
    weights[items, items] = 0.0
    return weights


class ContentEASEConfig(ContentConfig, HistoryConfig, BaselineConfig):
    """All settings of ContentEASE."""

    section: ClassVar[str] = "regression"

    text_whitening: bool = Field(True, description="Bring the principal axes of the vectors to like variance.")
    reg_weight: float = Field(30.0, gt=0, description="Weight of the L2 penalty.")
    text_weight: float = Field(
        100.0, ge=0, description="How often the texts count as interactions do, a dimension as a user; 0: EASE of ids."
    )


class ContentEASE(ItemSimilarity):
    """EASE that explains item texts beside interactions: each item's column of both, by those of all other items.

    This is CEASE (Jeunen, Van Balen and Goethals, "Closed-Form Models for Collaborative Filtering with
    Side-Information", RecSys 2020) with the dimensions of text vectors in place of tags. Items are alike that are read
    together or say the same, so those without interactions are served too; and as vectors of a multilingual encoder
    are about what a text means, not in which words, readers of all languages profit. An item with several texts has
    the mean of their vectors. Memory is that of :class:`HistoryEASE`.
    """

    config_class: ClassVar = ContentEASEConfig

    def similarities(self, config: Any, dataset: XLingDataset) -> Any:
        """Return the weights of the regression of each item on all others."""
        settings = ContentEASEConfig.of(config)
        n_views = ReaderViews(dataset).number
        text = torch.from_numpy(dataset.catalog.model_vectors[1][:n_views])  # (n_views, n_items)
        texts = mean_of_texts(text_tables(config, dataset, n_views), text).double().numpy()  # (n_items, D)
        some = np.union1d(np.unique(self.matrix.indices), np.flatnonzero(texts.any(axis=1)))
        return _regression(self.matrix, some, settings.reg_weight, settings.text_weight**0.5 * texts[some])


# ---- by popularity --------------------------------------------------------------------------------------------


class LanguagePop(OfInteractions):
    """The items that readers of the same language choose most; of equal ones those that all readers choose most.

    A reader's language is the one that he states, else the one of most items in his history. Readers of a language
    that training has not seen, or of no known one, get what all readers choose most.
    """

    config_class: ClassVar = BaselineConfig
    ranks_without_history: ClassVar[bool] = True
    popularity: Tensor
    stated: Tensor
    shown: Tensor

    def __init__(self, config: Any, dataset: XLingDataset) -> None:
        super().__init__(config, dataset)
        readers, mask = dataset.readers, dataset.train_mask
        users, items = (dataset.sequence[field].numpy()[mask] for field in (dataset.uid_field, dataset.iid_field))
        names = [*sorted({*readers.names, *readers.stated} - {UNDETERMINED}), UNDETERMINED]
        number = {name: place for place, name in enumerate(names)}
        language = np.array([number[name] for name in readers.languages(users, items)])  # (n_users,)
        counts = np.zeros((len(names), dataset.item_num))
        np.add.at(counts, (language[users], items), 1)
        total = counts.sum(axis=0)
        counts[-1] = 0  # nobody is like a reader of whom nothing is known
        popularity = torch.from_numpy(counts + total / (1 + total.max())).float()
        self.register_buffer("popularity", popularity, persistent=False)  # (n_languages, n_items)
        for name, languages in (("stated", readers.stated), ("shown", readers.displayed)):
            self.register_buffer(name, torch.tensor([number[language] for language in languages]), persistent=False)

    def full_sort_predict(self, interaction: Interaction) -> Tensor:
        """Score all items per history, ``(B, n_items)``; the padding item gets minus infinity."""
        item_seq, stated = interaction[self.ITEM_SEQ], self.stated[interaction[self.USER_ID]]
        votes = self.popularity.new_zeros(len(item_seq), len(self.popularity))
        votes.scatter_add_(1, self.shown[item_seq], (item_seq > 0).to(votes))
        votes[:, -1] = 0.5  # where no item of the history has a known language
        scores = self.popularity[torch.where(stated < len(self.popularity) - 1, stated, votes.argmax(dim=1))]
        scores[:, 0] = float("-inf")
        return scores
