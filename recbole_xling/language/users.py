"""Users' languages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recbole_xling.language.tags import UNDETERMINED

BILINGUAL_SHARE = 0.2
"""Least share of the second language in the history of a bilingual user."""

BILINGUAL_MIN = 2
"""Fewest interactions of a bilingual user in the second language."""

IntArray = NDArray[np.integer[Any]]


def user_languages(item_languages: Sequence[str], users: IntArray, items: IntArray, n_users: int) -> list[str]:
    """Return each user's main language: the most frequent one of his items; ties go to the alphabet.

    Args:
        item_languages: indexed by item id; ``und`` where unknown, which does not count.
        users: of the interactions to go by, ``(n,)``.
        items: of the same interactions.
        n_users: number of users, the padding user included.
    """
    names = sorted(set(item_languages) - {UNDETERMINED})
    if not names:
        return [UNDETERMINED] * n_users
    index = {name: position for position, name in enumerate(names)}
    language = np.array([index.get(name, -1) for name in item_languages])[items]
    counts = np.zeros((n_users, len(names)), dtype=np.int64)
    np.add.at(counts, (users[language >= 0], language[language >= 0]), 1)
    best = counts.argmax(axis=1)
    return [names[position] if counts[user, position] else UNDETERMINED for user, position in enumerate(best)]
