"""Data, model and trainer of a run: built from settings, or loaded from a finished one."""

from __future__ import annotations

import importlib.util
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import recbole.data.dataset as recbole_datasets
from numpy.typing import NDArray
from recbole.data.dataloader import FullSortEvalDataLoader, NegSampleEvalDataLoader
from recbole.data.interaction import Interaction
from recbole.data.utils import create_samplers, get_dataloader
from recbole.sampler import KGSampler
from recbole.trainer import PretrainTrainer, Trainer
from recbole.utils import ModelType, get_trainer, init_seed

from recbole_xling.config import XLingConfig, plain_settings, settings_of
from recbole_xling.config.shared import DataConfig, OverallConfig
from recbole_xling.data.candidates import SampledEvalLoader
from recbole_xling.data.checks import check_evaluation, check_parts
from recbole_xling.data.columns import check_slices
from recbole_xling.data.dataset import XLingDataset
from recbole_xling.data.identity import DataIdentity
from recbole_xling.data.impressions import Interactions
from recbole_xling.data.language_balance import parts_of_languages
from recbole_xling.data.loader import FullRankingLoader, WindowLoader
from recbole_xling.data.mixin import XLingDatasetMixin
from recbole_xling.data.splits.build import build_parts
from recbole_xling.errors import CheckpointError, ConfigError, DataError, explained, unknown_name
from recbole_xling.evaluator.ranking import eval_context_of
from recbole_xling.evaluator.slices import EvalContext
from recbole_xling.evaluator.split_summary import Pairs, split_summary, target_pairs
from recbole_xling.model.base import hooks_of
from recbole_xling.quick_start.pictures import Pictures
from recbole_xling.quick_start.serving import Serving
from recbole_xling.quick_start.trained import Trained, read_trained, report_changes, restore_model, settings_for
from recbole_xling.registry import registration
from recbole_xling.text.view import OWN
from recbole_xling.trainer.mixin import XLingTrainerMixin
from recbole_xling.trainer.trainer import PretrainingMixin, XLingTrainer
from recbole_xling.utils.memory import weights_in_memory
from recbole_xling.utils.run_folder import model_file
from recbole_xling.utils.staging import settle
from recbole_xling.utils.yaml_text import as_words

logger = logging.getLogger(__name__)

# Packages that models of RecBole import no earlier than in training.
_PACKAGES = {"KGAT": "dgl", "KGIN": "torch_scatter", "MCCLK": "torch_scatter", "NCL": "faiss"}
# Settings that change neither what is read nor how it is split.
_AFTER_READING = frozenset(
    "allow_unknown_keys beyond_accuracy checkpoint_dir embedding_cache_dir encoder_batch_size eval_batch_size "
    "exclude_history log_mlflow energy_country log_wandb metric_decimal_place metrics show_progress topk "
    "valid_metric".split()
)
_TEXT_SETTINGS = ("text_fields", "text_template", "text_view", "reader_vectors", "encoder_max_length", "encoder_prompt")


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
    used: Pairs
    """Users and items of those that are in some part of the split, or in a history there."""

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
        return eval_context_of(self.train_data._dataset, self.used, target_pairs(self.test_data._dataset))

    @cached_property
    def splits(self) -> dict[str, Any]:
        """What training, validation and test consist of."""
        train = self.train_data._dataset
        if self.config["languages"]:  # the loader leaves out the others
            (train,) = parts_of_languages([train], train, self.config)
        parts = {"train": train.training_pairs()}
        parts |= {"valid": target_pairs(self.valid_data._dataset), "test": target_pairs(self.test_data._dataset)}
        return split_summary(kind_of_split(self.config), parts, self.context)


def kind_of_split(config: XLingConfig) -> dict[str, Any]:
    """Return the setting that splits the data, for the summary of its parts."""
    files: dict[str, Any] = {"benchmark_filename": config["benchmark_filename"]}
    return files if config["benchmark_filename"] else dict(config["eval_args"]["split"])


@dataclass(repr=False)
class Run(Data, Pictures, Serving):
    """A run in memory: its settings, data, loaders and model."""

    model: Any


# ---- building -------------------------------------------------------------------------------------------------


def build(config: XLingConfig, trained_on: DataIdentity | None = None) -> Run:
    """Build data, loaders and an untrained model from settings; ``trained_on`` as for :func:`build_data`."""
    _warn_of_idle_settings(config)
    data = build_data(config, trained_on)
    return Run(**vars(data), model=_new_model(config, data.train_data._dataset))


def _warn_of_idle_settings(config: XLingConfig) -> None:
    """Say which settings differ from their defaults and change nothing beside the others."""
    typed = settings_of(config.model_class)
    if typed is None:  # RecBole's own models do not read such settings, nor say so
        return
    defaults = OverallConfig.defaults() | typed.defaults()
    idle = [*DataConfig.of(config).idle, *hooks_of(config.model_class).idle_settings(config)]
    if told := [f"{key}={config[key]}" for key in idle if key in defaults and config[key] != defaults[key]]:
        logger.warning("without effect on %s beside the other settings: %s", config["model"], ", ".join(told))


def _new_model(config: XLingConfig, dataset: Any) -> Any:
    """Return an untrained model."""
    init_seed(config["seed"], config["reproducibility"])
    with explained(f"{config['model']} cannot be built with these settings"), weights_in_memory(config["model"]):
        return config.model_class(config, dataset).to(config["device"])


def build_data(config: XLingConfig, trained_on: DataIdentity | None = None) -> Data:
    """Load a dataset, split it as the settings say, and make the loaders of its parts.

    This is what RecBole's ``create_dataset`` and ``data_preparation`` do, without the pickles that these look for.

    Args:
        config: the settings.
        trained_on: the data that a model was trained on; if these are theirs, ids keep their numbers.

    Raises:
        ConfigError: ``topk`` asks for longer lists than the dataset has items, or the split does not suit it.
        DataError: a file is missing or wrong, or the split leaves nothing to train or test on.
    """
    with explained(f"the dataset '{config['dataset']}' cannot be used with these settings"):
        return _build_data(config, trained_on)


def _build_data(config: XLingConfig, trained_on: DataIdentity | None) -> Data:
    if (package := _PACKAGES.get(config["model"])) and importlib.util.find_spec(package) is None:
        raise ConfigError(f"{config['model']} needs a package that is not installed: {package}")
    check_evaluation(config)
    init_seed(config["seed"], config["reproducibility"])
    dataset = _dataset_class(config, trained_on)(config)
    interactions = interactions_of(dataset)  # before they are split
    if max(config["topk"]) >= dataset.item_num:
        n_items = dataset.item_num - 1
        raise ConfigError(f"topk {config['topk']} asks for longer lists than the dataset has items ({n_items})")
    parts = dataset.build() if isinstance(dataset, XLingDataset) else build_parts(dataset)
    check_parts(config, dataset.dataset_name, parts, interactions.users)
    whole = parts
    if config["languages"]:
        parts = _of_languages(config, parts)
    needs_none = isinstance(parts[0], XLingDataset) and {*config["eval_args"]["mode"].values()} == {"full"}
    # RecBole's are slow to make for many users, each of whom has a set of items there
    samplers = [None] * 3 if needs_none else _samplers(config, dataset, parts, whole)
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
    used = getattr(parts[0], "used", (interactions.users, interactions.items))
    return Data(config, dataset, train_data, valid_data, test_data, interactions, used)


def _samplers(config: XLingConfig, dataset: Any, parts: list[Any], whole: list[Any]) -> list[Any]:
    """Return RecBole's samplers of training, validation and test, which know what users have met.

    Args:
        config: the settings.
        dataset: that was split.
        parts: of the split.
        whole: the same with the rows of all languages: what a user has met in others is not ranked for him.
    """
    samplers = list(create_samplers(config, dataset, parts))
    if config["repeatable"]:
        return samplers
    if parts is not whole:
        samplers[1:] = create_samplers(config, dataset, whole)[1:]
        for phase, sampler in enumerate(samplers[1:], start=1):
            if sampler is not None:  # what comes in the same part is no history
                sampler.used_ids = _met_in([*whole[:phase], parts[phase]])
    for sampler, part in zip(samplers[1:], whole[1:], strict=True):
        if sampler is not None and (met := getattr(part, "met", None)) is not None:
            for user, item in zip(*(ids.tolist() for ids in met), strict=True):
                sampler.used_ids[user].add(item)
    return samplers


def _met_in(parts: list[Any]) -> NDArray[np.object_]:
    """Return the set of items that each user has in some parts, ``(n_users,)``, as RecBole's samplers keep them."""
    found = np.array([set[int]() for _ in range(parts[0].user_num)], dtype=object)
    for part in parts:
        for user, item in zip(*(part.inter_feat[f].tolist() for f in (part.uid_field, part.iid_field)), strict=True):
            found[user].add(item)
    return found


def interactions_of(dataset: Any) -> Interactions:
    """Return all interactions of a dataset that was not split yet."""
    table = dataset.inter_feat
    users, items = (np.array(table[field], dtype=np.int64) for field in (dataset.uid_field, dataset.iid_field))
    times = np.array(table[dataset.time_field], dtype=np.float64) if dataset.time_field in table else None
    return Interactions(users, items, times)


def open_dataset(config: XLingConfig) -> Any:
    """Load a dataset without splitting it.

    Raises:
        DataError: a file is missing or wrong.
    """
    find_dataset(config)
    with explained(f"the dataset '{config['dataset']}' cannot be used with these settings"):
        init_seed(config["seed"], config["reproducibility"])
        return _dataset_class(config, None)(config)


def _of_languages(config: XLingConfig, parts: list[Any]) -> list[Any]:
    """Return the parts of a split with the rows of ``languages``.

    A model that starts from an earlier run's weights still counts items over all languages, as it did there: its
    training split stays whole, and its loader leaves out other languages.

    Raises:
        DataError: a part has no row of them.
    """
    chosen = parts_of_languages(parts, parts[0], config)
    whole = config["init_from"] and isinstance(parts[0], XLingDataset)
    return [parts[0] if whole else chosen[0], *chosen[1:]]


def _eval_loader(config: XLingConfig, phase: str, part: Any, sampler: Any) -> Any:
    """Return the loader of validation or test; sampled candidates are drawn by our own."""
    loader = get_dataloader(config, phase)
    sampler = sampler or SimpleNamespace(phase=phase)  # without one RecBole takes validation for the test
    if issubclass(loader, NegSampleEvalDataLoader):
        if config["eval_args"]["mode"][phase] != "labeled":
            return SampledEvalLoader(config, part, sampler)
    elif loader is FullSortEvalDataLoader:
        loader = FullRankingLoader
    return loader(config, part, sampler, shuffle=False)


def validation_rows(run: Run) -> Any:
    """Return the loader of the rows that epochs are validated on: all, or those of ``valid_users`` users."""
    n_users, part = run.config["valid_users"], run.valid_data._dataset
    rows = rows_of_users(run, "valid", n_users)
    if rows is not run.valid_data:
        chosen, n_rows = len(rows._dataset.inter_feat), len(part.inter_feat)
        logger.info("Epochs are validated on %d of %d rows, of %d users", chosen, n_rows, n_users)
    return rows


def rows_of_users(run: Run, part: str, n_users: int | None) -> Any:
    """Return the loader of ``valid`` or ``test`` with the rows of some users, all if there are no more.

    The users depend on the seed and the ids alone.
    """
    loader = {"valid": run.valid_data, "test": run.test_data}[part]
    data = loader._dataset
    users = data.inter_feat[data.uid_field].numpy()
    everyone = {str(data.field2id_token[data.uid_field][user]): user for user in np.unique(users)}
    if n_users is None or n_users >= len(everyone):
        return loader
    names = np.random.default_rng(run.config["seed"]).choice(sorted(everyone), n_users, replace=False)
    chosen = np.isin(users, [everyone[name] for name in names])
    return _eval_loader(run.config, part, data.copy(data.inter_feat[np.flatnonzero(chosen)]), loader._sampler)


def check_full_ranking(model: Any, loader: Any) -> None:
    """Raise a ConfigError if a model would rank all items for more rows of a loader than its settings allow."""
    if isinstance(loader, FullSortEvalDataLoader):
        hooks_of(model).check_full_ranking(loader.sample_size)


def _dataset_class(config: XLingConfig, trained_on: DataIdentity | None) -> Any:
    """Return the class of a model's dataset by RecBole's rule: by the model's name, else by its kind."""
    entry = registration(config["model"])
    if entry is not None:
        found = entry.dataset
    else:
        by_kind = {ModelType.SEQUENTIAL: "SequentialDataset", ModelType.KNOWLEDGE: "KnowledgeBasedDataset"}
        default = getattr(recbole_datasets, by_kind.get(config["MODEL_TYPE"], "Dataset"))
        found = getattr(recbole_datasets, f"{config['model']}Dataset", default)
    bases = (found,) if issubclass(found, XLingDatasetMixin) else (XLingDatasetMixin, found)
    if len(bases) == 1 and trained_on is None:
        return found
    return type(found.__name__, bases, {"trained_on": trained_on})


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


def load_run(folder: str | os.PathLike[str], **settings: Any) -> Run:
    """Load a run folder: its settings, its data built again, and the trained model.

    Users, items and languages are those of training, by their ids and not by their places in the files. Files may have
    changed since: new items of models that read texts are known by these, other models are refused then. Data of other
    users and items are another dataset, for which :func:`~recbole_xling.quick_start.evaluate.evaluate_run` tells what
    is possible.

    Args:
        folder: the run folder.
        settings: settings that replace the run's, such as ``data_path`` if the data have moved.

    Raises:
        CheckpointError: the folder is not a run, its files are damaged, or its model does not fit the data.
        ConfigError: a setting is wrong.
    """
    return load_model_file(model_file(folder), **settings)


def load_model_file(file: Path, **settings: Any) -> Run:
    """Load a checkpoint written by recbole-xling, which includes the settings; as :func:`load_run`."""
    trained = read_trained(file)
    config = settings_for(trained, config_dict=settings)
    config["run_dir"] = str(file.parent)
    data, base = open_data(trained, config)
    return Run(**vars(data), model=build_model(trained, config, base))


def open_data(trained: Trained, config: XLingConfig, *, same_items: bool = False) -> tuple[Data, Any]:
    """Load and split data for a trained model.

    Args:
        trained: the run's model.
        config: the settings.
        same_items: whether items of another dataset that have the ids of the run's are the same items; they are in any
            case if its file of texts is.

    Returns:
        The data; and the dataset that the model is to be built on. If the data are those of training, whatever their
        name and folder, it is the training split of the run's own settings, and its ``trained_on`` is set; items count
        as often as they did in training, whatever clicks there are now. Otherwise it has no interactions, so that
        models find no histories and no users' choices in it, and no counts but those of the items that are the run's.

    Raises:
        CheckpointError: the data are others, or other texts are read, and the model is bound to what it was trained on.
    """
    find_dataset(config)
    here = {"dataset": config["dataset"], "data_path": plain_settings(config)["data_path"]}
    own_config = XLingConfig(config_dict=as_words({**trained.settings, **here, "allow_unknown_keys": True}))
    own, known = None, trained.data
    if known is None and config["dataset"] == trained.settings["dataset"]:
        logger.warning("'%s' is of an earlier release, which did not keep ids: they cannot be checked", trained.file)
        own = build_data(own_config)
        known = DataIdentity.of(own.train_data._dataset)
    data = build_data(config, known)
    if data.dataset.trained_on is None:
        _check_transfer(trained, config, "that is another dataset: hardly an interaction of the run's is in it")
        config["train_text_view"] = OWN  # nothing is trained, so no more texts are needed than are shown
        base = _without_interactions(data.train_data._dataset)
        _keep_popularity(trained, base, same_items)
        return data, base
    report_changes(trained, data.dataset)
    if changed := [key for key in _TEXT_SETTINGS if config[key] != own_config[key]]:
        _check_transfer(trained, config, f"other texts are read (changed: {', '.join(changed)})")
    now, then = plain_settings(config), plain_settings(own_config)
    if all(now.get(key) == then.get(key) for key in now.keys() | then.keys() if key not in _AFTER_READING):
        base = data.train_data._dataset
    else:
        train = (own or build_data(own_config, known)).train_data._dataset
        if not _has_items_of(train, data.dataset):  # other files are loaded: what they have now, split as then
            loaded = {key: config[key] for key in ("load_col", "unload_col")}
            own_config = XLingConfig(config_dict=as_words({**plain_settings(own_config), **loaded}))
            train = build_data(own_config, known).train_data._dataset
        if not _has_items_of(train, data.dataset):
            raise CheckpointError(
                f"the run '{trained.file.parent}' cannot be used with these settings, with which '{config['dataset']}' "
                f"has items that training did not load ({'; '.join(_changed(now, then))}): leave them out"
            )
        base = train.copy(train.inter_feat)
        base.config = config  # its catalog follows the settings of now: text_template, ...
        vars(base).pop("catalog", None)
    if known is not None and known.item_counts is not None:  # later clicks are none that the model was trained on
        for part in (base, data.train_data._dataset):
            part.known_item_counts = known.counts_of(part.field2id_token[part.iid_field])
    return data, base


def _has_items_of(part: Any, other: Any) -> bool:
    """Tell whether a dataset numbers all items of another one as that does; it may have more behind them."""
    own, wanted = (of.field2id_token[of.iid_field] for of in (part, other))
    return np.array_equal(own[: len(wanted)], wanted)


def _changed(now: Mapping[str, Any], then: Mapping[str, Any]) -> list[str]:
    """Return what settings of now decide otherwise on what is read."""
    keys = sorted((now.keys() | then.keys()) - _AFTER_READING)
    return [f"{key} was {then.get(key)} and is {now.get(key)}" for key in keys if now.get(key) != then.get(key)]


def build_model(trained: Trained, config: XLingConfig, base: Any) -> Any:
    """Return the trained model, built on what :func:`open_data` returned.

    Raises:
        CheckpointError: the weights do not fit.
    """
    model = _new_model(config, base)
    restore_model(model, trained, base)
    return model


def _check_transfer(trained: Trained, config: XLingConfig, why: str) -> None:
    """Raise a CheckpointError if the model's weights belong to the dataset it was trained on."""
    reasons = hooks_of(config.model_class).bound_to_data(config)
    if reasons:
        raise CheckpointError(
            f"the run '{trained.file.parent}' cannot be used on '{config['dataset']}': {why}, and its model is bound "
            f"to '{trained.settings['dataset']}': {'; '.join(reasons)}. docs/zero-shot.md tells what can be"
        )


def _keep_popularity(trained: Trained, base: Any, same_items: bool) -> None:
    """Give the items of another dataset that are the run's their numbers of training interactions.

    Raises:
        CheckpointError: they are asked for, and the run does not know them.
    """
    known, name = trained.data, base.dataset_name
    if known is None or known.item_counts is None:
        if same_items:
            raise CheckpointError(
                f"the run '{trained.file.parent}' does not know how often it met its items, because it is of an "
                "earlier release: train it again, or leave out --same-items"
            )
        return
    counts = known.counts_of(base.field2id_token[base.iid_field])
    alike = int((counts > 0).sum())
    if same_items or known.has_texts_of(base.fingerprint):
        base.known_item_counts = counts
        what = f"{alike:,} of its {len(counts) - 1:,} items were trained on and keep their popularity"
    else:
        what = "all its items count as new"
        what += f" ({alike:,} have the id of an item of the run's: --same-items if they are the same)" * bool(alike)
    logger.info("'%s' is not what the run was trained on: %s", name, what)


def _without_interactions(train: Any) -> Any:
    """Return a training split without a row."""

    def no_rows(table: Interaction) -> Interaction:
        return Interaction({field: values[:0] for field, values in table.interaction.items()})

    part = train.copy(no_rows(train.inter_feat))
    if hasattr(part, "sequence"):
        part.sequence = no_rows(part.sequence)
    return part
