"""Building a data card from a dataset's files."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import polars as pl

from recbole_xling.card.catalog import read_catalog
from recbole_xling.card.histories import (
    Columns,
    Histories,
    count_duplicate_rows,
    distinct_ids,
    places_of,
    read_histories,
)
from recbole_xling.card.schema import Card
from recbole_xling.card.split import Split, configured_split, leave_one_out
from recbole_xling.card.statistics import (
    LanguageCodes,
    describe_checks,
    describe_distributions,
    describe_languages,
    describe_mixing,
    describe_size,
    describe_splits,
    describe_texts,
    describe_time,
    distinct_pairs,
    top_items,
)
from recbole_xling.card.warnings import find_warnings
from recbole_xling.config import XLingConfig
from recbole_xling.errors import DataError


def build_card(
    folder: str | Path,
    dataset: str,
    columns: Columns | None = None,
    make_split: Callable[[Histories], Split] = leave_one_out,
) -> Card:
    """Describe a dataset; nothing is written.

    Interactions are counted as a run keeps them: those with items that the ``.item`` file lacks are left out. Memory
    grows with some 100 bytes an interaction.

    Args:
        folder: the dataset's folder.
        dataset: its name.
        columns: names of its columns, the usual ones if None.
        make_split: which interactions are trained and tested on; leave-one-out in time order as sequential models
            meet it unless given.

    Raises:
        ConfigError: the dataset cannot be split like this.
        DataError: a file is missing or wrong.
    """
    folder, columns = Path(folder), columns or Columns()
    inter, item, user = (folder / f"{dataset}.{suffix}" for suffix in ("inter", "item", "user"))
    if not inter.is_file():
        raise DataError(f"there is no file {inter}; convert the dataset first (recbole-xling convert)")
    known_items = distinct_ids(item, columns.item, columns.separator) if item.is_file() else None
    whole = read_histories(inter, columns, known_items)
    unknown_users, idle_users = _compare_users(whole.user_ids, user, columns)
    split = make_split(whole)
    histories = split.histories
    catalog = read_catalog(folder, dataset, histories.item_ids, columns)
    codes = LanguageCodes(split, catalog)
    pairs = distinct_pairs(histories)
    duplicates = count_duplicate_rows(inter, columns.separator) if pairs < len(histories) else 0
    card = Card(
        dataset=dataset,
        size=describe_size(histories, pairs, idle_users),
        top_items=top_items(histories, catalog),
        languages=describe_languages(codes),
        mixing=describe_mixing(codes),
        texts=describe_texts(catalog, split),
        splits=describe_splits(codes),
        time=describe_time(histories),
        checks=describe_checks(split, pairs, duplicates, unknown_users),
        distributions=describe_distributions(histories),
    )
    return replace(card, warnings=tuple(find_warnings(card)))


def build_configured_card(config: XLingConfig) -> Card:
    """Describe a dataset as a run with these settings has it: its columns, its filters and its split.

    Args:
        config: the settings of a run.

    Raises:
        ConfigError: the dataset cannot be split as the settings ask.
        DataError: a file is missing or wrong.
    """
    columns = Columns(
        user=config["USER_ID_FIELD"],
        item=config["ITEM_ID_FIELD"],
        time=config["TIME_FIELD"],
        language=config["ITEM_LANGUAGE_FIELD"] or "item_language",
        text_fields=tuple(config["text_fields"] or ()),
        separator=config["field_separator"],
    )
    return build_card(config["data_path"], config["dataset"], columns, partial(configured_split, config))


def _compare_users(user_ids: pl.Series, path: Path, columns: Columns) -> tuple[int, int]:
    """Return how many users the ``.user`` file lacks, and how many of it never interact."""
    if not path.is_file():
        return 0, 0
    listed = distinct_ids(path, columns.user, columns.separator)
    both = int((places_of(user_ids, listed) >= 0).sum())
    return len(user_ids) - both, len(listed) - both
