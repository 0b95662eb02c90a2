"""VectorScorer: scores from vectors of items, users from a tower or a table; numpy alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from recbole_xling.errors import ConfigError
from recbole_xling.serve.catalog import IntArray
from recbole_xling.serve.indexes import Search
from recbole_xling.serve.scorer import Best, Given, Rows

FloatArray = NDArray[np.float32]
_FIRST_ITEMS = 1 << 12  # scored at once; few of the later ones are above the best of these
_ITEMS = 1 << 16  # scored at a time from then on
_ROWS = 128  # users at a time
_LEAST = 0.9  # share of the index that must be candidates, else all of these are scored
_FURTHER = 64  # that the index is asked for where some of its items are no candidates
_LIKELY = 1000  # items of the highest bias, which are always scored: graphs may have no way to one that many want


class Table:
    """Rows of an array, which may be a file mapped into memory, and a few more behind them; nothing is copied.

    Args:
        first: ``(n, size)``, at least one row.
        more: ``(m, size)``.
    """

    def __init__(self, first: FloatArray, more: FloatArray) -> None:
        self._first, self._more = first, more
        self.shape = (len(first) + len(more), first.shape[1])

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice | IntArray) -> FloatArray:
        """Return the rows from a number to another one, or those with some numbers."""
        n_first = len(self._first)
        if isinstance(rows, slice):
            if rows.stop <= n_first:
                return self._first[rows]
            rows = np.arange(rows.start, rows.stop)
        found, behind = self._first[np.minimum(rows, n_first - 1)], rows >= n_first
        found[behind] = self._more[rows[behind] - n_first]
        return found


@dataclass(frozen=True)
class View:
    """The items in a view of the model.

    Attributes:
        items: vectors that are scored, ``(n_items, D)``.
        histories: vectors that histories consist of, ``(n_items, size)``; they begin with those of the items alone.
        languages: numbers of the items' languages, ``(n_items,)``.
        known: whether training has met the items, which then make the bias count for those who have them in their
            history, ``(n_items,)``; None if it counts alike for all.
        indexed: numbers of the items of the index, ascending; empty without one.
        search: of the index.
    """

    items: FloatArray | Table
    histories: FloatArray | Table
    languages: IntArray
    known: NDArray[np.bool_] | None
    indexed: IntArray
    search: Search | None = None


LEAST_WEIGHT = 0.01
"""Of the bias, for users whose history training never met: enough to decide between equal matches."""


def bias_weight(known: NDArray[np.bool_] | None, histories: Sequence[IntArray], longest: int) -> FloatArray:
    """Return how much the bias of scores counts for users, ``(B, 1)``.

    It is 1 for those without a history or where training has met at least half of it, and falls with that share: what
    training readers chose says little to somebody who reads nothing that they did.

    Args:
        known: whether training has met each item, ``(n_items,)``; None if the bias counts alike for all.
        histories: numbers of items, the oldest of each first.
        longest: how many of the newest are read.
    """
    if known is None:
        return np.ones((len(histories), 1), dtype=np.float32)
    shares = [known[history[-longest:]].mean() if len(history) else 1.0 for history in histories]
    return np.clip(2 * np.array(shares, dtype=np.float32), LEAST_WEIGHT, 1)[:, None]


@dataclass(frozen=True)
class Tower:
    """From histories to users.

    Attributes:
        compute: users, ``(B, D)``, from ``items`` ``(B, longest, size)``, ``item_seq_len`` ``(B,)``, ``item_language``
            ``(B, longest)`` and ``user_language`` ``(B,)``.
        longest: history, in items.
        languages: numbers of languages, by the first part of their tags.
        attend: how much of a user's attention each item has, ``(B, longest)``, from the same; None if there is none.
    """

    compute: Callable[[Mapping[str, NDArray]], FloatArray]
    longest: int
    languages: Mapping[str, int]
    attend: Callable[[Mapping[str, NDArray]], FloatArray | None] = lambda given: None

    def of_histories(self, view: View, rows: Rows) -> FloatArray:
        """Return users, ``(B, D)``."""
        return self._users(self.inputs(view, rows))

    def inputs(self, view: View, rows: Rows) -> dict[str, NDArray]:
        """Return what users are computed from."""
        recent = [history[-self.longest :] for history in rows.histories]
        item_seq = np.zeros((len(recent), self.longest), dtype=np.int64)
        for row, history in zip(item_seq, recent, strict=True):
            row[: len(history)] = history
        lengths = np.array([len(history) for history in recent], dtype=np.int64)
        return self._inputs(view.histories[item_seq], lengths, view.languages[item_seq], rows.languages)

    def of_vectors(self, given: Given) -> FloatArray:
        """Return users whose history is one vector each, ``(B, D)``."""
        items = np.zeros((len(given.vectors), self.longest, given.vectors.shape[1]), dtype=np.float32)
        items[:, 0] = given.vectors
        languages = np.zeros(items.shape[:2], dtype=np.int64)
        languages[:, 0] = self.numbers(given.written)
        return self._users(self._inputs(items, np.ones(len(items), dtype=np.int64), languages, given.read))

    def numbers(self, languages: Sequence[str]) -> IntArray:
        """Return the numbers of languages, 0 for unknown ones."""
        return np.array([self.languages.get(tag.split("-")[0].lower(), 0) for tag in languages], dtype=np.int64)

    def _inputs(
        self, items: FloatArray, lengths: IntArray, item_language: IntArray, languages: Sequence[str]
    ) -> dict[str, NDArray]:
        given: dict[str, NDArray] = {"items": np.asarray(items, dtype=np.float32), "item_seq_len": lengths}
        return {**given, "item_language": item_language, "user_language": self.numbers(languages)}

    def _users(self, given: Mapping[str, NDArray]) -> FloatArray:
        users = self.compute(given)
        if not np.isfinite(users).all():
            raise ConfigError("the user tower returns numbers that are not finite: export the run again")
        return users


class TextReader(Protocol):
    """What makes vectors of texts, as histories consist of them."""

    def vectors_of_texts(self, texts: Sequence[str], languages: Sequence[str]) -> FloatArray:
        """Return the vectors of texts, ``(n, size)``."""

    def vectors_of_items(self, texts: Sequence[Sequence[str]], languages: Sequence[Sequence[str]]) -> FloatArray:
        """Return the vectors of items, ``(n, size)``, by the different texts of each, at least one."""


class _Pool(NamedTuple):
    """Candidates as an index sees them.

    Attributes:
        is_gone: which items do not count where the index finds them, ``(n_items,)``.
        n_gone: how many of the index are no candidates.
        beside: candidates that are scored whether the index finds them or not, also those that it lacks, ascending.
        vectors: theirs.
    """

    is_gone: NDArray[np.bool_]
    n_gone: int
    beside: IntArray
    vectors: FloatArray


class VectorScorer:
    """Scores as inner products with a bias (:class:`~recbole_xling.serve.scorer.Scorer`).

    An index is asked where little but histories is left out, and what it finds is scored exactly. Otherwise all
    candidates are.

    Args:
        name: of the model.
        views: one, or as many as the catalog has.
        bias: of items, ``(n_items,)``.
        vector_size: of items alone, by which they are compared.
        users: a tower for models that know users by their histories, else their vectors, ``(n_users, D)``.
        without_history: whether the model ranks for users without a history.
        reader: of texts, if there is one.
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
        reader: TextReader | None = None,
    ) -> None:
        self.name, self.by_history, self.without_history = name, isinstance(users, Tower), without_history
        self.by_user = not self.by_history
        self.longest = users.longest if isinstance(users, Tower) else 0
        self.n_views, self.history_size = len(views), int(views[0].histories.shape[1])
        self._views, self._bias, self._size, self._users, self._reader = views, bias, vector_size, users, reader
        self._pools: dict[int, tuple[IntArray, _Pool]] = {}

    def grown(
        self, vectors: Sequence[FloatArray], languages: Sequence[Sequence[str]], skipped: int, bias: float
    ) -> VectorScorer:
        """Return a scorer of more items.

        Args:
            vectors: of the new items as histories consist of them, in each view of the model, ``(m, size)``.
            languages: theirs in these views.
            skipped: how many of the first numbers of a vector do not count for scores of new items.
            bias: of new items.
        """
        assert isinstance(self._users, Tower)
        views = []
        for view, more, tags in zip(self._views, vectors, languages, strict=True):
            scored = more.copy()
            scored[:, :skipped] = 0
            items, histories = Table(np.asarray(view.items), scored), Table(np.asarray(view.histories), more)
            numbers = np.concatenate([view.languages, self._users.numbers(tags)])
            known = None if view.known is None else np.append(view.known, np.zeros(len(more), dtype=bool))
            views.append(replace(view, items=items, histories=histories, languages=numbers, known=known))
        biases = np.concatenate([self._bias, np.full(len(vectors[0]), bias, dtype=np.float32)])
        kept: dict[str, Any] = {"without_history": self.without_history, "reader": self._reader}
        return VectorScorer(self.name, views, biases, self._size, self._users, **kept)

    def _view(self, number: int) -> View:
        return self._views[number if len(self._views) > 1 else 0]

    def best(self, view: int, rows: Rows | Given, candidates: IntArray, left_out: Sequence[IntArray], k: int) -> Best:
        """Return the best candidates for users of a view."""
        k, seen, n_rows = min(k, len(candidates)), self._view(view), len(left_out)
        items, scores = np.zeros((n_rows, k), dtype=np.int64), np.zeros((n_rows, k), np.float32)
        if not k or not n_rows:
            return Best(items, scores)
        if isinstance(rows, Given):
            assert isinstance(self._users, Tower)
            users, weight = self._users.of_vectors(rows), np.ones((n_rows, 1), dtype=np.float32)
        else:
            users, weight = self.user_vectors(view, rows), bias_weight(seen.known, rows.histories, self.longest)
        users = users / weight  # which leaves the order, and one bias for all
        pool = self._pool(view, candidates) if seen.search is not None and k < len(candidates) else None
        for at in range(0, len(users), _ROWS):
            part = slice(at, at + _ROWS)
            if seen.search is not None and pool is not None:
                found = self._found(seen, seen.search, users[part], pool, left_out[part], k)
                items[part], scores[part], is_short = found
                few = at + np.flatnonzero(is_short)
            else:
                few = np.arange(at, min(at + _ROWS, n_rows))
            if len(few):
                gone = [left_out[row] for row in few.tolist()]
                items[few], scores[few] = self._exact(seen, users[few], candidates, gone, k)
        return Best(items, scores * weight)

    def _pool(self, view: int, candidates: IntArray) -> _Pool | None:
        """Return candidates as the index sees them; None if it has too many others. The last ones are remembered."""
        asked, found = self._pools.get(view, (None, None))
        if asked is candidates:
            return found
        seen = self._view(view)
        if len(candidates) < _LEAST * len(seen.indexed):
            return None
        is_candidate, is_indexed = np.zeros((2, len(seen.items)), dtype=bool)
        is_candidate[candidates], is_indexed[seen.indexed] = True, True
        is_gone = is_indexed & ~is_candidate
        n_gone, is_beside = int(is_gone.sum()), is_candidate & ~is_indexed
        likely = self._likely[is_candidate[self._likely]]
        is_beside[likely] = is_gone[likely] = True
        beside = np.flatnonzero(is_beside)
        found = _Pool(is_gone, n_gone, beside, np.asarray(seen.items[beside]))
        self._pools[view] = candidates, found
        return found

    @cached_property
    def _likely(self) -> IntArray:
        """The items of the highest bias; none where all have the same."""
        highest = np.argsort(-self._bias, kind="stable")[:_LIKELY]
        return highest if self._bias[highest[0]] > self._bias.min() else highest[:0]

    def vectors_of_texts(self, texts: Sequence[str], languages: Sequence[str]) -> FloatArray:
        """Return vectors of texts.

        Raises:
            ConfigError: nothing here reads texts.
        """
        return self._texts.vectors_of_texts(texts, languages)

    def vectors_of_items(self, texts: Sequence[Sequence[str]], languages: Sequence[Sequence[str]]) -> FloatArray:
        """Return vectors of items by their texts.

        Raises:
            ConfigError: nothing here reads texts.
        """
        return self._texts.vectors_of_items(texts, languages)

    @property
    def _texts(self) -> TextReader:
        if self._reader is None:
            raise ConfigError("an export does not read texts unless it holds the encoder: ask the run, or give vectors")
        return self._reader

    def attention(self, view: int, rows: Rows) -> FloatArray | None:
        """Return how much of a user's attention each item of his history has; None if that is not known."""
        if not isinstance(self._users, Tower):
            return None
        return self._users.attend(self._users.inputs(self._view(view), rows))

    def vectors(self, view: int, items: IntArray) -> FloatArray:
        """Return vectors of items in a view."""
        return np.asarray(self._view(view).histories[items][:, : self._size], dtype=np.float32)

    def user_vectors(self, view: int, rows: Rows) -> FloatArray:
        """Return vectors of users of a view, ``(B, D)``."""
        if not isinstance(self._users, Tower):
            return np.asarray(self._users[rows.users], dtype=np.float32)
        parts = [slice(at, at + _ROWS) for at in range(0, len(rows.users), _ROWS)]
        batches = [Rows(rows.users[part], rows.languages[part], rows.histories[part]) for part in parts]
        return np.concatenate([self._users.of_histories(self._view(view), batch) for batch in batches])

    def _exact(
        self, view: View, users: FloatArray, candidates: IntArray, left_out: Sequence[IntArray], k: int
    ) -> tuple[IntArray, FloatArray]:
        """Score candidates some at a time, and keep the best."""
        items = np.zeros((len(users), 0), dtype=np.int64)
        scores = np.zeros((len(users), 0), dtype=np.float32)
        for at in [0, *range(_FIRST_ITEMS, len(candidates), _ITEMS)]:
            block = candidates[at : at + (_ITEMS if at else _FIRST_ITEMS)]
            is_range = block[-1] - block[0] + 1 == len(block)
            chosen: Any = slice(block[0], block[-1] + 1) if is_range else block
            found = users @ view.items[chosen].T + self._bias[chosen]  # (B, n)
            _leave_out(found, block, left_out)
            if scores.shape[1] == k:  # equal scores of later items do not count, so nearly all can be left out here
                better = np.flatnonzero((found > scores[:, -1:]).any(axis=0))
                found, block = found[:, better], block[better]
            items = np.concatenate([items, np.broadcast_to(block, found.shape)], axis=1)
            scores = np.concatenate([scores, found], axis=1)
            items, scores = highest(items, scores, k)
        return items, scores

    def _found(
        self, view: View, search: Search, users: FloatArray, pool: _Pool, left_out: Sequence[IntArray], k: int
    ) -> tuple[IntArray, FloatArray, NDArray[np.bool_]]:
        """Score what the index finds, and the candidates beside it; tell too for whom that may not be the best."""
        most = max((len(of_user) for of_user in left_out), default=0) + min(_FURTHER, pool.n_gone)
        # one more than needed, whose score is clearly below those of the list, however they are rounded
        places = search(users, min(k + most + 1, len(view.indexed)))
        items, is_nothing = view.indexed[np.maximum(places, 0)], places < 0  # (B, n)
        scores = np.einsum("bd,bnd->bn", users, view.items[items]) + self._bias[items]
        lowest = np.where(is_nothing, np.inf, scores).min(axis=1)  # nothing that the index has not found is above it
        has_more = (~is_nothing).sum(axis=1) < len(view.indexed)
        scores[is_nothing | pool.is_gone[items]] = -np.inf
        for row, of_row, gone in zip(scores, items, left_out, strict=True):
            row[(of_row[:, None] == gone).any(axis=1)] = -np.inf  # for few numbers faster than isin
        if len(pool.beside):
            others = users @ pool.vectors.T + self._bias[pool.beside]
            _leave_out(others, pool.beside, left_out)
            beside = np.broadcast_to(pool.beside, others.shape)
            items, scores = np.concatenate([items, beside], axis=1), np.concatenate([scores, others], axis=1)
        items, scores = highest(items, scores, k)
        # where most of what was found is gone, items beside would take the places of better ones further down
        return items, scores, has_more & (scores[:, -1] < lowest)


def _leave_out(scores: FloatArray, items: IntArray, left_out: Sequence[IntArray]) -> None:
    """Give no score, in place, to what each row is not to have, of scores ``(B, n)`` of items ``(n,)``, ascending."""
    for row, gone in zip(scores, left_out, strict=True):
        places = np.minimum(np.searchsorted(items, gone), len(items) - 1)
        row[places[items[places] == gone]] = -np.inf


def highest(items: IntArray, scores: FloatArray, k: int) -> tuple[IntArray, FloatArray]:
    """Return the ``k`` highest scores of each row and their items, the highest first; of equal ones the first items."""
    if scores.shape[1] > k:
        kept = np.argpartition(-scores, k - 1, axis=1)[:, :k]
        last = np.take_along_axis(scores, kept, axis=1).min(axis=1, keepdims=True)  # (B, 1)
        for row in np.flatnonzero(np.count_nonzero(scores >= last, axis=1) > k):  # of equal ones that has taken any
            best = np.flatnonzero(scores[row] >= last[row])
            kept[row] = best[np.lexsort((items[row, best], -scores[row, best]))[:k]]
        items, scores = np.take_along_axis(items, kept, axis=1), np.take_along_axis(scores, kept, axis=1)
    order = np.lexsort((items, -scores), axis=1)
    return np.take_along_axis(items, order, axis=1), np.take_along_axis(scores, order, axis=1)
