"""What a conversion did: figures for the terminal and for ``<name>.convert.json``."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

_MOST = 10  # languages, or pairs of them, in a line


@dataclass(frozen=True, slots=True)
class ConvertReport:
    """What was written, and what was left out.

    Attributes:
        folder: the dataset's folder.
        source: name of the converter.
        users: users in the dataset: those of the ``.user`` file and those who interacted.
        items: rows of the ``.item`` file.
        interactions: rows of the ``.inter`` file.
        impressions: rows of the ``.imp`` file, None if the source has none.
        items_per_language: items by the language of their display text.
        texts_per_language: texts by language, parallel texts and translations included.
        unread_languages: what the source states as a language although it names none, or several, with how often it
            does; it became ``und``. None if all could be read.
        identification: how languages were identified, None if they were not: ``languages`` to choose from; number of
            texts ``identified`` by language with at least ``min_confidence``; number of ``unsure`` ones by the language
            guessed, and the language that such items count as, ``unsure_are``; number of texts by ``confidence``;
            ``agreement`` of stated with identified languages, as in
            :meth:`~recbole_xling.language.identification.LanguageAgreement.summary`.
        cleaning: parts of texts that each step of the cleaning ``changed``, and ``broken`` ones, whose characters are
            damaged beyond repair; None if texts were not cleaned.
        user_profiles: the ``history`` that users' profiles come from; number of users whose language is ``stated``,
            ``derived`` or ``unknown``, and of ``bilingual`` ones. None without profiles.
        arbitrary_order: True if the time stamps order each user's interactions by chance, None if they tell times.
        rows_read: rows of the source, bad ones included.
        rejected: number of bad rows by reason; they are listed in ``<name>.rejects.jsonl``.
        omitted: number of rows that stay without a cell or a text, by what is wrong with it; listed in the same file.
        filters: the settings of the filters that were on.
        removed: number of interactions that each of them removed, in the order in which they were applied.
        notes: what else the user should know about this source.
    """

    folder: Path
    source: str
    users: int
    items: int
    interactions: int
    impressions: int | None
    items_per_language: Mapping[str, int]
    texts_per_language: Mapping[str, int]
    unread_languages: Mapping[str, int] | None
    identification: Mapping[str, Any] | None
    cleaning: Mapping[str, Any] | None
    user_profiles: Mapping[str, Any] | None
    arbitrary_order: bool | None
    rows_read: int
    rejected: Mapping[str, int]
    omitted: Mapping[str, int]
    filters: Mapping[str, object]
    removed: Mapping[str, int]
    notes: tuple[str, ...]

    def to_json(self) -> str:
        """Return the figures that are not None as JSON, without the folder: the same source gives the same file."""
        figures = {name: value for name, value in asdict(self).items() if name != "folder" and value is not None}
        return json.dumps(figures, ensure_ascii=False, indent=2) + "\n"

    def lines(self) -> Iterator[str]:
        """Yield the figures as lines for the terminal."""
        impressions = "" if self.impressions is None else f", {self.impressions} impressions"
        yield f"{self.folder}: {self.users} users, {self.items} items, {self.interactions} interactions{impressions}"
        yield f"items by language: {_counts(self.items_per_language)}"
        if dict(self.texts_per_language) != dict(self.items_per_language):
            yield f"texts by language: {_counts(self.texts_per_language)}"
        if self.unread_languages:
            yield f"no language, so und: {_counts(self.unread_languages, _MOST)}"
        if self.identification is not None:
            yield from _identification(self.identification)
        if self.user_profiles is not None:
            profiles = dict(self.user_profiles)
            yield f"user profiles, from {profiles.pop('history')}: {_counts(profiles)}"
        if self.removed:
            yield f"interactions removed by filters: {_counts(self.removed)}"
        rejects = self.folder / f"{self.folder.name}.rejects.jsonl"
        if self.rejected:
            yield f"bad rows: {_counts(self.rejected)} of {self.rows_read}; they are listed in {rejects}"
        if self.omitted:
            yield f"left out of rows that stay: {_counts(self.omitted)}; they are listed in {rejects}"
        if self.cleaning is not None and self.cleaning["changed"]:
            yield f"texts changed by cleaning: {_counts(self.cleaning['changed'])}"
        if self.cleaning is not None and self.cleaning["broken"]:
            yield f"texts with characters that are damaged beyond repair: {self.cleaning['broken']}"
        yield from (f"note: {note}" for note in self.notes)


def _identification(figures: Mapping[str, Any]) -> Iterator[str]:
    identified, unsure, agreement = figures["identified"], figures["unsure"], figures["agreement"]
    if identified:
        yield f"texts by identified language: {_counts(identified)}"
    if unsure:
        least, guesses = figures["min_confidence"], _counts(unsure, _MOST)
        yield f"not identified with a confidence of {least:g}, so {figures['unsure_are']}: {guesses} as guessed"
    if identified or unsure:
        yield f"texts by confidence of the identification: {_counts(figures['confidence'])}"
    if agreement["compared"]:
        pairs = {f"{pair['stated']} seems {pair['identified']}": pair["count"] for pair in agreement["examples"]}
        differ = f"stated and identified languages differ in {sum(pairs.values())} of {agreement['compared']} texts"
        yield differ + (f": {_counts(pairs, _MOST)} (examples in the .convert.json file)" if pairs else "")


def _counts(numbers: Mapping[str, int], most: int | None = None) -> str:
    """Return names and numbers, the first ``most`` of them."""
    shown = [f"{name} {number}" for name, number in islice(numbers.items(), most)]
    return ", ".join([*shown, *(["..."] if len(shown) < len(numbers) else [])]) or "none"
