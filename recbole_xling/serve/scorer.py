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

    @property
    def n_views(self) -> int:
        """The number of views in which the model sees items: 1, or as many as the catalog has."""

    @property
    def history_size(self) -> int:
        """The size of the vectors that histories consist of.

        Raises:
            ConfigError: users are not made of vectors of items.
        """

    def best(self, view: int, rows: Rows | Given, candidates: IntArray, left_out: Sequence[IntArray], k: int) -> Best:
        """Return the best candidates for users of a view, without what is left out for each; ``k`` of them, or all."""

    def vectors_of_texts(self, texts: Sequence[str], languages: Sequence[str]) -> NDArray[np.float32]:
        """Return vectors of texts that no item has, as histories consist of them.

        Raises:
            ConfigError: the model does not read texts.
        """

    def vectors_of_items(
        self, texts: Sequence[Sequence[str]], languages: Sequence[Sequence[str]]
    ) -> NDArray[np.float32]:
        """Return vectors of items that training did not have, as histories consist of them.

        Args:
            texts: the different texts of each, at least one.
            languages: theirs.

        Raises:
            ConfigError: the model does not read texts.
        """

    def grown(
        self, vectors: Sequence[NDArray[np.float32]], languages: Sequence[Sequence[str]], skipped: int, bias: float
    ) -> Scorer:
        """Return a scorer of more items, which come behind the others.

        Args:
            vectors: theirs as histories consist of them, in each view of the model, ``(m, size)``.
            languages: theirs in these views.
            skipped: how many of the first numbers of a vector do not count for scores of new items.
            bias: of new items.
        """

    def attention(self, view: int, rows: Rows) -> NDArray[np.float32] | None:
        """Return how much of a user's attention each item of his history has, ``(B, longest)``; None if unknown."""

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


def unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Scale vectors to unit length, ``(n, D)``; zero vectors stay."""
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
