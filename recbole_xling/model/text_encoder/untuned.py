"""UntunedVectors: what an encoder says of texts before it is tuned, kept on the disk from run to run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor

from recbole_xling.encode.base import Identity, Vectors
from recbole_xling.encode.cache import EmbeddingCache
from recbole_xling.model.text_encoder.tokens import TokenizedTexts, length_buckets


class UntunedVectors:
    """Pooled vectors of an encoder's texts without adapters, in memory.

    A text is encoded once per encoder: vectors come from the embedding cache
    (:class:`~recbole_xling.encode.cache.EmbeddingCache`), where they have the encoder's identity, and those that it
    lacks are encoded, always in float32, and stored there.

    Args:
        run: ``input_ids`` and ``attention_mask``, both ``(N, T)``, to pooled vectors, ``(N, dimension)``.
        tokenize: texts to tokens.
        dimension: size of a vector.
        identity: all that changes the vectors.
        batch_size: texts run at a time.
        cache_dir: folder of the embedding cache; None: nothing is stored.
    """

    languages = None

    def __init__(
        self,
        run: Callable[[Tensor, Tensor], Tensor],
        tokenize: Callable[[Sequence[str]], TokenizedTexts],
        dimension: int,
        identity: Identity,
        batch_size: int,
        cache_dir: Path | None,
    ) -> None:
        self._run, self._tokenize, self._batch_size = run, tokenize, batch_size
        self.dimension = dimension
        self.identity: Identity = {"backend": "two_tower", **identity}
        self._cache = None if cache_dir is None else EmbeddingCache(cache_dir)
        self._known: WeakKeyDictionary[TokenizedTexts, Tensor] = WeakKeyDictionary()

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the vectors, whose keys do not outlive a copy."""
        return {**self.__dict__, "_known": WeakKeyDictionary()}

    def __call__(self, tokens: TokenizedTexts, text_ids: Tensor, device: torch.device) -> Tensor:
        """Return the vectors of texts on ``device``, ``(N, dimension)`` float32.

        Args:
            tokens: the texts of a catalog; all of them are encoded when the first one is asked for.
            text_ids: ``(N,)`` numbers of some.
            device: where the encoder is.
        """
        known = self._known.get(tokens)
        if known is None or known.device != device:
            vectors = self.encode(tokens.texts) if self._cache is None else self._cache.vectors(self, tokens.texts)
            known = self._known[tokens] = torch.from_numpy(vectors).to(device)
        return known[text_ids.to(device)]

    @torch.no_grad()
    def encode(self, texts: Sequence[str]) -> Vectors:
        """Encode texts, ``(len(texts), dimension)``, those of about one length together."""
        tokens = self._tokenize(texts)
        vectors = np.empty((tokens.n_texts, self.dimension), dtype=np.float32)
        for bucket in length_buckets(tokens.length, self._batch_size, torch.device("cpu")):
            vectors[bucket.numpy()] = self._run(*tokens.batch(bucket)).cpu().numpy()
        return vectors[tokens.text_of_row.numpy()]
