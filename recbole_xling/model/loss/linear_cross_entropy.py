"""Cross entropy of a linear layer that never computes all logits at once."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

_CHUNK_ELEMENTS = {"cpu": 1 << 19}  # logits computed at a time: 2 MiB in float32, about a core's cache
_CHUNK_ELEMENTS_ELSEWHERE = 1 << 26  # 256 MiB, and as much again for what is made of them
_LEAST_ROWS = 128  # fewer would read the table of a large catalog too often


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor,
        target: Tensor,
        position_weight: Tensor,
        dtype: torch.dtype,
    ) -> Tensor:
        elements = _CHUNK_ELEMENTS.get(hidden.device.type, _CHUNK_ELEMENTS_ELSEWHERE)
        rows = max(_LEAST_ROWS, elements // max(1, weight.shape[0]))
        table = weight.to(dtype)
        grad_hidden = torch.empty_like(hidden)
        grad_weight = torch.zeros_like(weight)
        buffer = hidden.new_empty(min(rows, hidden.shape[0]), weight.shape[0])
        loss = hidden.new_zeros(())
        # float16 ends at 6e-8, and most gradients are smaller than that: a probability times a share of the batch
        scale = position_weight.abs().amax().clamp_min(1e-30) if dtype == torch.float16 else None
        for begin in range(0, hidden.shape[0], rows):
            part = slice(begin, begin + rows)
            states = hidden[part].to(dtype)
            share = position_weight[part, None]  # (C, 1)
            logits = buffer[: len(states)]  # (C, V)
            torch.add(states @ table.T, bias, out=logits)
            picked = logits.gather(1, target[part, None])  # (C, 1)
            top = logits.amax(dim=1, keepdim=True)
            total = logits.sub_(top).exp_().sum(dim=1, keepdim=True)
            loss += ((total.log() + top - picked) * share).sum()
            gradient = logits.mul_(share / total)  # of the loss with respect to the logits, once the
            gradient.scatter_add_(1, target[part, None], -share)  # target's own share is taken off
            gradient = (gradient if scale is None else gradient.div_(scale)).to(dtype)
            grad_hidden[part] = gradient @ table
            grad_weight.addmm_(gradient.T, states) if dtype == buffer.dtype else grad_weight.add_(gradient.T @ states)
        if scale is not None:
            grad_hidden *= scale
            grad_weight *= scale
        ctx.save_for_backward(grad_hidden, grad_weight)
        return loss

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor, Tensor, None, None, None, None]:  # type: ignore[override]
        grad_hidden, grad_weight = ctx.saved_tensors
        return grad_hidden * grad_output, grad_weight * grad_output, None, None, None, None


def linear_cross_entropy(
    hidden: Tensor, weight: Tensor, target: Tensor, position_weight: Tensor, *, bias: Tensor | None = None
) -> Tensor:
    """Return ``sum(position_weight * cross_entropy(hidden @ weight.T + bias, target))``, differentiable once.

    The gradient is computed along with the loss, some rows at a time, so that neither the ``(N, V)`` logits nor their
    gradient exist as a whole. The idea is that of the fused linear cross entropy of Liger Kernel (Hsu et al. 2024,
    arXiv:2410.10989) and Cut Cross-Entropy (Wijmans et al. 2024, arXiv:2411.09009). Under autocast the products are
    computed in its type; the softmax and all sums stay in float32.

    Args:
        hidden: ``(N, H)`` user states.
        weight: ``(V, H)`` output vectors.
        target: ``(N,)`` index of the right row of ``weight``.
        position_weight: ``(N,)``; ``1 / N`` everywhere gives the mean.
        bias: ``(V,)`` constant added to every position's logits, not trained; None for none.
    """
    kind = hidden.device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else torch.float32
    with torch.autocast(device_type=kind, enabled=False):
        bias = hidden.new_zeros(()) if bias is None else bias
        loss: Tensor = _LinearCrossEntropy.apply(
            hidden.float(), weight.float(), bias.float(), target, position_weight.float(), dtype
        )
    return loss
