"""Languages on their way to the dataset: stated ones normalized, missing ones identified, both compared."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

from recbole_xling.errors import ConfigError
from recbole_xling.language.identification import (
    MIN_CONFIDENCE,
    Identified,
    LanguageAgreement,
    LanguageIdentifier,
    count_confidence,
)
from recbole_xling.language.tags import NOT_ONE_LANGUAGE, UNDETERMINED, stated_language
from recbole_xling.text.record import ItemText

_logger = logging.getLogger(__name__)
_LOOKED_AT = 1000  # characters of a text; more take longer and tell nothing new
_LONGEST_NAME = 40
_REMEMBERED = 1 << 16  # texts of which the language is not identified again

MAIN = "main"
UNSURE = (UNDETERMINED, MAIN)
"""What a text may count as whose language is not identified surely: unknown, or the dataset's main language."""


class LanguageReader:
    """Makes BCP 47 tags of what a source says about languages, and identifies those it says nothing about.

    Args:
        candidates: languages among which to identify; empty for those that the source states, given by
            :meth:`choose_among`; None to identify nothing.
        min_confidence: a language identified with less is not believed, from 0 to 1.
        unsure: what an item whose language is not believed counts as, one of :data:`UNSURE`.

    Attributes:
        unread: number of times by value, of values that the source states as a language although they name none.

    Raises:
        ConfigError: ``candidates`` name no language, or another argument makes no sense.
        DataError: one of them cannot be read.
        MissingExtraError: py3langid is not installed.
    """

    def __init__(
        self,
        candidates: Sequence[str] | None = None,
        *,
        min_confidence: float = MIN_CONFIDENCE,
        unsure: str = UNDETERMINED,
    ) -> None:
        if not 0 <= min_confidence <= 1:
            raise ConfigError(f"min_confidence is a number from 0 to 1, not {min_confidence:g}")
        if unsure not in UNSURE:
            raise ConfigError(f"unsure is one of {', '.join(UNSURE)}, not {unsure!r}")
        self.min_confidence = min_confidence
        self.unsure = unsure
        self.main: str | None = None
        self.unread: Counter[str] = Counter()
        self.lacks_candidates = candidates is not None and not candidates
        self._identify: Callable[[str], Identified] | None = None
        self._languages: tuple[str, ...] = ()
        self._identified: Counter[str] = Counter()
        self._unsure: Counter[str] = Counter()
        self._confidence: Counter[float] = Counter()
        self._agreement = LanguageAgreement(min_confidence)
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
        """Return a text with its language identified if it is ``und``; compare a stated one without changing it.

        A language that is not identified surely stays ``und``.
        """
        content = ". ".join(value for value in text.fields.values() if value)[:_LOOKED_AT]
        if self._identify is None or not content:
            return text
        if text.language != UNDETERMINED:
            if any(_primary(text.language) == _primary(tag) for tag in self._languages):
                self._agreement.add(content, text.language, self._identify(content))
            return text
        found = self._identify(content)
        self._confidence[round(found.confidence, 3)] += 1
        if found.language == UNDETERMINED or found.confidence < self.min_confidence:
            self._unsure[found.language] += 1
            return text
        self._identified[found.language] += 1
        return replace(text, language=found.language, language_confidence=round(found.confidence, 3))

    def is_unsure(self, text: ItemText) -> bool:
        """Tell whether a text, as :meth:`identified` returns it, is to count as in the main language."""
        return self._identify is not None and self.unsure == MAIN and text.language == UNDETERMINED

    def find_main(self, languages: Iterable[str]) -> str:
        """Return the language that most items are in, given that of each; ``und`` if none is known."""
        counts = Counter(language for language in languages if language != UNDETERMINED)
        self.main = min(counts, key=lambda language: (-counts[language], language), default=UNDETERMINED)
        return self.main

    def summary(self) -> dict[str, Any] | None:
        """Return what was identified, as plain values for the report; None if that was not asked for."""
        if self._identify is None:
            return None
        return {
            "languages": list(self._languages),
            "min_confidence": self.min_confidence,
            "identified": dict(self._identified.most_common()),
            "unsure": dict(self._unsure.most_common()),
            "unsure_are": self.main or UNDETERMINED,
            "confidence": count_confidence(self._confidence.elements()),
            "agreement": self._agreement.summary(),
        }


def _primary(tag: str) -> str:
    return tag.partition("-")[0]
