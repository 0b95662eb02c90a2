"""Which rows of an item text file belong to which item, in which language, from which source."""

from __future__ import annotations

from array import array
from collections.abc import Hashable, Iterator
from typing import Generic, TypeVar

from recbole_xling.errors import DataError
from recbole_xling.text.record import DISPLAY, ItemText

Name = TypeVar("Name", bound=Hashable)
_END = -1


class Names(Generic[Name]):
    """Few distinct values, numbered in the order in which they were first seen."""

    def __init__(self) -> None:
        self.values: list[Name] = []
        self._numbers: dict[Name, int] = {}

    def number(self, value: Name) -> int:
        """Return the number of a value, a new one for a new value."""
        number = self._numbers.setdefault(value, len(self.values))
        if number == len(self.values):
            self.values.append(value)
        return number


class RowIndex:
    """Rows chained per item in arrays of numbers, so that millions of them stay small; enforces uniqueness."""

    def __init__(self) -> None:
        self.items: dict[str, int] = {}
        self.languages: Names[str] = Names()
        self.sources: Names[str] = Names()
        self._first = array("q")  # per item: its first row
        self._next = array("q")  # per row: the item's next row
        self._language = array("i")
        self._source = array("i")

    def add(self, text: ItemText) -> int:
        """Append a row and return its number.

        Raises:
            DataError: the item has this text already, or a second display text.
        """
        language, source = self.languages.number(text.language), self.sources.number(text.source)
        last = _END
        for last in self.rows(text.item_id):
            if self._source[last] == source and self._language[last] == language:
                raise DataError(f"item '{text.item_id}' has its {text.language} text ({text.source}) twice; keep one")
            if self._source[last] == source and text.source == DISPLAY:
                raise DataError(
                    f"item '{text.item_id}' has two display texts ({self.language(last)} and {text.language}); "
                    "keep one and make the other 'parallel'"
                )
        row = len(self._next)
        if last == _END:
            self.items[text.item_id] = len(self._first)
            self._first.append(row)
        else:
            self._next[last] = row
        self._next.append(_END)
        self._language.append(language)
        self._source.append(source)
        return row

    def rows(self, item_id: str) -> Iterator[int]:
        """Yield the rows of an item in the order in which they were added; none for an unknown item."""
        item = self.items.get(item_id)
        row = _END if item is None else self._first[item]
        while row != _END:
            yield row
            row = self._next[row]

    def language(self, row: int) -> str:
        """Return the language of a row."""
        return self.languages.values[self._language[row]]

    def source(self, row: int) -> str:
        """Return the source of a row."""
        return self.sources.values[self._source[row]]
