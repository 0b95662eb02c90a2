"""Numbers as data write them."""

from __future__ import annotations

from recbole_xling.utils.arguments import finite_number


def written_number(text: str) -> float | None:
    """Return the finite number that a cell says, None for anything else, ``1_000`` and ``2024_01_04`` included.

    It takes for a number what polars does, between white space: Python alone reads ``1_0``, and digits of all scripts.
    """
    return finite_number(text) if "_" not in text and text.strip().isascii() else None


def number_text(number: float) -> str:
    """Return the shortest text that reads back as the same finite number, without decimals for a whole one."""
    return str(int(number)) if float(number).is_integer() and abs(number) < 2**63 else repr(number)
