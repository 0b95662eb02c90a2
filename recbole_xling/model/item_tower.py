"""The item tower of settings, and whether trained weights belong to it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from recbole_xling.encode.model_source import find_model
from recbole_xling.errors import CheckpointError
from recbole_xling.model.layers.text_encoder import TextEncoder, TextEncoderConfig
from recbole_xling.resources import user_cache_folder


def build_encoder(config: Mapping[str, Any]) -> TextEncoder:
    """Build the item tower that the settings describe, with new adapters.

    Raises:
        ConfigError: a setting is unknown or does not fit the encoder.
        EncoderError: the encoder cannot be found or loaded.
    """
    source = find_model(config["encoder"], (config["encoder_options"] or {}).get("revision"))
    folder = Path(config["embedding_cache_dir"] or user_cache_folder("embeddings"))
    folder.mkdir(parents=True, exist_ok=True)
    return TextEncoder(source, chosen(TextEncoderConfig, config), folder)


def check_encoder(encoder: TextEncoder, trained_on: Mapping[str, Any]) -> None:
    """Check that weights belong to an encoder.

    Args:
        encoder: the encoder.
        trained_on: the identity of the one that the weights were trained on.

    Raises:
        CheckpointError: it is another one.
    """
    wrong = {key: value for key, value in encoder.identity.items() if trained_on.get(key) != value}
    if wrong:
        theirs = {key: trained_on.get(key) for key in wrong}
        raise CheckpointError(f"the checkpoint belongs to the encoder {theirs}, and this one is {wrong}")


def chosen(kind: type[Any], config: Mapping[str, Any]) -> Any:
    """Build a dataclass from the settings of the same names."""
    return kind(**{field.name: config[field.name] for field in dataclasses.fields(kind)})
