"""The figures of a data card, computed from a dataset's split and texts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import cached_property
from itertools import pairwise

import numpy as np
import polars as pl

from recbole_xling.card.catalog import CatalogTexts
from recbole_xling.card.dataset import CardDataset
from recbole_xling.card.schema import (
    Checks,
    Distributions,
    Language,
    Mixing,
    PartStats,
    Quantiles,
    SharedText,
    Size,
    Splits,
    SplitStats,
    TextLanguage,
    Texts,
    Time,
    TopItem,
    UserLanguages,
)
from recbole_xling.card.split import IntArray, Split
from recbole_xling.convert.writing.times import UNITS, UNIX_SECONDS
from recbole_xling.evaluator.slices import popularity_bands
from recbole_xling.language.identification import MIN_CONFIDENCE, count_confidence
from recbole_xling.language.tags import UNDETERMINED
from recbole_xling.language.users import Readers
from recbole_xling.text.record import DISPLAY, PARALLEL

TOP_ITEMS = 10
MOST_SHARED = 5
PERIODS = 60
_POPULARITY_POINTS = 200
_LENGTHS = (1, 2, 3, 5, 10, 20, 50, 100, 200, 500, 1000)
_KINDS = (DISPLAY, PARALLEL, "translation")


# ---- interactions ---------------------------------------------------------------------------------------------


def describe_size(split: Split, idle_users: int) -> Size:
    """Count users, items and interactions."""
    counts = np.sort(split.item_counts[split.item_counts > 0])[::-1]
    n_users, n_items = len(split.length), len(counts)
    return Size(
        users=n_users,
        items=n_items,
        interactions=len(split),
        density=split.n_pairs / (n_users * n_items),
        idle_users=idle_users,
        idle_items=split.n_items - n_items,
        top_fifth=float(counts[: -(-n_items // 5)].sum() / len(split)),
        per_user=Quantiles.of(split.length),
        per_item=Quantiles.of(counts),
    )


def top_items(split: Split, texts: CatalogTexts) -> tuple[TopItem, ...]:
    """Return the items with most interactions; ties go to the id."""
    counts = pl.DataFrame({"id": texts.item_ids, "count": split.item_counts}).with_row_index("item")
    best = counts.filter(pl.col("count") > 0).sort(["count", "id"], descending=[True, False]).head(TOP_ITEMS)
    return tuple(
        TopItem(item_id, texts.languages[item], count, texts.excerpt(item)) for item, item_id, count in best.iter_rows()
    )


def describe_time(split: Split) -> Time | None:
    """Return the range of times, None if the dataset has none."""
    if split.times is None:
        return None
    first, last = float(split.times.min()), float(split.times.max())
    scale = time_scale(first, last)
    if scale is None:
        return Time(first, last, None, None)
    dates = (datetime.fromtimestamp(time / scale, timezone.utc).isoformat(timespec="seconds") for time in (first, last))
    return Time(first, last, *dates)


def time_scale(first: float, last: float) -> float | None:
    """Return how many units make a second if times look like Unix times in seconds to nanoseconds, else None."""
    for scale in UNITS:
        if UNIX_SECONDS[0] <= first / scale and last / scale <= UNIX_SECONDS[1]:
            return scale
    return None


def describe_checks(split: Split, dataset: CardDataset) -> Checks:
    """Count what is odd in the interactions and in the files."""
    rows = dataset.file_rows["inter"]
    in_a_row = (split.items[1:] == split.items[:-1]) & (split.users[1:] == split.users[:-1])
    is_unordered = split.length > 1
    if split.times is not None:
        start = np.cumsum(split.length) - split.length
        lowest, highest = (bound.reduceat(split.times, start) for bound in (np.minimum, np.maximum))
        is_unordered &= lowest == highest
    return Checks(
        rows_read=rows.read,
        rows_dropped={reason: count for reason, count in rows.dropped.items() if count},
        missing_ids=dataset.missing_ids,
        unknown_item_interactions=dataset.unknown_items,
        unknown_users=dataset.unknown_users,
        repeats=len(split) - split.n_pairs,
        repeats_in_a_row=int(in_a_row.sum()),
        duplicate_rows=dataset.duplicate_rows,
        missing_times=dataset.missing_times,
        unordered_users=int(is_unordered.sum()),
        repeated_targets=split.repeated_targets(),
        tied_targets=split.tied_targets(),
        arbitrary_order=dataset.has_arbitrary_order(),
    )


def describe_distributions(split: Split) -> Distributions:
    """Return the points of the plots."""
    counts = np.sort(split.item_counts[split.item_counts > 0])[::-1]
    ranks = np.unique(np.geomspace(1, len(counts), _POPULARITY_POINTS).round().astype(np.int64))
    users, _ = np.histogram(split.length, bins=[*_LENGTHS, np.inf])
    names = [str(a) if b == a + 1 else f"{a}-{b - 1}" for a, b in pairwise(_LENGTHS)]
    lengths = list(zip([*names, f"{_LENGTHS[-1]}+"], users.tolist(), strict=True))
    while len(lengths) > 1 and not lengths[-1][1]:
        lengths.pop()
    timeline: tuple[tuple[float, int], ...] = ()
    if split.times is not None and split.times.min() < split.times.max():
        periods, edges = np.histogram(split.times, bins=PERIODS)
        timeline = tuple(zip(edges[:-1].tolist(), periods.tolist(), strict=True))
    return Distributions(
        popularity=tuple(zip(ranks.tolist(), counts[ranks - 1].tolist(), strict=True)),
        history_lengths=tuple(lengths),
        timeline=timeline,
    )


# ---- texts ----------------------------------------------------------------------------------------------------


def describe_texts(texts: CatalogTexts, split: Split) -> Texts:
    """Describe the texts of a catalog."""
    shown = texts.rows.filter(pl.col("kind") == DISPLAY)
    groups = (
        shown.group_by("content", maintain_order=True)
        .agg(pl.len().alias("items"), pl.col("item").first())
        .filter(pl.col("items") > 1)
        .sort("items", descending=True, maintain_order=True)
    )
    most_shared = groups.head(MOST_SHARED).select("item", "items").iter_rows()
    languages = []
    for (language,), of_language in texts.rows.group_by("language"):
        items = {kind: of_language.filter(pl.col("kind") == kind)["item"].n_unique() for kind in _KINDS}
        lengths = of_language.filter(pl.col("kind") == DISPLAY)["characters"].to_numpy()
        found = TextLanguage(
            language=str(language),
            display=items[DISPLAY],
            parallel=items[PARALLEL],
            translation=items["translation"],
            items=of_language["item"].n_unique(),
            characters=Quantiles.of(lengths),
        )
        languages.append(((-len(lengths), -of_language.height, found.language), found))
    return Texts(
        languages=tuple(found for _, found in sorted(languages, key=lambda ranked: ranked[0])),
        items=len(texts.item_ids),
        without_text=int((~texts.has_text).sum()),
        interactions_without_text=int(split.item_counts[~texts.has_text].sum()),
        test_without_text=int((~texts.has_text[split.items[split.test]]).sum()),
        unknown_language=shown.filter(pl.col("language") == UNDETERMINED).height,
        confidence=count_confidence(shown["confidence"].drop_nulls()),
        unsure_language=int((shown["confidence"] < MIN_CONFIDENCE).sum()),
        fields=dict(texts.fields.most_common()),
        sharing=int(groups["items"].sum()),
        shared=groups.height,
        most_shared=tuple(SharedText(texts.excerpt(item), texts.languages[item], items) for item, items in most_shared),
        unknown_items=texts.unknown_items,
    )


# ---- languages ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class LanguageCodes:
    """Languages as numbers: places in :attr:`names`, the most met one first, ``und`` last.

    Attributes:
        split: the interactions.
        readers: of the users and items of the split.
    """

    split: Split
    readers: Readers

    @cached_property
    def _seen(self) -> IntArray:
        return self.readers.seen(self.split.users, self.split.items)

    @cached_property
    def profiles(self) -> pl.DataFrame:
        """Users with an interaction of known language, the test targets aside, and who is bilingual."""
        known = self.split.known
        return self.readers.profiles(self.split.users[known], self.split.items[known])

    @cached_property
    def _user_languages(self) -> list[str]:
        known = self.split.known
        return self.readers.languages(self.split.users[known], self.split.items[known])

    @cached_property
    def names(self) -> tuple[str, ...]:
        """All languages of items and users; ``und`` only if it occurs."""
        counts = np.bincount(self._seen, minlength=len(self.readers.names)).tolist()
        met = dict.fromkeys([*self.readers.displayed, *self._user_languages], 0)
        met |= {name: count for name, count in zip(self.readers.names, counts, strict=True) if count or name in met}
        return tuple(sorted(met, key=lambda name: (name == UNDETERMINED, -met[name], name)))

    @cached_property
    def unknown(self) -> int:
        """The number of ``und``, -1 if it does not occur."""
        return self.names.index(UNDETERMINED) if UNDETERMINED in self.names else -1

    def _numbers(self, languages: Sequence[str]) -> IntArray:
        code = {name: number for number, name in enumerate(self.names)}
        return np.array([code.get(language, self.unknown) for language in languages], dtype=np.int64)

    @cached_property
    def of_items(self) -> IntArray:
        """Language of each item's display text, ``(n_items,)``."""
        return self._numbers(self.readers.displayed)

    @cached_property
    def of_interactions(self) -> IntArray:
        """Language in which the user of each interaction sees its item, ``(n,)``."""
        return self._numbers(self.readers.names)[self._seen]

    @cached_property
    def of_users(self) -> IntArray:
        """Language of each user, ``(n_users,)``."""
        return self._numbers(self._user_languages)

    def count(self, codes: IntArray) -> list[int]:
        """Return how often each language is among these numbers."""
        return np.bincount(codes, minlength=len(self.names)).tolist()

    def count_items(self, positions: IntArray) -> list[int]:
        """Return how many different items are seen in each language in these interactions."""
        pairs = np.unique(self.split.items[positions] * len(self.names) + self.of_interactions[positions])
        return self.count(pairs % len(self.names))


def describe_languages(codes: LanguageCodes) -> tuple[Language, ...]:
    """Return one row per language."""
    columns = (codes.count(codes.of_items), codes.count(codes.of_users), codes.count(codes.of_interactions))
    return tuple(Language(*row) for row in zip(codes.names, *columns, strict=True))


def describe_readers(codes: LanguageCodes, text_view: str) -> UserLanguages:
    """Tell where the languages of users come from."""
    stated = sum(language != UNDETERMINED for language in codes.readers.stated)
    unknown = int((codes.of_users == codes.unknown).sum())
    return UserLanguages(text_view, stated, len(codes.of_users) - stated - unknown, unknown)


def describe_mixing(codes: LanguageCodes) -> Mixing:
    """Cross the languages of tested users with those in which they see their test targets."""
    split, n = codes.split, len(codes.names)
    users, targets = codes.of_users[split.users[split.test]], codes.of_interactions[split.test]
    matrix = np.bincount(users * n + targets, minlength=n * n).reshape(n, n)
    both = (users != codes.unknown) & (targets != codes.unknown)
    same = int((both & (users == targets)).sum())
    return Mixing(
        languages=codes.names,
        targets=tuple(tuple(row) for row in matrix.tolist()),
        cross_language=int(both.sum()) - same,
        same_language=same,
        bilingual_users=int(codes.profiles["is_bilingual"].sum()),
        users=int((codes.of_users != codes.unknown).sum()),
    )


def describe_splits(codes: LanguageCodes) -> Splits:
    """Describe the parts of a split."""
    split = codes.split
    bands = np.array(popularity_bands(split.train_counts))
    found = Counter(bands[split.items[split.test]].tolist())
    return Splits(
        setting=split.setting,
        train=_part(codes, split.train),
        valid=_part(codes, split.valid),
        test=_part(codes, split.test),
        untested_users=len(split.length) - len(np.unique(split.users[split.test])),
        untrained_items=int((split.train_counts == 0).sum()),
        popularity={band: found[band] for band in ("popular", "medium", "rare", "cold")},
    )


def _part(codes: LanguageCodes, positions: IntArray) -> PartStats:
    split = codes.split
    users = np.unique(split.users[positions])
    cold = positions[split.train_counts[split.items[positions]] == 0]
    columns = (
        codes.count(codes.of_users[users]),
        codes.count_items(positions),
        codes.count(codes.of_interactions[positions]),
        codes.count(codes.of_interactions[cold]),
        codes.count_items(cold),
    )
    rows = zip(codes.names, *columns, strict=True)
    languages = {name: SplitStats(*counts) for name, *counts in rows if any(counts)}
    n_items, n_cold_items = (len(np.unique(split.items[chosen])) for chosen in (positions, cold))  # each once
    return PartStats(len(users), n_items, len(positions), len(cold), n_cold_items, languages=languages)
