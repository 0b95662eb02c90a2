"""Shopping sessions of Amazon-M2, with the list of items as NumPy prints it, or as a list of Parquet."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import polars as pl

from recbole_xling.convert.read.records import PARQUET_ERRORS, Batches, open_table
from recbole_xling.convert.read.rejects import Rejects
from recbole_xling.convert.read.table import LINE, Column
from recbole_xling.errors import DataError, unknown_name

_SESSIONS_AT_A_TIME = 100_000
_REASON = "reason of rejection"
_ITEM = r"[^\s,'\[\]]+"
_PRINTED = rf"^\s*\[(?:[\s,]*'{_ITEM}')*\s*\]\s*$"  # beyond 1000 elements NumPy prints dots, which do not match


def read_sessions(path: Path, locales: list[str], rejects: Rejects, *, has_next: bool) -> Iterator[pl.DataFrame]:
    """Yield sessions in batches: ``items`` (a list of ids, in order), ``locale`` and the line.

    Args:
        path: CSV, compressed or not, or Parquet.
        locales: those that are known.
        rejects: takes sessions with a broken list, an unknown locale, or without their next item.
        has_next: the sessions have a ``next_item``, which becomes the last one of the list.

    Raises:
        DataError: the file cannot be read or lacks a column.
    """
    names = ["prev_items", "locale", *(["next_item"] if has_next else [])]
    for frame in _batches(path, names, rejects):
        items = _items(frame)
        reasons = [
            pl.when(items.is_null()).then(pl.lit("no whole list of items in column 'prev_items'")),
            pl.when(~pl.col("locale").is_in(locales).fill_null(False)).then(pl.lit("an unknown locale")),
        ]
        if has_next:
            no_next = pl.col("next_item").fill_null("") == ""
            reasons.append(pl.when(no_next).then(pl.lit("nothing in column 'next_item'")))
            items = pl.concat_list(items, "next_item")
        checked = frame.with_columns(items.alias("items"), pl.coalesce(reasons).alias(_REASON))
        for row in checked.filter(pl.col(_REASON).is_not_null()).iter_rows(named=True):
            rejects.add(path, row[LINE], row[_REASON], " ".join(str(row[name]) for name in names))
        yield checked.filter(pl.col(_REASON).is_null()).select("items", "locale", LINE)


def _items(frame: pl.DataFrame) -> pl.Expr:
    """Return the lists of items; null where a list is broken, cut short by NumPy, or lacks an element."""
    listed = pl.col("prev_items")
    if frame.schema["prev_items"] == pl.String:
        return pl.when(listed.str.contains(_PRINTED)).then(listed.str.extract_all(_ITEM))
    lacks_one = listed.list.eval(pl.element().fill_null("") == "").list.any()
    return pl.when(~lacks_one).then(listed)


def _batches(path: Path, names: list[str], rejects: Rejects) -> Batches | Iterator[pl.DataFrame]:
    """Yield the columns as they are in the file, and the line."""
    if path.suffix != ".parquet":
        return open_table(path, {name: Column(name) for name in names}, rejects)
    return _parquet_batches(path, names, rejects)


def _parquet_batches(path: Path, names: list[str], rejects: Rejects) -> Iterator[pl.DataFrame]:
    rejects.begin(path)
    try:
        file = pl.scan_parquet(path)
        schema, height = file.collect_schema(), file.select(pl.len()).collect().item()
        absent = next((name for name in names if name not in schema), None)
        if absent is not None:
            raise DataError(f"{path}: {unknown_name('column', absent, schema)}")
        kinds: dict[str, pl.DataType] = dict.fromkeys(names, pl.String())
        if isinstance(schema["prev_items"], (pl.List, pl.Array)):
            kinds["prev_items"] = pl.List(pl.String())
        for start in range(0, height, _SESSIONS_AT_A_TIME):
            frame = (
                file.slice(start, _SESSIONS_AT_A_TIME)
                .select(pl.col(name).cast(kind) for name, kind in kinds.items())
                .collect()
            )
            rejects.saw(path, frame.height)
            yield frame.with_columns(pl.int_range(start + 1, start + 1 + frame.height, eager=True).alias(LINE))
    except PARQUET_ERRORS as error:
        raise DataError(f"{path} cannot be read ({error}); is it a complete Parquet file?") from error
