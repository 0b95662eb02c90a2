"""Checkpoints: plain data and trainable weights, written all or nothing, read without running anything in them."""

from __future__ import annotations

import logging
import random
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, cast
from zipfile import ZipFile

import numpy as np
import torch
from torch import Tensor, nn

from recbole_xling.config import current_names
from recbole_xling.data.identity import DataIdentity
from recbole_xling.data.pinned_ids import PinnedIds
from recbole_xling.errors import CheckpointError, ConfigError
from recbole_xling.model.base import hooks_of
from recbole_xling.model.layers.language_embedding import languages_kept
from recbole_xling.utils.files import replacing
from recbole_xling.utils.plain_data import from_plain
from recbole_xling.utils.run_folder import CONFIG_FILE, MODEL_FILE, taking_from

logger = logging.getLogger(__name__)


_FORMAT = 1
# How names of weights began in earlier releases, and begin now.
_RENAMED = {"items.adaptor.": "items.text_projection.", "offsets.": "score_bias."}


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write ``state`` (plain data and tensors) so that ``path`` is the whole old file or the whole new one.

    Raises:
        CheckpointError: the file cannot be written, say because the disk is full.
        KeyboardInterrupt: the user stopped the program meanwhile.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as new, new.open("wb") as file:
            torch.save({"format": _FORMAT, **state}, file)
    except (OSError, RuntimeError) as error:
        cause: BaseException = error
        while isinstance(cause, RuntimeError) and cause.__context__ is not None:  # what torch put its own error over
            cause = cause.__context__
        if isinstance(cause, KeyboardInterrupt):
            raise cause from None
        hint = "free space or set checkpoint_dir to another folder"
        raise CheckpointError(f"cannot write checkpoint '{path}': {cause}; {hint}") from error


def load_checkpoint(path: Path, device: torch.device | str = "cpu") -> dict[str, Any]:
    """Read a checkpoint, with ``weights_only=True``: code in it is not run. Its checksums must be right.

    Raises:
        CheckpointError: the file is missing, damaged, not a checkpoint, or of another version's format.
    """
    if not path.is_file():
        raise CheckpointError(f"checkpoint '{path}' does not exist")
    try:
        with ZipFile(path) as parts:  # torch.load does not look at the CRC-32 that it has written with each part
            damaged = parts.testzip()
        if damaged is not None:
            raise ValueError(f"its part '{damaged}' has another checksum than when it was written")
        state = torch.load(path, map_location=device, weights_only=True)
    except UnpicklingError as error:  # torch's message would tell how to run the code
        raise CheckpointError(
            f"checkpoint '{path}' is damaged or was not written by recbole-xling: it contains more than plain data and "
            "tensors, so that reading it could run code. It is not read"
        ) from error
    except Exception as error:  # a damaged file makes the readers fail in any way
        raise CheckpointError(f"checkpoint '{path}' is damaged or was not written by recbole-xling: {error}") from error
    if not isinstance(state, dict) or "state_dict" not in state:
        raise CheckpointError(f"'{path}' is not a checkpoint ('state_dict' is missing)")
    found = state.get("format", _FORMAT)
    if not isinstance(found, int) or found != _FORMAT:
        raise CheckpointError(f"checkpoint '{path}' has format {found!r:.40}, but this version reads {_FORMAT}")
    return state


def is_ours(path: Path) -> bool:
    """Whether a file is a checkpoint of recbole-xling (and not of RecBole itself)."""
    try:
        return "format" in load_checkpoint(path, "meta")  # the weights themselves are not read
    except CheckpointError:
        return False


def trainable_state(model: nn.Module) -> dict[str, Tensor]:
    """Return the weights a checkpoint needs: trainable parameters and persistent buffers, but nothing frozen."""
    frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    return {name: tensor for name, tensor in model.state_dict().items() if name not in frozen}


def load_trainable(model: nn.Module, state: dict[str, Tensor], source: Path) -> None:
    """Load what :func:`trainable_state` returned, in an earlier release too.

    Raises:
        CheckpointError: names or shapes differ from the model's.
    """
    with taking_from(source):
        if no_tensors := [name for name, tensor in state.items() if not isinstance(tensor, Tensor)]:
            raise TypeError(f"{no_tensors[0]} is no tensor")
    expected, known = trainable_state(model), model.state_dict()
    for old, new in _RENAMED.items():
        present = {name: new + name.removeprefix(old) for name in state if name.startswith(old)}
        # only where the model knows the new name: other people's models may have a part of the old one
        state = {present[name] if present.get(name) in expected else name: tensor for name, tensor in state.items()}
    missing, strange = sorted(expected.keys() - state.keys()), sorted(state.keys() - known.keys())
    wrong = sorted(name for name in known.keys() & state.keys() if known[name].shape != state[name].shape)
    if missing or strange or wrong:
        details = [("missing", missing), ("not in the model", strange), ("of another shape", wrong)]
        text = "; ".join(f"{what}: {', '.join(names[:5])}" for what, names in details if names)
        raise CheckpointError(f"checkpoint '{source}' belongs to another model or dataset ({text})")
    model.load_state_dict(state, strict=False)


def data_of(state: dict[str, Any]) -> DataIdentity | None:
    """Return the data that a checkpoint was trained on; checkpoints of earlier releases do not name them.

    Raises:
        CheckpointError: the checkpoint is damaged.
    """
    return DataIdentity.from_state(state["data"]) if state.get("data") else None


def check_ids(known: DataIdentity | None, dataset: Any) -> None:
    """Raise a CheckpointError if a dataset numbers users, items or their features otherwise than that of training."""
    if known is not None and isinstance(dataset, PinnedIds):
        known.new_tokens(dataset)


def check_trained(model: Any, then: Mapping[str, Any], known: DataIdentity | None, dataset: Any) -> None:
    """Check that a model runs trained weights in the network, and on the text vectors, that they were trained with.

    Args:
        model: built on ``dataset``.
        then: the settings of training.
        known: the data of training; None in files of earlier releases.
        dataset: with the settings of now.

    Raises:
        CheckpointError: settings of the network, or the encoder, are others.
    """
    config = dataset.config
    hooks = hooks_of(model)
    fields = hooks.config_class.model_fields if hooks.config_class is not None else {}
    defaults = {key: field.default for key, field in fields.items()}  # of what earlier releases did not have
    then = defaults | current_names(then, type(model))
    keys = [key for key in hooks.network_settings(config) if key in then and then[key] != config[key]]
    if keys:
        trained, now = (", ".join(f"{key}={of[key]}" for key in keys) for of in (then, config))
        raise CheckpointError(f"the weights were trained with {trained}, and mean nothing with {now}: leave it out")
    if known is not None:
        known.check_encoder(dataset)


def warm_start(model: Any, config: Any) -> None:
    """Start parts of a model from the weights of earlier runs.

    The hooks ``warm_start_parts`` and ``check_warm_start`` of the model (:class:`~recbole_xling.model.base.ModelHooks`)
    say which settings name such runs and which weights fit. Weights that the earlier run did not train, such as
    adapters where its encoder was frozen, stay as they are.

    Args:
        model: not trained yet.
        config: the configuration; a setting names a run folder, or is empty.

    Raises:
        ConfigError: a setting does not name a run folder.
        CheckpointError: the run's model is another one, or it trained nothing of the part, more, or other shapes.
    """
    hooks = hooks_of(model)
    for key, part in hooks.warm_start_parts.items():
        if not config[key]:
            continue
        file = Path(config[key]) / MODEL_FILE
        if not file.is_file():
            raise ConfigError(f"{key}: '{config[key]}' is not a run folder ({MODEL_FILE} is missing)")
        state = load_checkpoint(file)
        if state["model"] != config["model"]:
            raise CheckpointError(f"{key}: '{config[key]}' is a run of {state['model']}, not of {config['model']}")
        hooks.check_warm_start(part, from_plain(state["other_parameter"]))
        prefix = f"{part}."
        weights = {n.removeprefix(prefix): w for n, w in state["state_dict"].items() if n.startswith(prefix)}
        if not weights:
            raise CheckpointError(f"{key}: '{config[key]}' has trained nothing of its {part}")
        module = model.get_submodule(part)
        try:
            with languages_kept(module):
                load_trainable(module, {**trainable_state(module), **weights}, file)
        except CheckpointError as error:
            raise CheckpointError(
                f"{key}: the {part} is made otherwise than in that run, whose settings are in "
                f"'{file.with_name(CONFIG_FILE)}' (peft, sizes): {error}"
            ) from error
        logger.info("%s starts from '%s'", part, config[key])


# ---- random generators ----------------------------------------------------------------------------------------


def random_states() -> dict[str, Any]:
    """Return the states of all random generators as plain data."""
    version, words, gauss = random.getstate()
    kind, keys, position, has_gauss, cached = cast("tuple[Any, ...]", np.random.get_state(legacy=True))
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "numpy": [kind, torch.from_numpy(keys.astype(np.int64)), int(position), int(has_gauss), float(cached)],
        "python": [version, list(words), gauss],
    }


def restore_random_states(states: dict[str, Any]) -> None:
    """Set all random generators to the states :func:`random_states` returned."""
    torch.set_rng_state(states["torch"].cpu())
    if states["cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all([state.cpu() for state in states["cuda"]])
    kind, keys, position, has_gauss, cached = states["numpy"]
    np.random.set_state((kind, keys.cpu().numpy().astype(np.uint32), position, has_gauss, cached))
    version, words, gauss = states["python"]
    random.setstate((version, tuple(words), gauss))
