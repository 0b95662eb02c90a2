"""How far tuning has moved vectors from those of the pretrained encoder."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from recbole_xling.model.text_encoder.distinct_texts import DistinctTexts
from recbole_xling.utils.distributed import gather_rows


def anchor_loss(texts: Tensor, tuned: Tensor, untuned: Tensor) -> Tensor:
    """Return the mean of one minus the cosine of each text's vector and the one that it had before, a scalar.

    It keeps what the encoder knows where clicks do not speak against it, so that items which
    training never met stay comparable: distillation of the tower's geometry from a teacher, as in EmbedDistill (Kim et
    al., "EmbedDistill: A Geometric Knowledge Distillation for Information Retrieval", 2023), with the encoder itself
    as the teacher.

    A text counts once, however many processes have it.

    Args:
        texts: ``(U,)`` numbers of distinct texts.
        tuned: ``(U, H)`` pooled vectors of texts.
        untuned: ``(U, H)`` those of the same texts by the encoder before training.
    """
    away = 1 - F.cosine_similarity(tuned.float(), untuned.float(), dim=-1)  # (U,)
    return DistinctTexts.of_repeated(gather_rows(texts), gather_rows(away[:, None])).vectors.mean()
