"""The causal Transformer of SASRec (Kang & McAuley, ICDM 2018), as RecBole lays it out, and what can take its place."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from recbole_xling.errors import ConfigError
from recbole_xling.model.layers.attention import CausalAttention, Places, check_rotary
from recbole_xling.model.layers.cpu_kernels import Dropout
from recbole_xling.model.layers.hstu import HSTULayer, time_buckets
from recbole_xling.model.layers.ligr import LiGRLayer
from recbole_xling.utils.typed_config import TypedConfig

ACTIVATIONS = {"gelu": nn.GELU, "relu": nn.ReLU, "swish": nn.SiLU, "tanh": nn.Tanh, "sigmoid": nn.Sigmoid}


class TransformerConfig(TypedConfig):
    """How histories become user states: names and defaults of RecBole's SASRec."""

    section: ClassVar[str] = "Transformer (names and defaults of RecBole's SASRec)"

    n_layers: int = Field(2, ge=1, description="Transformer layers.")
    n_heads: int = Field(2, ge=1, description="Attention heads; must divide `hidden_size`.")
    inner_size: int = Field(256, ge=1, description="Hidden size of the feed-forward layers.")
    hidden_dropout_prob: float = Field(0.5, ge=0, le=1, description="Dropout of inputs and layer outputs.")
    attn_dropout_prob: float = Field(0.5, ge=0, le=1, description="Dropout of attention weights.")
    hidden_act: Literal["gelu", "relu", "swish", "tanh", "sigmoid"] = Field(
        "gelu", description="Activation of the feed-forward layers of `sasrec`."
    )
    layer_norm_eps: float = Field(1e-12, ge=0, description="Epsilon of the layer norms.")
    block: Literal["sasrec", "ligr", "hstu"] = Field(
        "sasrec", description="Layers: RecBole's, with gates (eSASRec), or with attention without softmax."
    )
    positions: Literal["learned", "rotary", "relative_time"] = Field(
        "learned",
        description="Positions: vectors added to the items', rotations of queries and keys, or for `hstu` such vectors "
        "and a bias by the time between interactions.",
    )


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

    def forward(self, x: Tensor, keep: Places | None = None) -> Tensor:
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
    items', ``rotary`` ones, which turn queries and keys (:func:`~recbole_xling.model.layers.attention.rotated`), or
    ``relative_time``: learned ones, and in the layers of ``hstu`` a bias by the time between interactions.

    Raises:
        ConfigError: heads have an odd size, which cannot be rotated; or layers have no bias by time.
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
        self.reads_times = positions == "relative_time"
        if self.reads_times and block != "hstu":
            raise ConfigError(f"positions=relative_time is a bias in the layers of block=hstu, not {block}")
        self.position_embedding = None if rotary else nn.Embedding(max_length, hidden_size)
        self.input_norm = nn.LayerNorm(hidden_size, eps=layer_norm_eps)
        self.dropout = Dropout(hidden_dropout_prob)
        probabilities = hidden_dropout_prob, attn_dropout_prob

        def layer() -> nn.Module:
            if block == "ligr":
                return LiGRLayer(hidden_size, n_heads, inner_size, *probabilities, layer_norm_eps, rotary=rotary)
            if block == "hstu":
                return HSTULayer(
                    *(hidden_size, n_heads, max_length, *probabilities, layer_norm_eps),
                    rotary=rotary,
                    times=self.reads_times,
                )
            return TransformerLayer(
                hidden_size, n_heads, inner_size, *probabilities, hidden_act, layer_norm_eps, rotary=rotary
            )

        self.layers = nn.ModuleList(layer() for _ in range(n_layers))
        self.output_norm = nn.LayerNorm(hidden_size, eps=layer_norm_eps) if block == "hstu" else nn.Identity()

    def forward(self, items: Tensor, keep: Places | None = None, elapsed: Tensor | None = None) -> Tensor:
        """Map item vectors to the user states at the positions wanted.

        Args:
            items: ``(B, L, H)``, oldest first and padded on the right.
            keep: the ``N`` positions wanted; the last layer computes only these.
            elapsed: milliseconds since the first item, ``(B, L)``, for ``relative_time``.

        Returns:
            ``(N, H)``, in the order of the rows and their positions; without ``keep`` all of them, ``(B, L, H)``.

        Raises:
            ConfigError: ``relative_time`` is not told the times.
        """
        times = {}
        if self.reads_times:
            if elapsed is None:
                raise ConfigError(
                    "positions=relative_time reads when the items of a history were chosen, and here nobody tells: "
                    "train with positions=learned for exported folders and histories that are lists of items"
                )
            times["bucket"] = time_buckets(elapsed)
        if self.position_embedding is not None:
            items = items + self.position_embedding.weight[: items.shape[1]]  # (L, H)
        x = self.dropout(self.input_norm(items))
        for layer in self.layers[:-1]:
            x = layer(x, **times)
        out: Tensor = self.output_norm(self.layers[-1](x, keep, **times))
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


def last_positions(length: Tensor) -> Places:
    """Return the place of each sequence's last position, from lengths ``(B,)`` of at least 1."""
    return torch.arange(len(length), device=length.device), length - 1
