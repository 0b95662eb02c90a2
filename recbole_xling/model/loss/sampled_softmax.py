"""Losses over the target and a sample of negatives: softmax, plain or refined, and calibrated binary cross entropy."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from recbole_xling.utils.precision import exact_matches


def sampled_logits(
    hidden: Tensor,
    positive: Tensor,
    negative: Tensor,
    target: Tensor,
    negative_id: Tensor,
    positive_logit_adjustment: Tensor,
    negative_logit_adjustment: Tensor,
) -> tuple[Tensor, Tensor]:
    """Return the logits of the targets, ``(N,)``, and of the negatives, ``(N, K)``.

    An accidental hit, a negative that is the position's own target, has minus infinity, which leaves it out of all
    losses.

    Args:
        hidden: ``(N, H)`` user states.
        positive: ``(N, H)`` vectors of the targets.
        negative: ``(K, H)`` vectors of the negatives, shared by all positions.
        target: ``(N,)`` item ids of the targets.
        negative_id: ``(K,)`` item ids of the negatives.
        positive_logit_adjustment: ``(N,)`` constants added to the targets' logits.
        negative_logit_adjustment: ``(K,)`` constants added to the negatives' logits.
    """
    right = (hidden * positive).sum(dim=-1) + positive_logit_adjustment  # (N,)
    wrong = exact_matches(hidden, negative) + negative_logit_adjustment  # (N, K)
    accidental_hit_mask = negative_id == target[:, None]  # (N, K)
    return right, wrong.masked_fill(accidental_hit_mask, float("-inf"))


def sampled_softmax(right: Tensor, wrong: Tensor, position_weight: Tensor) -> Tensor:
    """Return the weighted softmax loss of each position over its target and the shared negatives.

    With a logit adjustment of ``-log q`` (``q`` is the rate at which an item is drawn) the loss estimates the full
    softmax (Bengio & Senecal 2008; Yi et al., RecSys 2019).

    Args:
        right: ``(N,)`` logits of the targets.
        wrong: ``(N, K)`` logits of the negatives; minus infinity leaves one out.
        position_weight: ``(N,)``; ``1 / N`` everywhere gives the mean.
    """
    logits = torch.cat([right[:, None], wrong], dim=1)  # (N, 1 + K)
    none = torch.zeros(len(logits), dtype=torch.long, device=logits.device)
    loss = F.cross_entropy(logits.float(), none, reduction="none")  # (N,)
    return (loss * position_weight).sum()


def refined_softmax(right: Tensor, wrong: Tensor, target_rate: Tensor, position_weight: Tensor) -> Tensor:
    r"""Return the weighted loss of Khrylchenko et al., "Correcting the LogQ Correction", RecSys 2025.

    A target is in its softmax always and not by chance, so only the negatives get a correction, by their rate among
    items other than the target, ``q' = q / (1 - q_target)``:

    ``-sg(1 - P) * (right - log sum_k exp(wrong_k) / q'_k)``, where ``P`` is the estimated probability of the target,
    ``exp(right) / (exp(right) + mean_k exp(wrong_k) / q'_k)``, and ``sg`` stops the gradient. Its gradient estimates
    that of the full softmax.

    Args:
        right: ``(N,)`` logits of the targets, not corrected.
        wrong: ``(N, K)`` logits of the negatives minus ``log q``; minus infinity leaves one out.
        target_rate: ``(N,)`` rate ``q`` at which the position's own target is drawn.
        position_weight: ``(N,)``.
    """
    right, wrong = right.float(), wrong.float() + torch.log1p(-target_rate.clamp_max(1 - 1e-6))[:, None]
    number = (wrong > float("-inf")).sum(dim=1)  # (N,)
    wrong = wrong.masked_fill(number[:, None] == 0, 0.0)  # of a position without negatives: its gradient would be NaN
    others = wrong.logsumexp(dim=1) - number.clamp_min(1).log()  # (N,) logarithm of the mean
    uncertain = torch.sigmoid(others - right).detach()  # 1 - P
    loss = torch.where(number > 0, uncertain * (others - right), 0.0)
    return (loss * position_weight).sum()


def calibrated_bce(right: Tensor, wrong: Tensor, beta: float, position_weight: Tensor) -> Tensor:
    r"""Return the weighted gBCE of Petrov & Macdonald, "gSASRec", RecSys 2023.

    ``-(log sigmoid(right)^beta + sum_k log(1 - sigmoid(wrong_k))) / (K + 1)``. With few negatives plain binary cross
    entropy (``beta`` 1) takes items for likelier than they are; :func:`gbce_beta` undoes that.

    Args:
        right: ``(N,)`` logits of the targets.
        wrong: ``(N, K)`` logits of the negatives; minus infinity leaves one out.
        beta: the power, from 0 to 1.
        position_weight: ``(N,)``.
    """
    number = (wrong > float("-inf")).sum(dim=1)  # (N,)
    loss = beta * F.softplus(-right.float()) + F.softplus(wrong.float()).sum(dim=1)  # (N,)
    return (loss / (number + 1) * position_weight).sum()


def gbce_beta(n_negatives: int, n_items: int, t: float) -> float:
    """Return the power of gBCE: ``alpha * (t * (1 - 1 / alpha) + 1 / alpha)``, ``alpha`` being the share drawn.

    Args:
        n_negatives: of a position.
        n_items: of which they are drawn, the position's target included.
        t: calibration, from 0 (plain binary cross entropy) to 1 (scores are probabilities).
    """
    alpha = min(1.0, n_negatives / max(1, n_items - 1))
    return alpha * (t * (1 - 1 / alpha) + 1 / alpha)
