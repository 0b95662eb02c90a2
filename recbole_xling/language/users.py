"""The languages that users read: which one is their main one, and who reads two."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recbole_xling.language.tags import UNDETERMINED

BILINGUAL_SHARE = 0.2
"""Least share of the second language in the history of a bilingual user."""

BILINGUAL_MIN = 2
"""Fewest interactions of a bilingual user in the second language."""

IntArray = NDArray[np.integer[Any]]


def languages_of_users(interactions: pl.DataFrame, **more: pl.Expr) -> pl.DataFrame:
    """Return the main language of each user, and who is bilingual.

    The main language is the one with most interactions, of several the first by alphabet. A bilingual user has at
    least :data:`BILINGUAL_MIN` interactions, and at least :data:`BILINGUAL_SHARE` of all, in the second language.

    Args:
        interactions: columns ``user`` (numbers are sorted fastest) and ``language``; rows whose language is null do
            not count.
        more: further columns by name, aggregated per user from ``language`` and ``count``, the largest count first.

    Returns:
        One row per user with a known language, sorted by user: ``user``, ``main_language``, ``is_bilingual`` and the
        columns of ``more``.
    """
    counts = interactions.drop_nulls("language").group_by("user", "language").agg(pl.len().alias("count"))
    ordered = counts.sort("user", "count", "language", descending=[False, True, False])
    second = pl.col("count").slice(1, 1).sum()
    return ordered.group_by("user", maintain_order=True).agg(
        pl.col("language").first().alias("main_language"),
        ((second >= BILINGUAL_MIN) & (second / pl.col("count").sum() >= BILINGUAL_SHARE)).alias("is_bilingual"),
        **more,
    )


def languages_of_readers(item_languages: Sequence[str], users: IntArray, items: IntArray) -> pl.DataFrame:
    """Return :func:`languages_of_users` for interactions given as arrays.

    Args:
        item_languages: indexed by item id; ``und`` where unknown, which does not count.
        users: of the interactions to go by, ``(n,)``.
        items: of the same interactions.
    """
    names = sorted(set(item_languages) - {UNDETERMINED})  # an Enum is sorted in the order of its names
    languages = pl.Series([None if name == UNDETERMINED else name for name in item_languages], dtype=pl.Enum(names))
    return languages_of_users(pl.DataFrame({"user": users, "language": languages.gather(items)}))


def user_languages(item_languages: Sequence[str], users: IntArray, items: IntArray, n_users: int) -> list[str]:
    """Return each user's main language, ``und`` where none is known.

    Args:
        item_languages: indexed by item id; ``und`` where unknown, which does not count.
        users: of the interactions to go by, ``(n,)``.
        items: of the same interactions.
        n_users: number of users, the padding user included.
    """
    found = languages_of_readers(item_languages, users, items)
    main = [UNDETERMINED] * n_users
    for user, language in found.select("user", "main_language").iter_rows():
        main[user] = language
    return main
