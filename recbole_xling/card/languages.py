"""Languages of items, users and targets; who reads what."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from recbole_xling.card.card import Language, Mixing
from recbole_xling.card.catalogue import Catalogue
from recbole_xling.card.histories import IntArray
from recbole_xling.card.split import Split
from recbole_xling.data.languages import BILINGUAL_MIN, BILINGUAL_SHARE, user_languages
from recbole_xling.evaluate.slices import UNKNOWN_LANGUAGE


@dataclass(frozen=True)
class LanguageCodes:
    """Languages as numbers: places in :attr:`names`, the most met one first, ``und`` last."""

    split: Split
    catalogue: Catalogue

    @cached_property
    def names(self) -> tuple[str, ...]:
        """All languages of items and users; ``und`` only where there is a case of it."""
        met: dict[str, int] = {}
        counts = self.split.histories.item_counts.tolist()
        for language, count in zip(self.catalogue.item_languages, counts, strict=True):
            met[language] = met.get(language, 0) + count
        found = {*met, *self._main}
        return tuple(sorted(found, key=lambda name: (name == UNKNOWN_LANGUAGE, -met.get(name, 0), name)))

    @cached_property
    def of_items(self) -> IntArray:
        """Language of each item of the catalogue, ``(n_items,)``."""
        return self._codes(self.catalogue.item_languages)

    @cached_property
    def of_users(self) -> IntArray:
        """Main language of each user as results define it, ``(n_users,)``."""
        return self._codes(self._main)

    @cached_property
    def unknown(self) -> int:
        """The number of ``und``, -1 where there is no case of it."""
        return self.names.index(UNKNOWN_LANGUAGE) if UNKNOWN_LANGUAGE in self.names else -1

    @cached_property
    def _main(self) -> list[str]:
        histories, known = self.split.histories, self.split.known
        users, items = histories.users[known], histories.items[known]
        languages, n_users = self.catalogue.item_languages, len(histories.user_ids)
        return user_languages(languages, users, items, n_users)  # type: ignore[arg-type]  # half the size of int64

    def _codes(self, languages: list[str]) -> IntArray:
        code = {name: number for number, name in enumerate(self.names)}
        return np.array([code[language] for language in languages], dtype=np.int64)

    def count(self, codes: IntArray, weights: IntArray | None = None) -> list[int]:
        """Return how often each language is among these numbers, each counting by its weight."""
        counts: IntArray = np.bincount(codes, weights, minlength=len(self.names)).astype(np.int64)
        return counts.tolist()


def describe_languages(codes: LanguageCodes) -> tuple[Language, ...]:
    """Return one row per language."""
    columns = (
        codes.count(codes.of_items),
        codes.count(codes.of_users),
        codes.count(codes.of_items, codes.split.histories.item_counts),
    )
    return tuple(Language(*row) for row in zip(codes.names, *columns, strict=True))


def describe_mixing(codes: LanguageCodes) -> Mixing:
    """Cross the main languages of tested users with the languages of their test targets."""
    split, n = codes.split, len(codes.names)
    users, targets = codes.of_users[split.test_users], codes.of_items[split.test_items]
    matrix = np.bincount(users * n + targets, minlength=n * n).reshape(n, n)
    both = (users != codes.unknown) & (targets != codes.unknown)
    same = int((both & (users == targets)).sum())
    return Mixing(
        languages=codes.names,
        targets=tuple(tuple(row) for row in matrix.tolist()),
        cross_language=int(both.sum()) - same,
        same_language=same,
        bilingual_users=_bilingual_users(codes),
        users=int((codes.of_users != codes.unknown).sum()),
    )


def _bilingual_users(codes: LanguageCodes) -> int:
    histories = codes.split.histories
    language, n_users = codes.of_items[histories.items], len(histories.user_ids)
    known = codes.split.known & (language != codes.unknown)
    is_other = known & (language != codes.of_users[histories.users])
    n_languages = len(codes.names)
    whole = np.bincount(histories.users[known], minlength=n_users)
    pairs, sizes = np.unique(histories.users[is_other] * n_languages + language[is_other], return_counts=True)
    second = np.zeros(n_users, dtype=np.int64)
    np.maximum.at(second, pairs // n_languages, sizes)
    return int(((second >= BILINGUAL_MIN) & (second >= BILINGUAL_SHARE * whole)).sum())
