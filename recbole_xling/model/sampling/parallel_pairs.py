"""Pairs of parallel texts that are drawn with each batch."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from recbole_xling.data.parallel_texts import ParallelTexts
from recbole_xling.utils.distributed import process


class ParallelPairs:
    """Draws pairs of texts that say the same in two languages.

    Args:
        parallel: the texts.
        text: number of the distinct text of each, ``(n,)``.
        number: of pairs per batch.
    """

    def __init__(self, parallel: ParallelTexts, text: Tensor, number: int) -> None:
        self._parallel, self._text, self._number = parallel, text, number

    def draw(self, *number: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return this process's share of the pairs of a batch: two texts and the item of each, ``(P,)``.

        Args:
            number: what the batch is known by: seed, optimizer step, and which batch of the step.
        """
        drawn = self._parallel.draw(self._number, np.random.default_rng(number))
        rank, world_size = process()
        first, second, item = (torch.from_numpy(rows[rank::world_size]) for rows in drawn)
        return self._text[first], self._text[second], item
