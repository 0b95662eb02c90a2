"""The layer of HSTU: attention without softmax (Zhai et al., "Actions Speak Louder than Words", ICML 2024)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recbole_xling.model.layers.attention import rotated
from recbole_xling.model.layers.cpu_kernels import Dropout


class HSTULayer(nn.Module):
    """Pointwise aggregated attention: how strongly a history asks for something is not normalized away.

    - ``U, V, Q, K = silu(W norm(x) + b)``
    - ``A = silu(Q K^T + p) / n``, 0 for later positions, where ``p`` is a learned number of each distance and ``n`` the
      longest history
    - ``x = x + W' (norm(A V) * U) + b'``

    The paper's bias by the time between interactions is left out: batches do not carry times.
    """

    def __init__(
        self,
        hidden_size: int,
        n_heads: int,
        max_length: int,
        hidden_dropout_prob: float,
        attn_dropout_prob: float,
        layer_norm_eps: float,
        *,
        rotary: bool = False,
    ) -> None:
        super().__init__()
        self.n_heads, self.max_length, self.rotary = n_heads, max_length, rotary
        self.input_norm = nn.LayerNorm(hidden_size, eps=layer_norm_eps)
        self.gate_value_query_key = nn.Linear(hidden_size, 4 * hidden_size)
        self.distance = nn.Parameter(torch.zeros(max_length))
        self.mixed_norm = nn.LayerNorm(hidden_size, eps=layer_norm_eps)
        self.dense = nn.Linear(hidden_size, hidden_size)
        self.attention_dropout, self.dropout = Dropout(attn_dropout_prob), Dropout(hidden_dropout_prob)

    def forward(self, x: Tensor, keep: Tensor | None = None) -> Tensor:
        """Map ``(B, L, H)`` to ``(B, L, H)``, or with ``keep`` only its ``N`` positions, to ``(N, H)``."""
        batch, length, hidden = x.shape
        gate, *packed = F.silu(self.gate_value_query_key(self.input_norm(x))).chunk(4, dim=-1)
        heads = (part.view(batch, length, self.n_heads, -1).transpose(1, 2) for part in packed)
        value, query, key = heads  # each (B, heads, L, H / heads)
        if self.rotary:
            query, key = rotated(query), rotated(key)
        position = torch.arange(length, device=x.device)
        ago = position[:, None] - position  # (L, L)
        weights = F.silu(query @ key.transpose(-1, -2) + self.distance[ago.clamp_min(0)]) / self.max_length
        mixed = self.attention_dropout(weights * (ago >= 0)) @ value  # (B, heads, L, H / heads)
        mixed = mixed.transpose(1, 2).reshape(batch, length, hidden)  # (B, L, H)
        if keep is not None:
            x, gate, mixed = x[keep], gate[keep], mixed[keep]
        out: Tensor = x + self.dense(self.dropout(self.mixed_norm(mixed) * gate))
        return out
