"""A trained text encoder as a folder that transformers and sentence-transformers load without this package."""

from __future__ import annotations

import copy
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from recbole_xling.errors import CheckpointError, ConfigError, XlingError
from recbole_xling.model.text_encoder.encoder import TextEncoder, build_encoder, check_encoder
from recbole_xling.model.xlingtwotower import XLingTwoTower
from recbole_xling.trainer.checkpoint import load_checkpoint, load_trainable
from recbole_xling.utils.plain_data import from_plain
from recbole_xling.utils.run_folder import MODEL_FILE

_PREFIX = "encoder."  # of the item tower's weights in the model's
_POOLING = {"mean": "mean_tokens", "cls": "cls_token", "last": "lasttoken"}  # our name -> the library's flag


def merge_run(run: str | os.PathLike[str], folder: str | os.PathLike[str]) -> None:
    """Write the encoder of a trained XLingTwoTower as a folder of its own; the dataset is not needed.

    Args:
        run: the run folder.
        folder: as for :func:`merge_to_folder`.

    Raises:
        CheckpointError: the folder is no run of XLingTwoTower, or its base encoder is not what it was.
        ConfigError: ``folder`` holds something already.
        EncoderError: the base encoder cannot be found or loaded.
        XlingError: the folder cannot be written.
    """
    file = Path(run) / MODEL_FILE
    state = load_checkpoint(file)
    if state["model"] != XLingTwoTower.__name__:
        raise CheckpointError(f"'{run}' is a run of {state['model']}: only {XLingTwoTower.__name__} tunes an encoder")
    encoder = build_encoder(from_plain(state["config"]))
    check_encoder(encoder, from_plain(state["other_parameter"])["encoder"])
    own = {name[len(_PREFIX) :]: tensor for name, tensor in state["state_dict"].items() if name.startswith(_PREFIX)}
    load_trainable(encoder, own, file)
    merge_to_folder(encoder, Path(folder))


def merge_to_folder(encoder: TextEncoder, folder: Path) -> None:
    """Write the encoder with its adapters merged into its weights; the vectors stay the same.

    At the top lies a plain model of transformers with its tokenizer; beside it what sentence-transformers wants to
    know: prompt, longest text, pooling, the projection if there is one, and the scaling to unit length.

    Args:
        encoder: with any adapters, or none.
        folder: to be made, or empty. It appears whole or not at all.

    Raises:
        ConfigError: ``folder`` holds something already.
        XlingError: it cannot be written.
    """
    with _all_or_nothing(folder) as new:
        encoder.merged().save_pretrained(new)
        tokenizer: Any = copy.deepcopy(encoder.tokenizer)
        tokenizer.model_max_length = encoder.config.encoder_max_length
        tokenizer.save_pretrained(new)
        modules = [("", "Transformer"), ("1_Pooling", "Pooling")]
        _write_json(new / "1_Pooling" / "config.json", _pooling(encoder))
        if encoder.projection is not None:
            modules.append(("2_Dense", "Dense"))
            _write_projection(encoder, new / "2_Dense")
        modules.append((f"{len(modules)}_Normalize", "Normalize"))
        (new / modules[-1][0]).mkdir()
        _write_settings(encoder, new, modules)


def _write_settings(encoder: TextEncoder, folder: Path, modules: list[tuple[str, str]]) -> None:
    """Write the files that sentence-transformers reads first; this form of them is known to all its releases from 2."""
    listed = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for i, (path, kind) in enumerate(modules)
    ]
    _write_json(folder / "modules.json", listed)
    length = {"max_seq_length": encoder.config.encoder_max_length, "do_lower_case": False}
    _write_json(folder / "sentence_bert_config.json", length)
    prompt = encoder.config.encoder_prompt
    prompts = {"prompts": {"default": prompt}, "default_prompt_name": "default"} if prompt else {"prompts": {}}
    _write_json(folder / "config_sentence_transformers.json", {**prompts, "similarity_fn_name": "cosine"})


def _pooling(encoder: TextEncoder) -> dict[str, Any]:
    chosen = _POOLING[encoder.config.pooling]
    flags = {f"pooling_mode_{flag}": flag == chosen for flag in _POOLING.values()}
    return {"word_embedding_dimension": encoder.hidden_size, **flags, "include_prompt": True}


def _write_projection(encoder: TextEncoder, folder: Path) -> None:
    from safetensors.torch import save_file

    assert encoder.projection is not None
    sizes = {"in_features": encoder.hidden_size, "out_features": encoder.size, "bias": True}
    _write_json(folder / "config.json", {**sizes, "activation_function": "torch.nn.modules.linear.Identity"})
    weights = {f"linear.{name}": tensor.cpu().contiguous() for name, tensor in encoder.projection.state_dict().items()}
    save_file(weights, str(folder / "model.safetensors"), metadata={"format": "pt"})


def _write_json(path: Path, content: Any) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


@contextmanager
def _all_or_nothing(folder: Path) -> Iterator[Path]:
    """Yield a new folder beside ``folder`` that takes its place once all is written, and is removed on failure."""
    from safetensors import SafetensorError

    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"'{folder}' exists and is not empty: name another folder, or remove it first")
    new = folder.with_name(f".{folder.name}.{os.getpid()}")
    try:
        new.mkdir(parents=True)
        yield new
        for path in new.rglob("*"):
            if path.is_file():
                with path.open("rb+") as file:
                    os.fsync(file.fileno())
        if folder.exists():
            folder.rmdir()
        os.replace(new, folder)
    except (OSError, SafetensorError) as error:
        raise XlingError(
            f"cannot write the encoder to '{folder}': {error}. Free space or name another folder"
        ) from error
    finally:
        shutil.rmtree(new, ignore_errors=True)
