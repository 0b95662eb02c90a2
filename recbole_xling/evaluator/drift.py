"""How interactions of now differ from those that a model was trained on: shares, popularity, lengths and scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy import stats

from recbole_xling.language.tags import UNDETERMINED

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]

NONE, SOME, LARGE = "none", "some", "large"
LIMITS = {
    "item_languages": (0.05, 0.15),
    "reader_languages": (0.05, 0.15),
    "interaction_languages": (0.05, 0.15),
    "new_items": (0.1, 0.3),
    "new_users": (0.1, 0.3),
    "popularity": (0.05, 0.15),
    "top_scores": (0.1, 0.25),
    "unserved": (0.1, 0.3),
}
"""From which value on a measure has changed somewhat, and from which it has changed much.

Lengths of histories have no limits: those of who comes back grow with time, whatever the model is worth.
"""

_DRAWS = 50  # of what chance would give
_MOST_DRAWN = 5_000_000  # numbers that are drawn for it, all draws together
_P = 0.01  # largest p-value of a Kolmogorov-Smirnov test that counts as a difference
_LATER_STATE = 0.5  # share of the interactions of then that a later state of the same files still has


@dataclass(frozen=True)
class Side:
    """Interactions with their users and items, of then or of now.

    Attributes:
        user_tokens: external ids by number, ``(n_users,)``; number 0 is nobody.
        item_tokens: the same of items, ``(n_items,)``.
        users: of each interaction, ``(n,)``.
        items: of each interaction, ``(n,)``.
        times: of each interaction; None if not known.
        reader_language: of each user, ``(n_users,)``.
        item_language: of each item's display text, ``(n_items,)``.
        seen: the language in which each interaction's user saw its item, ``(n,)``.
        offered: external ids of all items of the catalog, chosen by somebody or not, as far as they are known.
    """

    user_tokens: NDArray[np.str_]
    item_tokens: NDArray[np.str_]
    users: IntArray
    items: IntArray
    times: FloatArray | None
    reader_language: NDArray[np.str_]
    item_language: NDArray[np.str_]
    seen: NDArray[np.str_]
    offered: NDArray[np.str_] = field(default_factory=lambda: np.array([], dtype=str))

    def rows(self, chosen: NDArray[np.bool_]) -> Side:
        """Return the side with some of its interactions."""
        times = None if self.times is None else self.times[chosen]
        return replace(self, users=self.users[chosen], items=self.items[chosen], times=times, seen=self.seen[chosen])

    @property
    def active(self) -> NDArray[np.str_]:
        """External ids of the users that occur."""
        return self.user_tokens[np.unique(self.users)]

    def lengths(self, users: NDArray[np.str_]) -> IntArray:
        """Return the numbers of interactions of some users, by their external ids."""
        chosen = np.isin(self.user_tokens, users)
        return np.bincount(self.users, minlength=len(self.user_tokens))[chosen]

    @property
    def size(self) -> dict[str, int]:
        """Users and items that occur, items of the catalog, and interactions."""
        return {
            "users": len(np.unique(self.users)),
            "items": len(np.unique(self.items)),
            "catalog": len(self.item_tokens) - 1,
            "interactions": len(self.users),
        }


class Measure(NamedTuple):
    """A measure of change.

    Attributes:
        name: a key of :data:`LIMITS`, or one without limits.
        words: what it is.
        value: from 0 to 1, or a correlation; None where there is nothing to compare.
        chance: what the measure has at most in 95% of the cases where nothing has changed; None where that is 0.
        level: ``none``, ``some`` or ``large``; None where there are no limits.
    """

    name: str
    words: str
    value: float | None
    chance: float | None = None
    level: str | None = None


def since(then: Side, now: Side) -> tuple[Side, int]:
    """Return the interactions of now without those of then, where now is a later state of then; else all of now.

    Returns:
        The interactions to look at, and how many of then are still among those of now.
    """
    before, after = _keys(then, now)
    kept = before.join(after.unique(), on=before.columns, how="semi").height
    return (now if kept < _LATER_STATE * len(then.users) else now.rows(_is_new(before, after))), kept


def _keys(then: Side, now: Side) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return what tells interactions apart, one row each: numbers of user and item, and the time if both know it."""
    keys = ["user", "item"] + ["time"] * (then.times is not None and now.times is not None)

    def numbered(tokens: Sequence[NDArray[np.str_]]) -> list[IntArray]:
        """Return one number for each token, whichever side it is of."""
        number = np.unique(np.concatenate(tokens), return_inverse=True)[1].reshape(-1)
        return np.split(number, [len(tokens[0])])

    users = numbered([then.user_tokens, now.user_tokens])
    items = numbered([then.item_tokens, now.item_tokens])
    tables = [
        pl.DataFrame({"user": users[place][side.users], "item": items[place][side.items], "time": side.times})
        for place, side in enumerate((then, now))
    ]
    return tables[0].select(keys), tables[1].select(keys)


def _is_new(before: pl.DataFrame, after: pl.DataFrame) -> NDArray[np.bool_]:
    """Return which interactions of now are none of then, ``(n,)``, by what :func:`_keys` returns."""
    new = after.with_row_index("row").join(before.unique(), on=before.columns, how="anti")["row"].to_numpy()
    chosen = np.zeros(after.height, dtype=bool)
    chosen[new] = True
    return chosen


def joined(then: Side, now: Side) -> Side:
    """Return the interactions of both, numbered anew, those of then that are among those of now once.

    What both know of a user or an item is that of now.
    """
    now = now.rows(_is_new(*_keys(then, now)))

    def together(one: NDArray[np.str_], other: NDArray[np.str_], *values: NDArray[np.str_]) -> tuple[Any, ...]:
        tokens = np.concatenate([one[:1], np.unique(np.concatenate([one[1:], other[1:]]))])
        places = [np.append(0, 1 + np.searchsorted(tokens[1:], side[1:])) for side in (one, other)]
        known = np.full(len(tokens), UNDETERMINED, dtype=np.result_type(*values, np.array(UNDETERMINED)))
        for place, value in zip(places, values, strict=True):
            known[place] = value
        return tokens, places, known

    users = together(then.user_tokens, now.user_tokens, then.reader_language, now.reader_language)
    items = together(then.item_tokens, now.item_tokens, then.item_language, now.item_language)
    timed = then.times is not None and now.times is not None
    return Side(
        users[0],
        items[0],
        np.concatenate([users[1][place][side.users] for place, side in enumerate((then, now))]),
        np.concatenate([items[1][place][side.items] for place, side in enumerate((then, now))]),
        np.concatenate([then.times, now.times]) if timed else None,  # type: ignore[arg-type, list-item]
        users[2],
        items[2],
        np.concatenate([then.seen, now.seen]),
    )


def level_of(name: str, value: float | None, chance: float | None = None) -> str | None:
    """Return how much a measure has changed by its limits; nothing that chance would give counts."""
    if name not in LIMITS or value is None:
        return None
    some, large = LIMITS[name]
    if value < some or (chance is not None and value <= chance):
        return NONE
    return LARGE if value >= large else SOME


# ---- shares ---------------------------------------------------------------------------------------------------


def language_shares(then: Side, now: Side) -> dict[str, dict[str, tuple[int, int]]]:
    """Return the numbers of items, readers and interactions by language, then and now; the largest of now first."""

    def counted(one: NDArray[np.str_], other: NDArray[np.str_]) -> dict[str, tuple[int, int]]:
        counts = [dict(zip(*np.unique(side, return_counts=True), strict=True)) for side in (one, other)]
        names = sorted({*counts[0], *counts[1]}, key=lambda name: (-int(counts[1].get(name, 0)), str(name)))
        return {str(name): (int(counts[0].get(name, 0)), int(counts[1].get(name, 0))) for name in names}

    return {
        "items": counted(then.item_language[1:], now.item_language[1:]),
        "readers": counted(*(side.reader_language[np.unique(side.users)] for side in (then, now))),
        "interactions": counted(then.seen, now.seen),
    }


def _distance(one: FloatArray, other: FloatArray) -> float:
    """Return the total variation distance of two distributions: the share that would have to move."""
    return float(np.abs(one - other).sum() / 2)


def _divergence(one: FloatArray, other: FloatArray) -> float:
    """Return the Jensen-Shannon divergence in bits, from 0 to 1 (Lin, IEEE Trans. Information Theory, 1991)."""
    middle = (one + other) / 2

    def relative(part: FloatArray) -> float:
        there = part > 0
        return float((part[there] * np.log2(part[there] / middle[there])).sum())

    return max(0.0, (relative(one) + relative(other)) / 2)


def _correlation(one: FloatArray, other: FloatArray) -> float:
    """Return Spearman's rank correlation; 0 where one of both is constant."""
    if len(one) < 2 or one.min() == one.max() or other.min() == other.max():
        return 0.0
    return float(stats.spearmanr(one, other).statistic)


def _by_chance(counts: IntArray, measure: Any, seed: int) -> FloatArray:
    """Return values of a measure where both samples come from one distribution, that of both together.

    Args:
        counts: of then and of now, ``(2, n)``.
        measure: of two distributions.
        seed: of the draws.
    """
    rng, sizes = np.random.default_rng(seed), counts.sum(axis=1)
    pooled = counts.sum(axis=0) / counts.sum()
    draws = max(5, min(_DRAWS, _MOST_DRAWN // max(1, counts.size)))
    found = [[rng.multinomial(size, pooled) / size for size in sizes] for _ in range(draws)]
    return np.array([measure(*pair) for pair in found])


def _shares_measure(name: str, words: str, table: Mapping[str, tuple[int, int]], seed: int) -> Measure:
    counts = np.array([pair for language, pair in table.items() if language != UNDETERMINED], dtype=np.int64)
    if not counts.size or not counts.reshape(-1, 2).sum(axis=0).all():
        return Measure(name, words, None)
    counts = counts.T
    value = _distance(*(counts / counts.sum(axis=1, keepdims=True)))
    chance = float(np.quantile(_by_chance(counts, _distance, seed), 0.95))
    return Measure(name, words, value, chance, level_of(name, value, chance))


# ---- all measures ---------------------------------------------------------------------------------------------


def measures(
    then: Side,
    now: Side,
    both: Side,
    scores: tuple[Sequence[float], Sequence[float]],
    unserved: float | None,
    *,
    by_user: bool,
    seed: int,
) -> list[Measure]:
    """Compare now with then.

    Args:
        then: what the model was trained on.
        now: the interactions to look at, of :func:`since`.
        both: of :func:`joined`, where histories come from.
        scores: the highest score of each of some users of then, and of now.
        unserved: share of the users of now for whom the model cannot rank.
        by_user: whether the model knows users by their ids, so that new ones matter.
        seed: of what chance would give.
    """
    languages = language_shares(then, now)
    # who merely stands in a file of users or items has taught the model nothing
    known_items = np.isin(now.item_tokens, then.item_tokens[np.unique(then.items)])
    known_users = np.isin(now.user_tokens, then.active)
    new_items = float((~known_items[now.items]).mean())
    new_users = float((~known_users[now.users]).mean())
    found = [
        _shares_measure(f"{kind}_languages", f"languages of {plural}", languages[plural], seed)
        for kind, plural in (("item", "items"), ("reader", "readers"), ("interaction", "interactions"))
    ]
    found.append(Measure("new_items", "interactions with new items", new_items, None, level_of("new_items", new_items)))
    level = level_of("new_users", new_users) if by_user else None
    found.append(Measure("new_users", "interactions of new users", new_users, None, level))
    found += _popularity(then, now, seed)
    lengths = then.lengths(then.active), both.lengths(now.active)
    found.append(_ks("history_lengths", "lengths of histories", *lengths))
    found.append(_ks("top_scores", "highest score of each user", *scores))
    level = level_of("unserved", unserved)
    found.append(Measure("unserved", "users that the model cannot serve", unserved, None, level))
    return found


def _popularity(then: Side, now: Side, seed: int) -> list[Measure]:
    """Compare how often the items are chosen that both have: Jensen-Shannon divergence and rank correlation.

    What is still there and chosen no more has them as well: a dataset may be loaded without such items.
    """
    words = "popularity of common items"
    common = np.intersect1d(then.item_tokens[1:], np.concatenate([now.item_tokens[1:], now.offered]))
    counts = np.stack([_chosen(side, common) for side in (then, now)])
    counts = counts[:, counts.sum(axis=0) > 0]
    if len(common) < 2 or not counts.sum(axis=1).all():
        return [Measure("popularity", words, None), Measure("popularity_ranks", "rank correlation of the same", None)]
    shares = counts / counts.sum(axis=1, keepdims=True)
    value, rank = _divergence(*shares), _correlation(*shares)
    chance = float(np.quantile(_by_chance(counts, _divergence, seed), 0.95))
    ranks = float(np.quantile(_by_chance(counts, _correlation, seed), 0.05))
    return [
        Measure("popularity", words, value, chance, level_of("popularity", value, chance)),
        Measure("popularity_ranks", "rank correlation of the same", rank, ranks),
    ]


def _chosen(side: Side, tokens: NDArray[np.str_]) -> IntArray:
    """Return how often items are chosen, by their external ids; 0 for those that the side does not have."""
    number = {token: place for place, token in enumerate(side.item_tokens.tolist()) if place}
    counts = np.bincount(side.items, minlength=len(side.item_tokens))
    return np.array([counts[number[token]] if token in number else 0 for token in tokens.tolist()], dtype=np.int64)


def _ks(name: str, words: str, one: Sequence[float] | IntArray, other: Sequence[float] | IntArray) -> Measure:
    """Compare two samples by the statistic of Kolmogorov and Smirnov: the largest gap of their distributions."""
    if not len(one) or not len(other):
        return Measure(name, words, None)
    first, second = np.sort(np.asarray(one, dtype=float)), np.sort(np.asarray(other, dtype=float))
    points = np.concatenate([first, second])
    shares = [np.searchsorted(sample, points, side="right") / len(sample) for sample in (first, second)]
    value = float(np.abs(shares[0] - shares[1]).max())
    n = len(first) * len(second) / (len(first) + len(second))
    chance = min(1.0, float(stats.kstwobign.isf(_P) / np.sqrt(n)))
    return Measure(name, words, value, chance, level_of(name, value, chance))


# ---- in words -------------------------------------------------------------------------------------------------


def verdict(
    found: Sequence[Measure], new_languages: Sequence[str], n_interactions: int, left_out: Mapping[str, int]
) -> list[str]:
    """Say what has changed most, and whether to train again.

    Args:
        found: the measures.
        new_languages: in which items are seen now and were not then.
        n_interactions: of now.
        left_out: interactions of now's file that are not used, by reason.
    """
    changed = [measure for measure in found if measure.level in (SOME, LARGE) and measure.value is not None]
    changed.sort(key=lambda measure: -(measure.value or 0.0) / LIMITS[measure.name][1])
    much = [measure for measure in changed if measure.level == LARGE]
    lines = []
    if changed:
        named = ", ".join(f"{measure.words} ({measure.value:.2f})" for measure in changed[:3])
        lines.append(f"What has changed most: {named}.")
    if much:
        lines.append("Train again: " + ", ".join(measure.words for measure in much) + " changed much.")
    elif changed:
        lines.append("Watch it: something has changed, but nothing much; the next training can wait for its turn.")
    else:
        lines.append("Nothing has changed beyond chance and the limits: no reason to train again.")
    if new_languages:
        lines.append(f"Languages that training did not have: {', '.join(new_languages)}.")
    if left_out:
        told = ", ".join(f"{n:,} {reason}" for reason, n in left_out.items())
        lines.append(f"Of the rows in the file of now, some are not used: {told}.")
    if n_interactions < 1000:
        lines.append(f"These are {n_interactions:,} interactions: few enough that real changes may not show.")
    return lines
