"""Cutting users into parts whose scores of all items fit into memory."""

from __future__ import annotations

from collections.abc import Iterator

_SCORES_AT_ONCE = 1 << 24  # 64 MiB in float32


def score_chunks(n_users: int, n_items: int) -> Iterator[slice]:
    """Yield slices of the users, in order, of at least one user and else of at most 64 MiB of scores.

    Args:
        n_users: users to be scored.
        n_items: scores of each user.
    """
    size = max(1, _SCORES_AT_ONCE // n_items)
    for begin in range(0, n_users, size):
        yield slice(begin, begin + size)
