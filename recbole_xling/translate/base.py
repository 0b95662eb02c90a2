"""The interface of a translator, and the table of those that exist."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from typing import Any, Protocol, TypeAlias

from recbole_xling.encode.base import Identity
from recbole_xling.errors import TranslationError
from recbole_xling.utils.backends import Backends

Pair: TypeAlias = tuple[str, str]
"""Source and target language, as BCP 47 tags."""

TRANSLATORS = Backends(
    kind="translator",
    package=__package__,
    classes={"command": ("command", "CommandTranslator"), "seq2seq": ("seq2seq", "Seq2SeqTranslator")},
    for_models="seq2seq",
    error=TranslationError,
)


class Translator(Protocol):
    """Turns texts of one language into another."""

    @property
    def name(self) -> str:
        """What records call it: ``translation:<name>``."""

    @property
    def identity(self) -> Identity:
        """Everything that changes the translations, as plain JSON data. Read without loading any weights."""

    def check_pairs(self, pairs: Collection[Pair]) -> None:
        """Raise :class:`TranslationError` unless it can translate between all these pairs of languages."""

    def translate(self, texts: Sequence[str], source: str, target: str) -> list[str]:
        """Return one translation per text, in the order of ``texts``; no text is empty."""


def translator_names() -> list[str]:
    """Return the names :func:`create_translator` knows."""
    return sorted(TRANSLATORS.classes)


def create_translator(system: str, /, **options: Any) -> Translator:
    """Build the translator called ``system``.

    Args:
        system: one of :func:`translator_names`; anything else that contains a "/" or is an existing folder is taken as
            the ``model`` of ``seq2seq``.
        options: what the backend takes; an option that is None counts as not given.

    Raises:
        TranslationError: unknown name, an option that the backend does not take, or a missing one.
        MissingExtraError: the backend's package is not installed.
    """
    translator: Translator = TRANSLATORS.create(system, options)
    return translator


def check_name(name: object) -> str:
    """Return a translator's name if it can be part of the source ``translation:<name>``.

    Raises:
        TranslationError: it is not a text, is empty, or contains spaces.
    """
    if not isinstance(name, str) or not re.fullmatch(r"\S+", name):
        raise TranslationError(f"{name!r} cannot be the name of a translator: give a text without spaces")
    return name
