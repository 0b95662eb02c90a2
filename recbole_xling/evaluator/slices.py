"""Results per language and per popularity: a table of values per user, then group-bys."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
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
"""Language, or popularity, of a row whose targets differ in it."""

RARE_UP_TO = 5
POPULAR_SHARE = 0.2
WORST_LANGUAGE_MIN = 10
"""Fewest targets that the worst language needs, if any language has that many."""

_LANGUAGE_FREE = (MIXED, UNDETERMINED)


@dataclass(frozen=True)
class EvalContext:
    """What slices need to know about users and items; arrays are indexed by RecBole's internal ids.

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
    """Return the interactions without the held-out targets, of which each takes away one occurrence."""
    # RecBole's datasets do not tell which row of the whole table a target came from. So pairs are counted: of an item
    # that a user met three times, once as a target, two interactions remain, no matter which.
    width = max(int(ids.max(initial=0)) for ids in (items, *(rows.targets for rows in held_out))) + 1
    gone: dict[int, int] = {}
    for rows in held_out:
        keys, counts = np.unique(rows.users[rows.row_of_target] * width + rows.targets, return_counts=True)
        for key, count in zip(keys.tolist(), counts.tolist(), strict=True):
            gone[key] = gone.get(key, 0) + count
    pair = users * width + items  # (n,)
    order = np.argsort(pair, kind="stable")
    distinct, begins = np.unique(pair[order], return_index=True)
    repeats = np.diff(np.append(begins, len(pair)))
    occurrence = np.arange(len(pair)) - np.repeat(begins, repeats)
    limit = np.array([gone.get(key, 0) for key in distinct.tolist()], dtype=np.int64)
    keep = order[occurrence >= np.repeat(limit, repeats)]
    return users[keep], items[keep]


def main_languages(context: EvalContext) -> list[str]:
    """Return each user's main language: the most frequent one of the user's known items; ties go to the alphabet."""
    known = context.known_users, context.known_items
    return user_languages(context.item_languages, *known, len(context.user_tokens))


def popularity_bands(train_counts: IntArray) -> list[str]:
    """Return each item's band: ``cold`` (untrained), ``rare`` (1 to 5 times), ``popular`` (top fifth) or ``medium``."""
    trained = np.sort(train_counts[train_counts > 0])[::-1]
    place = int(len(trained) * POPULAR_SHARE)
    threshold = max(RARE_UP_TO + 1, int(trained[place]) if len(trained) else 0)
    bands = np.where(train_counts >= threshold, "popular", "medium")
    bands = np.where(train_counts <= RARE_UP_TO, "rare", bands)
    return np.where(train_counts == 0, "cold", bands).tolist()


def user_table(rows: EvaluatedRows, per_user: Mapping[str, NDArray[np.float64]], context: EvalContext) -> pl.DataFrame:
    """Return one line per evaluated row: the user, the targets, their language and popularity, and the metrics.

    A row with several targets (ratio splits of non-sequential models) lists them separated by spaces. If they differ
    in language or popularity, that column is ``mixed``.
    """
    bands, user_language = popularity_bands(context.train_counts), main_languages(context)
    ends = np.cumsum(rows.n_targets)
    targets = [rows.targets[end - n : end].tolist() for end, n in zip(ends, rows.n_targets, strict=True)]
    of_targets = [_common(context.item_languages[item] for item in items) for items in targets]
    of_users = [user_language[user] for user in rows.users]
    crosses = [
        None if user in _LANGUAGE_FREE or target in _LANGUAGE_FREE else "no" if user == target else "yes"
        for user, target in zip(of_users, of_targets, strict=True)
    ]
    return pl.DataFrame(
        {
            "user_id": [str(context.user_tokens[user]) for user in rows.users],
            "target_item": [" ".join(str(context.item_tokens[item]) for item in items) for items in targets],
            "n_targets": rows.n_targets,
            "target_language": of_targets,
            "user_language": of_users,
            "cross_language": crosses,
            "popularity": [_common(bands[item] for item in items) for items in targets],
            **per_user,
        }
    )


def _common(values: Iterable[str]) -> str:
    """Return the one value that all have, ``mixed`` if they differ."""
    distinct = set(values)
    return distinct.pop() if len(distinct) == 1 else MIXED


def slice_results(table: pl.DataFrame, metrics: Sequence[str], worst_by: str) -> dict[str, dict[str, Any]]:
    """Return ``{"target_language=fr": {"n": 57, "ndcg@10": ...}, ...}`` for every slice that has a row.

    Two more entries summarize the target languages: ``language_macro`` (the mean over them, each counting once) and
    ``language_worst`` (the one with the lowest ``worst_by``).
    """
    found: dict[str, dict[str, Any]] = {}
    for column in ("target_language", "user_language", "cross_language", "popularity"):
        for value, part in sorted(table.drop_nulls(column).group_by(column), key=lambda item: str(item[0][0])):
            means = {metric: float(part[metric].to_numpy().mean()) for metric in metrics}
            found[f"{column}={value[0]}"] = {"n": part.height, **means}
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
