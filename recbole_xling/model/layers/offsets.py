"""What a score has besides the match of user and item: how popular the item is, and how new."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from recbole.data.interaction import Interaction
from torch import Tensor, nn

from recbole_xling.data.dataset import XLingDataset
from recbole_xling.errors import ConfigError
from recbole_xling.model.layers.exposure import cold_share, entry_gaps, exposure_offset

_N_HISTORIES = 512  # training users whose lists tell how often items never trained on are shown
_SCORES_AT_ONCE = 1 << 24  # of these lists, held at a time


class ItemOffsets(nn.Module):
    """The constants of all items' scores, ``(n_items,)``.

    With ``popularity_prior`` it is the logarithm of an item's count as a share of the largest one: the softmax over
    match plus log popularity is Bayes' rule (logit adjustment, Menon et al., ICLR 2021). Items never trained on have
    no popularity; :meth:`calibrate` finds their common offset, the only number here that a checkpoint holds.

    Args:
        config: ``popularity_prior``, ``cold_exposure`` and ``exclude_history`` are read.
        dataset: the training split.
        by_text: whether items are known by their texts; without, there are neither prior nor offset.

    Raises:
        ConfigError: ``cold_exposure`` is not greater than 0.
    """

    prior: Tensor
    log_popularity: Tensor
    cold: Tensor
    cold_offset: Tensor

    def __init__(self, config: Any, dataset: XLingDataset, *, by_text: bool) -> None:
        super().__init__()
        if config["cold_exposure"] <= 0:
            raise ConfigError(f"cold_exposure must be greater than 0, not {config['cold_exposure']}")
        counts = dataset.train_item_counts
        popularity = _log_popularity(counts)
        prior = popularity if by_text and config["popularity_prior"] else torch.zeros(len(counts))
        cold = torch.from_numpy((counts == 0) & by_text)
        cold[0] = False
        self.register_buffer("log_popularity", popularity, persistent=False)
        self.register_buffer("prior", prior, persistent=False)
        self.register_buffer("cold", cold, persistent=False)
        self.register_buffer("cold_offset", torch.zeros(()))
        self.share = cold_share(float(config["cold_exposure"]), int(cold.sum()), len(counts) - 1)
        self._masked = dataset.item_id_list_field if config["exclude_history"] else None
        self._histories = dataset.last_histories(_N_HISTORIES) if self.share else None

    def forward(self) -> Tensor:
        """Return what is added to the match of a user with each item, ``(n_items,)``."""
        return self.prior + self.cold_offset * self.cold

    def calibrate(self, score: Callable[[Interaction], Tensor]) -> None:
        """Set the offset of items never trained on by what training users would be shown.

        Args:
            score: gives the scores of all items, ``(B, n_items)``, with these offsets in them.
        """
        if self._histories is None:
            return
        self.cold_offset.zero_()
        at_once = max(1, _SCORES_AT_ONCE // len(self.cold))
        gaps = []
        for begin in range(0, len(self._histories), at_once):
            histories = self._histories[begin : begin + at_once].to(self.cold.device)
            scores = score(histories)
            if self._masked:
                scores.scatter_(1, histories[self._masked], float("-inf"))
            gaps.append(entry_gaps(scores[:, ~self.cold], scores[:, self.cold]))
        self.cold_offset.copy_(exposure_offset(torch.cat(gaps), self.share))


def _log_popularity(train_counts: NDArray[np.int64]) -> Tensor:
    """Return the logarithm of each item's count as a share of the largest one, ``(n_items,)``; 0 for no count."""
    largest = max(1, int(train_counts.max()))
    return torch.from_numpy(np.log(np.where(train_counts > 0, train_counts, largest) / largest)).float()
