"""The one place where recbole-xling meets RecBole's look-ups: models, datasets, trainers, loaders, defaults.

RecBole 1.2.1 finds a model by module name, a dataset and a trainer by attribute name, and defaults by file name in
its own package. After :func:`install`, all of these find what is registered here; nothing of RecBole is edited.
"""

from __future__ import annotations

import functools
import importlib.util
import sys
from collections.abc import Callable
from logging import Logger
from pathlib import Path
from types import ModuleType
from typing import Any

import recbole.config.configurator as configurator
import recbole.data as recbole_data
import recbole.data.dataset as recbole_datasets
import recbole.data.utils as data_utils
import recbole.trainer as recbole_trainers
import recbole.trainer.trainer as trainer_module
import recbole.utils as recbole_utils
import recbole.utils.utils as utils_module
import torch
from torch.utils.tensorboard import SummaryWriter

from recbole_xling.compat import register_config_class
from recbole_xling.compat.hooks import when_imported
from recbole_xling.config import XLingConfig, load_defaults, recbole_properties
from recbole_xling.data.dataset import XLingDataset
from recbole_xling.data.loader import WindowLoader
from recbole_xling.data.splits.build import let_build_split
from recbole_xling.errors import ConfigError, unknown_name
from recbole_xling.model.llmsasrec import LLMSASRec
from recbole_xling.model.xlingtwotower import XLingTwoTower
from recbole_xling.quick_start.build import load_model_file
from recbole_xling.trainer.checkpoint import is_ours
from recbole_xling.trainer.trainer import XLingTrainer
from recbole_xling.utils.run_folder import RunFileHandler

_MODELS: dict[str, type] = {}

_PACKAGES = {
    "SEQUENTIAL": "sequential_recommender",
    "GENERAL": "general_recommender",
    "CONTEXT": "context_aware_recommender",
    "KNOWLEDGE": "knowledge_aware_recommender",
}


def register_model(model: type, *, dataset: type = XLingDataset, trainer: type = XLingTrainer) -> type:
    """Make RecBole know ``model`` by its class name, with its dataset and trainer; usable as a decorator.

    The defaults of its settings are read from ``properties/model/<Name>.yaml`` of this package, or come from the
    user's configuration.
    """
    name = model.__name__
    package = _PACKAGES[model.type.name]  # type: ignore[attr-defined]
    module = ModuleType(f"recbole.model.{package}.{name.lower()}", doc=model.__doc__)
    if sys.modules[model.__module__].__name__.rsplit(".", 1)[-1] == name.lower():
        module = sys.modules[model.__module__]  # one module, one class object, two names
    else:
        setattr(module, name, model)
        module.__spec__ = importlib.util.spec_from_loader(module.__name__, loader=None)
    sys.modules[f"recbole.model.{package}.{name.lower()}"] = module
    setattr(recbole_datasets, f"{name}Dataset", dataset)
    setattr(recbole_trainers, f"{name}Trainer", trainer)
    _MODELS[name] = model
    return model


def registered_models() -> tuple[str, ...]:
    """Return the names of the models registered here."""
    return tuple(_MODELS)


def known_models() -> set[str]:
    """Return the names of all models a configuration may name, RecBole's own included."""
    return {file.stem for file in (recbole_properties() / "model").glob("*.yaml")} | set(_MODELS)


def install() -> None:
    """Hook into RecBole; called once by ``import recbole_xling``."""
    if hasattr(utils_module.get_model, "__wrapped__"):
        return
    get_model = _explain_unknown(utils_module.get_model)
    for module in (utils_module, recbole_utils, configurator):
        module.get_model = get_model
    recbole_data.create_dataset = data_utils.create_dataset = _our_splits(data_utils.create_dataset)
    data_utils.get_dataloader = _window_loader_for_ours(data_utils.get_dataloader)
    configurator.Config._load_internal_config_dict = _our_defaults(configurator.Config._load_internal_config_dict)
    trainer_module.get_tensorboard = _tensorboard_in_run_folder(trainer_module.get_tensorboard)
    when_imported("recbole.quick_start.quick_start", _load_our_files)
    register_config_class(XLingConfig)
    register_model(LLMSASRec)
    register_model(XLingTwoTower)


def _explain_unknown(get_model: Callable[[str], type]) -> Callable[[str], type]:
    @functools.wraps(get_model)
    def wrapped(model_name: str) -> type:
        try:
            return get_model(model_name)
        except (ValueError, AttributeError, ImportError) as error:  # AttributeError: right file, wrong capitals
            if model_name in known_models():
                if isinstance(error, ImportError):
                    raise ConfigError(f"model '{model_name}' needs a package that is not installed: {error}") from error
                raise
            raise ConfigError(unknown_name("model", model_name, known_models())) from error

    return wrapped


def _our_splits(create_dataset: Callable[[Any], Any]) -> Callable[[Any], Any]:
    @functools.wraps(create_dataset)
    def wrapped(config: Any) -> Any:
        dataset = create_dataset(config)
        if not isinstance(dataset, XLingDataset):  # which knows them itself
            let_build_split(dataset)
        return dataset

    return wrapped


def _window_loader_for_ours(get_dataloader: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(get_dataloader)
    def wrapped(config: Any, phase: str) -> Any:
        if phase == "train" and config["model"] in _MODELS:
            dataset = getattr(recbole_datasets, f"{config['model']}Dataset")
            if issubclass(dataset, XLingDataset):
                return WindowLoader
        return get_dataloader(config, phase)

    return wrapped


def _our_defaults(load: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(load)
    def wrapped(self: Any, model: str, model_class: type, dataset: str) -> None:
        load(self, model, model_class, dataset)
        if model in _MODELS:  # RecBole's own models keep RecBole's own defaults
            self.internal_config_dict.update(load_defaults(self, model, dataset))

    return wrapped


def _tensorboard_in_run_folder(get_tensorboard: Callable[[Logger], Any]) -> Callable[[Logger], Any]:
    @functools.wraps(get_tensorboard)
    def wrapped(logger: Logger) -> Any:
        for handler in logger.handlers:
            if isinstance(handler, RunFileHandler):
                return SummaryWriter(str(handler.run_folder / "tensorboard"))
        if torch.distributed.is_available() and torch.distributed.is_initialized() and torch.distributed.get_rank():
            return _SilentWriter()
        return get_tensorboard(logger)

    return wrapped


class _SilentWriter:
    """Takes every call of a ``SummaryWriter`` and writes nothing: only the first process keeps a record."""

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *args, **kwargs: None


def _load_our_files(quick_start: ModuleType) -> None:
    """Let RecBole's ``load_data_and_model`` read files of this package as well; its own it reads as ever."""
    quick_start.create_dataset = recbole_data.create_dataset  # type: ignore[attr-defined]
    load = quick_start.load_data_and_model  # type: ignore[attr-defined]

    @functools.wraps(load)
    def wrapped(model_file: str) -> tuple[Any, ...]:
        if not is_ours(Path(model_file)):
            return load(model_file)  # type: ignore[no-any-return]
        run = load_model_file(Path(model_file))
        return run.config, run.model, run.dataset, run.train_data, run.valid_data, run.test_data

    quick_start.load_data_and_model = wrapped  # type: ignore[attr-defined]
