"""MIND's ``behaviors.tsv``: what users were shown, what of it they clicked, and what they had clicked before.

A row has impression id, user, time, history and candidates; ``N1-1`` is a candidate that was clicked, ``N2-0`` one
that was not. The history is the same on all rows of a user.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from recbole_xling.convert.cells import bad_ids
from recbole_xling.convert.reading.compressed import expected_file
from recbole_xling.convert.reading.rejects import FILE, LINE, Rejects
from recbole_xling.convert.reading.text_table import Column, Layout, TextTable

FILE_NAME = "behaviors.tsv"
_LAYOUT = Layout(separator="\t", quote=None, names=("impression id", "user", "time", "history", "impressions"))
_COLUMNS = {
    "impression id": Column("impression"),
    "user": Column("user"),
    "time": Column("time", required=False),
    "history": Column("history", required=False),
    "impressions": Column("candidates"),
}
_TIME = "%m/%d/%Y %I:%M:%S %p"
_ROWS_AT_A_TIME = 10_000  # with their candidates they take ten times the memory


@dataclass(frozen=True, slots=True)
class Edition:
    """The news in one language and their readers.

    Attributes:
        language: BCP 47 tag.
        prefix: put before all ids, empty for the only edition.
        folders: of ``news.tsv`` and ``behaviors.tsv``, earlier ones first; if there are several, their names go before
            the ids of the impressions, which start from 1 in each.
    """

    language: str
    prefix: str
    folders: tuple[Path, ...]


def read_readers(edition: Edition, news: pl.DataFrame, rejects: Rejects) -> pl.DataFrame:
    """Return the users in the order of the file.

    Args:
        edition: the files.
        news: all news, in the column ``item_id``.
        rejects: takes the bad rows.

    Returns:
        Columns ``user_id`` and ``start``: the time of the user's first impression in Unix seconds (the times are taken
        as UTC), null for all users if the edition has no times.
    """
    readers = pl.DataFrame(schema={"user_id": pl.String, "start": pl.Int64})
    for frame in _rows(edition, news, rejects, timed=False):
        met = pl.concat([readers, frame.select("user_id", start="time")])
        readers = met.group_by("user_id", maintain_order=True).agg(pl.col("start").min())
    return readers.drop_nulls("start") if is_timed(readers) else readers


def is_timed(readers: pl.DataFrame) -> bool:
    """Tell whether the edition of these readers has times."""
    return readers["start"].count() > 0


def read_impressions(
    edition: Edition, news: pl.DataFrame, readers: pl.DataFrame, rejects: Rejects
) -> Iterator[pl.DataFrame]:
    """Yield the impressions in the order of the file.

    Without times, a running number per user replaces them: one for each click of the history, then one for each
    impression.

    Args:
        edition: the files.
        news: all news, in the column ``item_id``.
        readers: all users, as :func:`read_readers` returns them.
        rejects: takes the bad rows; if the edition has times, also those without one.

    Returns:
        Columns ``impression_id``, ``user_id``, ``timestamp`` (Int64), ``item_id`` and ``label`` (lists of the
        candidates and of 1 for clicked, else 0; empty where all are unknown), ``history`` (a list of items),
        ``history_end`` (the time stamp that comes after the history), ``is_first`` (of the user), ``is_other`` (the
        history is not that of the first impression), ``file`` and ``line``.
    """
    timed = is_timed(readers)
    seen = pl.DataFrame(schema={"user_id": pl.String, "before": pl.Int64, "clicks": pl.Int64, "known": pl.UInt64})
    for frame in _rows(edition, news, rejects, timed=timed):
        clicks, hashed = pl.col("history").list.len().cast(pl.Int64), pl.col("history").list.join(" ").hash()
        frame = frame.join(seen, on="user_id", how="left", maintain_order="left").with_columns(
            nth=pl.col("before").fill_null(0) + pl.int_range(pl.len()).over("user_id"),
            clicks=pl.col("clicks").fill_null(clicks.first().over("user_id")),
            known=pl.col("known").fill_null(hashed.first().over("user_id")),
        )
        now = frame.group_by("user_id").agg(
            before=pl.col("nth").max() + 1, clicks=pl.col("clicks").first(), known=pl.col("known").first()
        )
        seen = pl.concat([seen.join(now, on="user_id", how="anti"), now])
        yield frame.join(readers, on="user_id", how="left", maintain_order="left").select(
            "impression_id",
            "user_id",
            "item_id",
            "label",
            "history",
            FILE,
            LINE,
            timestamp="time" if timed else pl.col("clicks") + pl.col("nth") + 1,
            history_end="start" if timed else pl.col("clicks") + 1,
            is_first=pl.col("nth") == 0,
            is_other=pl.col("known") != hashed,
        )


def interactions_of(impressions: pl.DataFrame) -> pl.DataFrame:
    """Return each user's history, once and first, and the clicked candidates of each impression."""
    columns = ["user_id", "item_id", "timestamp", FILE, LINE]
    length, end = pl.col("history").list.len().cast(pl.Int64), pl.col("history_end")
    history = impressions.filter("is_first", pl.col("history").list.len() > 0).select(
        "user_id", FILE, LINE, item_id="history", timestamp=pl.int_ranges(end - length, end)
    )
    clicks = impressions.select("user_id", "item_id", "label", "timestamp", FILE, LINE).explode("item_id", "label")
    both = [
        history.explode("item_id", "timestamp").select(columns),
        clicks.filter(pl.col("label") == 1).select(columns),
    ]
    return pl.concat(both).sort(LINE, maintain_order=True).cast({"timestamp": pl.Float64})


def _rows(edition: Edition, news: pl.DataFrame, rejects: Rejects, *, timed: bool) -> Iterator[pl.DataFrame]:
    """Yield the good rows of all folders with their cells taken apart, and the columns ``file`` and ``line``."""
    raw = [column.name for column in _COLUMNS.values()]
    for folder in edition.folders:
        part = f"{folder.name}:" if len(edition.folders) > 1 else ""
        path = expected_file(folder, FILE_NAME)
        for block in TextTable(path, _COLUMNS, rejects, layout=_LAYOUT):
            for frame in block.iter_slices(_ROWS_AT_A_TIME):
                parsed = _parsed(frame, edition.prefix, part)
                reasons = {
                    "a candidate that does not end in -0 or -1": pl.col("is_malformed"),
                    "no candidates": pl.col("item_id").list.len() == 0,
                    "no time like 11/11/2019 9:05:58 AM": pl.col("is_no_time"),
                    "no time, though other impressions have one": pl.col("time").is_null() & pl.lit(timed),
                }
                unknown = {
                    "unknown news in the history": pl.col(LINE).is_in(_with_unknown(parsed, "history", news)),
                    "unknown news among the candidates": pl.col(LINE).is_in(_with_unknown(parsed, "item_id", news)),
                }
                found = [pl.when(bad).then(pl.lit(reason)) for reason, bad in (reasons | unknown).items()]
                unusable = pl.any_horizontal(*reasons.values(), bad_ids("impression_id").is_not_null())
                why, is_unusable = parsed.select(
                    pl.coalesce(bad_ids("impression_id"), bad_ids("user_id"), *found).alias("why"),
                    (unusable | bad_ids("user_id").is_not_null()).alias("is unusable"),
                )
                rejects.sift(frame, [pl.lit(why)], lambda row: "\t".join(row[name] or "" for name in raw), path)
                good = parsed.filter(~is_unusable).drop("is_malformed", "is_no_time")
                if why.count() > is_unusable.sum():
                    good = _of_known(good, news)
                yield good.with_columns(pl.lit(str(path)).alias(FILE))


def _parsed(frame: pl.DataFrame, prefix: str, part: str) -> pl.DataFrame:
    """Take the cells apart; ``is_malformed`` and ``is_no_time`` tell where that is impossible."""
    word, before = pl.element(), pl.lit(prefix)
    history = pl.col("history").fill_null("").str.split(" ").list.eval(before + word.filter(word != ""))
    candidates = pl.col("candidates").str.split(" ").list.eval(word.filter(word != ""))
    is_clicked, is_skipped = word.str.ends_with("-1"), word.str.ends_with("-0")
    time = pl.col("time").str.to_datetime(_TIME, strict=False, time_unit="us").dt.epoch("s")
    return frame.select(
        LINE,
        impression_id=pl.lit(prefix + part) + pl.col("impression"),
        user_id=before + pl.col("user"),
        time=time,
        history=history,
        item_id=candidates.list.eval(before + word.str.head(-2)),
        label=candidates.list.eval(is_clicked.cast(pl.Int8)),
        is_malformed=(candidates.list.eval(is_clicked | is_skipped).list.all()).not_(),
        is_no_time=pl.col("time").is_not_null() & time.is_null(),
    )


def _of_known(impressions: pl.DataFrame, news: pl.DataFrame) -> pl.DataFrame:
    """Return impressions without unknown news; those in which nothing is known are left out."""

    def known(*lists: str, item: str) -> pl.DataFrame:
        rows = (
            impressions.select(LINE, *lists)
            .explode(lists)
            .join(news, left_on=item, right_on="item_id", how="semi", maintain_order="left")
        )
        return rows.group_by(LINE, maintain_order=True).agg(lists)

    left = impressions.drop("item_id", "label", "history")
    left = left.join(known("item_id", "label", item="item_id"), on=LINE, how="left", maintain_order="left")
    left = left.join(known("history", item="history"), on=LINE, how="left", maintain_order="left")
    left = left.with_columns(pl.col("item_id", "label", "history").fill_null([])).select(impressions.columns)
    return left.filter(pl.any_horizontal(pl.col("item_id", "history").list.len() > 0))


def _with_unknown(parsed: pl.DataFrame, column: str, news: pl.DataFrame) -> list[int]:
    """Return the lines that name unknown news."""
    ids = parsed.select(LINE, item_id=column).explode("item_id").drop_nulls()
    return ids.join(news, on="item_id", how="anti")[LINE].unique().to_list()
