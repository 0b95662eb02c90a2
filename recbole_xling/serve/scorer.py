"""What a Recommender asks of a model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from recbole_xling.serve.catalog import IntArray


class Rows(NamedTuple):
    """Users to rank items for, all of whom see the same view of the catalog.

    Attributes:
        users: numbers of users, 0 for nobody the model knows, ``(B,)``.
        languages: that they read, ``und`` where unknown.
        histories: numbers of items, the oldest of each first.
    """

    users: IntArray
    languages: Sequence[str]
    histories: Sequence[IntArray]


class Best(NamedTuple):
    """The best items of some users.

    Attributes:
        items: their numbers, the best first, ``(B, k)``.
        scores: theirs, ``(B, k)``; minus infinity where there are not as many items.
    """

    items: IntArray
    scores: NDArray[np.float32]


class Given(NamedTuple):
    """Users that are known by one vector each, such as that of a text, in place of a history.

    Attributes:
        vectors: as histories consist of them, ``(B, size)``.
        written: the languages of what the vectors are of, ``und`` where unknown.
        read: the languages that the users read.
    """

    vectors: NDArray[np.float32]
    written: Sequence[str]
    read: Sequence[str]


class Scorer(Protocol):
    """What a model is asked for; all arrays are of numpy.

    Attributes:
        name: of the model, for messages.
        by_history: whether it knows users by their histories.
        by_user: whether it learned something of each user, so that it cannot serve others.
        without_history: whether it can rank for users without one.
        longest: history that it reads, in items; 0 if it reads none.
    """

    name: str
    by_history: bool
    by_user: bool
    without_history: bool
    longest: int

    def best(self, view: int, rows: Rows | Given, candidates: IntArray, left_out: Sequence[IntArray], k: int) -> Best:
        """Return the best candidates for users of a view, without what is left out for each; ``k`` of them, or all."""

    def vectors_of_texts(self, texts: Sequence[str], languages: Sequence[str]) -> NDArray[np.float32]:
        """Return vectors of texts that no item has, as histories consist of them.

        Raises:
            ConfigError: the model does not read texts.
        """

    def vectors(self, view: int, items: IntArray) -> NDArray[np.float32]:
        """Return vectors of items in a view, ``(n, D)``.

        Raises:
            ConfigError: the model has none.
        """

    def user_vectors(self, view: int, rows: Rows) -> NDArray[np.float32]:
        """Return vectors of users of a view, ``(B, D)``.

        Raises:
            ConfigError: the model has none.
        """
