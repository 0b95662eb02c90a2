"""Which of an item's texts a view takes."""

from __future__ import annotations

import pytest

from recbole_xling.text.record import ItemText
from recbole_xling.text.store import ItemTextStore
from recbole_xling.text.template import TextTemplate
from recbole_xling.text.view import TextView

_SHOWN = ItemText("a", "zh-Hant", {"title": "shown"}, "display")
_EXACT = ItemText("a", "zh", {"title": "exact"}, "parallel")
_VARIANT = ItemText("a", "zh-Hant", {"title": "variant"}, "parallel")
_TRANSLATED = ItemText("a", "zh", {"title": "translated"}, "translation:x")
_ENGLISH = ItemText("a", "en", {"title": "english"}, "display")


@pytest.mark.parametrize(
    ("texts", "language", "pivot"),
    [
        ([_SHOWN, _EXACT], "exact", "exact"),
        ([_SHOWN, _TRANSLATED], "shown", "shown"),
        ([_ENGLISH, _VARIANT, _EXACT], "exact", "exact"),
        ([_ENGLISH, _VARIANT, _TRANSLATED], "variant", "variant"),
        ([_ENGLISH, _TRANSLATED], "english", "translated"),
    ],
)
def test_own_texts_go_before_translations_and_an_exact_tag_before_variants(
    texts: list[ItemText], language: str, pivot: str
) -> None:
    store, template = ItemTextStore(texts), TextTemplate("{title}")
    for kind, title in (("language", language), ("pivot", pivot)):
        chosen = TextView(f"{kind}:zh").choose(store, "a", template)
        assert chosen is not None and chosen.fields["title"] == title
