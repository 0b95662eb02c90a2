"""Impressions: the candidates that were shown together, and which of them were clicked."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import polars as pl

from recbole_xling.convert.base import Converter
from recbole_xling.convert.reading.rejects import Rejects
from recbole_xling.convert.writing.cells import header
from recbole_xling.convert.writing.filters import Filters

_COLUMNS = {
    "impression_id": "token",
    "user_id": "token",
    "timestamp": "float",
    "item_id": "token_seq",
    "label": "float_seq",
}
_ROW = "row"


def write_impressions(
    converter: Converter,
    path: Path,
    rejects: Rejects,
    *,
    items: Collection[str],
    users: pl.Series,
    filters: Filters,
) -> int:
    """Write the impressions of a source batch by batch, no file where there are none; return their number.

    Kept are those of the time range and of users who stay. Candidates that are no items any more are left out, and
    with them impressions that have no other ones.

    Args:
        converter: the source.
        path: of the new file.
        rejects: has taken the bad rows before.
        items: ids of the items that stay.
        users: ids of the users who stay.
        filters: their range of time is used.
    """
    kept_items = pl.DataFrame({"item_id": list(items)}, {"item_id": pl.String})
    kept_users = users.to_frame("user_id")
    number = 0
    with open(path, "wb") as file:
        file.write(f"{header(_COLUMNS)}\n".encode())
        for batch in converter.impressions(rejects):
            kept = _in_range(batch, filters).join(kept_users, on="user_id", how="semi", maintain_order="left")
            candidates = kept.with_row_index(_ROW).explode("item_id", "label")
            candidates = candidates.join(kept_items, on="item_id", how="semi", maintain_order="left")
            rows = candidates.group_by(_ROW, "impression_id", "user_id", "timestamp", maintain_order=True).agg(
                pl.col("item_id").str.join(" "), pl.col("label").cast(pl.String).str.join(" ")
            )
            number += rows.height
            rows.select(list(_COLUMNS)).write_csv(file, include_header=False, separator="\t", quote_style="never")
    if not number:
        path.unlink()
    return number


def _in_range(batch: pl.DataFrame, filters: Filters) -> pl.DataFrame:
    if filters.since is not None:
        batch = batch.filter(pl.col("timestamp") >= filters.since)
    if filters.until is not None:
        batch = batch.filter(pl.col("timestamp") < filters.until)
    return batch
