"""Filters: which interactions, and with them which items and users, a dataset keeps."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass, replace

import polars as pl

from recbole_xling.convert.reading.numbers import number_text
from recbole_xling.convert.writing.interactions import ROW, InteractionTable
from recbole_xling.convert.writing.times import Date, in_unit_of, time_argument
from recbole_xling.errors import ConfigError
from recbole_xling.language.tags import asked_language, covers
from recbole_xling.utils.arguments import comma_list

DUPLICATES = ("all", "first", "last")


@dataclass(frozen=True, slots=True)
class Filters:
    """What is taken out, in this order; by default nothing.

    Attributes:
        since: keep interactions at this time or later: in the unit of the source, or a
            :class:`~recbole_xling.convert.writing.times.Date`.
        until: keep interactions before this time.
        languages: keep items in one of these languages; ``zh`` includes ``zh-Hant``.
        duplicates: of several interactions of a user with an item keep ``all``, the ``first``, or the ``last``: by
            time, and of those at the same time (or without one) by the order of the source.
        min_rating: keep interactions with this rating or a better one.
        user_core: keep users with at least so many interactions.
        item_core: keep items with at least so many interactions. It and ``user_core`` are applied until both hold.

    Raises:
        ConfigError: a value makes no sense.
    """

    since: float | None = None
    until: float | None = None
    languages: tuple[str, ...] = ()
    duplicates: str = "all"
    min_rating: float | None = None
    user_core: int = 0
    item_core: int = 0

    def __post_init__(self) -> None:
        if self.duplicates not in DUPLICATES:
            raise ConfigError(f"duplicates is one of {', '.join(DUPLICATES)}, not {self.duplicates!r}")
        object.__setattr__(self, "languages", tuple(dict.fromkeys(map(asked_language, self.languages))))
        if self.since is not None and self.until is not None:
            is_comparable = isinstance(self.since, Date) == isinstance(self.until, Date)
            if is_comparable and self.since >= self.until:
                since, until = number_text(self.since), number_text(self.until)
                raise ConfigError(f"since ({since}) must be before until ({until})")
        if min(self.user_core, self.item_core) < 0:
            raise ConfigError("user_core and item_core are numbers of interactions, 0 for no limit")

    @staticmethod
    def add_arguments(parser: argparse._ArgumentGroup) -> None:
        """Declare the filters as options; their names are those of the attributes."""
        since = "keep interactions at this time or later: a date (2015-01-31, UTC) or a time stamp"
        duplicates = "of several interactions of a user with an item keep all (default), the first or the last"
        item_core = "keep items with at least K interactions; with --user-core until both hold"
        add = parser.add_argument
        add("--since", type=time_argument, metavar="TIME", help=since)
        add("--until", type=time_argument, metavar="TIME", help="keep interactions before this time")
        add("--languages", type=comma_list, default=(), metavar="TAGS", help="keep items in these languages (de,en)")
        add("--duplicates", choices=DUPLICATES, default="all", help=duplicates)
        add("--min-rating", type=float, metavar="RATING", help="keep interactions with this rating or a better one")
        add("--user-core", type=int, default=0, metavar="K", help="keep users with at least K interactions")
        add("--item-core", type=int, default=0, metavar="K", help=item_core)

    def keeps(self, language: str) -> bool:
        """Tell whether items in a language stay."""
        return not self.languages or any(covers(wanted, language) for wanted in self.languages)

    def in_unit_of(self, interactions: InteractionTable) -> Filters:
        """Return the filters with their times in the unit of a table.

        Raises:
            ConfigError: one is a date, and the times of the table are none.
        """
        return replace(
            self,
            since=in_unit_of(interactions, "since", self.since),
            until=in_unit_of(interactions, "until", self.until),
        )

    def apply(self, interactions: InteractionTable, languages: Mapping[str, str]) -> dict[str, int]:
        """Take rows out of a table; return the number of rows that each active filter removed.

        Args:
            interactions: the table, in whose unit the times are.
            languages: language by item.

        Raises:
            ConfigError: a filter needs ratings or times that the source does not have.
        """
        removed: dict[str, int] = {}
        for name, column in (("since", "timestamp"), ("until", "timestamp"), ("min_rating", "rating")):
            if getattr(self, name) is not None and column not in interactions.columns:
                raise ConfigError(f"{name} is set, but the source has no {column}s")
        if self.since is not None:
            removed["since"] = interactions.keep(lambda rows: rows.filter(pl.col("timestamp") >= self.since))
        if self.until is not None:
            removed["until"] = interactions.keep(lambda rows: rows.filter(pl.col("timestamp") < self.until))
        if self.languages:
            items = [item for item, language in languages.items() if self.keeps(language)]
            removed["languages"] = _keep_ids(
                interactions, "item_id", pl.DataFrame({"item_id": items}, {"item_id": pl.String})
            )
        if self.duplicates != "all":
            removed["duplicates"] = _drop_duplicates(interactions, last=self.duplicates == "last")
        if self.min_rating is not None:
            removed["min_rating"] = interactions.keep(lambda rows: rows.filter(pl.col("rating") >= self.min_rating))
        if self.user_core > 1 or self.item_core > 1:
            removed["core"] = _keep_core(interactions, {"user_id": self.user_core, "item_id": self.item_core})
        return removed


def _keep_ids(interactions: InteractionTable, column: str, ids: pl.DataFrame) -> int:
    return interactions.keep(lambda rows: rows.join(ids, on=column, how="semi", maintain_order="left"))


def _drop_duplicates(interactions: InteractionTable, *, last: bool) -> int:
    """Keep one interaction of each user with each item; return the number of rows removed."""
    keys = ["timestamp", ROW] if "timestamp" in interactions.columns else [ROW]
    dropped = [pl.DataFrame(schema={ROW: pl.Int64})]
    for rows in interactions.by_users(["user_id", "item_id", *keys]):
        pairs = rows.sort(keys)
        kept = pairs.unique(["user_id", "item_id"], keep="last" if last else "first").select(ROW)
        dropped.append(pairs.select(ROW).join(kept, on=ROW, how="anti"))
    gone = pl.concat(dropped)
    return interactions.keep(lambda rows: rows.join(gone, on=ROW, how="anti", maintain_order="left"))


def _keep_core(interactions: InteractionTable, least: Mapping[str, int]) -> int:
    """Drop users and items with too few interactions until all have enough; return the number of rows removed."""
    kept: dict[str, pl.DataFrame] = {}
    changed = interactions.rows > 0
    while changed:
        changed = False
        for column, number in least.items():
            rows = interactions.scan().select(list(least))
            for other, ids in kept.items():
                rows = rows.join(ids.lazy(), on=other, how="semi")
            counts = rows.group_by(column).len().collect(engine="streaming")
            kept[column] = counts.filter(pl.col("len") >= number).select(column)
            changed |= kept[column].height < counts.height
    return sum(_keep_ids(interactions, column, ids) for column, ids in kept.items())
