"""From the hidden states of a text's tokens to one vector."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def _mean(states: Tensor, mask: Tensor) -> Tensor:
    weight = mask[..., None].to(states.dtype)  # (N, T, 1)
    return (states * weight).sum(dim=1) / weight.sum(dim=1)


def _first(states: Tensor, mask: Tensor) -> Tensor:
    return states[:, 0]


def _last(states: Tensor, mask: Tensor) -> Tensor:
    return states[torch.arange(len(states), device=states.device), mask.sum(dim=1) - 1]


# name -> (N, T, H) hidden states and (N, T) mask, 1 for tokens, padded on the right -> (N, H)
POOLING: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"cls": _first, "last": _last, "mean": _mean}
