"""What the writer writes, what it refuses, and what is left when it fails."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from made import FILES, Made, contents, frame, rejected, text, write

from recbole_xling.convert import Filters, ProfileSetting
from recbole_xling.convert.base import Item, SourceLocation, User
from recbole_xling.convert.reading.rejects import Rejects
from recbole_xling.convert.writing.dataset import write_dataset
from recbole_xling.errors import ConfigError, DataError
from recbole_xling.testing import check_dataset, check_loading
from recbole_xling.text.record import ItemText
from recbole_xling.text.store import ItemTextStore

INTERACTION = ("u1", "a", 1.0, 2.0)


def test_all_files_and_the_report_are_written(tmp_path: Path) -> None:
    report = write(tmp_path)
    folder = tmp_path / "d"
    assert report.folder == folder
    assert (report.users, report.items, report.interactions, report.rows_read) == (3, 2, 2, 1000)
    assert report.items_per_language == {"de": 1, "zh": 1}
    assert report.texts_per_language == {"de": 1, "en": 1, "zh": 1}
    assert report.rejected == report.removed == report.filters == {}
    assert set(contents(folder)) == FILES
    assert (folder / "d.inter").read_bytes() == (
        b"user_id:token\titem_id:token\trating:float\ttimestamp:float\n"
        b"u2\tb\t3.0\t881250949\nu1\ta\t4.5\t1000000000000000000\n"
    )
    assert (folder / "d.item").read_bytes() == (
        b"item_id:token\titem_language:token\tyear:token\tgenres:token_seq\tprice:float\n"
        b"a\tde\t1995\tSci-Fi War\t2.5\nb\tzh\t\t\t\n"
    )
    assert (folder / "d.user").read_bytes() == b"user_id:token\tage:token\nu1\t24\nu2\t\nu3\t\n"
    expected = [ItemText(t.item_id, t.language, t.fields, t.source) for t in Made().records["texts"]]
    assert list(ItemTextStore.load(folder / "d.itemtext.jsonl").texts()) == expected
    figures = json.loads((folder / "d.convert.json").read_text(encoding="utf-8"))
    assert figures["source"] == "made" and figures["items_per_language"] == {"de": 1, "zh": 1}


def test_no_name_or_id_is_taken_for_a_pattern_or_a_compressed_file(tmp_path: Path) -> None:
    options = {"user_profile": ProfileSetting(), "filters": Filters(user_core=1)}
    users = [User("x^"), User("u1")]  # polars takes what begins with "x^" for zlib
    clicks = [frame(("x^", "b", 3.0, 1.0), ("u1", "a", 4.5, 2.0))]
    report = write(tmp_path / "d[1]", users=users, interactions=clicks, options=options)
    assert (report.users, report.interactions) == (2, 2)
    assert (tmp_path / "d[1]/d/d.inter").read_text().splitlines()[1] == "x^\tb\t3.0\t1"
    assert (tmp_path / "d[1]/d/d.user").read_text().splitlines()[1].startswith("x^\t")


def test_other_files_stay_and_own_files_are_replaced(tmp_path: Path) -> None:
    write(tmp_path, interactions=[frame(INTERACTION, ("u1", "x", 1.0, 2.0))])
    folder = tmp_path / "d"
    assert set(contents(folder)) == FILES | {"d.rejects.jsonl"}
    (folder / "titles.tsv").write_text("mine", encoding="utf-8")
    report = write(tmp_path, users=[], texts=[], interactions=[frame(("u9", "b"))])
    assert set(contents(folder)) == {"d.inter", "d.item", "d.convert.json", "titles.tsv"}
    assert (folder / "d.inter").read_bytes() == b"user_id:token\titem_id:token\nu9\tb\n"
    assert report.users == 1


def test_users_whom_the_source_does_not_describe_keep_their_interactions(tmp_path: Path) -> None:
    converter = Made(
        users=[User("u2", {"age": "24"})],
        interactions=[frame(("u2", "b", 3.0, 1.0), ("u9", "a", 4.0, 2.0), ("u1", "a", 4.0, 3.0))],
    )
    report = write_dataset(converter, tmp_path, "d", show_progress=False)
    assert (tmp_path / "d/d.user").read_text() == "user_id:token\tage:token\nu2\t24\nu1\t\nu9\t\n"
    check_loading(report, tmp_path)


def test_the_order_of_the_source_is_kept_over_many_batches(tmp_path: Path) -> None:
    batches = [frame(*((f"u{i * 7919 % 1000}", "ab"[i % 2], i % 9 / 2, float(i)) for i in range(k, k + 500)))
               for k in range(0, 5000, 500)]  # fmt: skip
    write(tmp_path, users=[], interactions=batches)
    lines = (tmp_path / "d" / "d.inter").read_text(encoding="utf-8").splitlines()[1:]
    assert lines == [f"u{i * 7919 % 1000}\t{'ab'[i % 2]}\t{i % 9 / 2}\t{i}" for i in range(5000)]


@pytest.mark.parametrize(
    ("records", "location", "reason"),
    [
        ({"interactions": [frame(INTERACTION, ("u1", "x", 1.0, 2.0))]}, ("made.csv", 3), "an unknown item"),
        ({"interactions": [frame(("null", "a", 1.0, 2.0), INTERACTION)]}, ("made.csv", 2), "missing value"),
        ({"interactions": [frame((None, "a", 1.0, 2.0), INTERACTION)]}, ("made.csv", 2), "missing value"),
        ({"interactions": [frame(("", "a", 1.0, 2.0), INTERACTION)]}, ("made.csv", 2), "missing value"),
        ({"interactions": [frame(INTERACTION, ("[PAD]", "a", 1.0, 2.0))]}, ("made.csv", 3), "uses for padding"),
        ({"interactions": [frame(INTERACTION, ("u\x1b[2J", "a", 1.0, 2.0))]}, ("made.csv", 3), "a control character"),
        ({"interactions": [frame(INTERACTION, ("u\x9b", "a", 1.0, 2.0))]}, ("made.csv", 3), "a control character"),
        ({"items": [*Made().records["items"], Item("[PAD]", "de")]}, ("made", 0), "uses for padding"),
        ({"items": [*Made().records["items"], Item("c\x07", "de")]}, ("made", 0), "a control character"),
        ({"users": [User("u1"), User("\x85", location=SourceLocation("u", 3))]}, ("u", 3), "a control character"),
        ({"interactions": [frame(INTERACTION, ("u\t1", "a", 1.0, 2.0))]}, ("made.csv", 3), "a tab"),
        ({"interactions": [frame(INTERACTION, ('"u1', "a", 1.0, 2.0))]}, ("made.csv", 3), "a quote at the start"),
        ({"interactions": [frame(INTERACTION, ("u" * 131_073, "a", 1.0, 2.0))]}, ("made.csv", 3), "131,072 characters"),
        ({"interactions": [frame(INTERACTION, ("u1", "a", float("nan"), 2.0))]}, ("made.csv", 3), "as rating"),
        ({"interactions": [frame(INTERACTION, ("u1", "a", 1.0, None))]}, ("made.csv", 3), "as timestamp"),
        ({"items": [*Made().records["items"], Item("c\td", "de")]}, ("made", 0), "a tab"),
        ({"items": [*Made().records["items"], Item('"a', "de")]}, ("made", 0), "a quote at the start"),
        ({"items": [*Made().records["items"], Item("", "de")]}, ("made", 0), "missing value"),
        (
            {"items": [*Made().records["items"], Item("NA", "de", location=SourceLocation("i", 7))]},
            ("i", 7),
            "missing value",
        ),
        ({"items": [*Made().records["items"], Item("a", "en")]}, ("made", 0), "second row of the same item"),
        ({"users": [User("u1"), User("u1", location=SourceLocation("u", 3))]}, ("u", 3), "second row of the same user"),
        ({"texts": [text("x", "de", "x", line=5)]}, ("texts.csv", 5), "a text of an unknown item"),
        ({"texts": [text("a", "en", "x", line=5)]}, ("texts.csv", 5), "another language than its item's"),
        ({"texts": [text("a", "de", "x\0")]}, ("made", 0), "a NUL or half a surrogate"),
        ({"texts": [text("a", "de", "\ud83d")]}, ("made", 0), "a NUL or half a surrogate"),
        ({"texts": [text("a", "de", "x"), text("a", "de", "y", line=9)]}, ("texts.csv", 9), "a second text"),
    ],
)
def test_a_bad_row_is_listed_and_the_others_are_written(
    tmp_path: Path, records: dict[str, list[Any]], location: tuple[str, int], reason: str
) -> None:
    report = write(tmp_path, **records)
    ((file, line, found),) = rejected(tmp_path / "d" / "d.rejects.jsonl")
    assert (file, line) == location
    assert reason in found and report.rejected == {found: 1}
    with pytest.raises(DataError, match=r"1 of 99 rows are bad.*d\.rejects\.jsonl"):
        write(tmp_path / "too many", rows=99, **records)
    assert {path.name for path in (tmp_path / "too many").iterdir()} == {"d.rejects.jsonl"}
    assert rejected(tmp_path / "too many" / "d.rejects.jsonl") == [(*location, found)]
    before = contents(tmp_path / "d")
    with pytest.raises(DataError, match="--strict"):
        write(tmp_path, options={"strict": True}, **records)
    assert contents(tmp_path / "d") == before


PRICED = {"year": "1995", "genres": ("War",), "price": "15"}


@pytest.mark.parametrize(
    ("changed", "reason", "row"),
    [
        ({"price": "$15.00"}, "column 'price': no finite number", "c\ten\t1995\tWar\t"),
        ({"price": "—"}, "column 'price': no finite number", "c\ten\t1995\tWar\t"),
        ({"price": "inf"}, "column 'price': no finite number", "c\ten\t1995\tWar\t"),
        ({"year": "19\n95"}, "column 'year': a tab, a line break", "c\ten\t\tWar\t15"),
        ({"year": "\ud800"}, "column 'year': a tab, a line break", "c\ten\t\tWar\t15"),
        ({"year": "1" * 131_073}, "column 'year': a value of more than 131,072", "c\ten\t\tWar\t15"),
        ({"genres": ("a b",)}, "column 'genres': an element of a sequence", "c\ten\t1995\t\t15"),
    ],
)
def test_a_bad_cell_costs_neither_the_item_nor_its_interactions(
    tmp_path: Path, changed: dict[str, Any], reason: str, row: str
) -> None:
    records = {
        "items": [Item("c", "en", PRICED | changed, SourceLocation("items.csv", 7))],
        "interactions": [frame(("u1", "c", 1.0, 1.0))],
        "texts": [text("c", "en", "C")],
    }
    report = write(tmp_path, rows=1, options={"max_bad": 0.0}, **records)
    assert (report.items, report.interactions, report.rejected) == (1, 1, {})
    ((file, line, found),) = rejected(tmp_path / "d" / "d.rejects.jsonl")
    assert (file, line) == ("items.csv", 7) and found.startswith(reason) and report.omitted == {found: 1}
    assert f"left out of rows that stay: {found} 1; they are listed in" in "\n".join(report.lines())
    assert (tmp_path / "d" / "d.item").read_text(encoding="utf-8").splitlines()[1] == row
    check_loading(report, tmp_path)
    with pytest.raises(DataError, match="--strict"):
        write(tmp_path, options={"strict": True}, **records)


def test_a_bad_cell_of_a_user_is_left_out(tmp_path: Path) -> None:
    report = write(tmp_path, users=[User("u1", {"age": "\r"}), User("u2", {"age": "24"})])
    assert (tmp_path / "d" / "d.user").read_text() == "user_id:token\tage:token\nu1\t\nu2\t24\n"
    assert list(report.omitted.values()) == [1] and report.rejected == {}


def test_an_item_without_text_keeps_the_language_that_is_stated(tmp_path: Path) -> None:
    texts = [text("a", "de", "", line=5), text("a", "en", "", "parallel", line=6), text("b", "zh", "活着")]
    report = write(tmp_path, texts=texts, options={"clean": str.strip})
    assert (report.omitted, report.rejected) == ({"an empty text": 2}, {})
    assert rejected(tmp_path / "d" / "d.rejects.jsonl") == [
        ("texts.csv", 5, "an empty text"),
        ("texts.csv", 6, "an empty text"),
    ]
    store = ItemTextStore.load(tmp_path / "d" / "d.itemtext.jsonl")
    assert [(t.item_id, t.language, t.fields, t.source) for t in store.texts()] == [
        ("b", "zh", {"title": "活着"}, "display"),
        ("a", "de", {"title": ""}, "display"),
    ]
    assert report.items_per_language == {"de": 1, "zh": 1}
    check_dataset(report)


def test_a_text_goes_before_an_empty_one_of_the_same_item(tmp_path: Path) -> None:
    write(tmp_path, texts=[text("a", "de", ""), text("a", "de", "Müll"), text("b", "zh", "")])
    store = ItemTextStore.load(tmp_path / "d" / "d.itemtext.jsonl")
    assert [(t.item_id, t.fields["title"]) for t in store.texts()] == [("a", "Müll"), ("b", "")]


def test_further_columns_of_the_interactions_are_checked_and_written(tmp_path: Path) -> None:
    class Events(Made):
        interaction_fields = {"event": "token", "weight": "float", "tags": "token_seq"}

    cells = pl.DataFrame(
        {
            "event": ["view", "a\tb", None, ""],
            "weight": ["2.50", "3", "$4", None],
            "tags": ["x  y", "", None, " z"],
        }
    )
    rows = [("u1", "a", 1.0, 1.0), ("u1", "b", 2.0, 2.0), ("u2", "a", 3.0, 3.0), ("u2", "b", 4.0, 4.0)]
    report = write_dataset(
        Events(interactions=[frame(*rows).hstack(cells)]), tmp_path, "d", max_bad=0.0, show_progress=False
    )
    assert (tmp_path / "d" / "d.inter").read_text() == (
        "user_id:token\titem_id:token\trating:float\ttimestamp:float\tevent:token\tweight:float\ttags:token_seq\n"
        "u1\ta\t1\t1\tview\t2.5\tx y\nu1\tb\t2\t2\t\t3.0\t\nu2\ta\t3\t3\t\t\t\nu2\tb\t4\t4\t\t\tz\n"
    )
    assert (report.interactions, report.rejected, sum(report.omitted.values())) == (4, {}, 2)
    assert [bad[:2] for bad in rejected(tmp_path / "d" / "d.rejects.jsonl")] == [("made.csv", 3), ("made.csv", 4)]
    check_loading(report, tmp_path)


def test_the_list_of_a_failed_run_goes_with_the_next_one(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="are bad"):
        write(tmp_path, rows=9, texts=[text("x", "de", "x")])
    write(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["d"]
    assert set(contents(tmp_path / "d")) == FILES


@pytest.mark.parametrize(
    ("records", "message"),
    [
        ({"items": [Item("a", "de", {"year": ("1", "2")})]}, "made: 'a': column 'year'.*must be a text"),
        ({"items": [Item("a", "de", {"color": "red"})]}, "column 'color' is not declared"),
        ({"items": []}, "no items"),
        ({"interactions": []}, "no interactions"),
        ({"interactions": [frame(("u1", "a", 1.0)), frame(("u1", "b"))]}, "all batches must have the same"),
        ({"interactions": [frame(("u1", "a")).drop("line")]}, "all batches must have the same"),
        ({"interactions": [frame(("u1", "a")).with_columns(x=1)]}, "all batches must have the same"),
        ({"texts": [text("a", "de", "x", "shown")]}, "unknown source"),
    ],
)
def test_a_converter_that_breaks_its_promise_fails_and_nothing_is_written(
    tmp_path: Path, records: dict[str, list[Any]], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        write(tmp_path, **records)
    assert list(tmp_path.iterdir()) == []
    write(tmp_path)
    before = contents(tmp_path / "d")
    with pytest.raises(DataError, match=message):
        write(tmp_path, **records)
    assert contents(tmp_path / "d") == before


def test_texts_are_cleaned(tmp_path: Path) -> None:
    write(tmp_path, options={"clean": str.strip}, texts=[text("a", "de", " Müll "), text("b", "zh", "活着")])
    store = ItemTextStore.load(tmp_path / "d" / "d.itemtext.jsonl")
    assert [t.fields["title"] for t in store.texts()] == ["Müll", "活着"]


def test_columns_must_be_distinct_and_of_a_known_type(tmp_path: Path) -> None:
    class Shared(Made):
        user_fields = {"year": "token"}

    class Odd(Made):
        item_fields = {"year": "text"}

    class Twice(Made):
        interaction_fields = {"age": "token"}

    class Rating(Made):
        interaction_fields = {"rating": "float"}

    class Line(Made):
        interaction_fields = {"line": "token"}

    class Polyglot(Made):
        user_fields = {"user_language": "token_seq"}

    for converter, message in [
        (Shared(), "'year' appears twice"),
        (Odd(), "'year:text'"),
        (Twice(), "'age' appears twice"),
        (Rating(), "'rating' appears twice"),
        (Line(), "'line' of the interactions needs another name"),
        (Polyglot(), "'user_language' must be of type token"),
    ]:
        with pytest.raises(DataError, match=message):
            write_dataset(converter, tmp_path, "d", show_progress=False)


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", ".hidden"])
def test_names_that_are_not_folder_names_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="not a name for a dataset"):
        write_dataset(Made(), tmp_path / "root", name, show_progress=False)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["interactions", "items", "users", "texts"])
@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError("gone")])
def test_an_interrupted_source_leaves_the_previous_dataset(tmp_path: Path, kind: str, error: BaseException) -> None:
    write(tmp_path, items=[Item("a", "en"), Item("b", "en")], texts=[])
    before = contents(tmp_path / "d")
    with pytest.raises(type(error)):
        write(tmp_path, **{kind: [*Made().records[kind][:1], error]})
    assert contents(tmp_path / "d") == before


@pytest.mark.parametrize("move", [1, 2, 3, 4, 5])
def test_a_failure_between_two_moves_is_undone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, move: int) -> None:
    write(tmp_path, items=[Item("a", "en"), Item("b", "en")], texts=[])
    folder = tmp_path / "d"
    before = contents(folder)
    replace, moves = os.replace, 0

    def fail_once(source: Any, target: Any) -> None:
        nonlocal moves
        if Path(source).parent.name == "new" and Path(target).parent == folder:
            moves += 1
            if moves == move:
                raise OSError("disk full")
        replace(source, target)

    monkeypatch.setattr(os, "replace", fail_once)
    with pytest.raises(OSError, match="disk full"):
        write(tmp_path)
    assert contents(folder) == before
    write(tmp_path)
    assert set(contents(folder)) == FILES


def test_two_runs_at_a_time_are_refused(tmp_path: Path) -> None:
    pytest.importorskip("fcntl")

    class Nested(Made):
        def items(self, rejects: Rejects) -> Iterator[Item]:
            with pytest.raises(DataError, match="another process is writing"):
                write(tmp_path)
            return super().items(rejects)

    assert write_dataset(Nested(), tmp_path, "d", show_progress=False).items == 2
    assert set(contents(tmp_path / "d")) == FILES
