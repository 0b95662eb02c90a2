"""Data, model and trainer of a run: built from settings, or loaded from a finished one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import recbole.data as recbole_data
from recbole.data import data_preparation
from recbole.trainer import Trainer
from recbole.utils import get_trainer, init_seed

from recbole_xling.config import XLingConfig
from recbole_xling.data.impressions import Interactions
from recbole_xling.errors import CheckpointError, ConfigError, DataError, unknown_name
from recbole_xling.evaluator.ranking import eval_context_of
from recbole_xling.evaluator.slices import EvalContext
from recbole_xling.evaluator.split_summary import split_summary, target_pairs, training_pairs
from recbole_xling.trainer.checkpoint import load_checkpoint, load_trainable
from recbole_xling.trainer.mixin import XLingTrainerMixin
from recbole_xling.trainer.trainer import XLingTrainer
from recbole_xling.utils.plain_data import from_plain
from recbole_xling.utils.run_folder import MODEL_FILE


@dataclass
class Run:
    """A run in memory: its settings, data, loaders and model."""

    config: XLingConfig
    dataset: Any
    train_data: Any
    valid_data: Any
    test_data: Any
    model: Any
    pairs: tuple[np.ndarray, np.ndarray]
    """Users and items of all interactions before they were split."""

    @cached_property
    def population(self) -> EvalContext:
        """Users and items, their languages, and what is known of them without the test."""
        return eval_context_of(self.train_data._dataset, self.pairs, target_pairs(self.test_data._dataset))

    @cached_property
    def splits(self) -> dict[str, Any]:
        """What training, validation and test hold."""
        parts = {"train": training_pairs(self.train_data._dataset)}
        parts |= {"valid": target_pairs(self.valid_data._dataset), "test": target_pairs(self.test_data._dataset)}
        return split_summary(self.config["eval_args"]["split"], parts, self.population)


@dataclass
class Data:
    """A dataset that was loaded and split."""

    dataset: Any
    train_data: Any
    valid_data: Any
    test_data: Any
    interactions: Interactions


def build_data(config: XLingConfig) -> Data:
    """Load a dataset and split it as the settings say."""
    init_seed(config["seed"], config["reproducibility"])
    with _no_pickles(config):
        dataset = recbole_data.create_dataset(config)  # as registry.py has changed it
        interactions = _interactions(dataset)
        _check_topk(config, dataset.item_num - 1)
        train_data, valid_data, test_data = data_preparation(config, dataset)
    return Data(dataset, train_data, valid_data, test_data, interactions)


def _interactions(dataset: Any) -> Interactions:
    table = dataset.inter_feat
    users, items = (np.array(table[field], dtype=np.int64) for field in (dataset.uid_field, dataset.iid_field))
    times = np.array(table[dataset.time_field], dtype=np.float64) if dataset.time_field in table else None
    return Interactions(users, items, times)


def build(config: XLingConfig) -> Run:
    """Build data, loaders and an untrained model from settings."""
    data = build_data(config)
    init_seed(config["seed"], config["reproducibility"])
    model = config.model_class(config, data.train_data._dataset).to(config["device"])
    loaders = (data.train_data, data.valid_data, data.test_data)
    return Run(config, data.dataset, *loaders, model, (data.interactions.users, data.interactions.items))


def find_dataset(config: XLingConfig) -> None:
    """Fail with the datasets there are, where RecBole would ask on the terminal whether to download one."""
    folder, name = Path(config["data_path"]), config["dataset"]
    if config["benchmark_filename"] or (folder / f"{name}.inter").is_file():
        return
    known = [path.name for path in sorted(folder.parent.glob("*/")) if any(path.glob("*.inter"))]
    there = unknown_name("dataset", name, known) if known else f"there is no dataset '{name}'"
    raise DataError(
        f"{there} in '{folder.parent}' (no file '{folder / name}.inter'). "
        "Convert it first (recbole-xling convert) or set data_path"
    )


def _check_topk(config: XLingConfig, n_items: int) -> None:
    if max(config["topk"]) > n_items:
        raise ConfigError(f"topk {config['topk']} asks for longer lists than the dataset has items ({n_items})")


@contextmanager
def _no_pickles(config: XLingConfig) -> Iterator[None]:
    """Point RecBole to files that do not exist: it would unpickle datasets that lie in ``checkpoint_dir``."""
    names = ("dataset_save_path", "dataloaders_save_path")
    before = {name: config[name] for name in names}
    for name in names:
        config[name] = f"{os.devnull}/{name}"
    try:
        yield
    finally:
        for name, value in before.items():
            config[name] = value


def build_trainer(config: XLingConfig, model: Any) -> Any:
    """Return the trainer of a model: ours, or RecBole's special one with our files and results."""
    found = get_trainer(config["MODEL_TYPE"], config["model"])
    if found is Trainer:
        return XLingTrainer(config, model)
    if issubclass(found, XLingTrainerMixin):
        return found(config, model)
    if not issubclass(found, Trainer):
        raise ConfigError(
            f"{config['model']} is trained by RecBole's {found.__name__}, outside its Trainer: use RecBole"
        )
    if not config["single_spec"]:
        raise ConfigError(f"{config['model']} has a trainer of its own, which runs in one process only")
    for key in ("accumulation_steps", "lr_schedule", "warmup_steps", "learning_rates"):
        if config[key] != config.internal_config_dict[key]:
            raise ConfigError(f"{config['model']} has a trainer of its own, which does not know {key}")
    return type(found.__name__, (XLingTrainerMixin, found), {})(config, model)


# ---- loading --------------------------------------------------------------------------------------------------


def load_run(folder: str | os.PathLike[str]) -> Run:
    """Load a run folder: its settings, its data built again, and the trained model.

    Raises:
        CheckpointError: the folder is not a run, or its files are damaged.
    """
    folder = Path(folder)
    if not (folder / MODEL_FILE).is_file():
        raise CheckpointError(f"'{folder}' is no run folder: it has no {MODEL_FILE}")
    return load_model_file(folder / MODEL_FILE)


def load_model_file(file: Path) -> Run:
    """Load a checkpoint written by recbole-xling; the settings stand in it."""
    checkpoint = load_checkpoint(file)
    settings = {**from_plain(checkpoint["config"]), "allow_unknown_keys": True}
    config = XLingConfig(config_dict=settings)
    config["run_dir"] = str(file.parent)
    find_dataset(config)
    parts = build(config)
    load_trainable(parts.model, checkpoint["state_dict"], file)
    parts.model.load_other_parameter(from_plain(checkpoint["other_parameter"]))
    parts.model.eval()
    return parts
