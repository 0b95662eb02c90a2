"""Templates that turn the fields of an item text into one string.

``"{title} ({year}). {genres}"`` gives ``Toy Story (1995). Animation``, and without a year ``Toy Story. Animation``:
the brackets, punctuation, spaces and words that belong to a missing field are left out with it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

from recbole_xling.errors import ConfigError

_TOKEN = re.compile(r"\{\{|\}\}|\{(?P<field>[^{}]*)\}|(?P<stray>[{}])|[^{}]+")
_CLOSING = {
    "(": ")", "[": "]", "（": "）", "［": "］", "【": "】", "「": "」", "『": "』", "《": "》", "〈": "〉",
    "«": "»", "„": "“", "“": "”", '"': '"',
}  # fmt: skip
_CLOSERS = frozenset(_CLOSING.values())
_ENDING = ".,;:!?…。、，；：！？"
# what touches the field on its left and is followed by a space: letters of scripts with spaces, signs, currencies
_UNIT = re.compile(r"(?:[^\W\d_\u0e00-\u0eff\u2e80-\u9fff\uac00-\ud7af]|[%°²³®™'’€$£¥₹₩₽₺¢円元圆원])+(\s+)")
# punctuation between two fields (a hyphen only next to a space) and the spaces around it
_SEPARATOR = re.compile(rf"\s*(?:[{_ENDING}|/·•・–—]|(?<!\w)-|-(?!\w))(?:[{_ENDING}|/·•・–—\s]|(?<!\w)-|-(?!\w))*")


@dataclass(frozen=True, slots=True)
class _Text:
    text: str


@dataclass(frozen=True, slots=True)
class _Field:
    name: str


@dataclass(frozen=True, slots=True)
class _Group:
    opening: str
    parts: _Sequence
    closing: str


@dataclass(frozen=True, slots=True)
class _Unit:
    """A field or a bracketed group with the words that belong to it, and what separates it from the unit before."""

    separator: str
    prefix: str
    content: _Field | _Group
    suffix: str


@dataclass(frozen=True, slots=True)
class _Sequence:
    units: tuple[_Unit, ...]
    tail: str


_Node: TypeAlias = _Text | _Field | _Group


class TextTemplate:
    """A text with fields in braces; ``{{`` and ``}}`` are literal braces.

    Rendering leaves no debris of missing or empty fields. Brackets and quotation marks without content are left out;
    of the separators between two remaining fields one is kept; words next to a missing field are left out with it,
    those before it back to the punctuation before them, those after it up to the next punctuation. Punctuation of the
    template is not added to a value that already ends in punctuation. Values themselves are never altered.

    Args:
        template: for example ``"{title} ({year}). {genres}"``.

    Raises:
        ConfigError: braces or brackets do not match, a field name is not a plain name, or the template has no field.
    """

    __slots__ = ("_sequence", "fields", "template")

    def __init__(self, template: str) -> None:
        if not isinstance(template, str):
            raise ConfigError(f"text_template must be a text such as '{{title}}. {{genres}}', not {template!r}")
        self.template = template
        names: dict[str, None] = {}
        self._sequence = _compile(_parse(template.strip(), names))
        if not names:
            raise ConfigError(f"text_template {template!r} names no field; name one in braces, as in '{{title}}'")
        self.fields = tuple(names)

    def render(self, fields: Mapping[str, str]) -> str:
        """Return the text for the given fields, ``""`` if all are missing; names not in the template are ignored."""
        return _render(self._sequence, fields)

    def __repr__(self) -> str:
        return f"TextTemplate({self.template!r})"


def _render(sequence: _Sequence, fields: Mapping[str, str]) -> str:
    text = waiting = ""  # waiting: the separator to put before the next field that has a value
    for unit in sequence.units:
        if unit.separator.strip() or (unit.separator and not waiting.strip()):
            waiting = unit.separator
        if isinstance(unit.content, _Field):
            content = fields.get(unit.content.name) or ""
            if content.isspace():
                content = ""
        else:
            content = _render(unit.content.parts, fields)
            if content:
                content = unit.content.opening + content + unit.content.closing
        if content:
            before = _join(text, waiting) if text else ""
            if text and waiting.isascii() and waiting and before == text:
                before += " "  # nothing is left of the separator, and words would be glued
            text = before + unit.prefix + content + unit.suffix
            waiting = ""
    return _join(text, sequence.tail) if text else ""


def _join(text: str, separator: str) -> str:
    """Append a separator, without its leading punctuation if the text already ends in punctuation."""
    return text + (separator.lstrip(_ENDING) if text[-1] in _ENDING else separator)


def _parse(template: str, names: dict[str, None]) -> list[_Node]:
    """Split a template into texts, fields and groups in brackets; collect the names of the fields."""
    levels: list[tuple[str, list[_Node]]] = [("", [])]  # the open groups: opening bracket, what it contains so far
    for match in _TOKEN.finditer(template):
        token, name = match[0], match["field"]
        if match["stray"]:
            raise ConfigError(f"text_template {template!r}: single '{token}'; write '{token * 2}' for the character")
        if name is not None:
            if not name.isidentifier():
                raise ConfigError(f"text_template {template!r}: {token!r} is not a field; write a plain name in braces")
            names[name] = None
            levels[-1][1].append(_Field(name))
            continue
        if token in ("{{", "}}"):
            levels[-1][1].append(_Text(token[0]))
            continue
        for character in token:
            opening, nodes = levels[-1]
            if opening and character == _CLOSING[opening]:
                levels.pop()
                sequence = _compile(nodes)
                # brackets without a field are text
                constant = _Text(opening + sequence.tail + character)
                levels[-1][1].append(_Group(opening, sequence, character) if sequence.units else constant)
            elif character in _CLOSING:
                levels.append((character, []))
            elif character in _CLOSERS:
                raise ConfigError(f"text_template {template!r}: '{character}' closes nothing")
            else:
                nodes.append(_Text(character))
    if len(levels) > 1:
        raise ConfigError(f"text_template {template!r}: '{levels[-1][0]}' is never closed")
    return levels[0][1]


def _compile(nodes: list[_Node]) -> _Sequence:
    """Divide the text between two fields: words after the first, a separator, words before the second."""
    literals, contents = [""], []
    for node in nodes:
        if isinstance(node, _Text):
            literals[-1] += node.text
        else:
            contents.append(node)
            literals.append("")
    if not contents:
        return _Sequence((), literals[0])
    splits = [("", "", literals[0])]  # words after, separator, words before
    for literal in literals[1:-1]:
        found = _SEPARATOR.search(literal)
        start, end = found.span() if found else _gap(literal)
        splits.append((literal[:start], literal[start:end], literal[end:]))
    last = _SEPARATOR.search(literals[-1])
    end = last.start() if last else len(literals[-1])
    splits.append((literals[-1][:end], "", ""))
    units = (
        _Unit(separator, prefix, content, suffix)
        for (_, separator, prefix), content, (suffix, _, _) in zip(splits[:-1], contents, splits[1:], strict=True)
    )
    return _Sequence(tuple(units), literals[-1][end:])


def _gap(literal: str) -> tuple[int, int]:
    """Return where the separator of a text without punctuation is: spaces at its beginning, or behind a unit."""
    unit = _UNIT.match(literal)
    return unit.span(1) if unit else (0, len(literal) - len(literal.lstrip()))
