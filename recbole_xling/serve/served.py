"""Served: the export that a server answers from, which changes while it runs."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recbole_xling.errors import ConfigError, XlingError
from recbole_xling.language.tags import UNDETERMINED
from recbole_xling.serve.added import add_items, intake_of, read_added
from recbole_xling.serve.answers import Answer
from recbole_xling.serve.bodies import Change, Wanted
from recbole_xling.serve.catalog import Filters
from recbole_xling.serve.folder import as_remembered, load_export, read_manifest
from recbole_xling.serve.new_items import NewItem, new_item
from recbole_xling.serve.recommender import Recommender
from recbole_xling.serve.withdrawn import check_withdrawal, read_withdrawn, withdraw


@dataclass(frozen=True)
class _Now:
    folder: Path
    manifest: dict[str, Any]
    recommender: Recommender


class Served:
    """The export that is served now; another one takes its place at once, and requests under way end with the old one.

    Args:
        folder: of the export; may be a link, which leads elsewhere later.

    Raises:
        CheckpointError: the folder is no export, or damaged.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock = threading.Lock()
        self._now = self._loaded()

    def _loaded(self) -> _Now:
        folder = self.folder.resolve()
        return _Now(folder, read_manifest(folder), load_export(folder))

    @property
    def recommender(self) -> Recommender:
        """What answers."""
        return self._now.recommender

    @property
    def about(self) -> dict[str, Any]:
        """Model, dataset and size of what is served."""
        now = self._now
        shown = int(now.recommender.catalog.shown.sum())
        about = {"model": now.manifest["model"], "dataset": now.manifest["dataset"], "items": now.manifest["items"]}
        return {**about, "added": len(now.recommender.catalog.tokens) - 1 - about["items"], "shown": shown}

    @property
    def languages(self) -> dict[str, list[str]]:
        """The languages in which anybody may see an item, and those that readers may have."""
        recommender = self._now.recommender
        spoken = {*recommender.users.spoken, *recommender.catalog.view_of} - {UNDETERMINED}
        return {"languages": sorted(recommender.catalog.language_names), "readers": sorted(spoken)}

    # ---- changes ----------------------------------------------------------------------------------------------

    def reload(self) -> dict[str, Any]:
        """Load what the folder holds now, and return what that is.

        What was withdrawn in either stays so in another folder. Items that were added or replaced go with it if that
        can read their texts, or has the same already; ``not_taken_along`` lists the others: vectors of one model mean
        nothing to another.

        Raises:
            XlingError: it cannot be loaded; the old one is served on.
        """
        with self._lock:
            found, before, missing = self._loaded(), self._now, list[str]()
            if found.folder != before.folder:
                found, missing = _taken_along(found, before)
            self._now = found
            return {**self.about, "not_taken_along": missing}

    def change(self, change: Change) -> dict[str, list[str]]:
        """Add items, withdraw items and show others again, for good; return what is added and withdrawn then.

        A change that is refused has done nothing.

        Raises:
            ConfigError: there is no such item, a new one cannot be added, or the folder has another export now.
            DataError: a new item is wrong.
        """
        with self._lock:
            now = self._now
            folder, recommender = now.folder, now.recommender
            if self.folder.resolve() != folder or read_manifest(folder) != now.manifest:
                raise ConfigError(f"'{self.folder}' is another export now: reload it first")
            items = []
            if change.add:
                intake = intake_of(recommender)
                items = [new_item(record, intake, recommender.trained.catalog) for record in change.add]
            known = recommender.catalog.number.keys() | {item.item for item in items}
            check_withdrawal(known, read_withdrawn(folder), change.withdraw, change.restore)  # before anything is added
            if items:
                add_items(recommender, folder, items, replace=change.replace)
                recommender = as_remembered(recommender, folder)
            withdrawn = withdraw(recommender.catalog, folder, add=change.withdraw, remove=change.restore)
            self._now = _Now(folder, now.manifest, recommender)
            n_trained = len(recommender.trained.catalog.tokens)
            return {"withdrawn": withdrawn, "added": [str(item) for item in recommender.catalog.tokens[n_trained:]]}

    # ---- answers ----------------------------------------------------------------------------------------------

    def recommend(self, jobs: Sequence[Wanted]) -> list[list[Answer] | Exception]:
        """Answer several requests, those that differ in nothing but users and histories at once."""
        recommender, found = self.recommender, dict[int, list[Answer] | Exception]()
        alike: dict[str, list[int]] = {}
        for place, wanted in enumerate(jobs):
            alike.setdefault(wanted.model_dump_json(exclude={"users", "histories", "reader"}), []).append(place)
        for places in alike.values():
            asked, wanted = [], jobs[places[0]]
            for place in places:
                try:
                    asked.append((place, _requests(recommender, jobs[place])))
                except XlingError as error:
                    found[place] = error
            filters = Filters(wanted.languages, wanted.items, wanted.block, wanted.where)
            together = [request for _, requests in asked for request in requests]
            try:
                answers = iter(recommender.answers(together, wanted.k, wanted.exclude_seen, filters))
                found |= {place: [next(answers) for _ in requests] for place, requests in asked}
            except XlingError as error:
                found |= {place: error for place, _ in asked}
        return [found[place] for place in range(len(jobs))]


def _requests(recommender: Recommender, wanted: Wanted) -> list[Any]:
    if wanted.histories is None:
        return recommender.requests_of_users(wanted.users or [], wanted.reader)
    return recommender.requests_of_histories(wanted.histories, wanted.users, wanted.reader)


def _known_of(item: NewItem) -> tuple[Any, ...]:
    """Return all that a folder knows of an added item but its vectors, which are those of a model."""
    return list(item.texts.items()), item.columns


def _taken_along(found: _Now, before: _Now) -> tuple[_Now, list[str]]:
    """Return another export with what was added to the one before it and withdrawn, and what could not be added."""
    folder, recommender, missing = found.folder, found.recommender, list[str]()
    added = {item.item: item for item in read_added(folder)}
    for item in read_added(before.folder):
        there = added.get(item.item)
        same = there is not None and (_known_of(there) == _known_of(item) or not item.has_text)
        if same or item.item in recommender.trained.catalog.number:
            continue
        try:
            if not item.has_text:
                raise ConfigError("there is no text, which another model could read")
            add_items(recommender, folder, [NewItem(item.item, item.texts, item.columns)], replace=True)
        except XlingError:
            missing.append(item.item)
    recommender = as_remembered(recommender, folder)
    if items := recommender.catalog.number.keys() & set(read_withdrawn(before.folder)):
        withdraw(recommender.catalog, folder, add=items)
    return _Now(folder, found.manifest, recommender), missing
