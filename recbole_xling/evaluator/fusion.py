"""Fusing the scores of several models into one ranking, and finding weights for them on validation rows."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recbole_xling.errors import ConfigError

FloatArray = NDArray[np.float64]

METHODS = ("log_softmax", "rrf", "combsum", "combmnz")
RERANK = "rerank"
DEPTH = 1000
"""Length of the lists that rrf, combsum and combmnz fuse."""
RERANK_DEPTH = 100
"""Length of the first model's lists that rerank puts in order."""

_RRF_K = 60  # of Cormack et al.
_CANDIDATES = 100  # best items of each model between which weights are tuned
_FACTORS: tuple[float, ...] = (0.0, *(2.0 ** (step / 2) for step in range(-16, 17)))


def fuse_scores(scores: Sequence[Tensor], method: str, weights: Sequence[float], depth: int = DEPTH) -> Tensor:
    """Return one score per item from those of several models.

    - ``log_softmax``: the weighted sum of the logarithms of each model's softmax (a logarithmic opinion pool; averaging
      an ID and a text model so: EnsRec, arXiv:2512.17820), less that of the best item, as small differences count.
    - ``rrf``: reciprocal rank fusion, the weighted sum of ``1 / (60 + rank)`` (Cormack et al., SIGIR 2009). Equal
      scores share their mean rank.
    - ``combsum``: the weighted sum of scores, each list scaled from 0 to 1; ``combmnz``: that times the number of lists
      which the item is in (Fox and Shaw, TREC-2 1994; scaling: Lee, SIGIR 1997).

    An item that one model does not rank (minus infinity) is not ranked.

    Args:
        scores: of each model, ``(B, n_items)``.
        method: one of :data:`METHODS`, but :func:`rerank` is for that one.
        weights: of the models.
        depth: how long the lists are; an item further down counts as absent, and so do
            those that share their score with one further down. ``log_softmax`` has no such limit.
    """
    left_out = torch.stack([torch.isneginf(own) for own in scores]).any(dim=0)
    ranked = [own.masked_fill(left_out, -torch.inf) for own in scores]
    if method == "log_softmax":
        logs = (weight * torch.log_softmax(own.double(), dim=1) for own, weight in zip(ranked, weights, strict=True))
        fused = torch.stack([own.masked_fill(left_out, -torch.inf) for own in logs]).sum(dim=0)
        return (fused - fused.amax(dim=1, keepdim=True)).float().masked_fill(left_out, -torch.inf)
    total, lists = torch.zeros_like(scores[0]), torch.zeros_like(scores[0])
    for own, weight in zip(ranked, weights, strict=True):
        best, item = own.topk(min(depth + 1, own.shape[1]), dim=1)  # (B, K), the highest first
        behind = best[:, depth:]  # (B, 1) or (B, 0)
        best, item = best[:, :depth], item[:, :depth]
        present = best > -torch.inf
        low = best.masked_fill(~present, torch.inf).amin(dim=1, keepdim=True)  # (B, 1)
        if behind.shape[1]:  # of items that share the score of the first one left out, none is in the list
            present &= best > behind
        if method == "rrf":
            above, upto = (torch.searchsorted(-best, -best, right=right) for right in (False, True))
            value = 1 / (_RRF_K + (above + 1 + upto) / 2)
        else:
            value = (best - low) / (best[:, :1] - low).clamp_min(1e-12)
        total.scatter_add_(1, item, torch.where(present, weight * value, 0).to(total))
        lists.scatter_add_(1, item, present.to(lists))
    return (total * lists if method == "combmnz" else total).masked_fill(left_out, -torch.inf)


def rerank(
    scores: Tensor, score_candidates: Callable[[Tensor], Tensor], weights: Sequence[float], depth: int
) -> Tensor:
    """Return scores by which a second model puts the best items of a first one in order; others follow as they are.

    Candidates are ordered by the weighted sum of their reciprocal ranks among the candidates (``rrf``). With weights of
    0 and 1 their order is the second model's alone (Nogueira and Cho, "Passage Re-ranking with BERT",
    arXiv:1901.04085). A candidate that the second model does not rank (minus infinity) is not ranked.

    Args:
        scores: of the first model, ``(B, n_items)``.
        score_candidates: items ``(B, depth)`` to the second model's scores of them.
        weights: of the first and of the second model.
        depth: number of candidates.
    """
    best, item = scores.topk(min(depth, scores.shape[1]), dim=1)  # (B, depth)
    order = fuse_scores([best, score_candidates(item)], "rrf", weights, depth)  # above 0
    behind = scores.scatter(1, item, -torch.inf)
    behind = behind - behind.amax(dim=1, keepdim=True).nan_to_num(neginf=0)  # up to 0
    return behind.scatter(1, item, order.to(behind))


# ---- weights --------------------------------------------------------------------------------------------------


class Candidates(NamedTuple):
    """Some of the best items of validation rows, and the one that was chosen.

    Attributes:
        scores: logarithm of each model's softmax, minus infinity for what is no candidate, ``(n_models, n, C)``.
        target: place of the chosen one, ``(n,)``.
    """

    scores: FloatArray
    target: NDArray[np.int64]


def candidates_of(scores: Sequence[Tensor], rows: Tensor, targets: Tensor) -> Candidates:
    """Return the candidates of validation rows: the best 100 items of each model.

    Args:
        scores: of each model, ``(B, n_items)``.
        rows: the row of each target, ``(n,)``.
        targets: item ids, ``(n,)``; those that are no candidate tell nothing of the order at the top and are left out.
    """
    left_out = torch.stack([torch.isneginf(own) for own in scores]).any(dim=0)
    logs = [torch.log_softmax(own.double().masked_fill(left_out, -torch.inf), dim=1) for own in scores]
    best = torch.cat([own.topk(min(_CANDIDATES, own.shape[1]), dim=1).indices for own in logs], dim=1)
    best = best.sort(dim=1).values  # (B, C)
    absent = torch.zeros_like(best, dtype=torch.bool)
    absent[:, 1:] = best[:, 1:] == best[:, :-1]  # found by several models
    absent |= left_out.gather(1, best)
    found = torch.stack([own.gather(1, best).masked_fill(absent, -torch.inf) for own in logs])  # (n_models, B, C)
    is_target = (best[rows] == targets[:, None]) & ~absent[rows]  # (n, C)
    reached = is_target.any(dim=1)
    return Candidates(
        found[:, rows[reached]].cpu().numpy(), is_target[reached].int().argmax(dim=1).cpu().numpy().astype(np.int64)
    )


def tuned_weights(parts: Sequence[Candidates], k: int, kinds: Sequence[Hashable] | None = None) -> list[float]:
    """Return the weights of ``log_softmax`` that rank the chosen items best among the candidates, by NDCG@k.

    Scores of each model are brought to deviation 1 within rows first, so their scales do not matter. From equal weights
    on, each kind of model in turn gets the best weight of 0 and 1/256 to 256 times the largest of the others, as long
    as that helps. Only the ratios of weights matter for the order of items; they sum to 1.

    Args:
        parts: what :func:`candidates_of` returned for the validation rows.
        k: length of the lists.
        kinds: of each model. Those of a kind share its weight evenly; which of them suits the rows best is chance. If
            not given, each model is a kind of its own.

    Raises:
        ConfigError: no target was among the candidates.
    """
    width = max((part.scores.shape[2] for part in parts), default=0)
    n_models = parts[0].scores.shape[0] if parts else 0
    n_targets = sum(len(part.target) for part in parts)
    if not n_targets:
        raise ConfigError("no validation target is among the best items of the runs: weights cannot be tuned; set them")
    scores = np.full((n_models, n_targets, width), -np.inf)
    begin = 0
    for part in parts:
        scores[:, begin : begin + len(part.target), : part.scores.shape[2]] = part.scores
        begin += len(part.target)
    target, row = np.concatenate([part.target for part in parts]), np.arange(n_targets)
    is_candidate = np.isfinite(scores[0])
    known = np.where(is_candidate, scores, 0.0)
    mean = known.sum(axis=2, keepdims=True) / is_candidate.sum(axis=1)[:, None]
    scale = 1 / np.maximum([values[is_candidate].std() for values in known - mean], 1e-9)
    known *= scale[:, None, None]
    named = list(kinds or range(n_models))
    member = np.array([[own == kind for own in named] for kind in dict.fromkeys(named)], dtype=float)
    member /= member.sum(axis=1, keepdims=True)  # (n_kinds, n_models)
    known = np.tensordot(member, known, axes=1)  # (n_kinds, n, C)

    def ndcg(weights: FloatArray) -> float:
        fused = np.where(is_candidate, np.tensordot(weights, known, axes=1), -np.inf)  # (n, C)
        own = fused[row, target][:, None]
        place = (fused > own).sum(axis=1) + ((fused == own).sum(axis=1) + 1) / 2
        return float(np.where(place <= k, 1 / np.log2(place + 1), 0).mean())

    weights = np.ones(len(member))
    best, better = ndcg(weights), len(weights) > 1
    while better:
        better = False
        for kind in range(len(weights)):
            tried = np.repeat(weights[None], len(_FACTORS), axis=0)
            tried[:, kind] = np.array(_FACTORS) * (np.delete(weights, kind).max() or 1.0)
            quality = [ndcg(own) if own.any() else 0.0 for own in tried]
            if max(quality) > best + 1e-9:
                weights, best, better = tried[int(np.argmax(quality))], max(quality), True
    weights = weights @ member * scale
    return [float(weight) for weight in weights / weights.sum()]
