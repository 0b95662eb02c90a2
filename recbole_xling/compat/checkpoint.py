"""RecBole checkpoints that ``torch.load`` reads with ``weights_only=True``, its default since torch 2.6.

RecBole 1.2.1 pickles its ``Config`` object, numpy numbers, scipy matrices and, for some models, a whole dataset into a
checkpoint (recbole/trainer/trainer.py:289-308, RecBole issues #2212 and #2215), in a pickle protocol that torch's safe
reader does not know. Here the same files are written as plain values and tensors, so that every ``torch.load(file)`` of
RecBole works as it stands. A file that asks for anything else is refused; that includes checkpoints which RecBole wrote
without this package.

Four functions rebuild what is not plain, and only they become safe globals of torch. The ``Config`` class itself must
never be one: its constructor evaluates strings as Python code (recbole/config/configurator.py:131).

This makes reading a file safe, not acting on its settings: RecBole's ``load_data_and_model`` goes on to unpickle
datasets at the paths that they name (recbole/data/utils.py:61).
"""

from __future__ import annotations

import functools
import logging
import os
from types import ModuleType
from typing import Any

from recbole_xling.compat.hooks import ChangedModule, when_imported
from recbole_xling.errors import CheckpointError
from recbole_xling.utils.plain_data import plain, restore_array, restore_enum, restore_sparse

logger = logging.getLogger(__name__)

#: Attributes of a Config that are rebuilt rather than stored: both are classes.
REBUILT = ("yaml_loader", "model_class")

_config_classes: dict[str, type] = {}


def install() -> None:
    """Mend torch's list of safe globals and RecBole's ``Config`` and trainers when they are imported."""
    when_imported("torch", add_safe_globals)
    when_imported("recbole.config.configurator", mend_config)
    when_imported("recbole.trainer.trainer", mend_trainers)


def register_config_class(config_class: type) -> type:
    """Let checkpoints bring back this subclass of RecBole's ``Config``, and return it; usable as a decorator.

    The configuration of a class that is not registered comes back as a plain ``Config``.
    """
    _config_classes[_name(config_class)] = config_class
    return config_class


def _name(config_class: type) -> str:
    return f"{config_class.__module__}.{config_class.__qualname__}"


def add_safe_globals(torch: ModuleType) -> None:
    """Let ``torch.load`` call the four functions that rebuild a checkpoint (torch < 2.4 has no such list)."""
    if hasattr(torch.serialization, "add_safe_globals"):
        torch.serialization.add_safe_globals([restore_config, restore_enum, restore_array, restore_sparse])


def mend_config(module: ModuleType) -> None:
    """Make ``torch.save`` store a ``Config`` as plain values; other pickling and copying stays as it is."""
    module.Config.__reduce_ex__ = _reduce_config


def mend_trainers(module: ModuleType) -> None:
    """Change two calls of RecBole's trainers (recbole/trainer/trainer.py), and of nothing else.

    ``torch.save`` at lines 308, 770 and 999 becomes :func:`save`. ``torch.cuda.amp.GradScaler`` at line 235, deprecated
    since torch 2.4, becomes what its FutureWarning recommends.
    """
    torch = module.torch
    module.torch = ChangedModule(torch, save=save)  # type: ignore[attr-defined]
    if hasattr(torch.amp, "GradScaler"):
        scaler = functools.partial(torch.amp.GradScaler, "cuda")
        module.amp = ChangedModule(module.amp, GradScaler=scaler)  # type: ignore[attr-defined]


def _reduce_config(config: Any, protocol: int) -> Any:
    if protocol != 2:  # 2 is torch.save's protocol, and the only one that weights_only reads
        return object.__reduce_ex__(config, protocol)
    return restore_config, (_name(type(config)), _plain_state(config))


def _plain_state(config: Any) -> dict[str, Any]:
    """Return the attributes of a ``Config`` as plain values; its dictionaries of settings are cleaned key by key."""
    state = {name: value for name, value in vars(config).items() if name not in REBUILT}
    groups = {name: _plain_items(value) for name, value in state.items() if isinstance(value, dict)}
    return _plain_items({name: value for name, value in state.items() if name not in groups}) | groups


def _plain_items(values: dict[str, Any]) -> dict[str, Any]:
    """Return the entries that can be plain values; the others are left out, each with one warning."""
    kept = {}
    for key, value in values.items():
        try:
            kept[key] = plain(value, f"the setting '{key}'")
        except CheckpointError as error:
            _warn(f"left out of the checkpoint: {error}")
    return kept


@functools.cache
def _warn(message: str) -> None:
    logger.warning(message)


def restore_config(class_name: str, state: dict[str, Any]) -> Any:
    """Return a ``Config`` with the stored settings, as ``torch.load`` rebuilds it; its constructor does not run.

    Raises:
        CheckpointError: the state is not that of a ``Config``.
    """
    from recbole.config import Config

    settings = state.get("final_config_dict") if isinstance(state, dict) else None
    if not isinstance(settings, dict) or not str(settings.get("model", "")).isidentifier():
        raise CheckpointError("the checkpoint is damaged or not written by RecBole: its config holds no settings")
    config = Config.__new__(_config_classes.get(class_name, Config))
    config.__dict__.update(state)
    Config.compatibility_settings(config)  # np.float and others, which RecBole's code reads everywhere
    config.yaml_loader = Config._build_yaml_loader(config)
    config.model_class = _model_class(settings["model"])
    return config


def _model_class(name: str) -> type | None:
    """Return the class that RecBole knows by ``name``; None if there is none or it needs a missing package."""
    from recbole.utils import get_model

    try:
        model_class: type = get_model(name)
    except (ImportError, ValueError, AttributeError) as error:
        logger.debug("the checkpoint's model class %s is not at hand: %s", name, error)
        return None
    return model_class


def save(state: dict[str, Any], file: str | os.PathLike[str], **_: Any) -> None:
    """Write a checkpoint of RecBole's trainers as plain values and tensors; a failure leaves the old file in place.

    Modules among the "other parameters" (SASRecF, FDSA, DIN, ...) are left out: their weights are in the state dict.

    Raises:
        CheckpointError: the model keeps a parameter outside the state dict that cannot be stored.
    """
    import torch

    content = dict(state)
    for key in state.keys() - {"config", "state_dict", "optimizer"}:
        value = state[key]
        if key == "other_parameter" and value:
            value = {name: item for name, item in value.items() if not isinstance(item, torch.nn.Module)}
        content[key] = plain(value, f"the checkpoint's {key}")
    temporary = f"{os.fspath(file)}.tmp"
    try:
        with open(temporary, "wb") as stream:
            torch.save(content, stream)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, file)
    finally:
        if os.path.exists(temporary):
            os.remove(temporary)
