"""Negatives from the whole catalog, besides the texts that a batch has anyway: up to the full softmax."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from recbole_xling.utils.typed_config import TypedConfig

_DRAW = 0xCA7A  # keeps these draws apart from others of the same batch


class CatalogNegativesConfig(TypedConfig):
    """How many items of the catalog each batch has as negatives."""

    section: ClassVar[str] = "catalog negatives"

    catalog_negatives: int = Field(
        0,
        ge=0,
        description="Items of training drawn as further candidates of each batch; all of them if they are no more. "
        "Cheap with `peft: frozen`.",
    )


class CatalogNegatives:
    """Items drawn evenly from those of training, as candidates of a batch besides its own.

    Popular items are in a batch anyway; evenly drawn ones are the others (mixed negative sampling: Yang et al., "Mixed
    Negative Sampling for Learning Two-tower Neural Networks in Recommendations", WWW 2020 Companion). Where all items
    are drawn this is the full softmax. Items without training interactions are never drawn: as negatives they would
    teach that new items are wrong.

    Args:
        number: how many; fewer if training has fewer.
        counts: training interactions of each item, ``(n_items,)``.

    Attributes:
        rate: that a batch has an item of training because it was drawn, from 0 to 1.
    """

    def __init__(self, number: int, counts: Tensor) -> None:
        self._items = counts.nonzero().squeeze(1)  # (n,)
        self._number = min(number, len(self._items))
        self.rate = self._number / max(1, len(self._items))

    def draw(self, *number: int) -> Tensor:
        """Draw items for a batch, each at most once, ``(K,)``, ascending; the same numbers give the same items.

        Args:
            number: what the batch is known by: seed, optimizer step, and which batch of the step.
        """
        if self._number == len(self._items):
            return self._items
        drawn = np.random.default_rng([*number, _DRAW]).choice(len(self._items), self._number, replace=False)
        return self._items[torch.from_numpy(np.sort(drawn))]
