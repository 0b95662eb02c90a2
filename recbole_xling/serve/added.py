"""Items that were added without training, which a folder remembers, and the Recommender that has them."""

from __future__ import annotations

import base64
import binascii
import json
import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from recbole_xling.errors import CheckpointError, ConfigError, DataError, XlingError
from recbole_xling.serve.new_items import Intake, NewItem, new_item, read_records, with_vectors
from recbole_xling.serve.recommender import Recommender
from recbole_xling.utils.files import FolderLock, write_text
from recbole_xling.utils.json_text import parse_json

logger = logging.getLogger(__name__)

ADDED_FILE = "added.jsonl"
_LITTLE = np.dtype("<f4")


def read_added(folder: str | os.PathLike[str]) -> list[NewItem]:
    """Return the items that were added to a run folder or an export, in their order.

    Raises:
        CheckpointError: the file is damaged.
    """
    path = Path(folder) / ADDED_FILE
    if not path.is_file():
        return []
    try:
        records = [parse_json(line) for line in path.read_text(encoding="utf-8").splitlines()]
        return [_item(record) for record in records]
    except (ValueError, LookupError, TypeError, AttributeError, binascii.Error) as error:
        raise CheckpointError(f"'{path}' is damaged: {error!r:.100}; remove it and add the items again") from error


def write_added(folder: str | os.PathLike[str], items: Sequence[NewItem]) -> None:
    """Write the items, all or nothing.

    Raises:
        XlingError: the disk refuses them.
    """
    write_text(Path(folder) / ADDED_FILE, "".join(json.dumps(_record(item)) + "\n" for item in items))


def _record(item: NewItem) -> dict[str, Any]:
    vectors = {
        language: base64.b64encode(vector.astype(_LITTLE).tobytes()).decode("ascii")
        for language, vector in item.vectors.items()
    }
    return {"item_id": item.item, "texts": dict(item.texts), "columns": dict(item.columns), "vectors": vectors}


def _item(record: Mapping[str, Any]) -> NewItem:
    vectors = {
        language: np.frombuffer(base64.b64decode(text, validate=True), dtype=_LITTLE).astype(np.float32)
        for language, text in record["vectors"].items()
    }
    if "" not in vectors or not all(np.isfinite(vector).all() for vector in vectors.values()):
        raise ValueError(f"item {record['item_id']!r} has no vector")
    return NewItem(str(record["item_id"]), dict(record["texts"]), dict(record["columns"]), vectors)


# ---- adding ---------------------------------------------------------------------------------------------------


def intake_of(recommender: Recommender) -> Intake:
    """Return how a model takes new items.

    Raises:
        ConfigError: it does not.
    """
    if recommender.intake is None:
        raise ConfigError(
            f"{recommender.scorer.name} with these settings takes no items that training did not have: it does not "
            "know items by their texts alone, or the export is of an earlier release"
        )
    return recommender.intake


def items_of_file(file: str | os.PathLike[str], recommender: Recommender) -> list[NewItem]:
    """Read items from JSON lines or CSV (:func:`~recbole_xling.serve.new_items.read_records`).

    Raises:
        ConfigError: the model takes no new items.
        DataError: a line is wrong; the message names it.
    """
    intake, found = intake_of(recommender), []
    for where, record in read_records(file):
        try:
            found.append(new_item(record, intake, recommender.catalog))
        except XlingError as error:
            raise DataError(f"{where}: {error}") from error
    return found


def add_items(
    recommender: Recommender, folder: str | os.PathLike[str], items: Sequence[NewItem], *, replace: bool = False
) -> list[NewItem]:
    """Remember items in a folder, and return all that were ever added to it.

    Args:
        recommender: of the folder.
        folder: a run folder or an export.
        items: new ones, with texts or vectors.
        replace: whether they may take the place of added items with their ids; items of the training keep what it
            has taught.

    Raises:
        ConfigError: the model takes no new items, does not read texts, or an id exists.
        XlingError: the folder cannot be written.
    """
    trained, intake = recommender.trained, intake_of(recommender)
    names = [item.item for item in items]
    if repeated := next((name for place, name in enumerate(names) if name in names[:place]), None):
        raise ConfigError(f"item '{repeated}' is given twice")
    if known := next((name for name in names if name in trained.catalog.number), None):
        raise ConfigError(
            f"item '{known}' was known in training, which has taught something of it: withdraw it and add another id"
        )
    if not replace:  # before texts are encoded; another process may be faster than this look
        _check_new(names, read_added(folder))
    found = with_vectors(items, intake, trained.scorer, trained.catalog)
    _warn_of_texts_nobody_sees(found, intake, trained)
    lock = FolderLock(Path(folder), wait=True)  # another process may add something at the same time
    try:
        before = read_added(folder)
        if not replace:
            _check_new(names, before)
        of_id = {item.item: item for item in [*before, *found]}
        write_added(folder, list(of_id.values()))
    finally:
        lock.release()
    return list(of_id.values())


def _warn_of_texts_nobody_sees(items: Sequence[NewItem], intake: Intake, trained: Recommender) -> None:
    """Say which texts are in languages of readers who see all items of the training in their first texts."""
    if intake.text_view != "reader":
        return
    for language in sorted(set(trained.users.spoken) - set(trained.catalog.view_of)):
        unseen = [item.item for item in items if item.seen_in(language) != item.seen_in("")]
        if unseen:
            logger.warning(
                "readers of %s see the first text of '%s'%s: no item of the training has a further one in %s, so they "
                "have no view of their own; their texts count after the next training",
                *(language, unseen[0], f" and {len(unseen) - 1} others" if unseen[1:] else "", language),
            )


def _check_new(names: Sequence[str], before: Sequence[NewItem]) -> None:
    if known := {item.item for item in before}.intersection(names):
        raise ConfigError(f"item '{sorted(known)[0]}' was added before: leave it out, or ask to replace it (replace)")


def with_added(recommender: Recommender, added: Sequence[NewItem]) -> Recommender:
    """Return a Recommender of the items of training and of added ones, but for those that the data have by now.

    Args:
        recommender: whose own added items, if it has some, are left out.
        added: the items.

    Raises:
        ConfigError: the model takes no new items.
        CheckpointError: the items do not fit the model.
    """
    trained = recommender.trained
    added = [item for item in added if item.item not in trained.catalog.number]
    if not added:
        return trained
    intake, catalog, scorer = intake_of(trained), trained.catalog, trained.scorer
    views = ["", *sorted(catalog.view_of, key=lambda language: catalog.view_of[language])]
    size = scorer.history_size
    for item in added:
        if any(vector.shape != (size,) for vector in item.vectors.values()):
            raise CheckpointError(
                f"the added item '{item.item}' does not fit the model: its vector has not {size} numbers. Take its "
                f"line out of {ADDED_FILE}"
            )
    titles = [[item.title(view) for item in added] for view in views]
    languages = [[item.seen_in(view)[0] for item in added] for view in views]
    of_model = views[: scorer.n_views]
    vectors = [np.stack([item.vector(view) for item in added]) for view in of_model]
    everybody = intake.text_view.partition(":")[2]
    read = [[item.seen_in(view or everybody)[0] for item in added] for view in of_model]
    grown = scorer.grown(vectors, read, intake.skipped, intake.bias)
    names, columns = [item.item for item in added], [item.columns for item in added]
    return Recommender(catalog.grown(names, titles, languages, columns), trained.users, grown, intake, trained)
