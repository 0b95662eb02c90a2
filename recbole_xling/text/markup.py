"""Markup that ends up in item texts: HTML, wiki links, escapes and what news services append."""

from __future__ import annotations

import html
import re
from html.entities import html5

# text goes on across these: "H<sub>2</sub>O" is one word
_INLINE = "a abbr b bdi bdo big cite code dfn em font i ins kbd mark q s samp small span strike strong sub sup tt u var"
# these part words, as in "one<br>two"
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
# no branch reads past the next opening, so that time stays linear in what is never closed
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
# four dots and "F**k" are somebody's choice; five alike are a ruler or an outburst
_PUNCTUATION_RUN = re.compile(r"([!?.,;:*\-_=~#+|/\\…。、，！？・—–])\1{4,}")
_RUN_LENGTH = 3


def strip_html(text: str) -> str:
    """Resolve entities (those escaped several times too) and remove comments, scripts and tags.

    Only the names of HTML elements make a tag, and only ``name=`` makes an attribute: ``<3``, ``3 < 4``,
    ``<Untitled>`` and ``a <b and c> d`` stay. An entity ends in a semicolon: ``AT&T`` and ``Q&notes`` stay.
    """
    if "&" in text:
        text = _ENTITY.sub(_entity, _ESCAPED_AMPERSAND.sub("&", text))
    if "<" in text or "]]>" in text:
        text = _TAG.sub(_tag, _UNSEEN.sub(" ", _CDATA.sub("", text)))
    return text


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
        text = _LITERAL_ESCAPE.sub(_unescape, text)
    return _PUNCTUATION_RUN.sub(lambda match: match[1] * _RUN_LENGTH, text)


def _entity(match: re.Match[str]) -> str:
    entity = match[0]
    return html.unescape(entity) if entity[1] == "#" or entity[1:] in html5 else entity


def _tag(match: re.Match[str]) -> str:
    name, attributes = match[1].lower(), (match[2] or "").strip(" /")
    if attributes and "=" not in attributes:
        return match[0]
    return "" if name in _INLINE_TAGS else " "


def _unescape(match: re.Match[str]) -> str:
    r"""Return the characters of ``\uXXXX`` escapes; two halves of a surrogate pair make one."""
    units = bytes.fromhex(match[0].replace("\\u", ""))
    return units.decode("utf-16-be", "ignore")
