"""Softmax over what is in the batch, from users to items and from items to users."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class InBatch:
    """A batch of positions (a user at a point of his history, and what he chose next) and the items in it.

    Attributes:
        states: ``(N, D)`` users.
        items: ``(U, D)`` vectors of the candidates, each once.
        target: ``(N,)`` row of the item that was chosen.
        weight: ``(N,)`` of the positions in the loss.
        false_negative: ``(N, U)`` candidates that say nothing where they were not chosen: those of the user's own
            history. A position's own target counts always.
        offset: ``(U,)`` constants added to the logits of the candidates, such as ``-log q`` for items that come into a
            batch at a rate ``q`` (Yi et al., "Sampling-Bias-Corrected Neural Modeling for Large Corpus Item
            Recommendations", RecSys 2019).
        is_user: ``(N,)`` whether the position tells users apart; others (users without a history) are left out of
            the softmax over users.
    """

    states: Tensor
    items: Tensor
    target: Tensor
    weight: Tensor
    false_negative: Tensor
    offset: Tensor
    is_user: Tensor


def in_batch_softmax(batch: InBatch, scale: Tensor) -> Tensor:
    """Return the mean of both directions of the weighted softmax loss, a scalar.

    From users to items, a position's target stands against all candidates; from items to users, against all positions
    of the batch that have another target and whose users do not know this one.

    Args:
        batch: positions and candidates.
        scale: the inverse temperature.
    """
    match = batch.states @ batch.items.T * scale  # (N, U)
    target = batch.target[:, None]  # (N, 1)
    wrong = batch.false_negative.scatter(1, target, False)  # (N, U)
    logits = (match + batch.offset).masked_fill(wrong, float("-inf"))
    to_items = F.cross_entropy(logits.float(), batch.target, reduction="none")  # (N,)
    to_users = _softmax_over_users(match, batch)  # (M,)
    both = (to_items * batch.weight).sum() + (to_users * batch.weight[batch.is_user]).sum()
    return both / 2


def _softmax_over_users(match: Tensor, batch: InBatch) -> Tensor:
    """Return the loss of each of the ``M`` positions with a history, seen from its item, ``(M,)``."""
    target = batch.target[batch.is_user]  # (M,)
    logits = match[batch.is_user][:, target].T  # (M, M): of item j with user k
    known = batch.false_negative[batch.is_user][:, target].T | (target[:, None] == target)
    known.fill_diagonal_(False)
    every = torch.arange(len(target), device=target.device)
    return F.cross_entropy(logits.masked_fill(known, float("-inf")).float(), every, reduction="none")
