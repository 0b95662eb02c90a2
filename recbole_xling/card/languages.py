"""Languages of items, users and targets; who reads what."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from recbole_xling.card.card import Language, Mixing
from recbole_xling.card.catalogue import Catalogue
from recbole_xling.card.histories import Histories, IntArray
from recbole_xling.data.languages import user_languages
from recbole_xling.evaluate.slices import UNKNOWN_LANGUAGE

BILINGUAL_SHARE = 0.2
BILINGUAL_MIN = 2


@dataclass(frozen=True)
class LanguageCodes:
    """Languages as numbers: places in :attr:`names`, the most met one first, ``und`` last."""

    histories: Histories
    catalogue: Catalogue

    @cached_property
    def names(self) -> tuple[str, ...]:
        """All languages of items and users; ``und`` only where there is a case of it."""
        met: dict[str, int] = {}
        for language, count in zip(self.catalogue.item_languages, self.histories.item_counts.tolist(), strict=True):
            met[language] = met.get(language, 0) + count
        found = {*met, *self._main}
        return tuple(sorted(found, key=lambda name: (name == UNKNOWN_LANGUAGE, -met.get(name, 0), name)))

    @cached_property
    def of_items(self) -> NDArray[np.int64]:
        """Language of each item of the catalogue, ``(n_items,)``."""
        return self._codes(self.catalogue.item_languages)

    @cached_property
    def of_users(self) -> NDArray[np.int64]:
        """Main language of each user as results define it, ``(n_users,)``."""
        return self._codes(self._main)

    @cached_property
    def unknown(self) -> int:
        """The number of ``und``, -1 where there is no case of it."""
        return self.names.index(UNKNOWN_LANGUAGE) if UNKNOWN_LANGUAGE in self.names else -1

    @cached_property
    def known(self) -> NDArray[np.bool_]:
        """Mask of all interactions but test targets, ``(n,)``: what main languages come from."""
        mask = np.ones(len(self.histories), dtype=bool)
        mask[self.histories.test] = False
        return mask

    @cached_property
    def _main(self) -> list[str]:
        histories = self.histories
        users, items = histories.users[self.known], histories.items[self.known]
        languages, n_users = self.catalogue.item_languages, len(histories.user_ids)
        return user_languages(languages, users, items, n_users)  # type: ignore[arg-type]  # half the size of int64

    def _codes(self, languages: list[str]) -> NDArray[np.int64]:
        code = {name: number for number, name in enumerate(self.names)}
        return np.array([code[language] for language in languages], dtype=np.int64)

    def count(self, positions: IntArray | NDArray[np.bool_]) -> list[int]:
        """Return how many of the interactions at these positions are in each language."""
        return self._count(self.of_items[self.histories.items[positions]])

    def count_items(self) -> list[int]:
        """Return how many items of the catalogue are in each language."""
        return self._count(self.of_items)

    def count_users(self) -> list[int]:
        """Return of how many users each language is the main one."""
        return self._count(self.of_users)

    def _count(self, codes: NDArray[np.int64]) -> list[int]:
        return np.bincount(codes, minlength=len(self.names)).tolist()


def describe_languages(codes: LanguageCodes) -> tuple[Language, ...]:
    """Return one row per language."""
    histories = codes.histories
    items_of_language = np.bincount(codes.of_items, weights=histories.item_counts, minlength=len(codes.names))
    cold = histories.test[histories.train_counts[histories.items[histories.test]] == 0]
    columns = zip(
        codes.names,
        codes.count_items(),
        codes.count_users(),
        items_of_language.astype(np.int64).tolist(),
        codes.count(histories.is_train),
        codes.count(histories.valid),
        codes.count(histories.test),
        codes.count(cold),
        strict=True,
    )
    return tuple(Language(*row) for row in columns)


def describe_mixing(codes: LanguageCodes) -> Mixing:
    """Cross the main languages of tested users with the languages of their test targets."""
    histories, n = codes.histories, len(codes.names)
    users = codes.of_users[histories.tested]
    targets = codes.of_items[histories.items[histories.test]]
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
    histories, n_users = codes.histories, len(codes.histories.user_ids)
    language = codes.of_items[histories.items]
    known = codes.known & (language != codes.unknown)
    is_other = known & (language != codes.of_users[histories.users])
    whole, other = (np.bincount(histories.users[mask], minlength=n_users) for mask in (known, is_other))
    return int(((other >= BILINGUAL_MIN) & (other >= BILINGUAL_SHARE * whole)).sum())
