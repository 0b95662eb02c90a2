"""Filters do what a few lines of plain Python do, and items and users follow the interactions."""

from __future__ import annotations

import argparse
import tempfile
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made import contents, frame, text, write

from recbole_xling.convert.base import Item, User
from recbole_xling.convert.writing import interactions as interactions_module
from recbole_xling.convert.writing.filters import Filters
from recbole_xling.convert.writing.interactions import InteractionTable
from recbole_xling.convert.writing.times import Date, time_argument
from recbole_xling.errors import ConfigError, DataError

Row = tuple[str, str, float, float]
LANGUAGES = {"a": "zh", "b": "zh-Hant", "c": "en", "d": "und"}
rows = st.lists(
    st.tuples(st.sampled_from("uvwxy"), st.sampled_from("abcd"), st.sampled_from([1.0, 3.0, 5.0]), st.integers(0, 4)),
    max_size=40,
)
some_filters = st.builds(
    Filters,
    since=st.none() | st.sampled_from([0.0, 1.0]),
    until=st.none() | st.sampled_from([3.0, 9.0]),
    languages=st.sampled_from([(), ("zh",), ("zh", "en"), ("zh-Hant",), ("fr",)]),
    duplicates=st.sampled_from(["all", "first", "last"]),
    min_rating=st.none() | st.sampled_from([2.0, 5.0]),
    user_core=st.integers(0, 4),
    item_core=st.integers(0, 4),
)


def reference(table: list[Row], filters: Filters) -> list[Row]:
    """What stays, in plain Python."""
    kept = list(enumerate(table))
    if filters.since is not None:
        kept = [(i, row) for i, row in kept if row[3] >= filters.since]
    if filters.until is not None:
        kept = [(i, row) for i, row in kept if row[3] < filters.until]
    if filters.languages:
        tags = filters.languages
        stay = {
            item for item, language in LANGUAGES.items() if any(f"{language}-".startswith(f"{tag}-") for tag in tags)
        }
        kept = [(i, row) for i, row in kept if row[1] in stay]
    if filters.duplicates != "all":
        best = min if filters.duplicates == "first" else max
        places = {best((row[3], i) for i, row in kept if row[:2] == pair)[1] for pair in {row[:2] for _, row in kept}}
        kept = [(i, row) for i, row in kept if i in places]
    if filters.min_rating is not None:
        kept = [(i, row) for i, row in kept if row[2] >= filters.min_rating]
    while True:
        users, items = (Counter(row[column] for _, row in kept) for column in (0, 1))
        enough = [(i, row) for i, row in kept
                  if users[row[0]] >= filters.user_core and items[row[1]] >= filters.item_core]  # fmt: skip
        if enough == kept:
            return [row for _, row in kept]
        kept = enough


def filtered(table: list[Row], filters: Filters, folder: Path, batch: int) -> tuple[list[Row], dict[str, int]]:
    interactions = InteractionTable(folder)
    for start in range(0, len(table), batch):
        interactions.append(frame(*table[start : start + batch]).drop("file", "line"))
    if not table:
        interactions.columns = ["user_id", "item_id", "rating", "timestamp"]
    removed = filters.apply(interactions, LANGUAGES)
    left = interactions.scan().collect().drop("row").rows() if interactions.rows else []
    assert len(left) == interactions.rows
    return left, removed


@settings(max_examples=150)
@given(rows, some_filters, st.integers(1, 12), st.integers(1, 30))
def test_filters_agree_with_plain_python(table: list[Row], filters: Filters, batch: int, pairs: int) -> None:
    table = [(user, item, rating, float(time)) for user, item, rating, time in table]
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(interactions_module, "_ROWS_AT_A_TIME", pairs)
        left, removed = filtered(table, filters, Path(folder), batch)
    assert left == reference(table, filters)
    assert sum(removed.values()) == len(table) - len(left)


def test_without_times_the_order_of_the_source_tells_which_is_the_first(tmp_path: Path) -> None:
    table = frame(("u", "a", 1.0), ("u", "b", 2.0), ("u", "a", 3.0))
    for duplicates, ratings in (("first", [1.0, 2.0]), ("last", [2.0, 3.0])):
        interactions = InteractionTable(tmp_path / duplicates)
        interactions.folder.mkdir()
        interactions.append(table.drop("file", "line"))
        assert Filters(duplicates=duplicates).apply(interactions, LANGUAGES) == {"duplicates": 1}
        assert interactions.scan().collect()["rating"].to_list() == ratings


RECORDS = {
    "items": [Item("a", "de"), Item("b", "en"), Item("c", "de"), Item("d", "de")],
    "users": [User("u"), User("v"), User("w"), User("x")],
    "texts": [text(item, language, item) for item, language in (("a", "de"), ("b", "en"), ("c", "de"), ("d", "de"))],
    "interactions": [frame(("u", "a", 5.0), ("u", "b", 5.0), ("u", "a", 1.0), ("v", "a", 4.0), ("w", "c", 2.0))],
}


@pytest.mark.parametrize(
    ("filters", "interactions", "items", "users", "removed"),
    [
        (Filters(), 5, "abcd", "uvwx", {}),
        (Filters(min_rating=4), 3, "abcd", "uvwx", {"min_rating": 2}),
        (Filters(languages=("de",)), 4, "acd", "uvwx", {"languages": 1}),
        (Filters(item_core=2), 3, "a", "uvwx", {"core": 2}),
        (Filters(user_core=2), 3, "abcd", "u", {"core": 2}),
        (Filters(languages=("de",), user_core=1, item_core=1), 4, "ac", "uvw", {"languages": 1}),
    ],
)
def test_items_texts_and_users_follow_the_interactions(
    tmp_path: Path, filters: Filters, interactions: int, items: str, users: str, removed: dict[str, int]
) -> None:
    report = write(tmp_path, options={"filters": filters}, **RECORDS)
    assert (report.interactions, report.items, report.users) == (interactions, len(items), len(users))
    assert report.removed == removed
    assert sum(report.items_per_language.values()) == sum(report.texts_per_language.values()) == len(items)
    for suffix, ids in (("item", items), ("user", users)):
        lines = (tmp_path / "d" / f"d.{suffix}").read_text(encoding="utf-8").splitlines()[1:]
        assert "".join(line.partition("\t")[0] for line in lines) == ids
    texts = (tmp_path / "d" / "d.itemtext.jsonl").read_text(encoding="utf-8").splitlines()
    assert "".join(line[13] for line in texts) == items


def test_filters_that_leave_nothing_or_do_not_fit_the_source_are_refused(tmp_path: Path) -> None:
    write(tmp_path, **RECORDS)
    before = contents(tmp_path / "d")
    for filters, kind, message in [
        (Filters(min_rating=6), DataError, "filters left no interaction.*'min_rating': 5"),
        (Filters(since=1), ConfigError, "since is set, but the source has no timestamps"),
    ]:
        with pytest.raises(kind, match=message):
            write(tmp_path, options={"filters": filters}, **RECORDS)
        assert contents(tmp_path / "d") == before


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"duplicates": "none"}, "all, first, last"),
        ({"languages": ("de", "xx")}, "'xx' names no language"),
        (
            {"since": 1704067200123.0, "until": 1704067200122.0},
            r"\(1704067200123\) must be before until \(1704067200122\)",
        ),
        ({"since": Date(2), "until": Date(1)}, "must be before"),
        ({"user_core": -1}, "user_core"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Filters(**settings)


def test_languages_of_a_filter_are_normalized() -> None:
    assert Filters(languages=("DE", "German", "zh-TW")).languages == ("de", "zh-Hant")


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        ("2015-01-31", 1422662400.0),
        ("2015-01-31T12:00:00Z", 1422705600.0),
        ("2015-01-31 12:00:00+02:00", 1422698400.0),
        ("881250949", 881250949.0),
        ("1e9", 1e9),
    ],
)
def test_a_time_is_a_number_or_an_iso_date(written: str, seconds: float) -> None:
    assert time_argument(written) == seconds


@pytest.mark.parametrize("written", ["nan", "31.1.2015", "", "2015_01_31"])
def test_all_else_is_no_time(written: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="is not a time"):
        time_argument(written)


def test_only_a_date_is_a_date() -> None:
    assert [isinstance(time_argument(text), Date) for text in ("2015-01-31", "1422662400")] == [True, False]
