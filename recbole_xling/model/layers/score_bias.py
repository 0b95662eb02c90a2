"""What a score adds to the match of user and item: how popular the item is, and how new."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field, field_validator
from recbole.data.interaction import Interaction
from torch import Tensor, nn

from recbole_xling.data.dataset import XLingDataset
from recbole_xling.serve.vectors import LEAST_WEIGHT
from recbole_xling.utils.chunks import score_chunks
from recbole_xling.utils.typed_config import TypedConfig

logger = logging.getLogger(__name__)

LIST_LENGTH = 10
"""Places of a list that count as shown."""

MAX_SHARE = 0.2
"""Cold items get no more of all places than this, however many they are."""


def cold_share(exposure: float, n_cold: int, n_items: int) -> float:
    """Return the share of all places that cold items are to get, from 0 to :data:`MAX_SHARE`.

    Args:
        exposure: how often such an item is shown, as a multiple of what an item is shown on average.
        n_cold: number of cold items.
        n_items: number of all items.
    """
    return min(MAX_SHARE, exposure * n_cold / max(1, n_items))


def entry_gaps(warm: Tensor, cold: Tensor) -> Tensor:
    """Return by how much cold items must be raised to take places among the first ``K``, ``(B, M)``.

    Raising all cold items of a list by ``b`` brings the ``m``-th best of them among the first ``K`` as soon as ``b``
    exceeds what it lacks to the ``(K + 1 - m)``-th best warm one. So cold items get as many places of a list as it has
    gaps smaller than ``b``.

    Args:
        warm: scores of the items trained on, ``(B, n_warm)``; minus infinity for items that are not to be shown.
        cold: scores of the others, ``(B, n_cold)``.
    """
    k = min(LIST_LENGTH, warm.shape[1])
    best_cold = cold.topk(min(k, cold.shape[1]), dim=1).values  # (B, M)
    best_warm = warm.topk(k, dim=1).values.flip(1)  # (B, K), the K-th best first
    return best_warm[:, : best_cold.shape[1]] - best_cold


def exposure_offset(gaps: Tensor, share: float) -> Tensor:
    """Return the offset of cold items with which they get a share of the places of lists, a scalar.

    Args:
        gaps: what :func:`entry_gaps` gives for some lists.
        share: from 0 to 1; cold items get less where the lists have too few of them.
    """
    finite = gaps[gaps.isfinite()]
    if not len(finite):
        return gaps.new_zeros(())
    taken = round(share * LIST_LENGTH * len(gaps))
    return finite.kthvalue(min(max(taken, 1), len(finite))).values


_STAND_INS = 50  # where no item is cold, every so many-th stands in for those that come later
_N_HISTORIES = 512  # training users whose lists tell how often cold items are shown, at most
_N_SCORES = 1 << 26  # of large catalogs fewer users' lists: finding the best of all items takes time


class ScoreBiasConfig(TypedConfig):
    """What scores have besides the match of user and item."""

    section: ClassVar[str] = "scores"

    popularity_prior: Literal[True, False, "always"] = Field(
        True, description="Where items carry text (or `always`), add the logarithm of their popularity to scores."
    )
    popularity_weight: float = Field(
        1.0, ge=0, description="How much that counts after training: with less, rare items gain and popular ones lose."
    )
    cold_exposure: float = Field(
        5, gt=0, description="How many times as often as the average item a cold item is shown."
    )
    bias_by_history: bool = Field(
        True, description="Let popularity and the place of cold items count as far as training knows a user's history."
    )

    def has_prior(self, *, by_text: bool) -> bool:
        """Tell whether popularity counts for a model that knows its items by their texts, or not."""
        return self.popularity_prior == "always" or (by_text and bool(self.popularity_prior))

    @field_validator("popularity_prior", mode="before")
    @classmethod
    def _is_no_number(cls, value: Any) -> Any:
        return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value  # 1 equals True


class ScoreBias(nn.Module):
    """A constant for each item that is added to all its scores, ``(n_items,)``.

    With ``popularity_prior`` it is the logarithm of the item's count as a share of the largest one: the softmax over
    match plus log popularity is Bayes' rule (logit adjustment, Menon et al., ICLR 2021). Training has :attr:`prior` in
    its softmax; scores have ``popularity_weight`` times that, from 1, what training users choose, to 0, as if all items
    were equally popular (the balanced error of the same paper). Cold items do not have a popularity; :meth:`calibrate`
    finds their common offset, the only number here that a checkpoint keeps. Where none is cold, some trained ones stand
    in for those that come later, known by nothing but their texts.

    Popularity is that of what training users chose. It says little to a user whose history training never met, as of
    another market with a catalog of its own; :meth:`weight` is how much it counts for him.

    Args:
        config: the settings above and ``exclude_history`` are read.
        dataset: the training split.
        by_text: whether items are known by their texts; if not, the offset is 0, and so is the prior unless
            ``popularity_prior`` is ``always``.

    Raises:
        ConfigError: a setting is out of its range.
    """

    prior: Tensor
    log_popularity: Tensor
    cold: Tensor
    stand_ins: Tensor
    known: Tensor | None
    cold_offset: Tensor

    def __init__(self, config: Any, dataset: XLingDataset, *, by_text: bool) -> None:
        super().__init__()
        settings = ScoreBiasConfig.of(config)
        counts = dataset.train_item_counts
        largest = max(1, int(counts.max()))
        untrained = largest if by_text else 1  # the offset places those that are known by their texts
        popularity = torch.from_numpy(np.log(np.where(counts > 0, counts, untrained) / largest)).float()
        prior = popularity if settings.has_prior(by_text=by_text) else torch.zeros(len(counts))
        cold = torch.from_numpy((counts == 0) & by_text)
        cold[0] = False
        self.register_buffer("log_popularity", popularity, persistent=False)
        self.register_buffer("prior", prior, persistent=False)
        self.register_buffer("cold", cold, persistent=False)
        known = torch.from_numpy(dataset.known_items)
        # in a catalog that training knows nothing of, the constants are all the same
        by_history = settings.bias_by_history and by_text and bool(known.any())
        self.register_buffer("known", known if by_history else None, persistent=False)
        self.register_buffer("cold_offset", torch.zeros(()))
        stand_ins = np.empty(0, dtype=np.int64)
        if by_text and not cold.any() and len(trained := np.flatnonzero(counts)):
            n_stand_ins = max(1, len(trained) // _STAND_INS)
            stand_ins = np.sort(np.random.default_rng(config["seed"]).choice(trained, n_stand_ins, replace=False))
        self.register_buffer("stand_ins", torch.from_numpy(stand_ins), persistent=False)
        self._settings = settings
        self.share = cold_share(settings.cold_exposure, int(cold.sum()) + len(stand_ins), len(counts) - 1)
        self._list, self._length = dataset.item_id_list_field, dataset.item_list_length_field
        self._excludes = bool(config["exclude_history"])
        n_histories = min(_N_HISTORIES, max(1, _N_SCORES // len(counts)))
        self._histories = dataset.last_histories(n_histories) if self.share else None

    def forward(self) -> Tensor:
        """Return the constants, ``(n_items,)``."""
        return self._served_prior + self.cold_offset * self.cold

    @property
    def _served_prior(self) -> Tensor:
        return self._settings.popularity_weight * self.prior

    def follow_settings(self, before: Mapping[str, Any], place: Callable[[], None]) -> None:
        """Place cold items anew if the settings above are not those of a finished training.

        Args:
            before: the settings of that; what earlier releases lack was as it is by default.
            place: calls :meth:`calibrate` with what the model gives it.
        """
        defaults = {name: field.default for name, field in ScoreBiasConfig.model_fields.items()}
        if all({**defaults, **before}[name] == value for name, value in self._settings):
            return
        if self._histories is not None and not len(self._histories) and self.cold.any() and self.prior.any():
            logger.warning(
                "items that training did not have stay where its own settings of scores have placed them: there are no "
                "histories of training here, by which they could be placed anew"
            )
        place()

    def weight(self, item_seq: Tensor, item_seq_len: Tensor) -> Tensor:
        """Return how much the constants count for users (:func:`~recbole_xling.serve.vectors.bias_weight`), ``(B, 1)``.

        Args:
            item_seq: ``(B, L)`` item ids, padded on the right.
            item_seq_len: ``(B,)`` their number.
        """
        if self.known is None:
            return torch.ones(len(item_seq), 1, device=item_seq.device)
        inside = torch.arange(item_seq.shape[1], device=item_seq.device) < item_seq_len[:, None]  # (B, L)
        share = (self.known[item_seq] & inside).sum(dim=1) / item_seq_len.clamp(min=1)
        return torch.where(item_seq_len == 0, 1.0, (2 * share).clamp(LEAST_WEIGHT, 1.0))[:, None]

    def calibrate(
        self,
        score: Callable[[Interaction], Tensor],
        as_new: Callable[[Tensor], AbstractContextManager[None]] = lambda _: nullcontext(),
    ) -> None:
        """Set the offset of cold items by what a sample of training users would be shown.

        Args:
            score: gives the scores of all items, ``(B, n_items)``, this bias included.
            as_new: lets the model score some items, ``(n,)``, as if it had not been trained on them.
        """
        if self._histories is None or not len(self._histories):  # as of a dataset that only is ranked
            return
        self.cold_offset.zero_()
        served = self._served_prior[self.stand_ins]
        is_cold = self.cold.index_fill(0, self.stand_ins, True)
        warm, cold = (~is_cold).nonzero().squeeze(1), is_cold.nonzero().squeeze(1)
        gaps = []
        with as_new(self.stand_ins):
            for part in score_chunks(len(self._histories), len(self.cold)):
                histories = self._histories[part].to(self.cold.device)
                scores = score(histories)  # (B, n_items)
                weight = self.weight(histories[self._list], histories[self._length])  # (B, 1)
                scores[:, self.stand_ins] -= weight * served
                chosen = scores.scatter(1, histories[self._list], float("-inf"))
                of_warm = (chosen if self._excludes else scores)[:, warm]
                gaps.append(entry_gaps(of_warm, chosen[:, cold]))  # nobody has chosen what is new
        self.cold_offset.copy_(exposure_offset(torch.cat(gaps), self.share))
