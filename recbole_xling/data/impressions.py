"""Impressions: reading ``<dataset>.imp``, and the users' histories before a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recbole_xling.errors import DataError, unknown_name
from recbole_xling.utils.arguments import parse_iso_time

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]

_COLUMNS = ("impression_id", "user_id", "timestamp", "item_id", "label")
_BLOCK = 1 << 23  # bytes read at a time
_is_label = pl.element().cast(pl.Float64, strict=False).is_in([0.0, 1.0]).fill_null(False)


class Interactions(NamedTuple):
    """All interactions of a dataset in the order of its file, ``(n,)`` each.

    Internal ids, and times; None where the dataset has none.
    """

    users: IntArray
    items: IntArray
    times: FloatArray | None


@dataclass(frozen=True)
class Impressions:
    """Some impressions; their candidates are in one array, one impression after the other.

    Attributes:
        impression_ids, user_tokens: external ids, ``(m,)``.
        users: internal ids, 0 for users without an interaction, ``(m,)``.
        times: ``(m,)``.
        sizes: number of candidates, ``(m,)``.
        items: internal ids of all candidates, ``(n,)``.
        clicked: which of them were clicked, ``(n,)``.
    """

    impression_ids: NDArray[np.str_]
    user_tokens: NDArray[np.str_]
    users: IntArray
    times: FloatArray
    sizes: IntArray
    items: IntArray
    clicked: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.sizes)

    @property
    def impression_of_candidate(self) -> IntArray:
        """Number of the impression of each candidate, ``(n,)``."""
        return np.repeat(np.arange(len(self)), self.sizes)

    @property
    def n_clicked(self) -> IntArray:
        """Number of clicked candidates, ``(m,)``."""
        return np.bincount(self.impression_of_candidate[self.clicked], minlength=len(self))

    def where(self, mask: NDArray[np.bool_]) -> Impressions:
        """Return the impressions that a mask ``(m,)`` selects."""
        candidates = np.repeat(mask, self.sizes)
        return Impressions(
            impression_ids=self.impression_ids[mask],
            user_tokens=self.user_tokens[mask],
            users=self.users[mask],
            times=self.times[mask],
            sizes=self.sizes[mask],
            items=self.items[candidates],
            clicked=self.clicked[candidates],
        )


# ---- reading --------------------------------------------------------------------------------------------------


def impressions_file(folder: Path, dataset: str) -> Path:
    """Return the file of a dataset's impressions.

    Raises:
        DataError: the dataset has no such file.
    """
    path = folder / f"{dataset}.imp"
    if not path.is_file():
        raise DataError(
            f"'{dataset}' has no impressions ('{path}' does not exist). The converter 'mind' writes that file; "
            "leave --impressions out to rank all items"
        )
    return path


def read_impressions(
    path: Path, user_tokens: Sequence[str], item_tokens: Sequence[str | None]
) -> Iterator[Impressions]:
    """Yield the impressions of a file block by block.

    Args:
        path: the file; its columns are described in ``docs/converting.md``.
        user_tokens: external ids in the order of internal ids, the padding user first.
        item_tokens: the same of the items; None for items that the dataset does not have.

    Raises:
        DataError: a column is missing, a row is malformed, or a candidate is not an item of the dataset.
    """
    users = pl.DataFrame({"user_id": user_tokens[1:], "user": np.arange(1, len(user_tokens))})
    items = pl.DataFrame(
        {"item_id": item_tokens[1:], "item": np.arange(1, len(item_tokens))}, schema_overrides={"item_id": pl.String}
    )
    with open(path, "rb") as file:
        names = [cell.split(":")[0] for cell in file.readline().decode("utf-8-sig").rstrip("\r\n").split("\t")]
        for name in _COLUMNS:
            if name not in names:
                raise DataError(f"{path}:1: {unknown_name('column', name, names)}")
        line = 2
        while lines := file.readlines(_BLOCK):
            rows = _read_rows(path, lines, names, line)
            line += len(lines)
            candidates = rows.select("impression_id", "item_id", "label").explode("item_id", "label")
            candidates = candidates.join(items, on="item_id", how="left", maintain_order="left")
            unknown = candidates.filter(pl.col("item").is_null())
            if unknown.height:
                impression_id, item_id = unknown.row(0)[:2]
                raise DataError(
                    f"{path}: impression {impression_id} shows '{item_id}', which is not an item of the dataset as it "
                    "is loaded: name item: [item_id] in load_col, so that items without interactions are loaded, and "
                    "leave filters out"
                )
            known = rows.join(users, on="user_id", how="left", maintain_order="left")["user"].fill_null(0)
            yield Impressions(
                impression_ids=rows["impression_id"].to_numpy(),
                user_tokens=rows["user_id"].to_numpy(),
                users=known.to_numpy().astype(np.int64),
                times=rows["timestamp"].to_numpy(),
                sizes=rows["item_id"].list.len().to_numpy().astype(np.int64),
                items=candidates["item"].to_numpy().astype(np.int64),
                clicked=candidates["label"].cast(pl.Float64).to_numpy() == 1,
            )


def _read_rows(path: Path, lines: list[bytes], names: list[str], first_line: int) -> pl.DataFrame:
    """Return the rows as text, numbers (times) and lists of text (candidates and labels).

    Raises:
        DataError: a row does not have one cell per name, or not one label per candidate.
    """
    try:
        table = "\t".join(names).encode() + b"\n" + b"".join(lines)
        rows = pl.read_csv(table, separator="\t", quote_char=None, infer_schema=False)
    except pl.exceptions.PolarsError as error:
        raise DataError(f"{path}, lines {first_line} to {first_line + len(lines) - 1}: {error}") from error
    columns = [pl.col(name).str.split(" ") if name in ("item_id", "label") else name for name in _COLUMNS]
    rows = rows.select(*columns, _number=_times(rows["timestamp"]))
    bad = pl.any_horizontal(pl.col(*_COLUMNS, "_number").is_null()) | ~pl.col("_number").is_finite()
    bad |= pl.col("item_id").list.len() != pl.col("label").list.len()
    bad |= ~pl.col("label").list.eval(_is_label).list.all()
    wrong = rows.select(bad.fill_null(True)).to_series().arg_true()
    if rows.height != len(lines) or len(wrong):
        where = first_line + (int(wrong[0]) if len(wrong) else 0)
        raise DataError(
            f"{path}:{where}: an impression has an id, a user, a time, and as many labels (0 or 1) as candidates, "
            "separated by tabs and spaces: convert the dataset again"
        )
    return rows.with_columns(timestamp="_number").drop("_number")


def _times(cells: pl.Series) -> pl.Series:
    """Return times as those of interactions are read: numbers, or dates as Unix seconds; null for what is neither."""
    numbers = cells.cast(pl.Float64, strict=False)
    if numbers.null_count() < len(numbers):
        return numbers
    dates = {text: parse_iso_time(text) for text in cells.unique().drop_nulls()}
    return cells.replace_strict(dates, default=None, return_dtype=pl.Float64)


# ---- histories ------------------------------------------------------------------------------------------------


class UserHistories:
    """Each user's items in order of time, in the order of the file where times are equal.

    Args:
        interactions: all interactions of the users; their times must be known.
        n_users: number of users, the padding user included.
    """

    def __init__(self, interactions: Interactions, n_users: int) -> None:
        users, items, times = interactions
        assert times is not None
        order = np.lexsort((times, users))
        self._items = items[order]
        self._start = np.searchsorted(users[order], np.arange(n_users))
        self._times = np.unique(times)
        self._key = self._keys(users[order], times[order])

    def _keys(self, users: IntArray, times: FloatArray) -> IntArray:
        """Return numbers that are in order of user, then time."""
        keys: IntArray = users * (len(self._times) + 1) + np.searchsorted(self._times, times)
        return keys

    def before(self, users: IntArray, times: FloatArray) -> tuple[IntArray, IntArray]:
        """Return where the histories before these times begin and end, ``(m,)`` each; equal times are not before."""
        return self._start[users], np.searchsorted(self._key, self._keys(users, times))

    def padded(self, start: IntArray, end: IntArray, max_length: int) -> tuple[IntArray, IntArray]:
        """Return the last items of histories ``(m, max_length)``, padded with 0 on the right, and their number."""
        length = np.minimum(end - start, max_length)
        steps = np.arange(max_length)
        inside = steps < length[:, None]
        where = np.where(inside, (end - length)[:, None] + steps, 0)
        return np.where(inside, self._items[where], 0), length
