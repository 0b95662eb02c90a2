"""LLMSASRec: SASRec whose items carry vectors of their text."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from hashlib import sha256
from itertools import chain
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, model_validator
from recbole.data.interaction import Interaction
from torch import Tensor, nn

from recbole_xling.data.dataset import ELAPSED_LIST, XLingDataset
from recbole_xling.data.language_balance import LanguageBalance
from recbole_xling.data.loader import TARGET_LIST, TARGET_WEIGHT
from recbole_xling.errors import CheckpointError, ConfigError
from recbole_xling.evaluator.streaming import Factors
from recbole_xling.model.base import WindowsConfig, XLingRecommender
from recbole_xling.model.layers.attention import Places
from recbole_xling.model.layers.fusion import FUSIONS
from recbole_xling.model.layers.item_representation import (
    ItemRepresentation,
    RepresentationConfig,
    bound_to_data,
    bound_to_ids,
    bound_to_texts,
)
from recbole_xling.model.layers.language_embedding import language_numbers
from recbole_xling.model.layers.reader_views import ReaderViews, TrainingViews
from recbole_xling.model.layers.score_bias import ScoreBias, ScoreBiasConfig
from recbole_xling.model.layers.transformer import SequenceEncoder, TransformerConfig, last_positions
from recbole_xling.model.layers.user_tower import last_states
from recbole_xling.model.loss.adversarial import AdversarialConfig, adversarial_loss
from recbole_xling.model.loss.auxiliary_tasks import NEXT_ITEM, AuxiliaryTasks, AuxiliaryTasksConfig
from recbole_xling.model.loss.language_adversary import LanguageAdversary, LanguageAdversaryConfig
from recbole_xling.model.loss.linear_cross_entropy import linear_cross_entropy
from recbole_xling.model.loss.scalable_cross_entropy import scalable_cross_entropy
from recbole_xling.model.sampling.shared_negatives import NextItemLossConfig, SharedNegatives
from recbole_xling.utils.chunks import by_length
from recbole_xling.utils.devices import to_device

logger = logging.getLogger(__name__)

View = int | Tensor
"""A view of all items, or the view of each item, ``(n_items,)``."""

_FULL_SOFTMAX_TO = 50_000  # items: with more, sampled negatives make a step many times faster
_ADVERSARY_ITEMS = 4096  # of a batch, at most
_ADVERSARY_DRAW = 0xAD0E5  # keeps these draws apart from others of the same batch


def _trained_places(interaction: Interaction) -> Places:
    """Return where windows have targets: looked up once, as a GPU makes the host wait for it."""
    return interaction[TARGET_WEIGHT].nonzero(as_tuple=True)


class LLMSASRecConfig(
    TransformerConfig,
    RepresentationConfig,
    ScoreBiasConfig,
    AuxiliaryTasksConfig,
    AdversarialConfig,
    LanguageAdversaryConfig,
    WindowsConfig,
    NextItemLossConfig,
):
    """All settings of LLMSASRec."""

    section: ClassVar[str] = "training"

    train_neg_sample_args: dict[str, Any] | None = Field(
        None, description="RecBole's own negative sampling is not used."
    )
    stopping_step: int = Field(
        20, ge=0, description="Patience of early stopping; epochs are short, and validation is noisy."
    )

    temperature: float | None = Field(
        None, gt=0, description="Match users and items by their cosine over this (if not set: by inner product)."
    )

    @model_validator(mode="after")
    def _heads_divide_the_size(self) -> LLMSASRecConfig:
        if self.hidden_size % self.n_heads:
            raise ConfigError(f"hidden_size ({self.hidden_size}) must be a multiple of n_heads ({self.n_heads})")
        return self


class LLMSASRec(XLingRecommender):
    r"""A causal Transformer over the items of a history, trained to predict the next one at every position.

    Hyper-parameters carry the names and defaults of RecBole's SASRec (Kang & McAuley, "Self-Attentive Sequential
    Recommendation", ICDM 2018). What differs:

    - an item's vector comes from :class:`ItemRepresentation`: ID, text, or a fusion of both;
    - one pass over a history trains all its positions (RecBole makes one row per position);
    - the loss is the full cross entropy, computed some logits at a time, or another one (docs/losses.md);
    - where items carry text, a score is the match of user and item plus the logarithm of the item's popularity, so
      that neither ID nor text must learn it (logit adjustment, Menon et al., ICLR 2021);
    - cold items do not have a popularity: after each epoch the offset of their scores is set so that they are shown
      as often as ``cold_exposure`` says (:mod:`recbole_xling.model.layers.score_bias`).

    Args:
        config: RecBole or recbole-xling configuration; :class:`LLMSASRecConfig` lists the keys.
        dataset: the training split.

    Raises:
        ConfigError: a setting is not allowed.
    """

    config_class: ClassVar = LLMSASRecConfig
    item_language: Tensor

    def __init__(self, config: Any, dataset: XLingDataset) -> None:
        super().__init__(config, dataset)
        settings = LLMSASRecConfig.of(config)
        self.loss_type, self.n_negatives = settings.loss_type, settings.n_negatives
        self.initializer_range = settings.initializer_range
        self.adversarial: AdversarialConfig = settings
        counts = dataset.train_item_counts
        self.sequence_encoder = SequenceEncoder(
            max_length=self.max_seq_length,
            hidden_size=settings.hidden_size,
            **{name: getattr(settings, name) for name in TransformerConfig.model_fields},
        )
        self.sequence_encoder.apply(self._init_weights)
        self.items = ItemRepresentation(
            settings,
            train_counts=counts,
            text_vectors=lambda: dataset.catalog.model_vectors,
            unit_vectors=lambda: dataset.catalog.unit_vectors,
            language_ids=lambda: dataset.catalog.model_language_ids,
            unit=settings.temperature is not None,
        )
        self.temperature = settings.temperature
        self.views, self.training_views = ReaderViews(dataset), TrainingViews(dataset)
        self._table: tuple[tuple[int, ...], Tensor] | None = None
        self.seed: int = config["seed"]
        self._step = self._draws = 0
        # Cold items are not negatives where they are known by their text: they would teach the model that texts like
        # theirs are never chosen.
        by_text = self.items.text_projection is not None
        known = counts > 0 if by_text else np.ones_like(counts, dtype=bool)
        known[0] = False
        self.register_buffer("candidates", torch.from_numpy(np.flatnonzero(known)), persistent=False)
        self.register_buffer("candidate_place", torch.from_numpy(np.cumsum(known) - 1), persistent=False)
        samples = settings.loss_type in ("sampled_softmax", "gBCE")
        targets = partial(self._target_counts, dataset)
        self.negatives = SharedNegatives(settings, counts, targets, self.candidates) if samples else None
        self.score_bias = ScoreBias(config, dataset, by_text=by_text)
        self.tasks = AuxiliaryTasks(settings, dataset, settings.hidden_size, {NEXT_ITEM: 1.0})
        self.language_adversary: LanguageAdversary | None = None
        if settings.language_adversary_weight:
            names = ["und", *dataset.catalog.language_names]
            language = language_numbers(names)[dataset.catalog.model_language_ids]  # (n_views, n_items)
            self.register_buffer("item_language", language, persistent=False)
            met = self.training_views.met(language, self.candidates) if len(dataset.inter_feat) else None
            size, weight = settings.hidden_size, settings.language_adversary_weight
            self.language_adversary = LanguageAdversary(size, weight, met)
        self.axes_of: str | None = None  # hash of the texts whose principal axes or means the weights belong to
        self._is_bound, self._is_own = bool(bound_to_texts(settings)), dataset.trained_on is not None
        if self._is_bound or settings.text_centering:
            catalog = dataset.catalog
            views = catalog.texts_of_views + (catalog.training_views.texts if catalog.training_views else [])
            texts = "\0".join("\0".join(view) for view in views)
            self.axes_of = sha256(texts.encode("utf-8", "surrogatepass")).hexdigest()

    @staticmethod
    def _target_counts(dataset: XLingDataset) -> NDArray[np.float64]:
        """Return how often an epoch has each item as a target, ``(n_items,)``."""
        if not len(dataset.inter_feat):  # there is no training, but another dataset to rank
            return np.zeros(dataset.item_num)
        often = LanguageBalance(dataset.config, dataset).trained
        return np.asarray(np.bincount(dataset.sequence[dataset.iid_field].numpy(), often, dataset.item_num), np.float64)

    @classmethod
    def idle_settings(cls, config: Any) -> list[str]:
        """Return what the loss and the item vectors do not read."""
        settings = LLMSASRecConfig.of(config)
        kind = settings.item_representation
        reads_texts = FUSIONS[kind].uses_text or (kind == "init" and settings.text_centering)
        reads_languages = settings.item_language_embedding or settings.language_adversary_weight > 0
        of_text = [] if reads_texts or reads_languages else ["train_text_view"]
        of_prior = [] if settings.has_prior(by_text=FUSIONS[kind].uses_text) else ["popularity_weight"]
        return [*NextItemLossConfig.of(config).idle, *RepresentationConfig.of(config).idle, *of_text, *of_prior]

    @classmethod
    def network_settings(cls, config: Any) -> list[str]:
        """Return which settings change what weights mean, but not their shapes."""
        kind = RepresentationConfig.of(config).item_representation
        of_text = ["text_centering", "text_whitening"] if kind != "none" else []
        of_delta = ["delta_max_norm"] if kind == "delta" else []
        return [
            "n_heads",
            "hidden_act",
            "layer_norm_eps",
            "block",
            "positions",
            "temperature",
            "item_representation",
            *of_text,
            *of_delta,
        ]

    @classmethod
    def bound_to_data(cls, config: Any) -> list[str]:
        """Return which settings tie trained weights to their dataset."""
        return bound_to_data(RepresentationConfig.of(config))

    @classmethod
    def bound_to_ids(cls, config: Any) -> list[str]:
        """Return which settings keep trained weights from serving new items."""
        return bound_to_ids(RepresentationConfig.of(config))

    def extended(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return trained weights with zeros for new items and languages."""
        return self.items.extended(weights, "items.")

    def other_parameter(self) -> dict[str, Any]:
        """Return what a checkpoint keeps besides weights: how much items' IDs count, and which texts there were."""
        id_weight = self.items.id_weight[:, 0].clone() if self.items.item_embedding is not None else None
        return {"axes_of": self.axes_of, "trained": id_weight}

    def load_other_parameter(self, para: dict[str, Any] | None) -> None:
        """Restore what :meth:`other_parameter` returned; earlier releases kept nothing.

        Items that training did not have are represented by their texts alone, whatever interactions they have now.

        Raises:
            CheckpointError: the weights depend on all texts, and these are others than in training.
        """
        axes_of, id_weight = (para or {}).get("axes_of"), (para or {}).get("trained")
        if id_weight is not None and self.items.item_embedding is not None:
            self.items.id_weight.zero_()
            self.items.id_weight[: len(id_weight), 0] = id_weight.to(self.items.id_weight)  # once booleans
        if not (axes_of and self.axes_of and axes_of != self.axes_of):
            return
        if self._is_bound:
            raise CheckpointError(
                "the texts of items are not those that the model was trained on, and text_projection=pca and "
                "text_whitening depend on all of them: restore the texts, or train again"
            )
        if self._is_own:
            logger.warning(
                "text_centering takes the mean of all texts of a language from each of them, and the texts that are "
                "read are not those of training (files, or settings of texts): scores of all items differ"
            )

    def go_on_from(self, other_parameter: Mapping[str, Any]) -> bool:
        """Let the IDs of items count as much as they did in the earlier run, or more where they are chosen more now."""
        now = None if self.items.item_embedding is None else self.items.id_weight.clone()
        self.load_other_parameter(dict(other_parameter))
        if now is not None:
            self.items.id_weight.copy_(torch.maximum(self.items.id_weight, now))
        return True

    def _init_weights(self, module: nn.Module) -> None:
        """Initialize as RecBole's SASRec does: normal weights, zero biases."""
        if isinstance(module, (nn.Linear, nn.Embedding)):
            nn.init.normal_(module.weight, std=self.initializer_range)
        if isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)

    # ---- training ---------------------------------------------------------------------------------------------

    def calculate_loss(self, interaction: Interaction) -> Tensor:
        """Return the loss of a batch of windows, summed over its positions with their weights.

        Args:
            interaction: the history ``(B, L)``, and for each of its positions the target and its weight, as
                :class:`~recbole_xling.data.loader.WindowLoader` makes them.
        """
        self._table = negative = None
        places = _trained_places(interaction)
        if self.negatives is not None:
            negative = self.negatives.draw(interaction[TARGET_LIST][places])  # (K,)
        self._draws += 1
        seen, scored = self.training_views.draw(self.seed, self._step, self._draws)
        first = self.training_views.first
        if seen is not None and scored is not None:
            views = (to_device(first + drawn, self.candidates.device) for drawn in (seen, scored))
            loss = self._loss(interaction, places, negative, *views)
        else:
            parts = [
                self._loss(rows, places if rows is interaction else _trained_places(rows), negative, view, view)
                for rows, view in ((rows, first + view) for view, rows, _ in self.training_views.parts(interaction))
            ]
            loss = torch.stack(parts).sum()
        loss = loss + self.tasks.penalty()
        return loss if self.language_adversary is None else loss + self._adversary_loss(self.language_adversary)

    def _loss(
        self, interaction: Interaction, trained: Places, negative: Tensor | None, seen: View, scored: View
    ) -> Tensor:
        """Return the loss of windows.

        Args:
            interaction: windows of users who have the same view of the items.
            trained: where they have targets.
            negative: ``(K,)`` items; None for all.
            seen: view of the items in histories.
            scored: view of the items as targets and candidates.
        """
        item_seq = interaction[self.ITEM_SEQ]
        target, weight = interaction[TARGET_LIST][trained], interaction[TARGET_WEIGHT][trained]  # (N,)
        if negative is not None:
            return self._sampled_loss(interaction, trained, target, weight, negative, seen, scored)
        inputs = self.items(view=seen)  # (n_items, H)
        table = inputs if seen is scored else self.items(view=scored)  # (n_items, H)
        place, prior = self.candidate_place[target], self.score_bias.prior[self.candidates]
        elapsed = interaction.interaction.get(ELAPSED_LIST)

        def loss(history: Tensor) -> Tensor:  # (B, L, H)
            states = self.sequence_encoder(history, trained, elapsed)  # (N, H)
            if self.loss_type == "SCE":
                items, number = table[self.candidates], self.n_negatives
                next_item = scalable_cross_entropy(self._user(states), items, place, weight, bias=prior, n_items=number)
            else:
                next_item = linear_cross_entropy(self._user(states), table[self.candidates], place, weight, bias=prior)
            return self.tasks.weighed(NEXT_ITEM, next_item) + self.tasks(states, target, weight)

        return adversarial_loss(self.adversarial, loss, nn.functional.embedding(item_seq, inputs))

    def _adversary_loss(self, adversary: LanguageAdversary) -> Tensor:
        """Return the loss of the classifier of languages on some items, drawn evenly, in views drawn evenly."""
        rng = np.random.default_rng([self.seed, self._step, self._draws, _ADVERSARY_DRAW])
        chosen = rng.permutation(len(self.candidates))[:_ADVERSARY_ITEMS]
        items = self.candidates[to_device(torch.from_numpy(chosen), self.candidates.device)]  # (K,)
        view = to_device(self.training_views.evenly(rng, self.n_items), items.device)  # (n_items,)
        vectors = self.items(items, self.training_views.first + view)  # (K, H)
        language = self.item_language[self.training_views.first + view[items], items]  # (K,)
        return adversary(vectors, language, self._step)

    def _sampled_loss(
        self, interaction: Interaction, trained: Places, target: Tensor, weight: Tensor, negative: Tensor, *views: View
    ) -> Tensor:
        item_seq, elapsed = interaction[self.ITEM_SEQ], interaction.interaction.get(ELAPSED_LIST)
        needed, place = torch.unique(torch.cat([item_seq.flatten(), target, negative]), return_inverse=True)
        seen, scored = views
        inputs = self.items(needed, seen)  # (U, H)
        vectors = inputs if seen is scored else self.items(needed, scored)  # (U, H)
        history, positive, wrong = place.split([item_seq.numel(), len(target), len(negative)])
        embedded = nn.functional.embedding(history.view_as(item_seq), inputs)  # (B, L, H)
        assert self.negatives is not None
        negatives, prior = self.negatives, self.score_bias.prior

        def loss(history: Tensor) -> Tensor:  # (B, L, H)
            states = self.sequence_encoder(history, trained, elapsed)  # (N, H)
            next_item = negatives(
                self._user(states),
                vectors[positive],
                vectors[wrong],
                target=target,
                negative_id=negative,
                position_weight=weight,
                prior=prior,
            )
            return self.tasks.weighed(NEXT_ITEM, next_item) + self.tasks(states, target, weight)

        return adversarial_loss(self.adversarial, loss, embedded)

    # ---- scoring ----------------------------------------------------------------------------------------------

    def forward(self, item_seq: Tensor, item_seq_len: Tensor, table: Tensor, elapsed: Tensor | None = None) -> Tensor:
        """Return the user's state after the whole history.

        Args:
            item_seq: ``(B, L)`` item ids, oldest first, padded with 0 on the right.
            item_seq_len: ``(B,)`` their number, at least 1.
            table: ``(n_items, H)`` item vectors.
            elapsed: ``(B, L)`` milliseconds since the first item, for ``positions: relative_time``.

        Returns:
            ``(B, H)``.
        """
        item_seq = item_seq[:, : int(item_seq_len.max())]
        last = last_positions(item_seq_len)
        elapsed = None if elapsed is None else elapsed[:, : item_seq.shape[1]]
        return self._user(self.sequence_encoder(nn.functional.embedding(item_seq, table), last, elapsed))

    def _user(self, states: Tensor) -> Tensor:
        """Return states whose inner products with items are scores' matches."""
        return states if self.temperature is None else nn.functional.normalize(states, dim=-1) / self.temperature

    def item_table(self, view: int = 0) -> Tensor:
        """Return the vectors of all items in a view, ``(n_items, H)``; made once for given weights."""
        state = (view, *(tensor._version for tensor in chain(self.items.parameters(), self.items.buffers())))
        if torch.is_grad_enabled() or self.items.training:
            return self.items(view=view)
        if self._table is None or self._table[0] != state:
            self._table = state, self.items(view=view)
        return self._table[1]

    def predict(self, interaction: Interaction) -> Tensor:
        """Score one given item per history, ``(B,)``."""

        def score(rows: Interaction, view: int) -> Tensor:
            table, item = self.item_table(view), rows[self.ITEM_ID]
            elapsed = rows.interaction.get(ELAPSED_LIST)
            state = self.forward(rows[self.ITEM_SEQ], rows[self.ITEM_SEQ_LEN], table, elapsed)
            weight = self.score_bias.weight(rows[self.ITEM_SEQ], rows[self.ITEM_SEQ_LEN])
            scores = (state * table[item]).sum(dim=-1) + weight[:, 0] * self.score_bias()[item]
            return scores.masked_fill(item == 0, float("-inf"))

        return self.views.scores(interaction, score)

    def factors(self, interaction: Interaction) -> list[tuple[Tensor, Factors]]:
        """Return user states, item vectors and the bias of scores, for the rows of each view."""

        def of(rows: Interaction, view: int) -> Factors:
            table = self.item_table(view)
            times = [rows[ELAPSED_LIST]] if ELAPSED_LIST in rows.interaction else []
            state = by_length(
                lambda items, length, *elapsed: self.forward(items, length, table, *elapsed),
                *(rows[self.ITEM_SEQ], rows[self.ITEM_SEQ_LEN], *times),
            )
            weight = self.score_bias.weight(rows[self.ITEM_SEQ], rows[self.ITEM_SEQ_LEN])
            return Factors(state, table, self.score_bias(), weight)

        return self.views.factors(interaction, of)

    def known_items(self) -> Tensor | None:
        """Return the items by which histories tell how much popularity counts."""
        return self.score_bias.known

    def history_vectors(self, view: int = 0) -> Tensor:
        """Return the vectors of all items: histories have the ones that are scored."""
        return self.item_table(view)

    @torch.no_grad()
    def vectors_of_texts(
        self, texts: Sequence[str], languages: Sequence[str], encode: Callable[[Sequence[str]], Tensor]
    ) -> Tensor | None:
        """Return the vectors that cold items with these texts have."""
        return self.items.of_new(encode(texts)) if self.items.takes_new else None

    def scores_of_new(self) -> tuple[int, float] | None:
        """Return that all of a new item's vector counts, and the bias of cold items."""
        return (0, float(self.score_bias.cold_offset)) if self.items.takes_new else None

    def user_of_vectors(
        self, items: Tensor, item_seq_len: Tensor, item_language: Tensor, user_language: Tensor
    ) -> Tensor:
        """Return users by the vectors of histories, ``(B, H)``; languages do not matter."""
        return self._user(last_states(self.sequence_encoder(items), item_seq_len))

    @torch.no_grad()
    def attention_of_vectors(self, items: Tensor, item_seq_len: Tensor, item_language: Tensor) -> Tensor | None:
        """Return the attention of the last position, the mean of heads and layers; None for ``block: hstu``."""
        found = self.sequence_encoder.attention(items)
        return None if found is None else last_states(found, item_seq_len)

    # ---- hooks, called by the trainer -------------------------------------------------------------------------------

    def compiled_parts(self) -> list[nn.Module]:
        """Return the layers over histories."""
        return [self.sequence_encoder]

    def take_sparse_gradients(self) -> list[nn.Parameter]:
        """Let gradients of item embeddings be sparse if the loss samples."""
        if self.negatives is None or self.items.item_embedding is None:
            return []
        self.items.sparse_gradients = True
        return list(self.items.item_embedding.parameters())

    def begin_training(self, total_steps: int, step: int) -> None:
        """Prepare for optimizer steps, ``step`` of which are done."""
        self._step = step
        if self.loss_type == "CE" and self.n_items >= _FULL_SOFTMAX_TO:
            logger.warning(
                "loss_type=CE scores %s items for every target: from %s items on loss_type=sampled_softmax with "
                "learner=sparse_adam takes a fraction of its time (docs/scale.md)",
                *(f"{self.n_items - 1:,}", f"{_FULL_SOFTMAX_TO:,}"),
            )
        if self.language_adversary is not None:
            self.language_adversary.total_steps = total_steps

    def end_step(self, step: int) -> None:
        """Follow an optimizer step: what is drawn next belongs to the one after it."""
        self._step, self._draws = step + 1, 0

    def end_epoch(self, epoch: int) -> None:
        """Set the offset of cold items by what training users are shown."""
        self._place_cold_items()

    def follow_settings(self, before: Mapping[str, Any]) -> None:
        """Set that offset again where other settings of scores are given than training had."""
        self.score_bias.follow_settings(before, self._place_cold_items)

    def _place_cold_items(self) -> None:
        self.score_bias.calibrate(self.full_sort_predict, self.items.as_new)
