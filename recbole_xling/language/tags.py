"""Language tags (BCP 47): the tag of unknown languages, predicates, and one spelling for each language."""

from __future__ import annotations

import re
from contextlib import suppress
from functools import lru_cache

from recbole_xling.errors import ConfigError, DataError

UNDETERMINED = "und"
"""The tag of texts, items and users whose language is unknown."""

NOT_ONE_LANGUAGE = frozenset((UNDETERMINED, "mul", "mis", "zxx"))
"""Tags of ISO 639 that do not name one language: undetermined, several, uncoded, no linguistic content."""

_LANGUAGE = re.compile(r"[A-Za-z]{2,3}(-[A-Za-z0-9]{1,8})*")
_CODE = re.compile(r"[a-z]{1,3}([-_].*)?", re.IGNORECASE | re.DOTALL)
_UNDETERMINED = re.compile(r"(und([-_].*)?)?", re.IGNORECASE | re.DOTALL)
_NO_VALUE = frozenset(("nan", "nil", "unk"))  # "none" and "null" are no codes
_NO_COUNTRY = "Unknown Region"
# As in CLDR since release 39, "no" means Bokmål; langcodes leaves "nb" as it is. Filipino and Tagalog are one language
# in CLDR under "fil", but "tl" in ISO 639-1, py3langid and most models.
_SAME_AS = {"nb": "no", "fil": "tl"}


@lru_cache(maxsize=4096)
def is_language(tag: str) -> bool:
    """Tell whether ``tag`` has the form of a BCP 47 language tag such as ``de``, ``zh-Hant`` or ``und``."""
    return _LANGUAGE.fullmatch(tag) is not None


def covers(language: str, tag: str) -> bool:
    """Tell whether ``tag`` is ``language`` or a variant of it, as ``en-GB`` is of ``en`` (RFC 4647, section 3.3.1)."""
    return f"{tag.lower()}-".startswith(f"{language.lower()}-")


# ---- one spelling for each language ---------------------------------------------------------------------------


@lru_cache(maxsize=4096)
def normalize_language(tag: str) -> str:
    """Return the BCP 47 tag of a language given as a tag, an ISO 639 code or a name.

    One language gets one tag, by the rules of Unicode CLDR: ``EN``, ``eng``, ``en_US`` and ``Englisch`` are ``en``.
    Old codes are replaced (``iw`` by ``he``), and so is the main language of a macrolanguage (``cmn`` by ``zh``, ``nb``
    by ``no``). Regions are dropped, because they say where a text is from rather than what language it is in; only the
    script that they imply counts. A script is kept if it is not the language's usual one: ``zh-CN`` and ``zh-Hans`` are
    ``zh``, ``zh-TW`` is ``zh-Hant``, ``sr-Latn`` stays.

    Args:
        tag: an empty one, or any that begins with ``und``, gives ``und``. Two capitals that are also the code of a
            country where mostly another language is spoken (``SE``, ``UK``) may be a market and are refused; in small
            letters they are a language.

    Raises:
        DataError: the tag does not name a language; the caller adds where it was found.
    """
    tag = tag.strip()
    if _UNDETERMINED.fullmatch(tag):
        return UNDETERMINED
    import langcodes

    _refuse_market(tag)
    if _CODE.fullmatch(tag):
        if langcodes.tag_is_valid(tag):
            return _shortest(tag)
    elif tag.isprintable():  # langcodes' table of names breaks on NUL
        with suppress(LookupError):
            found = langcodes.find(tag).to_tag()
            return UNDETERMINED if _UNDETERMINED.fullmatch(found) else _shortest(found)
    raise DataError(
        f"{tag!r} names no language; write a BCP 47 tag like 'de' or 'zh-Hant', or a name like 'German'; "
        "if the language is unknown, write 'und'"
    )


@lru_cache(maxsize=4096)
def stated_language(value: str) -> str:
    """Return the BCP 47 tag of a language that data state; ``und`` if the value does not name exactly one.

    A mere ``nan``, ``nil`` or ``unk`` is what programs write for a missing value, not Min Nan, Nila or Enawené-Nawé,
    whose codes these are: ``Min Nan Chinese`` and ``nan-Hant`` are languages.
    """
    if value.strip().lower() in _NO_VALUE:
        return UNDETERMINED
    try:
        tag = normalize_language(value)
    except DataError:
        return UNDETERMINED
    return UNDETERMINED if tag in NOT_ONE_LANGUAGE else tag


def asked_language(tag: str) -> str:
    """Return the BCP 47 tag of a language that an option names.

    Raises:
        ConfigError: it does not name a language; the message says what to write.
    """
    try:
        return normalize_language(tag)
    except DataError as error:
        raise ConfigError(str(error)) from None


def _refuse_market(tag: str) -> None:
    """Raise for a country's code that is not a language's, or that in capitals means a language not spoken there."""
    from langcodes import Language, tag_is_valid

    if len(tag) != 2 or not tag.isascii() or not tag.isalpha() or not tag_is_valid(f"und-{tag}"):
        return
    spoken = _shortest(f"und-{tag}")
    country = Language.get(f"und-{tag}").territory_name()
    if not tag_is_valid(tag) and not country.startswith(_NO_COUNTRY):
        raise DataError(f"{tag!r} is a country or market ({country}), not a language; did you mean '{spoken}'?")
    if tag.isupper() and _shortest(tag) != spoken:
        meant = f"'{_shortest(tag)}' for {Language.get(tag).language_name()}"
        raise DataError(f"{tag!r} may be a market ({country}) or a language; write {meant} or '{spoken}'")


def _shortest(tag: str) -> str:
    """Return the language, with its script if that is not the usual one."""
    from langcodes import Language

    full = Language.get(tag).maximize().prefer_macrolanguage()
    language = _SAME_AS.get(str(full.language), str(full.language))
    short = language if full.script == Language.get(language).maximize().script else f"{language}-{full.script}"
    if not is_language(short):
        raise DataError(f"{tag!r} is a private tag, not a language; write 'und' if the language is unknown")
    return short
