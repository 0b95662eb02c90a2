"""MIND's layout, alone, in several folders, without times, merged from editions, and with translations."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
from dumps.mind import BEHAVIORS, news, write_table
from made import contents, lines, load_dataset

from recbole_xling.convert import ConvertReport, Filters
from recbole_xling.convert.cells import MISSING_ID
from recbole_xling.convert.reading.rejects import Rejects
from recbole_xling.convert.sources.mind import Mind
from recbole_xling.errors import ConfigError, DataError
from recbole_xling.text.record import ItemText
from recbole_xling.text.store import ItemTextStore

FIRST_U1 = 1573419958  # 2019-11-10 21:05:58 UTC


@pytest.fixture
def mind(tmp_path: Path) -> Path:
    folder = tmp_path / "mind"
    write_table(folder / "news.tsv", news(range(1, 13)))
    write_table(folder / "behaviors.tsv", BEHAVIORS)
    return folder


@pytest.fixture
def nemig(tmp_path: Path) -> Path:
    """Two editions without times; the ids are in both."""
    for language, title in (("de", "Größe"), ("en", "Size")):
        folder = tmp_path / "nemig" / language
        write_table(folder / "news.tsv", news(range(1, 7), title, "news_{}"))
        rows: list[tuple[str, ...]] = [
            ("9", "U1", "", "news_1 news_2", "news_3-1 news_4-0"),
            ("4", "U2", "", "", "news_1-0 news_5-1"),
            ("7", "U1", "", "news_1 news_2", "news_6-0 news_5-0"),
            ("2", "U1", "", "news_1 news_2", "news_6-1"),
        ]
        write_table(folder / "behaviors.tsv", rows)
    return tmp_path / "nemig"


def test_histories_and_clicks_become_interactions(
    mind: Path, tmp_path: Path, convert: Callable[..., ConvertReport]
) -> None:
    report = convert(Mind(input=mind))
    assert (report.users, report.items, report.interactions, report.rejected) == (4, 12, 12, {})
    assert report.items_per_language == report.texts_per_language == {"en": 12}
    assert report.rows_read == 12 + 6
    assert report.notes == (
        "the source has 6 impressions with 13 candidates",
        "no times in the histories: they get times one second apart, right before the user's first impression",
    )
    inter = lines(tmp_path, "inter")
    assert inter[0] == "user_id:token\titem_id:token\ttimestamp:float"
    assert inter[1:5] == [f"U1\tN{i}\t{FIRST_U1 - 4 + i}" for i in (1, 2, 3)] + ["U1\tN5\t1573463158"]
    assert inter[7] == f"U1\tN7\t{FIRST_U1}"
    assert [inter[10], inter[-1]] == ["U2\tN12\t1573606800", "U4\tN8\t1573693200"]
    items = lines(tmp_path, "item")
    assert items[0] == "item_id:token\titem_language:token\tcategory:token\tsubcategory:token"
    assert [items[1], items[10], items[-1]] == [f"N{i}\ten\tsports\tclub{i % 3}" for i in (1, 10, 12)]
    assert lines(tmp_path, "user") == ["user_id:token\tuser_language:token", *(f"U{i}\ten" for i in (1, 2, 3, 4))]
    store = ItemTextStore.load(tmp_path / "out" / "d" / "d.itemtext.jsonl")
    fields = {"title": 'Say "what 10', "abstract": "Abstract 10"}
    assert store.display("N10") == ItemText("N10", "en", fields, "display")
    assert store.display("N3") == ItemText("N3", "en", {"title": 'Say "what 3'}, "display")


def test_impressions_keep_what_was_not_clicked(
    mind: Path, tmp_path: Path, convert: Callable[..., ConvertReport]
) -> None:
    report = convert(Mind(input=mind))
    assert report.impressions == 6 and next(report.lines()).endswith("12 interactions, 6 impressions")
    kept = lines(tmp_path, "imp")
    assert kept[0] == "impression_id:token\tuser_id:token\ttimestamp:float\titem_id:token_seq\tlabel:float_seq"
    assert [kept[1], kept[4], kept[-1]] == [
        "1\tU1\t1573463158\tN4 N5 N6\t0 1 0",
        "4\tU3\t1573518600\tN1 N2\t0 0",
        "6\tU4\t1573693200\tN8 N12\t1 0",
    ]
    assert len(kept) == 1 + 6
    assert convert(Mind(input=mind), filters=Filters(since=1573463158, until=1573606800, user_core=2)).impressions == 2
    assert [line.split("\t")[0] for line in lines(tmp_path, "imp")[1:]] == ["2", "4"]  # U1 has one click in this time
    convert(Mind(input=mind), filters=Filters(item_core=2))
    assert lines(tmp_path, "imp")[1:] == ["2\tU2\t1573473600\tN1 N2\t1 1", "4\tU3\t1573518600\tN1 N2\t0 0"]
    convert(Mind(input=mind), filters=Filters(since=1573693200))
    assert len(lines(tmp_path, "imp")) == 2


def test_folders_are_read_in_order_of_time(tmp_path: Path, convert: Callable[..., ConvertReport]) -> None:
    folder = tmp_path / "both"
    write_table(folder / "MINDsmall_dev" / "news.tsv", news(range(5, 14), title="Later"))
    write_table(folder / "MINDsmall_dev" / "behaviors.tsv", [("1", "U1", "11/15/2019 1:00:00 AM", "N1", "N13-1 N5-0")])
    write_table(folder / "MINDsmall_train" / "news.tsv", news(range(1, 13)))
    with gzip.open(folder / "MINDsmall_train" / "behaviors.tsv.gz", "wt") as file:
        file.writelines("\t".join(row) + "\n" for row in BEHAVIORS)
    report = convert(Mind(input=folder, language="en-US"))
    assert (report.users, report.items, report.interactions, report.rejected) == (4, 13, 13, {})
    assert report.items_per_language == {"en": 13}
    assert report.notes[-1] == "1 impressions name another history than the first of their user"
    assert lines(tmp_path, "inter")[-1] == "U1\tN13\t1573779600"
    kept = [line.split("\t")[0] for line in lines(tmp_path, "imp")]
    assert [kept[1], kept[-1]] == ["MINDsmall_train:1", "MINDsmall_dev:1"]
    store = ItemTextStore.load(tmp_path / "out" / "d" / "d.itemtext.jsonl")
    text = store.display("N5")
    assert text is not None and text.fields["title"] == 'Say "what 5'


def test_without_times_the_order_of_the_file_replaces_them(
    nemig: Path, tmp_path: Path, convert: Callable[..., ConvertReport]
) -> None:
    report = convert(Mind(input=nemig / "de", language="de"))
    assert (report.users, report.items, report.interactions, report.rejected) == (2, 6, 5, {})
    assert report.notes[1:] == ("no times (de): the order of the file replaces them: a running number per user",)
    assert lines(tmp_path, "inter")[1:] == [
        "U1\tnews_1\t1",
        "U1\tnews_2\t2",
        "U1\tnews_3\t3",
        "U2\tnews_5\t1",
        "U1\tnews_6\t5",
    ]
    assert [line.split("\t")[2] for line in lines(tmp_path, "imp")[1:]] == ["3", "1", "4", "5"]


def test_the_size_of_blocks_changes_nothing(nemig: Path, tmp_path: Path, convert: Callable[..., ConvertReport],
                                  monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    convert(Mind(input=nemig / "de", language="de"))
    whole = lines(tmp_path, "inter"), lines(tmp_path, "imp"), lines(tmp_path, "user")
    monkeypatch.setattr("recbole_xling.convert.reading.compressed.BLOCK_BYTES", 50)
    report = convert(Mind(input=nemig / "de", language="de"))
    assert (lines(tmp_path, "inter"), lines(tmp_path, "imp"), lines(tmp_path, "user")) == whole
    assert report.rejected == {}


def test_editions_are_merged_with_the_language_before_their_ids(
    nemig: Path, mind: Path, tmp_path: Path, convert: Callable[..., ConvertReport]
) -> None:
    report = convert(Mind(lang=[("de", nemig / "de"), ("en", nemig / "en")]))
    assert (report.users, report.items, report.interactions, report.rejected) == (4, 12, 10, {})
    assert report.items_per_language == {"de": 6, "en": 6}
    inter = lines(tmp_path, "inter")
    assert [inter[1], inter[10]] == ["de:U1\tde:news_1\t1", "en:U1\ten:news_6\t5"]
    assert lines(tmp_path, "imp")[-1] == "en:2\ten:U1\t5\ten:news_6\t1"
    assert lines(tmp_path, "user")[1:] == ["de:U1\tde", "de:U2\tde", "en:U1\ten", "en:U2\ten"]
    store = ItemTextStore.load(tmp_path / "out" / "d" / "d.itemtext.jsonl")
    german = ItemText("de:news_3", "de", {"title": "Größe 3"}, "display")
    assert (store.display("de:news_3"), store.parallel("de:news_3")) == (german, ())
    report = convert(Mind(lang=[("de", nemig / "de"), ("en", mind)]))
    assert report.notes[-1] == "only some editions have times: time stamps of different languages cannot be compared"
    report = convert(Mind(lang=[("de", nemig / "de"), ("en", mind)]), filters=Filters(languages=("de",)))
    assert (report.items, report.interactions, len(lines(tmp_path, "imp"))) == (6, 5, 1 + 4)


def test_translations_of_xmind_become_parallel_texts(
    mind: Path, tmp_path: Path, convert: Callable[..., ConvertReport]
) -> None:
    finnish = pl.DataFrame({"nid": [f"N{i}" for i in range(1, 11)], "title": [f"Otsikko {i}" for i in range(1, 11)],
                            "abstract": [None, *(f"Tiivistelmä {i}" for i in range(2, 11))]})  # fmt: skip
    folder = tmp_path / "xmind" / "fin"
    folder.mkdir(parents=True)
    finnish.write_parquet(folder / "train.parquet.gzip", compression="gzip")
    later = pl.DataFrame(
        {"nid": ["N10", "N11", "N77"], "title": ["Toinen", "Otsikko 11", "Vieras"], "abstract": [""] * 3}
    )
    later.write_parquet(folder / "valid.parquet.gzip")
    write_table(tmp_path / "ron.tsv", [("nid", "title", "abstract"), ("N2", "Titlu", "Rezumat")])
    report = convert(Mind(input=mind, xmind=[("fi", folder), ("ro", tmp_path / "ron.tsv")]))
    assert report.texts_per_language == {"en": 12, "fi": 11, "ro": 1}
    assert report.notes[-1] == "1 translations are of news that are not in this release"
    assert report.rejected == {}
    store = ItemTextStore.load(tmp_path / "out" / "d" / "d.itemtext.jsonl")
    assert store.parallel("N1") == (ItemText("N1", "fi", {"title": "Otsikko 1"}, "parallel"),)
    assert store.parallel("N2")[1] == ItemText("N2", "ro", {"title": "Titlu", "abstract": "Rezumat"}, "parallel")
    text = store.text("N10", "fi")
    assert text is not None and text.fields == {"title": "Otsikko 10", "abstract": "Tiivistelmä 10"}


def test_bad_rows_are_listed(mind: Path, tmp_path: Path, convert: Callable[..., ConvertReport]) -> None:
    bad: list[tuple[str, ...]] = [
        ("7", "U5", "11/14/2019 1:00:00 AM", "N99", "N1-1"),
        ("8", "U5", "11/14/2019 1:00:00 AM", "N1", "N1-1 N99-0"),
        ("9", "U5", "11/14/2019 1:00:00 AM", "N1", "N1-x N2-0"),
        ("10", "U5", "11/14/2019 1:00:00 AM", "N1", "N1 N2"),
        ("11", "U5", "2019-11-14", "N1", "N1-1"),
        ("12", "U5", "", "N1", "N1-1"),
        ("13", "U5", "11/14/2019 1:00:00 AM", "N1"),
        ("14", "NA", "11/14/2019 1:00:00 AM", "N1", "N1-1"),
        ("15", "U5", "11/14/2019 1:00:00 AM", "N1", " "),
    ]
    write_table(mind / "behaviors.tsv", [*bad[:4], *BEHAVIORS, *bad[4:]])
    write_table(mind / "news.tsv", [*news(range(1, 13)), ("N13", "sports"), *news(range(1, 2))])
    report = convert(Mind(input=mind), max_bad=0.5)
    assert (report.users, report.items, report.interactions) == (5, 12, 14)
    assert lines(tmp_path, "imp")[1:3] == ["7\tU5\t1573693200\tN1\t1", "8\tU5\t1573693200\tN1\t1"]
    assert len(lines(tmp_path, "imp")) == 1 + 8
    rejects = [json.loads(line) for line in lines(tmp_path, "rejects.jsonl")]
    found = {(Path(row["file"]).name, row["line"]): row["reason"] for row in rejects}
    assert found == {
        ("behaviors.tsv", 1): "unknown news in the history",
        ("behaviors.tsv", 2): "unknown news among the candidates",
        ("behaviors.tsv", 3): "a candidate that does not end in -0 or -1",
        ("behaviors.tsv", 4): "a candidate that does not end in -0 or -1",
        ("behaviors.tsv", 11): "no time like 11/11/2019 9:05:58 AM",
        ("behaviors.tsv", 12): "no time, though other impressions have one",
        ("behaviors.tsv", 13): "5 cells expected",
        ("behaviors.tsv", 14): MISSING_ID,
        ("behaviors.tsv", 15): "no candidates",
        ("news.tsv", 13): "8 cells expected",
        ("news.tsv", 14): "a second row of the same item",
    }
    assert len(rejects) == len(found) == sum(report.rejected.values())
    assert [row["row"] for row in rejects if row["line"] == 3] == ["\t".join(bad[2])]


def test_unknown_news_cost_neither_the_row_nor_the_user_up_to_max_bad(
    mind: Path, tmp_path: Path, convert: Callable[..., ConvertReport]
) -> None:
    time = "11/14/2019 1:00:00 AM"
    rows = [
        ("1", "U1", time, "N99 N1 N98 N2", "N3-0 N99-1 N4-1"),
        ("2", "U2", time, "N99", "N97-1 N98-0"),
        ("3", "U3", time, "N1", "N2-1 N3-0"),
        ("4", "U4", time, "N5 N6", "N97-1 N98-0"),
        ("5", "U1", time, "N98", "N97-1"),
        ("6", "U6", time, "N98", "N97-1"),
        ("7", "U6", time, "N7", "N8-1"),
    ]
    write_table(mind / "behaviors.tsv", rows)
    with pytest.raises(DataError, match=r"5 of 19 rows are bad.*unknown news in the history: 4"):
        convert(Mind(input=mind), max_bad=0.1)
    report = convert(Mind(input=mind), max_bad=0.3)
    assert report.rejected == {"unknown news in the history": 4, "unknown news among the candidates": 1}
    assert not any("another history" in note for note in report.notes)
    assert [line.split("\t")[:2] for line in lines(tmp_path, "inter")[1:]] == [
        ["U1", "N1"], ["U1", "N2"], ["U1", "N4"], ["U3", "N1"], ["U3", "N2"], ["U4", "N5"], ["U4", "N6"],
        ["U6", "N7"], ["U6", "N8"],
    ]  # fmt: skip
    assert [line.split("\t")[3:] for line in lines(tmp_path, "imp")[1:]] == [
        ["N3 N4", "0 1"],
        ["N2 N3", "1 0"],
        ["N8", "1"],
    ]


def test_options_that_do_not_fit_together_and_missing_files_are_named(mind: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="either --input"):
        Mind()
    with pytest.raises(ConfigError, match="either --input"):
        Mind(input=mind, lang=[("de", mind)])
    with pytest.raises(ConfigError, match="give MIND with --input"):
        Mind(lang=[("en", mind)], xmind=[("fi", mind)])
    with pytest.raises(ConfigError, match="given twice"):
        Mind(lang=[("de", mind), ("de", tmp_path)])
    with pytest.raises(ConfigError, match="'Englsh' names no language"):
        Mind(input=mind, language="Englsh")
    rejects = Rejects(tmp_path / "rejects.jsonl")
    with pytest.raises(DataError, match=r"nor a folder in it has behaviors\.tsv"):
        list(Mind(input=tmp_path / "nothing").items(rejects))
    with pytest.raises(DataError, match="nothing has no table"):
        list(Mind(input=mind, xmind=[("fi", tmp_path / "nothing")]).texts(rejects))
    (mind / "news.tsv").unlink()
    with pytest.raises(DataError, match=r"file .*news\.tsv does not exist"):
        list(Mind(input=mind).items(rejects))


def test_a_failure_leaves_all_files_as_they_were(
    mind: Path, tmp_path: Path, convert: Callable[..., ConvertReport], monkeypatch: pytest.MonkeyPatch
) -> None:
    convert(Mind(input=mind))
    before = contents(tmp_path / "out" / "d")
    write_table(mind / "behaviors.tsv", BEHAVIORS[:3])
    converter = Mind(input=mind)
    monkeypatch.setattr(converter, "notes", lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        convert(converter)
    assert contents(tmp_path / "out" / "d") == before


def test_the_dataset_loads_in_recbole(nemig: Path, tmp_path: Path, convert: Callable[..., ConvertReport]) -> None:
    from recbole_xling.data.catalog import dataset_catalog

    convert(Mind(lang=[("de", nemig / "de"), ("en", nemig / "en")]))
    columns = {"inter": ["user_id", "item_id", "timestamp"], "user": ["user_id", "user_language"],
               "item": ["item_id", "item_language", "category", "subcategory"]}  # fmt: skip
    config, dataset = load_dataset(tmp_path, columns, text_template="{title}. {abstract}")
    assert (dataset.user_num, dataset.item_num, dataset.inter_num) == (5, 13, 10)
    catalog = dataset_catalog(config)
    assert sorted(catalog.languages[1:]) == ["de"] * 6 + ["en"] * 6
    assert "Größe 4. Abstract 4" in catalog.texts
