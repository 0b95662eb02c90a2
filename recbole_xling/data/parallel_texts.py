"""Parallel texts: the same content in several languages, from item texts and from a file of sentences."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from recbole_xling.data.catalog import ItemCatalog
from recbole_xling.errors import DataError
from recbole_xling.language.tags import UNDETERMINED, normalize_language
from recbole_xling.text.raw_tables import table_columns, text_lines
from recbole_xling.text.record import PARALLEL
from recbole_xling.text.template import TextTemplate

IntArray = NDArray[np.int64]


class ParallelTexts:
    """Parallel texts in groups: the texts of an item, or of a row of a file of sentences.

    Args:
        items: number of the item of each text, sorted, ``(n,)``; each occurs at least twice.
        texts: the texts.

    Attributes:
        texts: the texts.
        languages: how many languages each item has, in the order of the items.
    """

    def __init__(self, items: IntArray, texts: Sequence[str]) -> None:
        self.texts = list(texts)
        self._items, self._start, self.languages = np.unique(items, return_index=True, return_counts=True)

    @classmethod
    def of(cls, catalog: ItemCatalog, file: str | None = None) -> ParallelTexts:
        """Collect what a catalog has, translations included, and the rows of a file.

        Args:
            catalog: the items.
            file: see :func:`read_parallel_file`; its rows are numbered after the items.

        Raises:
            DataError: the file cannot be read, or without a file: no item has different texts in two languages.
        """
        template = TextTemplate(catalog.config["text_template"])
        groups: list[tuple[int, list[str]]] = []
        for number, token in enumerate(catalog.tokens[1:], start=1):
            shown = catalog.store.display(token)
            known: dict[str, str] = {}  # one text for each language, no text twice
            own_first = sorted(catalog.store.parallel(token), key=lambda text: text.source != PARALLEL)
            for text in [*([shown] if shown else []), *own_first]:
                rendered = template.render(text.fields)
                if rendered.strip() and text.language != UNDETERMINED and rendered not in known.values():
                    known.setdefault(text.language, rendered)
            if len(known) > 1:
                groups.append((number, list(known.values())))
        if file:
            groups += enumerate(read_parallel_file(Path(file)), start=len(catalog.tokens))
        if not groups:
            raise DataError(
                f"'{catalog.dataset}' has no item with different texts in two languages: set alignment_weight to 0, "
                "name a file of sentences and their translations as alignment_file, or add texts, for example with "
                f"'recbole-xling translate {catalog.dataset} --to <language> --system ...'"
            )
        items = np.repeat([number for number, _ in groups], [len(texts) for _, texts in groups])
        return cls(items, [text for _, texts in groups for text in texts])

    def draw(self, n_pairs: int, rng: np.random.Generator) -> tuple[IntArray, IntArray, IntArray]:
        """Draw items with equal chances, and two languages of each.

        Returns:
            The rows of the first texts, those of the second ones, and the items' numbers, ``(n_pairs,)`` each.
        """
        group = rng.integers(len(self._items), size=n_pairs)
        size = self.languages[group]
        first = rng.integers(size)
        second = (first + rng.integers(1, size)) % size
        return self._start[group] + first, self._start[group] + second, self._items[group]


def read_parallel_file(path: Path) -> list[list[str]]:
    """Return the different texts of each row of a table of translations; rows with fewer than two are left out.

    Args:
        path: UTF-8, cells separated by tabs, one column per language, whose names are in the first line. The cells of
            a row are parallel texts; cells may be empty.

    Raises:
        DataError: the file cannot be read, its first line does not name languages, or no row has two texts.
    """
    where = f"alignment_file '{path}'"
    try:
        names, lines = table_columns(path), text_lines(path)
        tags = [normalize_language(name) for name in names]
        groups = []
        next(lines)
        for number, line in lines:
            cells = [cell.strip() for cell in line.split("\t")]
            if len(cells) > len(names):
                raise DataError(f"line {number} has {len(cells)} cells, but the first one {len(names)}")
            groups.append(list(dict.fromkeys(cell for cell in cells if cell)))
    except (OSError, DataError) as error:
        rule = "expected a tab-separated table whose first line names the language of each column, such as 'en<tab>de'"
        raise DataError(f"{where} cannot be read: {error}; {rule}") from error
    if len(set(tags)) < len(tags) or UNDETERMINED in tags:
        raise DataError(f"{where}: its columns must be different languages, but are {', '.join(names)}")
    groups = [texts for texts in groups if len(texts) > 1]
    if not groups:
        raise DataError(f"{where}: no row has texts in two languages")
    return groups
