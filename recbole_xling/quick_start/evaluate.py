"""Evaluating a saved run on any dataset: new items, new users, another language."""

from __future__ import annotations

import logging
import os
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl
from recbole.data.dataloader import FullSortEvalDataLoader
from recbole.data.interaction import Interaction
from recbole.utils import ModelType, dataset_arguments, get_model

from recbole_xling.config import XLingConfig, current_names, dataset_defaults, plain_settings
from recbole_xling.data.impressions import impressions_file
from recbole_xling.errors import CheckpointError, ConfigError, DataError, XlingError, unknown_name
from recbole_xling.evaluator.impressions import check_impressions, evaluate_impressions
from recbole_xling.evaluator.ranking import eval_context_of, evaluate_full_ranking
from recbole_xling.evaluator.split_summary import split_summary, summary_text, target_pairs
from recbole_xling.model.base import hooks_of
from recbole_xling.quick_start.build import Data, build_data, find_dataset, kind_of_split, restore_model
from recbole_xling.trainer.checkpoint import load_checkpoint
from recbole_xling.trainer.mixin import Evaluation
from recbole_xling.utils.plain_data import from_plain
from recbole_xling.utils.run_folder import (
    USERS_FILE,
    create_run_folder,
    model_file,
    versions,
    write_config,
    write_result,
)

logger = logging.getLogger(__name__)

_TEXT_SETTINGS = ("text_fields", "text_template", "text_view", "reader_vectors", "encoder_max_length", "encoder_prompt")

SPLITS = ("test", "valid", "all")
IMPRESSIONS_FILE = "impressions.parquet"


def evaluate_run(
    run: str | os.PathLike[str],
    dataset: str | None = None,
    *,
    split: str = "test",
    impressions: bool = False,
    config_dict: Mapping[str, Any] | None = None,
    arguments: Sequence[str] = (),
) -> dict[str, Any]:
    """Score a saved run on a dataset, its own or another one, and leave a folder in the run's.

    On another dataset the model sees texts, and each user's own history before what is to be ranked. Nothing else
    of its interactions is used: all its items count as never trained on.

    Args:
        run: the run folder; its settings are taken.
        dataset: name of the dataset; the run's own if not given.
        split: ``test`` or ``valid`` for that part of ``eval_args.split``; ``all`` for every interaction with a history.
        impressions: rank the candidates that were shown (``<dataset>.imp``) in place of the whole catalog.
        config_dict: settings that replace the run's.
        arguments: command-line arguments ``--key=value``, which replace them as well.

    Returns:
        What the new folder's ``result.json`` holds.

    Raises:
        CheckpointError: the folder is no run, or its model cannot rank another dataset's items.
        ConfigError: a setting is wrong.
        DataError: the dataset, or its impressions, cannot be used.
    """
    started = time.perf_counter()
    if split not in SPLITS:
        raise ConfigError(unknown_name("split", split, SPLITS))
    file = model_file(run)
    checkpoint = load_checkpoint(file)
    trained: dict[str, Any] = from_plain(checkpoint["config"])
    config = _settings(trained, dataset, config_dict, arguments)
    if impressions:
        impressions_file(Path(config["data_path"]), config["dataset"])
    data, part, is_own = _prepare(config, trained, file, split)
    if impressions:
        check_impressions(config, data, split)
    model = config.model_class(config, part).to(config["device"])
    restore_model(model, checkpoint, file)
    built = time.perf_counter()
    table: pl.DataFrame | None
    if impressions:
        without = hooks_of(model).ranks_without_history
        result, table = evaluate_impressions(config, model, data, split, ranks_without_history=without)
    else:
        result, table = _rank_catalog(config, model, data, part, split)
    result = {
        "model": config["model"],
        "dataset": config["dataset"],
        "run": str(run),
        "trained_on": trained["dataset"],
        "zero_shot": not is_own,
        "split": split,
        **result,
        "seconds": {"build": built - started, "test": time.perf_counter() - built},
        "seed": config["seed"],
        "versions": versions(),
    }
    return _write(Path(run), config, result, table, IMPRESSIONS_FILE if impressions else USERS_FILE)


# ---- settings -------------------------------------------------------------------------------------------------


def _settings(
    trained: Mapping[str, Any],
    dataset: str | None,
    config_dict: Mapping[str, Any] | None,
    arguments: Sequence[str],
) -> XLingConfig:
    """Return the run's settings for a dataset; what it had from its own dataset's defaults is left to the other's."""
    model_class = get_model(trained["model"])
    settings = current_names(trained, model_class)
    if dataset not in (None, trained["dataset"]):
        defaults = dataset_defaults(trained["dataset"])
        settings = {key: value for key, value in settings.items() if key not in defaults or value != defaults[key]}
    settings |= current_names(config_dict or {}, model_class)
    config = XLingConfig(trained["model"], dataset, config_dict=settings, arguments=arguments)
    if (asked := config.external_config_dict["model"]) != trained["model"]:
        raise ConfigError(f"the run's model is {trained['model']}: leave out model={asked}")
    find_dataset(config)
    config["log_wandb"] = False
    return config


# ---- data and model -------------------------------------------------------------------------------------------


def _prepare(config: XLingConfig, trained: Mapping[str, Any], file: Path, split: str) -> tuple[Data, Any, bool]:
    """Return the data, the dataset the model is built on, and whether that is the run's own training split."""
    own_config = XLingConfig(config_dict={**trained, "allow_unknown_keys": config["allow_unknown_keys"]})
    is_own = Path(own_config["data_path"]).resolve() == Path(config["data_path"]).resolve()
    if not is_own:
        _check_transfer(config, trained, file, "that is another dataset")
    data = build_data(config)
    if is_own:
        if split == "all" or config["eval_args"]["split"] != own_config["eval_args"]["split"]:
            logger.warning("the run was trained on '%s': what is evaluated may be what it has seen", config["dataset"])
        same = plain_settings(own_config) == plain_settings(config)
        own = data if same else build_data(own_config)
        if _ids(own) == _ids(data):
            if changed := _changed(config, own_config, _TEXT_SETTINGS):
                _check_transfer(config, trained, file, f"other texts are read (changed: {changed})")
            part = own.train_data._dataset.copy(own.train_data._dataset.inter_feat)
            part.config = config  # its catalog follows the settings of now: text_template, ...
            vars(part).pop("catalog", None)
            return data, part, True
        changed = _changed(config, own_config, dataset_arguments) or "its files"
        _check_transfer(config, trained, file, f"other ids are loaded (changed: {changed})")
    logger.info("'%s' is not what the run was trained on: all its items count as never trained on", config["dataset"])
    return data, _without_interactions(data.train_data._dataset), False


def _changed(config: XLingConfig, before: XLingConfig, keys: Sequence[str]) -> str:
    return ", ".join(key for key in keys if config[key] != before[key])


def _ids(data: Data) -> list[list[str]]:
    dataset = data.dataset
    return [list(dataset.field2id_token[field]) for field in (dataset.uid_field, dataset.iid_field)]


def _check_transfer(config: XLingConfig, trained: Mapping[str, Any], file: Path, why: str) -> None:
    """Raise a CheckpointError if the model's weights belong to the dataset it was trained on."""
    reasons = hooks_of(config.model_class).bound_to_data(config)
    if reasons:
        raise CheckpointError(
            f"the run '{file.parent}' cannot be evaluated on '{config['dataset']}': {why}, and its model is bound to "
            f"'{trained['dataset']}': {'; '.join(reasons)}. docs/zero-shot.md tells what can be"
        )


def _without_interactions(train: Any) -> Any:
    """Return a training split without a row: models find no counts, no histories and no users' choices in it."""

    def no_rows(table: Interaction) -> Interaction:
        return Interaction({field: values[:0] for field, values in table.interaction.items()})

    part = train.copy(no_rows(train.inter_feat))
    if hasattr(part, "sequence"):
        part.sequence = no_rows(part.sequence)
    return part


# ---- evaluation -----------------------------------------------------------------------------------------------


def _rank_catalog(
    config: XLingConfig, model: Any, data: Data, part: Any, split: str
) -> tuple[dict[str, Any], pl.DataFrame | None]:
    """Rank all items for the rows of a part of the split, or for every interaction that has a history."""
    if split == "all":
        if config["MODEL_TYPE"] != ModelType.SEQUENTIAL or config["eval_args"]["mode"]["test"] != "full":
            raise ConfigError("--split all is for sequential models that rank all items (eval_args: {mode: full})")
        rows = data.dataset.copy(data.dataset.inter_feat)
        if rows.item_list_length_field not in rows.inter_feat:  # splits GT, CI and LT make rows of their parts only
            rows.data_augmentation()
        loader: Any = FullSortEvalDataLoader(config, rows, None)
    else:
        loader = data.test_data if split == "test" else data.valid_data
    if not len(loader._dataset):
        raise DataError(
            f"split {config['eval_args']['split']} of '{config['dataset']}' has nothing in its part '{split}': "
            "choose another --split, or set eval_args"
        )
    targets = target_pairs(loader._dataset)
    # of "all" nothing would be left to tell users' languages by
    held_out = targets if split != "all" else (targets[0][:0], targets[1][:0])
    context = eval_context_of(part, (data.interactions.users, data.interactions.items), held_out)
    summary = split_summary(kind_of_split(config), {split: targets}, context)
    logger.info("%s", summary_text(summary))
    result, table = evaluate_full_ranking(Evaluation(config, model, part), loader, context)
    return {"splits": summary, **result}, table


# ---- the folder -----------------------------------------------------------------------------------------------


def _write(
    run: Path, config: XLingConfig, result: dict[str, Any], table: pl.DataFrame | None, table_file: str
) -> dict[str, Any]:
    """Write a new folder in the run's, whole or not at all; ``result.json`` comes last."""
    folder = create_run_folder(run, "evaluate", config["dataset"])
    result["run_dir"] = str(folder)
    try:
        write_config(folder, plain_settings(config))
        if table is not None:
            table.write_parquet(folder / table_file)
        write_result(folder, result)
    except BaseException as error:
        shutil.rmtree(folder, ignore_errors=True)
        if isinstance(error, OSError | pl.exceptions.PolarsError):
            raise XlingError(f"cannot write '{folder}': {error}") from error
        raise
    return result
