"""The run loop: settings to data, model, training, results; and loading a finished run."""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import recbole.data as recbole_data
import torch
from recbole.data import data_preparation
from recbole.trainer import Trainer
from recbole.utils import get_trainer, init_seed
from torch.multiprocessing.spawn import spawn

from recbole_xling.config import XLingConfig, is_main_process, plain_settings
from recbole_xling.data.impressions import Interactions
from recbole_xling.errors import CheckpointError, ConfigError, DataError, XlingError, unknown_name
from recbole_xling.evaluate.results import population_of, rank_rows
from recbole_xling.evaluate.slices import Population
from recbole_xling.evaluate.split_summary import split_summary, summary_text, target_pairs, training_pairs
from recbole_xling.run_folder import (
    CONFIG_FILE,
    MODEL_FILE,
    USERS_FILE,
    create_run_folder,
    logging_to,
    read_result,
    versions,
    write_config,
    write_result,
)
from recbole_xling.train.base import XLingTrainerMixin
from recbole_xling.train.checkpoint import load_checkpoint, load_trainable
from recbole_xling.train.plain import from_plain
from recbole_xling.train.trainer import RESUME_FILE, XLingTrainer

logger = logging.getLogger(__name__)


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
    def population(self) -> Population:
        """Users and items, their languages, and what is known of them without the test."""
        return population_of(self.train_data._dataset, self.pairs, target_pairs(self.test_data._dataset))

    @cached_property
    def splits(self) -> dict[str, Any]:
        """What training, validation and test hold."""
        parts = {"train": training_pairs(self.train_data._dataset)}
        parts |= {"valid": target_pairs(self.valid_data._dataset), "test": target_pairs(self.test_data._dataset)}
        return split_summary(self.config["eval_args"]["split"], parts, self.population)


def run(
    model: str | type | None = None,
    dataset: str | None = None,
    config_file_list: Sequence[str | os.PathLike[str]] | None = None,
    config_dict: Mapping[str, Any] | None = None,
    arguments: Sequence[str] = (),
    saved: bool = True,
) -> dict[str, Any]:
    """Train and test any RecBole model, with results per language, and leave a run folder.

    Args:
        model: name or class of the model; may stand in the configuration instead.
        dataset: name of the data set; may stand in the configuration instead.
        config_file_list: YAML files.
        config_dict: settings.
        arguments: command-line arguments ``--key=value``.
        saved: whether the model is written; without it the last epoch's weights are tested.

    Returns:
        What ``result.json`` holds: ``best_valid``, ``test``, ``slices``, timings, versions, seed, and the folder.

    Raises:
        XlingError: settings or data cannot be used, or a file cannot be written.
    """
    files = list(config_file_list or [])
    resume = _resume_folder(config_dict, arguments)
    if resume is not None:
        files.insert(0, resume / CONFIG_FILE)
    config = XLingConfig(model, dataset, files, config_dict, arguments)
    if config["resume"] and resume is None:
        raise ConfigError("resume stands in a configuration file; give it as --resume=<run folder> instead")
    find_dataset(config)
    main = is_main_process(config)
    if resume is not None:
        config["run_dir"] = str(resume)
    else:
        config["run_dir"] = _new_folder(config)
    with logging_to(Path(config["run_dir"]), config["state"]) if main else nullcontext():
        return _run(config, saved, resume)


def _new_folder(config: XLingConfig) -> str:
    """Create the run folder, in the first of several processes, and tell the others its name."""
    names = [""]
    if is_main_process(config):
        names = [str(create_run_folder(Path(config["checkpoint_dir"]), config["model"], config["dataset"]))]
    if not config["single_spec"]:
        torch.distributed.broadcast_object_list(names)
    return names[0]


def _resume_folder(config_dict: Mapping[str, Any] | None, arguments: Sequence[str]) -> Path | None:
    named = (config_dict or {}).get("resume")
    for argument in arguments:
        if argument.startswith("--resume="):
            named = argument.partition("=")[2]
    if not named:
        return None
    folder = Path(named)
    for file in (CONFIG_FILE, RESUME_FILE):
        if not (folder / file).is_file():
            raise CheckpointError(f"cannot resume '{folder}': it has no {file}")
    return folder


def _run(config: XLingConfig, saved: bool, resume: Path | None) -> dict[str, Any]:
    started = time.perf_counter()
    main = is_main_process(config)
    if main:
        logger.info("Run folder: %s", config["run_dir"])
        write_config(Path(config["run_dir"]), plain_settings(config))
    parts = build(config)
    if main:
        logger.info("%s", parts.dataset)
        logger.info("%s", summary_text(parts.splits))
        logger.info("%s", parts.model)
    trainer = build_trainer(config, parts.model)
    if resume is not None:
        trainer.resume_checkpoint(resume / RESUME_FILE)
    built = time.perf_counter()
    _, best_valid = trainer.fit(
        parts.train_data, parts.valid_data, saved=saved, show_progress=bool(config["show_progress"]) and main
    )
    trained = time.perf_counter()
    result = _test(parts, trainer, load_best_model=saved)
    result = {
        "model": config["model"],
        "dataset": config["dataset"],
        "splits": parts.splits,
        "best_valid": dict(best_valid or {}),
        **result,
        "seconds": {
            "build": built - started,
            "train": trained - built,
            "test": time.perf_counter() - trained,
            "epochs": list(getattr(trainer, "epoch_seconds", [])),
        },
        "seed": config["seed"],
        "versions": versions(),
        "run_dir": config["run_dir"],
    }
    if main:
        write_result(Path(config["run_dir"]), result)
    if not config["single_spec"]:
        torch.distributed.destroy_process_group()
    return result


# ---- parts ----------------------------------------------------------------------------------------------------


@dataclass
class Data:
    """A data set that was loaded and split."""

    dataset: Any
    train_data: Any
    valid_data: Any
    test_data: Any
    interactions: Interactions


def build_data(config: XLingConfig) -> Data:
    """Load a data set and split it as the settings say."""
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
    """Fail with the data sets there are, where RecBole would ask on the terminal whether to download one."""
    folder, name = Path(config["data_path"]), config["dataset"]
    if config["benchmark_filename"] or (folder / f"{name}.inter").is_file():
        return
    known = [path.name for path in sorted(folder.parent.glob("*/")) if any(path.glob("*.inter"))]
    there = unknown_name("data set", name, known) if known else f"there is no data set '{name}'"
    raise DataError(
        f"{there} in '{folder.parent}' (no file '{folder / name}.inter'). "
        "Convert it first (recbole-xling convert) or set data_path"
    )


def _check_topk(config: XLingConfig, n_items: int) -> None:
    if max(config["topk"]) > n_items:
        raise ConfigError(f"topk {config['topk']} asks for longer lists than the data set has items ({n_items})")


@contextmanager
def _no_pickles(config: XLingConfig) -> Any:
    """Point RecBole to files that do not exist: it would unpickle data sets that lie in ``checkpoint_dir``."""
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


def _test(parts: Run, trainer: Any, *, load_best_model: bool) -> dict[str, Any]:
    """Test a model and write ``users.parquet``; returns ``test``, ``slices`` and the number of rows."""
    result, table = rank_rows(trainer, parts.test_data, parts.population, load_best_model=load_best_model)
    if table is not None and is_main_process(parts.config):
        table.write_parquet(Path(parts.config["run_dir"]) / USERS_FILE)
    return result


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


# ---- several processes ----------------------------------------------------------------------------------------


def run_processes(
    nproc: int, world_size: int, ip: str, port: str, group_offset: int, kwargs: dict[str, Any]
) -> dict[str, Any]:
    """Run :func:`run` in ``nproc`` processes of a group of ``world_size`` (``nproc`` where that is not positive).

    Returns:
        The result of the first process.
    """
    group = {
        "world_size": world_size if world_size > 0 else nproc,
        "ip": ip,
        "port": str(port),
        "nproc": nproc,
        "offset": group_offset,
    }
    queue = torch.multiprocessing.get_context("spawn").SimpleQueue()  # only small things: nobody reads it meanwhile
    settings = {**kwargs, "config_dict": {**(kwargs.get("config_dict") or {}), **group}}
    spawn(_worker, args=(settings, queue), nprocs=nproc, join=True)
    error, folder = (queue.get() for _ in range(2))
    if error:
        raise XlingError(error)
    return read_result(Path(folder))


def _worker(rank: int, settings: dict[str, Any], queue: Any) -> None:
    import recbole_xling  # noqa: F401  (a spawned process starts empty)

    logging.basicConfig(level=logging.INFO if rank == 0 else logging.ERROR, stream=sys.stderr, format="%(message)s")
    error, folder = "", ""
    try:
        folder = run(**{**settings, "config_dict": {**settings["config_dict"], "local_rank": rank}})["run_dir"]
    except XlingError as raised:
        error = str(raised)
    if rank == 0:
        queue.put(error)
        queue.put(folder)
