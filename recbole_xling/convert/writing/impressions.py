"""Impressions: the candidates that were shown together, and which of them were clicked."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import polars as pl

from recbole_xling.convert.base import Converter
from recbole_xling.convert.cells import header
from recbole_xling.convert.reading.rejects import Rejects
from recbole_xling.convert.writing.filters import Filters
from recbole_xling.utils.files import polars_os_errors

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
    """Write the impressions of a source batch by batch; return their number. Without impressions no file is written.

    Kept are those of the time range and of users who stay. Candidates that have left the dataset are left out, and so
    are impressions that have no other ones.

    Args:
        converter: the source.
        path: of the new file.
        rejects: takes the bad rows, which it has seen with the interactions already.
        items: ids of the items that stay.
        users: ids of the users who stay.
        filters: their range of time is used.
    """
    kept_items = pl.DataFrame({"item_id": list(items)}, {"item_id": pl.String})
    kept_users = users.to_frame("user_id")
    number = 0
    with polars_os_errors(path), open(path, "wb") as file:
        file.write(f"{header(_COLUMNS)}\n".encode())
        for batch in converter.impressions(rejects):
            kept = batch.join(kept_users, on="user_id", how="semi", maintain_order="left")
            if filters.since is not None:
                kept = kept.filter(pl.col("timestamp") >= filters.since)
            if filters.until is not None:
                kept = kept.filter(pl.col("timestamp") < filters.until)
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
