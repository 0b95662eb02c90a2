"""One's own tables, in every format, with the columns named by settings or by a YAML file."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from dumps.table import write, write_rows
from made import lines, load_dataset

from recbole_xling.cli import main as cli
from recbole_xling.convert import ConvertReport
from recbole_xling.convert.sources.table import TableConverter
from recbole_xling.errors import ConfigError, DataError
from recbole_xling.text.record import ItemText
from recbole_xling.text.store import ItemTextStore


@pytest.fixture
def shop(tmp_path: Path) -> Callable[[str], dict[str, Any]]:
    """Return a function that writes the three tables in a format and returns the settings."""
    return lambda suffix: write(tmp_path, suffix)


@pytest.mark.parametrize("suffix", [".csv", ".csv.gz", ".tsv", ".jsonl", ".jsonl.gz", ".parquet"])
def test_every_format_gives_the_same_dataset(
    suffix: str, shop: Callable[[str], dict[str, Any]], convert: Callable[..., ConvertReport], tmp_path: Path
) -> None:
    report = convert(TableConverter(**shop(suffix)))
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
    store = ItemTextStore.load(tmp_path / "out" / "d" / "d.itemtext.jsonl")
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
    convert(TableConverter(**settings))
    flags = [word for name, value in settings.items() for word in (f"--{name.replace('_', '-')}", str(value))]
    assert cli.main(["convert", "table", *flags, "--output", str(tmp_path / "flags"), "--name", "d"]) == 0
    assert "5 users, 12 items, 30 interactions" in capsys.readouterr().out
    (tmp_path / "shop.yaml").write_text(
        "input: sales.csv\nitems: products.csv\nusers: customers.csv\nuser: customer\nitem: sku\nrating: stars\n"
        "time: somewhere else\nlanguage: lang\ntext: {title: name, description: desc}\n"
        "item_features: {brand: maker, price: 'eur:float', tags: 'tags:token_seq'}\nuser_features: {city: city}\n"
    )
    words = ["--mapping", str(tmp_path / "shop.yaml"), "--time", "when"]
    assert cli.main(["convert", "table", *words, "--output", str(tmp_path / "mapping"), "--name", "d"]) == 0
    for path in (tmp_path / "flags" / "d").iterdir():
        assert (tmp_path / "mapping" / "d" / path.name).read_bytes() == path.read_bytes()
        if path.name != "d.convert.json":  # which says that the command line has cleaned the texts
            assert (tmp_path / "out" / "d" / path.name).read_bytes() == path.read_bytes()


def test_filters_are_options_of_the_command_line(
    shop: Callable[[str], dict[str, Any]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = shop(".csv")
    words = [word for name, value in settings.items() for word in (f"--{name.replace('_', '-')}", str(value))]
    words += ["--since", "2024-01-02", "--until", "2024-01-20", "--min-rating", "2", "--languages", "de,en"]
    words += ["--duplicates", "last", "--user-core", "2", "--item-core", "1", "--output", str(tmp_path / "out")]
    assert cli.main(["convert", "table", *words, "--name", "d"]) == 0
    figures = json.loads("\n".join(lines(tmp_path, "convert.json")))
    assert list(figures["removed"]) == ["since", "until", "languages", "duplicates", "min_rating", "core"]
    assert (figures["removed"]["since"], figures["removed"]["until"]) == (2, 9)
    assert figures["filters"]["since"] == datetime(2024, 1, 2, tzinfo=timezone.utc).timestamp()
    assert "removed by filters: since 2, until 9" in capsys.readouterr().out


def test_interactions_alone_become_a_dataset_without_texts(
    convert: Callable[..., ConvertReport], tmp_path: Path
) -> None:
    path = write_rows(tmp_path / "clicks.csv", [{"user_id": "u", "item_id": i} for i in ("b", "a", "b")])
    report = convert(TableConverter(input=path))
    assert (report.users, report.items, report.interactions) == (1, 2, 3)
    assert lines(tmp_path, "item") == ["item_id:token\titem_language:token", "b\tund", "a\tund"]
    assert lines(tmp_path, "inter") == ["user_id:token\titem_id:token", "u\tb", "u\ta", "u\tb"]
    assert any("--in-order" in note for note in report.notes)
    assert convert(TableConverter(input=path, in_order=True)).interactions == 3
    assert lines(tmp_path, "inter")[1:] == ["u\tb\t1", "u\ta\t2", "u\tb\t3"]


def test_a_bad_id_of_interactions_alone_is_one_bad_row(convert: Callable[..., ConvertReport], tmp_path: Path) -> None:
    path = write_rows(
        tmp_path / "clicks.csv", [{"user_id": "u", "item_id": i} for i in ("b\x1b[31m", "[PAD]", "a", "a")]
    )
    report = convert(TableConverter(input=path), max_bad=0.5)
    assert (report.items, report.interactions, report.rows_read) == (1, 2, 4)
    assert [json.loads(line)["line"] for line in lines(tmp_path, "rejects.jsonl")] == [2, 3]


def test_an_item_whose_times_cannot_be_read_is_none(convert: Callable[..., ConvertReport], tmp_path: Path) -> None:
    times = {"a": "2024-01-10", "b": "soon", "c": "2024-01-11"}
    rows = [{"user_id": "u", "item_id": item, "at": time} for item, time in times.items()]
    report = convert(TableConverter(input=write_rows(tmp_path / "clicks.csv", rows), time="at"), max_bad=0.5)
    assert (report.items, report.interactions) == (2, 2) and sum(report.rejected.values()) == 1


def test_times_that_no_float_holds_are_counted(convert: Callable[..., ConvertReport], tmp_path: Path) -> None:
    times = ["1700000000123456789", "1700000000123456768", "1700000000123456790", "1700000000.5"]
    rows = [{"user_id": "u", "item_id": item, "at": time} for item, time in zip("abcd", times, strict=True)]
    report = convert(TableConverter(input=write_rows(tmp_path / "clicks.csv", rows), time="at"))
    assert any(note.startswith("2 time stamps have more digits") for note in report.notes)
    assert [line.split("\t")[1] for line in lines(tmp_path, "inter")[1:]] == list("abcd")
    rows = [row | {"at": row["at"][:16]} for row in rows]  # microseconds
    report = convert(TableConverter(input=write_rows(tmp_path / "clicks.csv", rows), time="at"))
    assert not any("digits" in note for note in report.notes)
    seconds = [".123456789", ".123456788", ".123456", ".123456000"]
    rows = [row | {"at": f"2024-05-31T18:30:00{second}Z"} for row, second in zip(rows, seconds, strict=True)]
    report = convert(TableConverter(input=write_rows(tmp_path / "clicks.csv", rows), time="at"))
    assert any(note.startswith("2 time stamps have more digits") for note in report.notes)


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_bad_rows_are_listed_in_every_format(
    suffix: str, convert: Callable[..., ConvertReport], tmp_path: Path
) -> None:
    good = [{"user_id": "u", "item_id": "a", "stars": "4", "at": "2024-01-01"}] * 20
    bad = [{"at": "yesterday"}, {"stars": "many"}, {"item_id": ""}, {"item_id": "none such"}]
    path = write_rows(tmp_path / f"clicks{suffix}", [*good, *(good[0] | change for change in bad), *good])
    items = write_rows(
        tmp_path / f"items{suffix}", [{"item_id": "a", "name": "A"}] * 2 + [{"item_id": "b", "name": ""}]
    )
    settings = {"input": path, "rating": "stars", "time": "at", "items": items, "text": "title=name"}
    report = convert(TableConverter(**settings), max_bad=0.2)
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
    assert report.omitted == {"an empty text": 1}
    with pytest.raises(DataError, match="5 of 47 rows are bad"):
        convert(TableConverter(**settings), max_bad=0.1)


def test_broken_json_lines_are_bad_rows(convert: Callable[..., ConvertReport], tmp_path: Path) -> None:
    good = b'{"user_id": 1, "item_id": 2.0, "more": [1]}\n'
    bad = [b"{", b"[1]", b'{"user_id": [1], "item_id": 2}', b'{"user_id": "\xff", "item_id": 2}', b'{"item_id": 2}']
    bad += [b'{"user_id": "\\ud83d", "item_id": 2}', b'{"user_id": true, "item_id": 2}']
    (tmp_path / "clicks.jsonl").write_bytes(good * 50 + b"\n".join(bad) + b"\n\n" + good)
    assert convert(TableConverter(input=tmp_path / "clicks.jsonl"), max_bad=0.2).interactions == 51
    assert len(lines(tmp_path, "rejects.jsonl")) == len(bad)
    assert lines(tmp_path, "inter")[1] == "1\t2"


def test_parquet_may_have_dates_numbers_as_ids_and_missing_values(
    convert: Callable[..., ConvertReport], tmp_path: Path
) -> None:
    times = [
        datetime(2024, 1, 1, tzinfo=timezone.utc),
        datetime(2024, 1, 1, 0, 0, 0, 500000, tzinfo=timezone.utc),
        None,
    ]
    table = pl.DataFrame({"user_id": [1.0, 2.0, 3.0], "item_id": [7, 8, 9], "at": times})
    table.write_parquet(tmp_path / "clicks.parquet")
    assert convert(TableConverter(input=tmp_path / "clicks.parquet", time="at"), max_bad=0.5).interactions == 2
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
        ({"input": "x.csv", "random_order": True, "in_order": True}, ConfigError, "not both"),
        ({"input": "x.csv", "in_order": "no"}, ConfigError, "in_order of a table is true or false, not 'no'"),
        (
            {"input": "x.csv", "items": "y.csv", "text": "title=a,title=b"},
            ConfigError,
            "text of a table has 'title' twice",
        ),
        ({"input": "x.csv", "items": "y.csv", "text": "title:de=a,title:ger=b"}, ConfigError, "'title:de' twice"),
        ({"input": "x.csv", "items": "y.csv", "text": "title:xx=a"}, ConfigError, "'xx' names no language"),
        ({"input": "x.csv", "items": "y.csv", "text": ":de=a"}, ConfigError, "written like title:de=title_de"),
        ({"input": "x.csv", "items": "y.csv", "item_features": "a,a=b"}, ConfigError, "item_features.*'a' twice"),
        ({"input": "x.csv", "interaction_features": "a=b:flaot"}, ConfigError, "no known type"),
        ({"input": "x.csv", "interaction_features": "user_id=b"}, DataError, "'user_id' appears twice"),
        ({"input": "x.csv", "where": "event"}, ConfigError, "'event' is no condition"),
        ({"input": "x.csv", "where": ["stars>=many"]}, ConfigError, "compares numbers, and 'many' is none"),
        ({"input": "x.csv", "where": {"event": "buy"}}, ConfigError, "or a list of them"),
        ({"input": "x.csv", "separator": ""}, ConfigError, "separator"),
        ({"input": "x.csv", "separator": '"'}, ConfigError, "separator"),
        ({"input": "x.csv", "encoding": "utf-9"}, ConfigError, "unknown text encoding 'utf-9'"),
        ({"input": "x.csv", "encoding": "utf-16"}, ConfigError, "convert them to UTF-8"),
        ({"input": "x.jsonl", "no_header": True}, DataError, "--no-header is for"),
        ({"input": "x.csv", "mapping": "none.yaml"}, ConfigError, "none.yaml' does not exist"),
        ({"input": "x.xlsx"}, DataError, "no known format"),
        ({"input": "x.csv"}, DataError, "file x.csv does not exist"),
        ({"input": "x.parquet"}, DataError, "x.parquet cannot be read"),
    ],
)
def test_settings_that_make_no_sense_are_refused(
    settings: dict[str, Any], kind: type[Exception], message: str, convert: Callable[..., ConvertReport], tmp_path: Path
) -> None:
    with pytest.raises(kind, match=message):
        convert(TableConverter(**settings))
    assert list(tmp_path.iterdir()) == [] or list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_a_column_that_is_not_there_is_named(
    suffix: str, convert: Callable[..., ConvertReport], tmp_path: Path
) -> None:
    path = write_rows(tmp_path / f"clicks{suffix}", [{"user_id": "u", "item_id": "a", "stars": 1}])
    with pytest.raises(DataError, match=r"unknown (column|key) 'star'\. Did you mean 'stars'"):
        convert(TableConverter(input=path, rating="star"), max_bad=1.0)


# ---- several languages ----------------------------------------------------------------------------------------

CATALOG = [
    {"item_id": "a", "lang": "fr", "name": "Ding", "de": "Ding", "fr": "Chose", "en": "Thing", "year": "1990"},
    {"item_id": "b", "lang": "de", "name": "Haus", "de": "Haus", "fr": "", "en": "House", "year": ""},
    {"item_id": "c", "lang": "", "name": "", "de": "", "fr": "", "en": "", "year": "2001"},
]


def _texts(tmp_path: Path) -> list[tuple[str, str, dict[str, str], str]]:
    store = ItemTextStore.load(tmp_path / "out" / "d" / "d.itemtext.jsonl")
    return [(t.item_id, t.language, dict(t.fields), t.source) for t in store.texts()]


@pytest.fixture
def catalog(tmp_path: Path) -> dict[str, Any]:
    clicks = [{"user_id": "u", "item_id": item} for item in "abc"]
    return {"input": write_rows(tmp_path / "clicks.csv", clicks), "items": write_rows(tmp_path / "items.csv", CATALOG)}


def test_a_column_per_language_gives_a_text_in_each(
    catalog: dict[str, Any], convert: Callable[..., ConvertReport], tmp_path: Path
) -> None:
    report = convert(TableConverter(**catalog, text="title:de=de,title:fr=fr,title:eng=en,year"))
    assert _texts(tmp_path) == [
        ("a", "de", {"title": "Ding", "year": "1990"}, "display"),
        ("a", "fr", {"title": "Chose", "year": "1990"}, "parallel"),
        ("a", "en", {"title": "Thing", "year": "1990"}, "parallel"),
        ("b", "de", {"title": "Haus", "year": ""}, "display"),
        ("b", "en", {"title": "House", "year": ""}, "parallel"),
        ("c", "und", {"year": "2001"}, "display"),
    ]
    assert report.items_per_language == {"de": 2, "und": 1}


def test_the_column_of_languages_tells_in_which_one_an_item_is_shown(
    catalog: dict[str, Any], convert: Callable[..., ConvertReport], tmp_path: Path
) -> None:
    report = convert(TableConverter(**catalog, language="lang", text="title:de=de,title:fr=fr,title:en=en"))
    assert not any("lang states" in note for note in report.notes)
    assert [text[:2] for text in _texts(tmp_path) if text[-1] == "display"] == [("a", "fr"), ("b", "de")]
    convert(TableConverter(**catalog, language="lang", text="title=name,year,title:en=en"))
    assert _texts(tmp_path) == [
        ("a", "fr", {"title": "Ding", "year": "1990"}, "display"),
        ("a", "en", {"title": "Thing"}, "parallel"),
        ("b", "de", {"title": "Haus", "year": ""}, "display"),
        ("b", "en", {"title": "House"}, "parallel"),
        ("c", "und", {"title": "", "year": "2001"}, "display"),
    ]


@pytest.mark.parametrize("tag", ["en-US", "EN", "English"])
def test_a_language_in_another_spelling_is_the_one_stated(
    convert: Callable[..., ConvertReport], tmp_path: Path, tag: str
) -> None:
    clicks = write_rows(tmp_path / "clicks.csv", [{"user_id": "u", "item_id": "a"}])
    items = write_rows(tmp_path / "items.csv", [{"item_id": "a", "lang": tag, "name": "Thing", "en": "Thing"}])
    for text in ("title=name", "title:en=en"):
        report = convert(TableConverter(input=clicks, items=items, language="lang", text=text))
        assert report.items_per_language == {"en": 1} and not any("lang states" in note for note in report.notes)


def test_items_that_are_shown_in_another_language_than_they_state_are_told(
    catalog: dict[str, Any], convert: Callable[..., ConvertReport]
) -> None:
    report = convert(TableConverter(**catalog, language="lang", text="title:en=en,title:fr=fr"))
    assert report.items_per_language == {"fr": 1, "en": 1, "und": 1}  # b states de
    told = (
        "1 items have no text in the language that lang states, so they are shown, and counted, in that of their first"
    )
    assert any(told in note for note in report.notes)


def test_one_language_of_all_texts(
    catalog: dict[str, Any], convert: Callable[..., ConvertReport], tmp_path: Path
) -> None:
    with pytest.raises(
        DataError, match=r"unknown column 'fr'.*if all texts are in one language.*--text title:fr=COLUMN"
    ):
        write_rows(tmp_path / "less.csv", [{"item_id": "a", "name": "A"}])
        convert(TableConverter(**catalog | {"items": tmp_path / "less.csv"}, language="fr", text="title=name"))
    report = convert(TableConverter(**catalog, text="title:fr=name"))
    assert report.items_per_language == {"fr": 3}  # c has no text, but this language is stated
    assert _texts(tmp_path)[-1] == ("c", "fr", {"title": ""}, "display")


def test_an_empty_part_in_one_language_leaves_the_common_one(
    convert: Callable[..., ConvertReport], tmp_path: Path
) -> None:
    rows = [{"item_id": "a", "lang": "de", "name": "Ding", "own": "", "more": "Mehr"}]
    settings = {"input": write_rows(tmp_path / "clicks.csv", [{"user_id": "u", "item_id": "a"}])}
    settings |= {"items": write_rows(tmp_path / "items.csv", rows), "text": "title=name,title:de=own,more:de=more"}
    for language in ({}, {"language": "lang"}):
        convert(TableConverter(**settings, **language))
        assert _texts(tmp_path) == [("a", "de", {"title": "Ding", "more": "Mehr"}, "display")]


def test_texts_of_a_second_row_of_an_item_are_not_used(convert: Callable[..., ConvertReport], tmp_path: Path) -> None:
    rows = [
        {"item_id": "a", "lang": "", "name": "", "fr": "Chose"},
        {"item_id": "a", "lang": "de", "name": "Haus", "fr": "Maison"},
        {"item_id": "b", "lang": "de", "name": "Ding", "fr": ""},
        {"item_id": "b", "lang": "de", "name": "Baum", "fr": "Arbre"},
    ]
    report = convert(
        TableConverter(
            input=write_rows(tmp_path / "clicks.csv", [{"user_id": "u", "item_id": "a"}]),
            items=write_rows(tmp_path / "items.csv", rows),
            language="lang",
            text="title=name,title:fr=fr",
        ),
        max_bad=0.5,
    )
    assert [(item, title["title"]) for item, _, title, _ in _texts(tmp_path)] == [("a", "Chose"), ("b", "Ding")]
    assert report.rejected == {"a second row of the same item": 2}
    assert report.items_per_language == {"fr": 1, "de": 1}


# ---- times ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("times", "reason", "kept"),
    [
        (["1704067200000", "2024-01-02", "1704067200002"], "a date where others are numbers", "ac"),
        (["2024-01-01", "1704067200000", "2024-01-03"], "a number where others are dates", "ac"),
        (["2024-01-01", "2024_01_04", "2024-01-03"], "neither a number nor an ISO date", "ac"),
        (["1", "nan", " 3 "], "neither a number nor an ISO date", "ac"),
    ],
)
def test_times_are_numbers_or_dates_but_not_both(
    times: list[str], reason: str, kept: str, convert: Callable[..., ConvertReport], tmp_path: Path
) -> None:
    rows = [{"user_id": "u", "item_id": item, "at": time} for item, time in zip("abc", times, strict=True)]
    report = convert(TableConverter(input=write_rows(tmp_path / "clicks.csv", rows), time="at"), max_bad=0.5)
    assert report.rejected == {f"{reason} in column 'at'": 1}
    assert "".join(line.split("\t")[1] for line in lines(tmp_path, "inter")[1:]) == kept


def test_the_kind_of_the_times_holds_for_all_shards(convert: Callable[..., ConvertReport], tmp_path: Path) -> None:
    (tmp_path / "clicks").mkdir()
    for number, time in enumerate(("2024-01-01", "1704067200000")):
        write_rows(tmp_path / "clicks" / f"{number}.csv", [{"user_id": "u", "item_id": "a", "at": time}])
    report = convert(TableConverter(input=tmp_path / "clicks", time="at"), max_bad=0.5)
    assert report.rejected == {"a number where others are dates in column 'at'": 1}


def test_the_column_of_times_may_be_a_feature_and_have_a_condition(
    convert: Callable[..., ConvertReport], tmp_path: Path
) -> None:
    rows = [{"user_id": "u", "item_id": item, "at": f"2024-01-0{day}"} for day, item in enumerate("abc", 1)]
    path = write_rows(tmp_path / "clicks.csv", rows)
    convert(TableConverter(input=path, time="at", interaction_features="day=at", where="at!=2024-01-02"))
    assert lines(tmp_path, "inter")[1:] == ["u\ta\t1704067200\t2024-01-01", "u\tc\t1704240000\t2024-01-03"]


@pytest.mark.parametrize(("unit", "zeros"), [(1, ""), (1_000, "000"), (1_000_000_000, "000000000")])
def test_a_date_of_a_filter_or_a_profile_is_in_the_unit_of_the_data(
    unit: int, zeros: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    seconds = [0, *(1704067200 + day * 86_400 for day in range(6))]  # a time that is missing is often 0
    rows = [{"user_id": "u", "item_id": "ab"[n % 2], "at": time * unit} for n, time in enumerate(seconds)]
    items = [{"item_id": item, "lang": language, "name": item} for item, language in (("a", "de"), ("b", "en"))]
    words = ["--input", str(write_rows(tmp_path / "clicks.csv", rows)), "--time", "at", "--language", "lang"]
    words += ["--items", str(write_rows(tmp_path / "items.csv", items)), "--text", "title=name", "--name", "d"]
    words += ["--output", str(tmp_path / "out"), "--since", "2024-01-02", "--until", "2024-01-06"]
    assert cli.main(["convert", "table", *words, "--user-profile", "2024-01-04"]) == 0
    assert [line.split("\t")[2] for line in lines(tmp_path, "inter")[1:]] == [
        str((1704067200 + day * 86_400) * unit) for day in range(1, 5)
    ]
    assert lines(tmp_path, "user")[1].startswith("u\tde\tde en\t0.5 0.5")
    assert f"interactions before 1704326400{zeros}:" in capsys.readouterr().out


@pytest.mark.parametrize("order", ["utf-16-le", "utf-16-be"])
def test_a_file_in_utf_16_is_named_as_such(order: str, convert: Callable[..., ConvertReport], tmp_path: Path) -> None:
    (tmp_path / "clicks.csv").write_bytes("\ufeffuser_id,item_id,at\nu,a,1\n".encode(order))
    with pytest.raises(DataError, match=r"clicks\.csv is in UTF-16: convert it to UTF-8"):
        convert(TableConverter(input=tmp_path / "clicks.csv", time="at"))


def test_times_in_several_units_are_named(convert: Callable[..., ConvertReport], tmp_path: Path) -> None:
    days = [1704067200 + day * 86_400 for day in range(5)]
    for unit, told in ((1, ()), (1000, ("times are dates in several units (3 in seconds, 2 in milliseconds)",))):
        rows = [{"user_id": "u", "item_id": str(n), "at": time * (unit if n > 2 else 1)} for n, time in enumerate(days)]
        report = convert(TableConverter(input=write_rows(tmp_path / "clicks.csv", rows), time="at"))
        assert tuple(note.partition(", so")[0] for note in report.notes if note.startswith("times are")) == told


def test_a_date_of_a_filter_needs_times_that_are_dates(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"user_id": "u", "item_id": item, "at": day} for day, item in enumerate("abc", 1)]
    words = ["--input", str(write_rows(tmp_path / "clicks.csv", rows)), "--time", "at", "--name", "d"]
    words += ["--output", str(tmp_path / "out")]
    for option, name in (("--since", "since"), ("--until", "until"), ("--user-profile", "--user-profile")):
        assert cli.main(["convert", "table", *words, option, "2024-01-02"]) != 0
        assert f"{name} is a date, but the time stamps of the source (1 to 3) are no" in capsys.readouterr().err
    assert cli.main(["convert", "table", *words, "--since", "2"]) == 0
    assert len(lines(tmp_path, "inter")) == 3


# ---- events, conditions ---------------------------------------------------------------------------------------

EVENTS = [
    {"user_id": "u", "item_id": "a", "event": "view", "market": "de", "qty": "1", "stars": 4},
    {"user_id": "u", "item_id": "b", "event": "cart", "market": "fr", "qty": "2.5", "stars": 5},
    {"user_id": "v", "item_id": "a", "event": "purchase", "market": "", "qty": "—", "stars": 3},
    {"user_id": "v", "item_id": "b", "event": "purchase", "market": "de", "qty": "", "stars": 1},
]


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".parquet"])
def test_features_of_interactions_are_written(
    suffix: str, convert: Callable[..., ConvertReport], tmp_path: Path
) -> None:
    path = write_rows(tmp_path / f"events{suffix}", EVENTS)
    report = convert(
        TableConverter(
            input=path, rating="stars", interaction_features="event,market:token,weight=qty:float,grade=stars"
        )
    )
    assert lines(tmp_path, "inter") == [
        "user_id:token\titem_id:token\trating:float\tevent:token\tmarket:token\tweight:float\tgrade:token",
        "u\ta\t4\tview\tde\t1.0\t4",
        "u\tb\t5\tcart\tfr\t2.5\t5",
        "v\ta\t3\tpurchase\t\t\t3",
        "v\tb\t1\tpurchase\tde\t\t1",
    ]
    assert report.omitted == {"column 'weight': no finite number": 1}


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
@pytest.mark.parametrize(
    ("where", "kept"),
    [
        ("event=purchase", ["va", "vb"]),
        ("event=view,cart", ["ua", "ub"]),
        ("event!=view,cart", ["va", "vb"]),
        ("market!=de", ["ub", "va"]),
        ("market=", ["va"]),
        ("market!=", ["ua", "ub", "vb"]),
        ("stars=4", ["ua"]),
        ("stars>=4", ["ua", "ub"]),
        ("stars < 3", ["vb"]),
        (["event=purchase", "market=de"], ["vb"]),
    ],
)
def test_conditions_choose_the_rows_that_are_interactions(
    suffix: str, where: str | list[str], kept: list[str], convert: Callable[..., ConvertReport], tmp_path: Path
) -> None:
    path = write_rows(tmp_path / f"events{suffix}", EVENTS)
    for settings in ({}, {"rating": "stars"}):
        report = convert(TableConverter(input=path, where=where, **settings))
        assert ["".join(line.split("\t")[:2]) for line in lines(tmp_path, "inter")[1:]] == kept
        removed = [int(note.split()[-2]) for note in report.notes if "took out" in note]
        assert sum(removed) == 4 - len(kept)
    assert {line.split("\t")[0] for line in lines(tmp_path, "item")[1:]} == {item for _, item in kept}


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
@pytest.mark.parametrize(("where", "kept"), [("stars!=0.0", "bc"), ("stars=0,4.50", "ab"), ("stars=-1", "")])
def test_values_of_ratings_are_compared_as_numbers(
    suffix: str, where: str, kept: str, convert: Callable[..., ConvertReport], tmp_path: Path
) -> None:
    rows = [{"user_id": "u", "item_id": item, "stars": stars} for item, stars in zip("abc", (0.0, 4.5, 5), strict=True)]
    converter = TableConverter(input=write_rows(tmp_path / f"x{suffix}", rows), rating="stars", where=where)
    if kept:
        notes = convert(converter).notes
        assert "".join(line.split("\t")[1] for line in lines(tmp_path, "inter")[1:]) == kept
        assert not any("no row has" in note for note in notes)
    else:
        with pytest.raises(DataError, match="no row is left"):
            convert(converter)


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_booleans_are_texts(suffix: str, convert: Callable[..., ConvertReport], tmp_path: Path) -> None:
    rows = [{"user_id": "u", "item_id": "ab"[gone], "gone": gone} for gone in (False, True)]
    path = write_rows(tmp_path / f"x{suffix}", rows)
    report = convert(TableConverter(input=path, where="gone!=true", interaction_features="gone"))
    assert (lines(tmp_path, "inter")[1:], report.omitted) == (["u\ta\tfalse"], {})


def test_values_that_no_row_has_are_told_and_cells_that_are_no_numbers_are_bad(
    convert: Callable[..., ConvertReport], tmp_path: Path
) -> None:
    path = write_rows(tmp_path / "events.csv", EVENTS)
    report = convert(TableConverter(input=path, where="event=buy,cart"))
    assert "--where: no row has 'buy' as event, which has view, cart, purchase" in report.notes
    assert "--where event=buy,cart took out 3 rows" in report.notes
    with pytest.raises(DataError, match="no row is left by --where event=buy: 'event' has view, cart, purchase"):
        convert(TableConverter(input=path, where="event=buy"))
    with pytest.raises(DataError, match=r"unknown column 'evnt'. Did you mean 'event'.*--where names it"):
        convert(TableConverter(input=path, where="evnt=buy"))
    report = convert(TableConverter(input=path, where="qty>=1"), max_bad=0.3)
    assert (report.interactions, report.rejected) == (2, {"no number in column 'qty'": 1})


def test_events_and_conditions_are_options_of_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_rows(tmp_path / "events.csv", EVENTS)
    words = [
        "--input",
        str(path),
        "--interaction-features",
        "event",
        "--where",
        "event=purchase",
        "--where",
        "stars>=2",
    ]
    assert cli.main(["convert", "table", *words, "--output", str(tmp_path / "out"), "--name", "d"]) == 0
    assert lines(tmp_path, "inter")[1:] == ["v\ta\tpurchase"]
    assert "--where event=purchase took out 2 rows" in capsys.readouterr().out


def test_what_is_done_with_unsure_languages_is_told_on_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    titles = [
        "Der Hund und die Katze im Garten",
        "Das Haus am Ende der Straße",
        "The house at the end of the road",
        "1984",
    ]
    write_rows(tmp_path / "items.csv", [{"item_id": str(i), "name": title} for i, title in enumerate(titles)])
    write_rows(tmp_path / "clicks.csv", [{"user_id": "u", "item_id": "1"}])
    words = ["--input", str(tmp_path / "clicks.csv"), "--items", str(tmp_path / "items.csv"), "--text", "title=name"]
    words += ["--identify", "de,en", "--min-confidence", "0.7", "--output", str(tmp_path / "out"), "--name", "d"]
    assert cli.main(["convert", "table", *words]) == 0
    assert "not identified with a confidence of 0.7, so und: und 1 as guessed" in capsys.readouterr().out
    assert [line.split("\t")[1] for line in lines(tmp_path, "item")[1:]] == ["de", "de", "en", "und"]
    assert cli.main(["convert", "table", *words, "--unsure", "main"]) == 0
    assert [line.split("\t")[1] for line in lines(tmp_path, "item")[1:]] == ["de", "de", "en", "de"]


def test_an_order_by_chance_is_the_same_for_every_order_of_the_rows(
    convert: Callable[..., ConvertReport], tmp_path: Path
) -> None:
    rows = [{"user_id": f"u{i % 7}", "item_id": f"i{i}"} for i in range(100)]
    found = []
    for number, part in enumerate((rows, rows[::-1])):
        convert(TableConverter(input=write_rows(tmp_path / f"{number}.csv", part), random_order=True))
        found.append(set(lines(tmp_path, "inter")))
    assert found[0] == found[1] and "u0\ti0\t12684194" in found[0]


# ---- other layouts --------------------------------------------------------------------------------------------


def test_dat_files_and_files_without_names_of_columns_are_read(
    convert: Callable[..., ConvertReport], tmp_path: Path
) -> None:
    (tmp_path / "ratings.dat").write_text("1::1193::5::978300760\n1::661::3::978302109\n")
    (tmp_path / "movies.dat").write_bytes("661::Amélie: 2 (2001)::Drama\n1193::Cuckoo::Drama\n".encode("latin-1"))
    settings = {"input": tmp_path / "ratings.dat", "items": tmp_path / "movies.dat", "encoding": "latin-1"}
    names = {
        "user": "1",
        "item": "2",
        "rating": "3",
        "time": "4",
        "item_id": "1",
        "text": "title:en=2",
        "no_header": True,
    }
    convert(TableConverter(**settings, **names))
    assert lines(tmp_path, "inter")[1:] == ["1\t1193\t5\t978300760", "1\t661\t3\t978302109"]
    assert _texts(tmp_path)[0] == ("661", "en", {"title": "Amélie: 2 (2001)"}, "display")
    with pytest.raises(DataError, match=r"unknown column 'item_id'.*--item names the column of item ids; --no-header"):
        convert(TableConverter(input=tmp_path / "ratings.dat", user="1193"))
    (tmp_path / "plays.dat").write_text("userID\tartistID\tweight\n2\t51\t13883\n")
    convert(TableConverter(input=tmp_path / "plays.dat", user="userID", item="artistID", rating="weight"))
    assert lines(tmp_path, "inter")[1:] == ["2\t51\t13883"]
    (tmp_path / "plays.csv").write_text("a;b||x\n")
    words = {"user": "1", "item": "2", "separator": "||", "no_header": True}
    convert(TableConverter(input=tmp_path / "plays.csv", **words))
    assert lines(tmp_path, "item")[1:] == ["x\tund"]


@pytest.mark.parametrize("words", ["\\t", "tab"])
def test_a_tab_can_be_written_in_a_shell(words: str, convert: Callable[..., ConvertReport], tmp_path: Path) -> None:
    (tmp_path / "clicks.csv").write_text("user_id\titem_id\nu\ta\n")
    assert convert(TableConverter(input=tmp_path / "clicks.csv", separator=words)).interactions == 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"user": "custmer"}, "customers.csv: unknown column 'custmer'.*'customer'.*without it --user does in both"),
        ({"user": "custmer", "user_id": "customer"}, "sales.csv: unknown column 'custmer'.*--user names the column"),
        ({"item_id": "id"}, "products.csv: unknown column 'id'.*--item-id names the column of ids in the items"),
        ({"text": "title=titel"}, "products.csv: unknown column 'titel'.*--text names it"),
        ({"language": "lng"}, "unknown column 'lng'. Did you mean 'lang'.*--language names"),
        ({"user_features": "town"}, "customers.csv: unknown column 'town'.*--user-features names it"),
        ({"item_features": "price"}, "unknown column 'price'.*--item-features names it"),
        ({"time": "at"}, "unknown column 'at'.*--time names"),
    ],
)
def test_the_option_that_names_a_missing_column_is_told(
    settings: dict[str, str], message: str, shop: Callable[[str], dict[str, Any]], convert: Callable[..., ConvertReport]
) -> None:
    with pytest.raises(DataError, match=message):
        convert(TableConverter(**shop(".csv") | settings))


def test_the_dataset_loads_in_recbole(
    shop: Callable[[str], dict[str, Any]], convert: Callable[..., ConvertReport], tmp_path: Path
) -> None:
    convert(TableConverter(**shop(".parquet")))
    columns = {"inter": ["user_id", "item_id", "timestamp"], "item": ["item_id", "item_language", "brand", "tags"]}
    _, dataset = load_dataset(tmp_path, columns)
    assert (dataset.user_num, dataset.item_num, dataset.inter_num) == (6, 13, 30)
    assert set(dataset.item_feat.columns) == set(columns["item"])


def test_a_key_given_twice_in_a_mapping_is_an_error_that_names_its_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "clicks.csv").write_text("user,item\nu,a\n")
    words = ["--mapping", str(tmp_path / "shop.yaml"), "--output", str(tmp_path), "--name", "d"]
    for line, message in (("user: item", "shop.yaml:4"), ("1: item", "must be text, not 1")):
        (tmp_path / "shop.yaml").write_text(f"input: clicks.csv\nuser: user\nitem: item\n{line}\n")
        assert cli.main(["convert", "table", *words]) == 2
        assert message in capsys.readouterr().err


def test_a_folder_of_shards_gives_the_dataset_of_one_file(
    shop: Callable[[str], dict[str, Any]], convert: Callable[..., ConvertReport], tmp_path: Path
) -> None:
    settings = shop(".parquet")
    convert(TableConverter(**settings))
    names = ("inter", "item", "user", "itemtext.jsonl")
    whole = {name: lines(tmp_path, name) for name in names}
    for key in ("input", "items", "users"):
        folder, table = tmp_path / f"shards of {key}", pl.read_parquet(settings[key])
        folder.mkdir()
        for number, start in enumerate(range(0, table.height, 1 + table.height // 3), 9):  # part-9 to part-11
            part = table.slice(start, 1 + table.height // 3)
            part.write_parquet(folder / f"part-{number}.snappy.parquet", row_group_size=2)
        table.clear().write_parquet(folder / "part-12.snappy.parquet")  # Spark leaves empty ones
        settings[key] = folder
    report = convert(TableConverter(**settings))
    assert {name: lines(tmp_path, name) for name in names} == whole
    assert report.rows_read == 47
    in_order = {"input": settings["input"], "user": "customer", "item": "sku", "in_order": True}
    convert(TableConverter(**in_order))
    assert [line.split("\t")[2] for line in lines(tmp_path, "inter")[1:]] == [str(n) for n in range(1, 31)]


def test_a_bad_row_of_a_shard_is_listed_with_it(convert: Callable[..., ConvertReport], tmp_path: Path) -> None:
    folder = tmp_path / "sales"
    folder.mkdir()
    rows = [{"user_id": "u", "item_id": str(n)} for n in range(5)]
    write_rows(folder / "a.parquet", rows)
    write_rows(folder / "b.parquet", [{"user_id": "", "item_id": "5"}, *rows])
    report = convert(TableConverter(input=folder, in_order=True), max_bad=1.0)
    assert report.interactions == 10
    (bad,) = [json.loads(line) for line in lines(tmp_path, "rejects.jsonl")]
    assert (bad["file"], bad["line"]) == (str(folder / "b.parquet"), 1)
