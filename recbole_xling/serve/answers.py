"""What is answered to who asks for recommendations: lists of items, and what there is to know about each list."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

COLUMNS = ("user", "rank", "item", "title", "language", "score", "note")


@dataclass(frozen=True)
class Recommendation:
    """An item of a list.

    Attributes:
        item: external id.
        title: as the reader sees it; empty where the item has no text.
        language: in which he sees it, ``und`` where unknown.
        score: of the model, comparable within the list.
    """

    item: str
    title: str
    language: str
    score: float


@dataclass(frozen=True)
class Answer:
    """A list of items, the best first.

    Attributes:
        user: external id of who it is for; None for a history or an item that no user was named with.
        items: the list.
        notes: what the list is not, such as that of a user whom nobody knows; in plain words.
    """

    user: str | None
    items: Sequence[Recommendation]
    notes: Sequence[str] = field(default_factory=tuple)

    def record(self) -> dict[str, Any]:
        """Return the answer as plain data, as JSON has it."""
        items = [{"rank": rank, **vars(item)} for rank, item in enumerate(self.items, start=1)]
        return {"user": self.user, "items": items, "notes": list(self.notes)}


def to_frame(answers: Sequence[Answer]) -> Any:
    """Return answers as a DataFrame of pandas, one row for each item: user, rank, item, title, language, score, note.

    Without a user, ``user`` is the place of the answer, from 0, as a text. An answer without items is a row of its user
    and note alone.
    """
    import pandas as pd

    rows: list[tuple[Any, ...]] = []
    for place, answer in enumerate(answers):
        user, note = str(place) if answer.user is None else answer.user, "; ".join(answer.notes)
        rows += [(user, rank, *vars(found).values(), note) for rank, found in enumerate(answer.items, start=1)]
        if not answer.items:
            rows.append((user, *[None] * (len(COLUMNS) - 2), note))
    return pd.DataFrame(rows, columns=list(COLUMNS)).astype({"rank": "Int64", "score": float})


def short_title(title: str, longest: int) -> str:
    """Return a title in one line of at most so many letters."""
    title = " ".join(title.split())
    return title if len(title) <= longest else title[: longest - 1] + "…"
