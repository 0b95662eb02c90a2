"""What a converter yields, and the table of converters."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import ClassVar

from recbole_xling.errors import ConfigError, unknown_name
from recbole_xling.text.record import ItemText


@dataclass(frozen=True, slots=True)
class Interaction:
    """One user met one item.

    Attributes:
        user_id: external id of the user.
        item_id: external id of the item.
        rating: None where the source has no ratings.
        timestamp: None where the source has no times; in the source's unit, larger is later.
    """

    user_id: str
    item_id: str
    rating: float | None = None
    timestamp: float | None = None


@dataclass(frozen=True, slots=True)
class Item:
    """One item of the catalogue; its texts are records of their own.

    Attributes:
        item_id: external id of the item.
        language: BCP 47 tag of its display text, ``und`` where unknown.
        features: values by column; a sequence for columns of type ``token_seq``. A column left out is empty.
    """

    item_id: str
    language: str
    features: Mapping[str, str | tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class User:
    """One user; ``features`` as those of an item."""

    user_id: str
    features: Mapping[str, str | tuple[str, ...]] = field(default_factory=dict)


class Converter(ABC):
    """Reads one raw format and yields typed records; it writes nothing.

    Every method may be called more than once and yields the same records in the same order each time.

    Class attributes:
        name: the name under which ``get_converter`` finds it.
        item_fields: type by column of :attr:`Item.features`: ``token``, ``token_seq`` or ``float``.
        user_fields: the same for :attr:`User.features`; no name may be in both.

    Args:
        input: where the raw files lie, None for the converter's own default.
    """

    name: ClassVar[str]
    item_fields: ClassVar[Mapping[str, str]] = {}
    user_fields: ClassVar[Mapping[str, str]] = {}

    def __init__(self, *, input: str | Path | None = None) -> None:
        self.input = None if input is None else Path(input)

    @abstractmethod
    def interactions(self) -> Iterator[Interaction]:
        """Yield all interactions; either all have a rating or none, and likewise a time."""

    @abstractmethod
    def items(self) -> Iterator[Item]:
        """Yield each item once."""

    @abstractmethod
    def users(self) -> Iterator[User]:
        """Yield each user once, or nothing where the source tells nothing about users."""

    @abstractmethod
    def texts(self) -> Iterator[ItemText]:
        """Yield all texts of all items; a display text is in the language of its item."""


CONVERTERS: dict[str, str] = {
    "ml-100k": "recbole_xling.convert.ml100k:MovieLens100K",
}
"""Module and class by name; a module is imported when its converter is asked for."""


def get_converter(name: str) -> type[Converter]:
    """Return the converter class of a name.

    Raises:
        ConfigError: there is no such converter; the message lists those there are.
    """
    if name not in CONVERTERS:
        raise ConfigError(unknown_name("converter", name, CONVERTERS))
    module, _, attribute = CONVERTERS[name].partition(":")
    converter: type[Converter] = getattr(import_module(module), attribute)
    return converter
