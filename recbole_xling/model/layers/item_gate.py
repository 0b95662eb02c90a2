"""ItemGate: items that training met seldom, or never, are scored by the encoder as it was."""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

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
    """A share of each item's score that comes from trained vectors; the rest comes from those of the frozen encoder.

    With ``n`` training interactions the share is ``n / (n + untuned_count)``. A mix of two inner products is the inner
    product of vectors put side by side, so that ranking needs nothing else. How often a thing was seen as the weight of
    what was learned about it is shrinkage, as of the means in Herlocker et al. (SIGIR 1999).

    Args:
        counts: training interactions of each item, ``(n_items,)``.
        config: the setting, above 0.
    """

    share: Tensor

    def __init__(self, counts: Tensor, config: ItemGateConfig) -> None:
        super().__init__()
        self.register_buffer("share", (counts / (counts + config.untuned_count)).float()[:, None], persistent=False)
        self._joined: tuple[Tensor, Tensor] | None = None

    def forward(self, trained: Tensor, untuned: Tensor) -> Tensor:
        """Return item vectors whose inner products with both users side by side are the scores, ``(n_items, D + H)``.

        Args:
            trained: ``(n_items, D)``.
            untuned: ``(n_items, H)``.
        """
        if self._joined is None or self._joined[0] is not trained:  # once for all users of a view
            self._joined = trained, torch.cat([self.share * trained, (1 - self.share) * untuned], dim=1)
        return self._joined[1]
