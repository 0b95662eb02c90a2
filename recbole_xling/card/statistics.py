"""Languages of items, users and targets; who reads what."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from functools import cached_property
from itertools import pairwise

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recbole_xling.card.catalog import Catalog
from recbole_xling.card.histories import Histories, IntArray
from recbole_xling.card.schema import (
    Checks,
    Distributions,
    Held,
    Language,
    Mixing,
    Part,
    Quantiles,
    SharedText,
    Size,
    Splits,
    TextLanguage,
    Texts,
    Time,
    TopItem,
)
from recbole_xling.card.split import Split
from recbole_xling.evaluator.slices import popularity_bands
from recbole_xling.language.tags import UNDETERMINED
from recbole_xling.language.users import BILINGUAL_MIN, BILINGUAL_SHARE, user_languages
from recbole_xling.text.record import DISPLAY, PARALLEL


def describe_splits(codes: LanguageCodes) -> Splits:
    """Describe the parts of a split."""
    split = codes.split
    bands = np.array(popularity_bands(split.train_counts))
    found = Counter(bands[split.test_items].tolist())
    return Splits(
        setting=split.setting,
        train=_part(codes, split.train),
        valid=_part(codes, split.valid),
        test=_part(codes, split.test),
        untested_users=len(split.histories.user_ids) - len(np.unique(split.test_users)),
        untrained_items=int((split.train_counts == 0).sum()),
        popularity={band: found[band] for band in ("popular", "medium", "rare", "cold")},
    )


def _part(codes: LanguageCodes, positions: IntArray) -> Part:
    histories, is_cold = codes.split.histories, codes.split.train_counts == 0
    of_item = np.bincount(histories.items[positions], minlength=len(is_cold))
    met, of_cold_item = of_item > 0, np.where(is_cold, of_item, 0)
    is_there = np.zeros(len(histories.user_ids), dtype=bool)
    is_there[histories.users[positions]] = True
    columns = (
        codes.count(codes.of_users[is_there]),
        codes.count(codes.of_items[met]),
        codes.count(codes.of_items, of_item),
        codes.count(codes.of_items, of_cold_item),
        codes.count(codes.of_items[met & is_cold]),
    )
    rows = zip(codes.names, *columns, strict=True)
    languages = {name: Held(*counts) for name, *counts in rows if any(counts)}
    return Part(**asdict(Held(*map(sum, columns))), languages=languages)


TOP_ITEMS = 10
PERIODS = 60
_POPULARITY_POINTS = 200
_LENGTHS = (1, 2, 3, 5, 10, 20, 50, 100, 200, 500, 1000)
# between 1985 and 2099
_SECONDS = (473385600.0, 4102444800.0)


def distinct_pairs(histories: Histories) -> int:
    """Return how many different user-item pairs there are."""
    pairs = pl.Series(histories.users).cast(pl.UInt64) * len(histories.item_ids) + pl.Series(histories.items)
    return pairs.n_unique()


def describe_size(histories: Histories, pairs: int, idle_users: int) -> Size:
    """Count users, items and interactions."""
    counts = np.sort(histories.item_counts[histories.item_counts > 0])[::-1]
    n_users, n_items = len(histories.user_ids), len(counts)
    return Size(
        users=n_users,
        items=n_items,
        interactions=len(histories),
        density=pairs / (n_users * n_items),
        idle_users=idle_users,
        idle_items=len(histories.item_ids) - n_items,
        top_fifth=float(counts[: -(-n_items // 5)].sum() / len(histories)),
        per_user=Quantiles.of(histories.length),
        per_item=Quantiles.of(counts),
    )


def top_items(histories: Histories, catalog: Catalog) -> tuple[TopItem, ...]:
    """Return the items with most interactions; ties go to the id."""
    counts = pl.DataFrame({"id": histories.item_ids, "count": histories.item_counts}).with_row_index("item")
    best = counts.filter(pl.col("count") > 0).top_k(TOP_ITEMS, by=["count", "id"], reverse=[False, True])
    best = best.sort(["count", "id"], descending=[True, False])
    return tuple(
        TopItem(item_id, catalog.item_languages[item], count, catalog.excerpt(item))
        for item, item_id, count in best.iter_rows()
    )


def describe_time(histories: Histories) -> Time | None:
    """Return the range of times, None where there are none."""
    if histories.times is None:
        return None
    first, last = float(histories.times.min()), float(histories.times.max())
    scale = time_scale(first, last)
    if scale is None:
        return Time(first, last, None, None)
    dates = (datetime.fromtimestamp(time / scale, timezone.utc).isoformat(timespec="seconds") for time in (first, last))
    return Time(first, last, *dates)


def time_scale(first: float, last: float) -> float | None:
    """Return how many units make a second where times look like Unix seconds or milliseconds, else None."""
    for scale in (1.0, 1000.0):
        if _SECONDS[0] <= first / scale and last / scale <= _SECONDS[1]:
            return scale
    return None


def describe_checks(split: Split, pairs: int, duplicate_rows: int, unknown_users: int) -> Checks:
    """Count what is odd."""
    histories = split.histories
    in_a_row = (histories.items[1:] == histories.items[:-1]) & (histories.users[1:] == histories.users[:-1])
    return Checks(
        missing_ids=histories.missing_ids,
        unknown_item_interactions=histories.unknown_items,
        unknown_users=unknown_users,
        repeats=len(histories) - pairs,
        repeats_in_a_row=int(in_a_row.sum()),
        duplicate_rows=duplicate_rows,
        missing_times=histories.missing_times,
        unordered_users=_unordered_users(histories),
        repeated_targets=split.repeated_targets(),
        tied_targets=split.tied_targets(),
        early_targets=split.early_targets(),
    )


def _unordered_users(histories: Histories) -> int:
    several = histories.length > 1
    if histories.times is None:
        return int(several.sum())
    lowest = np.minimum.reduceat(histories.times, histories.start)
    highest = np.maximum.reduceat(histories.times, histories.start)
    return int((several & (lowest == highest)).sum())


def describe_distributions(histories: Histories) -> Distributions:
    """Return the points of the plots."""
    counts = np.sort(histories.item_counts[histories.item_counts > 0])[::-1]
    ranks = np.unique(np.geomspace(1, len(counts), _POPULARITY_POINTS).round().astype(np.int64))
    users, _ = np.histogram(histories.length, bins=[*_LENGTHS, np.inf])
    names = [str(a) if b == a + 1 else f"{a}-{b - 1}" for a, b in pairwise(_LENGTHS)]
    lengths = list(zip([*names, f"{_LENGTHS[-1]}+"], users.tolist(), strict=True))
    while len(lengths) > 1 and not lengths[-1][1]:
        lengths.pop()
    return Distributions(
        popularity=tuple(zip(ranks.tolist(), counts[ranks - 1].tolist(), strict=True)),
        history_lengths=tuple(lengths),
        timeline=_timeline(histories.times),
    )


def _timeline(times: NDArray[np.float64] | None) -> tuple[tuple[float, int], ...]:
    if times is None or times.min() == times.max():
        return ()
    counts, edges = np.histogram(times, bins=PERIODS)
    return tuple(zip(edges[:-1].tolist(), counts.tolist(), strict=True))


MOST_SHARED = 5
_KINDS = (DISPLAY, PARALLEL, "translation")


def describe_texts(catalog: Catalog, split: Split) -> Texts:
    """Describe the texts of a catalog."""
    visible = catalog.texts.filter(pl.col("characters") > 0)
    shown = visible.filter(pl.col("kind") == DISPLAY)
    groups = (
        shown.group_by("content")
        .agg(pl.len().alias("items"), pl.col("item").min())
        .filter(pl.col("items") > 1)
        .sort(["items", "item"], descending=[True, False])
    )
    most_shared = groups.head(MOST_SHARED).select("item", "items").iter_rows()
    return Texts(
        languages=tuple(_languages(visible)),
        items=len(catalog),
        without_text=int((~catalog.has_text).sum()),
        interactions_without_text=int(split.histories.item_counts[~catalog.has_text].sum()),
        test_without_text=int((~catalog.has_text[split.test_items]).sum()),
        unknown_language=shown.filter(pl.col("language") == UNDETERMINED).height,
        fields=dict(catalog.fields.most_common()),
        sharing=int(groups["items"].sum()),
        shared=groups.height,
        most_shared=tuple(
            SharedText(catalog.excerpt(item), catalog.item_languages[item], items) for item, items in most_shared
        ),
        unknown_items=catalog.unknown_items,
    )


def _languages(visible: pl.DataFrame) -> Iterator[TextLanguage]:
    """Yield a row per language, the one with most display texts first."""
    for (language,), texts in sorted(visible.group_by("language"), key=lambda part: _rank(str(part[0][0]), part[1])):
        items = {kind: texts.filter(pl.col("kind") == kind)["item"].n_unique() for kind in _KINDS}
        lengths = texts.filter(pl.col("kind") == DISPLAY)["characters"].to_numpy()
        yield TextLanguage(
            language=str(language),
            display=items[DISPLAY],
            parallel=items[PARALLEL],
            translation=items["translation"],
            items=texts["item"].n_unique(),
            characters=Quantiles.of(lengths),
        )


def _rank(language: str, texts: pl.DataFrame) -> tuple[int, int, str]:
    return -int((texts["kind"] == DISPLAY).sum()), -texts.height, language


@dataclass(frozen=True)
class LanguageCodes:
    """Languages as numbers: places in :attr:`names`, the most met one first, ``und`` last."""

    split: Split
    catalog: Catalog

    @cached_property
    def names(self) -> tuple[str, ...]:
        """All languages of items and users; ``und`` only where there is a case of it."""
        met: dict[str, int] = {}
        counts = self.split.histories.item_counts.tolist()
        for language, count in zip(self.catalog.item_languages, counts, strict=True):
            met[language] = met.get(language, 0) + count
        found = {*met, *self._main}
        return tuple(sorted(found, key=lambda name: (name == UNDETERMINED, -met.get(name, 0), name)))

    @cached_property
    def of_items(self) -> IntArray:
        """Language of each item of the catalog, ``(n_items,)``."""
        return self._codes(self.catalog.item_languages)

    @cached_property
    def of_users(self) -> IntArray:
        """Main language of each user as results define it, ``(n_users,)``."""
        return self._codes(self._main)

    @cached_property
    def unknown(self) -> int:
        """The number of ``und``, -1 where there is no case of it."""
        return self.names.index(UNDETERMINED) if UNDETERMINED in self.names else -1

    @cached_property
    def _main(self) -> list[str]:
        histories, known = self.split.histories, self.split.known
        users, items = histories.users[known], histories.items[known]
        languages, n_users = self.catalog.item_languages, len(histories.user_ids)
        return user_languages(languages, users, items, n_users)  # type: ignore[arg-type]  # half the size of int64

    def _codes(self, languages: list[str]) -> IntArray:
        code = {name: number for number, name in enumerate(self.names)}
        return np.array([code[language] for language in languages], dtype=np.int64)

    def count(self, codes: IntArray, weights: IntArray | None = None) -> list[int]:
        """Return how often each language is among these numbers, each counting by its weight."""
        counts: IntArray = np.bincount(codes, weights, minlength=len(self.names)).astype(np.int64)
        return counts.tolist()


def describe_languages(codes: LanguageCodes) -> tuple[Language, ...]:
    """Return one row per language."""
    columns = (
        codes.count(codes.of_items),
        codes.count(codes.of_users),
        codes.count(codes.of_items, codes.split.histories.item_counts),
    )
    return tuple(Language(*row) for row in zip(codes.names, *columns, strict=True))


def describe_mixing(codes: LanguageCodes) -> Mixing:
    """Cross the main languages of tested users with the languages of their test targets."""
    split, n = codes.split, len(codes.names)
    users, targets = codes.of_users[split.test_users], codes.of_items[split.test_items]
    matrix = np.bincount(users * n + targets, minlength=n * n).reshape(n, n)
    both = (users != codes.unknown) & (targets != codes.unknown)
    same = int((both & (users == targets)).sum())
    return Mixing(
        languages=codes.names,
        targets=tuple(tuple(row) for row in matrix.tolist()),
        cross_language=int(both.sum()) - same,
        same_language=same,
        bilingual_users=_bilingual_users(codes),
        users=int((codes.of_users != codes.unknown).sum()),
    )


def _bilingual_users(codes: LanguageCodes) -> int:
    histories = codes.split.histories
    language, n_users = codes.of_items[histories.items], len(histories.user_ids)
    known = codes.split.known & (language != codes.unknown)
    is_other = known & (language != codes.of_users[histories.users])
    n_languages = len(codes.names)
    whole = np.bincount(histories.users[known], minlength=n_users)
    pairs, sizes = np.unique(histories.users[is_other] * n_languages + language[is_other], return_counts=True)
    second = np.zeros(n_users, dtype=np.int64)
    np.maximum.at(second, pairs // n_languages, sizes)
    return int(((second >= BILINGUAL_MIN) & (second >= BILINGUAL_SHARE * whole)).sum())
