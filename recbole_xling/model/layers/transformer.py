"""The causal Transformer of SASRec (Kang & McAuley, ICDM 2018), as RecBole lays it out, and what can take its place."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from recbole_xling.model.layers.attention import CausalAttention, check_rotary
from recbole_xling.model.layers.cpu_kernels import Dropout
from recbole_xling.model.layers.hstu import HSTULayer
from recbole_xling.model.layers.ligr import LiGRLayer

ACTIVATIONS = {"gelu": nn.GELU, "relu": nn.ReLU, "swish": nn.SiLU, "tanh": nn.Tanh, "sigmoid": nn.Sigmoid}


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
        *,
        rotary: bool = False,
    ) -> None:
        super().__init__()
        self.attention = CausalAttention(hidden_size, n_heads, attn_dropout_prob, rotary=rotary)
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
    """Positions, dropout and layers over a sequence of item vectors.

    Its arguments have the names and the meaning of RecBole's SASRec; with the same weights the output is the same.
    Others are ``block``, which is ``sasrec``, ``ligr`` (:class:`LiGRLayer`) or ``hstu`` (:class:`HSTULayer`, with a
    layer norm after the last one, as in RecTools), and ``positions``: ``learned`` vectors that are added to the
    items', or ``rotary`` ones, which turn queries and keys (:func:`~recbole_xling.model.layers.attention.rotated`).

    Raises:
        ConfigError: heads have an odd size, which cannot be rotated.
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
        block: str = "sasrec",
        positions: str = "learned",
    ) -> None:
        super().__init__()
        rotary = positions == "rotary"
        if rotary:
            check_rotary(hidden_size, n_heads)
        self.position_embedding = None if rotary else nn.Embedding(max_length, hidden_size)
        self.input_norm = nn.LayerNorm(hidden_size, eps=layer_norm_eps)
        self.dropout = Dropout(hidden_dropout_prob)
        probabilities = hidden_dropout_prob, attn_dropout_prob

        def layer() -> nn.Module:
            if block == "ligr":
                return LiGRLayer(hidden_size, n_heads, inner_size, *probabilities, layer_norm_eps, rotary=rotary)
            if block == "hstu":
                return HSTULayer(hidden_size, n_heads, max_length, *probabilities, layer_norm_eps, rotary=rotary)
            return TransformerLayer(
                hidden_size, n_heads, inner_size, *probabilities, hidden_act, layer_norm_eps, rotary=rotary
            )

        self.layers = nn.ModuleList(layer() for _ in range(n_layers))
        self.output_norm = nn.LayerNorm(hidden_size, eps=layer_norm_eps) if block == "hstu" else nn.Identity()

    def forward(self, items: Tensor, keep: Tensor | None = None) -> Tensor:
        """Map item vectors to the user states at the positions wanted.

        Args:
            items: ``(B, L, H)``, oldest first and padded on the right.
            keep: ``(B, L)`` mask of the ``N`` positions wanted; the last layer computes only these.

        Returns:
            ``(N, H)``, in the order of the rows and their positions; without ``keep`` all of them, ``(B, L, H)``.
        """
        if self.position_embedding is not None:
            items = items + self.position_embedding.weight[: items.shape[1]]  # (L, H)
        x = self.dropout(self.input_norm(items))
        for layer in self.layers[:-1]:
            x = layer(x)
        out: Tensor = self.output_norm(self.layers[-1](x, keep))
        return out

    def attention(self, items: Tensor) -> Tensor | None:
        """Return how much each position attends to each other one, the mean of heads and layers, ``(B, L, L)``.

        None for layers whose attention is no distribution (``hstu``). Arguments as above.
        """
        found: list[Tensor] = []
        modules = [layer.attention for layer in self.layers if isinstance(layer, TransformerLayer | LiGRLayer)]
        hooks = [
            module.register_forward_pre_hook(lambda module, given: found.append(module.weights(given[0]).mean(dim=1)))
            for module in modules
        ]
        try:
            self(items)
        finally:
            for hook in hooks:
                hook.remove()
        return torch.stack(found).mean(dim=0) if found else None


def last_positions(length: Tensor, width: int) -> Tensor:
    """Return the mask ``(B, width)`` of each sequence's last position, from lengths ``(B,)`` of at least 1."""
    return torch.arange(width, device=length.device) == length[:, None] - 1
