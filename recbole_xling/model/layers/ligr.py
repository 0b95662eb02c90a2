"""The Transformer layer of LiGR (Borisyuk et al., "From Features to Transformers", 2025), which eSASRec takes."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recbole_xling.model.layers.attention import CausalAttention, Places
from recbole_xling.model.layers.cpu_kernels import Dropout


class LiGRLayer(nn.Module):
    """Attention and feed-forward with layer norms before them and learned gates on what they add.

    - ``x = x + sigmoid(W x + b) * attention(norm(x))``
    - ``x = x + sigmoid(W' x + b') * W3 (silu(W1 norm(x)) * W2 norm(x))``, the SwiGLU of Shazeer (2020), without biases

    As in eSASRec (Tikhonovich et al., RecSys 2025).
    """

    def __init__(
        self,
        hidden_size: int,
        n_heads: int,
        inner_size: int,
        hidden_dropout_prob: float,
        attn_dropout_prob: float,
        layer_norm_eps: float,
        *,
        rotary: bool = False,
    ) -> None:
        super().__init__()
        self.attention = CausalAttention(hidden_size, n_heads, attn_dropout_prob, rotary=rotary)
        self.attention_norm = nn.LayerNorm(hidden_size, eps=layer_norm_eps)
        self.attention_gate = nn.Linear(hidden_size, hidden_size)
        self.gate_and_up = nn.Linear(hidden_size, 2 * inner_size, bias=False)
        self.down = nn.Linear(inner_size, hidden_size, bias=False)
        self.feed_forward_norm = nn.LayerNorm(hidden_size, eps=layer_norm_eps)
        self.feed_forward_gate = nn.Linear(hidden_size, hidden_size)
        self.dropout = Dropout(hidden_dropout_prob)

    def forward(self, x: Tensor, keep: Places | None = None) -> Tensor:
        """Map ``(B, L, H)`` to ``(B, L, H)``, or with ``keep`` only its ``N`` positions, to ``(N, H)``."""
        attended = self.dropout(self.attention(self.attention_norm(x), keep))
        x = x if keep is None else x[keep]
        x = x + torch.sigmoid(self.attention_gate(x)) * attended
        gate, up = self.gate_and_up(self.feed_forward_norm(x)).chunk(2, dim=-1)
        fed = self.dropout(self.down(self.dropout(F.silu(gate) * up)))
        return x + torch.sigmoid(self.feed_forward_gate(x)) * fed
