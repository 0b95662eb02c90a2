"""Which text of an item is encoded: text_view."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from recbole_xling.config import XLingConfig
from recbole_xling.data.catalog import ItemCatalog
from recbole_xling.errors import ConfigError, DataError
from recbole_xling.text.record import ItemText
from recbole_xling.text.store import write_itemtext

TEXTS = [
    ItemText("shown in en", "en", {"title": "Heat"}, "display"),
    ItemText("shown in en", "en", {"title": "Warmth"}, "translation:a"),
    ItemText("shown in GB", "en-GB", {"title": "Color"}, "display"),
    ItemText("parallel", "de", {"title": "Der Pate"}, "display"),
    ItemText("parallel", "en", {"title": "The Sponsor"}, "translation:a"),
    ItemText("parallel", "en-US", {"title": "Godfather"}, "parallel"),
    ItemText("parallel", "en", {"title": "The Godfather"}, "parallel"),
    ItemText("translated", "de", {"title": "Heimat"}, "display"),
    ItemText("translated", "en", {"title": "Homeland"}, "translation:a"),
    ItemText("translated", "en", {"title": "Home"}, "translation:b"),
    ItemText("empty", "de", {"title": "Leer"}, "display"),
    ItemText("empty", "en", {"title": " "}, "parallel"),
    ItemText("empty", "en", {"title": "Empty"}, "translation:a"),
    ItemText("other field", "de", {"year": "1999"}, "display"),
    ItemText("not shown", "en", {"title": "Hidden"}, "parallel"),
]
SHOWN = {
    "shown in en": "Heat",
    "shown in GB": "Color",
    "parallel": "Der Pate",
    "translated": "Heimat",
    "empty": "Leer",
    "other field": "",
    "not shown": "",
    "unknown": "",
}
OWN = {**SHOWN, "parallel": "The Godfather", "not shown": "Hidden"}
VIEWS = {
    "display": SHOWN,
    "language:en": OWN,
    "language:EN": OWN,
    "language:en-US": {**SHOWN, "parallel": "Godfather"},
    "language:fr": SHOWN,
    "pivot:en": {**OWN, "translated": "Homeland", "empty": "Empty"},
}


def catalog(folder: Path, view: str, *more: ItemText, **settings: object) -> ItemCatalog:
    write_itemtext(folder / "d.itemtext.jsonl", [*TEXTS, *more])
    config = {
        "text_view": view,
        "train_text_view": None,
        "text_template": "{title}",
        "encoding": None,
        "text_fields": None,
        "ITEM_ID_FIELD": "item_id",
        "ITEM_LANGUAGE_FIELD": None,
        "field_separator": "\t",
        "encoder_options": None,
        "encoder_max_length": None,
        "encoder_batch_size": None,
        "encoder_prompt": None,
        **settings,
    }
    return ItemCatalog(config, ["[PAD]", *SHOWN], folder, "d")


@pytest.mark.parametrize("view", VIEWS)
def test_each_view_chooses_its_texts(tmp_path: Path, view: str) -> None:
    assert catalog(tmp_path, view).texts == ["", *VIEWS[view].values()]


@pytest.mark.parametrize("view", VIEWS)
def test_a_view_leaves_the_languages_of_items_as_displayed(tmp_path: Path, view: str) -> None:
    languages = ["und", "en", "en-GB", "de", "de", "de", "de", "und", "und"]
    assert catalog(tmp_path, view).languages == languages


def test_a_pivot_needs_a_text_of_every_item(tmp_path: Path) -> None:
    lacking = [ItemText("unknown", "de", {"title": "Neu"}, "display")]
    for view, number, first in [
        ("pivot:en", 1, "unknown"),
        ("pivot:fr", 6, "shown in en"),
        ("pivot:en-GB", 5, "shown"),
    ]:
        with pytest.raises(DataError) as error:
            catalog(tmp_path, view, *lacking).texts  # noqa: B018
        message = str(error.value)
        assert f"{number} of 8 items have no text in {view[6:]} (the first is '{first}" in message
        assert f"recbole-xling translate d --to {view[6:]}" in message
        assert ("set text_view to pivot:en, as" in message) == (view == "pivot:en-GB")
    made = ItemText("unknown", "en", {"title": "New"}, "translation:a")
    assert catalog(tmp_path, "pivot:en", *lacking, made).texts[-1] == "New"


@pytest.mark.parametrize(
    "view", ["", "displayed", "display:en", "reader:en", "language", "language:", "pivot:english!", "pivot: en", 3]
)
def test_a_malformed_view_is_refused_by_the_config(small_dataset, settings, view: object) -> None:
    with pytest.raises(ConfigError, match="text_view must be 'auto', 'display', 'reader', 'language:<x>' or"):
        XLingConfig("LLMSASRec", "small", config_dict={**settings, "text_view": view})


def test_a_view_can_be_given_on_the_command_line(settings) -> None:
    config = XLingConfig("LLMSASRec", "small", config_dict=settings, arguments=["--text_view=pivot:zh-Hant"])
    assert config["text_view"] == "pivot:zh-Hant"
    assert XLingConfig("LLMSASRec", "small", config_dict=settings)["text_view"] == "auto"


def test_the_encoder_is_asked_about_the_languages_that_it_gets(tmp_path, caplog, monkeypatch) -> None:
    from recbole_xling.encode.hashing import HashingEncoder

    monkeypatch.setattr(HashingEncoder, "languages", frozenset({"en"}))
    with caplog.at_level(logging.WARNING):
        catalog(tmp_path, "pivot:en", encoder="hashing").encoder()
        assert "does not know" not in caplog.text
        catalog(tmp_path, "display", encoder="hashing").encoder()
    assert "does not know de" in caplog.text


def test_the_text_that_readers_of_a_language_see_is_the_one_of_its_view(tmp_path: Path) -> None:
    for language in ("en", "en-US", "en-GB", "de", "fr"):
        of_view = catalog(tmp_path, f"language:{language}")
        for item in (token for token in of_view.tokens if SHOWN.get(token)):
            text = of_view.text_in(item, language)
            assert text is not None and text.fields["title"] == of_view.texts[of_view.tokens.index(item)]
