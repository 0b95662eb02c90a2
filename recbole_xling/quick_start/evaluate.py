"""Evaluating a saved run on any dataset: new items, new users, another language."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl
from recbole.utils import ModelType

from recbole_xling.config import XLingConfig, plain_settings
from recbole_xling.data.checks import FILTERS
from recbole_xling.data.identity import changes, fingerprint
from recbole_xling.data.impressions import impressions_file
from recbole_xling.data.language_balance import parts_of_languages
from recbole_xling.data.loader import FullRankingLoader
from recbole_xling.data.splits.build import all_rows
from recbole_xling.errors import ConfigError, DataError, unknown_name
from recbole_xling.evaluator.impressions import check_impressions, evaluate_impressions
from recbole_xling.evaluator.ranking import eval_context_of, evaluate_full_ranking
from recbole_xling.evaluator.split_summary import split_summary, summary_text, target_pairs
from recbole_xling.model.base import hooks_of
from recbole_xling.quick_start.build import Data, build_model, check_full_ranking, kind_of_split, open_data
from recbole_xling.quick_start.trained import read_trained, settings_for
from recbole_xling.trainer.mixin import Evaluation
from recbole_xling.utils.run_folder import (
    USERS_FILE,
    create_run_folder,
    model_file,
    simple,
    versions,
    write_evaluation,
)

logger = logging.getLogger(__name__)

SPLITS = ("test", "valid", "all")
IMPRESSIONS_FILE = "impressions.parquet"


_SPLITS_BY_CHANCE = ("CI", "LT")  # whatever the order


def evaluate_run(
    run: str | os.PathLike[str],
    dataset: str | None = None,
    *,
    split: str = "test",
    impressions: bool = False,
    same_items: bool = False,
    config_dict: Mapping[str, Any] | None = None,
    arguments: Sequence[str] = (),
) -> dict[str, Any]:
    """Score a saved run on a dataset, its own or another one, and leave a folder in the run's.

    On another dataset the model sees texts, and each user's own history before what is to be ranked. Nothing else
    of its interactions is used: all its items count as never trained on, unless they are the run's.

    Args:
        run: the run folder; its settings are taken.
        dataset: name of the dataset; the run's own if not given.
        split: ``test`` or ``valid`` for that part of ``eval_args.split``; ``all`` for every interaction with a history.
        impressions: rank the candidates that were shown (``<dataset>.imp``) in place of the whole catalog.
        same_items: items of another dataset that have the ids of the run's are the same items and keep their
            popularity. This needs not be told if the two have the same file of texts.
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
    trained = read_trained(model_file(run))
    config = settings_for(trained, dataset, config_dict, arguments)
    if impressions:
        if config["languages"]:
            raise ConfigError(
                f"languages={config['languages']} chooses interactions, not impressions: give --languages=None; "
                "results per language of readers and candidates are in the slices"
            )
        impressions_file(Path(config["data_path"]), config["dataset"])
    data, base = open_data(trained, config, same_items=same_items)
    known = data.dataset.trained_on
    if known and (split == "all" or _splits_anew(config, trained.settings)):
        own = trained.settings["dataset"]
        logger.warning("the run was trained on '%s': what is evaluated may be what it has seen", own)
    if impressions:
        check_impressions(config, data, split)
    model = build_model(trained, config, base)
    changed = changes(known.files, data.dataset.fingerprint) if known else []
    built = time.perf_counter()
    table: pl.DataFrame | None
    if impressions:
        hooks = hooks_of(model)
        can = {
            name: getattr(hooks, name) for name in ("ranks_without_history", "scores_pairs", "knows_languages_alone")
        }
        result, table = evaluate_impressions(config, model, data, split, **can)
    else:
        result, table = _rank_catalog(config, model, data, base, split)
    rewritten = changes(data.dataset.fingerprint, fingerprint(config))
    if rewritten:
        logger.warning("the data have changed while they were being read: %s", "; ".join(rewritten))
    result = {
        "model": config["model"],
        "dataset": config["dataset"],
        "run": str(run),
        "trained_on": trained.settings["dataset"],
        "zero_shot": known is None,
        **({} if known else {"known_items": int((base.train_item_counts > 0).sum())}),
        "split": split,
        "data": {
            "files": data.dataset.fingerprint,
            "changed_since_training": changed,
            "changed_during_run": rewritten,
            **({"files_of_training": trained.data.files} if trained.data else {}),
        },
        **result,
        "seconds": {"build": built - started, "test": time.perf_counter() - built},
        "seed": config["seed"],
        "versions": versions(),
    }
    folder = create_run_folder(Path(run), "evaluate", config["dataset"])
    table_file = IMPRESSIONS_FILE if impressions else USERS_FILE
    return write_evaluation(folder, plain_settings(config), result, table, table_file)


# ---- evaluation -----------------------------------------------------------------------------------------------


def _rank_catalog(
    config: XLingConfig, model: Any, data: Data, base: Any, split: str
) -> tuple[dict[str, Any], pl.DataFrame | None]:
    """Rank all items for the rows of a part of the split, or for every interaction that has a history."""
    if split == "all":
        if config["MODEL_TYPE"] != ModelType.SEQUENTIAL or config["eval_args"]["mode"]["test"] != "full":
            raise ConfigError("--split all is for sequential models that rank all items (eval_args: {mode: full})")
        rows = all_rows(data.dataset)
        if config["languages"]:
            (rows,) = parts_of_languages([rows], data.train_data._dataset, config)
        loader: Any = FullRankingLoader(config, rows, None)
    else:
        loader = data.test_data if split == "test" else data.valid_data
    if not len(loader._dataset):
        raise DataError(
            f"split {config['eval_args']['split']} of '{config['dataset']}' has nothing in its part '{split}': "
            "choose another --split, or set eval_args"
        )
    check_full_ranking(model, loader)
    targets = target_pairs(loader._dataset)
    # of "all" nothing would be left to tell users' languages by
    held_out = targets if split != "all" else (targets[0][:0], targets[1][:0])
    everything = data.interactions.users, data.interactions.items
    context = eval_context_of(base, everything if split == "all" else data.used, held_out)
    summary = split_summary(kind_of_split(config), {split: targets}, context)
    logger.info("%s", summary_text(summary))
    result, table = evaluate_full_ranking(Evaluation(config, model, base), loader, context)
    return {"splits": summary, **result}, table


def _splits_anew(config: XLingConfig, then: Mapping[str, Any]) -> bool:
    """Tell whether settings may put rows in other parts than those that the run had."""

    def parts(settings: Any) -> Any:
        return [{**settings["eval_args"], "mode": None}, *(settings.get(key) for key in FILTERS)]

    args = config["eval_args"]
    by_chance = args["order"] == "RO" or not args["split"].keys().isdisjoint(_SPLITS_BY_CHANCE)
    return simple(parts(plain_settings(config))) != simple(parts(then)) or (
        by_chance and config["seed"] != then["seed"]
    )
