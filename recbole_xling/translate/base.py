"""What a translator is, and the table of those that exist."""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeAlias

from recbole_xling.encode.base import Identity
from recbole_xling.errors import TranslationError, unknown_name

Pair: TypeAlias = tuple[str, str]
"""Source and target language, as BCP 47 tags."""

# name -> (module of this package, class); modules are imported when their translator is asked for
_BACKENDS = {
    "command": ("command", "CommandTranslator"),
    "seq2seq": ("seq2seq", "Seq2SeqTranslator"),
}


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
    return sorted(_BACKENDS)


def create_translator(system: str, /, **options: Any) -> Translator:
    """Build the translator called ``system``.

    Args:
        system: one of :func:`translator_names`; anything else that holds a "/" or is an existing folder is taken as the
            ``model`` of ``seq2seq``.
        options: what the backend takes; an option that is None counts as not given.

    Raises:
        TranslationError: unknown name, an option the backend does not take, or one that it lacks.
        MissingExtraError: the backend's package is not installed.
    """
    options = {option: value for option, value in options.items() if value is not None}
    if system not in _BACKENDS and ("/" in system or Path(system).is_dir()):
        if "model" in options:
            raise TranslationError(
                f"translator '{system}' names a model already: drop the option model='{options['model']}'"
            )
        system, options = "seq2seq", {**options, "model": system}
    if system not in _BACKENDS:
        raise TranslationError(unknown_name("translator", system, _BACKENDS))
    backend = _load_backend(system)
    parameters = inspect.signature(backend).parameters
    for option in options:
        if option not in parameters:
            raise TranslationError(unknown_name(f"option of the {system} translator", option, parameters))
    for option, parameter in parameters.items():
        if parameter.default is parameter.empty and option not in options:
            raise TranslationError(f"the {system} translator needs the option '{option}'")
    return backend(**options)


def check_name(name: object) -> str:
    """Return a translator's name if it can stand in ``translation:<name>``.

    Raises:
        TranslationError: it is no text, empty, or holds spaces.
    """
    if not isinstance(name, str) or not re.fullmatch(r"\S+", name):
        raise TranslationError(f"{name!r} is no name for a translator: give a text without spaces")
    return name


def check_positive(**values: float) -> None:
    """Raise :class:`TranslationError` for the first of ``values`` that is not a number above zero."""
    for option, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
            raise TranslationError(f"the translator option '{option}' is {value!r}: give a number above zero")


def _load_backend(name: str) -> Callable[..., Translator]:
    module, class_name = _BACKENDS[name]
    backend: Callable[..., Translator] = getattr(importlib.import_module(f"{__package__}.{module}"), class_name)
    return backend
