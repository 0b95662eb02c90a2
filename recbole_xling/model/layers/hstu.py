"""The layer of HSTU: attention without softmax (Zhai et al., "Actions Speak Louder than Words", ICML 2024)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recbole_xling.model.layers.attention import Places, rotated
from recbole_xling.model.layers.cpu_kernels import Dropout

_BUCKETS = 128
_WIDTH = 0.301  # of a bucket, in natural logarithms of seconds, as in the paper's code: a third more time each


def time_buckets(elapsed: Tensor) -> Tensor:
    """Return the bucket of the time between each two positions, ``(B, L, L)``, from milliseconds of all, ``(B, L)``.

    Buckets are even in the logarithm; the first one ends at 1.35 seconds, and 128 reach beyond all times.
    """
    apart = (elapsed[:, :, None] - elapsed[:, None]).abs() / 1000  # seconds
    bucket: Tensor = (apart.clamp_min(1).log() / _WIDTH).long()
    return bucket.clamp_max(_BUCKETS - 1)


class HSTULayer(nn.Module):
    """Pointwise aggregated attention: how strongly a history asks for something is not normalized away.

    - ``U, V, Q, K = silu(W norm(x) + b)``
    - ``A = silu(Q K^T + p) / n``, 0 for later positions, where ``p`` is a learned number of each distance and ``n`` the
      longest history
    - ``x = x + W' (norm(A V) * U) + b'``

    With ``times``, ``p`` has a second term, a learned number of the time between the interactions
    (:func:`time_buckets`). The paper's code takes the time of the next interaction as that of the query; here that
    of the last one counts, as nobody knows when the next one will be.
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
        times: bool = False,
    ) -> None:
        super().__init__()
        self.n_heads, self.max_length, self.rotary = n_heads, max_length, rotary
        self.input_norm = nn.LayerNorm(hidden_size, eps=layer_norm_eps)
        self.gate_value_query_key = nn.Linear(hidden_size, 4 * hidden_size)
        self.distance = nn.Parameter(torch.zeros(max_length))
        self.time_bias = nn.Parameter(torch.zeros(_BUCKETS)) if times else None
        self.mixed_norm = nn.LayerNorm(hidden_size, eps=layer_norm_eps)
        self.dense = nn.Linear(hidden_size, hidden_size)
        self.attention_dropout, self.dropout = Dropout(attn_dropout_prob), Dropout(hidden_dropout_prob)

    def forward(self, x: Tensor, keep: Places | None = None, bucket: Tensor | None = None) -> Tensor:
        """Map ``(B, L, H)`` to ``(B, L, H)``, or with ``keep`` only its ``N`` positions, to ``(N, H)``.

        Args:
            x: the states.
            keep: the positions wanted.
            bucket: of the time between each two positions, ``(B, L, L)``, where the layer has biases of time.
        """
        batch, length, hidden = x.shape
        gate, *packed = F.silu(self.gate_value_query_key(self.input_norm(x))).chunk(4, dim=-1)
        heads = (part.view(batch, length, self.n_heads, -1).transpose(1, 2) for part in packed)
        value, query, key = heads  # each (B, heads, L, H / heads)
        if self.rotary:
            query, key = rotated(query), rotated(key)
        position = torch.arange(length, device=x.device)
        ago = position[:, None] - position  # (L, L)
        bias = self.distance[ago.clamp_min(0)]  # (L, L)
        if self.time_bias is not None and bucket is not None:
            bias = bias + self.time_bias[bucket][:, None]  # (B, 1, L, L)
        weights = F.silu(query @ key.transpose(-1, -2) + bias) / self.max_length
        mixed = self.attention_dropout(weights * (ago >= 0)) @ value  # (B, heads, L, H / heads)
        mixed = mixed.transpose(1, 2).reshape(batch, length, hidden)  # (B, L, H)
        if keep is not None:
            x, gate, mixed = x[keep], gate[keep], mixed[keep]
        out: Tensor = x + self.dense(self.dropout(self.mixed_norm(mixed) * gate))
        return out
