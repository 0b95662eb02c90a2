"""Parallel texts: pairs of texts of the same item in two languages."""

from __future__ import annotations

import numpy as np
import pytest

from recbole_xling.data.catalog import ItemCatalog
from recbole_xling.data.parallel_texts import ParallelTexts, read_parallel_file
from recbole_xling.errors import DataError
from recbole_xling.text.record import ItemText
from recbole_xling.text.store import itemtext_path, write_itemtext


def catalog(folder, rows):
    texts = [ItemText(item, language, {"title": title}, source) for item, language, title, source in rows]
    write_itemtext(itemtext_path(folder, "small"), texts)
    settings = {
        "text_template": "{title}",
        "text_fields": [],
        "ITEM_ID_FIELD": "item_id",
        "field_separator": "\t",
        "encoding": None,
    }
    settings |= {"ITEM_LANGUAGE_FIELD": "item_language"}
    return ItemCatalog(settings, ["[PAD]", "a", "b", "c", "d"], folder, "small")


ROWS = [
    ("a", "de", "Der Pate", "display"),
    ("a", "en", "The Godfather", "parallel"),
    ("a", "fr", "Le Parrain", "translation:x"),
    ("b", "de", "Alien", "display"),
    ("b", "en", "Alien", "parallel"),
    ("c", "und", "Amélie", "display"),
    ("c", "fr", "Le Fabuleux Destin", "parallel"),
    ("d", "ja", "千と千尋", "display"),
    ("d", "en", "Spirited Away", "parallel"),
]


def test_pairs_are_different_texts_of_one_item(tmp_path):
    parallel = ParallelTexts.of(catalog(tmp_path, ROWS))
    assert parallel.texts == ["Der Pate", "The Godfather", "Le Parrain", "千と千尋", "Spirited Away"]
    first, second, item = parallel.draw(2000, np.random.default_rng(0))
    assert (first != second).all()
    owner = np.array([1, 1, 1, 4, 4])
    np.testing.assert_array_equal(owner[first], item)
    np.testing.assert_array_equal(owner[second], item)
    assert 0.4 < (item == 4).mean() < 0.6  # items with equal chances
    pairs, counts = np.unique(np.stack([first, second]), axis=1, return_counts=True)
    assert pairs.shape[1] == 6 + 2
    assert counts.min() > 100


def test_an_own_text_goes_before_a_translation_that_stands_first(tmp_path):
    rows = [ROWS[0], ("a", "en", "Godfather, the", "translation:x"), ROWS[1]]
    assert ParallelTexts.of(catalog(tmp_path, rows)).texts == ["Der Pate", "The Godfather"]


def test_a_catalog_in_one_language_is_refused(tmp_path):
    with pytest.raises(DataError, match="two languages"):
        ParallelTexts.of(catalog(tmp_path, ROWS[3:5]))


def table(folder, text):
    path = folder / "sentences.tsv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_pairs_of_a_file_are_drawn_like_those_of_items(tmp_path):
    path = table(tmp_path, 'en\tde\tja\n"Yes", he said\tJa, sagte er\t\nNo\t\t\nOK\tOK\t\nDog\tHund\t犬\n')
    assert read_parallel_file(path) == [['"Yes", he said', "Ja, sagte er"], ["Dog", "Hund", "犬"]]
    both = ParallelTexts.of(catalog(tmp_path, ROWS), str(path))
    assert both.languages.tolist() == [3, 2, 2, 3]
    first, second, item = both.draw(500, np.random.default_rng(0))
    assert set(item.tolist()) == {1, 4, 5, 6}
    assert {(both.texts[a], both.texts[b]) for a, b in zip(first[item == 5], second[item == 5], strict=True)} == {
        ('"Yes", he said', "Ja, sagte er"),
        ("Ja, sagte er", '"Yes", he said'),
    }
    alone = ParallelTexts.of(catalog(tmp_path, ROWS[3:5]), str(path))
    assert alone.languages.tolist() == [2, 3]


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("en\tsentence\nDog\tHund\n", "language"),
        ("en\teng\nDog\tHund\n", "different languages"),
        ("en\tde\nDog\t\n", "two languages"),
        ("en\tde\nDog\tHund\tChien\n", "tab-separated"),
        (b"en\tde\nDog\tHund\xff\n", "tab-separated"),
        ("", "tab-separated"),
    ],
)
def test_a_file_that_is_not_a_table_of_translations_is_refused(tmp_path, text, named):
    with pytest.raises(DataError, match=named):
        read_parallel_file(table(tmp_path, text))
    with pytest.raises(DataError, match="nowhere"):
        read_parallel_file(tmp_path / "nowhere.tsv")
