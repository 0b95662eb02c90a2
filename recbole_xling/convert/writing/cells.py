"""Cells of RecBole's atomic files, and which values RecBole would not read back as they are."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping

import polars as pl

from recbole_xling.errors import DataError

FIELD_TYPES = ("token", "token_seq", "float")

# what RecBole's reader would read as something else: a quote at the start, the end of a cell or of a row
_FORBIDDEN = r'^"|[\t\n\r\x00]'
_FORBIDDEN_PATTERN = re.compile(_FORBIDDEN + "|[\ud800-\udfff]")
# what pandas reads as a missing value
_MISSING = r"#N/A|#N/A N/A|#NA|-?1\.#IND|-?1\.#QNAN|-?nan|-?NaN|<NA>|N/A|NA|NULL|None|n/a|null"
_MISSING_PATTERN = re.compile(_MISSING)

_LONGEST = 131_072  # the field limit of Python's csv module, which RecBole's reader (pandas' Python engine) keeps

MISSING_ID = "an id that RecBole reads as a missing value"
TOO_LONG = "a value of more than 131,072 characters, at which RecBole's reader stops"
UNREADABLE = "a tab, a line break, a NUL, or a quote at the start, which RecBole cannot read back"


class BadCellError(ValueError):
    """A value of the source that cannot be written; the message is the reason given in the rejects."""


def header(columns: Mapping[str, str]) -> str:
    """Return the first line of an atomic file."""
    return "\t".join(f"{name}:{kind}" for name, kind in columns.items())


def id_cell(value: str) -> str:
    """Return an id as it is written.

    Raises:
        BadCellError: RecBole would not read it back.
    """
    if not value or _MISSING_PATTERN.fullmatch(value):
        raise BadCellError(MISSING_ID)
    return _token(value)


def bad_ids(column: str) -> pl.Expr:
    """Return for a column of ids, vectorized, why one cannot be written; null where it can."""
    ids = pl.col(column)
    missing = ids.is_null() | ids.str.contains(f"^(?:{_MISSING}|)$")
    unreadable = ids.str.contains(_FORBIDDEN)
    too_long = ids.str.len_bytes() > _LONGEST
    reasons = ((missing, MISSING_ID), (unreadable, UNREADABLE), (too_long, TOO_LONG))
    return pl.coalesce(pl.when(found).then(pl.lit(reason)) for found, reason in reasons)


def feature_cells(features: Mapping[str, str | tuple[str, ...]], columns: Mapping[str, str]) -> Iterator[str]:
    """Yield a record's features as they are written, one for each column.

    Raises:
        DataError: a feature is not declared, or of another type than declared.
        BadCellError: RecBole would not read a value back.
    """
    unknown = next((name for name in features if name not in columns), None)
    if unknown is not None:
        raise DataError(f"column '{unknown}' is not declared by the converter")
    for name, kind in columns.items():
        try:
            yield _feature(features.get(name, ""), kind, name)
        except BadCellError as error:
            raise BadCellError(f"column '{name}': {error}") from None


def _feature(value: str | tuple[str, ...], kind: str, name: str) -> str:
    if kind == "token_seq":
        tokens = (value,) if isinstance(value, str) and value else tuple(value)
        if any(not token or " " in token for token in tokens):
            raise BadCellError("an element of a sequence that is empty or holds a space")
        return _token(" ".join(_token(token) for token in tokens))
    if not isinstance(value, str):
        raise DataError(f"column '{name}': {value!r} must be a text; declare the column as token_seq for a sequence")
    return _float(value) if kind == "float" and value else _token(value)


def _token(value: str) -> str:
    if _FORBIDDEN_PATTERN.search(value):
        raise BadCellError(UNREADABLE)
    if len(value) > _LONGEST:
        raise BadCellError(TOO_LONG)
    return value


def _float(value: str) -> str:
    """Return the shortest text of a number that reads back as the same."""
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise BadCellError("no finite number")
    return str(int(number)) if number.is_integer() and abs(number) < 2**63 else repr(number)
