"""Softmax over what is in the batch, from users to items and from items to users."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from recbole_xling.errors import ConfigError
from recbole_xling.utils.precision import exact_matches
from recbole_xling.utils.typed_config import TypedConfig


class InBatchSoftmaxConfig(TypedConfig):
    """What the softmax over a batch asks besides the right item."""

    section: ClassVar[str] = "contrast"

    hardness: float = Field(
        0.0, ge=0, description="How much more a negative counts the nearer it is: added to its logit, times its cosine."
    )
    matryoshka_sizes: list[int] | None = Field(
        None,
        description="Train vectors whose first so many dimensions are good vectors themselves.",
        examples=[[64, 128]],
    )
    score_size: int | None = Field(
        None, description="Score by the first so many dimensions, one of `matryoshka_sizes`; by all if not set."
    )

    def check_sizes(self, size: int) -> None:
        """Check the sizes against that of the vectors.

        Raises:
            ConfigError: a size is not below it, or scores ask for one that is not trained.
        """
        sizes = self.matryoshka_sizes or []
        if any(isinstance(part, bool) or not 0 < part < size for part in sizes):
            raise ConfigError(f"matryoshka_sizes must be between 1 and {size - 1}, below the size of vectors: {sizes}")
        if self.score_size is not None and self.score_size not in sizes:
            raise ConfigError(f"score_size {self.score_size} is not among matryoshka_sizes {sizes}: train it as well")


@dataclass(frozen=True)
class InBatch:
    """A batch of positions (a user at a point of his history, and what he chose next) and the items in it.

    Attributes:
        states: ``(N, D)`` users.
        items: ``(U, D)`` vectors of the candidates, each once.
        target: ``(N,)`` row of the item that was chosen.
        weight: ``(N,)`` of the positions in the loss.
        accidental_hit_mask: ``(N, U)`` candidates that are not negatives of a position although they were not chosen
            there: those of the user's own history. A position's own target may be among them; it counts all the same.
        logit_adjustment: ``(U,)`` constants added to the logits of the candidates, such as ``-log q`` for items that
            come into a batch at a rate ``q`` (Yi et al., "Sampling-Bias-Corrected Neural Modeling for Large Corpus
            Item Recommendations", RecSys 2019).
        is_user: ``(N,)`` whether the position tells users apart; others (users without a history) are left out of
            the softmax over users.
    """

    states: Tensor
    items: Tensor
    target: Tensor
    weight: Tensor
    accidental_hit_mask: Tensor
    logit_adjustment: Tensor
    is_user: Tensor


def harder(cosine: Tensor, scale: Tensor, own: Tensor, hardness: float) -> Tensor:
    """Return logits whose negatives are raised by ``hardness`` times their cosine, without a gradient, ``(N, U)``.

    So near negatives have a larger share of the softmax, and of its gradient (Lan et al., "LLaVE: Large Language and
    Vision Embedding Models with Hardness-Weighted Contrastive Learning", 2025).

    Args:
        cosine: ``(N, U)``.
        scale: the inverse temperature.
        own: ``(N,)`` the column that is no negative.
        hardness: 0 for plain logits.
    """
    logits = (cosine * scale).float()
    return logits if not hardness else logits + hardness * cosine.detach().scatter(1, own[:, None], 0.0).float()


def prefixes(*vectors: Tensor, sizes: Sequence[int]) -> Iterator[tuple[Tensor, ...]]:
    """Yield the vectors as they are, then the first dimensions of them, of unit length, for each of the sizes.

    A loss over all of these trains vectors that can be cut (Kusupati et al., "Matryoshka Representation Learning",
    NeurIPS 2022).
    """
    yield vectors
    for size in sizes:
        yield tuple(F.normalize(part[:, :size], dim=-1) for part in vectors)


def in_batch_softmax(batch: InBatch, scale: Tensor, hardness: float = 0.0, sizes: Sequence[int] = ()) -> Tensor:
    """Return the mean of both directions of the weighted softmax loss, a scalar.

    From users to items, a position's target competes with all candidates that are not accidental hits. From items to
    users, it competes with all positions of the batch that have another target and whose users do not know this one.

    Args:
        batch: positions and candidates.
        scale: the inverse temperature.
        hardness: of :func:`harder`.
        sizes: of :func:`prefixes`, over which the loss is a mean.
    """
    parts = prefixes(batch.states, batch.items, sizes=sizes)
    losses = [_both_ways(replace(batch, states=states, items=items), scale, hardness) for states, items in parts]
    return torch.stack(losses).mean()


def _both_ways(batch: InBatch, scale: Tensor, hardness: float) -> Tensor:
    hit = batch.accidental_hit_mask.scatter(1, batch.target[:, None], False)  # (N, U)
    constant = batch.logit_adjustment.expand(hit.shape).masked_fill(hit, float("-inf"))  # (N, U)
    logits = harder(exact_matches(batch.states, batch.items), scale, batch.target, hardness) + constant  # (N, U)
    to_items = F.cross_entropy(logits, batch.target, reduction="none")  # (N,)

    users = batch.is_user.nonzero().squeeze(1)  # (M,)
    target = batch.target[users]  # (M,)
    cosine = exact_matches(batch.items[target], batch.states[users])  # (M, M): of item j with user k
    hit = batch.accidental_hit_mask[users][:, target].T | (target[:, None] == target)  # (M, M)
    hit.fill_diagonal_(False)
    own = torch.arange(len(target), device=target.device)
    logits = harder(cosine, scale, own, hardness)
    to_users = F.cross_entropy(logits.masked_fill(hit, float("-inf")), own, reduction="none")  # (M,)

    both = (to_items * batch.weight).sum() + (to_users * batch.weight[users]).sum()
    return both / 2
