"""Code-switched texts: parts of an item's text in one language, parts in another."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from recbole_xling.text.record import ItemText
from recbole_xling.text.template import TextTemplate

_SENTENCE_END = re.compile(r"[.!?…]\s+|[。！？]\s*")
_WITHOUT_SPACES = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\u0e00-\u0e7f]")  # Japanese, Chinese, Thai


def code_switched(texts: Sequence[ItemText], template: TextTemplate, rng: np.random.Generator) -> str | None:
    """Mix parallel texts of an item; None where they cannot be mixed.

    Whole fields are taken from different texts: the title in one language, the description in another. Where only one
    field differs, the first half of one text is followed by the second half of another, cut at the end of a sentence if
    there is one near the middle, else between words. Parallel texts say about the same in about the same order, so a
    mix says about all of it. Qin et al., "CoSDA-ML: Multi-Lingual Code-Switching Data Augmentation for Zero-Shot
    Cross-Lingual NLP" (IJCAI 2020), replace single words by a dictionary; here words stay among their own, and no
    dictionary is needed.

    Args:
        texts: of one item, in different languages.
        template: how fields become a text.
        rng: decides which text gives which part.
    """
    if len(texts) < 2:
        return None
    order = [texts[number].fields for number in rng.permutation(len(texts))]
    filled = [name for name in template.fields if all(fields.get(name, "").strip() for fields in order)]
    differing = [name for name in filled if len({fields[name] for fields in order}) > 1]
    mixed = dict(order[0])
    if len(differing) == 1:
        (name,) = differing
        other = next(fields[name] for fields in order if fields[name] != mixed[name])
        here, there = _halves(mixed[name]), _halves(other)
        if here is None or there is None:
            return None
        mixed[name] = here[0] + there[1]
    else:
        mixed |= {name: order[number % len(order)][name] for number, name in enumerate(differing)}
    rendered = template.render(mixed)
    return rendered if rendered not in {template.render(fields) for fields in order} else None


def _halves(text: str) -> tuple[str, str] | None:
    """Cut a text in two near its middle; None if it is one word."""
    text = text.strip()
    middle = len(text) / 2
    ends = [match.end() for match in _SENTENCE_END.finditer(text) if 0.5 < match.end() / middle < 1.5]
    ends = ends or [match.end() for match in re.finditer(r"\s+", text)]
    if not ends and len(text) > 1 and _WITHOUT_SPACES.search(text):
        ends = [len(text) // 2]
    if not ends:
        return None
    place = min(ends, key=lambda end: abs(end - middle))
    return text[:place], text[place:]
