"""Cleaning item texts (product titles, headlines, descriptions) in steps: markup, encoding, placeholders, length."""

from __future__ import annotations

import html
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from html.entities import html5
from typing import Any

from recbole_xling.errors import ConfigError, unknown_name

# ---- markup ---------------------------------------------------------------------------------------------------

# elements within a word, as in "H<sub>2</sub>O"
_INLINE = "a abbr b bdi bdo big cite code dfn em font i ins kbd mark q s samp small span strike strong sub sup tt u var"
# elements between words, as in "one<br>two"
_BLOCK = (
    "address article aside audio blockquote body br button caption center dd del details div dl dt embed fieldset "
    "figcaption figure footer form h1 h2 h3 h4 h5 h6 head header hr html iframe img input label li link main meta nav "
    "noscript object ol option p param picture pre script section select source style summary svg table tbody td "
    "textarea tfoot th thead tr ul video wbr"
)
_INLINE_TAGS = frozenset(_INLINE.split())
_NAMES = "|".join(sorted(_INLINE.split() + _BLOCK.split(), key=len, reverse=True))
_TAG = re.compile(rf"</?({_NAMES})(\s[^<>]*)?/?>", re.IGNORECASE)
_CDATA = re.compile(r"<!\[CDATA\[|\]\]>")
# no branch reads past the next opening, so that time stays linear in markup that is never closed
_UNSEEN = re.compile(
    r"<!--(?:(?!<!--).)*?-->|<(script|style)(?:\s[^<>]*)?>(?:(?!<(?:script|style)\b).)*?</\1\s*>",
    re.IGNORECASE | re.DOTALL,
)
_ESCAPED_AMPERSAND = re.compile(r"&(?:(?:amp|#0*38|#x0*26);)+", re.IGNORECASE)
_ENTITY = re.compile(r"&(?:#[0-9]{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,31});")

_NBSP = re.compile(r"&\s?nbsp\b;?", re.IGNORECASE)
_WIKI_LINK = re.compile(r"\[\[(?:VIDEOID:[^\[\]]*|(?:ASIN:\w+\s?|[^\[\]|]*\|)?([^\[\]]*))\]\]")
_LITERAL_ESCAPE = re.compile(r"(?:\\u[0-9a-fA-F]{4})+")
_TRUNCATION = re.compile(r"(?:\.\.\.|…)?\s?\[\+[0-9]+ chars\]")
# four dots and "F**k" are meant; five of one kind are a ruler or an outburst
_PUNCTUATION_RUN = re.compile(r"([!?.,;:*\-_=~#+|/\\…。、，！？・—–])\1{4,}")
_RUN_LENGTH = 3


def strip_html(text: str) -> str:
    """Resolve entities (those escaped several times too) and remove comments, scripts and tags.

    Only the names of HTML elements make a tag, and only ``name=`` makes an attribute: ``<3``, ``3 < 4``,
    ``<Untitled>`` and ``a <b and c> d`` stay. An entity ends in a semicolon: ``AT&T`` and ``Q&notes`` stay.
    """
    if "&" in text:
        text = _ESCAPED_AMPERSAND.sub("&", text)
        # only whole names: of an unknown one, html.unescape would resolve the beginning ("&notes;" to "¬es;")
        text = _ENTITY.sub(lambda m: html.unescape(m[0]) if m[0][1] == "#" or m[0][1:] in html5 else m[0], text)
    if "<" in text or "]]>" in text:
        text = _TAG.sub(_tag, _UNSEEN.sub(" ", _CDATA.sub("", text)))
    return text


def _tag(match: re.Match[str]) -> str:
    """Return what replaces a tag: nothing, a space, or itself if it is not a tag after all."""
    name, attributes = match[1].lower(), (match[2] or "").strip(" /")
    if attributes and "=" not in attributes:
        return match[0]
    return "" if name in _INLINE_TAGS else " "


def strip_junk(text: str) -> str:
    r"""Remove leftovers of other markup.

    Leftover ``&nbsp``; wiki links and Amazon's ``[[ASIN:... name]]`` (the name stays); literal ``\u200b`` (becomes
    the character); ``... [+1234 chars]`` of news services; runs of five and more of one punctuation mark (three stay).
    """
    if "nbsp" in text:
        text = _NBSP.sub(" ", text)
    if "[" in text:
        text = _TRUNCATION.sub("", _WIKI_LINK.sub(lambda match: match[1] or "", text))
    if "\\u" in text:
        # decoded as UTF-16, the two halves of a surrogate pair become one character
        text = _LITERAL_ESCAPE.sub(
            lambda match: bytes.fromhex(match[0].replace("\\u", "")).decode("utf-16-be", "ignore"), text
        )
    return _PUNCTUATION_RUN.sub(lambda match: match[1] * _RUN_LENGTH, text)


# ---- characters -----------------------------------------------------------------------------------------------

# NFKC would turn these into another text: 8½ into 81⁄2, Nike™ into NikeTM, 1º into 1o, ① into 1
_KEPT_KINDS = frozenset(("<fraction>", "<super>", "<sub>", "<circle>"))
# the ordinary spelling of their languages: letters that NFKC would split, punctuation of Chinese and Japanese
_KEPT_CHARACTERS = frozenset("ևำຳໜໝ！（），：；？～")
_HANGUL_PART = re.compile("[\u1100-\u11ff]")

_CONTROL = re.compile(
    "[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\xad\u061c\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\ufeff"
    "\ufff9-\ufffb\U000e0000-\U000e007f\ud800-\udfff]"
)
# Arabic, Syriac, N'Ko, India's scripts, Myanmar, Khmer, Mongolian: joiners spell words there
_JOINING = "\u0600-\u08ff\u0900-\u0dff\u1000-\u109f\u1780-\u18af\ufb50-\ufdff\ufe70-\ufefc"
_EMOJI = "\u2600-\u27bf\ufe0f\U0001f000-\U0001faff"
_STRAY_JOINER = re.compile(f"(?<![{_JOINING}])\u200c|(?<![{_JOINING}{_EMOJI}])\u200d")


_REPLACED = "\ufffd"  # what decoders write for a character that they cannot read
# UTF-8 that was read as Latin-1 twice, and lost U+0082 (before a sign) or U+0083 (before a letter) to a question mark:
# next to a letter it is a letter; Spanish marks stand before words
_TWICE = re.compile(
    "(?<=[A-Za-z\xa0-\xff])Ã\\?Â([\xa0-\xbe])|Ã\\?Â([\xa0-\xbe])(?=[A-Za-zÀ-ÿ])|(?<![^ ])Ã\\?Â(\xa0)(?= )"
)
_TWICE_MARK = re.compile("Ã\\?Â(¿)|(?<![A-Za-z\xa0-\xff])Ã\\?Â(¡)(?=[A-ZÀ-Þ])")
# the same after a loss that leaves several letters possible; "AMANHÃ?" is a word
_LOST = re.compile("(?<=[a-zà-ÿ])Ã\\?|Ã\\?(?=[a-zà-ÿÂ\xa0-\xbf])|â€|ï¿½|\ufffd")


def repair_encoding(text: str) -> str:
    """Undo UTF-8 that was read in another encoding, by ftfy (R. Speer, https://ftfy.readthedocs.io).

    ``CafÃ©`` becomes ``Café``, and so does ``CafÃ?Â©``, the same read twice and damaged once. Where a letter is lost,
    as in ``StraÃ?Â?e``, the text stays as it is: :func:`is_broken` tells.
    """
    if text.isascii():
        return text
    import ftfy

    text = _TWICE_MARK.sub(lambda match: match[match.lastindex or 0], text)
    text = _TWICE.sub(lambda match: chr(ord(match[match.lastindex or 0]) + 0x40), text)
    fixed = ftfy.fix_encoding(text, replace_lossy_sequences=False)
    return fixed if fixed.count(_REPLACED) <= text.count(_REPLACED) else text


def is_broken(text: str) -> bool:
    """Tell whether characters of a text are damaged, as far as can be seen, so that :func:`repair_encoding` failed."""
    return not text.isascii() and _LOST.search(text) is not None


def normalize_unicode(text: str) -> str:
    """Return NFKC, except for characters whose compatibility form means something else.

    As in NFKC: full-width letters and digits, half-width kana, Arabic presentation forms, ligatures, styled letters,
    Roman numerals, ``…`` as three dots, squared units (``㎏``), all kinds of space. Kept: fractions (``8½``),
    superscripts and subscripts (``™``, ``²``, ``º``), circled characters, spacing accents (``´``), single Hangul
    letters (``ㅋㅋ``), letters of Thai, Lao and Armenian that NFKC would split, and the full-width punctuation of
    Chinese and Japanese.
    """
    if unicodedata.is_normalized("NFKC", text):
        return text
    return unicodedata.normalize("NFC", "".join(map(_compatible, text)))


@lru_cache(maxsize=1 << 16)
def _compatible(character: str) -> str:
    folded = unicodedata.normalize("NFKC", character)
    kind = unicodedata.decomposition(character).partition(" ")[0]
    loses = kind in _KEPT_KINDS or character in _KEPT_CHARACTERS
    splits = (folded.startswith(" ") and len(folded) > 1) or _HANGUL_PART.search(folded)
    return character if loses or (splits and kind.startswith("<")) else folded


def strip_controls(text: str) -> str:
    """Remove NUL, control characters, half surrogates, zero-width characters, bidi marks and tag characters.

    White space stays, and so do zero-width (non-)joiners after a letter of a script that spells with them (Persian,
    Hindi, Malayalam, ...) and the joiners of emoji.
    """
    return text if text.isprintable() else _STRAY_JOINER.sub("", _CONTROL.sub("", text))


def strip_spaces(text: str) -> str:
    """Turn every run of white space, line breaks included, into one space, and strip both ends."""
    return " ".join(text.split())


# ---- texts that say nothing, and long ones --------------------------------------------------------------------

# Compared in lower case without brackets, quotation marks and full stops around them. Words that may well be a title
# ("Unknown", "Untitled", "NA") are not listed.
PLACEHOLDERS = frozenset(
    """
    n/a|n.a|#n/a|none|null|nan|undefined|tbd|tba|-|--|---|–|—|_
    not available|not applicable|not applicable (na|no title|no title available|title not available
    no overview found|no overview|no overview available|no plot|no plot available|plot unknown|add a plot
    we don't have an overview translated in english. help us expand our database by adding one
    no description|no description found|no description available|no description provided|description not available
    no abstract|no abstract available|abstract not available|no summary|no summary available|no synopsis available
    k.a|keine angabe|keine angaben|keine beschreibung|keine beschreibung vorhanden|keine beschreibung verfügbar
    sans description|pas de description|aucune description|aucun résumé|sin descripción|sin sinopsis|sin título
    nessuna descrizione|nessuna trama|sem descrição|sem sinopse|geen beschrijving|ingen beskrivelse|brak opisu
    нет описания|описание отсутствует|açıklama yok|لا يوجد وصف|暂无|暂无简介|暂无描述|なし|説明なし|설명 없음
    """.strip()
    .replace("\n", "|")
    .replace("    ", "")
    .casefold()
    .split("|")
)
_LONGEST_PLACEHOLDER = 4 + max(map(len, PLACEHOLDERS))
_AROUND = " .\"'“”„«»()[]<>"

_CUT_WITHIN_WORD = 0.5


def drop_placeholder(text: str) -> str:
    """Return ``""`` for a text that only says that the text is missing (:data:`PLACEHOLDERS`)."""
    if len(text) > _LONGEST_PLACEHOLDER:
        return text
    return "" if text.casefold().strip(_AROUND) in PLACEHOLDERS else text


def cut(text: str, max_length: int) -> str:
    """Return at most ``max_length`` characters, up to the end of a word.

    If that would lose more than half of the length (one long word, or a script without spaces), the cut is between two
    graphemes as users see them (Unicode Standard Annex 29), never inside one.
    """
    if len(text) <= max_length:
        return text
    space = text.rfind(" ", 0, max_length + 1)
    if space >= max_length * _CUT_WITHIN_WORD:
        return text[:space].rstrip()
    import regex

    end = 0
    for grapheme in regex.finditer(r"\X", text):
        if grapheme.end() > max_length:
            break
        end = grapheme.end()
    return text[:end].rstrip()


# ---- all steps ------------------------------------------------------------------------------------------------

STEPS: dict[str, Callable[[str], str]] = {
    "html": strip_html,
    "mojibake": repair_encoding,
    "unicode": normalize_unicode,
    "control": strip_controls,
    "junk": strip_junk,
    "whitespace": strip_spaces,
    "placeholder": drop_placeholder,
}
"""The function of each step by name, in the order in which they run: each expects the result of those before it."""

DEFAULT_STEPS = tuple(STEPS)

DEFAULT_MAX_LENGTH = 1000
LENGTH = "length"
# Each pass but the last undoes one more layer of escaping or encoding; real texts need one or two.
_MAX_PASSES = 50


class TextCleaner:
    """Cleans one text at a time; cleaning a clean text changes nothing.

    The chosen steps run in the order of :data:`STEPS`, then the length is capped. All of this is repeated until nothing
    changes, because removing one layer of escaping can reveal more to clean. With the step ``control`` the result has
    neither NUL nor half surrogates, which item texts must not contain. Quotation marks, dashes, capitals, emoji and
    accents stay as they are.

    Args:
        steps: names of the steps to take, in any order.
        max_length: longest text in characters, None for no cap; the default is about as much as an encoder reads
            (1000 characters of English are 200 to 250 tokens).

    Attributes:
        changes: number of texts that each step changed, ``length`` for the cap.
        broken: number of texts with damaged characters that the step ``mojibake`` could not repair.

    Raises:
        ConfigError: a step is unknown, or ``max_length`` is not positive.
    """

    def __init__(self, steps: Sequence[str] = DEFAULT_STEPS, max_length: int | None = DEFAULT_MAX_LENGTH) -> None:
        for step in steps:
            if step not in STEPS:
                raise ConfigError(unknown_name("cleaning step", step, STEPS))
        if max_length is not None and max_length < 1:
            raise ConfigError(f"max_length={max_length} leaves no text; use a positive number, or None for no cap")
        self.changes: Counter[str] = Counter()
        self.broken = 0
        self._steps = {name: step for name, step in STEPS.items() if name in steps}
        if max_length is not None:
            self._steps[LENGTH] = partial(cut, max_length=max_length)

    def __call__(self, text: str) -> str:
        """Return the clean text, which may be empty."""
        changed: set[str] = set()
        for _ in range(_MAX_PASSES):
            before = text
            for name, step in self._steps.items():
                after = step(text)
                if after != text:
                    changed.add(name)
                    text = after
            if text == before:
                break
        self.changes.update(changed)
        self.broken += "mojibake" in self._steps and is_broken(text)
        return text

    def figures(self) -> dict[str, Any]:
        """Return :attr:`changes`, the largest first, and :attr:`broken` as plain values for a report."""
        return {"changed": dict(self.changes.most_common()), "broken": self.broken}
