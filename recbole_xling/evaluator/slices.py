"""Results per language and per popularity: a table of values per user, then group-bys."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha256
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recbole_xling.data.columns import MIXED, SliceColumn
from recbole_xling.data.splits.settings import LanguageTransfer, read_split
from recbole_xling.evaluator.collector import EvaluatedRows
from recbole_xling.evaluator.measure import Measure, Measured, difference, mean_over
from recbole_xling.language.tags import UNDETERMINED
from recbole_xling.language.users import Readers
from recbole_xling.text.record import DISPLAY

IntArray = NDArray[np.int64]

RARE_UP_TO = 5
POPULAR_SHARE = 0.2
LANGUAGE_MIN = 10
"""Fewest test rows of a language that counts in the mean over languages and as the worst, if any has that many."""

MACRO, WORST = "macro", "worst"
"""How the values of all languages become one, as in ``NDCG_macro@10``."""

COLUMNS = ("target_language", "user_language", "cross_language", "bilingual", "popularity")
"""Columns of a table of rows by which all results are sliced."""

LANGUAGE_PAIR = "language_pair"

_LANGUAGE_FREE = (MIXED, UNDETERMINED)


@dataclass(frozen=True)
class EvalContext:
    """What slices need to know about users and items; arrays are indexed by RecBole's internal ids.

    Attributes:
        user_tokens, item_tokens: external ids.
        readers: users' languages as far as they are stated, and the languages in which they see items.
        train_counts: occurrences of each item in training, ``(n_items,)``.
        known_users, known_items: users and items of all interactions that the split uses and that are no test targets,
            ``(n_known,)`` each; the languages of users who state none come from these.
        text_view: ``text_view`` of the run, ``auto`` resolved.
        columns: further columns to slice by, by name.
        stated_bilingual: ``yes`` or ``no`` for users of whom the ``.user`` file says whether they are bilingual, by
            external id.
        absent_items: items that training had and the files do not, which are not ranked.
    """

    user_tokens: Sequence[str]
    item_tokens: Sequence[str]
    readers: Readers
    train_counts: IntArray
    known_users: IntArray
    known_items: IntArray
    text_view: str = DISPLAY
    columns: Mapping[str, SliceColumn] = field(default_factory=dict)
    stated_bilingual: Mapping[str, str] = field(default_factory=dict)
    absent_items: Sequence[int] | IntArray = ()

    @cached_property
    def user_languages(self) -> list[str]:
        """Each user's language, ``und`` where it is not known, ``(n_users,)``."""
        return self.readers.languages(self.known_users, self.known_items)

    @cached_property
    def bilingual(self) -> list[str | None]:
        """Whether each user is bilingual, ``yes`` or ``no``, None where nothing is known, ``(n_users,)``.

        Where the ``.user`` file does not say it, it is derived from the history
        (:func:`~recbole_xling.language.users.languages_of_users`).
        """
        profiles = self.readers.profiles(self.known_users, self.known_items).select("user", "is_bilingual")
        derived = {user: "yes" if both else "no" for user, both in profiles.iter_rows()}
        return [self.stated_bilingual.get(token, derived.get(user)) for user, token in enumerate(self.user_tokens)]

    @cached_property
    def ranked_items(self) -> dict[str, Any]:
        """How many items there are to rank, and a hash of their ids: results over others are not comparable."""
        left_out = {0, *map(int, self.absent_items)}  # the first one is padding
        tokens = sorted(token for item, token in enumerate(self.item_tokens) if item not in left_out)
        return {"number": len(tokens), "sha256": sha256("\n".join(tokens).encode("utf-8", "surrogatepass")).hexdigest()}

    def reader_summary(self, users: IntArray) -> dict[str, Any]:
        """Return the text view, and how many of some users state their language, have a derived one, or none."""
        distinct = np.unique(users).tolist()
        stated = sum(self.readers.stated[user] != UNDETERMINED for user in distinct)
        unknown = sum(self.user_languages[user] == UNDETERMINED for user in distinct)
        derived = len(distinct) - stated - unknown
        return {"text_view": self.text_view, "stated": stated, "derived": derived, "unknown": unknown}


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


def popularity_bands(train_counts: IntArray) -> list[str]:
    """Return each item's band: ``cold`` (untrained), ``rare`` (1 to 5 times), ``popular`` (top fifth) or ``medium``."""
    trained = np.sort(train_counts[train_counts > 0])[::-1]
    n_popular = math.ceil(len(trained) * POPULAR_SHARE)  # and those that occur as often as the last of them
    threshold = max(RARE_UP_TO + 1, int(trained[n_popular - 1]) if len(trained) else 0)
    bands = np.where(train_counts >= threshold, "popular", "medium")
    bands = np.where(train_counts <= RARE_UP_TO, "rare", bands)
    return np.where(train_counts == 0, "cold", bands).tolist()


def user_table(rows: EvaluatedRows, per_user: Mapping[str, NDArray[np.float64]], context: EvalContext) -> pl.DataFrame:
    """Return one line per evaluated row: the user, the targets, their language and popularity, and the metrics.

    The language of a target is the one in which its user sees it. A row with several targets (ratio splits of
    non-sequential models) lists them separated by spaces. If they differ in language or popularity, that column is
    ``mixed``.
    """
    bands, names = popularity_bands(context.train_counts), context.readers.names
    ends = np.cumsum(rows.n_targets)
    targets = [rows.targets[end - n : end].tolist() for end, n in zip(ends, rows.n_targets, strict=True)]
    seen = context.readers.seen(rows.users[rows.row_of_target], rows.targets)  # (n_targets,)
    of_targets = [
        _common(names[language] for language in seen[end - n : end])
        for end, n in zip(ends, rows.n_targets, strict=True)
    ]
    of_users = [context.user_languages[user] for user in rows.users]
    crosses = [
        None if user in _LANGUAGE_FREE or target in _LANGUAGE_FREE else "no" if user == target else "yes"
        for user, target in zip(of_users, of_targets, strict=True)
    ]
    more = {
        name: pl.Series([column.value(ids) for ids in owners], dtype=column.dtype)
        for name, column in context.columns.items()
        for owners in ([[user] for user in rows.users] if column.of == "user" else targets,)
    }
    return pl.DataFrame(
        {
            "user_id": [str(context.user_tokens[user]) for user in rows.users],
            "target_item": [" ".join(str(context.item_tokens[item]) for item in items) for items in targets],
            "n_targets": rows.n_targets,
            "target_language": of_targets,
            "user_language": of_users,
            "cross_language": pl.Series(crosses, dtype=pl.String),
            "bilingual": pl.Series([context.bilingual[user] for user in rows.users], dtype=pl.String),
            "popularity": [_common(bands[item] for item in items) for items in targets],
            **more,
            **per_user,
        }
    )


def _common(values: Iterable[str]) -> str:
    """Return the one value that all have, ``mixed`` if they differ."""
    distinct = set(values)
    return distinct.pop() if len(distinct) == 1 else MIXED


ROW_KEY = ("user_id", "target_item", "nth")
"""Columns that tell the rows of a :func:`user_table` apart: a user can have the same target twice."""


def with_row_keys(table: pl.DataFrame) -> pl.DataFrame:
    """Return rows with the column ``nth``: which one each is of those with its user and target."""
    return table.with_columns(pl.int_range(pl.len()).over("user_id", "target_item").alias("nth"))


def row_difference(part: str, rows: Mapping[str, pl.DataFrame]) -> str:
    """Say where the rows of two runs differ.

    Args:
        part: ``test`` or ``validation``.
        rows: with the columns of :data:`ROW_KEY`, by the folder of each run.
    """
    (one, of_one), (other, of_other) = rows.items()
    lines = []
    for folder, own, than in ((one, of_one, of_other), (other, of_other, of_one)):
        only = own.join(than, on=ROW_KEY, how="anti")
        user, target = only.select("user_id", "target_item").row(0) if len(only) else ("", "")
        example = f", such as user '{user}' with target '{target:.60}'" if len(only) else ""
        lines.append(f"{len(only)} of {len(own)} only in '{folder}'{example}")
    return f"the {part} rows of the runs differ: {'; '.join(lines)}"


def slice_values(table: pl.DataFrame, column: str) -> Iterable[tuple[str, pl.DataFrame]]:
    """Yield the values of a column with their rows, sorted; a row with a list of values belongs to each of them."""
    if table.schema[column] == pl.List(pl.String):
        table = table.explode(column)
    for (value,), part in sorted(table.drop_nulls(column).group_by(column), key=lambda group: str(group[0][0])):
        yield str(value), part


def mark_transfer(slices: Mapping[str, dict[str, Any]], split: Any) -> None:
    """Add to the slices of languages what they are in a split by language, as ``transfer``.

    Args:
        slices: of :func:`slice_results`.
        split: ``eval_args.split``; one of another kind changes nothing.
    """
    setting = read_split(split)
    if isinstance(setting, LanguageTransfer):
        column = {"user": "user_language", "item": "target_language"}.get(setting.by, setting.by)
        for name, values in slices.items():
            of, _, language = name.partition("=")
            if of == column and (transfer := setting.transfer_of(language)):
                values["transfer"] = transfer


def mean_of(metric: str, table: pl.DataFrame) -> float:
    """Return the mean of a column."""
    return float(table[metric].to_numpy().mean())


def slice_rows(table: pl.DataFrame, columns: Iterable[str]) -> dict[str, IntArray]:
    """Return the numbers of the rows of each slice, ``{"target_language=fr": ..., ...}``."""
    numbered = table.with_row_index("number")
    return {
        f"{column}={value}": part["number"].to_numpy().astype(np.int64)
        for column in columns
        for value, part in slice_values(numbered, column)
    }


def with_language_pairs(table: pl.DataFrame) -> pl.DataFrame:
    """Return rows with the column ``language_pair``, such as ``de>fr``: null where a language is not known."""
    pair = pl.concat_str("user_language", "target_language", separator=">")
    return table.with_columns(pl.when(pl.col("cross_language").is_not_null()).then(pair).alias(LANGUAGE_PAIR))


def counted_languages(slices: Mapping[str, IntArray]) -> list[str]:
    """Return which of the slices, as :func:`slice_rows` returns them, ``language_macro`` is the mean of."""
    sizes = {name: len(rows) for name, rows in slices.items() if name.startswith("target_language=")}
    sizes = {name: n for name, n in sizes.items() if name.partition("=")[2] not in _LANGUAGE_FREE}
    return [name for name, n in sizes.items() if n >= LANGUAGE_MIN] or list(sizes)


def slice_results(
    table: pl.DataFrame,
    measure: Measure,
    worst_by: str,
    columns: Iterable[str] = (),
    *,
    lower_is_better: bool = False,
) -> dict[str, dict[str, Any]]:
    """Return ``{"target_language=fr": {"n": 57, "ndcg@10": ..., "intervals": ...}, ...}`` for every slice with a row.

    Further entries:

    - ``language_macro`` and ``language_worst`` summarize the target languages with at least :data:`LANGUAGE_MIN` rows,
      or all if none has that many: the mean over them, each counting once, and the one with the worst ``worst_by``.
    - ``language_gap`` is the result of cross-language rows minus that of same-language rows, and ``language_gap=fr``
      the same for the rows of readers of a language.

    Args:
        table: as :func:`user_table` returns it.
        measure: of the rows of the table.
        worst_by: one of its metrics.
        columns: further columns to slice by.
        lower_is_better: whether the worst language is the one with the highest ``worst_by``.
    """
    table = with_language_pairs(table)
    found: dict[str, dict[str, Any]] = {}
    languages: dict[str, Measured] = {}
    slices = slice_rows(table, (*COLUMNS, LANGUAGE_PAIR, *columns))
    counted = counted_languages(slices)
    for name, rows in slices.items():
        measured = measure(rows)
        found[name] = {"n": len(rows), **measure.entry(measured)}
        if name in counted:
            languages[name] = measured
    if languages:
        found["language_macro"] = {"n": len(languages), **measure.entry(mean_over(list(languages.values())))}
        candidates = {name: found[name] for name in languages if worst_by in found[name]}
        if candidates:
            sign = -1 if lower_is_better else 1
            worst = min(sorted(candidates), key=lambda name: sign * candidates[name][worst_by])
            found["language_worst"] = {"language": worst.partition("=")[2], **candidates[worst]}
    return found | _gaps(table, measure)


def _gaps(table: pl.DataFrame, measure: Measure) -> dict[str, dict[str, Any]]:
    """Return the gap between rows that cross languages and those that do not, in all and by the reader's language."""
    groups = {"language_gap": np.arange(table.height)}
    for name, rows in slice_rows(table, ["user_language"]).items():
        groups[name.replace("user_language", "language_gap", 1)] = rows
    crosses, found = table["cross_language"].to_numpy(), {}
    for name, rows in groups.items():
        cross, same = (rows[crosses[rows] == value] for value in ("yes", "no"))
        if len(cross) and len(same):
            # In a resample users come with all their rows, of both kinds: where the two sides have users in common
            # the difference is paired, elsewhere it is not.
            sides = {"n": len(cross) + len(same), "n_cross": len(cross), "n_same": len(same)}
            found[name] = {**sides, **measure.entry(difference(measure(cross), measure(same)))}
    return found


def metric_of_rows(name: str) -> str:
    """Return the metric of which each row has a value: ``ndcg@10`` for ``NDCG_macro@10`` and ``NDCG_worst@10``."""
    metric, at, k = name.lower().partition("@")
    return metric.partition("_")[0] + at + k


def over_languages(kind: str, values: NDArray[np.float64], rows: EvaluatedRows, readers: Readers) -> float | None:
    """Return a metric's mean over target languages, or its value in the worst one, as :func:`slice_results` does.

    Args:
        kind: ``macro`` or ``worst``.
        values: of the metric for each row, ``(n_rows,)``.
        rows: the rows; those whose targets differ in language do not count.
        readers: in which language users see items.

    Returns:
        The value; None if no row has a language.
    """
    seen = readers.seen(rows.users[rows.row_of_target], rows.targets)  # (n_targets,)
    starts = np.cumsum(rows.n_targets) - rows.n_targets
    first = np.minimum.reduceat(seen, starts)  # (n_rows,)
    known = np.array([name != UNDETERMINED for name in readers.names])
    counted = (first == np.maximum.reduceat(seen, starts)) & known[first]
    n = np.bincount(first[counted], minlength=len(known))
    sums = np.bincount(first[counted], weights=values[counted], minlength=len(known))
    if not counted.any():
        return None
    languages = n >= (LANGUAGE_MIN if n.max() >= LANGUAGE_MIN else 1)
    means = sums[languages] / n[languages]
    return float(means.mean() if kind == MACRO else means.min())
