"""Texts of about one length, to be encoded together."""

from __future__ import annotations

import torch
from torch import Tensor

_SLACK = 1.2  # longest over shortest text of a bucket: at most a tenth or so of its tokens is padding
_LEAST_TOKENS = {"cpu": 256}  # below, a pass costs more than the padding that it saves
_LEAST_TOKENS_ELSEWHERE = 8192


def length_buckets(length: Tensor, most: int, device: torch.device) -> list[Tensor]:
    """Cut texts into buckets of at most ``most`` texts, short ones first.

    Args:
        length: ``(N,)`` tokens of each text.
        most: texts in a bucket.
        device: where they will be encoded; a GPU needs larger buckets than a CPU.

    Returns:
        The places of each bucket's texts in ``length``.
    """
    least = _LEAST_TOKENS.get(device.type, _LEAST_TOKENS_ELSEWHERE)
    order = torch.argsort(length, stable=True)
    ordered = length[order].tolist()
    ends, start = [], 0
    for end in range(1, len(ordered)):
        large = (end - start) * ordered[end - 1] >= least
        if end - start == most or (large and ordered[end] > _SLACK * ordered[start]):
            ends.append(end)
            start = end
    return list(order.tensor_split(ends)) if len(order) else []
