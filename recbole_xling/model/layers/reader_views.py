"""ReaderViews: users who see other texts of the same items, one group after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from recbole.data.interaction import Interaction
from torch import Tensor, nn

from recbole_xling.data.dataset import XLingDataset


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

    def train_counts(self, dataset: XLingDataset) -> Tensor:
        """Return how often each item occurs in training in each view, ``(number, n_items)``."""
        trained = torch.from_numpy(dataset.train_mask)
        users, items = (dataset.sequence[field][trained] for field in (dataset.uid_field, dataset.iid_field))
        counts = torch.bincount(
            self.of_user[users] * dataset.item_num + items, minlength=self.number * dataset.item_num
        )
        return counts.view(self.number, dataset.item_num)

    def parts(self, rows: Interaction) -> Iterator[tuple[int, Interaction, Tensor]]:
        """Yield each view that users of some rows have, these rows, and a mask of them, ``(B,)``.

        Where all users have the same view, rows need no users.
        """
        if self.number == 1:
            yield 0, rows, torch.ones(len(rows), dtype=torch.bool, device=self.of_user.device)
            return
        view = self.of_user[rows[self._user_field]]
        for number in torch.unique(view).tolist() or [0]:  # of several processes one may have no rows of a batch
            yield number, rows[view == number], view == number

    def scores(self, rows: Interaction, score: Callable[[Interaction, int], Tensor]) -> Tensor:
        """Return the scores of rows, ``(B, ...)``, given a function of rows whose users have one view, and of that."""
        parts = [(score(part, view), mask) for view, part, mask in self.parts(rows)]
        if len(parts) == 1:
            return parts[0][0]
        found = parts[0][0].new_empty(len(rows), *parts[0][0].shape[1:])
        for scores, mask in parts:
            found[mask] = scores
        return found
