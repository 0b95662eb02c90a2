"""The interface of a text encoder, and the table of those that exist."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from recbole_xling.errors import EncoderError, MissingExtraError
from recbole_xling.utils.backends import Backends

Identity: TypeAlias = dict[str, str | int | float | bool | None]
Vectors: TypeAlias = NDArray[np.float32]

ENCODERS = Backends(
    kind="encoder",
    package=__package__,
    classes={
        "hashing": ("hashing", "HashingEncoder"),
        "random": ("random", "RandomEncoder"),
        "sentence_transformers": ("sentence_transformers", "SentenceTransformersEncoder"),
        "usem3": ("usem3", "USEM3Encoder"),
    },
    for_models="sentence_transformers",
    error=EncoderError,
)


class Encoder(Protocol):
    """Turns texts into vectors; the same text always gets the same vector (up to rounding)."""

    @property
    def identity(self) -> Identity:
        """Everything that changes the vectors, as plain JSON data. Read without loading any weights."""

    @property
    def dimension(self) -> int:
        """Length of a vector. May load the weights."""

    @property
    def languages(self) -> frozenset[str] | None:
        """BCP-47 primary tags of the languages it knows; None if it does not say."""

    def encode(self, texts: Sequence[str]) -> Vectors:
        """Return one vector per text, in the order of ``texts``: ``(len(texts), dimension)``."""


def encoder_names() -> list[str]:
    """Return the names :func:`create_encoder` knows."""
    return sorted(ENCODERS.classes)


def create_encoder(
    name: str, *, max_length: int | None = None, batch_size: int = 64, prompt: str | None = None, **options: Any
) -> Encoder:
    """Build the encoder called ``name``.

    Args:
        name: one of :func:`encoder_names`; anything else that contains a "/" or is an existing folder is taken as the
            ``model`` of ``sentence_transformers``.
        max_length: longest input in tokens; None leaves the model's own limit.
        batch_size: texts per forward pass; backends without batches ignore it, as it changes no vector.
        prompt: text put before every input; None leaves the model's own default.
        options: what else the backend takes; an option that is None counts as not given.

    Raises:
        EncoderError: unknown name, an option that the backend does not take, or a missing one.
        MissingExtraError: the backend's package is not installed.
    """
    common = {"max_length": max_length, "prompt": prompt}
    encoder: Encoder = ENCODERS.create(name, {**options, **common}, if_taken={"batch_size": batch_size})
    return encoder


def require_package(module: str, package: str, extra: str) -> None:
    """Raise :class:`MissingExtraError` unless ``module`` (of PyPI's ``package``) can be imported."""
    if importlib.util.find_spec(module) is None:
        raise MissingExtraError(package, extra)
