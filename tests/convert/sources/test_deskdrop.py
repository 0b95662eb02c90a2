"""DeskDrop in the layout of Kaggle."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from dumps.deskdrop import write
from made import lines

from recbole_xling.convert import ConvertReport, Filters
from recbole_xling.convert.sources.deskdrop import DeskDrop
from recbole_xling.errors import ConfigError, DataError
from recbole_xling.text.record import ItemText
from recbole_xling.text.store import ItemTextStore

Convert = Callable[..., ConvertReport]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "deskdrop"
    folder.mkdir()
    write(folder)
    return folder


def test_events_have_weights_and_articles_texts(source: Path, tmp_path: Path, convert: Convert) -> None:
    report = convert(DeskDrop(input=source))
    assert (report.users, report.items, report.interactions, report.rejected) == (3, 3, 7, {})
    assert report.items_per_language == {"en": 1, "pt": 1, "und": 1}
    assert not report.arbitrary_order
    assert lines(tmp_path, "inter") == [
        "user_id:token\titem_id:token\trating:float\ttimestamp:float\tevent:token",
        "-8\t-1\t1.0\t1465413032\tVIEW",
        "-8\t-1\t2.0\t1465413040\tLIKE",
        "-8\t2\t4.0\t1465413050\tCOMMENT_CREATED",
        "9\t3\t0.0\t1465413060\tDISLIKE",
        "9\t2\t2.5\t1465413070\tBOOKMARK",
        "9\t-1\t3.0\t1465413080\tFOLLOW",
        "10\t2\t1.0\t1465413090\tWAVE",
    ]
    store = ItemTextStore.load(tmp_path / "out" / "d" / "d.itemtext.jsonl")
    english = {"title": 'Ethereum, a "chain" again', "text": "One text,\nwith two lines"}
    assert store.display("-1") == ItemText("-1", "en", english, "display")
    assert store.display("2") == ItemText("2", "pt", {"title": "Cidades de amanhã", "text": "Um texto"}, "display")
    assert report.notes == (
        "1 events with articles that articles.csv does not have are left out",
        "1 events of a kind without a weight count as views",
    )


def test_the_first_event_with_an_article_may_stand_for_all(source: Path, tmp_path: Path, convert: Convert) -> None:
    report = convert(DeskDrop(input=source), filters=Filters(duplicates="first", languages=("en", "pt")))
    assert (report.items, report.interactions) == (2, 5)
    assert lines(tmp_path, "inter")[1].startswith("-8\t-1\t1")


def test_the_published_name_of_the_articles_is_known(source: Path, convert: Convert) -> None:
    (source / "articles.csv").rename(source / "shared_articles.csv")
    assert convert(DeskDrop(input=source)).items == 3


def test_missing_files_are_named(source: Path, convert: Convert) -> None:
    with pytest.raises(ConfigError, match="deskdrop needs --input"):
        DeskDrop()
    (source / "articles.csv").unlink()
    with pytest.raises(DataError, match=r"articles\.csv"):
        convert(DeskDrop(input=source))
