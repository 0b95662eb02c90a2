"""The items that are chosen most so far, kept in order while they are chosen."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
from numpy.typing import NDArray

IntArray = NDArray[np.int64]


class PopularitySoFar:
    """Items by the number of times that they were chosen; a further choice takes constant time.

    Args:
        counts: to begin with, by number of the item, ``(n_items,)``; number 0 is nobody's.
    """

    def __init__(self, counts: IntArray) -> None:
        self._counts = counts.tolist()
        self._order = np.lexsort((np.arange(len(counts)), -counts)).tolist()  # the most chosen first
        self._place = [0] * len(counts)
        self._start: dict[int, int] = {}  # where the items of each count begin
        for place, item in enumerate(self._order):
            self._place[item] = place
            self._start.setdefault(self._counts[item], place)

    def add(self, item: int) -> None:
        """Count a choice: the item comes before all that were chosen as often as it was."""
        count = self._counts[item]
        start = self._start[count]
        other, place = self._order[start], self._place[item]
        self._order[start], self._order[place] = item, other
        self._place[item], self._place[other] = start, place
        self._counts[item] = count + 1
        self._start[count] = start + 1
        if not start or self._counts[self._order[start - 1]] != count + 1:
            self._start[count + 1] = start

    def best(self, k: int, without: Collection[int], shown: Sequence[bool] | NDArray[np.bool_]) -> list[int]:
        """Return the ``k`` items that were chosen most, of those that are shown, but not these."""
        found: list[int] = []
        for item in self._order:
            if len(found) == k:
                break
            if shown[item] and item not in without:
                found.append(item)
        return found
