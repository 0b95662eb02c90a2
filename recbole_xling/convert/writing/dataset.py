"""The only writer of datasets: RecBole's atomic files and the item texts."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import polars as pl

from recbole_xling.convert.base import Converter
from recbole_xling.convert.cells import FIELD_TYPES
from recbole_xling.convert.reading.rejects import FILE, LINE, Rejects
from recbole_xling.convert.writing.filters import Filters
from recbole_xling.convert.writing.impressions import write_impressions
from recbole_xling.convert.writing.interactions import NUMBERS, ROW, InteractionTable, read_interactions
from recbole_xling.convert.writing.items import RecordDrafts
from recbole_xling.convert.writing.languages import LanguageReader
from recbole_xling.convert.writing.report import ConvertReport
from recbole_xling.convert.writing.times import mixed_units
from recbole_xling.convert.writing.user_profiles import COLUMNS, ProfileSetting, derive_profiles, write_profiles
from recbole_xling.errors import ConfigError, DataError
from recbole_xling.language.identification import MIN_CONFIDENCE
from recbole_xling.language.tags import UNDETERMINED
from recbole_xling.language.users import USER_LANGUAGE
from recbole_xling.text.cleaning import TextCleaner
from recbole_xling.text.store import itemtext_path
from recbole_xling.utils.staging import Staging, staged
from recbole_xling.utils.terminal import on_screen


def write_dataset(
    converter: Converter,
    output_root: str | Path,
    name: str,
    *,
    filters: Filters = Filters(),  # noqa: B008
    clean: Callable[[str], str] | None = None,
    identify: Sequence[str] | None = None,
    min_confidence: float = MIN_CONFIDENCE,
    unsure: str = UNDETERMINED,
    user_profile: ProfileSetting | None = None,
    max_bad: float = 0.01,
    strict: bool = False,
    show_progress: bool = True,
) -> ConvertReport:
    """Write ``<output_root>/<name>/<name>.inter``, ``.item``, ``.user`` and ``.itemtext.jsonl``.

    All or nothing: the files are written to a hidden folder next to them and replaced together at the end. A failure
    leaves the previous dataset whole, and so does a killed run as soon as the next one starts. Other files of the
    folder are kept. A ``.user``, itemtext or ``.imp`` (impressions) file is not written if the converter yields nothing
    for it. The report is written as ``<name>.convert.json``.

    Bad rows are listed in ``<output_root>/<name>.rejects.jsonl`` while they are found; at the end the file moves into
    the folder. After a failure it stays where it was.

    Args:
        converter: the source.
        output_root: the folder of datasets (RecBole's ``data_path``).
        name: name of the dataset.
        filters: what is taken out.
        clean: applied to each part of each text; None takes texts as they are.
        identify: languages among which to identify that of a text if the source states none, and to compare the stated
            one; empty for those that the source states; None to do neither.
        min_confidence: a language identified with less confidence is not believed, from 0 to 1.
        unsure: what items in such a language count as: ``und``, or ``main`` for the language of most items.
        user_profile: write users' profiles, derived from these interactions; None for what the source tells of users.
        max_bad: largest share of bad rows, from 0 to 1.
        strict: fail at the first bad row.
        show_progress: show progress bars, on a terminal.

    Raises:
        ConfigError: ``name`` is not a plain file name, a filter or ``user_profile`` does not fit the source, or no
            language to identify is known.
        DataError: too many rows are bad, nothing is left, or the source cannot be read; nothing has been written.
        MissingExtraError: ``identify`` is given, and py3langid is not installed.
    """
    if not name or Path(name).name != name or name.startswith("."):
        raise ConfigError(f"'{name}' is not a name for a dataset; use letters, digits and hyphens")
    show_progress = show_progress and on_screen()
    _check_fields(converter, {} if user_profile is None else COLUMNS)
    reader = LanguageReader(identify, min_confidence=min_confidence, unsure=unsure)
    folder = Path(output_root) / name
    listed = Path(output_root) / f"{name}.rejects.jsonl"
    suffixes = ("inter", "item", "user", "imp", "rejects.jsonl", "convert.json")
    names = [itemtext_path(folder, name).name, *(f"{name}.{suffix}" for suffix in suffixes)]
    with staged(folder, names) as staging:
        listed.unlink(missing_ok=True)
        drafts_folder, interactions_folder = staging.path / "records", staging.path / "interactions"
        drafts_folder.mkdir()
        interactions_folder.mkdir()
        interactions = InteractionTable(interactions_folder)
        with Rejects(listed, strict=strict, max_bad=max_bad) as rejects:
            drafts = RecordDrafts(
                converter, drafts_folder, rejects, clean=clean, reader=reader, show_progress=show_progress
            )
            drafts.read()
            read_interactions(converter, interactions, drafts.languages, rejects, show_progress=show_progress)
            rejects.check()
        report = _write(staging, folder, drafts, interactions, filters, user_profile)
        if rejects.count or rejects.omitted:
            shutil.move(listed, staging.new / listed.name)
        staging.commit()
    return report


def _check_fields(converter: Converter, profile: Mapping[str, str]) -> None:
    """Check the columns that the converter declares, and those of users' profiles with them."""
    fields = [*converter.item_fields.items(), *converter.user_fields.items(), *converter.interaction_fields.items()]
    added = [name for name in profile if name != USER_LANGUAGE or name not in converter.user_fields]
    names = ["item_id", "item_language", "user_id", *NUMBERS, *(name for name, _ in fields), *added]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise DataError(
            f"{converter.name}: column '{twice}' appears twice; RecBole needs distinct names of all columns"
        )
    taken = next((name for name in (FILE, LINE, ROW) if name in converter.interaction_fields), None)
    if taken is not None:
        raise DataError(f"{converter.name}: column '{taken}' of the interactions needs another name")
    for name, kind in fields:
        if kind not in FIELD_TYPES or not name.isidentifier():
            raise DataError(f"{converter.name}: column '{name}:{kind}'; a type is one of {', '.join(FIELD_TYPES)}")
    if converter.user_fields.get(USER_LANGUAGE, "token") != "token":
        raise DataError(f"{converter.name}: column '{USER_LANGUAGE}' must be of type token: one language per user")


def _write(
    staging: Staging,
    folder: Path,
    drafts: RecordDrafts,
    interactions: InteractionTable,
    filters: Filters,
    user_profile: ProfileSetting | None,
) -> ConvertReport:
    """Apply the filters and write all files but the rejects; return the report."""
    converter, rejects = drafts.converter, drafts.rejects
    if not interactions.rows:
        raise DataError(f"{converter.name}: {converter.origin} has no interactions; is it the right one?")
    filters = filters.in_unit_of(interactions)
    if user_profile is not None:  # while all interactions are there to tell the unit
        user_profile = user_profile.in_unit_of(interactions)
    removed = filters.apply(interactions, drafts.languages)
    if not interactions.rows:
        raise DataError(f"{converter.name}: the filters left no interaction ({removed}); set them lower")
    kept_items = {item for item, language in drafts.languages.items() if filters.keeps(language)}
    if filters.item_core:
        kept_items.intersection_update(interactions.distinct("item_id"))
    users = interactions.distinct("user_id")
    kept_users = drafts.users.intersection(users) if filters.user_core else drafts.users
    suffixes = ("inter", "item", "user", "imp", "convert.json")
    paths = {suffix: staging.new / f"{folder.name}.{suffix}" for suffix in suffixes}
    interactions.write(paths["inter"], converter.interaction_fields)
    drafts.write_items(paths["item"], kept_items)
    profiles: dict[str, Any] | None = None
    if user_profile is None:
        drafts.write_users(paths["user"], kept_users, users)
    else:
        derived = derive_profiles(interactions, drafts.languages, user_profile)
        described = drafts.described_users(kept_users)
        counts = write_profiles(paths["user"], described, derived, converter.user_fields)
        profiles = {"history": str(user_profile), **counts}
    texts = drafts.write_texts(itemtext_path(staging.new, folder.name), kept_items)
    all_users = pl.concat([users, pl.Series("user_id", list(kept_users), pl.String)]).unique()
    shown = write_impressions(converter, paths["imp"], rejects, items=kept_items, users=all_users, filters=filters)
    defaults = asdict(Filters())
    languages = Counter(language for item, language in drafts.languages.items() if item in kept_items)
    report = ConvertReport(
        folder=folder,
        source=converter.name,
        users=len(all_users),
        items=len(kept_items),
        interactions=interactions.rows,
        impressions=shown or None,
        items_per_language=dict(languages.most_common()),
        texts_per_language=texts,
        unread_languages=dict(drafts.reader.unread.most_common()) or None,
        identification=drafts.reader.summary(),
        user_profiles=profiles,
        arbitrary_order=converter.arbitrary_order or None,
        rows_read=rejects.seen,
        rejected=dict(rejects.reasons.most_common()),
        omitted=dict(rejects.omitted.most_common()),
        cleaning=drafts.clean.figures() if isinstance(drafts.clean, TextCleaner) else None,
        filters={name: value for name, value in asdict(filters).items() if value != defaults[name]},
        removed=removed,
        notes=tuple(filter(None, [*converter.notes(), mixed_units(interactions)])),
    )
    paths["convert.json"].write_text(report.to_json(), encoding="utf-8")
    return report
