"""The control: a vector that knows which text it belongs to and nothing about what the text says."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import shake_256

import numpy as np

from recbole_xling.encode.base import ENCODERS, Identity, Vectors


class RandomEncoder:
    """A fixed Gaussian direction per distinct text, drawn from a hash of seed and text.

    A model fed with these vectors still tells items apart; what it loses against a real encoder is what the encoder's
    understanding of the text was worth.

    Args:
        seed: another seed gives another, unrelated set of directions.
        dimension: length of a vector.

    Raises:
        EncoderError: ``dimension`` is not positive.
    """

    languages = None

    def __init__(self, *, seed: int = 0, dimension: int = 512) -> None:
        ENCODERS.check_positive(dimension=dimension)
        self._seed = seed
        self.dimension = dimension

    @property
    def identity(self) -> Identity:
        """Everything that changes the vectors; ``scheme`` counts changes of this file."""
        return {"backend": "random", "scheme": 1, "seed": self._seed, "dimension": self.dimension}

    def encode(self, texts: Sequence[str]) -> Vectors:
        """Return unit vectors, ``(len(texts), dimension)``."""
        pairs = (self.dimension + 1) // 2
        prefix = f"{self._seed}\0".encode()
        bits = b"".join(shake_256(prefix + text.encode("utf-8", "surrogatepass")).digest(8 * pairs) for text in texts)
        words = np.frombuffer(bits, dtype="<u4").reshape(len(texts), 2, pairs)  # (N, 2, D/2)
        # Box-Muller: two uniform numbers in (0, 1] make two independent Gaussian ones
        uniform = (words.astype(np.float64) + 1.0) / 2.0**32
        radius, angle = np.sqrt(-2.0 * np.log(uniform[:, 0])), 2.0 * np.pi * uniform[:, 1]  # (N, D/2) each
        gaussian = np.concatenate([radius * np.cos(angle), radius * np.sin(angle)], axis=1)[:, : self.dimension]
        norms = np.linalg.norm(gaussian, axis=1, keepdims=True)  # (N, 1)
        vectors: Vectors = (gaussian / norms).astype(np.float32)
        return vectors
