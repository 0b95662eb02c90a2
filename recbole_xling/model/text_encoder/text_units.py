"""TextUnits: what the item tower gives one vector, a text or all texts of an item."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor, nn

from recbole_xling.model.text_encoder.distinct_texts import DistinctTexts


class TextUnits(nn.Module):
    """The units of which each has one vector, and the unit that each item is in each view.

    A unit is a distinct text, or, where items have several texts and all users share one view, a distinct set of texts:
    its vector is the mean of theirs, of unit length.

    Args:
        text_row: numbers of the items' distinct texts in each view, ``(n_views, n_items)``; that of the padding item is
            the empty text.
        n_texts: number of distinct texts, of items and others.
        by_reader: whether users see items by their own view of them.

    Attributes:
        of_item: unit of each item in each view that users have, ``(n_views or 1, n_items)``.
        same: a number that units share which an item, or a chain of items with common texts, has in different views,
            ``(n_units,)``.
        same_of_item: that of each item's units, ``(n_items,)``; where some views have no text of it, of the others.
        number: of all units.
    """

    of_item: Tensor
    same: Tensor
    same_of_item: Tensor
    texts: Tensor
    share: Tensor

    def __init__(self, text_row: Tensor, n_texts: int, *, by_reader: bool) -> None:
        super().__init__()
        self.averages = len(text_row) > 1 and not by_reader
        of_item, self.number = text_row, n_texts
        if self.averages:
            sets, place = torch.unique(text_row.sort(dim=0).values, dim=1, return_inverse=True)
            of_item, texts, self.number = place[None], sets.T, sets.shape[1]  # (1, n_items), (n_units, n_views)
            share = texts != text_row[0, 0]  # an empty text is none, unless the item has no other
            share[:, 1:] &= texts[:, 1:] != texts[:, :-1]
            share[:, 0] |= ~share.any(dim=1)
            self.register_buffer("texts", texts.contiguous(), persistent=False)
            self.register_buffer("share", share.float(), persistent=False)
        same, filled = torch.arange(self.number), of_item != of_item[0, 0]  # empty texts link nothing
        first = of_item.gather(0, filled.int().argmax(dim=0)[None])  # (1, n_items)
        if len(of_item) > 1:
            ends = (first.expand_as(of_item)[filled].numpy(), of_item[filled].numpy())
            links = coo_array((filled[filled].numpy(), ends), shape=(self.number, self.number))
            same = torch.from_numpy(connected_components(links, directed=False)[1]).long()
        self.register_buffer("of_item", of_item, persistent=False)
        self.register_buffer("same", same, persistent=False)
        self.register_buffer("same_of_item", same[first[0]], persistent=False)

    def of(self, items: Tensor, view: Tensor) -> Tensor:
        """Return the units of items in the views in which they are seen, each ``(B, L)``."""
        return self.of_item[view, items]

    def texts_of(self, units: Tensor) -> Tensor:
        """Return the distinct texts of units ``(C,)``, which are ascending and each once, as are these ``(U,)``."""
        return torch.unique(self.texts[units][self.share[units] > 0]) if self.averages else units

    def vectors(self, units: Tensor, texts: DistinctTexts) -> Tensor:
        """Return the vectors of units, ``(C, D)``, from those of their texts."""
        if not self.averages:
            return texts.look_up(units)
        share = self.share[units]  # (C, n_views)
        return F.normalize((texts.look_up(self.texts[units], share > 0) * share[..., None]).sum(dim=1), dim=-1)
