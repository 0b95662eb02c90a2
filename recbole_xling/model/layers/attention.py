"""Causal attention, and the rotation of its queries and keys by their positions."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recbole_xling.errors import ConfigError
from recbole_xling.model.layers.cpu_kernels import dropout

Places = Tensor | tuple[Tensor, ...]
"""Positions of sequences: a mask, ``(B, L)``, or the rows and columns of ``N`` of them, ``(N,)`` each."""

_BASE = 10_000.0  # of the wave lengths, as in the paper


def check_rotary(hidden_size: int, n_heads: int) -> None:
    """Refuse heads whose vectors cannot be rotated in pairs of dimensions."""
    if hidden_size // n_heads % 2:
        raise ConfigError(
            f"positions=rotary turns pairs of dimensions, but a head has {hidden_size // n_heads}: make "
            f"hidden_size / n_heads ({hidden_size} / {n_heads}) even"
        )


def rotated(x: Tensor) -> Tensor:
    """Turn vectors ``(..., L, D)`` by their positions, so that inner products depend on distances alone.

    Rotary positions (Su et al., "RoFormer", Neurocomputing 2024): dimensions ``i`` and ``i + D / 2`` are turned by the
    position times ``10000^(-2 i / D)``.
    """
    length, half = x.shape[-2], x.shape[-1] // 2
    speed = _BASE ** (-torch.arange(half, device=x.device) / half)  # (D / 2,)
    angle = torch.arange(length, device=x.device)[:, None] * speed  # (L, D / 2)
    cosine, sine = angle.cos().to(x.dtype), angle.sin().to(x.dtype)
    first, second = x.chunk(2, dim=-1)
    return torch.cat([first * cosine - second * sine, second * cosine + first * sine], dim=-1)


class CausalAttention(nn.Module):
    """Multi-head attention in which a position sees itself and what came before it."""

    def __init__(self, hidden_size: int, n_heads: int, attn_dropout_prob: float, *, rotary: bool = False) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.attn_dropout_prob = attn_dropout_prob
        self.rotary = rotary
        self.query_key_value = nn.Linear(hidden_size, 3 * hidden_size)
        self.dense = nn.Linear(hidden_size, hidden_size)

    def forward(self, x: Tensor, keep: Places | None = None) -> Tensor:
        """Map ``(B, L, H)`` to ``(B, L, H)``; padding on the right needs no mask, because no item looks ahead to it.

        With ``keep`` only its ``N`` positions are mapped, to ``(N, H)``.
        """
        batch, length, hidden = x.shape
        query, key, value = self._query_key_value(x)
        p = self.attn_dropout_prob if self.training else 0.0
        if p > 0.0 and x.device.type == "cpu":  # torch has no fused kernel for attention with dropout on a CPU
            mixed = dropout(_weights(query, key), p) @ value
        else:
            mixed = F.scaled_dot_product_attention(query, key, value, dropout_p=p, is_causal=True)
        mixed = mixed.transpose(1, 2).reshape(batch, length, hidden)  # (B, L, H)
        out: Tensor = self.dense(mixed if keep is None else mixed[keep])
        return out

    def weights(self, x: Tensor) -> Tensor:
        """Return how much each position attends to each other one, ``(B, heads, L, L)``; rows sum to 1."""
        query, key, _ = self._query_key_value(x)
        return _weights(query, key)

    def _query_key_value(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return each for all heads, ``(B, heads, L, H / heads)``."""
        batch, length, hidden = x.shape
        packed = self.query_key_value(x).view(batch, length, 3, self.n_heads, hidden // self.n_heads)
        query, key, value = packed.permute(2, 0, 3, 1, 4)
        return (rotated(query), rotated(key), value) if self.rotary else (query, key, value)


def _weights(query: Tensor, key: Tensor) -> Tensor:
    length = query.shape[-2]
    ahead = torch.full((length, length), float("-inf"), dtype=query.dtype, device=query.device).triu(1)  # (L, L)
    return torch.softmax(query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5 + ahead, dim=-1)
