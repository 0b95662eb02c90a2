"""The items that each user meets in training, which are no negatives of his."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from recbole_xling.data.dataset import XLingDataset


class MetItems(nn.Module):
    """What users have chosen in training, and what files state as histories, one user after the other.

    Args:
        dataset: the training split.
    """

    items: Tensor
    begin: Tensor

    def __init__(self, dataset: XLingDataset) -> None:
        super().__init__()
        users, items = dataset.met_pairs()
        users, items = np.divmod(np.unique(users * dataset.item_num + items), dataset.item_num)  # each once
        begin = torch.searchsorted(torch.from_numpy(users), torch.arange(dataset.user_num + 1))
        self.register_buffer("items", torch.from_numpy(items), persistent=False)
        self.register_buffer("begin", begin, persistent=False)  # where the items of each user begin

    def of(self, users: Tensor) -> tuple[Tensor, Tensor]:
        """Return the rows of some users, and the items that they have met: ``(n,)`` each."""
        begin, number = self.begin[users], self.begin[users + 1] - self.begin[users]
        row = torch.arange(len(users), device=users.device).repeat_interleave(number)
        place = torch.arange(len(row), device=users.device) + (begin - number.cumsum(0) + number)[row]
        return row, self.items[place]
