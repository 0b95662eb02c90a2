"""RecBole checkpoints that ``torch.load`` reads with ``weights_only=True``, its default since torch 2.6.

RecBole 1.2.1 pickles its ``Config`` object, numpy numbers, scipy matrices and, for some models, a whole dataset into a
checkpoint (recbole/trainer/trainer.py:289-308, RecBole issues #2212 and #2215), in a pickle protocol that torch's safe
reader does not know. Here the same files are written as plain values and tensors, so that every ``torch.load(file)`` of
RecBole works unchanged. A file that asks for anything else is refused; that includes checkpoints which RecBole wrote
without this package.

Two functions rebuild what is not plain, and only they become safe globals of torch (and, for older files, the three
that did so before). The ``Config`` class itself must never be one: its constructor evaluates strings as Python code
(recbole/config/configurator.py:131).

This makes reading a file safe, not acting on its settings: RecBole's ``load_data_and_model`` goes on to unpickle
datasets at the paths that they name (recbole/data/utils.py:61).
"""

from __future__ import annotations

import functools
import logging
import os
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

from recbole_xling.compat.hooks import ChangedModule, when_imported
from recbole_xling.errors import CheckpointError
from recbole_xling.utils.files import replacing

logger = logging.getLogger(__name__)

#: Attributes of a Config that are rebuilt rather than stored: both are classes.
REBUILT = ("yaml_loader", "model_class")

_config_classes: dict[str, type] = {}


def install() -> None:
    """Extend torch's list of safe globals, and fix RecBole's ``Config`` and trainers, when they are imported."""
    when_imported("torch", add_safe_globals)
    when_imported("recbole.config.configurator", fix_config)
    when_imported("recbole.trainer.trainer", fix_trainers)


def register_config_class(config_class: type) -> type:
    """Let checkpoints bring back this subclass of RecBole's ``Config``, and return it; usable as a decorator.

    The configuration of a class that is not registered comes back as a plain ``Config``.
    """
    _config_classes[_name(config_class)] = config_class
    return config_class


def _name(config_class: type) -> str:
    return f"{config_class.__module__}.{config_class.__qualname__}"


def add_safe_globals(torch: ModuleType) -> None:
    """Let ``torch.load`` call what rebuilds a checkpoint, under its own name and those in older files."""
    from recbole_xling.utils.plain_data import from_plain, restore_array, restore_enum, restore_sparse

    known: list[Any] = [restore_config, from_plain]
    for function in (restore_array, restore_enum, restore_sparse):
        older = FunctionType(function.__code__, function.__globals__, function.__name__)
        older.__module__ = "recbole_xling.compat.plain"  # torch before 2.6 takes no pairs of function and name
        known.append(older)
    torch.serialization.add_safe_globals(known)


def fix_config(module: ModuleType) -> None:
    """Make ``torch.save`` store a ``Config`` as plain values; other pickling and copying stays as it is."""

    def reduce(config: Any, protocol: int) -> Any:
        if protocol != 2:  # 2 is torch.save's protocol, and the only one that weights_only reads
            return object.__reduce_ex__(config, protocol)
        state = {name: value for name, value in vars(config).items() if name not in REBUILT}
        groups = {name: _plain_items(value) for name, value in state.items() if isinstance(value, dict)}
        others = _plain_items({name: value for name, value in state.items() if name not in groups})
        return restore_config, (_name(type(config)), others | groups)

    module.Config.__reduce_ex__ = reduce


def _plain_items(values: dict[str, Any]) -> dict[str, Any]:
    """Return the entries that can be stored; the others are left out, each with one warning."""
    from recbole_xling.utils.plain_data import self_restoring

    kept = {}
    for key, value in values.items():
        try:
            kept[key] = self_restoring(value, f"the setting '{key}'")
        except CheckpointError as error:
            _warn(f"left out of the checkpoint: {error}")
    return kept


@functools.cache
def _warn(message: str) -> None:
    logger.warning(message)


def fix_trainers(module: ModuleType) -> None:
    """Change two calls of RecBole's trainers (recbole/trainer/trainer.py), and of nothing else.

    ``torch.save`` at lines 308, 770 and 999 becomes :func:`save`. ``torch.cuda.amp.GradScaler`` at line 235, deprecated
    since torch 2.4, becomes what its FutureWarning recommends.
    """
    torch = module.torch
    module.torch = ChangedModule(torch, save=save)  # type: ignore[attr-defined]
    if hasattr(torch.amp, "GradScaler"):
        scaler = functools.partial(torch.amp.GradScaler, "cuda")
        module.amp = ChangedModule(module.amp, GradScaler=scaler)  # type: ignore[attr-defined]


def restore_config(class_name: str, state: dict[str, Any]) -> Any:
    """Return a ``Config`` with the stored settings, as ``torch.load`` rebuilds it; its constructor does not run.

    Raises:
        CheckpointError: the state is not that of a ``Config``.
    """
    from recbole.config import Config
    from recbole.utils import get_model

    settings = state.get("final_config_dict") if isinstance(state, dict) else None
    if not isinstance(settings, dict) or not str(settings.get("model", "")).isidentifier():
        raise CheckpointError("the checkpoint is damaged or not written by RecBole: its config has no settings")
    if class_name == "recbole_xling.config.XLingConfig":
        import recbole_xling.config  # noqa: F401  (it registers its class, and is slow to import before it is needed)
    config = Config.__new__(_config_classes.get(class_name, Config))
    config.__dict__.update(state)
    Config.compatibility_settings(config)  # np.float and others, which RecBole's code reads everywhere
    config.yaml_loader = Config._build_yaml_loader(config)
    try:
        config.model_class = get_model(settings["model"])
    except (ImportError, ValueError, AttributeError) as error:  # unknown, or one that needs a missing package
        logger.debug("the checkpoint's model class %s cannot be had: %s", settings["model"], error)
        config.model_class = None
    return config


def save(state: dict[str, Any], file: str | os.PathLike[str], **_: Any) -> None:
    """Write a checkpoint of RecBole's trainers as plain values and tensors; a failure leaves the old file in place.

    Modules among the "other parameters" (SASRecF, FDSA, DIN, ...) are left out: their weights are in the state dict.

    Raises:
        CheckpointError: the model keeps a parameter outside the state dict that cannot be stored.
    """
    import torch

    from recbole_xling.utils.plain_data import self_restoring

    content = dict(state)
    for key in state.keys() - {"config", "state_dict", "optimizer"}:
        value = state[key]
        if key == "other_parameter" and value:
            value = {name: item for name, item in value.items() if not isinstance(item, torch.nn.Module)}
        content[key] = self_restoring(value, f"the checkpoint's {key}")
    with replacing(Path(file)) as new, new.open("wb") as stream:
        torch.save(content, stream)
