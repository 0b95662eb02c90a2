"""Languages on their way to the dataset: stated ones normalized, missing ones identified, both compared."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

from recbole_xling.errors import ConfigError
from recbole_xling.language.identification import Identified, LanguageAgreement, LanguageIdentifier
from recbole_xling.language.tags import NOT_ONE_LANGUAGE, UNDETERMINED, stated_language
from recbole_xling.text.record import ItemText

_logger = logging.getLogger(__name__)
_LOOKED_AT = 1000  # characters of a text; more take longer and tell nothing new
_LONGEST_NAME = 40
_REMEMBERED = 1 << 16  # texts of which the language is not identified again


class LanguageReader:
    """Makes BCP 47 tags of what a source says about languages, and identifies those it says nothing about.

    Args:
        candidates: languages among which to identify; empty for those that the source states, given by
            :meth:`choose_among`; None to identify nothing.

    Attributes:
        unread: number of times by value, of values that the source states as a language although they name none.

    Raises:
        ConfigError: ``candidates`` name no language.
        DataError: one of them cannot be read.
        MissingExtraError: py3langid is not installed.
    """

    def __init__(self, candidates: Sequence[str] | None = None) -> None:
        self.unread: Counter[str] = Counter()
        self.lacks_candidates = candidates is not None and not candidates
        self._identify: Callable[[str], Identified] | None = None
        self._languages: tuple[str, ...] = ()
        self._identified: Counter[str] = Counter()
        self._agreement = LanguageAgreement()
        if candidates:
            self.choose_among(candidates)

    def choose_among(self, candidates: Iterable[str]) -> None:
        """Identify among these languages; with a single one the script decides, which is logged as a warning.

        Raises:
            ConfigError: none of them is a language.
        """
        candidates = sorted(set(candidates) - NOT_ONE_LANGUAGE) if self.lacks_candidates else candidates
        if self.lacks_candidates and not candidates:
            raise ConfigError(
                "--identify without tags takes the languages that the source states, but it states none: name the "
                "languages, as in --identify de,en"
            )
        identifier = LanguageIdentifier(candidates)
        self._languages = identifier.languages
        self._identify = lru_cache(_REMEMBERED)(identifier.identify)
        self.lacks_candidates = False
        if len(self._languages) == 1:
            _logger.warning("only %s to choose from: every text in its script counts as that", *self._languages)

    def tag(self, stated: str) -> str:
        """Return the tag of a stated language; one that cannot be read is counted and becomes ``und``."""
        tag = stated_language(stated)
        if tag == UNDETERMINED and stated.strip().lower() not in ("", UNDETERMINED):
            self.unread[" ".join(stated.split())[:_LONGEST_NAME]] += 1
        return tag

    def identified(self, text: ItemText) -> ItemText:
        """Return a text with its language identified if it is ``und``; compare a stated one without changing it."""
        content = ". ".join(value for value in text.fields.values() if value)[:_LOOKED_AT]
        if self._identify is None or not content:
            return text
        if text.language != UNDETERMINED:
            if any(_primary(text.language) == _primary(tag) for tag in self._languages):
                self._agreement.add(content, text.language, self._identify(content))
            return text
        found = self._identify(content)
        self._identified[found.language] += 1
        if found.language == UNDETERMINED:
            return text
        return replace(text, language=found.language, language_confidence=round(found.confidence, 3))

    def summary(self) -> dict[str, Any] | None:
        """Return what was identified, as plain values for the report; None if that was not asked for."""
        if self._identify is None:
            return None
        return {
            "languages": list(self._languages),
            "identified": dict(self._identified.most_common()),
            "agreement": self._agreement.summary(),
        }


def _primary(tag: str) -> str:
    return tag.partition("-")[0]
