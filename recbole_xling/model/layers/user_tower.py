"""User towers: from the vectors of the items of a history to a vector of the user."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from recbole_xling.errors import ConfigError
from recbole_xling.model.layers.language_embedding import LanguageEmbedding
from recbole_xling.model.layers.transformer import SequenceEncoder
from recbole_xling.utils.typed_config import TypedConfig


class UserTowerConfig(TypedConfig):
    """How histories become users."""

    section: ClassVar[str] = "user tower"

    user_tower: Literal["mean", "attention", "transformer"] = Field(
        "mean", description="From the item vectors of a history to the user."
    )
    language_embedding: bool = Field(False, description="Add learned vectors of the items' and the user's languages.")
    n_layers: int = Field(1, ge=1, description="Layers of `transformer`.")
    n_heads: int = Field(4, ge=1, description="Its attention heads; must divide the size of item vectors.")
    hidden_dropout_prob: float = Field(0.1, ge=0, le=1, description="Dropout of its inputs and layer outputs.")
    attn_dropout_prob: float = Field(0.1, ge=0, le=1, description="Dropout of its attention weights.")


class MeanPooling(nn.Module):
    """``mean``: a mean weighted by how long ago an item was, with learned weights.

    They start as ``1 / (1 + k)`` for the ``k``-th item from the end, the power law of forgetting.
    """

    def __init__(self, size: int, max_length: int, config: UserTowerConfig) -> None:
        super().__init__()
        self.recency = nn.Parameter(-torch.arange(1, max_length + 1).log())

    def forward(self, items: Tensor) -> Tensor:
        """Map item vectors ``(B, L, D)`` to the user after each position, ``(B, L, D)``."""
        return MeanPooling.attention(self, items) @ items

    def attention(self, items: Tensor) -> Tensor:
        """Return how much each item counts for the user after each position, ``(B, L, L)`` or ``(L, L)``."""
        return torch.softmax(self._logits(items), dim=-1)

    def _logits(self, items: Tensor) -> Tensor:
        """Return the logit of item ``k`` seen from position ``j``, ``(L, L)``; minus infinity for later items."""
        position = torch.arange(items.shape[1], device=items.device)
        ago = position[:, None] - position  # (L, L)
        return torch.where(ago >= 0, self.recency[ago.clamp_min(0)], float("-inf"))


class AttentionPooling(MeanPooling):
    """``attention``: the mean, whose weights also depend on how items match the newest one; starts as the mean."""

    def __init__(self, size: int, max_length: int, config: UserTowerConfig) -> None:
        super().__init__(size, max_length, config)
        self.query = nn.Linear(size, size, bias=False)
        self.key = nn.Linear(size, size, bias=False)
        nn.init.zeros_(self.query.weight)
        nn.init.eye_(self.key.weight)

    def _logits(self, items: Tensor) -> Tensor:
        match = self.query(items) @ self.key(items).transpose(1, 2)  # (B, L, L)
        return match + super()._logits(items)


class TransformerPooling(MeanPooling):
    """``transformer``: the mean plus what a small causal Transformer adds, weighed by a number that starts at zero.

    The weight is that of ReZero (Bachlechner et al., UAI 2021): training starts from the mean, and moves away from it
    only as far as the data ask for it.
    """

    def __init__(self, size: int, max_length: int, config: UserTowerConfig) -> None:
        super().__init__(size, max_length, config)
        if size % config.n_heads:
            raise ConfigError(f"n_heads must divide the size of item vectors ({size}), not {config.n_heads}")
        self.sequence_encoder = SequenceEncoder(
            max_length=max_length,
            hidden_size=size,
            n_layers=config.n_layers,
            n_heads=config.n_heads,
            inner_size=2 * size,
            hidden_dropout_prob=config.hidden_dropout_prob,
            attn_dropout_prob=config.attn_dropout_prob,
            hidden_act="gelu",
            layer_norm_eps=1e-12,
        )
        assert self.sequence_encoder.position_embedding is not None
        nn.init.normal_(self.sequence_encoder.position_embedding.weight, std=0.02)
        self.weight = nn.Parameter(torch.zeros(()))

    def forward(self, items: Tensor) -> Tensor:
        """Map item vectors ``(B, L, D)`` to the user after each position, ``(B, L, D)``."""
        mixed = self.sequence_encoder(items * items.shape[-1] ** 0.5)
        return super().forward(items) + self.weight * mixed

    def attention(self, items: Tensor) -> Tensor:
        """Return how much the Transformer attends from each position to each item, ``(B, L, L)``."""
        found = self.sequence_encoder.attention(items * items.shape[-1] ** 0.5)
        assert found is not None
        return found


POOLINGS: dict[str, type[MeanPooling]] = {
    "mean": MeanPooling,
    "attention": AttentionPooling,
    "transformer": TransformerPooling,
}


class UserTower(nn.Module):
    """A unit vector per user from the vectors and languages of the items of his history.

    Args:
        size: of item vectors, ``D``.
        max_length: longest history, in items.
        config: kind of pooling and its settings.
        item_languages: numbers of the languages of the items that training meets.
        user_languages: those of the users.

    Raises:
        ConfigError: the heads of ``transformer`` do not divide the size.
    """

    def __init__(
        self, size: int, max_length: int, config: UserTowerConfig, *, item_languages: Tensor, user_languages: Tensor
    ) -> None:
        super().__init__()
        self.pooling = POOLINGS[config.user_tower](size, max_length, config)
        self.item_language = LanguageEmbedding(size, item_languages) if config.language_embedding else None
        self.user_language = LanguageEmbedding(size, user_languages) if config.language_embedding else None
        self.without_history = LanguageEmbedding(size, user_languages)
        nn.init.normal_(self.without_history.weight, std=size**-0.5)

    def forward(self, items: Tensor, item_language: Tensor, user_language: Tensor) -> Tensor:
        """Return the user after each position of a history, ``(B, L, D)``, of unit length.

        Args:
            items: ``(B, L, D)`` item vectors, oldest first, padded on the right.
            item_language: ``(B, L)`` language numbers.
            user_language: ``(B,)`` language numbers.
        """
        if self.item_language is not None:
            items = items + self.item_language(item_language)
        users = self.pooling(items)
        if self.user_language is not None:
            users = users + self.user_language(user_language)[:, None]
        return F.normalize(users.float(), dim=-1)

    def attention(self, items: Tensor, item_language: Tensor) -> Tensor:
        """Return how much each item counts for the user after each position, ``(B, L, L)``; arguments as above."""
        if self.item_language is not None:
            items = items + self.item_language(item_language)
        return self.pooling.attention(items).expand(len(items), -1, -1)

    def of_other_vectors(self, items: Tensor) -> Tensor:
        """Return the user by vectors that the tower was not trained on: their mean by distance alone, ``(B, L, D')``.

        Args:
            items: ``(B, L, D')``, oldest first, padded on the right.
        """
        weight = torch.softmax(MeanPooling._logits(self.pooling, items), dim=-1)  # (L, L)
        return F.normalize((weight @ items).float(), dim=-1)

    def empty(self, user_language: Tensor) -> Tensor:
        """Return users without a history, ``(B, D)``: the learned vectors of their languages, ``(B,)``."""
        return F.normalize(self.without_history(user_language).float(), dim=-1)


def last_states(states: Tensor, length: Tensor) -> Tensor:
    """Return the states ``(B, D)`` at the ends of histories, given those at all positions, ``(B, L, D)``."""
    rows = torch.arange(states.shape[0], device=states.device)  # len() would fix the number in exported graphs
    return states[rows, (length - 1).clamp_min(0)]
