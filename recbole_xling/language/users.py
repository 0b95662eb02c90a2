"""The languages that users read: what is their own, in which one they see an item, and who reads two."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recbole_xling.language.tags import UNDETERMINED

USER_LANGUAGE = "user_language"
"""Column of the ``.user`` file with the language that a user reads."""

LANGUAGE_SOURCE = "language_source"
"""Column that says where that comes from: ``stated``, ``derived`` from the history, or ``unknown``."""

BILINGUAL = "bilingual"
"""Column of the ``.user`` file that says whether a user is bilingual: ``yes`` or ``no``."""

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


@dataclass(frozen=True)
class Readers:
    """The users of a dataset as readers: the languages that they state, and the language in which each sees an item.

    This is the one place that decides both:

    - A user's language is the one that the ``.user`` file states. Where it states none, it is derived from the user's
      interactions: the most frequent language among what he saw (:meth:`languages`).
    - A user who states a language sees an item in it if :attr:`own` says that the item has a text in it. Everybody sees
      all other items in the language of their display text.

    Attributes:
        stated: the language that each user states, ``und`` where none, ``(n_users,)``.
        displayed: language of each item's display text, ``und`` where unknown, ``(n_items,)``.
        own: the items that readers of a language see in it, a mask ``(n_items,)`` by language; without any, all users
            see display texts.
    """

    stated: Sequence[str]
    displayed: Sequence[str]
    own: Mapping[str, NDArray[np.bool_]] = field(default_factory=dict)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """All languages in which items are seen, sorted."""
        return tuple(sorted({*self.displayed, *self.own}))

    @cached_property
    def view_of_user(self) -> NDArray[np.int64]:
        """Which view of the catalog each user has: 0 for display texts, then those of :attr:`own`, ``(n_users,)``."""
        number = {language: place for place, language in enumerate(self.own, start=1)}
        return np.array([number.get(language, 0) for language in self.stated], dtype=np.int64)

    @cached_property
    def _displayed(self) -> NDArray[np.int64]:
        number = {language: place for place, language in enumerate(self.names)}
        return np.array([number[language] for language in self.displayed], dtype=np.int64)

    def seen(self, users: IntArray, items: IntArray) -> NDArray[np.int64]:
        """Return the languages in which users see items, as places in :attr:`names`, ``(n,)`` like both arguments."""
        found, view = self._displayed[items], self.view_of_user[users]
        for place, (language, is_own) in enumerate(self.own.items(), start=1):
            found[(view == place) & is_own[items]] = self.names.index(language)
        return found

    def seen_by(self, view: int) -> list[str]:
        """Return the language of each item in a view (see :attr:`view_of_user`), ``(n_items,)``."""
        if not view:
            return list(self.displayed)
        language, is_own = list(self.own.items())[view - 1]
        return [language if own else shown for own, shown in zip(is_own, self.displayed, strict=True)]

    def profiles(self, users: IntArray, items: IntArray) -> pl.DataFrame:
        """Return :func:`languages_of_users` for interactions by the languages in which their users saw the items."""
        names = [name for name in self.names if name != UNDETERMINED]  # an Enum is sorted in the order of its names
        known = pl.Series([None if name == UNDETERMINED else name for name in self.names], dtype=pl.Enum(names))
        return languages_of_users(pl.DataFrame({"user": users, "language": known.gather(self.seen(users, items))}))

    def languages(self, users: IntArray, items: IntArray) -> list[str]:
        """Return each user's language: the stated one, else the main one of these interactions, else ``und``.

        Args:
            users: of the interactions to go by, ``(n,)``.
            items: of the same interactions.
        """
        found = list(self.stated)
        for user, language in self.profiles(users, items).select("user", "main_language").iter_rows():
            if found[user] == UNDETERMINED:
                found[user] = language
        return found
