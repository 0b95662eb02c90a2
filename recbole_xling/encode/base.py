"""What a text encoder is, and the table of those that exist."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from recbole_xling.errors import EncoderError, MissingExtraError, unknown_name

Identity: TypeAlias = dict[str, str | int | float | bool | None]
Vectors: TypeAlias = NDArray[np.float32]

# name -> (module of this package, class); modules are imported when their encoder is asked for
_BACKENDS = {
    "hashing": ("hashing", "HashingEncoder"),
    "random": ("random", "RandomEncoder"),
    "sentence_transformers": ("sentence_transformers", "SentenceTransformersEncoder"),
    "usem3": ("usem3", "USEM3Encoder"),
}


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
        """BCP-47 primary tags of the languages it knows; None where nothing is stated."""

    def encode(self, texts: Sequence[str]) -> Vectors:
        """Return one vector per text, in the order of ``texts``: ``(len(texts), dimension)``."""


def encoder_names() -> list[str]:
    """Return the names :func:`create_encoder` knows."""
    return sorted(_BACKENDS)


def create_encoder(
    name: str, *, max_length: int | None = None, batch_size: int = 64, prompt: str | None = None, **options: Any
) -> Encoder:
    """Build the encoder called ``name``.

    Args:
        name: one of :func:`encoder_names`; anything else that holds a "/" or is an existing folder is taken as the
            ``model`` of ``sentence_transformers``.
        max_length: longest input in tokens; None leaves the model's own limit.
        batch_size: texts per forward pass; backends without batches pay it no heed, as it changes no vector.
        prompt: text put before every input; None leaves the model's own default.
        options: what the backend takes besides; an option that is None counts as not given.

    Raises:
        EncoderError: unknown name, an option the backend does not take, or one that it lacks.
        MissingExtraError: the backend's package is not installed.
    """
    if name not in _BACKENDS and ("/" in name or Path(name).is_dir()):
        if options.get("model") is not None:
            raise EncoderError(f"encoder '{name}' names a model already: drop the option model='{options['model']}'")
        name, options = "sentence_transformers", {**options, "model": name}
    if name not in _BACKENDS:
        raise EncoderError(unknown_name("encoder", name, _BACKENDS))
    backend = _load_backend(name)
    given = {**options, "max_length": max_length, "prompt": prompt}
    given = {option: value for option, value in given.items() if value is not None}
    parameters = inspect.signature(backend).parameters
    for option in given:
        if option not in parameters:
            raise EncoderError(unknown_name(f"option of the {name} encoder", option, set(parameters) - {"batch_size"}))
    for option, parameter in parameters.items():
        if parameter.default is parameter.empty and option not in given:
            raise EncoderError(f"the {name} encoder needs the option '{option}'")
    if "batch_size" in parameters:
        given["batch_size"] = batch_size
    return backend(**given)


def require_package(module: str, package: str, extra: str) -> None:
    """Raise :class:`MissingExtraError` unless ``module`` (of PyPI's ``package``) can be imported."""
    if importlib.util.find_spec(module) is None:
        raise MissingExtraError(package, extra)


def check_positive(**values: int) -> None:
    """Raise :class:`EncoderError` for the first of ``values`` that is not a whole number above zero."""
    for option, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise EncoderError(f"the encoder option '{option}' is {value!r}: give a whole number above zero")


def _load_backend(name: str) -> Callable[..., Encoder]:
    module, class_name = _BACKENDS[name]
    backend: Callable[..., Encoder] = getattr(importlib.import_module(f"{__package__}.{module}"), class_name)
    return backend
