"""The causal Transformer of SASRec (Kang & McAuley, ICDM 2018), as RecBole lays it out."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recbole_xling.model.layers.cpu_kernels import Dropout, dropout

ACTIVATIONS = {"gelu": nn.GELU, "relu": nn.ReLU, "swish": nn.SiLU, "tanh": nn.Tanh, "sigmoid": nn.Sigmoid}


class CausalAttention(nn.Module):
    """Multi-head attention in which a position sees itself and what came before it."""

    def __init__(self, hidden_size: int, n_heads: int, attn_dropout_prob: float) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.attn_dropout_prob = attn_dropout_prob
        self.query_key_value = nn.Linear(hidden_size, 3 * hidden_size)
        self.dense = nn.Linear(hidden_size, hidden_size)

    def forward(self, x: Tensor, keep: Tensor | None = None) -> Tensor:
        """Map ``(B, L, H)`` to ``(B, L, H)``; padding on the right needs no mask, because no item looks ahead to it.

        With ``keep``, a mask ``(B, L)``, only the ``N`` positions where it is True are mapped, to ``(N, H)``.
        """
        batch, length, hidden = x.shape
        packed = self.query_key_value(x).view(batch, length, 3, self.n_heads, hidden // self.n_heads)
        query, key, value = packed.permute(2, 0, 3, 1, 4)  # each (B, heads, L, H / heads)
        p = self.attn_dropout_prob if self.training else 0.0
        if p > 0.0 and x.device.type == "cpu":  # torch has no fused kernel for attention with dropout on a CPU
            ahead = torch.full((length, length), float("-inf"), dtype=query.dtype).triu(1)  # (L, L)
            weights = torch.softmax(query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5 + ahead, dim=-1)
            mixed = dropout(weights, p) @ value
        else:
            mixed = F.scaled_dot_product_attention(query, key, value, dropout_p=p, is_causal=True)
        mixed = mixed.transpose(1, 2).reshape(batch, length, hidden)  # (B, L, H)
        out: Tensor = self.dense(mixed if keep is None else mixed[keep])
        return out


class TransformerLayer(nn.Module):
    """Attention and feed-forward, each with residual connection and layer norm after it."""

    def __init__(
        self,
        hidden_size: int,
        n_heads: int,
        inner_size: int,
        hidden_dropout_prob: float,
        attn_dropout_prob: float,
        hidden_act: str,
        layer_norm_eps: float,
    ) -> None:
        super().__init__()
        self.attention = CausalAttention(hidden_size, n_heads, attn_dropout_prob)
        self.attention_norm = nn.LayerNorm(hidden_size, eps=layer_norm_eps)
        self.feed_forward = nn.Sequential(
            nn.Linear(hidden_size, inner_size), ACTIVATIONS[hidden_act](), nn.Linear(inner_size, hidden_size)
        )
        self.feed_forward_norm = nn.LayerNorm(hidden_size, eps=layer_norm_eps)
        self.dropout = Dropout(hidden_dropout_prob)

    def forward(self, x: Tensor, keep: Tensor | None = None) -> Tensor:
        """Map ``(B, L, H)`` to ``(B, L, H)``, or with ``keep`` only its ``N`` positions, to ``(N, H)``."""
        attended = self.dropout(self.attention(x, keep))
        x = self.attention_norm((x if keep is None else x[keep]) + attended)
        out: Tensor = self.feed_forward_norm(x + self.dropout(self.feed_forward(x)))
        return out


class SequenceEncoder(nn.Module):
    """Positions, dropout and Transformer layers over a sequence of item vectors.

    Its arguments have the names and the meaning of RecBole's SASRec; with the same weights the output is the same.
    """

    def __init__(
        self,
        *,
        max_length: int,
        hidden_size: int,
        n_layers: int,
        n_heads: int,
        inner_size: int,
        hidden_dropout_prob: float,
        attn_dropout_prob: float,
        hidden_act: str,
        layer_norm_eps: float,
    ) -> None:
        super().__init__()
        self.position_embedding = nn.Embedding(max_length, hidden_size)
        self.input_norm = nn.LayerNorm(hidden_size, eps=layer_norm_eps)
        self.dropout = Dropout(hidden_dropout_prob)
        self.layers = nn.ModuleList(
            TransformerLayer(
                hidden_size, n_heads, inner_size, hidden_dropout_prob, attn_dropout_prob, hidden_act, layer_norm_eps
            )
            for _ in range(n_layers)
        )

    def forward(self, items: Tensor, keep: Tensor) -> Tensor:
        """Map item vectors to the user states at the positions wanted.

        Args:
            items: ``(B, L, H)``, oldest first and padded on the right.
            keep: ``(B, L)`` mask of the ``N`` positions wanted; the last layer computes only these.

        Returns:
            ``(N, H)``, in the order of the rows and their positions.
        """
        positions = self.position_embedding.weight[: items.shape[1]]  # (L, H)
        x = self.dropout(self.input_norm(items + positions))
        for layer in self.layers[:-1]:
            x = layer(x)
        out: Tensor = self.layers[-1](x, keep)
        return out


def last_positions(length: Tensor, width: int) -> Tensor:
    """Return the mask ``(B, width)`` of each sequence's last position, from lengths ``(B,)`` of at least 1."""
    return torch.arange(width, device=length.device) == length[:, None] - 1
