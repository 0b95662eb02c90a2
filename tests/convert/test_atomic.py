from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from recbole_xling.convert.atomic import write_dataset
from recbole_xling.convert.base import Converter, Interaction, Item, User
from recbole_xling.errors import ConfigError, DataError
from recbole_xling.text.record import ItemText
from recbole_xling.text.store import ItemTextStore


class Made(Converter):
    """A converter of given records; an exception among them is raised."""

    name = "made"
    item_fields = {"year": "token", "genres": "token_seq", "price": "float"}
    user_fields = {"age": "token"}

    def __init__(self, **records: list[Any]) -> None:
        super().__init__()
        default: dict[str, list[Any]] = {
            "interactions": [Interaction("u2", "b", 3.0, 881250949.0), Interaction("u1", "a", 4.5, 1e18)],
            "items": [Item("a", "de", {"year": "1995", "genres": ("Sci-Fi", "War"), "price": "2.50"}), Item("b", "zh")],
            "users": [User("u1", {"age": "24"}), User("u2"), User("u3")],
            "texts": [
                ItemText("a", "de", {"title": "Müll"}, "display"),
                ItemText("a", "en", {"title": "Waste"}, "parallel"),
                ItemText("b", "zh", {"title": "活着"}, "display"),
            ],
        }
        self.records = default | records

    def _yield(self, kind: str) -> Iterator[Any]:
        for record in self.records[kind]:
            if isinstance(record, BaseException):
                raise record
            yield record

    def interactions(self) -> Iterator[Interaction]:
        return self._yield("interactions")

    def items(self) -> Iterator[Item]:
        return self._yield("items")

    def users(self) -> Iterator[User]:
        return self._yield("users")

    def texts(self) -> Iterator[ItemText]:
        return self._yield("texts")


FILES = {"d.inter", "d.item", "d.user", "d.itemtext.jsonl"}


def write(root: Path, **records: list[Any]) -> Any:
    return write_dataset(Made(**records), root, "d", show_progress=False)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_files_and_report(tmp_path: Path) -> None:
    report = write(tmp_path)
    folder = tmp_path / "d"
    assert report.folder == folder
    assert (report.users, report.items, report.interactions, report.unknown_items) == (3, 2, 2, 0)
    assert report.items_per_language == {"de": 1, "zh": 1}
    assert report.texts_per_language == {"de": 1, "en": 1, "zh": 1}
    assert set(contents(folder)) == FILES
    assert (folder / "d.inter").read_bytes() == (
        b"user_id:token\titem_id:token\trating:float\ttimestamp:float\n"
        b"u2\tb\t3\t881250949\nu1\ta\t4.5\t1000000000000000000\n"
    )
    assert (folder / "d.item").read_bytes() == (
        b"item_id:token\titem_language:token\tyear:token\tgenres:token_seq\tprice:float\n"
        b"a\tde\t1995\tSci-Fi War\t2.5\nb\tzh\t\t\t\n"
    )
    assert (folder / "d.user").read_bytes() == b"user_id:token\tage:token\nu1\t24\nu2\t\nu3\t\n"
    assert list(ItemTextStore.load(folder / "d.itemtext.jsonl").texts()) == Made().records["texts"]


def test_other_files_stay_and_own_files_are_replaced(tmp_path: Path) -> None:
    write(tmp_path)
    folder = tmp_path / "d"
    (folder / "titles.tsv").write_text("mine", encoding="utf-8")
    report = write(tmp_path, users=[], texts=[], interactions=[Interaction("u9", "b")])
    assert set(contents(folder)) == {"d.inter", "d.item", "titles.tsv"}
    assert (folder / "d.inter").read_bytes() == b"user_id:token\titem_id:token\nu9\tb\n"
    assert report.users == 1


def test_interactions_with_items_that_are_not_there_are_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    met = [Interaction("u1", "x"), Interaction("u1", "a"), Interaction("u2", "x"), Interaction("u2", "y")]
    assert write(tmp_path, interactions=met).unknown_items == 2
    assert "2 items with interactions are not in the .item file" in caplog.text


@pytest.mark.parametrize(
    ("records", "message"),
    [
        ({"items": [Item("a\tb", "de")]}, r"item 'a\\tb'.*leading quotes"),
        ({"items": [Item('"a', "de")]}, "leading quotes"),
        ({"items": [Item("", "de")]}, "missing value"),
        ({"items": [Item("NA", "de")]}, "missing value"),
        ({"items": [Item("a", "nan")]}, "missing value"),
        ({"items": [Item("a", "german")]}, "no BCP 47 tag"),
        ({"items": [Item("a", "de"), Item("a", "en")]}, "item 'a' appears twice"),
        ({"items": [Item("a", "de", {"year": "19\n95"})]}, "column 'year'.*line breaks"),
        ({"items": [Item("a", "de", {"year": "\0"})]}, "column 'year'"),
        ({"items": [Item("a", "de", {"year": "\ud800"})]}, "column 'year'"),
        ({"items": [Item("a", "de", {"year": ("1", "2")})]}, "must be a text"),
        ({"items": [Item("a", "de", {"genres": ("a b",)})]}, "holds no space"),
        ({"items": [Item("a", "de", {"genres": "a b"})]}, "holds no space"),
        ({"items": [Item("a", "de", {"price": "cheap"})]}, "no finite number"),
        ({"items": [Item("a", "de", {"colour": "red"})]}, "column 'colour' is not declared"),
        ({"items": []}, "no items"),
        ({"users": [User("u1"), User("u1")]}, "user 'u1' appears twice"),
        ({"users": [User("u1", {"age": "\r"})]}, "column 'age'"),
        ({"interactions": []}, "no interactions"),
        ({"interactions": [Interaction("null", "a")]}, "interaction 1: .*missing value"),
        ({"interactions": [Interaction("u1", "a", 1.0), Interaction("u1", "b")]}, "interaction 2 has .*all or none"),
        ({"interactions": [Interaction("u1", "a", float("nan"))]}, "no finite number"),
        ({"texts": [ItemText("x", "de", {"title": "x"}, "display")]}, "no such item"),
        ({"texts": [ItemText("a", "en", {"title": "x"}, "display")]}, "item's language is 'de'"),
        ({"texts": [ItemText("a", "de", {"title": "x"}, "shown")]}, "d.itemtext.jsonl: record 1: unknown source"),
        ({"texts": [ItemText("a", "de", {"title": "x"}, "display")] * 2}, "record 2: .*twice"),
    ],
)
def test_a_wrong_record_is_named_and_nothing_is_written(
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


def test_columns_must_be_distinct_and_of_a_known_type(tmp_path: Path) -> None:
    class Shared(Made):
        user_fields = {"year": "token"}

    class Odd(Made):
        item_fields = {"year": "text"}

    for converter, message in [(Shared(), "'year' appears twice"), (Odd(), "'year:text'")]:
        with pytest.raises(DataError, match=message):
            write_dataset(converter, tmp_path, "d", show_progress=False)


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", ".hidden"])
def test_names_that_are_no_folder_names(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="no name for a data set"):
        write_dataset(Made(), tmp_path / "root", name, show_progress=False)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["interactions", "items", "users", "texts"])
@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError("gone")])
def test_an_interrupted_source_leaves_the_previous_data_set(tmp_path: Path, kind: str, error: BaseException) -> None:
    write(tmp_path, items=[Item("old", "en")], texts=[])
    before = contents(tmp_path / "d")
    with pytest.raises(type(error)):
        write(tmp_path, **{kind: [*Made().records[kind][:1], error]})
    assert contents(tmp_path / "d") == before


@pytest.mark.parametrize("move", [1, 2, 3, 4])
def test_a_failure_between_two_moves_is_undone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, move: int) -> None:
    write(tmp_path, items=[Item("old", "en")], texts=[])
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


def write_and_die(root: Path, step: int) -> bool:
    """Write the data set in a process that dies at its ``step``-th change to the disk; tell whether it did."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) != 0
    steps = 0

    def deadly(function: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            nonlocal steps
            steps += 1
            if steps == step:
                os._exit(9)
            return function(*args, **kwargs)

        return wrapped

    for name in ("replace", "fsync", "link", "unlink", "rmdir", "mkdir"):
        setattr(os, name, deadly(getattr(os, name)))
    Path.write_text = deadly(Path.write_text)  # type: ignore[method-assign]
    write(root, users=[])
    os._exit(0)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_killed_run_leaves_whole_files_and_is_undone_by_the_next_run(tmp_path: Path) -> None:
    write(tmp_path / "new", users=[])
    new = contents(tmp_path / "new" / "d")
    outcomes = []
    for step in range(1, 200):
        write(tmp_path, items=[Item("old", "en")], texts=[])
        folder = tmp_path / "d"
        old = contents(folder)
        died = write_and_die(tmp_path, step)
        seen = {path.name: path.read_bytes() for path in folder.iterdir() if not path.name.startswith(".")}
        assert set(seen) <= FILES
        assert all(content in (old.get(name), new.get(name)) for name, content in seen.items())
        with pytest.raises(DataError, match="no items"):
            write(tmp_path, items=[])
        after = contents(folder)
        assert after in (old, new)
        outcomes.append(after == new)
        if not died:
            break
    assert outcomes == sorted(outcomes)  # up to some step the old data set, from there on the new one
    assert outcomes.count(False) > 10
    assert outcomes[-1]


def test_two_runs_at_a_time_are_refused(tmp_path: Path) -> None:
    pytest.importorskip("fcntl")

    class Nested(Made):
        def items(self) -> Iterator[Item]:
            with pytest.raises(DataError, match="another process is writing"):
                write(tmp_path)
            return super().items()

    assert write_dataset(Nested(), tmp_path, "d", show_progress=False).items == 2
    assert set(contents(tmp_path / "d")) == FILES
