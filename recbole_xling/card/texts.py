"""Coverage and lengths of texts, and texts that several items share."""

from __future__ import annotations

from collections.abc import Iterator

import polars as pl

from recbole_xling.card.card import Quantiles, SharedText, TextLanguage, Texts
from recbole_xling.card.catalogue import Catalogue
from recbole_xling.card.split import Split
from recbole_xling.evaluate.slices import UNKNOWN_LANGUAGE
from recbole_xling.text.record import DISPLAY, PARALLEL

MOST_SHARED = 5
_KINDS = (DISPLAY, PARALLEL, "translation")


def describe_texts(catalogue: Catalogue, split: Split) -> Texts:
    """Describe the texts of a catalogue."""
    visible = catalogue.texts.filter(pl.col("characters") > 0)
    shown = visible.filter(pl.col("kind") == DISPLAY)
    groups = (
        shown.group_by("content")
        .agg(pl.len().alias("items"), pl.col("item").min())
        .filter(pl.col("items") > 1)
        .sort(["items", "item"], descending=[True, False])
    )
    most_shared = groups.head(MOST_SHARED).select("item", "items").iter_rows()
    return Texts(
        languages=tuple(_languages(visible)),
        items=len(catalogue),
        without_text=int((~catalogue.has_text).sum()),
        interactions_without_text=int(split.histories.item_counts[~catalogue.has_text].sum()),
        test_without_text=int((~catalogue.has_text[split.test_items]).sum()),
        unknown_language=shown.filter(pl.col("language") == UNKNOWN_LANGUAGE).height,
        fields=dict(catalogue.fields.most_common()),
        sharing=int(groups["items"].sum()),
        shared=groups.height,
        most_shared=tuple(
            SharedText(catalogue.excerpt(item), catalogue.item_languages[item], items) for item, items in most_shared
        ),
        unknown_items=catalogue.unknown_items,
    )


def _languages(visible: pl.DataFrame) -> Iterator[TextLanguage]:
    """Yield a row per language, the one with most display texts first."""
    for (language,), texts in sorted(visible.group_by("language"), key=lambda part: _rank(str(part[0][0]), part[1])):
        items = {kind: texts.filter(pl.col("kind") == kind)["item"].n_unique() for kind in _KINDS}
        lengths = texts.filter(pl.col("kind") == DISPLAY)["characters"].to_numpy()
        yield TextLanguage(
            language=str(language),
            display=items[DISPLAY],
            parallel=items[PARALLEL],
            translation=items["translation"],
            items=texts["item"].n_unique(),
            characters=Quantiles.of(lengths),
        )


def _rank(language: str, texts: pl.DataFrame) -> tuple[int, int, str]:
    return -int((texts["kind"] == DISPLAY).sum()), -texts.height, language
