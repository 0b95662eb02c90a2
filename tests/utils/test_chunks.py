"""Chunks of users whose scores fit into memory."""

from __future__ import annotations

import pytest
import torch

from recbole_xling.utils import chunks as cutting
from recbole_xling.utils.chunks import by_length, score_chunks


@pytest.mark.parametrize(("n_users", "n_items"), [(0, 5), (7, 5), (10, 1 << 23), (3, 1 << 30)])
def test_chunks_cover_all_users_once_and_are_small_but_not_empty(n_users: int, n_items: int) -> None:
    users = list(range(n_users))
    chunks = [users[part] for part in score_chunks(n_users, n_items)]
    assert [user for chunk in chunks for user in chunk] == users
    assert all(chunk and (len(chunk) == 1 or len(chunk) * n_items <= 1 << 24) for chunk in chunks)


def test_states_by_length_are_in_the_order_of_the_rows_and_see_no_needless_padding(monkeypatch):
    monkeypatch.setattr(cutting, "_HISTORIES_AT_ONCE", 3)
    lengths = torch.tensor([4, 1, 9, 2, 2, 6, 1])
    item_seq = (torch.arange(1, 10) + 10 * torch.arange(7)[:, None]) * (torch.arange(9) < lengths[:, None])
    widths = []

    def states_of(items, length):
        widths.append(items.shape[1])
        return torch.stack([items.sum(dim=1), length], dim=1)

    found = by_length(states_of, item_seq, lengths)
    assert torch.equal(found, torch.stack([item_seq.sum(dim=1), lengths], dim=1))
    assert widths == [2, 6, 9]
