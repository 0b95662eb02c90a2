"""LLMSASRec: SASRec whose items carry vectors of their text."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import torch
from recbole.data.interaction import Interaction
from torch import Tensor, nn

from recbole_xling.data.dataset import XLingDataset
from recbole_xling.data.loader import TARGET_LIST, TARGET_WEIGHT
from recbole_xling.errors import ConfigError, unknown_name
from recbole_xling.model.base import XLingRecommender
from recbole_xling.model.layers.item_representation import ItemRepresentation, RepresentationConfig, bound_to_data
from recbole_xling.model.layers.score_bias import ScoreBias
from recbole_xling.model.layers.transformer import ACTIVATIONS, SequenceEncoder, last_positions
from recbole_xling.model.loss.linear_cross_entropy import linear_cross_entropy
from recbole_xling.model.loss.sampled_softmax import sampled_softmax

_LOSSES = ("CE", "sampled_softmax")
_NEGATIVES = ("in_batch", "uniform")


class LLMSASRec(XLingRecommender):
    r"""A causal Transformer over the items of a history, trained to predict the next one at every position.

    Hyper-parameters carry the names and defaults of RecBole's SASRec (Kang & McAuley, "Self-Attentive Sequential
    Recommendation", ICDM 2018). What differs:

    - an item's vector comes from :class:`ItemRepresentation`: ID, text, or a fusion of both;
    - one pass over a history trains all its positions (RecBole makes one row per position);
    - the loss is the full cross entropy, computed some logits at a time, or a sampled softmax;
    - where items carry text, a score is the match of user and item plus the logarithm of the item's popularity, so
      that neither ID nor text must learn it (logit adjustment, Menon et al., ICLR 2021);
    - cold items do not have a popularity: after each epoch the offset of their scores is set so that they are shown
      as often as ``cold_exposure`` says (:mod:`recbole_xling.model.layers.score_bias`).

    Args:
        config: RecBole or recbole-xling configuration; the keys are listed in ``properties/model/LLMSASRec.yaml``.
        dataset: the training split.

    Raises:
        ConfigError: an unknown representation, text projection, loss or kind of negatives.
    """

    def __init__(self, config: Any, dataset: XLingDataset) -> None:
        super().__init__(config, dataset)
        _check(config)
        self.loss_type: str = config["loss_type"]
        self.negatives: str = config["negatives"]
        self.n_negatives: int = config["n_negatives"]
        self.logq_correction: bool = config["logq_correction"]
        self.initializer_range: float = config["initializer_range"]
        counts = dataset.train_item_counts
        self.sequence_encoder = SequenceEncoder(
            max_length=self.max_seq_length,
            **{key: config[key] for key in ("hidden_size", "n_layers", "n_heads", "inner_size")},
            **{key: config[key] for key in ("hidden_dropout_prob", "attn_dropout_prob", "hidden_act")},
            layer_norm_eps=config["layer_norm_eps"],
        )
        self.sequence_encoder.apply(self._init_weights)
        self.items = ItemRepresentation(
            _representation(config),
            train_counts=counts,
            text_vectors=lambda: dataset.catalog.vectors,
            language_ids=lambda: dataset.catalog.language_ids,
        )
        # Cold items are not negatives where they are known by their text: they would teach the model that texts like
        # theirs are never chosen.
        by_text = self.items.text_projection is not None
        known = counts > 0 if by_text else np.ones_like(counts, dtype=bool)
        known[0] = False
        self.register_buffer("candidates", torch.from_numpy(np.flatnonzero(known)), persistent=False)
        self.register_buffer("candidate_place", torch.from_numpy(np.cumsum(known) - 1), persistent=False)
        self.score_bias = ScoreBias(config, dataset, by_text=by_text)

    @classmethod
    def bound_to_data(cls, config: Any) -> list[str]:
        """Return which settings tie trained weights to their dataset."""
        return bound_to_data(_representation(config))

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
        item_seq, weight = interaction[self.ITEM_SEQ], interaction[TARGET_WEIGHT]
        trained = weight > 0  # (B, L)
        target, weight = interaction[TARGET_LIST][trained], weight[trained]  # (N,)
        if self.loss_type == "CE":
            table = self.items()  # (n_items, H)
            states = self.sequence_encoder(nn.functional.embedding(item_seq, table), trained)  # (N, H)
            place, prior = self.candidate_place[target], self.score_bias.prior[self.candidates]
            return linear_cross_entropy(states, table[self.candidates], place, weight, bias=prior)
        return self._sampled_loss(item_seq, trained, target, weight)

    def _sampled_loss(self, item_seq: Tensor, trained: Tensor, target: Tensor, weight: Tensor) -> Tensor:
        if self.negatives == "in_batch":
            negative = target[torch.randperm(len(target), device=target.device)[: self.n_negatives]]  # (K,)
        else:
            drawn = torch.randint(len(self.candidates), (self.n_negatives,), device=target.device)
            negative = self.candidates[drawn]  # (K,)
        needed, place = torch.unique(torch.cat([item_seq.flatten(), target, negative]), return_inverse=True)
        vectors = self.items(needed)  # (U, H)
        history, positive, wrong = place.split([item_seq.numel(), len(target), len(negative)])
        embedded = nn.functional.embedding(history.view_as(item_seq), vectors)  # (B, L, H)
        states = self.sequence_encoder(embedded, trained)  # (N, H)
        logit_adjustment = self.score_bias.prior  # (n_items,)
        if self.logq_correction and self.negatives == "in_batch":  # uniform draws need no correction
            logit_adjustment = logit_adjustment - self.score_bias.log_popularity
        return sampled_softmax(
            states,
            vectors[positive],
            vectors[wrong],
            target=target,
            negative_id=negative,
            position_weight=weight,
            positive_logit_adjustment=logit_adjustment[target],
            negative_logit_adjustment=logit_adjustment[negative],
        )

    # ---- scoring ----------------------------------------------------------------------------------------------

    def forward(self, item_seq: Tensor, item_seq_len: Tensor, table: Tensor) -> Tensor:
        """Return the user's state after the whole history.

        Args:
            item_seq: ``(B, L)`` item ids, oldest first, padded with 0 on the right.
            item_seq_len: ``(B,)`` their number, at least 1.
            table: ``(n_items, H)`` item vectors.

        Returns:
            ``(B, H)``.
        """
        item_seq = item_seq[:, : int(item_seq_len.max())]
        last = last_positions(item_seq_len, item_seq.shape[1])
        state: Tensor = self.sequence_encoder(nn.functional.embedding(item_seq, table), last)
        return state

    def predict(self, interaction: Interaction) -> Tensor:
        """Score one given item per history, ``(B,)``."""
        table = self.items()
        state = self.forward(interaction[self.ITEM_SEQ], interaction[self.ITEM_SEQ_LEN], table)
        item = interaction[self.ITEM_ID]
        scores = (state * table[item]).sum(dim=-1) + self.score_bias()[item]
        return scores.masked_fill(item == 0, float("-inf"))

    def full_sort_predict(self, interaction: Interaction) -> Tensor:
        """Score all items per history, ``(B, n_items)``; the padding item gets minus infinity."""
        table = self.items()
        state = self.forward(interaction[self.ITEM_SEQ], interaction[self.ITEM_SEQ_LEN], table)
        scores = torch.addmm(self.score_bias(), state, table.T)
        scores[:, 0] = float("-inf")
        return scores

    def end_epoch(self, epoch: int) -> None:
        """Set the offset of cold items by what training users are shown."""
        self.score_bias.calibrate(self.full_sort_predict)


def _representation(config: Any) -> RepresentationConfig:
    return RepresentationConfig(
        **{field.name: config[field.name] for field in dataclasses.fields(RepresentationConfig)}
    )


def _check(config: Any) -> None:
    choices = (("loss_type", _LOSSES), ("negatives", _NEGATIVES), ("hidden_act", tuple(ACTIVATIONS)))
    for key, options in choices:
        if config[key] not in options:
            raise ConfigError(unknown_name(key, str(config[key]), options))
    if config["n_layers"] < 1:
        raise ConfigError(f"n_layers must be at least 1, not {config['n_layers']}")
    if config["hidden_size"] % config["n_heads"]:
        raise ConfigError(f"hidden_size ({config['hidden_size']}) must be a multiple of n_heads ({config['n_heads']})")
