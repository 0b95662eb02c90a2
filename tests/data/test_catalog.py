"""The catalog: what users state, and whether that makes ``text_view: auto`` the reader's view."""

from __future__ import annotations

import logging

import numpy as np
import pytest

from recbole_xling.data.catalog import ItemCatalog
from recbole_xling.data.columns import read_cells
from recbole_xling.errors import DataError
from recbole_xling.text.record import ItemText
from recbole_xling.text.store import write_itemtext

GERMAN = ItemText("a", "de", {"title": "Hose"}, "display")


def catalog(folder, users, *texts, view="auto", **settings):
    if users:
        rows = [f"u{number}\t{language}" for number, language in enumerate(users)]
        (folder / "d.user").write_text("\n".join(["user_id:token\tuser_language:token", *rows]) + "\n")
    write_itemtext(folder / "d.itemtext.jsonl", [GERMAN, *texts])
    config = {"text_view": view, "text_template": "{title}", "text_fields": None, "ITEM_ID_FIELD": "item_id",
              "USER_ID_FIELD": "user_id", "ITEM_LANGUAGE_FIELD": None, "field_separator": "\t", "encoding": None,
              **settings}  # fmt: skip
    return ItemCatalog(config, ["[PAD]", "a", "b"], folder, "d")


@pytest.mark.parametrize(
    ("users", "texts", "view"),
    [
        ((), [ItemText("a", "fr", {"title": "pantalon"}, "parallel")], "display"),
        (("fr",), [], "display"),
        (("de",), [ItemText("a", "fr", {"title": "pantalon"}, "parallel")], "display"),  # nobody reads it
        (("de", "fr"), [ItemText("a", "fr", {"title": "pantalon"}, "parallel")], "reader"),
        (("FR",), [ItemText("a", "fr", {"title": "pantalon"}, "parallel")], "reader"),
        (("fr",), [ItemText("a", "fr", {"title": "pantalon"}, "translation:x")], "display"),  # nobody saw it
        (("fr",), [ItemText("a", "fr", {"title": " "}, "parallel")], "display"),
        (("fr",), [ItemText("a", "fr", {"year": "1995"}, "parallel")], "display"),  # the template has no year
        (("fr",), [ItemText("b", "fr", {"title": "chemise"}, "parallel")], "reader"),  # it has no display text
        (("en",), [ItemText("b", "en-GB", {"title": "colour"}, "display")], "display"),
    ],
)
def test_auto_is_the_readers_view_where_that_differs(tmp_path, users, texts, view):
    assert catalog(tmp_path, users, *texts).text_view == view


def test_the_tag_of_a_language_is_the_items_or_the_usual_one(tmp_path, caplog):
    british = ItemText("b", "en-GB", {"title": "colour"}, "display")
    with caplog.at_level(logging.WARNING):
        found = catalog(tmp_path, ("en-GB", "Fran\u00e7ais", "und", "", "UK", "de fr"), british)
        assert found.stated_languages == {"u0": "en-GB", "u1": "fr"}
    assert "'UK', 'de fr' in column user_language names no language" in caplog.text


def test_a_language_that_a_profile_has_derived_is_not_stated(tmp_path):
    found = catalog(tmp_path, ("de\tstated", "fr\tderived", "und\tunknown"))
    (tmp_path / "d.user").write_text(
        (tmp_path / "d.user").read_text().replace("ge:token", "ge:token\tlanguage_source:token")
    )
    assert found.stated_languages == {"u0": "de"}


def test_readers_of_a_language_see_its_variants_as_theirs(tmp_path):
    texts = [
        ItemText("a", "en-GB", {"title": "trousers"}, "parallel"),
        ItemText("b", "en", {"title": "red"}, "display"),
    ]
    found = catalog(tmp_path, ("en", "de"), *texts)
    assert found.texts_of_views == [["", "Hose", "red"], ["", "trousers", "red"]]
    readers = found.readers(["[PAD]", "u0", "u1"])
    users, items = np.array([1, 1, 2, 2]), np.array([1, 2, 1, 2])
    assert [readers.names[n] for n in readers.seen(users, items)] == ["en", "en", "de", "en"]


def test_a_variant_is_the_stated_language_where_no_item_has_a_second_text_too(tmp_path):
    found = catalog(tmp_path, ("en", "de", "zh"), ItemText("b", "en-GB", {"title": "colour"}, "display"))
    tokens, users, items = ["[PAD]", "u0", "u1", "u2"], np.array([1, 1, 2, 2]), np.array([1, 2, 1, 2])
    readers = found.readers(tokens)
    assert [readers.names[n] for n in readers.seen(users, items)] == ["de", "en", "de", "en-GB"]
    assert not found.readers_of_views(tokens).own and len(found.texts_of_views) == 1


def test_a_wrong_row_of_the_user_file_is_named(tmp_path):
    found = catalog(tmp_path, ("de", "fr\tx"))
    with pytest.raises(DataError, match=r"d\.user:3: 3 cells, but the header has 2"):
        found.stated_languages  # noqa: B018


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("user_id:token,user_language:token", r"d\.user:1: no '\\t' between the columns"),
        ("u9\tde", r"d\.user:1: column 1 is 'u9', without name or type"),
        ("user_id:token\tuser_language", r"d\.user:1: column 2 is 'user_language', without name or type"),
        ("id:token\tuser_language:token", r"d\.user: no column 'user_id'; its columns are id, user_language"),
    ],
)
def test_a_wrong_header_of_the_user_file_is_not_taken_for_users_who_state_nothing(tmp_path, header, message):
    found = catalog(tmp_path, ("de", "fr"))
    path = tmp_path / "d.user"
    path.write_text(path.read_text().replace("user_id:token\tuser_language:token", header))
    with pytest.raises(DataError, match=message):
        found.stated_languages  # noqa: B018


def test_the_user_file_has_the_encoding_and_separator_of_the_others(tmp_path):
    found = catalog(tmp_path, ("de", "fr"), encoding="latin-1", field_separator=";")
    (tmp_path / "d.user").write_bytes("user_id:token;city:token;user_language:token\nü;Köln;de\n".encode("latin-1"))
    assert found.stated_languages == {"ü": "de"}
    assert read_cells(tmp_path / "d.user", "user_id", "city", found.config) == {"ü": "Köln"}


def test_items_without_text_among_others_are_counted(tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        assert catalog(tmp_path, ()).texts == ["", "Hose", ""]
        assert "1 of 2 items have no text (the first is 'b')" in caplog.text
        caplog.clear()
        assert catalog(tmp_path, (), ItemText("b", "de", {"title": "Hemd"}, "display")).texts[2] == "Hemd"
    assert not caplog.text
