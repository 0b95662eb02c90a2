"""The one place where recbole-xling meets RecBole's look-ups: models, datasets, trainers, loaders, defaults.

RecBole 1.2.1 finds a model by module name, a dataset and a trainer by attribute name, and defaults by file name in
its own package. :func:`install` waits until RecBole's modules are imported and then adds to their look-ups what is
registered here, so that RecBole's own entry points (``run_recbole``, ``HyperTuning``, ``load_data_and_model``) know it.
No file of RecBole changes, and the run loop of this package (:mod:`recbole_xling.quick_start`) needs none of these
patches.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from recbole_xling.compat.hooks import when_imported
from recbole_xling.errors import ConfigError, unknown_name

_OWN_MODELS = {
    "LLMSASRec": "recbole_xling.model.llmsasrec",
    "XLingCrossEncoder": "recbole_xling.model.xlingcrossencoder",
    "XLingMLP": "recbole_xling.model.xlingmlp",
    "XLingTwoTower": "recbole_xling.model.xlingtwotower",
    "ContentEASE": "recbole_xling.model.baselines",
    "ContentKNN": "recbole_xling.model.baselines",
    "HistoryEASE": "recbole_xling.model.baselines",
    "HistoryItemKNN": "recbole_xling.model.baselines",
    "LanguagePop": "recbole_xling.model.baselines",
}
_PICKLES = ("save_dataset", "save_dataloaders", "dataset_save_path", "dataloaders_save_path")
_PACKAGES = {
    "SEQUENTIAL": "sequential_recommender",
    "GENERAL": "general_recommender",
    "CONTEXT": "context_aware_recommender",
    "KNOWLEDGE": "knowledge_aware_recommender",
}


class Registration(NamedTuple):
    """A model with the dataset and the trainer it needs."""

    model: type
    dataset: type
    trainer: type


_registered: dict[str, Registration] = {}
_installed = False


# ---- registering ----------------------------------------------------------------------------------------------


def register_model(model: type, *, dataset: type | None = None, trainer: type | None = None) -> type:
    """Make RecBole know ``model`` by its class name, with its dataset and trainer; usable as a decorator.

    The settings of the model and their defaults are those of its ``config_class``, a
    :class:`~recbole_xling.utils.typed_config.TypedConfig`; without one, the user's configuration has to give them.

    Args:
        model: the class.
        dataset: class of its dataset; if not given :class:`~recbole_xling.data.dataset.XLingDataset` for sequential
            models, and RecBole's for others.
        trainer: class of its trainer; :class:`~recbole_xling.trainer.trainer.XLingTrainer` if not given.

    Raises:
        ConfigError: the model is of a type that has no trainer here: ``TRADITIONAL``, ``DECISIONTREE``.
    """
    import recbole.data.dataset
    import recbole.trainer
    from recbole.utils import ModelType

    from recbole_xling.data.dataset import XLingDataset
    from recbole_xling.trainer.trainer import XLingTrainer

    name = model.__name__
    kind = model.type  # type: ignore[attr-defined]
    if kind.name not in _PACKAGES:
        raise ConfigError(f"{name} is of type {kind.name}: only {', '.join(_PACKAGES)} can be registered")
    usual = {
        ModelType.SEQUENTIAL: XLingDataset,
        ModelType.KNOWLEDGE: recbole.data.dataset.KnowledgeBasedDataset,
    }.get(kind, recbole.data.dataset.Dataset)
    entry = _registered[name] = Registration(model, dataset or usual, trainer or XLingTrainer)
    full_name = f"recbole.model.{_PACKAGES[kind.name]}.{name.lower()}"
    module = sys.modules[model.__module__]  # one module, one class object, two names
    if module.__name__.rsplit(".", 1)[-1] != name.lower():
        module = ModuleType(full_name, doc=model.__doc__)
        module.__spec__ = importlib.util.spec_from_loader(full_name, loader=None)
        setattr(module, name, model)
    sys.modules[full_name] = module
    setattr(recbole.data.dataset, f"{name}Dataset", entry.dataset)
    setattr(recbole.trainer, f"{name}Trainer", entry.trainer)
    return model


def registration(name: str) -> Registration | None:
    """Return what was registered under a model's name; None for RecBole's own models and unknown ones."""
    if name in _OWN_MODELS and name not in _registered:
        importlib.import_module(_OWN_MODELS[name])
    return _registered.get(name)


def registered_models() -> tuple[str, ...]:
    """Return the names of this package's models and of those registered by others."""
    return tuple({**_OWN_MODELS, **_registered})


def known_models() -> set[str]:
    """Return the names of all models that the configuration may name, RecBole's own included."""
    from recbole_xling.config import recbole_properties

    return {file.stem for file in (recbole_properties() / "model").glob("*.yaml")} | set(registered_models())


# ---- RecBole's look-ups ---------------------------------------------------------------------------------------


def install() -> None:
    """Hook into RecBole's modules as they are imported; called once by ``import recbole_xling``, imports nothing."""
    global _installed
    if _installed:
        return
    _installed = True
    for name, module in _OWN_MODELS.items():
        when_imported(module, functools.partial(_register_own, name))
    when_imported("recbole.model.sequential_recommender", _import_own)
    when_imported("recbole.utils.utils", lambda module: _replace(module, "get_model", _our_models))
    when_imported("recbole.data.utils", lambda module: _replace(module, "create_dataset", _our_splits))
    when_imported("recbole.data.utils", lambda module: _replace(module, "get_dataloader", _our_loader))
    when_imported("recbole.config.configurator", _add_defaults)
    when_imported("recbole.quick_start.quick_start", lambda module: _replace(module, "load_data_and_model", _our_files))


def _register_own(name: str, module: ModuleType) -> None:
    register_model(getattr(module, name))


def _import_own(_: ModuleType) -> None:
    """Import this package's models together with RecBole's: this is the package in which RecBole looks for them."""
    for name in _OWN_MODELS:
        registration(name)


def _replace(module: ModuleType, name: str, change: Callable[[Any], Any]) -> None:
    """Change a function of RecBole's in its own module and in those that have imported it already."""
    original = getattr(module, name)
    changed = functools.wraps(original)(change(original))
    for other in [other for key, other in sys.modules.items() if key.partition(".")[0] == "recbole"]:
        if vars(other).get(name) is original:
            setattr(other, name, changed)


def _our_models(get_model: Callable[[str], type]) -> Callable[[str], type]:
    """Find registered models, and explain what exists where there is none of that name."""

    def found(model_name: str) -> type:
        if entry := registration(model_name):
            return entry.model
        try:
            return get_model(model_name)
        except (ValueError, AttributeError, ImportError) as error:  # AttributeError: right file, wrong capitals
            if model_name not in known_models():
                raise ConfigError(unknown_name("model", model_name, known_models())) from error
            if isinstance(error, ImportError):
                raise ConfigError(f"model '{model_name}' needs a package that is not installed: {error}") from error
            raise

    return found


def _our_splits(create_dataset: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Let the datasets of RecBole's own models know the splits GT, CI and LT; ours know them themselves.

    RecBole would take a pickle in place of a dataset, whose texts and encoder are those of the run that wrote it.
    """

    def created(config: Any) -> Any:
        from recbole_xling.data.dataset import XLingDataset
        from recbole_xling.data.splits.build import build_parts

        entry = registration(config["model"])
        for key in _PICKLES:
            if entry is not None and config[key]:
                raise ConfigError(f"{key} is for pickles, which models of recbole-xling neither write nor read")
        dataset = create_dataset(config) if entry is None else entry.dataset(config)

        def build() -> list[Any]:
            del dataset.build  # so that the parts, which are copies, do not carry it along
            return build_parts(dataset)

        if not isinstance(dataset, XLingDataset):
            dataset.build = build
        return dataset

    return created


def _our_loader(get_dataloader: Callable[..., Any]) -> Callable[..., Any]:
    """Train on windows, and leave out whole histories, where the model was registered with this package's dataset."""

    def loader(config: Any, phase: str) -> Any:
        from recbole.data.dataloader import FullSortEvalDataLoader

        from recbole_xling.config import XLingConfig
        from recbole_xling.data.dataset import XLingDataset
        from recbole_xling.data.loader import FullRankingLoader, WindowLoader

        entry = registration(config["model"])
        for key in ("languages", "stages", "valid_users", "beyond_accuracy"):
            if entry is not None and config[key] and not isinstance(config, XLingConfig):
                raise ConfigError(
                    f"{key} is for recbole_xling.run and the command line: RecBole's run_recbole would follow it in "
                    "part or not at all"
                )
        if entry is None or not issubclass(entry.dataset, XLingDataset):
            return get_dataloader(config, phase)
        if phase == "train":
            return WindowLoader
        found = get_dataloader(config, phase)
        return FullRankingLoader if found is FullSortEvalDataLoader else found

    return loader


def _add_defaults(configurator: ModuleType) -> None:
    """Let plain ``Config`` find the defaults of registered models; RecBole's own models keep RecBole's defaults."""
    load, merge = configurator.Config._load_internal_config_dict, configurator.Config._get_final_config_dict

    @functools.wraps(load)
    def loaded(self: Any, model: str, model_class: type, dataset: str) -> None:
        from recbole_xling.config import load_defaults, use_current_names

        load(self, model, model_class, dataset)
        if registration(model) is not None:
            use_current_names(self, model_class)
            self.internal_config_dict.update(load_defaults(self, model_class, dataset))

    @functools.wraps(merge)
    def merged(self: Any) -> dict[str, Any]:
        from recbole_xling.config import XLingConfig, settings_of

        settings: dict[str, Any] = merge(self)
        typed = None if registration(self.model) is None else settings_of(self.model_class)
        if typed is not None and not isinstance(self, XLingConfig):  # which does so itself, once types are checked
            typed.adjust_defaults(settings, self.external_config_dict)
        return settings

    configurator.Config._load_internal_config_dict = loaded
    configurator.Config._get_final_config_dict = merged


def _our_files(load: Callable[[str], tuple[Any, ...]]) -> Callable[[str], tuple[Any, ...]]:
    """Let RecBole's ``load_data_and_model`` read checkpoints of this package as well as its own."""

    def loaded(model_file: str) -> tuple[Any, ...]:
        from recbole_xling.quick_start.build import load_model_file
        from recbole_xling.trainer.checkpoint import is_ours

        if not is_ours(Path(model_file)):
            return load(model_file)
        run = load_model_file(Path(model_file))
        return run.config, run.model, run.dataset, run.train_data, run.valid_data, run.test_data

    return loaded
