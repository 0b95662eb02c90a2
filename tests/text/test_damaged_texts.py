"""Damaged item texts and atomic files: what is read is what the file says, and everything else is a short error.

RECBOLE_XLING_FUZZ=10000 pytest -rP tests/text/test_damaged_texts.py
"""

from __future__ import annotations

import json
import math
from collections import Counter
from functools import partial
from pathlib import Path
from random import Random

import pytest
from damage import cases, damaged

from recbole_xling.errors import XlingError
from recbole_xling.text.atomic_files import read_atomic_file
from recbole_xling.text.record import ItemText
from recbole_xling.text.store import ItemTextStore, find_item_text, write_itemtext
from recbole_xling.text.template import TextTemplate

TEXTS = [
    ItemText("1", "de", {"title": "Der Pate", "year": "1972"}, "display"),
    ItemText("2", "ja", {"title": "七人の侍", "year": ""}, "display", language_confidence=0.987),
    ItemText("1", "en", {"title": "The Godfather"}, "parallel"),
    ItemText("1", "en", {"title": "The Sponsor"}, "translation:m2m"),
    ItemText("3", "fr", {"title": 'say "no"\u2028\\', "note": "NA"}, "display"),
    ItemText("null", "und", {"title": "x: y"}, "display"),
]
ITEMS = "item_id:token\titem_language:token\ttitle:token_seq\tprice:float\n" + "".join(
    f"i{item}\t{('de', '', 'fr')[item % 3]}\t{('Der Pate', 'NA', '', chr(34) + 'x')[item % 4]}\t{item / 3 or ''}\n"
    for item in range(9)
)


def outcome(read, path: Path):
    """Return what a reader makes of a file; None for an error, whose message must be short and name the file."""
    try:
        return read()
    except XlingError as error:
        message = str(error)
        assert len(message.splitlines()) <= 3 and len(message) < 2100 and path.name in message, message
        return None


def written_texts(content: bytes) -> list[tuple[object, ...]]:
    """Read item texts as the format is documented, by Python's own parser."""
    lines = [line.removesuffix(b"\r") for line in content.removeprefix(b"\xef\xbb\xbf").split(b"\n")]
    records = [json.loads(line) for line in lines if line]
    return [(r["item_id"], r["language"], r["fields"], r["source"], r.get("language_confidence")) for r in records]


def test_damaged_item_texts_are_read_as_they_are_written_or_not_at_all(tmp_path: Path) -> None:
    path, outcomes = tmp_path / "d.itemtext.jsonl", Counter[str]()
    write_itemtext(path, TEXTS)
    whole = path.read_bytes()
    for number in cases(150):
        _, content, ways = damaged(path.name, whole, Random(f"texts {number}"), packed=False)
        path.write_bytes(content)
        store = outcome(partial(ItemTextStore.load, path), path)
        outcomes["error" if store is None else "texts"] += 1
        if store is None:
            continue
        texts = list(store.texts())
        found = [(t.item_id, t.language, dict(t.fields), t.source, t.language_confidence) for t in texts]
        expected = written_texts(content)
        assert sorted(map(repr, found)) == sorted(map(repr, expected)), (number, ways)
        write_itemtext(tmp_path / "e.itemtext.jsonl", texts)
        assert list(ItemTextStore.load(tmp_path / "e.itemtext.jsonl").texts()) == texts, (number, ways)
        template = TextTemplate("{title}")
        for text in texts:
            assert isinstance(template.render(text.fields), str)
    print(dict(outcomes))
    assert outcomes["error"] and outcomes["texts"]


def test_damaged_columns_are_read_as_they_are_written_or_not_at_all(tmp_path: Path) -> None:
    path, outcomes = tmp_path / "d.item", Counter[str]()
    for number in cases(150):
        _, content, ways = damaged(path.name, ITEMS.encode(), Random(f"columns {number}"), packed=False)
        path.write_bytes(content)
        file = outcome(partial(read_atomic_file, path), path)
        outcome(partial(find_item_text, tmp_path, "d", [["title"], ["title", "price"]][number % 2]), path)
        outcomes["error" if file is None else "columns"] += 1
        if file is None:
            continue
        lines = [line.removesuffix("\r") for line in content.decode("utf-8-sig").split("\n")]
        header, rows = lines[0].split("\t"), [line.split("\t") for line in lines[1:] if line]
        assert list(file.types) == [name.partition(":")[0] for name in header], (number, ways)
        assert [list(row) for row in file.cells.fill_null("").iter_rows()] == rows, (number, ways)
        if "price" in file.types:
            numbers = outcome(partial(file.numbers, "price"), path)
            place = list(file.types).index("price")
            if numbers is not None:
                expected = [float(row[place]) if row[place] else math.nan for row in rows]
                assert numbers.tolist() == pytest.approx(expected, nan_ok=True, rel=0), (number, ways)
    print(dict(outcomes))
    assert outcomes["error"] and outcomes["columns"]
