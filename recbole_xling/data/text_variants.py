"""Further texts of items that training may be shown: code-switched ones and back-translations."""

from __future__ import annotations

import logging
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from recbole_xling.data.text_views import Text, TextViews, is_left_out
from recbole_xling.language.tags import UNDETERMINED
from recbole_xling.text.code_switch import code_switched

logger = logging.getLogger(__name__)

Variant: TypeAlias = Sequence[Text | None]
"""A further text of each item and its language, or None, ``(n_items,)``."""

_BACK = ":back:"  # in the source of a text that was translated into another language and back


def with_variants(
    views: TextViews, config: Any, chance: NDArray[np.float32], weights: Mapping[str, float]
) -> TextViews:
    """Return views to which the texts of ``train_text_code_switch`` and ``train_text_back_translation`` are added.

    Args:
        views: those of training.
        config: the configuration; RecBole's own lacks these settings.
        chance: of each view of an item to be drawn without them, ``(n_views, n_items)``.
        weights: of languages; those of weight 0 are in no variant.
    """
    variants: list[tuple[Variant, float]] = []
    if share := config["train_text_code_switch"]:
        variants.append((_code_switched_texts(views, chance, config["seed"]), share))
        if not any(variants[-1][0]):
            variants.pop()
            logger.warning(
                "train_text_code_switch has no effect: no item has two texts in languages of training that can be mixed"
            )
    if share := config["train_text_back_translation"]:
        variants.append((_back_translations(views, config["seed"], weights), share))
        if not any(variants[-1][0]):
            variants.pop()
            logger.warning(
                "train_text_back_translation has no effect: no item of '%s' has one; 'recbole-xling translate %s --to "
                "<pivot> --system ... --back' makes them",
                *(config["dataset"],) * 2,
            )
    return replace(views, variants=variants)


def _code_switched_texts(views: TextViews, chance: NDArray[np.float32], seed: int) -> Variant:
    """Return one text of each item that mixes those which training may show, where they can be mixed.

    Its language is unknown, as that of a text in several languages.

    Args:
        views: those of training.
        chance: of each view of an item to be drawn, ``(n_views, n_items)``.
        seed: with the item's id it decides which part is in which language.
    """
    found: list[Text | None] = []
    for item, token in enumerate(views.tokens):
        drawn = [views.text(view, item) for view in np.flatnonzero(chance[:, item]).tolist()] if item else []
        texts = {text.language: text for text in drawn if text is not None}
        rng = np.random.default_rng([seed, zlib.crc32(token.encode())])
        mixed = code_switched([texts[tag] for tag in sorted(texts)], views.template, rng)
        found.append(None if mixed is None else (mixed, UNDETERMINED))
    return found


def _back_translations(views: TextViews, seed: int, weights: Mapping[str, float]) -> Variant:
    """Return a back-translation of each item that has one (``recbole-xling translate --back``), drawn if several."""
    found: list[Text | None] = [None]
    for token in views.tokens[1:]:
        texts = [text for text in views.store.parallel(token) if _BACK in text.source]
        texts = [text for text in texts if not is_left_out(text.language, weights)]
        rendered = [(shown, text.language) for text in texts if (shown := views.template.render(text.fields)).strip()]
        drawn = np.random.default_rng([seed, zlib.crc32(token.encode())]).integers(max(1, len(rendered)))
        found.append(rendered[drawn] if rendered else None)
    return found
