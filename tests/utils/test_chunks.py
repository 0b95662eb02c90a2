"""Chunks of users whose scores fit into memory."""

from __future__ import annotations

import pytest

from recbole_xling.utils.chunks import score_chunks


@pytest.mark.parametrize(("n_users", "n_items"), [(0, 5), (7, 5), (10, 1 << 23), (3, 1 << 30)])
def test_chunks_cover_all_users_once_and_are_small_but_not_empty(n_users: int, n_items: int) -> None:
    users = list(range(n_users))
    chunks = [users[part] for part in score_chunks(n_users, n_items)]
    assert [user for chunk in chunks for user in chunk] == users
    assert all(chunk and (len(chunk) == 1 or len(chunk) * n_items <= 1 << 24) for chunk in chunks)
