"""How each family of sequence-to-sequence models is told the languages."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from recbole_xling.errors import TranslationError
from recbole_xling.translate.languages import FLORES, is_iso_code, iso_codes, lookup, m2m100_code


@dataclass(frozen=True, slots=True)
class Direction:
    """What makes a model translate between two languages.

    Attributes:
        source_code: the tokenizer's ``src_lang``, None where it has none.
        first_token: id of the token each translation has to begin with (``forced_bos_token_id``), None where none.
        prefix: text put before every input.
    """

    source_code: str | None = None
    first_token: int | None = None
    prefix: str = ""


def multilingual_direction(tokenizer: Any, source: str, target: str, codes: Mapping[str, str]) -> Direction:
    """Return the direction for models with a token per language: M2M100 (``__de__``) and NLLB (``deu_Latn``).

    Sources: Fan et al., "Beyond English-Centric Multilingual Machine Translation" (JMLR 2021); NLLB Team, "No Language
    Left Behind" (2022).

    Raises:
        TranslationError: the model does not know a language.
    """
    source_code, _ = _language_token(tokenizer, source, codes)
    _, first_token = _language_token(tokenizer, target, codes)
    return Direction(source_code=source_code, first_token=first_token)


def marian_direction(tokenizer: Any, source: str, target: str, codes: Mapping[str, str]) -> Direction:
    """Return the direction for Marian models (OPUS-MT): one pair per model, or a target named as in ``>>es<<``.

    Source: Tiedemann and Thottingal, "OPUS-MT - Building open translation services for the World" (EAMT 2020).

    Raises:
        TranslationError: the model is for other languages.
    """
    _check_side("from", tokenizer.init_kwargs.get("source_lang"), source)
    labels = sorted(token for token in tokenizer.get_vocab() if token.startswith(">>") and token.endswith("<<"))
    if not labels:
        _check_side("into", tokenizer.init_kwargs.get("target_lang"), target)
        return Direction()
    code = lookup(codes, target)
    wanted = iso_codes(target) | {lookup(FLORES, target)} if code is None else {code}
    fitting = [label for label in labels if label[2:-2] in wanted]
    if not fitting:
        raise TranslationError(
            f"the model does not translate into {target}, only into {' '.join(labels)}: choose another model, or name "
            f"one of these with codes={{'{target}': '...'}}"
        )
    return Direction(prefix=f"{fitting[0]} ")


DIRECTIONS: Mapping[str, Callable[[Any, str, str, Mapping[str, str]], Direction]] = {
    "m2m_100": multilingual_direction,
    "marian": marian_direction,
    "nllb-moe": multilingual_direction,
}
"""By the ``model_type`` of a model's configuration."""


def _language_token(tokenizer: Any, tag: str, codes: Mapping[str, str]) -> tuple[str, int]:
    """Return the model's code of a language and the id of its token."""
    stated = lookup(codes, tag)
    candidates = [lookup(FLORES, tag), m2m100_code(tag)] if stated is None else [stated]
    for code in candidates:
        if code is not None:
            token = code if "_" in code else f"__{code}__"
            number = tokenizer.convert_tokens_to_ids(token)
            if number is not None and number != tokenizer.unk_token_id:
                return code, int(number)
    tried = " or ".join(str(code) for code in candidates if code is not None)
    raise TranslationError(
        f"the model does not know the language {tag} (as {tried}): name its code with codes={{'{tag}': '...'}}, or "
        "leave the language out"
    )


def _check_side(what: str, stated: str | None, tag: str) -> None:
    """Refuse a language other than the one a tokenizer states; it may state a group or nothing at all."""
    if stated and is_iso_code(stated) and stated not in iso_codes(tag):
        raise TranslationError(
            f"the model translates {what} {stated}, not {what} {tag}: choose the model of this pair, or other languages"
        )
