"""Data, model and trainer of a run: built from settings, or loaded from a finished one."""

from __future__ import annotations

import importlib.util
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import recbole.data.dataset as recbole_datasets
from recbole.data.dataloader import NegSampleEvalDataLoader
from recbole.data.utils import create_samplers, get_dataloader
from recbole.sampler import KGSampler
from recbole.trainer import PretrainTrainer, Trainer
from recbole.utils import ModelType, get_trainer, init_seed

from recbole_xling.config import XLingConfig
from recbole_xling.data.candidates import SampledEvalLoader
from recbole_xling.data.checks import check_evaluation, check_parts
from recbole_xling.data.columns import check_slices
from recbole_xling.data.dataset import XLingDataset
from recbole_xling.data.impressions import Interactions
from recbole_xling.data.loader import WindowLoader
from recbole_xling.data.mixin import XLingDatasetMixin
from recbole_xling.data.splits.build import build_parts
from recbole_xling.errors import ConfigError, DataError, explained, unknown_name
from recbole_xling.evaluator.ranking import eval_context_of
from recbole_xling.evaluator.slices import EvalContext
from recbole_xling.evaluator.split_summary import split_summary, target_pairs, training_pairs
from recbole_xling.registry import registration
from recbole_xling.trainer.checkpoint import load_checkpoint, load_trainable
from recbole_xling.trainer.mixin import XLingTrainerMixin
from recbole_xling.trainer.trainer import PretrainingMixin, XLingTrainer
from recbole_xling.utils.plain_data import from_plain
from recbole_xling.utils.run_folder import model_file
from recbole_xling.utils.staging import settle

# Packages that models of RecBole import no earlier than in training.
_PACKAGES = {"KGAT": "dgl", "KGIN": "torch_scatter", "MCCLK": "torch_scatter", "NCL": "faiss"}


@dataclass(repr=False)
class Data:
    """A dataset that was loaded and split, with the loaders of its parts."""

    config: XLingConfig
    dataset: Any
    train_data: Any
    valid_data: Any
    test_data: Any
    interactions: Interactions
    """All interactions before they were split."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.config!r}: {self.size})"

    @property
    def size(self) -> str:
        """Users that interact, items of the catalog and interactions, in words."""
        users, items = len(np.unique(self.interactions.users)), self.dataset.item_num - 1
        return f"{users:,} users, {items:,} items, {len(self.interactions.users):,} interactions"

    @cached_property
    def context(self) -> EvalContext:
        """Users and items, their languages, and what is known of them without the test."""
        pairs = self.interactions.users, self.interactions.items
        return eval_context_of(self.train_data._dataset, pairs, target_pairs(self.test_data._dataset))

    @cached_property
    def splits(self) -> dict[str, Any]:
        """What training, validation and test consist of."""
        parts = {"train": training_pairs(self.train_data._dataset)}
        parts |= {"valid": target_pairs(self.valid_data._dataset), "test": target_pairs(self.test_data._dataset)}
        return split_summary(kind_of_split(self.config), parts, self.context)


def kind_of_split(config: XLingConfig) -> dict[str, Any]:
    """Return the setting that splits the data, for the summary of its parts."""
    files: dict[str, Any] = {"benchmark_filename": config["benchmark_filename"]}
    return files if config["benchmark_filename"] else dict(config["eval_args"]["split"])


@dataclass(repr=False)
class Run(Data):
    """A run in memory: its settings, data, loaders and model."""

    model: Any


# ---- building -------------------------------------------------------------------------------------------------


def build(config: XLingConfig) -> Run:
    """Build data, loaders and an untrained model from settings."""
    data = build_data(config)
    init_seed(config["seed"], config["reproducibility"])
    with explained(f"{config['model']} cannot be built with these settings"):
        model = config.model_class(config, data.train_data._dataset).to(config["device"])
    return Run(**vars(data), model=model)


def build_data(config: XLingConfig) -> Data:
    """Load a dataset, split it as the settings say, and make the loaders of its parts.

    This is what RecBole's ``create_dataset`` and ``data_preparation`` do, without the pickles that these look for.

    Raises:
        ConfigError: ``topk`` asks for longer lists than the dataset has items, or the split does not suit it.
        DataError: a file is missing or wrong, or the split leaves nothing to train or test on.
    """
    with explained(f"the dataset '{config['dataset']}' cannot be used with these settings"):
        return _build_data(config)


def _build_data(config: XLingConfig) -> Data:
    if (package := _PACKAGES.get(config["model"])) and importlib.util.find_spec(package) is None:
        raise ConfigError(f"{config['model']} needs a package that is not installed: {package}")
    check_evaluation(config)
    init_seed(config["seed"], config["reproducibility"])
    dataset = _dataset_class(config)(config)
    table = dataset.inter_feat
    users, items = (np.array(table[field], dtype=np.int64) for field in (dataset.uid_field, dataset.iid_field))
    times = np.array(table[dataset.time_field], dtype=np.float64) if dataset.time_field in table else None
    if max(config["topk"]) >= dataset.item_num:
        n_items = dataset.item_num - 1
        raise ConfigError(f"topk {config['topk']} asks for longer lists than the dataset has items ({n_items})")
    parts = dataset.build() if isinstance(dataset, XLingDataset) else build_parts(dataset)
    check_parts(config, dataset.dataset_name, parts, users)
    samplers = create_samplers(config, dataset, parts)
    options: dict[str, Any] = {"shuffle": config["shuffle"]}
    if config["MODEL_TYPE"] == ModelType.KNOWLEDGE:
        sampling = config["train_neg_sample_args"]
        options = {"kg_sampler": KGSampler(dataset, sampling["distribution"], sampling["alpha"]), "shuffle": True}
    train_loader = WindowLoader if isinstance(parts[0], XLingDataset) else get_dataloader(config, "train")
    train_data: Any = train_loader(config, parts[0], samplers[0], **options)
    valid_data, test_data = (
        _eval_loader(config, phase, part, sampler)
        for phase, part, sampler in zip(("valid", "test"), parts[1:], samplers[1:], strict=True)
    )
    return Data(config, dataset, train_data, valid_data, test_data, Interactions(users, items, times))


def _eval_loader(config: XLingConfig, phase: str, part: Any, sampler: Any) -> Any:
    """Return the loader of validation or test; sampled candidates are drawn by our own."""
    loader = get_dataloader(config, phase)
    if issubclass(loader, NegSampleEvalDataLoader):
        if config["eval_args"]["mode"][phase] != "labeled":
            return SampledEvalLoader(config, part, sampler)
        sampler = sampler or SimpleNamespace(phase=phase)  # without one RecBole takes validation for the test
    return loader(config, part, sampler, shuffle=False)


def _dataset_class(config: XLingConfig) -> Any:
    """Return the class of a model's dataset by RecBole's rule: by the model's name, else by its kind."""
    entry = registration(config["model"])
    if entry is not None:
        found = entry.dataset
    else:
        by_kind = {ModelType.SEQUENTIAL: "SequentialDataset", ModelType.KNOWLEDGE: "KnowledgeBasedDataset"}
        default = getattr(recbole_datasets, by_kind.get(config["MODEL_TYPE"], "Dataset"))
        found = getattr(recbole_datasets, f"{config['model']}Dataset", default)
    if issubclass(found, XLingDatasetMixin):
        return found
    return type(found.__name__, (XLingDatasetMixin, found), {})


def find_dataset(config: XLingConfig) -> None:
    """Check that the dataset's files exist; RecBole would ask on the terminal whether to download it.

    Raises:
        ConfigError: ``slice_by`` names a column that they do not have.
        DataError: they do not; the message names the datasets of that folder.
    """
    folder, name = Path(config["data_path"]), config["dataset"]
    settle(folder)
    if parts := config["benchmark_filename"]:
        for file in [folder / f"{name}.{part}.inter" for part in parts]:
            if not file.is_file():
                raise DataError(f"no file '{file}', which benchmark_filename {parts} names")
        check_slices(config)
        return
    if (folder / f"{name}.inter").is_file():
        check_slices(config)
        return
    known = [path.name for path in sorted(folder.parent.glob("*/")) if any(path.glob("*.inter"))]
    problem = unknown_name("dataset", name, known) if known else f"dataset '{name}' does not exist"
    raise DataError(
        f"{problem} in '{folder.parent}' (no file '{folder / name}.inter'). "
        "Convert it first (recbole-xling convert) or set data_path"
    )


def build_trainer(config: XLingConfig, model: Any) -> Any:
    """Return the trainer of a model: ours, or RecBole's special one with our files and results.

    Raises:
        ConfigError: RecBole trains the model outside its ``Trainer``, or the model's own trainer cannot do what the
            settings ask.
    """
    entry = registration(config["model"])
    found = get_trainer(config["MODEL_TYPE"], config["model"]) if entry is None else entry.trainer
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
    first = (PretrainingMixin,) if issubclass(found, PretrainTrainer) else ()
    return type(found.__name__, (*first, found, XLingTrainer), {})(config, model)


# ---- loading --------------------------------------------------------------------------------------------------


def load_run(folder: str | os.PathLike[str]) -> Run:
    """Load a run folder: its settings, its data built again, and the trained model.

    Raises:
        CheckpointError: the folder is not a run, or its files are damaged.
    """
    return load_model_file(model_file(folder))


def load_model_file(file: Path) -> Run:
    """Load a checkpoint written by recbole-xling, which includes the settings."""
    checkpoint = load_checkpoint(file)
    config = XLingConfig(config_dict={**from_plain(checkpoint["config"]), "allow_unknown_keys": True})
    config["run_dir"] = str(file.parent)
    find_dataset(config)
    run = build(config)
    restore_model(run.model, checkpoint, file)
    return run


def restore_model(model: Any, checkpoint: dict[str, Any], file: Path) -> None:
    """Give a new model the trained weights of a checkpoint and what else it remembers, and switch to evaluation.

    Raises:
        CheckpointError: the weights are those of another model or dataset.
    """
    load_trainable(model, checkpoint["state_dict"], file)
    model.load_other_parameter(from_plain(checkpoint["other_parameter"]))
    model.eval()
