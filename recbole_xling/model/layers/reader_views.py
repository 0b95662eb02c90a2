"""Users who see other texts of the same items: in evaluation (ReaderViews), and in training (TrainingViews)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from recbole.data.interaction import Interaction
from torch import Tensor, nn

from recbole_xling.data.dataset import XLingDataset
from recbole_xling.evaluator.streaming import Factors
from recbole_xling.language.users import Readers
from recbole_xling.text.view import ALL, RANDOM

_DRAW = 0x7E575  # keeps these draws apart from others of the same batch
_ROUNDING = 1e-6


class ReaderViews(nn.Module):
    """The view of the catalog that each user has; one for all users unless ``reader_vectors: reader`` applies.

    Args:
        dataset: with the users and their languages.

    Attributes:
        number: how many views there are.
        of_user: the view of each user, ``(n_users,)``.
    """

    of_user: Tensor

    def __init__(self, dataset: XLingDataset) -> None:
        super().__init__()
        self.number, view = 1, torch.zeros(dataset.user_num, dtype=torch.long)
        if dataset.catalog.has_reader_vectors:
            readers = dataset.readers
            self.number, view = 1 + len(readers.own), torch.from_numpy(readers.view_of_user)
        self._user_field: str = dataset.uid_field
        self.register_buffer("of_user", view, persistent=False)

    def train_counts(self, dataset: XLingDataset, shown: NDArray[np.float64] | None = None) -> Tensor:
        """Return how often each item occurs in training in each view, ``(number, n_items)``.

        Args:
            dataset: the training split.
            shown: how often each position of its sequence is shown; once if it is trained on, if not given.
        """
        often = dataset.train_mask if shown is None else shown
        users, items = (dataset.sequence[field] for field in (dataset.uid_field, dataset.iid_field))
        key, size = self.of_user[users] * dataset.item_num + items, self.number * dataset.item_num
        return torch.bincount(key, torch.from_numpy(often).double(), size).view(self.number, dataset.item_num)

    def parts(self, rows: Interaction) -> Iterator[tuple[int, Interaction, Tensor]]:
        """Yield each view that users of some rows have, these rows, and their places among all, ``(n,)``.

        Where all users have the same view, rows need no users.
        """
        if self.number == 1:
            yield 0, rows, torch.arange(len(rows), device=self.of_user.device)
            return
        view = self.of_user[rows[self._user_field]]
        for number in torch.unique(view).tolist() or [0]:  # of several processes one may have no rows of a batch
            place = (view == number).nonzero().squeeze(1)
            # RecBole's own way to choose rows makes a list of their numbers
            yield number, Interaction({name: column[place] for name, column in rows.interaction.items()}), place

    def factors(self, rows: Interaction, of: Callable[[Interaction, int], Factors]) -> list[tuple[Tensor, Factors]]:
        """Return the factors of scores (:meth:`~recbole_xling.model.base.ModelHooks.factors`).

        Args:
            rows: a batch.
            of: returns the factors of rows whose users have one view, and of that.
        """
        return [(place, of(part, view)) for view, part, place in self.parts(rows)]

    def scores(self, rows: Interaction, score: Callable[[Interaction, int], Tensor]) -> Tensor:
        """Return the scores of rows, ``(B, ...)``, given a function of rows whose users have one view, and of that."""
        parts = [(score(part, view), place) for view, part, place in self.parts(rows)]
        if len(parts) == 1:
            return parts[0][0]
        found = parts[0][0].new_empty(len(rows), *parts[0][0].shape[1:])
        for scores, place in parts:
            found[place] = scores
        return found


class TrainingViews(ReaderViews):
    """The views of the items in training: ``train_text_view``.

    They are those of evaluation unless the catalog has others for training. With ``random``, each item is shown in one
    of them in the histories of a batch, and in another one, drawn independently, as target and candidate: what is
    learned then joins languages, and does not belong to the words of one. With ``train_text_draw: batch`` one draw is
    for all items of the batch: those with texts in the same languages are then shown in the same one.

    Args:
        dataset: the training split.

    Attributes:
        differ: whether these views are others than evaluation's.
        first: where they begin among all views of the catalog's ``model_vectors``.
        chance: of each view of an item to be drawn, ``(number, n_items)``; None if views are not drawn.
    """

    def __init__(self, dataset: XLingDataset) -> None:
        super().__init__(dataset)
        catalog, self.first = dataset.catalog, 0
        self.chance: Tensor | None = None
        self.differ = catalog.training_views is not None
        if catalog.training_views is None:
            return
        views, kind = catalog.training_views, dataset.config["train_text_view"]
        self.first, self.number = self.number, 1 if kind == ALL else len(views.rendered)
        readers = Readers(dataset.readers.stated, [language for _, language in views.shown], views.own)
        self.of_user = torch.from_numpy(readers.view_of_user) * (self.number > 1)
        if kind == RANDOM:
            self.chance = torch.from_numpy(views.chances(catalog.training_language_weights))
            self._draws = 1 if dataset.config["train_text_draw"] == "batch" else dataset.item_num

    def train_counts(self, dataset: XLingDataset, shown: NDArray[np.float64] | None = None) -> Tensor:
        """Return how often each item occurs in training in each view, ``(number, n_items)``; if drawn, in all views."""
        counts = super().train_counts(dataset, shown)
        return counts if self.chance is None else counts.sum(dim=0, keepdim=True).expand(self.number, -1)

    def draw(self, *number: int) -> tuple[Tensor, Tensor] | tuple[None, None]:
        """Draw the view of each item for a batch: in histories, and as target or candidate, ``(n_items,)`` on the CPU.

        The same numbers give the same views, in a resumed run and in each of several processes.

        Args:
            number: what the batch is known by: seed, optimizer step, and which batch of the step.

        Returns:
            None twice if views are not drawn: each user has his own.
        """
        if self.chance is None:
            return None, None
        uniform = np.random.default_rng([*number, _DRAW]).random((2, 1, self._draws), dtype=np.float32)
        passed = torch.from_numpy(uniform) >= self._upper  # (2, number, n_items)
        in_history, scored = passed.sum(dim=1)
        return in_history, scored

    def met(self, of_views: Tensor, items: Tensor) -> Tensor:
        """Return what some items are in the views in which training may show them, ``(N,)``.

        Args:
            of_views: of each item in each view of the catalog's ``model_vectors``, ``(n_views, n_items)``.
            items: numbers of items.
        """
        found = of_views[self.first : self.first + self.number, items]
        return found.flatten() if self.chance is None else found[self.chance[:, items] > 0]

    def evenly(self, rng: np.random.Generator, n_items: int) -> Tensor:
        """Draw one of the views that training may show of each item, all of them alike, ``(n_items,)`` on the CPU."""
        drawn = torch.from_numpy(rng.random((self.number, n_items), dtype=np.float32))
        return (drawn if self.chance is None else drawn * (self.chance > 0)).argmax(dim=0)

    @cached_property
    def _upper(self) -> Tensor:
        """Where each view's share of the interval from 0 to 1 ends, ``(number, n_items)``; the last one has no end."""
        assert self.chance is not None
        upper = self.chance.double().cumsum(dim=0)
        return torch.where(upper > 1 - _ROUNDING, torch.inf, upper).float()

    def seen(self, users: Tensor, items: Tensor, drawn: Tensor | None) -> Tensor:
        """Return the view of each item that a user has before him, ``(B, L)``.

        Args:
            users: ``(B,)``.
            items: ``(B, L)``.
            drawn: a view of each item, ``(n_items,)``; None: each user's own.
        """
        return self.of_user[users][:, None].expand_as(items) if drawn is None else drawn[items]
