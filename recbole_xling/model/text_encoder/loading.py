"""Loading an encoder of transformers and its tokenizer, from a folder or the hub."""

from __future__ import annotations

import inspect
import os
from typing import Any

from torch import nn

from recbole_xling.encode.hub import HubModel, LocalModel, gguf_options, load_config, quiet_loading
from recbole_xling.errors import EncoderError


def load_pretrained(source: LocalModel | HubModel, num_hidden_layers: int | None = None) -> tuple[Any, Any]:
    """Load an encoder, in float32 and without a pooler, and its tokenizer.

    Args:
        source: where it comes from.
        num_hidden_layers: keep so many of its layers, from the bottom; all if not given.

    Raises:
        EncoderError: ``source`` does not have one or not as many layers, or it is damaged.
        MissingExtraError: its weights are in a file that no installed package reads.
    """
    from transformers import MODEL_MAPPING, AutoModel, AutoTokenizer

    options: dict[str, Any] = {
        "cache_dir": os.environ.get("SENTENCE_TRANSFORMERS_HOME"),  # as find_model does
        "trust_remote_code": False,  # by default the library would ask on the terminal
    }
    if source.revision is not None:
        options["revision"] = source.revision
    weights = {**options, **gguf_options(source)}
    if source.gguf_file is not None:
        options["gguf_file"] = source.gguf_file
    try:
        with quiet_loading():
            config = load_config(source, num_hidden_layers, **options)
            kind: Any = MODEL_MAPPING.get(type(config), None)
            with_pooler = kind is not None and "add_pooling_layer" in inspect.signature(kind).parameters
            pooler = {"add_pooling_layer": False} if with_pooler else {}
            if hasattr(config, "use_cache"):
                config.use_cache = False  # of keys and values, for language models that write
            model: Any = AutoModel.from_pretrained(source.load_from, config=config, **pooler, **weights)
            if source.gguf_file is not None:  # its weights are plain ones now, to be trained and saved as such
                model.hf_quantizer = None
                vars(model.config).pop("quantization_config", None)
            tokenizer = AutoTokenizer.from_pretrained(source.load_from, **options)
    except EncoderError:
        raise
    except Exception as error:  # the library and those below it raise many kinds
        raise EncoderError(f"cannot load the encoder '{source.load_from}': {error}") from error
    return model.float(), tokenizer


def longest_input(model: Any, tokenizer: Any) -> int:
    """Return the most tokens that the encoder can read."""
    limits = [int(tokenizer.model_max_length)]  # a huge number where the tokenizer says nothing
    if positions := getattr(model.config, "max_position_embeddings", None):
        limits.append(int(positions))
    table = getattr(getattr(model, "embeddings", None), "position_embeddings", None)
    if isinstance(table, nn.Embedding):  # RoBERTa and its kind count positions from behind the padding index on
        limits.append(table.num_embeddings - (0 if table.padding_idx is None else table.padding_idx + 1))
    return min(limits)
