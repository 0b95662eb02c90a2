"""Users' cross-lingual profiles: which languages they read, and how much of each."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from recbole_xling.convert.cells import header
from recbole_xling.convert.reading.numbers import number_text
from recbole_xling.convert.writing.interactions import ROW, InteractionTable
from recbole_xling.convert.writing.times import in_unit_of, time_argument
from recbole_xling.errors import ConfigError
from recbole_xling.language.tags import UNDETERMINED
from recbole_xling.language.users import BILINGUAL_MIN, LANGUAGE_SOURCE, USER_LANGUAGE, languages_of_users
from recbole_xling.utils.files import polars_os_errors

COLUMNS = {
    USER_LANGUAGE: "token",
    "history_languages": "token_seq",
    "language_share": "float_seq",
    "bilingual": "token",
    LANGUAGE_SOURCE: "token",
}
"""Columns of a profile in the ``.user`` file; the source may have the first one itself."""

HELD_OUT = 2
"""Last interactions of each user that a profile leaves out: the targets of validation and test by leave-one-out."""

_MAIN = "main language"  # not the name of a feature, which has no spaces


@dataclass(frozen=True, slots=True)
class ProfileSetting:
    """Which interactions make a user's profile; a run may not be tested on any of them.

    Attributes:
        until: those before this time, in the unit of the source, or a
            :class:`~recbole_xling.convert.writing.times.Date`; None for all but the last two of each user.
    """

    until: float | None = None

    def __str__(self) -> str:
        if self.until is None:
            return "all but each user's last two interactions"
        return f"interactions before {number_text(self.until)}"

    def in_unit_of(self, interactions: InteractionTable) -> ProfileSetting:
        """Return the setting with its time in the unit of a table.

        Raises:
            ConfigError: it is a date, and the times of the table are none.
        """
        return ProfileSetting(in_unit_of(interactions, "--user-profile", self.until))

    @classmethod
    def add_argument(cls, group: argparse._ArgumentGroup) -> None:
        """Declare ``--user-profile``."""
        explanation = (
            "write the languages each user reads to the .user file, derived from all but the last two interactions, or "
            "from those before TIME (2015-01-31, or a time stamp), for splits by time"
        )
        group.add_argument(
            "--user-profile",
            nargs="?",
            type=lambda text: cls(time_argument(text)),
            const=cls(),
            metavar="TIME",
            help=explanation,
        )


def derive_profiles(parts: InteractionTable, languages: Mapping[str, str], setting: ProfileSetting) -> pl.DataFrame:
    """Derive the profile of every user who interacts, in the order in which they first do.

    Items of unknown language do not count. The last interactions are those a sequential model meets last: by time,
    then by the order of the file. The rows of some of the users are in memory at a time, and in the end one row per
    user.

    Args:
        parts: the interactions; there must be some.
        languages: language by item.
        setting: the interactions that count, its time in their unit.

    Returns:
        Columns ``user_id``, ``main language`` (the most frequent language, of several the first by alphabet),
        ``history_languages`` and ``language_share`` (separated by spaces, the largest share first), and ``bilingual``:
        ``yes`` where the second language has at least :data:`BILINGUAL_SHARE` and :data:`BILINGUAL_MIN` interactions,
        else ``no``, and empty if there are too few interactions to tell. All are empty without such interactions.

    Raises:
        ConfigError: no item has a known language, or the source has no times to go by.
    """
    if setting.until is not None and "timestamp" not in parts.columns:
        raise ConfigError("--user-profile with a time, but the source has no timestamps; leave the time out")
    known = [(item, language) for item, language in languages.items() if language != UNDETERMINED]
    if not known:
        raise ConfigError("--user-profile needs the languages of items, and none is known; identify them by --identify")
    names = pl.Enum(sorted({language for _, language in known}))
    items = pl.DataFrame(known, {"item_id": pl.String, "language": names}, orient="row")
    times = ["timestamp"] if "timestamp" in parts.columns else []
    shares = (_profiles(rows, items, setting) for rows in parts.by_users(["user_id", "item_id", *times, ROW]))
    return pl.concat(shares).sort(ROW).drop(ROW)


def _profiles(rows: pl.DataFrame, items: pl.DataFrame, setting: ProfileSetting) -> pl.DataFrame:
    """Return the profiles of some users, given all their interactions, with the number of the first of these."""
    rows = rows.join(items, on="item_id", how="left").drop("item_id").cast({"user_id": pl.Categorical})
    rows = rows.with_columns(user=pl.col("user_id").to_physical())  # numbers are sorted faster than ids
    if setting.until is not None:
        counted = rows.filter(pl.col("timestamp") < setting.until)
    else:
        times = ["timestamp"] if "timestamp" in rows.columns else []
        ordered = rows.sort("user", *times, ROW)
        counted = ordered.filter(pl.col("user") == pl.col("user").shift(-HELD_OUT))
    profiles = languages_of_users(
        counted.select("user", "language"),
        history_languages=pl.col("language").cast(pl.String).str.join(" "),
        language_share=(pl.col("count") / pl.col("count").sum()).round(3).cast(pl.String).str.join(" "),
        is_known=pl.col("count").sum() >= 2 * BILINGUAL_MIN,
    )
    is_bilingual = pl.when(pl.col("is_bilingual")).then(pl.lit("yes")).otherwise(pl.lit("no"))
    profiles = profiles.select(
        "user",
        pl.col("main_language").cast(pl.String).alias(_MAIN),
        "history_languages",
        "language_share",
        bilingual=pl.when("is_known").then(is_bilingual).otherwise(pl.lit("")),
    )
    users = rows.group_by("user", "user_id").agg(pl.col(ROW).min())
    joined = users.join(profiles, on="user", how="left").drop("user").cast({"user_id": pl.String})
    return joined.with_columns(pl.col(pl.String).fill_null(""))


def write_profiles(
    path: Path, described: pl.DataFrame, profiles: pl.DataFrame, fields: Mapping[str, str]
) -> dict[str, int]:
    """Write RecBole's ``.user`` file: the users that the source describes, then the others who interact.

    The column ``user_language`` gives the stated language, or else the main one of the history, and ``language_source``
    says which: results take only stated ones for the users'.

    Args:
        path: of the new file.
        described: a row per described user: ``user_id`` and all of ``fields``.
        profiles: as returned by :func:`derive_profiles`.
        fields: types of the columns of ``described``.

    Returns:
        Number of users whose language is stated, derived, and neither; and of those who are bilingual.
    """
    others = profiles.select("user_id").join(described, on="user_id", how="anti", maintain_order="left")
    table = pl.concat([described, others], how="diagonal").join(
        profiles, on="user_id", how="left", maintain_order="left"
    )
    table = table.with_columns(pl.col(pl.String).fill_null(""))
    stated = pl.col(USER_LANGUAGE) if USER_LANGUAGE in fields else pl.lit("")
    is_stated, is_derived = ~stated.is_in(["", UNDETERMINED]), pl.col(_MAIN) != ""
    how = (
        pl.when(is_stated).then(pl.lit("stated")).when(is_derived).then(pl.lit("derived")).otherwise(pl.lit("unknown"))
    )
    language = pl.when(is_stated).then(stated).when(is_derived).then(pl.col(_MAIN)).otherwise(pl.lit(UNDETERMINED))
    table = table.with_columns(how.alias(LANGUAGE_SOURCE), language.alias(USER_LANGUAGE))
    counts = dict(table[LANGUAGE_SOURCE].value_counts().iter_rows())
    columns = {"user_id": "token"} | dict(fields) | COLUMNS
    with polars_os_errors(path), open(path, "wb") as file:
        file.write(f"{header(columns)}\n".encode())
        table.select(list(columns)).write_csv(file, include_header=False, separator="\t", quote_style="never")
    figures = {name: counts.get(name, 0) for name in ("stated", "derived", "unknown")}
    return figures | {"bilingual": int((table["bilingual"] == "yes").sum())}
