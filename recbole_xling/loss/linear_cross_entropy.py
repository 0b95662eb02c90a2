"""Cross entropy of a linear layer without ever holding all logits."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

_CHUNK_ELEMENTS = 1 << 19  # logits held at a time: 2 MiB in float32, about a core's cache


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, target: Tensor, position_weight: Tensor) -> Tensor:
        rows = max(1, _CHUNK_ELEMENTS // max(1, weight.shape[0]))
        grad_hidden = torch.empty_like(hidden)
        grad_weight = torch.zeros_like(weight)
        loss = hidden.new_zeros(())
        for begin in range(0, hidden.shape[0], rows):
            part = slice(begin, begin + rows)
            share = position_weight[part, None]  # (C, 1)
            logits = hidden[part] @ weight.T  # (C, V)
            picked = logits.gather(1, target[part, None])  # (C, 1)
            top = logits.amax(dim=1, keepdim=True)
            total = logits.sub_(top).exp_().sum(dim=1, keepdim=True)
            loss += ((total.log() + top - picked) * share).sum()
            probability = logits.mul_(share / total)  # gradient of the loss with respect to the logits, once the
            probability.scatter_add_(1, target[part, None], -share)  # target's own share is taken off
            torch.mm(probability, weight, out=grad_hidden[part])
            grad_weight.addmm_(probability.T, hidden[part])
        ctx.save_for_backward(grad_hidden, grad_weight)
        return loss

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor, Tensor, None, None]:  # type: ignore[override]
        grad_hidden, grad_weight = ctx.saved_tensors
        return grad_hidden * grad_output, grad_weight * grad_output, None, None


def linear_cross_entropy(hidden: Tensor, weight: Tensor, target: Tensor, position_weight: Tensor) -> Tensor:
    """Return ``sum(position_weight * cross_entropy(hidden @ weight.T, target))``, differentiable once.

    The gradient is formed beside the loss, some rows at a time, so that neither the ``(N, V)`` logits nor their
    gradient exist as a whole. The idea is that of the fused linear cross entropy of Liger Kernel (Hsu et al. 2024,
    arXiv:2410.10989) and Cut Cross-Entropy (Wijmans et al. 2024, arXiv:2411.09009).

    Args:
        hidden: ``(N, H)`` in float32, or under autocast any float type.
        weight: ``(V, H)`` output vectors.
        target: ``(N,)`` index of the right row of ``weight``.
        position_weight: ``(N,)``; ``1 / N`` everywhere gives the mean.
    """
    hidden, weight = hidden.float(), weight.float()
    loss: Tensor = _LinearCrossEntropy.apply(hidden, weight, target, position_weight.float())
    return loss
