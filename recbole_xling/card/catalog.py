"""The items of a dataset and their texts, one row of figures per text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recbole_xling.card.histories import Columns
from recbole_xling.language.tags import UNDETERMINED
from recbole_xling.text.raw_tables import table_columns
from recbole_xling.text.record import DISPLAY, ItemText
from recbole_xling.text.store import ItemTextStore, find_item_text, itemtext_path

EXCERPT_LENGTH = 80


@dataclass(frozen=True)
class Catalog:
    """The items with their texts.

    Attributes:
        item_ids: external ids, ``(n_items,)``.
        store: all texts.
        texts: a row per text of a known item: ``item`` (its place), ``language``, ``kind`` (``display``, ``parallel``
            or ``translation``), ``characters`` (of all fields, 0 where all are blank), ``content`` (equal for equal
            texts).
        fields: display texts by the fields they fill.
        unknown_items: items with texts that ``item_ids`` lacks.
    """

    item_ids: pl.Series
    store: ItemTextStore
    texts: pl.DataFrame
    fields: Counter[str]
    unknown_items: int

    def __len__(self) -> int:
        return len(self.item_ids)

    @cached_property
    def display(self) -> pl.DataFrame:
        """The rows of display texts."""
        return self.texts.filter(pl.col("kind") == DISPLAY)

    @cached_property
    def item_languages(self) -> list[str]:
        """Language of each item's display text, ``und`` where there is none, as in results."""
        languages = [UNDETERMINED] * len(self)
        for item, language in self.display.select("item", "language").iter_rows():
            languages[item] = language
        return languages

    @cached_property
    def has_text(self) -> NDArray[np.bool_]:
        """Whether each item has a display text that is not blank, ``(n_items,)``."""
        mask = np.zeros(len(self), dtype=bool)
        mask[self.display.filter(pl.col("characters") > 0)["item"].to_numpy()] = True
        return mask

    def excerpt(self, item: int) -> str:
        """Return the beginning of an item's display text, empty where it has none."""
        text = self.store.display(self.item_ids[item])
        whole = "" if text is None else " · ".join(_values(text))
        return whole if len(whole) <= EXCERPT_LENGTH else whole[: EXCERPT_LENGTH - 1] + "…"


def read_catalog(folder: Path, dataset: str, item_ids: pl.Series, columns: Columns) -> Catalog:
    """Read the texts of a dataset; one that has none gets a catalog without texts.

    Raises:
        DataError: a text is malformed; the message names file and line.
    """
    store = _store(folder, dataset, columns)
    place = {item_id: number for number, item_id in enumerate(item_ids)}
    rows: list[tuple[int, str, str, int, int]] = []
    fields: Counter[str] = Counter()
    for text in store.texts():
        item = place.get(text.item_id)
        if item is None:
            continue
        values = _values(text)
        content = hash(tuple(values))
        rows.append((item, text.language, text.source.partition(":")[0], sum(map(len, values)), content))
        if text.source == DISPLAY:
            fields.update(name for name, value in text.fields.items() if value.strip())
    schema = {"item": pl.UInt32, "language": pl.String, "kind": pl.String, "characters": pl.Int64, "content": pl.Int64}
    texts = pl.DataFrame(rows, schema=schema, orient="row")
    unknown = sum(item_id not in place for item_id in store)
    return Catalog(item_ids, store, texts, fields, unknown)


def _store(folder: Path, dataset: str, columns: Columns) -> ItemTextStore:
    item_file = folder / f"{dataset}.item"
    if not itemtext_path(folder, dataset).is_file():
        there = table_columns(item_file, separator=columns.separator) if item_file.is_file() else []
        if not columns.text_fields or any(field not in there for field in columns.text_fields):
            return ItemTextStore()
    return find_item_text(
        folder,
        dataset,
        columns.text_fields,
        item_id_field=columns.item,
        language_field=columns.language,
        field_separator=columns.separator,
    )


def _values(text: ItemText) -> Sequence[str]:
    return [value for value in text.fields.values() if value.strip()]
