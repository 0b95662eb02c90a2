"""The run loop: settings to data, model, training, results; in one process or in several."""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch.multiprocessing.spawn import spawn

from recbole_xling.config import XLingConfig, plain_settings
from recbole_xling.errors import CheckpointError, ConfigError, XlingError
from recbole_xling.evaluator.ranking import evaluate_full_ranking
from recbole_xling.evaluator.split_summary import summary_text
from recbole_xling.quick_start.build import build, build_trainer, find_dataset
from recbole_xling.trainer.trainer import RESUME_FILE
from recbole_xling.utils.distributed import is_main_process
from recbole_xling.utils.run_folder import (
    CONFIG_FILE,
    USERS_FILE,
    create_run_folder,
    logging_to,
    read_result,
    versions,
    write_config,
    write_result,
)
from recbole_xling.utils.terminal import prepare_terminal

logger = logging.getLogger(__name__)


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
        model: name or class of the model; can be set in the configuration instead.
        dataset: name of the dataset; can be set in the configuration instead.
        config_file_list: YAML files.
        config_dict: settings.
        arguments: command-line arguments ``--key=value``.
        saved: whether the model is written; without it the last epoch's weights are tested.

    Returns:
        The content of ``result.json``: ``best_valid``, ``test``, ``slices``, timings, versions, seed, and the folder.

    Raises:
        XlingError: settings or data cannot be used, or a file cannot be written.
    """
    files = list(config_file_list or [])
    resume = _resume_folder(config_dict, arguments)
    if resume is not None:
        files.insert(0, resume / CONFIG_FILE)
    config = XLingConfig(model, dataset, files, config_dict, arguments)
    if config["resume"] and resume is None:
        raise ConfigError("resume cannot be set in a configuration file; give it as --resume=<run folder>")
    find_dataset(config)
    names = [str(resume or "")]
    if is_main_process(config) and resume is None:
        names = [str(create_run_folder(Path(config["checkpoint_dir"]), config["model"], config["dataset"]))]
    if not config["single_spec"]:
        torch.distributed.broadcast_object_list(names)
    config["run_dir"] = names[0]
    with logging_to(Path(names[0]), config["state"]) if is_main_process(config) else nullcontext():
        return _run(config, saved, resume)


def _resume_folder(config_dict: Mapping[str, Any] | None, arguments: Sequence[str]) -> Path | None:
    """Return the run folder that the settings ask to resume, before there is a configuration: it comes from there."""
    named = (config_dict or {}).get("resume")
    for argument in arguments:
        if argument.startswith("--resume="):
            named = argument.partition("=")[2]
    if not named:
        return None
    for file in (CONFIG_FILE, RESUME_FILE):
        if not (Path(named) / file).is_file():
            raise CheckpointError(f"cannot resume '{named}': {file} is missing")
    return Path(named)


def _run(config: XLingConfig, saved: bool, resume: Path | None) -> dict[str, Any]:
    """Build, train and test; the first process writes the folder's files."""
    started = time.perf_counter()
    main, folder = is_main_process(config), Path(config["run_dir"])
    if main:
        logger.info("Run folder: %s", folder)
        write_config(folder, plain_settings(config))
    run = build(config)
    if main:
        logger.info("%s", run.dataset)
        logger.info("%s", summary_text(run.splits))
        logger.info("%s", run.model)
    trainer = build_trainer(config, run.model)
    if resume is not None:
        trainer.resume_checkpoint(resume / RESUME_FILE)
    built = time.perf_counter()
    show_progress = bool(config["show_progress"]) and main
    _, best_valid = trainer.fit(run.train_data, run.valid_data, saved=saved, show_progress=show_progress)
    trained = time.perf_counter()
    test, users = evaluate_full_ranking(trainer, run.test_data, run.context, load_best_model=saved)
    result = {
        "model": config["model"],
        "dataset": config["dataset"],
        "splits": run.splits,
        "best_valid": dict(best_valid or {}),
        **test,
        "seconds": {
            "build": built - started,
            "train": trained - built,
            "test": time.perf_counter() - trained,
            "epochs": list(trainer.epoch_seconds),
        },
        "seed": config["seed"],
        "versions": versions(),
        "run_dir": config["run_dir"],
    }
    if main:
        if users is not None:
            users.write_parquet(folder / USERS_FILE)
        write_result(folder, result)
    if not config["single_spec"]:
        torch.distributed.destroy_process_group()
    return result


# ---- several processes ----------------------------------------------------------------------------------------


def run_processes(
    nproc: int, world_size: int, ip: str, port: str, group_offset: int, kwargs: dict[str, Any]
) -> dict[str, Any]:
    """Call :func:`run` in several processes.

    Args:
        nproc: processes on this machine.
        world_size: processes of the group; ``nproc`` where it is not positive.
        ip: address of the first machine.
        port: its port.
        group_offset: rank of this machine's first process in the group.
        kwargs: arguments of ``run``.

    Returns:
        The result of the first process.

    Raises:
        XlingError: what the first process raised.
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

    prepare_terminal()
    logging.basicConfig(level=logging.INFO if rank == 0 else logging.ERROR, stream=sys.stderr, format="%(message)s")
    error, folder = "", ""
    try:
        folder = run(**{**settings, "config_dict": {**settings["config_dict"], "local_rank": rank}})["run_dir"]
    except XlingError as raised:
        error = str(raised)
    if rank == 0:
        queue.put(error)
        queue.put(folder)
