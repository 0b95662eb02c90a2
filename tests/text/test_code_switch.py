"""Mixing parallel texts: which parts come from which, and what cannot be mixed."""

from __future__ import annotations

import numpy as np
import pytest

from recbole_xling.text.code_switch import code_switched
from recbole_xling.text.record import ItemText
from recbole_xling.text.template import TextTemplate

BOTH = TextTemplate("{title}. {description}")


def mixes(template, *fields):
    languages = ("it", "da", "en")
    texts = [ItemText("a", language, each, "parallel") for language, each in zip(languages, fields, strict=False)]
    return {code_switched(texts, template, np.random.default_rng(seed)) for seed in range(20)}


def test_fields_are_taken_from_different_texts():
    italian, danish = {"title": "gioco", "description": "rete"}, {"title": "spil", "description": "netværk"}
    assert mixes(BOTH, italian, danish) == {"gioco. netværk", "spil. rete"}
    english = {"title": "game", "description": "network"}
    assert len(mixes(BOTH, italian, danish, english)) == 6


def test_a_field_that_is_the_same_or_missing_is_no_part_of_its_own():
    template = TextTemplate("{title} ({year}). {plot}")
    found = mixes(template, {"title": "il mare", "year": "1999"}, {"title": "the sea", "year": "1999", "plot": ""})
    assert found == {"il sea (1999)", "the mare (1999)"}


@pytest.mark.parametrize(
    ("first", "second", "want"),
    [
        ("uno due tre quattro", "en to tre fire", {"uno due tre fire", "en to tre quattro"}),
        ("Un gioco. È in rete.", "Et spil. Det er på nettet.", {"Un gioco. Det er på nettet.", "Et spil. È in rete."}),
        ("海と空", "the sea", {"海sea", "the と空"}),
        ("mare", "havet", {None}),
        ("il mare", "havet", {None}),
        ("il mare", "il mare", {None}),
    ],
)  # fmt: skip
def test_one_field_is_cut_at_a_sentence_else_between_words(first, second, want):
    assert mixes(TextTemplate("{title}"), {"title": first}, {"title": second}) == want


def test_one_text_cannot_be_mixed():
    assert mixes(BOTH, {"title": "gioco", "description": "rete"}) == {None}
