"""ItemGate: items that training met seldom, or never, are scored by the encoder as it was."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from recbole_xling.model.layers.user_tower import last_states
from recbole_xling.model.text_encoder.item_texts import ItemTable
from recbole_xling.utils.typed_config import TypedConfig


class ItemGateConfig(TypedConfig):
    """How items that training hardly knows are scored."""

    section: ClassVar[str] = "items never seen"

    untuned_count: float = Field(
        0.0,
        ge=0,
        description="Training interactions with which an item is scored half by what training learned, half by the "
        "encoder as it was; with none by the latter alone. 0: all items by what training learned.",
    )


class ItemGate(nn.Module):
    """A share of each item's score that comes from trained vectors; the rest comes from those of the untuned encoder.

    With ``n`` training interactions the share is ``n / (n + untuned_count)``. A mix of two inner products is the inner
    product of vectors put side by side, so that ranking needs nothing else. How often a thing was seen as the weight of
    what was learned about it is shrinkage, as of the similarities in Herlocker et al., "An Algorithmic Framework for
    Performing Collaborative Filtering" (SIGIR 1999).

    Args:
        counts: training interactions of each item, ``(n_items,)``.
        config: the setting, above 0.
        untuned: gives the vectors of all items in a view by the encoder as it was, ``(n_items, H)``.
        pool: maps such vectors of a history, ``(B, L, H)``, to the user after each position.
    """

    share: Tensor

    def __init__(
        self,
        counts: Tensor,
        config: ItemGateConfig,
        untuned: ItemTable,
        pool: Callable[[Tensor], Tensor],
    ) -> None:
        super().__init__()
        self.untuned, self._pool = untuned, pool
        self.register_buffer("share", (counts / (counts + config.untuned_count)).float()[:, None], persistent=False)
        self._joined: tuple[Tensor, Tensor] | None = None

    def forward(
        self, users: Tensor, items: Tensor, view: int, item_seq: Tensor, item_seq_len: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return users and items, ``(B, D + H)`` and ``(n_items, D + H)``, whose inner products are the mixed ones.

        Args:
            users: by trained vectors, ``(B, D)``.
            items: trained vectors, ``(n_items, D)``.
            view: of the users.
            item_seq: ``(B, L)`` item ids, oldest first, padded on the right.
            item_seq_len: ``(B,)`` their number; with 0 the untuned encoder says nothing.
        """
        untuned = self.untuned(view)
        others = self.pooled(untuned[item_seq[:, : max(1, int(item_seq_len.max()))]], item_seq_len)  # (B, H)
        if self._joined is None or self._joined[0] is not items:  # once for all users of a view
            self._joined = items, torch.cat([self.share * items, (1 - self.share) * untuned], dim=1)
        return torch.cat([users, others], dim=1), self._joined[1]

    @contextmanager
    def as_new(self, items: Tensor) -> Iterator[None]:
        """Score some items, ``(n,)``, by the untuned encoder alone meanwhile, as those that training never met."""
        share = self.share[items]
        self.share[items], self._joined = 0, None
        try:
            yield
        finally:
            self.share[items], self._joined = share, None

    def pooled(self, history: Tensor, item_seq_len: Tensor) -> Tensor:
        """Return users by untuned vectors of their histories, ``(B, H)`` from ``(B, L, H)``; 0 without a history."""
        return last_states(self._pool(history), item_seq_len) * (item_seq_len[:, None] > 0)
