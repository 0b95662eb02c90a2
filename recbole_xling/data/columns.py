"""Columns of the ``.user`` and ``.item`` files, read raw and whether or not ``load_col`` names them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from recbole_xling.errors import ConfigError, unknown_name
from recbole_xling.text.raw_tables import table_rows, text_lines

MIXED = "mixed"
"""The value of several users or items that differ in it."""

_ID_FIELDS = {"user": "USER_ID_FIELD", "item": "ITEM_ID_FIELD"}
_KINDS = ("token", "token_seq")


def column_kinds(path: Path, separator: str) -> dict[str, str]:
    """Return the columns of an atomic file with their types (``token``, ``float_seq``); none if there is no file."""
    if not path.is_file():
        return {}
    header = next((line for _, line in text_lines(path)), "")
    return {name: kind for name, _, kind in (cell.partition(":") for cell in header.split(separator))}


def read_cells(path: Path, id_field: str, name: str, separator: str) -> dict[str, str]:
    """Return the cells of a column by the ids of their rows; of several rows with an id the first counts.

    Raises:
        DataError: a column is missing or a row is wrong; the message names file and line.
    """
    cells: dict[str, str] = {}
    for _, (row_id, cell) in table_rows(path, [id_field, name], separator=separator):
        cells.setdefault(row_id, cell.strip())
    return cells


@dataclass(frozen=True)
class SliceColumn:
    """A column by which results are sliced.

    Attributes:
        of: ``user`` or ``item``.
        cells: of each user or item in the order of its ids, empty where it has none.
        separator: between the values of a cell; None if a cell is one value.
    """

    of: str
    cells: Sequence[str]
    separator: str | None = None

    @property
    def dtype(self) -> Any:
        """Type of the column in a table of results."""
        return pl.String if self.separator is None else pl.List(pl.String)

    def value(self, ids: Iterable[int]) -> str | list[str] | None:
        """Return what some users or items have in common.

        That is a list of all values that each of them has, or, if a cell is one value, this value, ``mixed`` if they
        differ, and None if they have none.
        """
        cells = {self.cells[number] for number in ids}
        if self.separator is not None:
            return sorted(set.intersection(*(set(cell.split(self.separator)) - {""} for cell in cells)))
        return (cells.pop() or None) if len(cells) == 1 else MIXED


def check_slices(config: Any) -> None:
    """Check that the columns of ``slice_by`` exist and have values that can be counted.

    Args:
        config: ``slice_by``, ``data_path``, ``dataset`` and ``field_separator`` are read.

    Raises:
        ConfigError: one does not; the message names those that do.
    """
    for name in config["slice_by"] or ():
        kind, _, column = name.partition(".")
        kinds = {
            f"{of}.{found}": type_
            for of, id_field in _ID_FIELDS.items()
            for found, type_ in column_kinds(_file(config, of), config["field_separator"]).items()
            if found != config[id_field]
        }
        if name not in kinds:
            there = [found for found, type_ in kinds.items() if type_ in _KINDS]
            where = "the .user and .item files have no column to slice by" if not there else ""
            raise ConfigError(f"slice_by: {where or unknown_name('column', name, there)}")
        if kinds[name] not in _KINDS:
            raise ConfigError(
                f"slice_by: column '{column}' of '{_file(config, kind)}' is of type {kinds[name] or 'nothing'}, but "
                "only columns of type token and token_seq have values to slice by: write ranges as a token column"
            )


def slice_columns(config: Any, user_tokens: Sequence[str], item_tokens: Sequence[str]) -> dict[str, SliceColumn]:
    """Read the columns of ``slice_by``, by their names there.

    Args:
        config: as for :func:`check_slices`.
        user_tokens: external ids in the order of internal ids.
        item_tokens: the same of the items.

    Raises:
        ConfigError: as :func:`check_slices` says.
        DataError: a row of the file is wrong.
    """
    check_slices(config)
    columns, separator = {}, config["field_separator"]
    for name in dict.fromkeys(config["slice_by"] or ()):
        kind, _, column = name.partition(".")
        path = _file(config, kind)
        cells = read_cells(path, config[_ID_FIELDS[kind]], column, separator)
        several = column_kinds(path, separator)[column] == "token_seq"
        tokens = user_tokens if kind == "user" else item_tokens
        of_ids = [cells.get(token, "") for token in tokens]
        columns[name] = SliceColumn(kind, of_ids, config["seq_separator"] if several else None)
    return columns


def item_values(config: Any, column: str, item_tokens: Sequence[str]) -> list[str]:
    """Read a column of tokens of the ``.item`` file, empty where an item has none.

    Args:
        config: ``data_path``, ``dataset``, ``ITEM_ID_FIELD`` and ``field_separator`` are read.
        column: its name.
        item_tokens: external ids in the order of internal ids.

    Raises:
        ConfigError: there is no such column; the message names those that there are.
        DataError: a row of the file is wrong.
    """
    path, separator = _file(config, "item"), config["field_separator"]
    known = [
        name
        for name, kind in column_kinds(path, separator).items()
        if kind == "token" and name != config["ITEM_ID_FIELD"]
    ]
    if column not in known:
        raise ConfigError(unknown_name(f"column of type token in {path}", column, known))
    cells = read_cells(path, config["ITEM_ID_FIELD"], column, separator)
    return [cells.get(token, "") for token in item_tokens]


def _file(config: Any, kind: str) -> Path:
    return Path(config["data_path"]) / f"{config['dataset']}.{kind}"
