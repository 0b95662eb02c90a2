"""Cross entropy over the items that are near to a state, found by random projections of whole batches."""

from __future__ import annotations

import torch
from torch import Tensor

_CHUNK_ELEMENTS = 1 << 22  # inner products of items and buckets made at a time: 16 MiB


def scalable_cross_entropy(
    hidden: Tensor, weight: Tensor, target: Tensor, position_weight: Tensor, *, bias: Tensor, n_items: int
) -> Tensor:
    r"""Return the SCE loss of Mezentsev et al., "Scalable Cross-Entropy Loss", RecSys 2024.

    The negatives that matter are those with large logits. ``2 sqrt(N)`` buckets, whose centers are random mixtures of
    the states, get the ``2 sqrt(N)`` states and the ``n_items`` items that have the largest inner products with their
    center. A state's softmax is over its target and the items of its bucket; of a state in several buckets the largest
    loss counts, and a state in none is left out. A constant of an item counts like a further dimension of its vector.

    Neither time nor memory for logits grows with the product of positions and items. Centers are drawn from torch's
    generator, whose state checkpoints keep.

    Args:
        hidden: ``(N, H)`` user states.
        weight: ``(V, H)`` output vectors.
        target: ``(N,)`` index of the right row of ``weight``.
        position_weight: ``(N,)``; ``1 / N`` everywhere gives the mean.
        bias: ``(V,)`` constant added to every position's logits, not trained.
        n_items: of a bucket; at most ``V`` are taken.
    """
    if not len(hidden):
        return hidden.sum()
    with torch.autocast(device_type=hidden.device.type, enabled=False):
        hidden, weight, bias = hidden.float(), weight.float(), bias.float()
        rows, items = _buckets(hidden.detach(), weight.detach(), bias, min(n_items, len(weight)))  # (b, m), (b, k)
        right = (hidden * weight[target]).sum(dim=1) + bias[target]  # (N,)
        wrong = hidden[rows] @ weight[items].transpose(1, 2) + bias[items][:, None]  # (b, m, k)
        wrong = wrong.masked_fill(target[rows][..., None] == items[:, None], float("-inf"))
        loss = torch.logaddexp(right[rows], wrong.logsumexp(dim=2)) - right[rows]  # (b, m)
        largest = torch.zeros_like(right).scatter_reduce(0, rows.flatten(), loss.flatten(), "amax", include_self=False)
        found = torch.zeros_like(right).index_fill(0, rows.flatten(), 1.0) * position_weight  # (N,)
        return (largest * found).sum() * position_weight.sum() / found.sum().clamp_min(1e-30)


@torch.no_grad()
def _buckets(hidden: Tensor, weight: Tensor, bias: Tensor, n_items: int) -> tuple[Tensor, Tensor]:
    """Return which states are in each bucket, ``(b, m)``, and which items, ``(b, k)``."""
    size = min(len(hidden), max(1, round(2 * len(hidden) ** 0.5)))
    mixture = torch.randn(len(hidden), size, device=hidden.device)  # (N, b)
    center, constant = mixture.T @ hidden, mixture.sum(dim=0)  # (b, H), (b,)
    rows = (center @ hidden.T).topk(size, dim=1).indices  # the constant is the same for all states
    step = max(1, _CHUNK_ELEMENTS // len(weight))
    chunks = zip(center.split(step), constant.split(step), strict=True)
    items = [torch.addmm(level[:, None] * bias, part, weight.T).topk(n_items, dim=1).indices for part, level in chunks]
    return rows, torch.cat(items)
