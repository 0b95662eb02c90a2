"""LanguageAdversary: item vectors from which a classifier shall not tell the language."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from recbole_xling.errors import ConfigError
from recbole_xling.model.layers.language_embedding import LANGUAGES
from recbole_xling.model.text_encoder.distinct_texts import DistinctTexts
from recbole_xling.utils.distributed import gather_rows
from recbole_xling.utils.typed_config import TypedConfig


class LanguageAdversaryConfig(TypedConfig):
    """How much item vectors are kept from telling their language."""

    section: ClassVar[str] = "language adversary"

    language_adversary_weight: float = Field(
        0.0, ge=0, description="Weight of a classifier of languages, against which item vectors are trained."
    )


class _ReverseGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, vectors: Tensor, strength: float) -> Tensor:
        ctx.strength = strength
        return vectors.view_as(vectors)

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        return -ctx.strength * grad_output, None


class LanguageAdversary(nn.Module):
    """A perceptron that learns to tell the language of vectors, which learn at the same time to make it fail.

    Between both the gradient is reversed (Ganin et al., "Domain-Adversarial Training of Neural Networks", JMLR 2016;
    across languages Chen et al., "Adversarial Deep Averaging Networks for Cross-Lingual Sentiment Classification", TACL
    2018), and multiplied by a strength that rises from 0 to 1 over all steps of training, ``2 / (1 + exp(-10 p)) - 1``
    at the share ``p`` of them: first the classifier learns, then the vectors give way.

    Its size does not depend on the dataset, so that trained weights load everywhere.

    Args:
        size: of the vectors.
        weight: of the loss.
        met: numbers of the languages in which training shows items; None if nothing is trained.

    Attributes:
        total_steps: optimizer steps of training.

    Raises:
        ConfigError: training shows all items in one language.
    """

    def __init__(self, size: int, weight: float, met: Tensor | None) -> None:
        super().__init__()
        if met is not None and len(met[met > 0].unique()) < 2:
            raise ConfigError(
                "language_adversary_weight: training shows items in one known language only, so that there is nothing "
                "to tell apart: show others (train_text_view: random, train_text_languages), or set it to 0"
            )
        self.weight, self.total_steps = weight, 1
        self.classifier = nn.Sequential(nn.Linear(size, size), nn.ReLU(), nn.Linear(size, len(LANGUAGES) + 1))

    def forward(self, vectors: Tensor, language: Tensor, step: int, number: Tensor | None = None) -> Tensor:
        """Return the weighted cross entropy of the classifier, a scalar, whose gradient is reversed for the vectors.

        Args:
            vectors: ``(N, D)``, of any length: their directions count.
            language: ``(N,)`` numbers; 0, an unknown one, does not count.
            step: of the optimizer, from 0.
            number: ``(N,)`` that each vector is known by, where processes have different ones: those of all count,
                each once. None where all processes have the same vectors.
        """
        strength = 2 / (1 + math.exp(-10 * min(1.0, step / self.total_steps))) - 1
        directions = F.normalize(vectors.float(), dim=-1) * vectors.shape[-1] ** 0.5  # (N, D)
        logits = self.classifier(_ReverseGradient.apply(directions, strength)).float()  # (N, languages)
        error = F.cross_entropy(logits, language, reduction="none")  # (N,)
        known = language > 0
        if number is not None:
            both = torch.stack([error, known.float()], dim=1)  # (N, 2)
            error, known = DistinctTexts.of_repeated(gather_rows(number), gather_rows(both)).vectors.unbind(dim=1)
        return self.weight * (error * known).sum() / known.sum().clamp_min(1)
