"""Hard negatives: items that the model in training would show a user, and that he did not choose."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
import torch
from pydantic import Field
from recbole.data.interaction import Interaction
from torch import Tensor, nn

from recbole_xling.data.dataset import XLingDataset
from recbole_xling.model.sampling.met_items import MetItems
from recbole_xling.utils.chunks import score_chunks
from recbole_xling.utils.typed_config import TypedConfig

DEPTH = 100
"""The first places of a user's list, from which negatives are drawn: the very first are often right."""

_ROUNDING = 1  # tells these random numbers from others of the seed and epoch


class HardNegativesConfig(TypedConfig):
    """How negatives are drawn from users' lists."""

    section: ClassVar[str] = "hard negatives"

    hard_negatives: int = Field(0, ge=0, description="Negatives per user from the head of his list; 0 for none.")
    hard_negative_epochs: int = Field(1, ge=1, description="Epochs after which they are resampled.")
    hard_negative_cross_language: float = Field(
        0.5, ge=0, le=1, description="Share of them in other languages than the user's newest item."
    )
    hard_negative_margin: float | None = Field(
        None,
        gt=0,
        description="Leave out items that match a user more than this share as well as his newest item does, such as "
        "0.95: many of them are right. Off if not set.",
    )


class HardNegatives(nn.Module):
    """Some negatives for each training user, drawn from the head of his list.

    Drawing from many places instead of taking the first ones keeps false negatives rare (as ANCE does: Xiong et al.,
    ICLR 2021, which also resamples them while training goes on). With ``hard_negative_margin`` what matches about as
    well as what was chosen is none (positive-aware mining, "TopK-PercPos", of NV-Retriever: Moreira et al. 2024).

    Args:
        config: ``hard_negatives``, ``hard_negative_epochs``, ``hard_negative_cross_language`` and ``seed`` are read.
        dataset: the training split.
        item_language: ``(n_views, n_items)`` language numbers.
        view_of_user: ``(n_users,)``.
        met: the items that users meet in training.

    Attributes:
        items: ``(n_users, hard_negatives)`` item ids, 0 before the first drawing and where items are too few.

    Raises:
        ConfigError: a setting is out of its range.
    """

    items: Tensor

    def __init__(
        self, config: Any, dataset: XLingDataset, item_language: Tensor, view_of_user: Tensor, met: MetItems
    ) -> None:
        super().__init__()
        settings = HardNegativesConfig.of(config)
        self.per_user, self.every = settings.hard_negatives, settings.hard_negative_epochs
        self.margin = settings.hard_negative_margin
        self.cross_language = settings.hard_negative_cross_language
        self._seed: int = config["seed"]
        self._users, self._list, self._length = (
            dataset.uid_field,
            dataset.item_id_list_field,
            dataset.item_list_length_field,
        )
        self._histories = dataset.last_histories(dataset.user_num)
        self._met = met
        self._untrained = torch.from_numpy(dataset.train_item_counts == 0)  # (n_items,), the padding item included
        self._language, self._view_of_user = item_language, view_of_user
        self.register_buffer("items", torch.zeros(dataset.user_num, self.per_user, dtype=torch.int32), persistent=False)

    def due(self, epoch: int) -> bool:
        """Whether to resample the negatives after ``epoch``."""
        return (epoch + 1) % self.every == 0

    def draw(self, match: Callable[[Interaction], Tensor], epoch: int) -> None:
        """Resample the negatives of all users.

        ``cross_language`` is the share of negatives in other languages than the user's newest item. Where it is no
        whole number of a user's negatives, it is rounded up for some users and down for others, drawn anew each time,
        so that it holds on average. Where one kind is short, the other one fills up.

        Args:
            match: gives how well each item matches the users, ``(B, n_items)``, its popularity left out.
            epoch: number of the epoch that has ended, -1 before the first.
        """
        generator = torch.Generator().manual_seed(self._seed * 1_000_003 + epoch + 1)
        language, view_of_user = self._language.cpu(), self._view_of_user.cpu()
        chance = np.random.default_rng([self._seed, epoch + 1, _ROUNDING]).random((len(self._histories), 1))
        n_cross = torch.from_numpy(np.floor(self.per_user * self.cross_language + chance))  # (n_histories, 1)
        for part in score_chunks(len(self._histories), language.shape[1]):
            rows = self._histories[part]
            scores = match(rows).cpu()  # (B, n_items)
            newest = rows[self._list].gather(1, rows[self._length][:, None] - 1)  # (B, 1)
            if self.margin is not None:
                own = scores.gather(1, newest)  # (B, 1), below zero where even that one matches badly
                scores.masked_fill_(scores > torch.where(own > 0, own * self.margin, own / self.margin), float("-inf"))
            scores.scatter_(1, rows[self._list], float("-inf"))
            met = self._met.of(rows[self._users].to(self.items.device))  # also before the history, which has an end
            scores[met[0].cpu(), met[1].cpu()] = float("-inf")
            scores[:, self._untrained] = float("-inf")  # they would teach that new items are wrong
            head = scores.topk(min(DEPTH, scores.shape[1]), dim=1)  # (B, depth)
            shown = ~head.values.isinf()  # (B, depth)
            view = view_of_user[rows[self._users]][:, None]  # (B, 1)
            cross = language[view, head.indices] != language[view, newest]  # (B, depth)
            shuffled = torch.rand(cross.shape, generator=generator)  # (B, depth), from 0 to 1
            wanted = _first(shuffled, cross & shown, n_cross[part])
            wanted |= _first(shuffled, ~cross & shown, self.per_user - n_cross[part])
            order = shuffled + 2 * ~wanted + 2 * ~shown  # wanted items come first, then others, then empty places
            place = order.topk(min(self.per_user, order.shape[1]), dim=1, largest=False).indices
            items = head.indices.gather(1, place) * shown.gather(1, place)
            missing = self.per_user - items.shape[1]
            users, items = rows[self._users], nn.functional.pad(items, (0, missing)).int()  # (B,), (B, hard_negatives)
            self.items[users.to(self.items.device)] = items.to(self.items.device)


def _first(order: Tensor, kind: Tensor, number: Tensor) -> Tensor:
    """Return a mask ``(B, depth)`` of the places of a kind that are first by ``order``, from 0 to 1.

    Args:
        order: ``(B, depth)``.
        kind: ``(B, depth)``.
        number: of places in each row, ``(B, 1)``.
    """
    rank = (order + 2 * ~kind).argsort(dim=1).argsort(dim=1)
    return kind & (rank < number)
