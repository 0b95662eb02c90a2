"""Telling languages from vectors: what separates them, what does not, and what would give them away."""

from __future__ import annotations

import numpy as np
import pytest

from recbole_xling.errors import DataError
from recbole_xling.evaluator.language_probe import probe_table, tell_languages


@pytest.fixture
def texts():
    """Return items, the languages of their texts, vectors of content alone, and the same with a part for language."""
    rng = np.random.default_rng(0)
    items, languages = np.repeat(np.arange(120), 2), np.tile(["da", "it"], 120)
    content = rng.normal(size=(120, 6))[items]
    return items, languages, content, np.where(languages == "it", 1.0, -1.0)[:, None] + 0.1 * content


def test_a_classifier_tells_what_vectors_say_and_chance_otherwise(texts):
    items, languages, content, telling = texts
    found = tell_languages({"content": content, "telling": telling}, languages, items, seed=1)
    assert found["telling"] == {"accuracy": 1.0, "macro_f1": 1.0}
    assert found["content"]["accuracy"] <= 0.5  # both texts of an item have the same vector, so one is always wrong
    assert found["majority"]["accuracy"] == 0.5 and found["majority"]["macro_f1"] == pytest.approx(1 / 3)
    assert (found["n"], found["items"], found["languages"]) == (240, 120, {"da": 120, "it": 120})
    assert "telling" in probe_table(found) and "1.0000" in probe_table(found)


def test_what_an_item_is_about_does_not_give_its_language_away():
    """Each item has many vectors in one language, near to each other: only other items could tell the language."""
    rng = np.random.default_rng(0)
    items = np.repeat(np.arange(40), 10)
    languages = np.where(rng.random(40) < 0.5, "it", "da")[items]
    vectors = rng.normal(size=(40, 60))[items] + 0.01 * rng.normal(size=(400, 60))
    assert tell_languages({"topics": vectors}, languages, items, seed=0)["topics"]["accuracy"] < 0.75


def test_rare_languages_are_left_out(texts):
    items, languages, _, telling = texts
    languages = languages.astype("<U3")
    languages[:4] = "fr"
    found = tell_languages({"telling": telling}, languages, items, seed=1)
    assert found["languages"] == {"da": 118, "it": 118} and found["telling"]["accuracy"] == 1.0
    with pytest.raises(DataError, match="found: it 120"):
        tell_languages({"telling": telling[1::2]}, np.full(120, "it"), items[1::2], seed=1)


def test_a_language_whose_items_are_all_in_one_fold_is_guessed_as_the_other_one():
    rng = np.random.default_rng(0)
    languages = np.array(["de"] * 6 + ["en"] * 5)
    items = np.where(np.arange(11) < 6, np.arange(11), 6)  # the five texts in English are of one item
    found = tell_languages({"vectors": rng.normal(size=(11, 3))}, languages, items, seed=1)
    assert found["vectors"]["accuracy"] <= 6 / 11  # no classifier was taught English that had to tell it
