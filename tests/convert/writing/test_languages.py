"""Stated languages become tags, missing ones are identified, both are compared, and the report tells."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from made import Made, contents, frame, text, write

from recbole_xling.convert import Filters, write_dataset
from recbole_xling.convert.base import Item, User
from recbole_xling.convert.sources import book_crossing, tmdb, xmarket
from recbole_xling.errors import ConfigError, DataError
from recbole_xling.language.identification import Identified
from recbole_xling.language.tags import normalize_language
from recbole_xling.testing import check_dataset
from recbole_xling.text.store import ItemTextStore

GERMAN = "Der Junge, der den Wind einfing und nach Hause brachte"
ENGLISH = "The boy who harnessed the wind and brought it home"
FRENCH = "Le garçon qui dompta le vent et le ramena à la maison"
SPANISH = "El niño que domó el viento y lo trajo a casa"


class Stated(Made):
    """Tells the languages of users as well."""

    user_fields = {"user_language": "token"}


def mixed(**more: Any) -> dict[str, list[Any]]:
    """Two stated items, one of them stated wrongly, and two of which the source does not know the language."""
    records: dict[str, list[Any]] = {
        "items": [Item("a", "ger"), Item("b", "EN"), Item("c", ""), Item("d", "xx")],
        "texts": [text("a", "ger", GERMAN), text("b", "EN", GERMAN), text("c", "", ENGLISH), text("d", "xx", FRENCH)],
        "interactions": [frame(("u1", "a", 1.0, 2.0))],
    }
    return records | more


def languages(folder: Path) -> dict[str, str]:
    lines = (folder / "d.item").read_text(encoding="utf-8").splitlines()[1:]
    return dict(line.split("\t")[:2] for line in lines)


def test_stated_languages_become_tags_everywhere(tmp_path: Path) -> None:
    records = {
        "items": [Item("a", "German"), Item("b", "zh_TW"), Item("c", "eng"), Item("d", "")],
        "texts": [text("a", "German", "Müll"), text("a", "en-GB", "Waste", "parallel"), text("b", "zh_TW", "活着")],
        "users": [User("u1", {"user_language": "DE"}), User("u2", {"user_language": "de-AT"}), User("u3")],
    }
    report = write_dataset(Stated(**records), tmp_path, "d", show_progress=False)
    assert languages(tmp_path / "d") == {"a": "de", "b": "zh-Hant", "c": "en", "d": "und"}
    store = ItemTextStore.load(tmp_path / "d" / "d.itemtext.jsonl")
    assert [(t.item_id, t.language) for t in store.texts()] == [("a", "de"), ("a", "en"), ("b", "zh-Hant")]
    assert (tmp_path / "d" / "d.user").read_text() == "user_id:token\tuser_language:token\nu1\tde\nu2\tde\nu3\tund\n"
    assert report.rejected == {} and report.unread_languages is None
    assert report.items_per_language == {"de": 1, "zh-Hant": 1, "en": 1, "und": 1}


def test_what_names_no_language_is_und_and_counted(tmp_path: Path) -> None:
    records = {
        "items": [Item("a", "xx"), Item("b", "no idea\n"), Item("c", "und")],
        "texts": [text("a", "xx", "Müll"), text("a", "SE", "Avfall", "parallel")],
        "users": [User("u1", {"user_language": "zxx"}), User("u2", {"user_language": "xx"})],
    }
    report = write_dataset(Stated(**records), tmp_path, "d", show_progress=False)
    assert set(languages(tmp_path / "d").values()) == {"und"}
    assert report.rejected == {}
    assert report.unread_languages == {"xx": 2, "no idea": 1, "zxx": 1, "SE": 1}  # xx: an item with its text; a user
    assert "no language, so und: xx 2, no idea 1, zxx 1, SE 1" in report.lines()
    figures = json.loads((tmp_path / "d" / "d.convert.json").read_text(encoding="utf-8"))
    assert figures["unread_languages"] == report.unread_languages


@pytest.mark.parametrize(
    "value", ["NaN", "nan", "nil", "unk", "UNK", "none", "null", "undetermined", "na", "TBD", "all"]
)
def test_words_for_a_missing_value_are_no_languages(tmp_path: Path, value: str) -> None:
    report = write(tmp_path, items=[Item("a", value), Item("b", "Min Nan Chinese")], texts=[])
    assert languages(tmp_path / "d") == {"a": "und", "b": "nan-Hans"}
    assert report.unread_languages == {value: 1}


def test_many_unread_values_do_not_flood_the_terminal(tmp_path: Path) -> None:
    report = write(tmp_path, items=[Item("a", "de"), *(Item(str(i), f"nothing {i}") for i in range(50))], texts=[],
                   interactions=[frame(("u", "a"))])  # fmt: skip
    (line,) = (line for line in report.lines() if line.startswith("no language"))
    assert line.count("nothing") == 10 and line.endswith(", ...")
    assert report.unread_languages is not None and len(report.unread_languages) == 50


def test_two_texts_in_one_language_stay_one(tmp_path: Path) -> None:
    texts = [
        text("a", "de", "Müll"),
        text("a", "en-US", "Trash", "parallel"),
        text("a", "en-GB", "Rubbish", "parallel"),
    ]
    report = write(tmp_path, texts=texts)
    assert report.texts_per_language == {"de": 1, "en": 1}
    assert report.rejected == {"a second text of the item in the same language": 1}


@pytest.mark.parametrize("table", [tmdb.LANGUAGES, xmarket.LANGUAGES, book_crossing._GROUPS])
def test_languages_that_converters_state_are_normalized(table: dict[str, str]) -> None:
    tags = set(table if table is book_crossing._GROUPS else table.values())
    assert {normalize_language(tag) for tag in tags} == tags


def test_nothing_is_identified_unless_asked_for(tmp_path: Path) -> None:
    report = write(tmp_path, **mixed())
    assert languages(tmp_path / "d") == {"a": "de", "b": "en", "c": "und", "d": "und"}
    assert report.identification is None
    assert "identification" not in json.loads((tmp_path / "d" / "d.convert.json").read_text(encoding="utf-8"))


def test_missing_languages_are_identified_and_stated_ones_stay(tmp_path: Path) -> None:
    report = write(tmp_path, options={"identify": ["de", "en", "fr"]}, **mixed())
    assert languages(tmp_path / "d") == {"a": "de", "b": "en", "c": "en", "d": "fr"}
    store = ItemTextStore.load(tmp_path / "d" / "d.itemtext.jsonl")
    confidence = {t.item_id: t.language_confidence for t in store.texts()}
    assert confidence["a"] is confidence["b"] is None
    assert 0.8 < confidence["c"] <= 1 and 0.8 < confidence["d"] <= 1
    assert report.identification is not None
    assert report.identification["languages"] == ["de", "en", "fr"]
    assert report.identification["identified"] == {"en": 1, "fr": 1}
    assert report.identification["agreement"]["matrix"] == {"de": {"de": 1}, "en": {"de": 1}}
    (pair,) = report.identification["agreement"]["examples"]
    assert pair == {"stated": "en", "identified": "de", "count": 1, "texts": [GERMAN]}
    lines = "\n".join(report.lines())
    assert "texts by identified language: en 1, fr 1" in lines
    assert "stated and identified languages differ in 1 of 2 texts: en seems de 1" in lines
    figures = json.loads((tmp_path / "d" / "d.convert.json").read_text(encoding="utf-8"))
    assert figures["identification"] == report.identification


def test_without_tags_the_stated_languages_are_the_candidates(tmp_path: Path) -> None:
    texts = [*mixed()["texts"], text("a", "es-MX", SPANISH, "parallel")]
    report = write(tmp_path, options={"identify": ()}, **mixed(texts=texts))
    assert report.identification is not None
    assert report.identification["languages"] == ["de", "en", "es"]  # of items and of parallel texts, but not French
    assert report.texts_per_language["en"] == 2
    assert report.identification["agreement"]["compared"] == 3
    assert report.unread_languages == {"xx": 1}  # read twice, counted once


def test_texts_in_other_languages_than_those_asked_for_are_not_compared(tmp_path: Path) -> None:
    records = {
        "items": [Item("a", "es"), Item("b", "en")],
        "texts": [text("a", "es", SPANISH), text("b", "en", ENGLISH)],
    }
    report = write(tmp_path, options={"identify": ["de", "en"]}, **records)
    assert report.identification is not None
    assert report.identification["agreement"]["matrix"] == {"en": {"en": 1}}


def test_a_text_of_which_nothing_can_be_told_stays_und(tmp_path: Path) -> None:
    records = {"items": [Item("a", ""), Item("b", "de")], "texts": [text("a", "", "1984")]}
    report = write(tmp_path, options={"identify": ["de", "en"]}, **records)
    assert languages(tmp_path / "d")["a"] == "und"
    assert report.identification is not None and report.identification["unsure"] == {"und": 1}
    assert "confidence" not in (tmp_path / "d" / "d.itemtext.jsonl").read_text(encoding="utf-8")


class Guesses:
    """Identifies "fr .9 ..." as French with a confidence of .9."""

    def __init__(self, languages: Iterable[str]) -> None:
        self.languages = tuple(languages)

    def identify(self, text: str) -> Identified:
        language, confidence, *_ = text.split()
        return Identified(language, float(confidence))


GUESSED = {
    "items": [Item(name, "") for name in "abcdef"],
    "texts": [
        text("a", "", "fr .9 Chose"),
        text("b", "", "fr .79 Titre"),
        text("c", "", "en .8 Thing"),
        text("c", "", "fr .5 Chose", "parallel"),
        text("d", "", "en .99 House"),
        text("e", "", "und 0 1984"),
        text("f", "de", ""),
    ],
    "interactions": [frame(("u", "a"))],
}


def test_a_language_that_is_identified_with_little_confidence_is_not_believed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("recbole_xling.convert.writing.languages.LanguageIdentifier", Guesses)
    report = write(tmp_path, options={"identify": ["de", "en", "fr"]}, **GUESSED)
    assert languages(tmp_path / "d") == {"a": "fr", "b": "und", "c": "en", "d": "en", "e": "und", "f": "de"}
    found = report.identification
    assert found is not None
    assert (found["identified"], found["unsure"]) == ({"en": 2, "fr": 1}, {"fr": 2, "und": 1})
    assert {band: count for band, count in found["confidence"].items() if count} == {
        "0.99 to 1": 1, "0.9 to 0.95": 1, "0.8 to 0.9": 1, "0.5 to 0.8": 2, "under 0.5": 1,
    }  # fmt: skip
    lines = "\n".join(report.lines())
    assert "not identified with a confidence of 0.8, so und: fr 2, und 1 as guessed" in lines
    assert "texts by confidence of the identification: 0.99 to 1 1, 0.95 to 0.99 0" in lines
    write(tmp_path, options={"identify": ["de", "en", "fr"], "min_confidence": 0.5}, **GUESSED)
    assert languages(tmp_path / "d")["b"] == "fr"


def test_items_whose_language_is_not_believed_may_count_as_the_main_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("recbole_xling.convert.writing.languages.LanguageIdentifier", Guesses)
    report = write(tmp_path, options={"identify": ["de", "en", "fr"], "unsure": "main"}, **GUESSED)
    assert languages(tmp_path / "d") == {"a": "fr", "b": "en", "c": "en", "d": "en", "e": "en", "f": "de"}
    store = ItemTextStore.load(tmp_path / "d" / "d.itemtext.jsonl")
    texts = [(t.item_id, t.language, t.source, t.language_confidence) for t in store.texts()]
    assert texts == [
        ("a", "fr", "display", 0.9),
        ("b", "en", "display", 0.0),
        ("c", "en", "display", 0.8),
        ("c", "und", "parallel", None),
        ("d", "en", "display", 0.99),
        ("e", "en", "display", 0.0),
        ("f", "de", "display", None),
    ]
    assert report.identification is not None and report.identification["unsure_are"] == "en"
    assert "not identified with a confidence of 0.8, so en: fr 2, und 1 as guessed" in "\n".join(report.lines())
    check_dataset(report)
    chosen = write(
        tmp_path / "filtered",
        options={"identify": ["en", "fr"], "unsure": "main", "filters": Filters(languages=("en",))},
        **GUESSED | {"interactions": [frame(("u", "a"), ("u", "b"), ("u", "e"))]},
    )
    assert (chosen.interactions, chosen.items_per_language) == (2, {"en": 4})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"min_confidence": 1.5}, "from 0 to 1, not 1.5"),
        ({"min_confidence": float("nan")}, "from 0 to 1"),
        ({"unsure": "en"}, "unsure is one of und, main"),
    ],
)
def test_a_confidence_that_is_none_is_refused(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        write(tmp_path, options={"identify": ["de", "en"], **options})
    assert list(tmp_path.iterdir()) == []


def test_identification_without_languages_to_choose_from_is_refused(tmp_path: Path) -> None:
    write(tmp_path)
    before = contents(tmp_path / "d")
    records = mixed(items=[Item(name, "xx") for name in "abcd"], texts=[text("a", "mul", GERMAN)])
    with pytest.raises(ConfigError, match="states none: name the languages, as in --identify de,en"):
        write(tmp_path, options={"identify": ()}, **records)
    with pytest.raises(DataError, match="Japan"):
        write(tmp_path, options={"identify": ["en", "JP"]})
    assert contents(tmp_path / "d") == before


def test_one_language_to_choose_from_is_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        write(tmp_path, options={"identify": ["de"]})
    assert "only de to choose from: every text in its script counts as that" in caplog.text
