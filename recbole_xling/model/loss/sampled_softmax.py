"""Softmax cross entropy over the target and a sample of negatives."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def sampled_softmax(
    hidden: Tensor,
    positive: Tensor,
    negative: Tensor,
    *,
    target: Tensor,
    negative_id: Tensor,
    position_weight: Tensor,
    positive_logit_adjustment: Tensor,
    negative_logit_adjustment: Tensor,
) -> Tensor:
    """Return the weighted softmax loss of each position over its target and the shared negatives.

    An accidental hit, a negative that is the position's own target, is left out. With a logit adjustment of ``-log q``
    (``q`` is the rate at which an item is drawn) the loss estimates the full softmax (Bengio & Senecal 2008; Yi et al.,
    RecSys 2019).

    Args:
        hidden: ``(N, H)`` user states.
        positive: ``(N, H)`` vectors of the targets.
        negative: ``(K, H)`` vectors of the negatives, shared by all positions.
        target: ``(N,)`` item ids of the targets.
        negative_id: ``(K,)`` item ids of the negatives.
        position_weight: ``(N,)``; ``1 / N`` everywhere gives the mean.
        positive_logit_adjustment: ``(N,)`` constants added to the targets' logits.
        negative_logit_adjustment: ``(K,)`` constants added to the negatives' logits.
    """
    right = (hidden * positive).sum(dim=-1) + positive_logit_adjustment  # (N,)
    wrong = hidden @ negative.T + negative_logit_adjustment  # (N, K)
    accidental_hit_mask = negative_id == target[:, None]  # (N, K)
    wrong = wrong.masked_fill(accidental_hit_mask, float("-inf"))
    logits = torch.cat([right[:, None], wrong], dim=1)  # (N, 1 + K)
    loss = F.cross_entropy(logits.float(), torch.zeros_like(target), reduction="none")  # (N,)
    return (loss * position_weight).sum()
