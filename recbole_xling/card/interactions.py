"""Sizes, times, and what is odd about the interactions."""

from __future__ import annotations

from datetime import datetime, timezone
from itertools import pairwise

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recbole_xling.card.card import Checks, Distributions, Quantiles, Size, Time, TopItem
from recbole_xling.card.catalogue import Catalogue
from recbole_xling.card.histories import Histories
from recbole_xling.card.split import Split

TOP_ITEMS = 10
PERIODS = 60
_POPULARITY_POINTS = 200
_LENGTHS = (1, 2, 3, 5, 10, 20, 50, 100, 200, 500, 1000)
# between 1985 and 2099
_SECONDS = (473385600.0, 4102444800.0)


def distinct_pairs(histories: Histories) -> int:
    """Return how many different user-item pairs there are."""
    pairs = pl.Series(histories.users).cast(pl.UInt64) * len(histories.item_ids) + pl.Series(histories.items)
    return pairs.n_unique()


def describe_size(histories: Histories, pairs: int, idle_users: int) -> Size:
    """Count users, items and interactions."""
    counts = np.sort(histories.item_counts[histories.item_counts > 0])[::-1]
    n_users, n_items = len(histories.user_ids), len(counts)
    return Size(
        users=n_users,
        items=n_items,
        interactions=len(histories),
        density=pairs / (n_users * n_items),
        idle_users=idle_users,
        idle_items=len(histories.item_ids) - n_items,
        top_fifth=float(counts[: -(-n_items // 5)].sum() / len(histories)),
        per_user=Quantiles.of(histories.length),
        per_item=Quantiles.of(counts),
    )


def top_items(histories: Histories, catalogue: Catalogue) -> tuple[TopItem, ...]:
    """Return the items with most interactions; ties go to the id."""
    counts = pl.DataFrame({"id": histories.item_ids, "count": histories.item_counts}).with_row_index("item")
    best = counts.filter(pl.col("count") > 0).top_k(TOP_ITEMS, by=["count", "id"], reverse=[False, True])
    best = best.sort(["count", "id"], descending=[True, False])
    return tuple(
        TopItem(item_id, catalogue.item_languages[item], count, catalogue.excerpt(item))
        for item, item_id, count in best.iter_rows()
    )


def describe_time(histories: Histories) -> Time | None:
    """Return the range of times, None where there are none."""
    if histories.times is None:
        return None
    first, last = float(histories.times.min()), float(histories.times.max())
    scale = time_scale(first, last)
    if scale is None:
        return Time(first, last, None, None)
    dates = (datetime.fromtimestamp(time / scale, timezone.utc).isoformat(timespec="seconds") for time in (first, last))
    return Time(first, last, *dates)


def time_scale(first: float, last: float) -> float | None:
    """Return how many units make a second where times look like Unix seconds or milliseconds, else None."""
    for scale in (1.0, 1000.0):
        if _SECONDS[0] <= first / scale and last / scale <= _SECONDS[1]:
            return scale
    return None


def describe_checks(split: Split, pairs: int, duplicate_rows: int, unknown_users: int) -> Checks:
    """Count what is odd."""
    histories = split.histories
    in_a_row = (histories.items[1:] == histories.items[:-1]) & (histories.users[1:] == histories.users[:-1])
    return Checks(
        missing_ids=histories.missing_ids,
        unknown_item_interactions=histories.unknown_items,
        unknown_users=unknown_users,
        repeats=len(histories) - pairs,
        repeats_in_a_row=int(in_a_row.sum()),
        duplicate_rows=duplicate_rows,
        missing_times=histories.missing_times,
        unordered_users=_unordered_users(histories),
        repeated_targets=split.repeated_targets(),
        tied_targets=split.tied_targets(),
        early_targets=split.early_targets(),
    )


def _unordered_users(histories: Histories) -> int:
    several = histories.length > 1
    if histories.times is None:
        return int(several.sum())
    lowest = np.minimum.reduceat(histories.times, histories.start)
    highest = np.maximum.reduceat(histories.times, histories.start)
    return int((several & (lowest == highest)).sum())


def describe_distributions(histories: Histories) -> Distributions:
    """Return the points of the plots."""
    counts = np.sort(histories.item_counts[histories.item_counts > 0])[::-1]
    ranks = np.unique(np.geomspace(1, len(counts), _POPULARITY_POINTS).round().astype(np.int64))
    users, _ = np.histogram(histories.length, bins=[*_LENGTHS, np.inf])
    names = [str(a) if b == a + 1 else f"{a}-{b - 1}" for a, b in pairwise(_LENGTHS)]
    lengths = list(zip([*names, f"{_LENGTHS[-1]}+"], users.tolist(), strict=True))
    while len(lengths) > 1 and not lengths[-1][1]:
        lengths.pop()
    return Distributions(
        popularity=tuple(zip(ranks.tolist(), counts[ranks - 1].tolist(), strict=True)),
        history_lengths=tuple(lengths),
        timeline=_timeline(histories.times),
    )


def _timeline(times: NDArray[np.float64] | None) -> tuple[tuple[float, int], ...]:
    if times is None or times.min() == times.max():
        return ()
    counts, edges = np.histogram(times, bins=PERIODS)
    return tuple(zip(edges[:-1].tolist(), counts.tolist(), strict=True))
