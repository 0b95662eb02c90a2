"""Conditions on the rows of a table: ``event=purchase,cart``, ``market!=uk``, ``stars>=4``."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

import polars as pl

from recbole_xling.convert.reading.numbers import written_number
from recbole_xling.errors import ConfigError

_WRITTEN = re.compile(r"(?P<column>[^=!<>]+)(?P<sign>!=|>=|<=|=|>|<)(?P<values>[^=!<>]*)")
_COMPARED: dict[str, Callable[[pl.Expr, float], pl.Expr]] = {
    ">=": lambda number, limit: number >= limit,
    "<=": lambda number, limit: number <= limit,
    ">": lambda number, limit: number > limit,
    "<": lambda number, limit: number < limit,
}


class Condition(NamedTuple):
    """A condition on the cells of a column.

    Attributes:
        column: its name in the file.
        sign: ``=`` (one of the values), ``!=`` (none of them), or a comparison with the number that is the value.
        values: as texts; the empty one stands for an empty cell.
    """

    column: str
    sign: str
    values: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.column}{self.sign}{','.join(self.values)}"

    @property
    def compares_numbers(self) -> bool:
        """Whether the cells must be numbers, or empty."""
        return self.sign in _COMPARED

    def holds(self, cells: pl.Expr) -> pl.Expr:
        """Return for a column of texts where the condition holds; a comparison does not hold for an empty cell."""
        if self.compares_numbers:
            number = cells.cast(pl.Float64, strict=False)
            return _COMPARED[self.sign](number, float(self.values[0])).fill_null(False)
        is_one = cells.fill_null("").is_in(list(self.values))
        return is_one if self.sign == "=" else ~is_one


def parse_condition(text: str) -> Condition:
    """Return the condition that a text says.

    Raises:
        ConfigError: it says none.
    """
    found = _WRITTEN.fullmatch(text)
    if found is None:
        raise ConfigError(f"where: {text!r} is no condition; write event=purchase,cart, market!=uk, or stars>=4")
    condition = Condition(
        found["column"].strip(), found["sign"], tuple(value.strip() for value in found["values"].split(","))
    )
    if condition.compares_numbers and (len(condition.values) > 1 or written_number(condition.values[0]) is None):
        raise ConfigError(f"where: {text!r} compares numbers, and {found['values']!r} is none; write stars>=4")
    return condition
