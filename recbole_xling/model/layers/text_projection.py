"""Text projections: from text vectors to the space of item embeddings."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from recbole_xling.model.layers.cpu_kernels import Dropout


class LinearProjection(nn.Linear):
    """One linear layer, which can start as the projection on principal axes and learns from there."""

    def __init__(self, in_size: int, out_size: int, *, dropout: float, n_experts: int) -> None:
        super().__init__(in_size, out_size)

    def start_at(self, mean: NDArray[np.float64], axes: NDArray[np.float64]) -> None:
        """Start as the projection ``axes @ (x - mean)``; without axes, which are all zero, keep the random start."""
        if not axes.any():
            return
        with torch.no_grad():
            self.weight.copy_(torch.from_numpy(axes))
            self.bias.copy_(torch.from_numpy(-axes @ mean))


class MLPProjection(nn.Sequential):
    """Two linear layers with GELU and dropout between them."""

    def __init__(self, in_size: int, out_size: int, *, dropout: float, n_experts: int) -> None:
        hidden = max(out_size, in_size // 2)
        super().__init__(nn.Linear(in_size, hidden), nn.GELU(), Dropout(dropout), nn.Linear(hidden, out_size))


class MoEProjection(nn.Module):
    """Mixture of experts with parametric whitening, as in UniSRec (Hou et al., KDD 2022, equations 2 to 4).

    Each expert shifts and maps the vector, ``(x - b) W``; a noisy gate weighs the experts per item.
    """

    def __init__(self, in_size: int, out_size: int, *, dropout: float, n_experts: int) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.zeros(n_experts, in_size))
        self.experts = nn.Linear(in_size, n_experts * out_size, bias=False)
        self.gate = nn.Linear(in_size, n_experts, bias=False)
        self.gate_noise = nn.Linear(in_size, n_experts, bias=False)
        self.dropout = Dropout(dropout)
        self.n_experts = n_experts

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(N, in_size)`` to ``(N, out_size)``."""
        logits = self.gate(x)  # (N, E)
        if self.training:
            scale = nn.functional.softplus(self.gate_noise(x)) + 1e-2
            logits = logits + torch.randn_like(logits) * scale
        share = torch.softmax(logits, dim=-1)  # (N, E)
        mapped = self.experts(self.dropout(x)).view(len(x), self.n_experts, -1)  # (N, E, H)
        weight = self.experts.weight.view(self.n_experts, -1, x.shape[-1])  # (E, H, in)
        mapped = mapped - torch.einsum("ed,ehd->eh", self.shift, weight)
        return torch.einsum("ne,neh->nh", share, mapped)


class NoProjection(nn.Identity):
    """``pca``: nothing is trained; the vectors are projected on their principal axes beforehand.

    Items of like texts stay alike whatever the clicks say, so a cold item is near the items that are like it.
    """

    def __init__(self, in_size: int, out_size: int, *, dropout: float, n_experts: int) -> None:
        super().__init__()


TEXT_PROJECTIONS: dict[str, type[NoProjection] | type[LinearProjection] | type[MLPProjection] | type[MoEProjection]] = {
    "pca": NoProjection,
    "linear": LinearProjection,
    "mlp": MLPProjection,
    "moe": MoEProjection,
}
