"""ItemRepresentation: item vectors from IDs, texts and languages, and the preparation of text vectors for it."""

from __future__ import annotations

import mmap
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor, nn

from recbole_xling.data.item_vectors import unit_norm
from recbole_xling.encode.vector_table import read_blocks
from recbole_xling.model.layers.fusion import FUSIONS, Fusion
from recbole_xling.model.layers.language_centering import LanguageCentering
from recbole_xling.model.layers.text_projection import TEXT_PROJECTIONS, LinearProjection
from recbole_xling.utils.memory import give_back
from recbole_xling.utils.typed_config import TypedConfig

FloatArray = NDArray[np.float32]
_BLOCK = 65_536  # rows of text vectors that are computed with at a time
_SHORTEST = 1e-3  # vector that gets unit length
_SAMPLE = 50_000  # vectors whose principal axes stand for those of a larger catalog


class RepresentationConfig(TypedConfig):
    """How items become vectors."""

    section: ClassVar[str] = "items"

    item_representation: Literal["none", "text_only", "add", "concat", "gate", "init", "delta", "null_space"] = Field(
        "delta", description="What an item's vector is made of."
    )
    hidden_size: int = Field(64, ge=1, description="Size of item vectors and user states.")
    text_projection: Literal["pca", "linear", "mlp", "moe"] | None = Field(
        None,
        description="From text vectors to `hidden_size` (if not set: `linear` for `text_only`, `delta`; else `pca`).",
    )
    text_projection_init: Literal["pca", "whitened", "random"] = Field(
        "whitened",
        description="Start of the `linear` text projection: the principal axes of the vectors, as they are or with "
        "like variance, or at random.",
    )
    n_experts: int = Field(8, ge=1, description="Experts of the `moe` text projection.")
    text_projection_dropout_prob: float = Field(
        0.2, ge=0, le=1, description="Dropout inside the `mlp` and `moe` text projections."
    )
    text_centering: bool = Field(
        False, description="Take from the text vectors what all texts of their language have in common."
    )
    text_whitening: bool = Field(False, description="Decorrelate the text vectors first.")
    item_language_embedding: bool = Field(False, description="Add a learned vector of the item's language.")
    id_dropout_prob: float = Field(
        0.1, ge=0, le=1, description="Share of items represented by text alone in a training step."
    )
    id_half_count: float = Field(
        0, ge=0, description="Training interactions at which an item's ID counts half; 0: it counts in full from one."
    )
    delta_max_norm: float = Field(
        0.5, ge=0, description="Longest shift of `delta`, as a share of the text vector's length."
    )
    null_space_size: int | None = Field(
        None, ge=1, description="Dimensions of `null_space` that belong to IDs (if not set: half of `hidden_size`)."
    )
    initializer_range: float = Field(0.02, ge=0, description="Standard deviation of initial weights.")

    @property
    def idle(self) -> list[str]:
        """Which of these settings change nothing beside the others."""
        kind, fusion = self.item_representation, FUSIONS[self.item_representation]
        projection = (self.text_projection or fusion.default_projection) if fusion.uses_text else None
        reads = {
            "text_projection": fusion.uses_text,
            "text_projection_init": projection == "linear",
            "n_experts": projection == "moe",
            "text_projection_dropout_prob": projection in ("mlp", "moe"),
            "text_centering": fusion.uses_text or kind == "init",
            "text_whitening": fusion.uses_text or kind == "init",
            "id_dropout_prob": fusion.uses_text and fusion.uses_id,
            "id_half_count": fusion.uses_text and fusion.uses_id,
            "delta_max_norm": kind == "delta",
            "null_space_size": kind == "null_space",
        }
        return [key for key, does in reads.items() if not does]


class ItemRepresentation(nn.Module):
    """The matrix of item vectors, ``(n_items, hidden_size)``, from which inputs and scores are taken.

    Args:
        config: how to build it.
        train_counts: occurrences of each item in training, ``(n_items,)``. Items without any have an untrained ID
            embedding; where items carry text, they are represented by it alone. Where ``id_half_count`` is set, IDs of
            items with few of them are shrunk: an item with as many counts half.
        text_vectors: gives the frozen vectors of texts, ``(n, dimension)``, and each item's row in them in each view,
            ``(n_views, n_items)``; called only if they are needed.
        unit_vectors: gives the same at unit scale (:attr:`~recbole_xling.data.catalog.ItemCatalog.unit_vectors`),
            perhaps mapped from a file; called in their place where vectors are used as they are.
        language_ids: gives a number per item's language in each view, 0 for unknown, ``(n_views, n_items)``; called
            only if needed.
        unit: whether vectors get unit length.

    Raises:
        ConfigError: ``null_space_size`` leaves texts no dimension.

    Users with different views see other texts of the same items (``reader_vectors``); mostly there is one view. The
    text vectors are not parameters, and checkpoints do not contain them.
    """

    id_weight: Tensor
    text_vectors: Tensor
    text_row: Tensor
    has_text: Tensor
    language_ids: Tensor

    def __init__(
        self,
        config: RepresentationConfig,
        *,
        train_counts: NDArray[np.int64],
        text_vectors: Callable[[], tuple[FloatArray, NDArray[np.int64]]],
        unit_vectors: Callable[[], tuple[NDArray[Any], NDArray[np.int64], float | None]],
        language_ids: Callable[[], NDArray[np.int64]],
        unit: bool = False,
    ) -> None:
        super().__init__()
        self.unit = unit
        size, n_items = config.hidden_size, len(train_counts)
        fusion = FUSIONS[config.item_representation]
        self.fusion = fusion(size, delta_max_norm=config.delta_max_norm)
        id_size, text_size = fusion.sizes(size, config.null_space_size)
        self.id_dropout_prob = config.id_dropout_prob
        self.hidden_size = size
        self._file: mmap.mmap | None = None  # that text vectors are in
        self.sparse_gradients = False  # of the ID embeddings, where some items are asked for
        self.language_embedding: nn.Embedding | None = None
        self.item_embedding: nn.Embedding | None = None
        self.text_projection: nn.Module | None = None
        self.text_norm: float | None = None  # what vectors of texts are divided by, where that is all that is done
        if fusion.uses_id:
            self.item_embedding = nn.Embedding(n_items, id_size, padding_idx=0)
            nn.init.normal_(self.item_embedding.weight, std=0 if fusion.id_shifts_text else config.initializer_range)
            weight = train_counts / np.maximum(train_counts + config.id_half_count, 1e-9)  # n / (n + k), 0 where n = 0
            self.register_buffer("id_weight", torch.from_numpy(weight)[:, None].float(), persistent=False)
        kind = config.text_projection or fusion.default_projection
        as_they_are = kind != "pca" and not (config.text_centering or config.text_whitening)
        if config.item_representation == "init" or (fusion.uses_text and not as_they_are):
            raw, row = text_vectors()
            raw = centered(raw, row, language_ids()) if config.text_centering else raw
        if config.item_representation == "init":
            start = principal_components(raw[row[0]], size, config.initializer_range, white=config.text_whitening)
            self.item_embedding.weight.data.copy_(torch.from_numpy(start))  # type: ignore[union-attr]
        if fusion.uses_text:
            if as_they_are:
                vectors, row, self.text_norm = unit_vectors()
            elif kind == "pca":  # as large as ID embeddings are when training starts
                vectors = principal_components(raw, text_size, config.initializer_range, white=config.text_whitening)
            else:
                vectors = whiten(raw) if config.text_whitening else raw / np.float32(unit_norm(raw))
            source = vectors if as_they_are else raw
            has_text = np.concatenate([block.any(axis=1, keepdims=True) for _, block in read_blocks(source)])
            self.register_buffer("has_text", torch.from_numpy(has_text), persistent=False)
            self.register_buffer("text_row", torch.from_numpy(row), persistent=False)
            self.register_buffer("text_vectors", torch.from_numpy(vectors), persistent=False)
            self._file = vectors.base if isinstance(vectors.base, mmap.mmap) else None
            self.text_projection = TEXT_PROJECTIONS[kind](
                vectors.shape[1],
                text_size,
                dropout=config.text_projection_dropout_prob,
                n_experts=config.n_experts,
            )
            if isinstance(self.text_projection, LinearProjection) and config.text_projection_init != "random":
                white = config.text_projection_init == "whitened"
                mean, axes = principal_axes(vectors, text_size, config.initializer_range, white=white)
                if config.text_whitening:  # all axes are alike now; the vectors have them in the order of before
                    axes = np.eye(*axes.shape) * config.initializer_range * vectors.shape[1] ** 0.5
                self.text_projection.start_at(mean, axes)
        if config.item_language_embedding:
            languages = torch.from_numpy(language_ids())
            self.language_embedding = nn.Embedding(int(languages.max()) + 1, size)
            nn.init.normal_(self.language_embedding.weight, std=config.initializer_range)
            self.register_buffer("language_ids", languages, persistent=False)

    def extended(self, weights: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
        """Return trained weights with zeros for the items and languages that training did not have.

        Items that are known by their ids alone get none.

        Args:
            weights: of the whole model.
            prefix: how the names of this part's weights begin.
        """
        result, own = dict(weights), self.state_dict()
        by_text = {"item_embedding.weight"} if self.text_projection is not None else set()
        for name in {*by_text, "language_embedding.weight"} & own.keys():
            trained = weights[prefix + name]
            n_known = min(len(trained), len(own[name]))  # languages that no item has now may be left out
            result[prefix + name] = torch.zeros_like(own[name])
            result[prefix + name][:n_known] = trained[:n_known]
        return result

    def forward(self, ids: Tensor | slice | None = None, view: int | Tensor = 0) -> Tensor:
        """Return the vectors of ``ids``, ``(N, H)``, or of all items where it is None, ``(n_items, H)``.

        Args:
            ids: item ids, ``(N,)``, or a range of them.
            view: of all items, or of each, ``(n_items,)``.
        """

        def in_view(of_views: Tensor) -> Tensor:
            return of_views[view] if isinstance(view, int) else of_views.gather(0, view[None])[0]

        def of(table: Tensor, row: Tensor | None = None) -> Tensor:
            chosen = ids if row is None else row if ids is None else row[ids]
            return table if chosen is None else table[chosen]

        if ids is None and self.is_mapped and not torch.is_grad_enabled():
            table = self.has_text.new_empty(len(self.has_text), self.hidden_size, dtype=torch.float32)
            for start in range(0, len(table), _BLOCK):  # not all of a large file at once
                part = slice(start, start + _BLOCK)
                table[part] = self(part, view)
            return table
        id_part = text_part = keep_id = has_text = None
        if self.item_embedding is not None:
            weight, sparse = self.item_embedding.weight, self.sparse_gradients
            id_part = F.embedding(ids, weight, sparse=sparse) if isinstance(ids, Tensor) else of(weight)  # (N, H)
        if self.text_projection is not None:
            row = in_view(self.text_row) if len(self.text_row) > 1 else None
            text_part = self.text_projection(of(self.text_vectors, row).float())  # (N, H)
            give_back(self._file)
            has_text = of(self.has_text, row)  # (N, 1)
        if id_part is not None and text_part is not None:
            # Text alone represents cold items, whose IDs have not learned anything. In training it also represents
            # some others, drawn at random: so the text learns to do without the ID.
            keep_id = of(self.id_weight)  # (N, 1)
            if self.training and self.id_dropout_prob > 0:
                keep_id = keep_id * (torch.rand_like(keep_id) >= self.id_dropout_prob)
        items: Tensor = self.fusion(id_part, text_part, keep_id, has_text)
        if self.language_embedding is not None:
            items = items + self.language_embedding(of(in_view(self.language_ids)))
        return self._scaled(items)

    @contextmanager
    def as_new(self, items: Tensor) -> Iterator[None]:
        """Leave the IDs of some items, ``(n,)``, out of their vectors meanwhile, as of items without training."""
        if self.item_embedding is None or not len(items):
            yield
            return
        weight = self.id_weight[items]
        self.id_weight[items] = 0
        try:
            yield
        finally:
            self.id_weight[items] = weight

    @property
    def is_mapped(self) -> bool:
        """Whether text vectors are in a file."""
        return self._file is not None

    @property
    def takes_new(self) -> bool:
        """Whether a text's vector follows from the text alone, and an item's from that."""
        return self.text_norm is not None and self.language_embedding is None

    def of_new(self, vectors: Tensor) -> Tensor:
        """Return the vectors of cold items by those of their texts, ``(n, H)`` from ``(n, dimension)``."""
        assert self.text_projection is not None and self.text_norm is not None
        text_part = self.text_projection(vectors / self.text_norm)
        keep_id = id_part = None
        if self.item_embedding is not None:
            keep_id, id_part = (
                text_part.new_zeros(len(vectors), 1),
                self.item_embedding.weight[:1].expand(len(vectors), -1),
            )
        has_text = vectors.any(dim=1, keepdim=True)
        return self._scaled(self.fusion(id_part, text_part, keep_id, has_text))

    def _scaled(self, items: Tensor) -> Tensor:
        # shorter ones, of items of which nothing is known, would have gradients as large as they are short
        return F.normalize(items, dim=-1, eps=_SHORTEST) if self.unit else items


def bound_to_data(config: RepresentationConfig) -> list[str]:
    """Return what makes such item vectors meaningless for the items of another dataset; empty if nothing does."""
    reasons = {
        f"item_representation={config.item_representation} learns a vector for each item id": _fusion(config).uses_id,
        "item_language_embedding=True numbers the catalog's languages": config.item_language_embedding,
    }
    return [reason for reason, applies in reasons.items() if applies] + bound_to_texts(config)


def bound_to_ids(config: RepresentationConfig) -> list[str]:
    """Return what keeps such item vectors from serving new items of their own dataset; empty if nothing does."""
    kind = config.item_representation
    reasons = [] if _fusion(config).uses_text else [f"item_representation={kind} knows an item by its id alone"]
    return reasons + bound_to_texts(config)


def bound_to_texts(config: RepresentationConfig) -> list[str]:
    """Return what makes such item vectors meaningless once a text of the catalog changes; empty if nothing does."""
    fusion = _fusion(config)
    pca = fusion.uses_text and (config.text_projection or fusion.default_projection) == "pca"
    reasons = {
        "text_projection=pca projects on the principal axes of the catalog": pca,
        "text_whitening=True rotates to the principal axes of the catalog": config.text_whitening,
    }
    return [reason for reason, applies in reasons.items() if applies]


def _fusion(config: RepresentationConfig) -> type[Fusion]:
    return FUSIONS[config.item_representation]


# ---- text vectors ---------------------------------------------------------------------------------------------

_FLOOR = 0.1  # share of the root mean square deviation below which a direction counts as noise


def principal_axes(
    vectors: FloatArray, n_components: int, std: float, *, white: bool = False, floor: float = _FLOOR
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return what projects text vectors on their first principal axes: ``(vectors - mean) @ axes.T``.

    Those of more than 50,000 vectors are the axes of an even sample.

    Args:
        vectors: ``(n_items, dimension)``; rows that are all zero (no text) do not count.
        n_components: number of axes.
        std: standard deviation of the projected vectors over all entries.
        white: whether all axes get like variance.
        floor: with ``white`` the smallest divisor, as a share of the root mean square deviation: directions that vary
            less are noise and are raised no further.

    Returns:
        The mean, ``(dimension,)``, and the axes, ``(n_components, dimension)``; axes beyond the dimension are zero,
        and so are all axes of vectors that do not differ.
    """
    rows = vectors[:: -(-len(vectors) // _SAMPLE)]
    rows = rows[np.any(rows != 0, axis=1)]
    give_back(vectors.base)
    mean = rows.sum(axis=0, dtype=np.float64) / max(1, len(rows))
    covariance = np.zeros((len(mean), len(mean)))
    for start in range(0, len(rows), _BLOCK):
        centered = rows[start : start + _BLOCK] - mean
        covariance += centered.T @ centered / len(rows)
    variance, directions = np.linalg.eigh(covariance)
    keep = np.argsort(variance)[::-1][:n_components]
    deviation = np.sqrt(np.maximum(variance[keep], 0.0))
    axes, spread = np.zeros((n_components, len(mean))), np.sqrt(np.mean(np.square(deviation)))
    if spread > 1e-6 * np.sqrt(np.mean(np.square(mean))):
        divisor = np.maximum(deviation, floor * spread) if white else np.full_like(deviation, spread)
        divisor *= np.sqrt(np.mean(np.square(deviation / divisor))) / std
        axes[: len(keep)] = (directions[:, keep] / divisor).T
    return mean, axes


def principal_components(vectors: FloatArray, n_components: int, std: float, **options: Any) -> FloatArray:
    """Project text vectors on their first principal axes.

    Args:
        vectors: ``(n_items, dimension)``.
        n_components: number of axes.
        std: standard deviation of the result over all entries.
        options: of :func:`principal_axes`.

    Returns:
        ``(n_items, n_components)``. Rows without text are zero, and so are components beyond the directions that the
        vectors span.
    """
    mean, axes = principal_axes(vectors, n_components, std, **options)
    result = np.zeros((len(vectors), n_components), dtype=np.float32)
    filled = np.any(vectors != 0, axis=1)
    result[filled] = (vectors[filled] - mean) @ axes.T
    return result


def whiten(vectors: FloatArray, *, floor: float = _FLOOR) -> FloatArray:
    """Decorrelate text vectors and bring their directions to like variance, mean squared norm 1 per row.

    Raw language-model vectors crowd in a narrow cone; whitening spreads them (WhitenRec, Zhang et al. 2024).
    Rows that are all zero (no text) stay zero.

    Args:
        vectors: ``(n_items, dimension)``.
        floor: of :func:`principal_axes`.
    """
    dimension = vectors.shape[1]
    return principal_components(vectors, dimension, dimension**-0.5, white=True, floor=floor)


def centered(vectors: FloatArray, row: NDArray[np.int64], language: NDArray[np.int64]) -> FloatArray:
    """Take from text vectors what all texts of their language have in common (:class:`LanguageCentering`).

    Args:
        vectors: ``(n, dimension)``; rows that are all zero (no text) stay zero.
        row: of each item in each view, ``(n_views, n_items)``.
        language: number of each item's language in each view, ``(n_views, n_items)``.

    Returns:
        Vectors of unit length, ``(n, dimension)``.
    """
    language_of_text = np.zeros(len(vectors), dtype=np.int64)
    language_of_text[row] = language
    filled = torch.from_numpy(vectors.any(axis=1))
    unit = F.normalize(torch.from_numpy(vectors), dim=-1)
    result: Tensor = LanguageCentering().eval()(unit, torch.from_numpy(language_of_text), filled.float())
    return (result * filled[:, None]).numpy()
