"""Language tags (BCP 47): the tag of unknown languages, predicates, and one spelling for each language."""

from __future__ import annotations

import re
from collections.abc import Collection
from functools import cache, lru_cache
from string import whitespace
from typing import TYPE_CHECKING

from recbole_xling.errors import ConfigError, DataError

if TYPE_CHECKING:
    from marisa_trie import BytesTrie

UNDETERMINED = "und"
"""The tag of texts, items and users whose language is unknown."""

NOT_ONE_LANGUAGE = frozenset((UNDETERMINED, "mul", "mis", "zxx"))
"""Tags of ISO 639 that do not name one language: undetermined, several, uncoded, no linguistic content."""

_LANGUAGE = re.compile(r"[A-Za-z]{2,3}(-[A-Za-z0-9]{1,8})*")
_CODE = re.compile(r"[a-z]{1,3}([-_].*)?", re.IGNORECASE | re.DOTALL)
_UNDETERMINED = re.compile(r"(und([-_].*)?)?", re.IGNORECASE | re.DOTALL)
_NO_VALUE = frozenset("all any mix na nan nd nil non nul tba tbd unk yes".split())  # "none" and "null" are no codes
_AROUND = f"{whitespace},"
_NO_COUNTRY = "Unknown Region"
_COUNTRY_CODE = re.compile(r'<territoryCodes type="([A-Z]{2})"[^>]* alpha3="([A-Z]{3})"')  # in CLDR's data
# Names: of ISO 639-2, such as "Greek, Ancient (to 1453)", which some write "Chinese - Simplified", and of CLDR,
# such as "Chinese (Traditional, Taiwan)"
_YEARS = re.compile(r" ?\([^()\d]*\d[^()]*\)$")
_KIND_LAST = re.compile(r"([^,]+?)(?:, ?| - )([^,]+)")
_WITH_VARIANT = re.compile(r"(.+?) ?\(([^()]+)\)")
# As in CLDR since release 39, "no" means Bokmål; langcodes leaves "nb" as it is. Filipino and Tagalog are one language
# in CLDR under "fil", but "tl" in ISO 639-1, py3langid and most models.
_SAME_AS = {"nb": "no", "fil": "tl"}


@lru_cache(maxsize=4096)
def is_language(tag: str) -> bool:
    """Tell whether ``tag`` has the form of a BCP 47 language tag such as ``de``, ``zh-Hant`` or ``und``."""
    return _LANGUAGE.fullmatch(tag) is not None


@lru_cache(maxsize=4096)
def cased_tag(tag: str) -> str:
    """Return a tag in the letter case that RFC 5646 (section 2.1.1) recommends: ``en``, ``zh-Hant``, ``en-GB``.

    Letter case has no meaning in tags, but here each spelling would be a language of its own. What is no tag stays.

    Raises:
        DataError: it is a code in capitals that may be a country's (``UK``, ``SE``).
    """
    if not is_language(tag):
        return tag
    if tag.isupper():
        _refuse_market(tag)
    language, *others = tag.split("-")
    cased = [language.lower()]
    for part in others:
        of_extension = len(cased[-1]) == 1  # as in en-x-us
        change = str.lower if of_extension else {2: str.upper, 4: str.title}.get(len(part), str.lower)
        cased.append(change(part))
    return "-".join(cased)


def tag_among(value: str, known: Collection[str]) -> str:
    """Return the tag of a language that data state: one of ``known`` as others have it, else :func:`stated_language`.

    A variant such as ``en-GB`` stays one where it is known. Where only another tag of the same language is known, it is
    that one: ``iw`` for ``he``, ``nb`` for ``nb-NO``.
    """
    if value in known:
        return value
    cased = cased_tag(value.replace("_", "-")) if re.search("[-_]", value) else value
    if cased in known:
        return cased
    stated = stated_language(value)
    if stated == UNDETERMINED or any(covers(stated, tag) for tag in known):
        return stated
    return min((tag for tag in known if is_same_language(stated, tag)), default=stated)


def reader_among(value: str, known: Collection[str]) -> str:
    """Return the tag of ``known`` that serves readers of a language: its own, or else the nearest of its variants.

    Where only ``en-GB`` is known, readers who state ``en``, ``en-US`` or ``English`` are served as those of ``en-GB``.
    Another script, as ``zh-Hant`` for ``zh``, serves nobody. Where nothing serves them it is :func:`tag_among`.
    """
    tag = tag_among(value, known)
    if tag in known:
        return tag
    variants = sorted(other for other in known if covers(tag, other) and stated_language(other) == tag)
    if len(variants) < 2:
        return variants[0] if variants else tag
    import langcodes

    asked = value.replace("_", "-")
    return langcodes.closest_match(asked if langcodes.tag_is_valid(asked) else tag, variants)[0]


def covers(language: str, tag: str) -> bool:
    """Tell whether ``tag`` is ``language`` or a variant of it, as ``en-GB`` is of ``en`` (RFC 4647, section 3.3.1)."""
    return f"{tag.lower()}-".startswith(f"{language.lower()}-")


def is_same_language(language: str, tag: str) -> bool:
    """Tell whether two tags are of one language in other spellings: ``no`` and ``nb``, ``he`` and ``iw``.

    Args:
        language: as :func:`normalize_language` writes it.
        tag: any.
    """
    return tag != UNDETERMINED and stated_language(tag) == language


# ---- one spelling for each language ---------------------------------------------------------------------------


@lru_cache(maxsize=4096)
def normalize_language(tag: str) -> str:
    """Return the BCP 47 tag of a language given as a tag, an ISO 639 code or a name.

    One language gets one tag, by the rules of Unicode CLDR: ``EN``, ``eng``, ``en_US`` and ``Englisch`` are ``en``.
    Old codes are replaced (``iw`` by ``he``), and so is the main language of a macrolanguage (``cmn`` by ``zh``, ``nb``
    by ``no``). Regions are dropped, because they say where a text is from rather than what language it is in; only the
    script that they imply counts. A script is kept if it is not the language's usual one: ``zh-CN`` and ``zh-Hans`` are
    ``zh``, ``zh-TW`` is ``zh-Hant``, ``sr-Latn`` stays. It also stays where the language alone would read as no value
    (:func:`states_nothing`): Nauruan is ``na-Latn``.

    Args:
        tag: an empty one, or any that begins with ``und``, gives ``und``. Two capitals that are also the code of a
            country where mostly another language is spoken (``SE``, ``UK``) may be a market and are refused, and so
            are three (``USA``, ``CAN``); in small letters they are a language. A name must be one in full: neither
            ``English and German`` nor ``Germany`` names one language.

    Raises:
        DataError: the tag does not name a language; the caller adds where it was found.
    """
    tag = _bare(tag)
    if _UNDETERMINED.fullmatch(tag):
        return UNDETERMINED
    import langcodes

    _refuse_market(tag)
    if _CODE.fullmatch(tag):
        if langcodes.tag_is_valid(tag):
            return _shortest(tag)
    elif tag.isprintable():  # the tables of names break on NUL
        found = _named_language(" ".join(tag.split()))
        if found is not None:
            return found
    raise DataError(
        f"{tag!r} names no language; write a BCP 47 tag like 'de' or 'zh-Hant', or a name like 'German'; "
        "if the language is unknown, write 'und'"
    )


def states_nothing(value: str) -> bool:
    """Tell whether a language's cell has a word for no value, or for no single one, although that is a code as well."""
    return _bare(value).lower() in _NO_VALUE


def _bare(value: str) -> str:
    """Return a value without commas, spaces and brackets around the whole of it: ``en`` of ``(en),``."""
    bare = value.strip(_AROUND)
    inside = bare[1:-1]
    return inside.strip() if bare == f"({inside})" and not re.search("[()]", inside) else bare


@lru_cache(maxsize=4096)
def stated_language(value: str) -> str:
    """Return the BCP 47 tag of a language that data state; ``und`` if the value does not name exactly one.

    A mere ``nan``, ``na`` or ``all`` is what people and programs write where there is no value, or no single one, and
    not Min Nan, Nauruan or Allar, whose codes these are (``all any mix na nan nd nil non nul tba tbd unk yes``): ``Min
    Nan Chinese`` and ``nan-Hant`` are languages.
    """
    if states_nothing(value):
        return UNDETERMINED
    try:
        tag = normalize_language(value)
    except DataError:
        return UNDETERMINED
    return UNDETERMINED if tag in NOT_ONE_LANGUAGE else tag


def asked_language(tag: str) -> str:
    """Return the BCP 47 tag of a language that an option names; one that reads as no value in data is one here.

    Raises:
        ConfigError: it does not name a language; the message says what to write.
    """
    try:
        return _bare(tag).lower() if states_nothing(tag) else normalize_language(tag)
    except DataError as error:
        raise ConfigError(str(error)) from None


def _named_language(name: str) -> str | None:
    """Return the tag of the language that a name in any language means; None if it means none, or several.

    Several names may be those of one language, as ISO 639-2 has ``Spanish; Castilian``.
    """
    without_years = _YEARS.sub("", name)
    code = _code("language", name) or _code("language", without_years)
    if code is None and (kind := _KIND_LAST.fullmatch(without_years)):
        code = _code("language", f"{kind[2]} {kind[1]}")
    if code is None and (variant := _WITH_VARIANT.fullmatch(name)):
        code = _variant(*variant.groups())
    found = None if code is None else UNDETERMINED if _UNDETERMINED.fullmatch(code) else _shortest(code)
    names = re.split(" ?[;/] ?", name) if re.search("[;/]", name) else re.split(", ?", name)
    tags = {_named_language(one) for one in names} if len(names) > 1 else {found}
    if found in tags or None in tags:
        return found
    return tags.pop() if len(tags) == 1 else None  # "Spanish, Arabic" are two, although there is a Spanish Arabic


def _variant(name: str, variant: str) -> str | None:
    """Return the tag of a language in the scripts or regions named by ``variant``; None if one of them is no such."""
    from langcodes import tag_is_valid

    codes = [_code("language", name)]
    codes += [_code("script", part) or _code("territory", part) for part in variant.split(",")]
    tag = "-".join(code or "" for code in codes)
    return tag if None not in codes and tag_is_valid(tag) else None


def _code(kind: str, name: str) -> str | None:
    """Return what the whole of a name means as a ``language``, ``script`` or ``territory``, if it means one.

    langcodes' own search is content with the beginning of a name: to it, ``English/German`` is English.
    """
    from language_data.names import get_trie_value, normalize_name

    key = normalize_name(re.sub("[,()]", " ", name))  # which it would leave out: "en,de" is not Ende's "end"
    if kind == "language" and key in _names("en", "territory"):
        return None  # "Finland" is the word for Finnish somewhere
    keys = (key, " ".join(key.split()))
    tables = (_names("und", kind), _names("en", kind))  # that of all languages lacks "Hindi"
    return next((str(get_trie_value(table, key)) for table in tables for key in keys if key in table), None)


@cache
def _names(language: str, kind: str) -> BytesTrie:
    """Return the codes by names in a language."""
    from language_data.names import load_trie
    from language_data.util import data_filename

    return load_trie(data_filename(f"trie/{language}/name_to_{kind}.marisa"))


@cache
def _countries() -> dict[str, str]:
    """Return the two-letter codes of countries by those of three letters (ISO 3166)."""
    from language_data.util import data_filename

    with open(data_filename("supplementalData.xml"), encoding="utf-8") as file:
        return {three: two for two, three in _COUNTRY_CODE.findall(file.read())}


def _refuse_market(tag: str) -> None:
    """Raise for a country's code that is not a language's, or that in capitals means a language not spoken there."""
    from langcodes import Language, tag_is_valid

    if not tag.isascii() or not tag.isalpha():
        return
    code = tag if len(tag) == 2 else _countries().get(tag, "") if len(tag) == 3 and tag.isupper() else ""
    if not code or not tag_is_valid(f"und-{code}"):
        return
    spoken = _shortest(f"und-{code}")
    country = Language.get(f"und-{code}").territory_name()
    if country.startswith(_NO_COUNTRY):
        return
    if not tag_is_valid(tag):
        raise DataError(f"{tag!r} is a country or market ({country}), not a language; did you mean '{spoken}'?")
    if tag.isupper() and _shortest(tag) != spoken:
        meant = f"'{_shortest(tag)}' for {Language.get(tag).language_name()}"
        raise DataError(f"{tag!r} may be a market ({country}) or a language; write {meant} or '{spoken}'")


def _shortest(tag: str) -> str:
    """Return the language, with its script if that is not the usual one."""
    from langcodes import Language

    full = Language.get(tag).maximize().prefer_macrolanguage()
    language = _SAME_AS.get(str(full.language), str(full.language))
    is_usual = full.script == Language.get(language).maximize().script and language not in _NO_VALUE
    short = language if is_usual else f"{language}-{full.script}"
    if not is_language(short):
        raise DataError(f"{tag!r} is a private tag, not a language; write 'und' if the language is unknown")
    return short
