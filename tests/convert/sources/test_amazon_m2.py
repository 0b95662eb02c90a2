"""Amazon-M2 as CSV and as Parquet, with and without test sessions."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from made import lines

from recbole_xling.convert import ConvertReport, write_dataset
from recbole_xling.convert.sources.amazon_m2 import AmazonM2
from recbole_xling.errors import ConfigError, DataError
from recbole_xling.text.record import ItemText
from recbole_xling.text.store import ItemTextStore

COLUMNS = ("id", "locale", "title", "price", "brand", "color", "size", "model", "material", "author", "desc")
PRODUCTS = [
    *((f"B{i:09}", "DE", f"Ding {i}", "9.99", '"Müller" AG' if i == 0 else "Müller", "rot") for i in range(8)),
    *((f"B{i:09}", "JP", f"もの {i}", "40000000.07", "", "") for i in range(6, 12)),
    *((f"B{i:09}", "UK", f"Thing {i}, 3.5\nlarge", "8.0", "Müller", "") for i in (0, 7, 12)),
]
SESSIONS = [([f"B{(i + j) % 13:09}" for j in range(2 + i)], f"B{(i * 5) % 13:09}", "DE JP UK".split()[i % 3])
            for i in range(12)]  # fmt: skip
TESTS = [(["B000000001", "B000000002"], "DE"), (["B000000012"], "UK")]


def products() -> pl.DataFrame:
    rows = [(*row, "10 cm", None, "Holz", None, "Beschreibung; lang") for row in PRODUCTS]
    return pl.DataFrame(rows, schema=dict.fromkeys(COLUMNS, pl.String), orient="row")


def printed(items: list[str]) -> str:
    return str(np.array(items, dtype=object))


def write_csv(folder: Path) -> None:
    """Write the files of KDD Cup; long sessions have line breaks in their lists, as NumPy makes them."""
    products().write_csv(folder / "products_train.csv")
    train = pl.DataFrame([(printed(items), *rest) for items, *rest in SESSIONS], orient="row")
    text = train.rename(dict(zip(train.columns, ("prev_items", "next_item", "locale"), strict=True))).write_csv()
    assert "'\n '" in text
    (folder / "sessions_train.csv.gz").write_bytes(gzip.compress(text.encode()))
    rows = "".join(f'"{printed(items)}",{locale}\n' for items, locale in TESTS)
    (folder / "sessions_test_task1.csv").write_text(f"prev_items,locale\n{rows}")


def write_parquet(folder: Path) -> None:
    products().write_parquet(folder / "products_train.parquet")
    pl.DataFrame(SESSIONS, schema=["prev_items", "next_item", "locale"], orient="row").write_parquet(
        folder / "sessions_train.parquet"
    )
    pl.DataFrame(TESTS, schema=["prev_items", "locale"], orient="row").write_parquet(
        folder / "sessions_test_task1.parquet"
    )


@pytest.fixture
def convert(tmp_path: Path) -> Callable[..., ConvertReport]:
    def convert(max_bad: float = 0.0, **options: bool) -> ConvertReport:
        converter = AmazonM2(input=tmp_path / "m2", **options)
        return write_dataset(converter, tmp_path / "out", "m2", max_bad=max_bad, show_progress=False)

    (tmp_path / "m2").mkdir()
    return convert


@pytest.mark.parametrize("write", [write_csv, write_parquet])
def test_both_layouts(write: Callable[[Path], None], convert: Callable[..., ConvertReport], tmp_path: Path) -> None:
    write(tmp_path / "m2")
    report = convert()
    assert (report.users, report.items, report.interactions, report.rejected) == (12, 13, 102, {})
    assert report.items_per_language == {"de": 8, "ja": 4, "en": 1}
    assert report.texts_per_language == {"de": 8, "ja": 6, "en": 3}
    assert report.rows_read == 12 + len(PRODUCTS)
    inter = lines(tmp_path, "inter")
    assert [inter[0], *inter[1:4], inter[10], inter[-1]] == [
        "user_id:token\titem_id:token\ttimestamp:float",
        "DE:0\tB000000000\t1",
        "DE:0\tB000000001\t2",
        "DE:0\tB000000000\t3",
        "UK:0\tB000000004\t3",
        "UK:3\tB000000003\t14",
    ]
    users = lines(tmp_path, "user")
    assert [users[0], users[1], users[10], users[-1]] == [
        "user_id:token\tuser_language:token\tsession_file:token",
        "DE:0\tde\tsessions_train",
        "DE:3\tde\tsessions_train",
        "UK:3\ten\tsessions_train",
    ]
    items = lines(tmp_path, "item")
    assert [items[0], items[1], items[10], items[-1]] == [
        "item_id:token\titem_language:token\tbrand:token",
        'B000000000\tde\tMüller" AG',
        "B000000009\tja\t",
        "B000000012\ten\tMüller",
    ]
    store = ItemTextStore.load(tmp_path / "out" / "m2" / "m2.itemtext.jsonl")
    rest = {"size": "10 cm", "material": "Holz", "description": "Beschreibung; lang"}
    german = {"title": "Ding 7", "brand": "Müller", "color": "rot"} | rest
    assert store.display("B000000007") == ItemText("B000000007", "de", german, "display")
    assert [text.language for text in store.parallel("B000000007")] == ["ja", "en"]
    english = store.text("B000000007", "en")
    assert english is not None and english.fields["title"] == "Thing 7, 3.5\nlarge"


@pytest.mark.parametrize("write", [write_csv, write_parquet])
def test_test_sessions_are_histories(
    write: Callable[[Path], None], convert: Callable[..., ConvertReport], tmp_path: Path
) -> None:
    write(tmp_path / "m2")
    report = convert(test_sessions=True)
    assert (report.users, report.interactions) == (14, 105)
    assert lines(tmp_path, "inter")[-3:] == ["DE:4\tB000000001\t1", "DE:4\tB000000002\t2", "UK:4\tB000000012\t1"]
    assert lines(tmp_path, "user")[-1] == "UK:4\ten\tsessions_test_task1"
    assert any("history" in note for note in report.notes)


def test_bad_rows(convert: Callable[..., ConvertReport], tmp_path: Path) -> None:
    write_csv(tmp_path / "m2")
    with open(tmp_path / "m2" / "products_train.csv", "a") as file:
        file.write("B000000001,DE,Twice,1,,,,,,,\nB000000001,UK,,,,,,,,,\nB77,XX,Elsewhere,1,,,,,,,\nB78,DE,short\n")
    sessions = [
        "['B000000001' 'B000000002'],B000000003,DE",
        "['B000000001' 'nowhere'],B000000003,DE",
        "['B000000001' ... 'B000000002'],B000000003,DE",
        "['B000000001' 'B0000,B000000003,DE",
        "B000000001,B000000003,DE",
        "['B000000001'],B000000003,XX",
        "['B000000001'],,DE",
        "[],B000000003,DE",
        "\"['B000000001'\n 'B000000002']\",B000000003,FR",
    ]
    (tmp_path / "m2" / "sessions_train.csv.gz").unlink()
    (tmp_path / "m2" / "sessions_train.csv").write_text("\n".join(["prev_items,next_item,locale", *sessions]))
    report = convert(max_bad=0.9)
    assert (report.interactions, report.rows_read) == (3 + 2 + 1 + 3, len(PRODUCTS) + 4 + len(sessions))
    assert [line.split("\t")[0] for line in lines(tmp_path, "user")[1:]] == ["DE:0", "DE:1", "DE:2", "FR:0"]
    found = [json.loads(line) for line in lines(tmp_path, "rejects.jsonl")]
    start = 2 + len(PRODUCTS) + 3  # three titles have a line break
    assert [(Path(row["file"]).name.split("_")[0], row["line"], row["reason"]) for row in sorted(
        found, key=lambda row: (row["file"], row["line"])
    )] == [
        ("products", start, "a second text of the item in the same language"),
        ("products", start + 1, "an empty text"),
        ("products", start + 2, "an unknown locale"),
        ("products", start + 3, "11 cells expected"),
        ("sessions", 3, "an unknown item"),
        ("sessions", 4, "no whole list of items in column 'prev_items'"),
        ("sessions", 5, "no whole list of items in column 'prev_items'"),
        ("sessions", 6, "no whole list of items in column 'prev_items'"),
        ("sessions", 7, "an unknown locale"),
        ("sessions", 8, "nothing in column 'next_item'"),
    ]  # fmt: skip
    with pytest.raises(DataError, match="10 of 30 rows are bad"):
        convert()


def test_bad_rows_of_parquet(convert: Callable[..., ConvertReport], tmp_path: Path) -> None:
    write_parquet(tmp_path / "m2")
    rows = [(["B000000001", None], "B000000002", "DE"), (None, "B000000002", "DE"), (["B000000001"], None, "DE"),
            (["B000000001"], "B000000002", None), ([], "B000000002", "DE")]  # fmt: skip
    table = pl.DataFrame(rows, schema=["prev_items", "next_item", "locale"], orient="row")
    table.write_parquet(tmp_path / "m2" / "sessions_train.parquet")
    report = convert(max_bad=0.5)
    assert report.interactions == 1
    assert [json.loads(line)["line"] for line in lines(tmp_path, "rejects.jsonl")] == [1, 2, 3, 4]
    table.drop("locale").write_parquet(tmp_path / "m2" / "sessions_train.parquet")
    with pytest.raises(DataError, match="unknown column 'locale'"):
        convert()
    (tmp_path / "m2" / "sessions_train.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(DataError, match="cannot be read"):
        convert()


def test_what_is_missing_is_named(convert: Callable[..., ConvertReport], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="needs --input"):
        AmazonM2()
    with pytest.raises(DataError, match=r"neither products_train\.csv nor products_train\.parquet"):
        convert()
    write_csv(tmp_path / "m2")
    (tmp_path / "m2" / "sessions_test_task1.csv").unlink()
    with pytest.raises(DataError, match=r"--test-sessions needs"):
        convert(test_sessions=True)


def test_loads_in_recbole(convert: Callable[..., ConvertReport], tmp_path: Path) -> None:
    write_csv(tmp_path / "m2")
    convert()
    from recbole_xling.config import XLingConfig
    from recbole_xling.data.dataset import XLingDataset

    columns = {"inter": ["user_id", "item_id", "timestamp"], "item": ["item_id", "item_language", "brand"],
               "user": ["user_id", "user_language"]}  # fmt: skip
    settings = {"data_path": str(tmp_path / "out"), "checkpoint_dir": str(tmp_path), "encoder": "hashing",
                "embedding_cache_dir": str(tmp_path / "cache"), "load_col": columns}  # fmt: skip
    dataset = XLingDataset(XLingConfig("LLMSASRec", "m2", config_dict=settings))
    assert (dataset.user_num, dataset.item_num, dataset.inter_num) == (13, 14, 102)
    assert set(dataset.user_feat.columns) == set(columns["user"])
