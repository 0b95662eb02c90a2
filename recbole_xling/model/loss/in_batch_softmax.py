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
        accidental_hit_mask: ``(N, U)`` candidates that are not negatives of a position although they were not chosen
            there: those of the user's own history. A position's own target may be among them; it counts all the same.
        logit_adjustment: ``(U,)`` constants added to the logits of the candidates, such as ``-log q`` for items that
            come into a batch at a rate ``q`` (Yi et al., "Sampling-Bias-Corrected Neural Modeling for Large Corpus
            Item Recommendations", RecSys 2019).
        is_user: ``(N,)`` whether the position tells users apart; others (users without a history) are left out of
            the softmax over users.
    """

    states: Tensor
    items: Tensor
    target: Tensor
    weight: Tensor
    accidental_hit_mask: Tensor
    logit_adjustment: Tensor
    is_user: Tensor


def in_batch_softmax(batch: InBatch, scale: Tensor) -> Tensor:
    """Return the mean of both directions of the weighted softmax loss, a scalar.

    From users to items, a position's target competes with all candidates that are not accidental hits. From items to
    users, it competes with all positions of the batch that have another target and whose users do not know this one.

    Args:
        batch: positions and candidates.
        scale: the inverse temperature.
    """
    states = batch.states * scale  # (N, D)
    hit = batch.accidental_hit_mask.scatter(1, batch.target[:, None], False)  # (N, U)
    constant = batch.logit_adjustment.expand(hit.shape).masked_fill(hit, float("-inf"))  # (N, U)
    logits = (states @ batch.items.T).float() + constant  # (N, U)
    to_items = F.cross_entropy(logits, batch.target, reduction="none")  # (N,)

    target = batch.target[batch.is_user]  # (M,)
    logits = (batch.items[target] @ states[batch.is_user].T).float()  # (M, M): of item j with user k
    hit = batch.accidental_hit_mask[batch.is_user][:, target].T | (target[:, None] == target)  # (M, M)
    hit.fill_diagonal_(False)
    own = torch.arange(len(target), device=target.device)
    to_users = F.cross_entropy(logits.masked_fill(hit, float("-inf")), own, reduction="none")  # (M,)

    both = (to_items * batch.weight).sum() + (to_users * batch.weight[batch.is_user]).sum()
    return both / 2
