"""What a conversion did: figures for the terminal and for ``<name>.convert.json``."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class ConvertReport:
    """What was written, and what was left out.

    Attributes:
        folder: the data set's folder.
        source: name of the converter.
        users: users in the data set: those of the ``.user`` file and those who interacted.
        items: rows of the ``.item`` file.
        interactions: rows of the ``.inter`` file.
        items_per_language: items by the language of their display text.
        texts_per_language: texts by language, parallel texts and translations included.
        rows_read: rows of the source, bad ones included.
        rejected: number of bad rows by reason; they are listed in ``<name>.rejects.jsonl``.
        filters: the settings of the filters that were on.
        removed: number of interactions that each of them removed, in the order in which they were applied.
        notes: what else the user should know about this source.
    """

    folder: Path
    source: str
    users: int
    items: int
    interactions: int
    items_per_language: Mapping[str, int]
    texts_per_language: Mapping[str, int]
    rows_read: int
    rejected: Mapping[str, int]
    filters: Mapping[str, object]
    removed: Mapping[str, int]
    notes: tuple[str, ...]

    def to_json(self) -> str:
        """Return the figures as JSON; the folder is left out, so that the same source gives the same file."""
        figures = {name: value for name, value in asdict(self).items() if name != "folder"}
        return json.dumps(figures, ensure_ascii=False, indent=2) + "\n"

    def lines(self) -> Iterator[str]:
        """Yield the figures as lines for the terminal."""
        yield f"{self.folder}: {self.users} users, {self.items} items, {self.interactions} interactions"
        yield f"items by language: {_counts(self.items_per_language)}"
        if dict(self.texts_per_language) != dict(self.items_per_language):
            yield f"texts by language: {_counts(self.texts_per_language)}"
        if self.removed:
            yield f"interactions removed by filters: {_counts(self.removed)}"
        if self.rejected:
            rejects = self.folder / f"{self.folder.name}.rejects.jsonl"
            yield f"bad rows: {_counts(self.rejected)} of {self.rows_read}; they are listed in {rejects}"
        yield from (f"note: {note}" for note in self.notes)


def _counts(numbers: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {number}" for name, number in numbers.items()) or "none"
