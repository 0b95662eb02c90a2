"""VectorScorer: scores from the vectors of an export, users from its ONNX graph or its table; numpy alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recbole_xling.errors import ConfigError
from recbole_xling.serve.catalog import IntArray
from recbole_xling.serve.indexes import Search
from recbole_xling.serve.scorer import Best, Given, Rows

FloatArray = NDArray[np.float32]
_ITEMS = 1 << 16  # scored at a time
_ROWS = 128  # users at a time
_FURTHER = 64  # items of the index that may be no candidates, so that it is asked for more


@dataclass(frozen=True)
class View:
    """The items in a view of the model.

    Attributes:
        items: vectors that are scored, ``(n_items, D)``.
        histories: vectors that histories consist of, ``(n_items, size)``; they begin with those of the items alone.
        languages: numbers of the items' languages, ``(n_items,)``.
        indexed: numbers of the items of the index, ascending; empty without one.
        search: of the index.
    """

    items: FloatArray
    histories: FloatArray
    languages: IntArray
    indexed: IntArray
    search: Search | None = None


@dataclass(frozen=True)
class Tower:
    """From histories to users.

    Attributes:
        session: of onnxruntime.
        longest: history, in items.
        languages: numbers of languages, by the first part of their tags.
    """

    session: Any
    longest: int
    languages: Mapping[str, int]

    def __call__(self, view: View, rows: Rows) -> FloatArray:
        """Return users, ``(B, D)``."""
        recent = [history[-self.longest :] for history in rows.histories]
        item_seq = np.zeros((len(recent), self.longest), dtype=np.int64)
        for row, history in zip(item_seq, recent, strict=True):
            row[: len(history)] = history
        tags = [language.split("-")[0].lower() for language in rows.languages]
        given = {
            "items": np.asarray(view.histories[item_seq], dtype=np.float32),
            "item_seq_len": np.array([len(history) for history in recent], dtype=np.int64),
            "item_language": view.languages[item_seq],
            "user_language": np.array([self.languages.get(tag, 0) for tag in tags], dtype=np.int64),
        }
        wanted = [node.name for node in self.session.get_inputs()]
        found: FloatArray = self.session.run(None, {name: given[name] for name in wanted})[0]
        return found


class VectorScorer:
    """Scores as inner products with a bias (:class:`~recbole_xling.serve.scorer.Scorer`).

    An index is asked where next to nothing but histories is left out, and what it finds is scored exactly. Otherwise
    all candidates are.

    Args:
        name: of the model.
        views: one, or as many as the catalog has.
        bias: of items, ``(n_items,)``.
        vector_size: of items alone, by which they are compared.
        users: a tower for models that know users by their histories, else their vectors, ``(n_users, D)``.
        without_history: whether the model ranks for users without a history.
    """

    def __init__(
        self,
        name: str,
        views: Sequence[View],
        bias: FloatArray,
        vector_size: int,
        users: Tower | FloatArray,
        *,
        without_history: bool,
    ) -> None:
        self.name, self.by_history, self.without_history = name, isinstance(users, Tower), without_history
        self.by_user = not self.by_history
        self.longest = users.longest if isinstance(users, Tower) else 0
        self._views, self._bias, self._size, self._users = views, bias, vector_size, users

    def _view(self, number: int) -> View:
        return self._views[number if len(self._views) > 1 else 0]

    def best(self, view: int, rows: Rows | Given, candidates: IntArray, left_out: Sequence[IntArray], k: int) -> Best:
        """Return the best candidates for users of a view, who have histories: there are no vectors of texts."""
        assert isinstance(rows, Rows)
        k, seen = min(k, len(candidates)), self._view(view)
        items, scores = np.zeros((len(rows.users), k), dtype=np.int64), np.zeros((len(rows.users), k), np.float32)
        if not k:
            return Best(items, scores)
        users = self.user_vectors(view, rows)
        for at in range(0, len(users), _ROWS):
            part = slice(at, at + _ROWS)
            few_are_gone = len(seen.indexed) - len(candidates) <= _FURTHER
            if seen.search is not None and few_are_gone and k < len(candidates):
                gone = np.setdiff1d(seen.indexed, candidates, assume_unique=True)
                without = [np.concatenate([of_user, gone]) for of_user in left_out[part]]
                items[part], scores[part] = self._found(seen, seen.search, users[part], without, k)
            else:
                items[part], scores[part] = self._exact(seen, users[part], candidates, left_out[part], k)
        return Best(items, scores)

    def vectors_of_texts(self, texts: Sequence[str], languages: Sequence[str]) -> FloatArray:
        """Raise a ConfigError: an export does not read texts."""
        raise ConfigError("an export does not read texts, which takes the encoder: ask the run")

    def vectors(self, view: int, items: IntArray) -> FloatArray:
        """Return vectors of items in a view."""
        return np.asarray(self._view(view).histories[items, : self._size], dtype=np.float32)

    def user_vectors(self, view: int, rows: Rows) -> FloatArray:
        """Return vectors of users of a view, ``(B, D)``."""
        if not isinstance(self._users, Tower):
            return np.asarray(self._users[rows.users], dtype=np.float32)
        parts = [slice(at, at + _ROWS) for at in range(0, len(rows.users), _ROWS)]
        batches = [Rows(rows.users[part], rows.languages[part], rows.histories[part]) for part in parts]
        found = [self._users(self._view(view), batch) for batch in batches]
        if not all(np.isfinite(users).all() for users in found):
            raise ConfigError(f"the user tower of {self.name} returns numbers that are not finite: export it again")
        return np.concatenate(found)

    def _exact(
        self, view: View, users: FloatArray, candidates: IntArray, left_out: Sequence[IntArray], k: int
    ) -> tuple[IntArray, FloatArray]:
        """Score candidates some at a time, and keep the best."""
        items = np.zeros((len(users), 0), dtype=np.int64)
        scores = np.zeros((len(users), 0), dtype=np.float32)
        for at in range(0, len(candidates), _ITEMS):
            block = candidates[at : at + _ITEMS]
            is_range = block[-1] - block[0] + 1 == len(block)
            chosen: Any = slice(block[0], block[-1] + 1) if is_range else block
            found = users @ view.items[chosen].T + self._bias[chosen]  # (B, n)
            _leave_out(found, np.broadcast_to(block, found.shape), left_out)
            items = np.concatenate([items, np.broadcast_to(block, found.shape)], axis=1)
            scores = np.concatenate([scores, found], axis=1)
            items, scores = _highest(items, scores, k)
        return items, scores

    def _found(
        self, view: View, search: Search, users: FloatArray, left_out: Sequence[IntArray], k: int
    ) -> tuple[IntArray, FloatArray]:
        """Score what the index finds."""
        most = max((len(of_user) for of_user in left_out), default=0)
        places = search(users, min(k + most, len(view.indexed)))
        items = view.indexed[np.maximum(places, 0)]  # (B, n)
        scores = np.einsum("bd,bnd->bn", users, view.items[items]) + self._bias[items]
        scores[places < 0] = -np.inf
        _leave_out(scores, items, left_out)
        items, scores = _highest(items, scores, k)
        return items, scores


def _leave_out(scores: FloatArray, items: IntArray, left_out: Sequence[IntArray]) -> None:
    for row, of_row, gone in zip(scores, items, left_out, strict=True):
        row[np.isin(of_row, gone)] = -np.inf


def _highest(items: IntArray, scores: FloatArray, k: int) -> tuple[IntArray, FloatArray]:
    """Return the ``k`` highest scores of each row and their items, the highest first; of equal ones the first items."""
    if scores.shape[1] > k:
        kept = np.argpartition(-scores, k - 1, axis=1)[:, :k]
        items, scores = np.take_along_axis(items, kept, axis=1), np.take_along_axis(scores, kept, axis=1)
    order = np.lexsort((items, -scores), axis=1)
    return np.take_along_axis(items, order, axis=1), np.take_along_axis(scores, order, axis=1)
