"""Item texts: what is written is read back, and wrong records are named."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from recbole_xling.errors import ConfigError, DataError
from recbole_xling.text.record import ItemText
from recbole_xling.text.store import ItemTextStore, find_item_text, write_itemtext

TEXTS = [
    ItemText("1", "de", {"title": "Der Pate", "year": "1972"}, "display"),
    ItemText("2", "ja", {"title": "七人の侍"}, "display", language_confidence=0.987),
    ItemText("1", "en", {"title": "The Godfather", "year": "1972"}, "parallel"),
    ItemText("1", "en", {"title": "The Sponsor"}, "translation:m2m"),
    ItemText("3", "fr", {"title": "", "note": 'say "no"\n\u2028\tNA'}, "parallel"),
]


def row(**changes: Any) -> dict[str, Any]:
    return {"item_id": "1", "language": "de", "fields": {"title": "x"}, "source": "display"} | changes


def write_rows(path: Path, *rows: dict[str, Any] | str) -> Path:
    path.write_text("".join((r if isinstance(r, str) else json.dumps(r)) + "\n" for r in rows), encoding="utf-8")
    return path


def test_written_texts_are_read_back_in_the_order_of_their_items(tmp_path: Path) -> None:
    path = tmp_path / "d.itemtext.jsonl"
    assert write_itemtext(path, TEXTS) == 5
    store = ItemTextStore.load(path)
    assert list(store) == ["1", "2", "3"]
    assert len(store) == 3
    assert "2" in store and "4" not in store
    assert store.languages == ("de", "en", "fr", "ja")
    assert list(store.texts()) == [TEXTS[i] for i in (0, 2, 3, 1, 4)]
    assert store.display("1") == TEXTS[0]
    assert store.parallel("1") == (TEXTS[2], TEXTS[3])
    assert [path.name for path in tmp_path.iterdir()] == ["d.itemtext.jsonl"]


def test_the_store_returns_none_for_texts_that_an_item_lacks() -> None:
    store = ItemTextStore(TEXTS)
    assert store.display("3") is None
    assert store.display("4") is None
    assert store.parallel("2") == store.parallel("4") == ()
    assert store.text("1", "fr") is None
    assert len(ItemTextStore()) == 0


def test_own_texts_come_before_translations_whatever_the_order() -> None:
    en, translated = TEXTS[2], TEXTS[3]
    assert ItemTextStore([translated, en]).text("1", "en") == en
    shown = ItemText("1", "en", {"title": "shown"}, "display")
    assert ItemTextStore([translated, en, shown]).text("1", "en") == shown
    assert ItemTextStore([translated]).text("1", "en") == translated


def test_the_language_of_display_texts_is_known_without_their_texts() -> None:
    store = ItemTextStore(
        [ItemText("1", "en", {"title": "x"}, "parallel"), ItemText("1", "de", {"title": "y"}, "display")]
    )
    assert store.display_language("1") == store.display("1").language == "de"
    assert store.display_language("2") is None


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ("{", "not valid JSON"),
        ("[" * 100_000, "not valid JSON"),
        ("[1]", "expected a JSON object"),
        ('{"item_id": "2", "language": "de", "item_id": "3"}', "'item_id' is given twice"),
        ('{"item_id": "2", "fields": {"title": "a", "title": "b"}}', "'title' is given twice"),
        ('{"item_id": "2", "fields": {"title": "a: b", "title" : "c"}}', "'title' is given twice"),
        ('{"item_id": "2", "fields": {"title": "a", "title": "b\\u003a"}}', "'title' is given twice"),
        (json.dumps(row(item_id="2", fields={"title": "b:"}))[:-1] + ', "item_id": "3"}', "'item_id' is given twice"),
        (json.dumps(row(item_id="2"))[:-1] + ', "x": {"y": 1, "y": 2}}', "'y' is given twice"),
        (json.dumps(row(item_id="2")) + " {}", "not valid JSON: Extra data"),
        (json.dumps(row(item_id="2"))[:-1], "not valid JSON: Expecting ',' delimiter"),
        ("\ufeff" + json.dumps(row(item_id="2")), "not valid JSON: Unexpected UTF-8 BOM"),
        (
            json.dumps(row(item_id="2", fields={"title": "\t"})).replace("\\t", "\t"),
            "not valid JSON: Invalid control char",
        ),
        ({"item_id": "2", "language": "de", "fields": {"title": "x"}}, "'source' is missing"),
        (row(item_id=2), "'item_id' must be a text"),
        (row(item_id=""), "'item_id' must be a text"),
        (row(item_id="2", language=None), "'language' must be a text"),
        (row(item_id="2", language="german"), "not a BCP 47 tag"),
        (row(item_id="2", language="pt_BR"), "not a BCP 47 tag"),
        (row(item_id="2", language_confidence=10**400), "number from 0 to 1, not 1000"),
        (row(item_id="2", language_confidence=True), "number from 0 to 1, not True"),
        (row(item_id="2", language_confidence=math.nan), "number from 0 to 1, not nan"),
        (row(item_id="2", language_confidence=1.5), "number from 0 to 1, not 1.5"),
        (row(item_id="2", language_confidence="sure"), "number from 0 to 1, not 'sure'"),
        (row(item_id="2", source="Display"), "unknown source"),
        (row(item_id="2", source="translation:"), "unknown source"),
        (row(item_id="2", fields="x"), "'fields' must be an object"),
        (row(item_id="2", fields={}), "'fields' must be an object"),
        (row(item_id="2", fields={"title": None}), "field 'title' must be a text"),
        (row(item_id="2", fields={"title": 5}), "field 'title' must be a text, not 5"),
        (row(item_id="2", fields={"": "x"}), "field '' must be a text"),
        (row(item_id="2\0"), "NUL"),
        (row(item_id="2", fields={"title": "a\0b"}), "NUL"),
        (row(item_id="2", fields={"title": "\ud800"}), "surrogate"),
        (row(language="en"), "two display texts"),
        (row(), "twice"),
    ],
)
def test_a_malformed_record_is_refused_with_file_and_line(
    tmp_path: Path, bad: dict[str, Any] | str, message: str
) -> None:
    path = write_rows(tmp_path / "d.itemtext.jsonl", row(), "", bad)
    with pytest.raises(DataError) as error:
        ItemTextStore.load(path)
    assert str(error.value).startswith(f"{path}:3: ")
    assert message in str(error.value)


@pytest.mark.parametrize(
    "title", ["Alien: Resurrection", "a\\u003a b", "\\u00e9\\ud83d\\ude00", '\\"x\\": {\\n', "Ä\u2028" * 9000]
)
@pytest.mark.parametrize(
    "ending", ["}", " }\t", ', "language_confidence": null}', ', "price": {"EUR": [1.5, true]}, "url": "https://x"}']
)
def test_a_line_is_read_whatever_its_escapes_spaces_and_unknown_keys(tmp_path: Path, title: str, ending: str) -> None:
    line = (
        f'{{"source":"display","language" : "de", "fields": {{"a:b": "", "title": "{title}"}}, "item_id": "1:x"{ending}'
    )
    store = ItemTextStore.load(write_rows(tmp_path / "d.itemtext.jsonl", line))
    assert list(store.texts()) == [ItemText("1:x", "de", {"a:b": "", "title": json.loads(f'"{title}"')}, "display")]


def test_a_byte_order_mark_carriage_returns_and_blank_lines_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "d.itemtext.jsonl"
    lines = [json.dumps(row()), "", json.dumps(row(item_id="2", language_confidence=1))]
    path.write_bytes(("\ufeff" + "\r\n".join(lines)).encode())
    assert [(text.item_id, text.language_confidence) for text in ItemTextStore.load(path).texts()] == [
        ("1", None),
        ("2", 1),
    ]


@pytest.mark.parametrize("confidence", [0, 1, 0.1, 1e-300, 0.30000000000000004])
def test_confidences_are_kept_to_the_last_digit(tmp_path: Path, confidence: float) -> None:
    path = write_rows(tmp_path / "d.itemtext.jsonl", row(language_confidence=confidence))
    assert ItemTextStore.load(path).display("1").language_confidence == confidence


@pytest.mark.parametrize(
    ("raw", "message"),
    [(b"\0", "NUL byte"), (b"\xff", "not valid utf-8"), (b"x" * (1 << 24), "a line of more than 16 MiB")],
    ids=["NUL", "no UTF-8", "long"],
)
def test_broken_bytes_are_refused_with_their_line(tmp_path: Path, raw: bytes, message: str) -> None:
    path = tmp_path / "d.itemtext.jsonl"
    path.write_bytes(json.dumps(row()).encode() + b"\n" + raw + b"\n")
    with pytest.raises(DataError, match=f":2: .*{message}"):
        ItemTextStore.load(path)


def test_a_repeated_text_is_refused_even_after_other_texts(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"twice"):
        ItemTextStore([*TEXTS, TEXTS[3]])


def test_a_failed_write_leaves_the_previous_file(tmp_path: Path) -> None:
    path = tmp_path / "d.itemtext.jsonl"
    write_itemtext(path, TEXTS[:1])
    before = path.read_bytes()
    with pytest.raises(DataError, match=r"d\.itemtext\.jsonl: record 2: .*two display texts"):
        write_itemtext(path, [TEXTS[0], ItemText("1", "fr", {"title": "Le Parrain"}, "display")])
    with pytest.raises(DataError, match="unknown source"):
        write_itemtext(path, [ItemText("1", "fr", {"title": "x"}, "other")])
    assert path.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["d.itemtext.jsonl"]


ITEM_FILE = (
    "item_id:token\titem_language:token\ttitle:token_seq\tprice:float\tbrand:token\r\n"
    '1\ten\t"Quoted\t1\tNA\r\n'
    "2\t\tnull\t2\tA\r\n"
    '3\tde\t\t3\t"\r\n'
    "4\tde\t\t4\t\r\n"
    "5\tzh\t\u2028 nan\t5\tB"
)


def test_cells_of_an_item_file_are_taken_literally(tmp_path: Path) -> None:
    path = tmp_path / "d.item"
    path.write_bytes(ITEM_FILE.encode())
    store = ItemTextStore.from_item_file(path, ["title", "brand"])
    assert list(store.texts()) == [
        ItemText("1", "en", {"title": '"Quoted', "brand": "NA"}, "display"),
        ItemText("2", "und", {"title": "null", "brand": "A"}, "display"),
        ItemText("3", "de", {"title": "", "brand": '"'}, "display"),
        ItemText("4", "de", {"title": "", "brand": ""}, "display"),  # its language is stated
        ItemText("5", "zh", {"title": "\u2028 nan", "brand": "B"}, "display"),
    ]


def test_an_item_file_with_other_names_separator_and_encoding_is_read(tmp_path: Path) -> None:
    path = tmp_path / "d.item"
    path.write_bytes("asin:token,name:token_seq\nB1,Küche\n".encode("latin-1"))
    store = ItemTextStore.from_item_file(path, ["name"], item_id_field="asin", separator=",", encoding="latin-1")
    assert store.display("B1") == ItemText("B1", "und", {"name": "Küche"}, "display")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", ":1: the line is empty"),
        (b"item_id:token\ttext:token\n", "no column 'title'; name other columns"),
        (b"item_id:token\ttitle:token\ttitle:token_seq\n", ":1: column 'title' appears twice"),
        (b"item_id:token\ttitle:token\n1\ta\tb\n", ":2: 3 cells, but the header has 2"),
        (b"item_id:token\ttitle:token\n1\ta\n1\tb\n", ":3: item '1' has its und text"),
        (b"item_id:token\ttitle:token\n1\t\xe9\n", ":2: byte 3 is not valid utf-8"),
    ],
)
def test_a_malformed_item_file_is_refused_with_its_path(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "d.item"
    path.write_bytes(content)
    with pytest.raises(DataError) as error:
        ItemTextStore.from_item_file(path, ["title"])
    assert message in str(error.value) and str(path) in str(error.value)


@pytest.mark.parametrize("encoding", ["utf-16", "no-such"])
def test_an_unusable_encoding_of_an_item_file_is_refused(tmp_path: Path, encoding: str) -> None:
    with pytest.raises(ConfigError, match=encoding):
        ItemTextStore.from_item_file(tmp_path / "d.item", ["title"], encoding=encoding)


def test_find_item_text_prefers_the_itemtext_file_to_the_item_file(tmp_path: Path) -> None:
    (tmp_path / "d.item").write_text("item_id:token\ttitle:token\n1\tcolumn\n", encoding="utf-8")
    assert find_item_text(tmp_path, "d", ["title"]).display("1") == ItemText("1", "und", {"title": "column"}, "display")
    write_itemtext(tmp_path / "d.itemtext.jsonl", TEXTS)
    assert find_item_text(tmp_path, "d", ["title"]).display("1") == TEXTS[0]


def test_find_item_text_says_what_to_add_where_it_finds_no_text(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"add .*d\.itemtext\.jsonl"):
        find_item_text(tmp_path, "d", ["title"])
    (tmp_path / "d.item").write_text("item_id:token\tbrand:token\n1\tx\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"add .*d\.itemtext\.jsonl, or name text columns"):
        find_item_text(tmp_path, "d", [])
    with pytest.raises(DataError, match=r"no column 'title' \(it has item_id, brand\).*add .*d\.itemtext\.jsonl"):
        find_item_text(tmp_path, "d", ["title"])
