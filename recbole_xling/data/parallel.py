"""Pairs of texts that say the same in two languages."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from recbole_xling.data.items import ItemCatalogue
from recbole_xling.errors import DataError
from recbole_xling.text.record import UNDETERMINED
from recbole_xling.text.template import TextTemplate

IntArray = NDArray[np.int64]


class ParallelTexts:
    """The texts of the items that have different ones in several languages, one for each language.

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
    def of(cls, catalogue: ItemCatalogue) -> ParallelTexts:
        """Collect what a catalogue has, translations included.

        Raises:
            DataError: no item has different texts in two languages.
        """
        template = TextTemplate(catalogue.config["text_template"])
        items: list[int] = []
        texts: list[str] = []
        for number, token in enumerate(catalogue.tokens[1:], start=1):
            shown = catalogue.store.display(token)
            known: dict[str, str] = {}
            for text in [*([shown] if shown else []), *catalogue.store.parallel(token)]:
                rendered = template.render(text.fields)
                if rendered.strip() and text.language != UNDETERMINED and rendered not in known.values():
                    known.setdefault(text.language, rendered)
            if len(known) > 1:
                items += [number] * len(known)
                texts += known.values()
        if not texts:
            raise DataError(
                f"'{catalogue.dataset}' has no item with different texts in two languages: set alignment_weight to 0, "
                f"or add texts, say with 'recbole-xling translate {catalogue.dataset} --to <language> --system ...'"
            )
        return cls(np.array(items), texts)

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
