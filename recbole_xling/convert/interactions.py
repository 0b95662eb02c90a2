"""Interactions of a source: checked batch by batch; the good ones become parts, the bad ones rejects."""

from __future__ import annotations

from collections.abc import Collection

import polars as pl
from tqdm import tqdm

from recbole_xling.convert.base import FILE, Converter
from recbole_xling.convert.cells import bad_ids
from recbole_xling.convert.parts import NUMBERS, Parts
from recbole_xling.convert.read.rejects import Rejects
from recbole_xling.convert.read.table import LINE
from recbole_xling.errors import DataError

_REASON = "reason"
_SCHEMA = {"user_id": pl.String, "item_id": pl.String, "rating": pl.Float64, "timestamp": pl.Float64}
_SCHEMA |= {FILE: pl.String, LINE: pl.Int64}


def read_interactions(
    converter: Converter, parts: Parts, items: Collection[str], rejects: Rejects, *, show_progress: bool = True
) -> None:
    """Read all interactions of a source into ``parts``.

    Bad ones go to ``rejects``: an unknown item, an id that RecBole cannot read back, a rating or time that is missing
    or not finite.

    Args:
        converter: the source.
        parts: where the good rows go.
        items: ids of all items.
        rejects: takes the bad rows.
        show_progress: show a progress bar.

    Raises:
        DataError: the converter yields other columns than it should.
    """
    known = pl.DataFrame({"item_id": list(items)}, schema={"item_id": pl.String}).with_columns(is_known=True)
    columns: list[str] | None = None
    with tqdm(desc="interactions", unit=" rows", unit_scale=True, disable=not show_progress) as bar:
        for batch in converter.interactions(rejects):
            columns = _checked_columns(converter, batch, columns)
            checked = batch.cast({name: _SCHEMA[name] for name in columns}).join(
                known, on="item_id", how="left", maintain_order="left"
            )
            checked = checked.with_columns(_reason(columns).alias(_REASON))
            _reject(checked.filter(pl.col(_REASON).is_not_null()), columns, rejects)
            good = checked.filter(pl.col(_REASON).is_null())
            parts.append(good.select(name for name in columns if name not in (FILE, LINE)))
            bar.update(batch.height)


def _checked_columns(converter: Converter, batch: pl.DataFrame, before: list[str] | None) -> list[str]:
    columns = [name for name in _SCHEMA if name in batch.columns]
    missing = [name for name in _SCHEMA if name not in NUMBERS and name not in columns]
    if missing or set(batch.columns) - set(_SCHEMA) or (before is not None and columns != before):
        raise DataError(
            f"{converter.name}: interactions with the columns {', '.join(batch.columns)}; "
            f"all batches must have the same ones of {', '.join(_SCHEMA)}"
        )
    return columns


def _reason(columns: list[str]) -> pl.Expr:
    """Return why a row is bad, null where it is good."""
    reasons = [bad_ids("user_id"), bad_ids("item_id")]
    for name in NUMBERS:
        if name in columns:
            finite = pl.col(name).is_finite().fill_null(False)
            reasons.append(pl.when(~finite).then(pl.lit(f"no finite number as {name}")))
    reasons.append(pl.when(pl.col("is_known").is_null()).then(pl.lit("an unknown item")))
    return pl.coalesce(reasons)


def _reject(bad: pl.DataFrame, columns: list[str], rejects: Rejects) -> None:
    shown = [name for name in columns if name not in (FILE, LINE)]
    for row in bad.iter_rows(named=True):
        cells = " ".join(str(row[name]) for name in shown)
        rejects.add(row[FILE], row[LINE], row[_REASON], cells)
