"""Negatives from the whole catalog, besides the texts that a batch has anyway: up to the full softmax."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from recbole_xling.utils.typed_config import TypedConfig

_DRAW = 0xCA7A  # keeps these draws apart from others of the same batch
_AUTO = 10_000  # with 500 positions half a second a batch on a CPU core, if nothing is encoded


class CatalogNegativesConfig(TypedConfig):
    """How many items of the catalog each batch has as negatives."""

    section: ClassVar[str] = "catalog negatives"

    catalog_negatives: Annotated[int, Field(ge=0)] | Literal["auto"] = Field(
        "auto",
        description="Items of training drawn as further candidates of each batch; all of them if they are no more. "
        "`auto`: 10,000 where the encoder is frozen, which makes them cheap, else none.",
    )


class CatalogNegatives:
    """Texts drawn evenly from those of training, as candidates of a batch besides its own.

    Popular items are in a batch anyway; evenly drawn ones are the others (mixed negative sampling: Yang et al., "Mixed
    Negative Sampling for Learning Two-tower Neural Networks in Recommendations", WWW 2020 Companion). Where all are
    drawn this is the full softmax. Items without training interactions, and views in which no training user sees an
    item, are never drawn: as negatives they would teach that new items, or a language, are wrong.

    Args:
        config: how many; fewer if training has fewer.
        counts: training interactions of each item in each view, ``(n_views, n_items)``.
        of_item: unit of each item in each view, ``(n_views, n_items)``.
        frozen: whether the encoder is.
        by_chance: whether each batch has each item in one view that is drawn for it.

    Attributes:
        rate: that a batch has an item of training, in a view, because it was drawn, from 0 to 1.
        are_all: whether each batch has all items of training, as anybody may see them in it.
    """

    def __init__(
        self, config: CatalogNegativesConfig, counts: Tensor, of_item: Tensor, *, frozen: bool, by_chance: bool
    ) -> None:
        wanted = config.catalog_negatives
        number = (_AUTO if frozen else 0) if wanted == "auto" else wanted
        self._of_item = of_item
        self._view, self._item = (counts[:1] if by_chance else counts).nonzero(as_tuple=True)  # (n,) each
        self._number = min(number, len(self._item))
        self.rate = self._number / max(1, len(self._item))
        self.are_all = self._number == len(self._item) and (by_chance or len(counts) == 1)

    def draw(self, scored: Tensor | None, *number: int) -> Tensor:
        """Draw units for a batch, ``(K,)``, each once, on the CPU; the same numbers give the same units.

        Args:
            scored: the views drawn for candidates, ``(n_items,)``, on the CPU; None if views are not drawn.
            number: what the batch is known by: seed, optimizer step, and which batch of the step.
        """
        view, item = self._view, self._item
        if self._number < len(item):
            drawn = np.random.default_rng([*number, _DRAW]).choice(len(item), self._number, replace=False)
            view, item = view[drawn], item[drawn]
        return torch.unique(self._of_item[view if scored is None else scored[item], item])
