"""One's own tables, in every format, with the columns named by settings or by a YAML file."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from made import lines

from recbole_xling.cli import main as cli
from recbole_xling.convert import ConvertReport, write_dataset
from recbole_xling.convert.sources.table import TableConverter
from recbole_xling.errors import ConfigError, DataError
from recbole_xling.text.record import ItemText
from recbole_xling.text.store import ItemTextStore

SALES = [
    {
        "customer": f"c{i % 5}",
        "sku": str(100 + i % 12),
        "stars": 1 + i % 5,
        "when": f"2024-01-{1 + i % 28:02}T10:00:00Z",
    }
    for i in range(30)
]
PRODUCTS = [
    {"sku": str(100 + i), "name": f'Ding {i}, "groß"', "desc": "" if i == 3 else f"Beschreibung; {i}", "lang": "de-AT",
     "maker": "Müller & Co", "eur": f"{i}.50", "tags": "a b"}
    for i in range(12)
]  # fmt: skip
CUSTOMERS = [{"customer": f"c{i}", "city": f"Linz {i}"} for i in range(5)]
SETTINGS: dict[str, Any] = {
    "user": "customer",
    "item": "sku",
    "rating": "stars",
    "time": "when",
    "language": "lang",
    "text": "title=name,description=desc",
    "item_features": "brand=maker,price=eur:float,tags=tags:token_seq",
    "user_features": "city",
}


def write_rows(path: Path, rows: list[dict[str, Any]]) -> Path:
    """Write rows in the format of the file's name."""
    data = pl.DataFrame(rows)
    if ".csv" in path.name:
        content = data.write_csv().encode()
    elif ".tsv" in path.name:
        content = data.write_csv(separator="\t", quote_style="never").encode()
    elif ".jsonl" in path.name:
        content = "".join(json.dumps(row) + "\n" for row in rows).encode()
    else:
        data.write_parquet(path)
        return path
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


@pytest.fixture
def shop(tmp_path: Path) -> Callable[[str], dict[str, Any]]:
    """Return a function that writes the three tables in a format and returns the settings."""

    def write(suffix: str) -> dict[str, Any]:
        return SETTINGS | {
            "input": write_rows(tmp_path / f"sales{suffix}", SALES),
            "items": write_rows(tmp_path / f"products{suffix}", PRODUCTS),
            "users": write_rows(tmp_path / f"customers{suffix}", CUSTOMERS),
        }

    return write


@pytest.fixture
def convert(tmp_path: Path) -> Callable[..., ConvertReport]:
    def convert(*, max_bad: float = 0.2, **settings: Any) -> ConvertReport:
        return write_dataset(TableConverter(**settings), tmp_path / "out", "shop", max_bad=max_bad, show_progress=False)

    return convert


@pytest.mark.parametrize("suffix", [".csv", ".csv.gz", ".tsv", ".jsonl", ".jsonl.gz", ".parquet"])
def test_the_same_tables_in_every_format(
    suffix: str, shop: Callable[[str], dict[str, Any]], convert: Callable[..., ConvertReport], tmp_path: Path
) -> None:
    report = convert(**shop(suffix))
    assert (report.users, report.items, report.interactions, report.rejected) == (5, 12, 30, {})
    assert report.items_per_language == {"de": 12}
    inter = lines(tmp_path, "inter")
    assert [inter[0], inter[1], inter[10], inter[-1]] == [
        "user_id:token\titem_id:token\trating:float\ttimestamp:float",
        "c0\t100\t1\t1704103200",
        "c4\t109\t5\t1704880800",
        "c4\t105\t5\t1704189600",
    ]
    items = lines(tmp_path, "item")
    assert [items[0], items[1], items[10], items[-1]] == [
        "item_id:token\titem_language:token\tbrand:token\tprice:float\ttags:token_seq",
        "100\tde\tMüller & Co\t0.5\ta b",
        "109\tde\tMüller & Co\t9.5\ta b",
        "111\tde\tMüller & Co\t11.5\ta b",
    ]
    assert lines(tmp_path, "user")[:2] == ["user_id:token\tcity:token", "c0\tLinz 0"]
    store = ItemTextStore.load(tmp_path / "out" / "shop" / "shop.itemtext.jsonl")
    fields = {"title": 'Ding 1, "groß"', "description": "Beschreibung; 1"}
    assert store.display("101") == ItemText("101", "de", fields, "display")
    assert store.display("103") is not None


def test_the_command_line_and_a_mapping_say_the_same(
    shop: Callable[[str], dict[str, Any]],
    convert: Callable[..., ConvertReport],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    settings = shop(".csv")
    convert(**settings)
    flags = [word for name, value in settings.items() for word in (f"--{name.replace('_', '-')}", str(value))]
    assert cli.main(["convert", "table", *flags, "--output", str(tmp_path / "flags"), "--name", "shop"]) == 0
    assert "5 users, 12 items, 30 interactions" in capsys.readouterr().out
    (tmp_path / "shop.yaml").write_text(
        "input: sales.csv\nitems: products.csv\nusers: customers.csv\nuser: customer\nitem: sku\nrating: stars\n"
        "time: somewhere else\nlanguage: lang\ntext: {title: name, description: desc}\n"
        "item_features: {brand: maker, price: 'eur:float', tags: 'tags:token_seq'}\nuser_features: {city: city}\n"
    )
    words = ["--mapping", str(tmp_path / "shop.yaml"), "--time", "when"]
    assert cli.main(["convert", "table", *words, "--output", str(tmp_path / "mapping"), "--name", "shop"]) == 0
    for path in (tmp_path / "out" / "shop").iterdir():
        assert (tmp_path / "flags" / "shop" / path.name).read_bytes() == path.read_bytes()
        assert (tmp_path / "mapping" / "shop" / path.name).read_bytes() == path.read_bytes()


def test_filters_on_the_command_line(
    shop: Callable[[str], dict[str, Any]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = shop(".csv")
    words = [word for name, value in settings.items() for word in (f"--{name.replace('_', '-')}", str(value))]
    words += ["--since", "2024-01-02", "--until", "2024-01-20", "--min-rating", "2", "--languages", "de,en"]
    words += ["--duplicates", "last", "--user-core", "2", "--item-core", "1", "--output", str(tmp_path / "out")]
    assert cli.main(["convert", "table", *words, "--name", "shop"]) == 0
    figures = json.loads("\n".join(lines(tmp_path, "convert.json")))
    assert list(figures["removed"]) == ["since", "until", "languages", "duplicates", "min_rating", "core"]
    assert (figures["removed"]["since"], figures["removed"]["until"]) == (2, 9)
    assert figures["filters"]["since"] == datetime(2024, 1, 2, tzinfo=timezone.utc).timestamp()
    assert "removed by filters: since 2, until 9" in capsys.readouterr().out


def test_interactions_alone(convert: Callable[..., ConvertReport], tmp_path: Path) -> None:
    path = write_rows(tmp_path / "clicks.csv", [{"user_id": "u", "item_id": i} for i in ("b", "a", "b")])
    report = convert(input=path)
    assert (report.users, report.items, report.interactions) == (1, 2, 3)
    assert lines(tmp_path, "item") == ["item_id:token\titem_language:token", "b\tund", "a\tund"]
    assert lines(tmp_path, "inter") == ["user_id:token\titem_id:token", "u\tb", "u\ta", "u\tb"]
    assert any("--in-order" in note for note in report.notes)
    assert convert(input=path, in_order=True).interactions == 3
    assert lines(tmp_path, "inter")[1:] == ["u\tb\t1", "u\ta\t2", "u\tb\t3"]


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_bad_rows(suffix: str, convert: Callable[..., ConvertReport], tmp_path: Path) -> None:
    good = [{"user_id": "u", "item_id": "a", "stars": "4", "at": "2024-01-01"}] * 20
    bad = [{"at": "yesterday"}, {"stars": "many"}, {"item_id": ""}, {"item_id": "none such"}]
    path = write_rows(tmp_path / f"clicks{suffix}", [*good, *(good[0] | change for change in bad), *good])
    items = write_rows(
        tmp_path / f"items{suffix}", [{"item_id": "a", "name": "A"}] * 2 + [{"item_id": "b", "name": ""}]
    )
    settings = {"input": path, "rating": "stars", "time": "at", "items": items, "text": "title=name"}
    report = convert(**settings)
    assert (report.items, report.interactions, report.rows_read) == (2, 40, 47)
    header = suffix == ".csv"
    found = [json.loads(line) for line in lines(tmp_path, "rejects.jsonl")]
    assert {(Path(row["file"]).stem, row["line"] - header) for row in found} == {
        *(("clicks", 21 + i) for i in range(4)),
        ("items", 2),
        ("items", 3),
    }
    reasons = " ".join(row["reason"] for row in found)
    for part in (
        "ISO date in column 'at'",
        "no number in column 'stars'",
        "nothing in column 'item_id'",
        "unknown item",
    ):
        assert part in reasons
    with pytest.raises(DataError, match="6 of 47 rows are bad"):
        convert(max_bad=0.1, **settings)


def test_broken_json_lines_are_bad_rows(convert: Callable[..., ConvertReport], tmp_path: Path) -> None:
    good = b'{"user_id": 1, "item_id": 2.0, "more": [1]}\n'
    bad = [b"{", b"[1]", b'{"user_id": [1], "item_id": 2}', b'{"user_id": "\xff", "item_id": 2}', b'{"item_id": 2}']
    bad += [b'{"user_id": "\\ud83d", "item_id": 2}', b'{"user_id": true, "item_id": 2}']
    (tmp_path / "clicks.jsonl").write_bytes(good * 50 + b"\n".join(bad) + b"\n\n" + good)
    assert convert(input=tmp_path / "clicks.jsonl").interactions == 51
    assert len(lines(tmp_path, "rejects.jsonl")) == len(bad)
    assert lines(tmp_path, "inter")[1] == "1\t2"


def test_parquet_with_dates_numbers_as_ids_and_missing_values(
    convert: Callable[..., ConvertReport], tmp_path: Path
) -> None:
    times = [
        datetime(2024, 1, 1, tzinfo=timezone.utc),
        datetime(2024, 1, 1, 0, 0, 0, 500000, tzinfo=timezone.utc),
        None,
    ]
    table = pl.DataFrame({"user_id": [1.0, 2.0, 3.0], "item_id": [7, 8, 9], "at": times})
    table.write_parquet(tmp_path / "clicks.parquet")
    assert convert(input=tmp_path / "clicks.parquet", time="at", max_bad=0.5).interactions == 2
    assert lines(tmp_path, "inter")[1:] == ["1\t7\t1704067200.0", "2\t8\t1704067200.5"]


@pytest.mark.parametrize(
    ("settings", "kind", "message"),
    [
        ({}, ConfigError, "needs --input"),
        ({"input": "x.csv", "users": None, "itms": "y"}, ConfigError, "'itms'. Did you mean 'items'"),
        ({"input": "x.csv", "text": "title=name"}, ConfigError, "name it with --items"),
        ({"input": "x.csv", "user_features": "age"}, ConfigError, "name it with --users"),
        ({"input": "x.csv", "items": "y.csv", "text": "=name"}, ConfigError, "written like title=name"),
        ({"input": "x.csv", "items": "y.csv", "item_features": "a=b:int"}, ConfigError, "no known type"),
        ({"input": "x.csv", "user": "id", "item": "id"}, ConfigError, "columns of their own"),
        ({"input": "x.csv", "time": "t", "in_order": True}, ConfigError, "not both"),
        ({"input": "x.csv", "mapping": "none.yaml"}, ConfigError, "none.yaml cannot be read"),
        ({"input": "x.xlsx"}, DataError, "no known format"),
        ({"input": "x.csv"}, DataError, "there is no file x.csv"),
        ({"input": "x.parquet"}, DataError, "x.parquet cannot be read"),
    ],
)
def test_settings_that_make_no_sense(
    settings: dict[str, Any], kind: type[Exception], message: str, convert: Callable[..., ConvertReport], tmp_path: Path
) -> None:
    with pytest.raises(kind, match=message):
        convert(**settings)
    assert list(tmp_path.iterdir()) == [] or list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_a_column_that_is_not_there_is_named(
    suffix: str, convert: Callable[..., ConvertReport], tmp_path: Path
) -> None:
    path = write_rows(tmp_path / f"clicks{suffix}", [{"user_id": "u", "item_id": "a", "stars": 1}])
    with pytest.raises(DataError, match=r"unknown (column|key) 'star'\. Did you mean 'stars'"):
        convert(input=path, rating="star", max_bad=1.0)


def test_loads_in_recbole(
    shop: Callable[[str], dict[str, Any]], convert: Callable[..., ConvertReport], tmp_path: Path
) -> None:
    convert(**shop(".parquet"))
    from recbole_xling.config import XLingConfig
    from recbole_xling.data.dataset import XLingDataset

    columns = {"inter": ["user_id", "item_id", "timestamp"], "item": ["item_id", "item_language", "brand", "tags"]}
    settings = {"data_path": str(tmp_path / "out"), "checkpoint_dir": str(tmp_path), "encoder": "hashing",
                "embedding_cache_dir": str(tmp_path / "cache"), "load_col": columns}  # fmt: skip
    dataset = XLingDataset(XLingConfig("LLMSASRec", "shop", config_dict=settings))
    assert (dataset.user_num, dataset.item_num, dataset.inter_num) == (6, 13, 30)
    assert set(dataset.item_feat.columns) == set(columns["item"])
