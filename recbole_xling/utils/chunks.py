"""Cutting users into parts: whose scores of all items fit into memory, whose histories are about equally long."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

_SCORES_AT_ONCE = 1 << 24  # 64 MiB in float32
_HISTORIES_AT_ONCE = 512


def score_chunks(n_users: int, n_items: int) -> Iterator[slice]:
    """Yield slices of the users, in order, of at least one user and else of at most 64 MiB of scores.

    Args:
        n_users: users to be scored.
        n_items: scores of each user.
    """
    size = max(1, _SCORES_AT_ONCE // n_items)
    for begin in range(0, n_users, size):
        yield slice(begin, begin + size)


def by_length(states_of: Callable[..., Tensor], item_seq: Tensor, item_seq_len: Tensor, *further: Tensor) -> Tensor:
    """Return the states of histories, computed for those of similar length together, without padding beyond these.

    Args:
        states_of: maps ``(b, l)`` items, ``(b,)`` lengths and what is further known of items to ``(b, D)`` states, on
            which padding has no influence.
        item_seq: items, oldest first, padded with 0 on the right, ``(B, L)``.
        item_seq_len: their numbers, at least 1, ``(B,)``.
        further: what else is known of each item, ``(B, L)``.

    Returns:
        ``(B, D)``.
    """
    if not len(item_seq):
        return states_of(item_seq, item_seq_len, *further)
    order = torch.argsort(item_seq_len, stable=True)
    chunks = order.split(_HISTORIES_AT_ONCE)
    widths = item_seq_len[torch.stack([rows[-1] for rows in chunks])].tolist()  # looked up together: a GPU makes wait
    parts = []
    for rows, width in zip(chunks, widths, strict=True):
        others = (columns[rows, :width] for columns in further)
        parts.append(states_of(item_seq[rows, :width], item_seq_len[rows], *others))
    sorted_states = torch.cat(parts)
    return torch.empty_like(sorted_states).index_copy_(0, order, sorted_states)
