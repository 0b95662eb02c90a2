"""LanguageCentering: vectors of texts without what all texts of their language have in common."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from recbole_xling.model.layers.language_embedding import LANGUAGES
from recbole_xling.utils.distributed import sum_over_processes

_AVERAGE_TEXTS = 30  # added to the texts of each language when its mean is taken


class LanguageCentering(nn.Module):
    """Subtract the mean vector of a text's language, and scale to unit length again.

    Vectors of language models point into a narrow cone, of which each language fills a part of its own: texts of one
    language are near to each other whatever they say, and a few are near to everything. Without the means, what
    remains is what texts say (Mu & Viswanath, "All-but-the-Top", ICLR 2018; Libovicky et al., "On the Language
    Neutrality of Pre-trained Multilingual Representations", Findings of EMNLP 2020).

    The means are those of the texts at hand: in training the candidates of a batch, of all processes, as in mean-only
    batch normalization (Salimans & Kingma, NeurIPS 2016), elsewhere the catalog. A language with few texts borrows
    from the others: its mean is taken over its own texts and 30 average ones.
    """

    def forward(self, vectors: Tensor, language: Tensor, weight: Tensor) -> Tensor:
        """Return vectors without their means, ``(N, D)`` of unit length.

        Args:
            vectors: ``(N, D)`` of texts.
            language: ``(N,)`` their languages' numbers.
            weight: ``(N,)`` in the means; 0 leaves a text out of them, but not its vector.
        """
        return F.normalize(vectors - self.means(vectors, language, weight)[language], dim=-1)

    def means(self, vectors: Tensor, language: Tensor, weight: Tensor) -> Tensor:
        """Return the means by the number of the language, ``(languages, D)``; arguments as above."""
        counts = vectors.new_zeros(len(LANGUAGES) + 1, 1).index_add_(0, language, weight[:, None].to(vectors.dtype))
        sums = vectors.new_zeros(len(counts), vectors.shape[1]).index_add(0, language, vectors * weight[:, None])
        if self.training:
            counts, sums = sum_over_processes(counts), sum_over_processes(sums)
        average = sums.sum(dim=0) / counts.sum().clamp_min(1)  # (D,)
        means: Tensor = (sums + _AVERAGE_TEXTS * average) / (counts + _AVERAGE_TEXTS)
        return means
