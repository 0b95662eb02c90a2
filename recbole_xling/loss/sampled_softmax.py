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
    log_q_positive: Tensor | None = None,
    log_q_negative: Tensor | None = None,
) -> Tensor:
    """Return the weighted softmax loss of each position over its target and the shared negatives.

    A negative that is the position's own target is left out. With ``log_q`` (the logarithm of the rate at which
    each item is drawn) the logits are corrected as ``s - log q``, which makes the loss an estimate of the full
    softmax (Bengio & Senecal 2008; Yi et al., RecSys 2019).

    Args:
        hidden: ``(N, H)`` user states.
        positive: ``(N, H)`` vectors of the targets.
        negative: ``(K, H)`` vectors of the negatives, shared by all positions.
        target: ``(N,)`` item ids of the targets.
        negative_id: ``(K,)`` item ids of the negatives.
        position_weight: ``(N,)``; ``1 / N`` everywhere gives the mean.
        log_q_positive: ``(N,)`` or None for no correction.
        log_q_negative: ``(K,)`` or None for no correction.
    """
    right = (hidden * positive).sum(dim=-1)  # (N,)
    wrong = hidden @ negative.T  # (N, K)
    if log_q_positive is not None and log_q_negative is not None:
        right = right - log_q_positive
        wrong = wrong - log_q_negative
    wrong = wrong.masked_fill(negative_id == target[:, None], float("-inf"))
    logits = torch.cat([right[:, None], wrong], dim=1)  # (N, 1 + K)
    loss = F.cross_entropy(logits.float(), torch.zeros_like(target), reduction="none")  # (N,)
    return (loss * position_weight).sum()
