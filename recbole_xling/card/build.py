"""Building a data card: from a dataset's folder, or from the settings of a run."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from recbole_xling.card.catalog import read_texts
from recbole_xling.card.dataset import load_dataset
from recbole_xling.card.schema import Card
from recbole_xling.card.split import build_split
from recbole_xling.card.statistics import (
    LanguageCodes,
    describe_checks,
    describe_distributions,
    describe_languages,
    describe_mixing,
    describe_readers,
    describe_size,
    describe_splits,
    describe_texts,
    describe_time,
    top_items,
)
from recbole_xling.card.warnings import find_warnings
from recbole_xling.config import XLingConfig
from recbole_xling.errors import ConfigError
from recbole_xling.utils.staging import reading


@dataclass(frozen=True, slots=True)
class Columns:
    """Names of the columns, as a configuration gives them (``USER_ID_FIELD`` and so on)."""

    user: str = "user_id"
    item: str = "item_id"
    time: str = "timestamp"
    language: str = "item_language"
    text_fields: tuple[str, ...] = ("title",)
    separator: str = "\t"


def build_card(folder: str | Path, dataset: str, columns: Columns | None = None) -> Card:
    """Describe a dataset with its leave-one-out split; nothing is written.

    Args:
        folder: the dataset's folder.
        dataset: its name.
        columns: names of its columns, the usual ones if None.

    Raises:
        DataError: a file is missing or wrong.
    """
    columns = columns or Columns()
    settings = {
        "USER_ID_FIELD": columns.user,
        "ITEM_ID_FIELD": columns.item,
        "TIME_FIELD": columns.time,
        "ITEM_LANGUAGE_FIELD": columns.language,
        "text_fields": list(columns.text_fields),
        "field_separator": columns.separator,
    }
    config = XLingConfig("LLMSASRec", dataset, config_dict=settings)
    config["data_path"] = str(folder)
    return build_configured_card(config)


def build_configured_card(config: XLingConfig) -> Card:
    """Describe a dataset as a run with these settings has it: its columns, its filters and its split.

    Interactions are counted as a run keeps them: those with items that the ``.item`` file lacks are left out.

    Args:
        config: the settings of a run, of any model.

    Raises:
        ConfigError: the dataset cannot be split as the settings ask.
        DataError: a file is missing or wrong.
    """
    if files := config["benchmark_filename"]:
        raise ConfigError(f"a card describes the split of one file of interactions, not the files of {files}")
    with reading(Path(config["data_path"]), config["dataset"]):
        dataset = load_dataset(config)
        split = build_split(dataset)
        texts = read_texts(dataset.catalog)
        user_tokens = [str(token) for token in dataset.field2id_token[dataset.uid_field][split.user_ids]]
        readers = dataset.catalog.readers(user_tokens)
    own = {language: mask[1:] for language, mask in readers.own.items()}  # the card has no padding item
    codes = LanguageCodes(split, replace(readers, displayed=texts.languages, own=own))
    card = Card(
        dataset=dataset.dataset_name,
        size=describe_size(split, dataset.idle_users),
        top_items=top_items(split, texts),
        languages=describe_languages(codes),
        user_languages=describe_readers(codes, dataset.catalog.text_view),
        mixing=describe_mixing(codes),
        texts=describe_texts(texts, split),
        splits=describe_splits(codes),
        time=describe_time(split),
        checks=describe_checks(split, dataset),
        distributions=describe_distributions(split),
    )
    return replace(card, warnings=tuple(find_warnings(card)))
