"""The distinct texts of a batch with a vector for each, looked up by text."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from recbole_xling.utils.distributed import gather_rows, process


@dataclass(frozen=True)
class DistinctTexts:
    """Distinct texts and their vectors.

    Histories repeat items, and items share texts. So a batch encodes each distinct text once, and every place that
    needs a vector finds it here by the number of the text.

    Args:
        texts: ``(U,)`` numbers of the texts, ascending and each once.
        vectors: ``(U, D)``.
    """

    texts: Tensor
    vectors: Tensor

    @classmethod
    def of_repeated(cls, texts: Tensor, vectors: Tensor) -> DistinctTexts:
        """Keep the first vector of each text.

        Args:
            texts: ``(N,)`` numbers of texts, in any order.
            vectors: ``(N, D)``; those of one text are equal.
        """
        distinct, place = torch.unique(texts, return_inverse=True)  # (U,), (N,)
        order = torch.arange(len(texts), device=texts.device)
        first = torch.full_like(distinct, len(texts)).scatter_reduce_(0, place, order, "amin")  # (U,)
        return cls(distinct, vectors[first])

    def of_all_processes(self) -> DistinctTexts:
        """Return the texts of all processes, each once, with the vector of the first process that has it."""
        if process()[1] == 1:
            return self
        return DistinctTexts.of_repeated(gather_rows(self.texts), gather_rows(self.vectors))

    def rows(self, texts: Tensor) -> Tensor:
        """Return the row of each text in :attr:`vectors`, of the shape of ``texts``; all texts must be here."""
        return torch.searchsorted(self.texts, texts)

    def look_up(self, texts: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the vectors of texts, ``(..., D)``.

        Args:
            texts: ``(...)`` numbers of texts.
            mask: ``(...)``; where it is False the text need not be here, and its vector is zero.
        """
        if mask is None:
            return self.vectors[self.rows(texts)]
        return self.vectors[self.rows(texts) * mask] * mask[..., None]
