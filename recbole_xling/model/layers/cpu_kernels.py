"""Attention and dropout that train fast on a CPU, for our layers and for those of other libraries."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

_LEVELS = 1 << 16
_SMALLEST = torch.iinfo(torch.int64).min


def dropout(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """Zero each element with probability ``p`` and scale the rest by ``1 / (1 - p)``.

    On a CPU torch draws one random number per element, which takes longer than the layers around it. Here four
    elements share 64 random bits, sixteen each, so ``p`` is met to within 1 / 65536; it is several times as fast.
    Elsewhere this is ``torch.nn.functional.dropout``, whose arguments it has.
    """
    if not training or p <= 0.0:
        return input
    dropped, n, shape = round(p * _LEVELS), input.numel(), input.shape
    if input.device.type != "cpu" or dropped >= _LEVELS or inplace:
        return F.dropout(input, p, training, inplace)
    bits = torch.empty((n + 3) // 4, dtype=torch.int64).random_(_SMALLEST, None).view(torch.int16)[:n].view(shape)
    kept: Tensor = _Keep.apply(input, bits >= dropped - _LEVELS // 2, _LEVELS / (_LEVELS - dropped))
    return kept


class _Keep(torch.autograd.Function):
    """Multiply by a mask and a number; keep only the mask for the backward pass, a byte per element."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, keep: Tensor, scale: float) -> Tensor:
        ctx.save_for_backward(keep)
        ctx.scale = scale
        return x * keep.to(x.dtype).mul_(scale)

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor, None, None]:  # type: ignore[override]
        (keep,) = ctx.saved_tensors
        return grad_output * keep.to(grad_output.dtype).mul_(ctx.scale), None, None


class Dropout(nn.Module):
    """:func:`dropout` as a module."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        """Map any shape to the same shape."""
        return dropout(x, self.p, self.training)

    def extra_repr(self) -> str:
        """Show ``p``."""
        return f"p={self.p}"


class CpuTraining(TorchFunctionMode):
    """A context in which dropout and attention with gradients run as those of our own layers do.

    It is meant for layers whose code is not ours. Results are those of torch up to rounding and the random numbers
    drawn. On a CPU torch's fused attention has a slow backward pass in bfloat16, and with dropout it is not fused and
    draws one random number after the other. On other devices, and without gradients, nothing changes.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Sequence[type], args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        """Replace the two functions, pass on all others."""
        kwargs = kwargs or {}
        if func is F.scaled_dot_product_attention:
            return _attention(*args, **kwargs)
        if func is F.dropout:
            return dropout(*args, **kwargs)
        return func(*args, **kwargs)


def _attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    **others: Any,
) -> Tensor:
    trained = dropout_p > 0 or (torch.is_grad_enabled() and any(x.requires_grad for x in (query, key, value)))
    if query.device.type != "cpu" or not trained or is_causal or any(others.values()):
        return F.scaled_dot_product_attention(query, key, value, attn_mask, dropout_p, is_causal, scale=scale, **others)
    scores = (query * (query.shape[-1] ** -0.5 if scale is None else scale)) @ key.transpose(-1, -2)
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        scores.masked_fill_(~attn_mask, float("-inf"))
    elif attn_mask is not None:
        scores = scores + attn_mask
    return dropout(torch.softmax(scores, dim=-1).to(value.dtype), dropout_p, training=True) @ value
