"""Text encoders and the cache of their vectors."""

from __future__ import annotations

from recbole_xling.encode.base import Encoder, Identity, Vectors, create_encoder, encoder_names
from recbole_xling.encode.cache import EmbeddingCache

__all__ = ["EmbeddingCache", "Encoder", "Identity", "Vectors", "create_encoder", "encoder_names"]
