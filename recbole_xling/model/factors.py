"""Which models score by inner products, and of what: those of this package say so themselves, RecBole's are listed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from recbole.data.interaction import Interaction
from torch import Tensor, nn

from recbole_xling.evaluator.streaming import Factors
from recbole_xling.model.base import hooks_of
from recbole_xling.utils.chunks import by_length


def factors_of(model: Any, interaction: Interaction) -> list[tuple[Tensor, Factors]] | None:
    """Return the factors of a batch's scores: the rows of the batch, ``(n,)``, and theirs; None if there are none.

    A model says so itself with the hook ``factors``; for RecBole's models whose ``full_sort_predict`` is such a product
    a table does.
    """
    found = hooks_of(model).factors(interaction)
    recbole = _RECBOLE.get(type(model).__name__)
    if found is not None or recbole is None or not type(model).__module__.startswith("recbole.model."):
        return found
    users, items = recbole(model, interaction)
    return [(torch.arange(len(users), device=users.device), Factors(users, items))]


class UserOfVectors(nn.Module):
    """Users by the vectors of their histories, as a module of its own with the inputs that export gives it.

    Args:
        model: with vectors of users and items. RecBole's sequential ones look up the vectors of histories by ids, so
            that they are given another table.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        is_listed = _RECBOLE.get(type(model).__name__) in (_of_histories, _of_unpadded)
        self._looks_up = is_listed and type(model).__module__.startswith("recbole.model.")

    def history_vectors(self, view: int) -> Tensor | None:
        """Return the vectors of all items that histories consist of; None if the model's do not."""
        if not self._looks_up:
            return hooks_of(self.model).history_vectors(view)
        weight: Tensor = self.model.item_embedding.weight
        return weight

    def forward(
        self,
        items: Tensor,
        item_seq_len: Tensor,
        item_language: Tensor,
        user_language: Tensor,
    ) -> Tensor:
        """Return users, ``(B, D)``; arguments as for :meth:`~recbole_xling.model.base.ModelHooks.user_of_vectors`."""
        if not self._looks_up:
            return hooks_of(self.model).user_of_vectors(items, item_seq_len, item_language, user_language)
        place = torch.arange(1, items.shape[0] * items.shape[1] + 1, device=items.device).view(items.shape[:2])
        inside = torch.arange(items.shape[1], device=items.device) < item_seq_len[:, None]  # (B, L)
        table = torch.cat([self.model.item_embedding.weight[:1], items.reshape(-1, items.shape[2])])
        weights = {"item_embedding.weight": table}
        users: Tensor = torch.func.functional_call(self.model, weights, (place * inside, item_seq_len))
        return users


def _of_users(model: Any, interaction: Interaction) -> tuple[Tensor, Tensor]:
    return model.user_embedding(interaction[model.USER_ID]), model.item_embedding.weight


def _of_graph(model: Any, interaction: Interaction) -> tuple[Tensor, Tensor]:
    if model.restore_user_e is None or model.restore_item_e is None:
        model.full_sort_predict(interaction[:1])  # keeps the vectors of all nodes until the next training step
    return model.restore_user_e[interaction[model.USER_ID]], model.restore_item_e


def _of_histories(model: Any, interaction: Interaction) -> tuple[Tensor, Tensor]:
    state = model.forward(interaction[model.ITEM_SEQ], interaction[model.ITEM_SEQ_LEN])
    return state, model.item_embedding.weight


def _of_unpadded(model: Any, interaction: Interaction) -> tuple[Tensor, Tensor]:
    state = by_length(model.forward, interaction[model.ITEM_SEQ], interaction[model.ITEM_SEQ_LEN])
    return state, model.item_embedding.weight


_RECBOLE: dict[str, Callable[[Any, Interaction], tuple[Tensor, Tensor]]] = {
    **dict.fromkeys(("BPR", "LINE"), _of_users),
    **dict.fromkeys(("LightGCN", "NGCF", "DGCF", "NCL", "SGL", "SpectralCF"), _of_graph),
    **dict.fromkeys(("STAMP", "SRGNN", "GCSAN", "FEARec", "LightSANs", "SINE", "FDSA"), _of_histories),
    # What comes after a history's end has no influence on these, so that it can be left out.
    **dict.fromkeys(("SASRec", "GRU4Rec", "NARM"), _of_unpadded),
}
