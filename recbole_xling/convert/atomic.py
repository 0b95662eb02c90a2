"""The only writer of data sets: RecBole's atomic files and the item texts beside them."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import polars as pl

from recbole_xling.convert.base import Converter
from recbole_xling.convert.catalogue import Catalogue
from recbole_xling.convert.cells import FIELD_TYPES
from recbole_xling.convert.filters import Filters
from recbole_xling.convert.impressions import write_impressions
from recbole_xling.convert.interactions import read_interactions
from recbole_xling.convert.parts import Parts
from recbole_xling.convert.read.rejects import Rejects
from recbole_xling.convert.report import ConvertReport
from recbole_xling.convert.staging import Staging, staged
from recbole_xling.errors import ConfigError, DataError
from recbole_xling.text.store import itemtext_path


def write_dataset(
    converter: Converter,
    output_root: str | Path,
    name: str,
    *,
    filters: Filters = Filters(),  # noqa: B008
    clean: Callable[[str], str] | None = None,
    identify: Callable[[str], str] | None = None,
    max_bad: float = 0.01,
    strict: bool = False,
    show_progress: bool = True,
) -> ConvertReport:
    """Write ``<output_root>/<name>/<name>.inter``, ``.item``, ``.user`` and ``.itemtext.jsonl``.

    All or nothing: the files are written to a hidden folder beside them and replaced together at the end. A failure
    leaves the previous data set whole, and so does a killed run as soon as the next one starts. Other files of the
    folder are kept. A ``.user``, itemtext or ``.imp`` (impressions) file is not written where the converter yields
    nothing for it. The report is written as ``<name>.convert.json``.

    Bad rows are listed in ``<output_root>/<name>.rejects.jsonl`` while they are found; at the end the file moves into
    the folder. After a failure it stays where it was.

    Args:
        converter: the source.
        output_root: the folder of data sets (RecBole's ``data_path``).
        name: name of the data set.
        filters: what is taken out.
        clean: applied to each part of each text; None takes texts as they are.
        identify: returns the language of a text for which the source states none; None leaves it ``und``.
        max_bad: largest share of bad rows, from 0 to 1.
        strict: fail at the first bad row.
        show_progress: show progress bars.

    Raises:
        ConfigError: ``name`` is no plain file name, or a filter does not fit the source.
        DataError: too many rows are bad, nothing is left, or the source cannot be read; nothing has been written.
    """
    if not name or Path(name).name != name or name.startswith("."):
        raise ConfigError(f"'{name}' is no name for a data set; use letters, digits and hyphens")
    _check_fields(converter)
    folder = Path(output_root) / name
    listed = Path(output_root) / f"{name}.rejects.jsonl"
    suffixes = ("inter", "item", "user", "imp", "rejects.jsonl", "convert.json")
    names = [itemtext_path(folder, name).name, *(f"{name}.{suffix}" for suffix in suffixes)]
    with staged(folder, name, names) as staging:
        listed.unlink(missing_ok=True)
        with Rejects(listed, strict=strict, max_bad=max_bad) as rejects:
            catalogue = Catalogue(
                converter, _new_folder(staging, "catalogue"), rejects,
                clean=clean, identify=identify, show_progress=show_progress,
            )  # fmt: skip
            parts = Parts(_new_folder(staging, "interactions"))
            catalogue.read()
            read_interactions(converter, parts, catalogue.languages, rejects, show_progress=show_progress)
            rejects.check()
        report = _write(staging, folder, converter, catalogue, parts, filters, rejects)
        if rejects.count:
            shutil.move(listed, staging.new / listed.name)
        staging.commit()
    return report


def _new_folder(staging: Staging, name: str) -> Path:
    folder = staging.path / name
    folder.mkdir()
    return folder


def _check_fields(converter: Converter) -> None:
    fields = [*converter.item_fields.items(), *converter.user_fields.items()]
    names = ["item_id", "item_language", "user_id", *(name for name, _ in fields)]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise DataError(
            f"{converter.name}: column '{twice}' appears twice; RecBole needs distinct names of all columns"
        )
    for name, kind in fields:
        if kind not in FIELD_TYPES or not name.isidentifier():
            raise DataError(f"{converter.name}: column '{name}:{kind}'; a type is one of {', '.join(FIELD_TYPES)}")


def _write(
    staging: Staging,
    folder: Path,
    converter: Converter,
    catalogue: Catalogue,
    parts: Parts,
    filters: Filters,
    rejects: Rejects,
) -> ConvertReport:
    """Apply the filters and write all files but the rejects; return the report."""
    if not parts.rows:
        raise DataError(f"{converter.name}: the source has no interactions; is it the right one?")
    removed = filters.apply(parts, catalogue.languages)
    if not parts.rows:
        raise DataError(f"{converter.name}: the filters left no interaction ({removed}); set them lower")
    kept_items = {item for item, language in catalogue.languages.items() if filters.keeps(language)}
    if filters.item_core:
        kept_items.intersection_update(_distinct(parts, "item_id"))
    users = _distinct(parts, "user_id")
    kept_users = catalogue.users.intersection(users) if filters.user_core else catalogue.users
    suffixes = ("inter", "item", "user", "imp", "convert.json")
    paths = {suffix: staging.new / f"{folder.name}.{suffix}" for suffix in suffixes}
    parts.write(paths["inter"])
    catalogue.write_items(paths["item"], kept_items)
    catalogue.write_users(paths["user"], kept_users)
    texts = catalogue.write_texts(itemtext_path(staging.new, folder.name), kept_items)
    all_users = pl.concat([users, pl.Series("user_id", list(kept_users), pl.String)]).unique()
    write_impressions(converter, paths["imp"], rejects, items=kept_items, users=all_users, filters=filters)
    defaults = asdict(Filters())
    languages = Counter(language for item, language in catalogue.languages.items() if item in kept_items)
    report = ConvertReport(
        folder=folder,
        source=converter.name,
        users=len(all_users),
        items=len(kept_items),
        interactions=parts.rows,
        items_per_language=dict(languages.most_common()),
        texts_per_language=texts,
        rows_read=rejects.seen,
        rejected=dict(rejects.reasons.most_common()),
        filters={name: value for name, value in asdict(filters).items() if value != defaults[name]},
        removed=removed,
        notes=tuple(converter.notes()),
    )
    paths["convert.json"].write_text(report.to_json(), encoding="utf-8")
    return report


def _distinct(parts: Parts, column: str) -> pl.Series:
    return parts.scan().select(pl.col(column).unique()).collect(engine="streaming")[column]
