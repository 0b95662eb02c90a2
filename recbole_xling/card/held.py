"""What the parts of a split hold, as plain typed data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Held:
    """What a part of a split holds, or one language of it.

    Attributes:
        users: in a language: those whose main language it is.
        items: different ones.
        interactions: in validation and test: targets.
        cold_interactions: those with items without a training interaction.
        cold_items: such items.
    """

    users: int
    items: int
    interactions: int
    cold_interactions: int
    cold_items: int


@dataclass(frozen=True, slots=True)
class Part(Held):
    """One part of a split, and what it holds of each language; items and interactions go by the item's language."""

    languages: Mapping[str, Held]

    def of(self, language: str) -> Held:
        """Return what the part holds of a language, zeros where it holds nothing."""
        return self.languages.get(language, Held(0, 0, 0, 0, 0))


@dataclass(frozen=True, slots=True)
class Splits:
    """The split as sequential models meet it.

    Attributes:
        setting: ``eval_args.split``.
        train, valid, test: its parts.
        untested_users: users without a test target.
        untrained_items: items of the catalogue without a training interaction.
        popularity: test targets by popularity band.
    """

    setting: Mapping[str, Any]
    train: Part
    valid: Part
    test: Part
    untested_users: int
    untrained_items: int
    popularity: Mapping[str, int]
