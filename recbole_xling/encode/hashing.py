"""Character n-gram hashing: no weights, no training, any language; sees spelling only.

Source of signed feature hashing: Weinberger et al., "Feature Hashing for Large Scale Multitask Learning" (ICML 2009).
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from recbole_xling.encode.base import ENCODERS, Identity, Vectors
from recbole_xling.errors import EncoderError

_SLICE = 256  # texts hashed together: bounds the memory, not the result
_SPACE = np.uint32(ord(" "))
_BASE = np.uint64(0x100000001B3)


class HashingEncoder:
    """Counts of character n-grams inside words, hashed with a sign into ``dimension`` buckets, at unit length.

    Texts are lower-cased after NFKC; every word counts with one space before and one behind it, so that "cat" and
    "concatenate" share only the inner n-gram. A text without any n-gram (an empty one) gets the zero vector.

    Args:
        dimension: number of buckets.
        ngram_min: shortest n-gram in characters, the boundary spaces included.
        ngram_max: longest n-gram.

    Raises:
        EncoderError: a number is not positive or ``ngram_min`` exceeds ``ngram_max``.
    """

    languages = None

    def __init__(self, *, dimension: int = 512, ngram_min: int = 3, ngram_max: int = 5) -> None:
        ENCODERS.check_positive(dimension=dimension, ngram_min=ngram_min, ngram_max=ngram_max)
        if ngram_min > ngram_max:
            raise EncoderError(f"ngram_min={ngram_min} exceeds ngram_max={ngram_max}: swap them")
        self.dimension = dimension
        self._ngram_min = ngram_min
        self._ngram_max = ngram_max

    @property
    def identity(self) -> Identity:
        """Everything that changes the vectors; ``scheme`` counts changes of this file."""
        return {
            "backend": "hashing",
            "scheme": 1,
            "dimension": self.dimension,
            "ngram_min": self._ngram_min,
            "ngram_max": self._ngram_max,
        }

    def encode(self, texts: Sequence[str]) -> Vectors:
        """Return unit (or zero) vectors, ``(len(texts), dimension)``."""
        vectors = np.zeros((len(texts), self.dimension), dtype=np.float32)
        for start in range(0, len(texts), _SLICE):
            counts = self._count(texts[start : start + _SLICE])  # (S, D)
            norms = np.linalg.norm(counts, axis=1, keepdims=True)  # (S, 1)
            vectors[start : start + _SLICE] = counts / np.where(norms > 0, norms, 1.0)
        return vectors

    def _count(self, texts: Sequence[str]) -> NDArray[np.float64]:
        """Return the signed n-gram counts, ``(len(texts), dimension)``; all texts are hashed as one stream."""
        padded = [f" {' '.join(unicodedata.normalize('NFKC', text).lower().split())} " for text in texts]
        codes = np.frombuffer("".join(padded).encode("utf-32-le", "surrogatepass"), dtype="<u4")  # (C,)
        row = np.repeat(np.arange(len(texts)), [len(text) for text in padded])  # (C,) text of each character
        space = codes == _SPACE
        spaces_before = np.concatenate([[0], np.cumsum(space)])  # (C + 1,)
        mixed = _mix(codes.astype(np.uint64))
        counts = np.zeros(len(texts) * self.dimension)
        rolling = np.zeros(len(codes), dtype=np.uint64)
        for n in range(1, self._ngram_max + 1):
            starts = max(len(codes) - n + 1, 0)
            rolling = rolling[:starts] * _BASE + mixed[n - 1 :]  # polynomial hash of the n-gram at each position
            if n < self._ngram_min:
                continue
            if n > 2:  # an n-gram of one word: spaces at its ends only, and not spaces alone
                whole = spaces_before[n - 1 : n - 1 + starts] == spaces_before[1 : 1 + starts]
            else:
                whole = ~(space[:starts] & space[n - 1 :])
            hashes = _mix(rolling[whole] + np.uint64(n))
            bucket = row[:starts][whole] * self.dimension + (hashes % np.uint64(self.dimension)).astype(np.int64)
            sign = 1.0 - 2.0 * (hashes >> np.uint64(63)).astype(np.float64)
            counts += np.bincount(bucket, weights=sign, minlength=len(counts))
        return counts.reshape(len(texts), self.dimension)


def _mix(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Scatter 64-bit numbers evenly: the finalizer of SplitMix64 (Steele et al., OOPSLA 2014)."""
    values = values + np.uint64(0x9E3779B97F4A7C15)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: NDArray[np.uint64] = values ^ (values >> np.uint64(31))
    return mixed
