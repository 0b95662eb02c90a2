"""A trained text encoder as a folder that transformers and sentence-transformers load without this package."""

from __future__ import annotations

import copy
import json
import os
from pathlib import Path
from typing import Any

from recbole_xling.encode.hub import POOLING_FLAGS, quiet_loading
from recbole_xling.errors import CheckpointError, ConfigError, XlingError
from recbole_xling.model.text_encoder.encoder import TextEncoder, build_encoder, check_encoder
from recbole_xling.model.xlingtwotower import XLingTwoTower
from recbole_xling.trainer.checkpoint import load_checkpoint, load_trainable
from recbole_xling.utils.files import replacing
from recbole_xling.utils.plain_data import from_plain
from recbole_xling.utils.run_folder import model_file, taking_from

_PREFIX = "encoder."  # of the item tower's weights in the model's


def merge_run(run: str | os.PathLike[str], folder: str | os.PathLike[str]) -> None:
    """Write the encoder of a trained XLingTwoTower as a folder of its own; the dataset is not needed.

    Args:
        run: the run folder.
        folder: as for :func:`merge_to_folder`.

    Raises:
        CheckpointError: the folder is not a run of XLingTwoTower, or its base encoder has changed.
        ConfigError: ``folder`` contains something already.
        EncoderError: the base encoder cannot be found or loaded.
        XlingError: the folder cannot be written.
    """
    merge_to_folder(tuned_encoder(run), Path(folder))


def tuned_encoder(run: str | os.PathLike[str]) -> TextEncoder:
    """Return the encoder of a trained XLingTwoTower; the dataset is not needed.

    Args:
        run: the run folder.

    Raises:
        CheckpointError: the folder is not a run of XLingTwoTower, or its base encoder has changed.
        EncoderError: the base encoder cannot be found or loaded.
    """
    file = model_file(run)
    state = load_checkpoint(file)
    with taking_from(file):
        if state["model"] != XLingTwoTower.__name__:
            raise CheckpointError(
                f"'{run}' is a run of {state['model']}: only {XLingTwoTower.__name__} tunes an encoder"
            )
        # not in the folder of vectors that the run names: it would be made, perhaps anywhere
        encoder = build_encoder({**from_plain(state["config"]), "embedding_cache_dir": None})
        check_encoder(encoder, from_plain(state["other_parameter"])["encoder"])
        own = {name[len(_PREFIX) :]: tensor for name, tensor in state["state_dict"].items() if name.startswith(_PREFIX)}
        load_trainable(encoder, own, file)
    return encoder


def merge_to_folder(encoder: TextEncoder, folder: Path) -> None:
    """Write the encoder with its adapters merged into its weights; the vectors stay the same.

    The top of the folder is a plain model of transformers with its tokenizer; next to it is what sentence-transformers
    wants to know: prompt, longest text, pooling, the projection if there is one, and the scaling to unit length.

    Args:
        encoder: with any adapters, or none.
        folder: to be made, or empty. It appears whole or not at all.

    Raises:
        ConfigError: ``folder`` contains something already, or ``embedding_mlp_size`` is set.
        XlingError: it cannot be written.
    """
    from safetensors import SafetensorError

    check_empty(folder)
    if not can_be_merged(encoder):
        raise ConfigError(
            "sentence-transformers knows no perceptron beside the learned map (embedding_mlp_size): such an encoder is "
            "not merged"
        )
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with replacing(folder) as new:
            new.mkdir()
            write_encoder(encoder, new)
            if folder.exists():  # an empty folder; not every system replaces one
                folder.rmdir()
    except (OSError, SafetensorError) as error:
        raise XlingError(
            f"cannot write the encoder to '{folder}': {error}. Free space or name another folder"
        ) from error


def check_empty(folder: Path) -> None:
    """Raise a ConfigError if a folder that is to be made contains something already."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"'{folder}' exists and is not empty: name another folder, or remove it first")


def can_be_merged(encoder: TextEncoder) -> bool:
    """Whether sentence-transformers can compute what the encoder does: it has no perceptron beside the learned map."""
    return encoder.projection is None or encoder.projection.mlp is None


def write_encoder(encoder: TextEncoder, folder: Path) -> None:
    """Write model, tokenizer and settings, in the form that all releases of sentence-transformers from 2 on know.

    The library itself could write them, but only after it has loaded the merged model from another folder; it adds
    random weights of a pooler that the model lacks, and names of modules that only its own release reads.
    """
    from safetensors.torch import save_file

    with quiet_loading():
        encoder.merged().save_pretrained(folder)
    tokenizer: Any = copy.deepcopy(encoder.tokenizer)
    tokenizer.model_max_length = encoder.config.encoder_max_length
    tokenizer.padding_side = "right"  # as this package pads; that of a language model may be the left one
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    tokenizer.save_pretrained(folder)

    modules = {"": "Transformer", "1_Pooling": "Pooling"}  # by folder, in the order of computation
    flags = {f"pooling_mode_{flag}": name == encoder.pooling for name, flag in POOLING_FLAGS.items()}
    sizes: dict[str, Any] = {"word_embedding_dimension": encoder.hidden_size, **flags, "include_prompt": True}
    _write_json(folder / "1_Pooling" / "config.json", sizes)
    if encoder.projection is not None:
        modules["2_Dense"] = "Dense"
        sizes = {"in_features": encoder.hidden_size, "out_features": encoder.size, "bias": True}
        sizes["activation_function"] = "torch.nn.modules.linear.Identity"
        _write_json(folder / "2_Dense" / "config.json", sizes)
        state = encoder.projection.state_dict()
        weights = {f"linear.{name}": tensor.cpu().contiguous() for name, tensor in state.items()}
        save_file(weights, str(folder / "2_Dense" / "model.safetensors"), metadata={"format": "pt"})
    normalize = f"{len(modules)}_Normalize"
    modules[normalize] = "Normalize"
    (folder / normalize).mkdir()

    listed = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for i, (path, kind) in enumerate(modules.items())
    ]
    _write_json(folder / "modules.json", listed)
    length = {"max_seq_length": encoder.config.encoder_max_length, "do_lower_case": False}
    _write_json(folder / "sentence_bert_config.json", length)
    prompt = encoder.config.encoder_prompt
    prompts = {"prompts": {"default": prompt}, "default_prompt_name": "default"} if prompt else {"prompts": {}}
    _write_json(folder / "config_sentence_transformers.json", {**prompts, "similarity_fn_name": "cosine"})


def _write_json(path: Path, content: Any) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
