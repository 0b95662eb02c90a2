"""Cells of RecBole's atomic files, and the values that RecBole would not read back as they are."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

import polars as pl

from recbole_xling.convert.base import Features
from recbole_xling.convert.reading.numbers import number_text, written_number
from recbole_xling.convert.reading.rejects import BadRowError
from recbole_xling.errors import DataError
from recbole_xling.text.atomic_files import PADDING
from recbole_xling.text.raw_tables import MISSING_WORDS

FIELD_TYPES = ("token", "token_seq", "float")

MISSING_ID = "no id, or one such as NA or null that RecBole reads as a missing value (rename it, as in id-NA)"
PADDING_ID = "the id '[PAD]', which RecBole uses for padding"
CONTROL_ID = "a control character in an id"
TOO_LONG = "a value of more than 131,072 characters, at which RecBole's reader stops"
UNREADABLE = "a tab, a line break, a NUL, or a quote at the start, which RecBole cannot read back"

# RecBole's reader takes a quote at the start, the end of a cell and the end of a row for something else.
_FORBIDDEN = r'^"|[\t\n\r\x00]'
_FORBIDDEN_PATTERN = re.compile(_FORBIDDEN + "|[\ud800-\udfff]")
_CONTROL = r"[\x00-\x1f\x7f-\x9f]"
_LONGEST = 131_072  # the field limit of Python's csv module, which RecBole's reader (pandas' Python engine) has too


def header(columns: Mapping[str, str]) -> str:
    """Return the first line of an atomic file."""
    return "\t".join(f"{name}:{kind}" for name, kind in columns.items())


def id_cell(value: str) -> str:
    """Return an id as it is written.

    Raises:
        BadRowError: RecBole would not read it back or has it for padding, or it has a control character in it.
    """
    if value in MISSING_WORDS:
        raise BadRowError(MISSING_ID)
    if value == PADDING:
        raise BadRowError(PADDING_ID)
    cell = _token(value)
    if re.search(_CONTROL, cell):
        raise BadRowError(CONTROL_ID)
    return cell


def bad_ids(column: str) -> pl.Expr:
    """Return for a column of ids why each cannot be written, null where it can."""
    ids = pl.col(column)
    missing = ids.is_null() | ids.is_in(MISSING_WORDS)
    unreadable = ids.str.contains(_FORBIDDEN)
    too_long = ids.str.len_chars() > _LONGEST
    reasons = (
        (missing, MISSING_ID),
        (ids == PADDING, PADDING_ID),
        (unreadable, UNREADABLE),
        (too_long, TOO_LONG),
        (ids.str.contains(_CONTROL), CONTROL_ID),
    )
    return pl.coalesce(pl.when(found).then(pl.lit(reason)) for found, reason in reasons)


def feature_cells(features: Features, columns: Mapping[str, str], faults: list[str]) -> Iterator[str]:
    """Yield a record's features as they are written, one for each column.

    Args:
        features: values by column.
        columns: types by column.
        faults: takes what is wrong with a value that RecBole would not read back; its cell is empty.

    Raises:
        DataError: a feature is not declared, or of another type than declared.
    """
    unknown = next((name for name in features if name not in columns), None)
    if unknown is not None:
        raise DataError(f"column '{unknown}' is not declared by the converter")
    for name, kind in columns.items():
        value = features.get(name, "")
        try:
            if kind == "token_seq":
                tokens = (value,) if isinstance(value, str) and value else tuple(value)
                if any(not token or " " in token for token in tokens):
                    raise BadRowError("an element of a sequence that is empty or has a space in it")
                yield _token(" ".join(_token(token) for token in tokens))
            elif not isinstance(value, str):
                expected = "must be a text; declare the column as token_seq for a sequence"
                raise DataError(f"column '{name}': {value!r} {expected}")
            elif kind == "float" and value:
                number = written_number(value)
                if number is None:
                    raise BadRowError("no finite number")
                yield number_text(number)
            else:
                yield _token(value)
        except BadRowError as error:
            faults.append(f"column '{name}': {error}")
            yield ""


def checked_features(columns: Mapping[str, str]) -> Iterator[tuple[pl.Expr, pl.Expr]]:
    """Yield for columns of texts in a frame each column as it is written, and what is wrong with each of its cells.

    It does for a frame what :func:`feature_cells` does for a record. A number is a Float64, a faulty cell is null.
    """
    for name, kind in columns.items():
        cells = pl.col(name)
        if kind == "token_seq":
            cells = cells.str.replace_all(r"\s+", " ").str.strip_chars(" ")
        numbers = cells.str.strip_chars().cast(pl.Float64, strict=False)
        reasons = [(cells.str.contains(_FORBIDDEN), UNREADABLE), (cells.str.len_chars() > _LONGEST, TOO_LONG)]
        if kind == "float":
            reasons = [((cells != "") & ~numbers.is_finite().fill_null(False), "no finite number")]
        fault = pl.coalesce(pl.when(found).then(pl.lit(f"column '{name}': {reason}")) for found, reason in reasons)
        yield pl.when(fault.is_null()).then(numbers if kind == "float" else cells).alias(name), fault


def _token(value: str) -> str:
    if _FORBIDDEN_PATTERN.search(value):
        raise BadRowError(UNREADABLE)
    if len(value) > _LONGEST:
        raise BadRowError(TOO_LONG)
    return value
