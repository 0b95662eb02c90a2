"""The run loop: settings to data, model, training, results."""

from __future__ import annotations

import logging
import os
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch

from recbole_xling.config import XLingConfig, plain_settings
from recbole_xling.data.identity import changes, fingerprint
from recbole_xling.errors import CheckpointError, ConfigError, explained
from recbole_xling.evaluator.ranking import evaluate_full_ranking
from recbole_xling.evaluator.slices import mark_transfer
from recbole_xling.evaluator.split_summary import summary_text
from recbole_xling.quick_start.build import build, build_trainer, check_full_ranking, find_dataset, validation_rows
from recbole_xling.quick_start.tracking import Tracking, tracked
from recbole_xling.quick_start.trained import (
    data_to_go_on_from,
    earlier_defaults,
    leave_out_places,
    refuse_code,
    unchanged_data,
)
from recbole_xling.trainer.trainer import RESUME_FILE
from recbole_xling.utils.distributed import is_main_process, shows_progress
from recbole_xling.utils.launched import is_launched, launched_settings
from recbole_xling.utils.run_folder import (
    CONFIG_FILE,
    MODEL_FILE,
    USERS_FILE,
    create_run_folder,
    in_use,
    logging_to,
    remove_stale,
    reopen,
    versions,
    write_config,
    write_result,
    write_table,
)
from recbole_xling.utils.terminal import on_screen
from recbole_xling.utils.yaml_text import read_yaml_settings

logger = logging.getLogger(__name__)


def run(
    model: str | type | None = None,
    dataset: str | None = None,
    config_file_list: Sequence[str | os.PathLike[str]] | None = None,
    config_dict: Mapping[str, Any] | None = None,
    arguments: Sequence[str] = (),
    saved: bool = True,
    callback_fn: Callable[[int, float], None] | None = None,
) -> dict[str, Any]:
    """Train and test any RecBole model, with results per language, and leave a run folder.

    Args:
        model: name or class of the model; can be set in the configuration instead.
        dataset: name of the dataset; can be set in the configuration instead.
        config_file_list: YAML files.
        config_dict: settings.
        arguments: command-line arguments ``--key=value``.
        saved: whether the model is written; without it the last epoch's weights are tested.
        callback_fn: called with epoch and validation score after each evaluation; what it raises ends the run.

    Returns:
        The content of ``result.json``: ``best_valid``, ``test``, ``slices``, timings, versions, seed, and the folder.
        With ``stages`` that of ``stages.json``.

    Where torchrun has started the process, the run is one of all its processes together.

    Raises:
        XlingError: settings or data cannot be used, or a file cannot be written.
    """
    launched = launched_settings()
    config, resume = configure(model, dataset, config_file_list, {**(config_dict or {}), **launched}, arguments)
    if config["stages"]:
        from recbole_xling.quick_start.stages import run_stages  # which runs each stage by this function

        if launched:
            raise ConfigError("torchrun starts one run, and stages are several: use --nproc, or one process")
        if not saved:
            raise ConfigError("stages start from each other's models: they cannot be run without saving these")
        return run_stages(config, resume, run)
    return run_configured(config, open_folder(config, resume), resume, saved, callback_fn)


def configure(
    model: str | type | None = None,
    dataset: str | None = None,
    config_file_list: Sequence[str | os.PathLike[str]] | None = None,
    config_dict: Mapping[str, Any] | None = None,
    arguments: Sequence[str] = (),
) -> tuple[XLingConfig, Path | None]:
    """Return the configuration of a run, and the folder that it is to resume.

    Raises:
        XlingError: settings cannot be used, or there is no dataset of that name.
    """
    files = list(config_file_list or [])
    resume = _resume_folder(config_dict, arguments)
    if resume is not None:
        files.insert(0, resume / CONFIG_FILE)
    config = XLingConfig(model, dataset, files, config_dict, arguments)
    if resume is not None:
        stored, own = (config._load_config_files(part) for part in (files[:1], files[1:]))
        given = {**own, **config.variable_config_dict, **config.cmd_config_dict}
        refuse_code(resume, stored, given)
        leave_out_places(config, given)
        for key, value in earlier_defaults(stored).items():
            if key not in given:
                config[key] = value
    if config["resume"] and resume is None:
        raise ConfigError("resume cannot be set in a configuration file; give it as --resume=<run folder>")
    if config["epochs"] < 1 and not config["init_from"]:
        raise ConfigError("epochs must be at least 1; with init_from, 0 tests the model of that run as it is")
    find_dataset(config)
    return config, resume


def open_folder(config: XLingConfig, resume: Path | None) -> Path:
    """Return the run folder, a new one if no run is resumed; all processes of a run get the same."""
    names = [str(resume or config["run_dir"] or "")]
    if is_main_process(config) and resume is None:
        if not names[0]:
            names = [str(create_run_folder(Path(config["checkpoint_dir"]), config["model"], config["dataset"]))]
        elif Path(names[0]).exists():
            raise ConfigError(f"run_dir: '{names[0]}' exists: name another folder, or go on with --resume={names[0]}")
        else:
            Path(names[0]).mkdir(parents=True)
    if not config["single_spec"]:
        torch.distributed.broadcast_object_list(names)
    config["run_dir"] = names[0]
    return Path(names[0])


def run_configured(
    config: XLingConfig,
    folder: Path,
    resume: Path | None,
    saved: bool = True,
    callback_fn: Callable[[int, float], None] | None = None,
) -> dict[str, Any]:
    """Train and test, and leave the folder only if something of the model is in it.

    Raises:
        XlingError: data cannot be used, or a file cannot be written.
    """
    main = is_main_process(config)
    try:
        with ExitStack() as meanwhile:
            if main:
                meanwhile.enter_context(in_use(folder))
                meanwhile.enter_context(logging_to(folder, config["state"]))
            return _run(config, saved, resume, meanwhile.enter_context(tracked(config)), callback_fn)
    except BaseException:
        if main and resume is None:
            close_failed_folder(folder)
        raise


def close_failed_folder(folder: Path) -> None:
    """Remove the folder of a run that failed before anything of its model was saved, or say how the run goes on."""
    if (folder / RESUME_FILE).exists():
        logger.warning("The run has not finished. It goes on with --resume=%s", folder)
    elif not (folder / MODEL_FILE).exists():
        shutil.rmtree(folder, ignore_errors=True)


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
            if file == RESUME_FILE and read_yaml_settings(Path(named) / CONFIG_FILE).get("stages"):
                break  # its stages have folders of their own
            raise CheckpointError(f"cannot resume '{named}': {file} is missing")
    return Path(named)


def _run(
    config: XLingConfig,
    saved: bool,
    resume: Path | None,
    tracking: Tracking,
    callback_fn: Callable[[int, float], None] | None,
) -> dict[str, Any]:
    """Build, train and test; the first process writes the folder's files."""
    started = time.perf_counter()
    main, folder = is_main_process(config), Path(config["run_dir"])
    if main:
        logger.info("Run folder: %s", folder)
        if resume is None:
            write_config(folder, plain_settings(config))
    run = build(config, data_to_go_on_from(config) if resume is None else unchanged_data(config, resume / RESUME_FILE))
    if main:
        logger.info("Dataset %s: %s", config["dataset"], run.size)
        logger.info("%s", summary_text(run.splits))
        if on_screen():
            logger.info("%s", run.model)
        weights = list(run.model.parameters())
        numbers = (
            sum(weight.numel() for weight in part) for part in (weights, [w for w in weights if w.requires_grad])
        )
        logger.info("%s: {:,} weights, {:,} of them trained".format(*numbers), config["model"])
    trainer = build_trainer(config, run.model)
    if resume is not None:
        trainer.resume_checkpoint(resume / RESUME_FILE)
        if main:
            reopen(folder)
            write_config(folder, plain_settings(config))
    validation = validation_rows(run)
    for loader in (run.test_data, *([validation] if config["eval_step"] > 0 else ())):
        check_full_ranking(run.model, loader)
    built = time.perf_counter()

    def validated(epoch: int, score: float) -> None:
        tracking.validated(epoch, score)
        if callback_fn is not None:
            callback_fn(epoch, score)

    show_progress = shows_progress(config)
    with explained(f"{config['model']} cannot be trained with these settings"):
        _, best_valid = trainer.fit(
            run.train_data, validation, saved=saved, show_progress=show_progress, callback_fn=validated
        )
    trained = time.perf_counter()
    with explained(f"{config['model']} cannot be tested with these settings"):
        test, users = evaluate_full_ranking(trainer, run.test_data, run.context, load_best_model=saved)
    if not config["benchmark_filename"]:
        mark_transfer(test["slices"], config["eval_args"]["split"])
    changed = changes(run.dataset.fingerprint, fingerprint(config))
    if changed:
        logger.warning("the data have changed while the run was reading them: %s", "; ".join(changed))
    result = {
        "model": config["model"],
        "dataset": config["dataset"],
        "data": {"files": run.dataset.fingerprint, "changed_during_run": changed},
        "splits": run.splits,
        **({"init_from": trainer.matches} if getattr(trainer, "matches", None) else {}),
        **({"init_from_sha256": digest} if (digest := getattr(trainer, "started_from", None)) else {}),
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
    tracking.finished(result, trainer.train_loss_dict)
    if main:
        if users is not None:
            write_table(folder / USERS_FILE, users)
        result = write_result(folder, result)
        remove_stale(folder)
    if not config["single_spec"] and not is_launched():
        torch.distributed.destroy_process_group()
    return result
