"""Results per language, per kind of user and item: a table of per-user values, then group-bys."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recbole_xling.evaluator.collector import EvaluatedRows
from recbole_xling.language.tags import UNDETERMINED
from recbole_xling.language.users import user_languages

IntArray = NDArray[np.int64]

MIXED = "mixed"
"""Language of a row whose targets are in several languages."""

RARE_UP_TO = 5
POPULAR_SHARE = 0.2
WORST_LANGUAGE_MIN = 10
"""Fewest targets a language needs to be named the worst, if any language has as many."""

_LANGUAGE_FREE = (MIXED, UNDETERMINED)


@dataclass(frozen=True)
class EvalContext:
    """What slices need to know of users and items; arrays are indexed by RecBole's internal ids.

    Attributes:
        user_tokens, item_tokens: external ids.
        item_languages: language of each item's text.
        train_counts: occurrences of each item in training, ``(n_items,)``.
        known_users, known_items: users and items of all interactions that are not test targets,
            ``(n_known,)`` each; users' main languages come from these.
    """

    user_tokens: Sequence[str]
    item_tokens: Sequence[str]
    item_languages: Sequence[str]
    train_counts: IntArray
    known_users: IntArray
    known_items: IntArray


def remaining_pairs(users: IntArray, items: IntArray, held_out: Sequence[EvaluatedRows]) -> tuple[IntArray, IntArray]:
    """Return the interactions that are left when the held-out targets are taken away, one occurrence each."""
    width = int(items.max(initial=0)) + 1
    gone: dict[int, int] = {}
    for rows in held_out:
        width = max(width, int(rows.targets.max(initial=0)) + 1)
    for rows in held_out:
        keys, counts = np.unique(rows.users[rows.row_of_target] * width + rows.targets, return_counts=True)
        for key, count in zip(keys.tolist(), counts.tolist(), strict=True):
            gone[key] = gone.get(key, 0) + count
    key = users * width + items
    order = np.argsort(key, kind="stable")
    distinct, begins = np.unique(key[order], return_index=True)
    occurrence = np.arange(len(key)) - np.repeat(begins, np.diff(np.append(begins, len(key))))
    limit = np.array([gone.get(k, 0) for k in distinct.tolist()], dtype=np.int64)
    keep = order[occurrence >= np.repeat(limit, np.diff(np.append(begins, len(key))))]
    return users[keep], items[keep]


def main_languages(population: EvalContext) -> list[str]:
    """Return each user's main language: the most frequent one of the items known of them; ties go to the alphabet."""
    known = population.known_users, population.known_items
    return user_languages(population.item_languages, *known, len(population.user_tokens))


def popularity_bands(train_counts: IntArray) -> list[str]:
    """Name each item's band: ``cold`` (never trained), ``rare`` (1 to 5 times), ``popular`` (top fifth), ``medium``."""
    trained = np.sort(train_counts[train_counts > 0])[::-1]
    place = int(len(trained) * POPULAR_SHARE)
    threshold = max(RARE_UP_TO + 1, int(trained[place]) if len(trained) else 0)
    bands = np.where(train_counts >= threshold, "popular", "medium")
    bands = np.where(train_counts <= RARE_UP_TO, "rare", bands)
    return np.where(train_counts == 0, "cold", bands).tolist()


def user_table(
    rows: EvaluatedRows, per_user: Mapping[str, NDArray[np.float64]], population: EvalContext
) -> pl.DataFrame:
    """Return one line per evaluated row: who, what was to be found, its language and popularity, and the metrics.

    A row with several targets (ratio splits of non-sequential models) lists them separated by spaces; where they
    differ in language or popularity, that column says ``mixed``.
    """
    bands, user_language = popularity_bands(population.train_counts), main_languages(population)
    ends = np.cumsum(rows.n_targets)
    targets = [rows.targets[end - n : end].tolist() for end, n in zip(ends, rows.n_targets, strict=True)]
    target_language = [_common(population.item_languages[item] for item in items) for items in targets]
    mine = [user_language[user] for user in rows.users]
    return pl.DataFrame(
        {
            "user_id": [str(population.user_tokens[user]) for user in rows.users],
            "target_item": [" ".join(str(population.item_tokens[item]) for item in items) for items in targets],
            "n_targets": rows.n_targets,
            "target_language": target_language,
            "user_language": mine,
            "cross_language": [_crosses(a, b) for a, b in zip(mine, target_language, strict=True)],
            "popularity": [_common(bands[item] for item in items) for items in targets],
            **per_user,
        }
    )


def _common(values: Any) -> str:
    distinct = set(values)
    return distinct.pop() if len(distinct) == 1 else MIXED


def _crosses(user: str, target: str) -> str | None:
    if user in _LANGUAGE_FREE or target in _LANGUAGE_FREE:
        return None
    return "no" if user == target else "yes"


def slice_results(table: pl.DataFrame, metrics: Sequence[str], worst_by: str) -> dict[str, dict[str, Any]]:
    """Return ``{"target_language=fr": {"n": 57, "ndcg@10": ...}, ...}`` for every slice that has a row.

    Beside the columns' values there are ``language_macro`` (the mean over target languages, each counting once) and
    ``language_worst`` (the target language with the lowest ``worst_by``).
    """
    found: dict[str, dict[str, Any]] = {}
    for column in ("target_language", "user_language", "cross_language", "popularity"):
        for value, part in sorted(table.drop_nulls(column).group_by(column), key=lambda item: str(item[0][0])):
            found[f"{column}={value[0]}"] = {"n": part.height, **_means(part, metrics)}
    languages = {
        name.partition("=")[2]: values
        for name, values in found.items()
        if name.startswith("target_language=") and name.partition("=")[2] not in _LANGUAGE_FREE
    }
    if languages:
        macro = {metric: float(np.mean([values[metric] for values in languages.values()])) for metric in metrics}
        found["language_macro"] = {"n": len(languages), **macro}
        large = {name: values for name, values in languages.items() if values["n"] >= WORST_LANGUAGE_MIN}
        candidates = large or languages
        worst = min(sorted(candidates), key=lambda name: candidates[name][worst_by])
        found["language_worst"] = {"language": worst, **candidates[worst]}
    return found


def _means(part: pl.DataFrame, metrics: Sequence[str]) -> dict[str, float]:
    return {metric: float(part[metric].to_numpy().mean()) for metric in metrics}
