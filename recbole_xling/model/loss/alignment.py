"""Contrastive alignment of texts that say the same in two languages."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from recbole_xling.model.loss.in_batch_softmax import harder
from recbole_xling.utils.precision import exact_matches


def alignment_loss(first: Tensor, second: Tensor, item: Tensor, scale: Tensor, hardness: float = 0.0) -> Tensor:
    """Return the mean InfoNCE loss (van den Oord et al. 2018) of pairs, both ways, a scalar.

    Each text must find its own translation among all second texts, and the other way round; texts of the same item
    are not negatives of each other.

    Args:
        first: ``(P, D)`` unit vectors of texts in one language.
        second: ``(P, D)`` those of the same items in another one.
        item: ``(P,)`` numbers of the items.
        scale: the inverse temperature.
        hardness: how much more near negatives count.
    """
    own = torch.arange(len(item), device=item.device)
    cosine = exact_matches(first, second)  # (P, P)
    accidental_hit_mask = item[:, None] == item  # (P, P)
    accidental_hit_mask.fill_diagonal_(False)
    both = (
        harder(side, scale, own, hardness).masked_fill(accidental_hit_mask, float("-inf"))
        for side in (cosine, cosine.T)
    )
    return torch.stack([F.cross_entropy(logits, own) for logits in both]).mean()
