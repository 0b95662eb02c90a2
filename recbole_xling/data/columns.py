"""Columns of the ``.user`` and ``.item`` files, read raw and whether or not ``load_col`` names them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from recbole_xling.errors import ConfigError, DataError, unknown_name
from recbole_xling.language.users import BILINGUAL, LANGUAGE_SOURCE
from recbole_xling.text.atomic_files import file_format, read_atomic_file, read_header

MIXED = "mixed"
"""The value of several users or items that differ in it."""

_ID_FIELDS = {"user": "USER_ID_FIELD", "item": "ITEM_ID_FIELD"}
_KINDS = ("token", "token_seq")


def column_kinds(path: Path, config: Any) -> dict[str, str]:
    """Return the columns of an atomic file with their types (``token``, ``float_seq``); none if there is no file.

    Raises:
        DataError: its first line does not name columns and types.
    """
    return read_header(path, **file_format(config)) if path.is_file() else {}


def read_cells(path: Path, id_field: str, name: str, config: Any) -> dict[str, str]:
    """Return the cells of a column by the ids of their rows; of several rows with an id the first counts.

    Raises:
        DataError: a column is missing or a row is wrong; the message names file and line.
    """
    file = read_atomic_file(path, [id_field, name], **file_format(config))
    for column in (id_field, name):
        if column not in file.types:
            raise DataError(f"{path}: no column '{column}'; its columns are {', '.join(column_kinds(path, config))}")
    cells: dict[str, str] = {}
    for row_id, cell in file.cells.select(pl.col(id_field, name).fill_null("")).iter_rows():
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
        config: ``slice_by``, ``data_path``, ``dataset``, ``field_separator`` and ``encoding`` are read.

    Raises:
        ConfigError: one does not; the message names those that do.
        DataError: the first line of a file is wrong.
    """
    for name in config["slice_by"] or ():
        kind, _, column = name.partition(".")
        kinds = {
            f"{of}.{found}": type_
            for of, id_field in _ID_FIELDS.items()
            for found, type_ in column_kinds(_file(config, of), config).items()
            if found != config[id_field]
        }
        if name not in kinds:
            there = [found for found, type_ in kinds.items() if type_ in _KINDS]
            where = "the .user and .item files have no column to slice by" if not there else ""
            raise ConfigError(f"slice_by: {where or unknown_name('column', name, there)} (slice_by: [] for no column)")
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
    columns = {}
    for name in dict.fromkeys(config["slice_by"] or ()):
        kind, _, column = name.partition(".")
        path = _file(config, kind)
        cells = read_cells(path, config[_ID_FIELDS[kind]], column, config)
        several = column_kinds(path, config)[column] == "token_seq"
        tokens = user_tokens if kind == "user" else item_tokens
        of_ids = [cells.get(token, "") for token in tokens]
        columns[name] = SliceColumn(kind, of_ids, config["seq_separator"] if several else None)
    return columns


def stated_bilingual(config: Any) -> dict[str, str]:
    """Return what the ``.user`` file says about users by their ids: whether they are bilingual, ``yes`` or ``no``.

    Profiles of ``convert --user-profile`` go by the languages of display texts, which users who state a language may
    not see, so theirs are left out.

    Args:
        config: ``data_path``, ``dataset``, ``USER_ID_FIELD``, ``field_separator`` and ``encoding`` are read.

    Raises:
        DataError: a row of the file is wrong.
    """
    path = _file(config, "user")
    if BILINGUAL not in column_kinds(path, config):
        return {}
    cells, source = read_cells(path, config["USER_ID_FIELD"], BILINGUAL, config), dict[str, str]()
    if LANGUAGE_SOURCE in column_kinds(path, config):
        source = read_cells(path, config["USER_ID_FIELD"], LANGUAGE_SOURCE, config)
    return {user: cell for user, cell in cells.items() if cell in ("yes", "no") and source.get(user) != "stated"}


def item_values(config: Any, column: str, item_tokens: Sequence[str]) -> list[str]:
    """Read a column of tokens of the ``.item`` file, empty where an item has none.

    Args:
        config: ``data_path``, ``dataset``, ``ITEM_ID_FIELD``, ``field_separator`` and ``encoding`` are read.
        column: its name.
        item_tokens: external ids in the order of internal ids.

    Raises:
        ConfigError: there is no such column; the message names those that there are.
        DataError: a row of the file is wrong.
    """
    path = _file(config, "item")
    known = [
        name for name, kind in column_kinds(path, config).items() if kind == "token" and name != config["ITEM_ID_FIELD"]
    ]
    if column not in known:
        raise ConfigError(unknown_name(f"column of type token in {path}", column, known))
    cells = read_cells(path, config["ITEM_ID_FIELD"], column, config)
    return [cells.get(token, "") for token in item_tokens]


def _file(config: Any, kind: str) -> Path:
    return Path(config["data_path"]) / f"{config['dataset']}.{kind}"
