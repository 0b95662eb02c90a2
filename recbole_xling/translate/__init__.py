"""Machine translation of item texts: translators, the cache of what they made, and filling a dataset's languages."""

from __future__ import annotations

from recbole_xling.translate.base import Translator, create_translator, translator_names
from recbole_xling.translate.cache import TranslationCache
from recbole_xling.translate.dataset import TranslationReport, translate_dataset

__all__ = [
    "TranslationCache",
    "TranslationReport",
    "Translator",
    "create_translator",
    "translate_dataset",
    "translator_names",
]
