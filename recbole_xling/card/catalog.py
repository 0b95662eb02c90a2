"""The texts of a dataset's items, one row of figures per text."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recbole_xling.data.catalog import ItemCatalog
from recbole_xling.text.record import DISPLAY
from recbole_xling.text.store import ItemTextStore

EXCERPT_LENGTH = 80


@dataclass(frozen=True)
class CatalogTexts:
    """The items of a catalog with their texts.

    Attributes:
        item_ids: external ids, ``n_items`` of them.
        languages: language of each item's display text, ``und`` if it has none, as in results.
        store: all texts.
        rows: one per text of a known item in which any field is filled: ``item`` (its place), ``language``, ``kind``
            (``display``, ``parallel`` or ``translation``), ``characters`` (of all fields), ``content`` (equal for equal
            texts), ``confidence`` (of an identified language, null for a stated one).
        fields: display texts by the fields they fill.
        has_text: whether each item has a display text that is not blank, ``(n_items,)``.
        unknown_items: items with texts that ``item_ids`` lacks.
    """

    item_ids: list[str]
    languages: list[str]
    store: ItemTextStore
    rows: pl.DataFrame
    fields: Counter[str]
    has_text: NDArray[np.bool_]
    unknown_items: int

    def excerpt(self, item: int) -> str:
        """Return the beginning of an item's display text, empty if it has none."""
        text = self.store.display(self.item_ids[item])
        return "" if text is None else text.excerpt(EXCERPT_LENGTH)


def read_texts(catalog: ItemCatalog) -> CatalogTexts:
    """Read the texts of a catalog; a dataset that has none is described without texts.

    Raises:
        DataError: a text is malformed; the message names file and line.
    """
    store = catalog.any_texts
    item_ids = list(catalog.tokens[1:])
    place = {item_id: number for number, item_id in enumerate(item_ids)}
    rows: list[tuple[int, str, str, int, int, float | None]] = []
    filled: Counter[str] = Counter()
    for text in store.texts():
        values = {name: value for name, value in text.fields.items() if value.strip()}
        if text.item_id not in place or not values:
            continue
        if text.source == DISPLAY:
            filled.update(values.keys())
        kind, content = text.source.partition(":")[0], tuple(sorted(values.items()))
        size = sum(map(len, values.values()))
        rows.append((place[text.item_id], text.language, kind, size, hash(content), text.language_confidence))
    schema = {"item": pl.UInt32, "language": pl.String, "kind": pl.String, "characters": pl.Int64, "content": pl.Int64,
              "confidence": pl.Float64}  # fmt: skip
    table = pl.DataFrame(rows, schema=schema, orient="row")
    has_text = np.zeros(len(item_ids), dtype=bool)
    has_text[table.filter(pl.col("kind") == DISPLAY)["item"].to_numpy()] = True
    return CatalogTexts(
        item_ids=item_ids,
        languages=catalog.languages[1:],
        store=store,
        rows=table,
        fields=filled,
        has_text=has_text,
        unknown_items=sum(item_id not in place for item_id in store),
    )
