"""Items and users as they are served: ids, titles and languages in each view, columns to filter by, histories."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recbole_xling.errors import ConfigError, unknown_name
from recbole_xling.language.tags import UNDETERMINED, cased_tag, covers, reader_among, tag_among

IntArray = NDArray[np.int64]
Columns = Mapping[str, Sequence[Sequence[str]]]
"""The values of each item in each column; a column of one value per item has lists of one or none."""


@dataclass(frozen=True)
class Filters:
    """Which items may be in a list; what is not given does not filter.

    Attributes:
        languages: in which the reader sees them.
        items: no others than these.
        block: not these.
        where: values of which one must be the item's, by column of the ``.item`` file.
    """

    languages: Collection[str] | None = None
    items: Collection[str] | None = None
    block: Collection[str] = ()
    where: Mapping[str, Collection[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        given = {"languages": self.languages, "items": self.items, "block": self.block, **self.where}
        for name, values in given.items():
            if isinstance(values, str):
                raise ConfigError(f"{name} must be a list of names, not the text '{values}': write [{values!r}]")
        if self.languages is not None:
            object.__setattr__(self, "languages", [cased_tag(language) for language in self.languages])


class Catalog:
    """The items, numbered as the model numbers them; number 0 is the padding item.

    In a view each item has one title and language: view 0 shows display texts, each further one those of the readers of
    a language, where an item has a text in it.

    Args:
        tokens: external ids, ``(n_items,)``.
        titles: of each item in each view, ``(n_views, n_items)``.
        languages: the same of languages, ``und`` where unknown.
        view_of: the view of readers of a language, by language; readers of others have view 0.
        counts: training interactions of each item, ``(n_items,)``.
        withdrawn: numbers of items that the data do not have any more.
        columns: returns the columns to filter by, when they are first needed.
    """

    def __init__(
        self,
        tokens: Sequence[str],
        titles: Sequence[Sequence[str]],
        languages: Sequence[Sequence[str] | NDArray[np.str_]],
        view_of: Mapping[str, int],
        counts: IntArray,
        withdrawn: Collection[int],
        columns: Callable[[], Columns],
    ) -> None:
        self.tokens, self.titles, self.view_of, self.counts = tokens, titles, view_of, counts
        self.languages = [np.asarray(of_view, dtype=np.str_) for of_view in languages]
        self.number = {token: place for place, token in enumerate(tokens) if place}
        self.exists = np.ones(len(tokens), dtype=bool)
        self.exists[[0, *withdrawn]] = False
        self._read_columns = columns
        self.withdraw(())

    @cached_property
    def columns(self) -> Columns:
        """The columns to filter by."""
        return self._read_columns()

    def view_for(self, reader: str | None) -> int:
        """Return the view of readers of a language, which may be written as users' languages are."""
        return self.view_of.get(reader_among(reader, self.view_of) if reader else UNDETERMINED, 0)

    @cached_property
    def language_names(self) -> set[str]:
        """The languages in which anybody may see an item."""
        return {str(name) for of_view in self.languages for name in np.unique(of_view[1:])}

    def known(self, tokens: Collection[str]) -> tuple[IntArray, list[str]]:
        """Return the numbers of the items that there are, in their order, and the ids of the others."""
        numbers = [self.number[token] for token in tokens if token in self.number]
        return np.array(numbers, dtype=np.int64), [token for token in tokens if token not in self.number]

    def withdraw(self, items: Collection[str]) -> None:
        """Show these items to nobody, and all others that exist again; unknown ids are left alone."""
        shown = self.exists.copy()
        shown[self.known(items)[0]] = False
        self.shown, self._all_shown = shown, np.flatnonzero(shown)  # at once, whoever reads them meanwhile

    def check_column(self, column: str) -> None:
        """Raise a ConfigError if there is no such column to filter by."""
        if column not in self.columns:
            known = self.columns
            problem = unknown_name("column", column, known) if known else f"no column '{column}': there is none"
            raise ConfigError(f"{problem} (of the .item file; columns of numbers are none to filter by)")

    def grown(
        self,
        tokens: Sequence[str],
        titles: Sequence[Sequence[str]],
        languages: Sequence[Sequence[str]],
        columns: Sequence[Mapping[str, Sequence[str]]],
    ) -> Catalog:
        """Return a catalog with more items behind these, which training did not have.

        Args:
            tokens: their external ids, ``(m,)``.
            titles: of each in each view, ``(n_views, m)``.
            languages: the same of languages.
            columns: the values of each, by column.
        """

        def joined() -> Columns:
            return {name: [*own, *(of_new.get(name, ()) for of_new in columns)] for name, own in self.columns.items()}

        gone, pairs = np.flatnonzero(~self.exists)[1:].tolist(), zip(self.languages, languages, strict=True)
        return Catalog(
            [*self.tokens, *tokens],
            [[*own, *new] for own, new in zip(self.titles, titles, strict=True)],
            [np.concatenate([own, np.asarray(new, dtype=np.str_)]) for own, new in pairs],
            self.view_of,
            np.concatenate([self.counts, np.zeros(len(tokens), dtype=np.int64)]),
            gone,
            joined,
        )

    def candidates(self, filters: Filters, view: int) -> IntArray:
        """Return the numbers of the items that pass, ascending; the same array each time where nothing filters.

        An item in a variant of a language, such as ``en-GB``, is in it.

        Raises:
            ConfigError: no item has a language or a value that is asked for, or there is no such column.
        """
        if filters.languages is None and filters.items is None and not filters.block and not filters.where:
            return self._all_shown
        passing = self.shown.copy()
        if filters.languages is not None:
            asked: list[str] = []
            for language in filters.languages:
                tag = tag_among(language, self.language_names)  # as the tags of added items were read
                found = [name for name in self.language_names if covers(tag, name)]
                if not found:
                    raise ConfigError(unknown_name("language of items", language, self.language_names))
                asked += found
            passing &= np.isin(self.languages[view], asked)
        if filters.items is not None:
            allowed = np.zeros_like(passing)
            allowed[self.known(filters.items)[0]] = True
            passing &= allowed
        passing[self.known(filters.block)[0]] = False
        for column, wanted in filters.where.items():
            self.check_column(column)
            values = self.columns[column]
            there = {value for of_item in values for value in of_item}
            if missing := [value for value in wanted if value not in there]:
                raise ConfigError(f"no item has '{missing[0]}' in column '{column}'")
            passing &= np.fromiter((not set(wanted).isdisjoint(of_item) for of_item in values), bool, len(values))
        return np.flatnonzero(passing)


@dataclass(frozen=True)
class Users:
    """The users that the model was trained with, and what is known of them now.

    Attributes:
        tokens: external ids by the model's numbers, ``(n_users,)``; number 0 is nobody.
        languages: that each states, ``und`` where none, ``(n_users,)``.
        starts: where the history of each begins in ``items``, and where the last one ends, ``(n_users + 1,)``.
        items: numbers of the items of all histories, the oldest of each first.
        missing: why histories are not known; empty if they are.
        spoken: the languages that any user of the training states.
        taught: whose interactions the model was trained on, a mask ``(n_users,)``; None where that does not matter.
    """

    tokens: Sequence[str]
    languages: Sequence[str]
    starts: IntArray
    items: IntArray
    missing: str = ""
    spoken: Collection[str] = ()
    taught: NDArray[np.bool_] | None = None

    @classmethod
    def of_interactions(
        cls, tokens: Sequence[str], languages: Sequence[str], users: IntArray, items: IntArray, times: Any
    ) -> Users:
        """Return users with their interactions in the order of time, or in their own where there are no times."""
        order = np.arange(len(users)) if times is None else np.argsort(times, kind="stable")
        order = order[np.argsort(users[order], kind="stable")]
        starts = np.concatenate([[0], np.cumsum(np.bincount(users, minlength=len(tokens)))])
        spoken = sorted(set(languages[1:]))
        return cls(tokens, languages, starts.astype(np.int64), items[order], spoken=spoken)

    @cached_property
    def number(self) -> dict[str, int]:
        """The number of each user by external id."""
        return {token: place for place, token in enumerate(self.tokens) if place}

    @cached_property
    def example_of(self) -> dict[str, int]:
        """The first user who states a language, by language."""
        found: dict[str, int] = {}
        for number, language in enumerate(self.languages):
            if number:
                found.setdefault(language, number)
        return found

    def history(self, user: int) -> IntArray:
        """Return the items of a user, the oldest first."""
        return self.items[self.starts[user] : self.starts[user + 1]]
