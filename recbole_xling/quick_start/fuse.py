"""Several finished runs fused into one result: the same rows, the same items, one ranking."""

from __future__ import annotations

import json
import logging
import math
import os
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from recbole.data.interaction import Interaction
from torch import Tensor, nn

from recbole_xling.config import plain_settings
from recbole_xling.errors import ConfigError, unknown_name
from recbole_xling.evaluator.fusion import (
    DEPTH,
    METHODS,
    RERANK,
    RERANK_DEPTH,
    candidates_of,
    fuse_scores,
    rerank,
    tuned_weights,
)
from recbole_xling.evaluator.language_rules import LanguageRules
from recbole_xling.evaluator.ranking import evaluate_full_ranking
from recbole_xling.quick_start.build import check_full_ranking, load_run
from recbole_xling.quick_start.reuse import kind_of
from recbole_xling.quick_start.scores import IntArray, RunScores
from recbole_xling.quick_start.trained import read_trained
from recbole_xling.trainer.mixin import Evaluation
from recbole_xling.utils.chunks import score_chunks
from recbole_xling.utils.run_folder import create_run_folder, model_file, taking_from, versions, write_evaluation

logger = logging.getLogger(__name__)

_TUNED_ROWS = 20_000  # at most, evenly spaced
_ROW = "_row"  # field of a batch: number of the row in the first run's part


def fuse(
    runs: Sequence[str | os.PathLike[str]],
    method: str = "log_softmax",
    weights: Sequence[float] | None = None,
    *,
    depth: int | None = None,
    only_languages: Sequence[str] = (),
    quotas: Mapping[str, int] | None = None,
    calibration: float = 0.0,
    checkpoint_dir: str | os.PathLike[str] | None = None,
    **settings: Any,
) -> dict[str, Any]:
    """Fuse the rankings of several runs, ours or of RecBole's models, and leave a folder with the result.

    Args:
        runs: run folders, at least two. Their test rows and items must be the same. The first one's settings say what
            is measured.
        method: one of :data:`~recbole_xling.evaluator.fusion.METHODS`, or ``rerank``: the second run puts the best
            items of the first one in order.
        weights: of the runs. If not given, those of ``log_softmax`` are tuned on the validation rows (runs that differ
            in nothing but their seed share one), those of ``rerank`` are 0 and 1, and all others are equal.
        depth: length of the lists that are fused (not by ``log_softmax``); with ``rerank``, of the first run's list,
            which the second run puts in order. 1,000 if not given, with ``rerank`` 100.
        only_languages: languages of the items to rank; ``reader`` stands for the one of each user.
        quotas: least number of items in a list by language.
        calibration: from 0 to 1: how much the languages of a list follow those of the user's history.
        checkpoint_dir: where the folder goes; beside the first run if not given.
        settings: settings that replace those of every run, such as ``data_path`` if the data have moved.

    Returns:
        What ``result.json`` holds: that of a run, and ``fusion``.

    Raises:
        CheckpointError: a folder is not a run, or its model does not fit the data.
        ConfigError: an argument is wrong, or a run does not rank all items.
        DataError: the rows or the items of the runs differ.
    """
    started = time.perf_counter()
    _check(len(runs), method, weights)
    parts = _open(runs, method, settings)
    first = parts[0]
    config, longest = first.run.config, max(first.run.config["topk"])
    if depth is None:
        depth = RERANK_DEPTH if method == RERANK else DEPTH
    if depth < longest:
        raise ConfigError(f"depth {depth} is less than the length of the evaluated lists (topk {longest})")
    rules = LanguageRules(first.run.context, longest, tuple(only_languages), dict(quotas or {}), calibration)
    loaded = time.perf_counter()
    tuned = weights is None and method == "log_softmax"
    if weights is None:
        weights = _tune(parts, longest) if tuned else [0.0, 1.0] if method == RERANK else [1.0] * len(parts)
    for part in parts:
        part.rank("test", first)
    model = _FusedModel(parts, method, weights, depth, rules)
    result, table = _measure(model, first)
    fusion = {
        "runs": [str(part.folder) for part in parts],
        "method": method,
        "weights": [float(weight) for weight in weights],
        "weights_tuned": tuned,
        "depth": None if method == "log_softmax" else depth,
        "only_languages": list(only_languages),
        "quotas": dict(quotas or {}),
        "calibration": calibration,
    }
    result = {
        "model": "Fusion",
        "dataset": config["dataset"],
        "fusion": fusion,
        "data": {"files": first.run.dataset.fingerprint},
        "splits": first.run.splits,
        **result,
        "seconds": {"build": loaded - started, "test": time.perf_counter() - loaded},
        "seed": config["seed"],
        "versions": versions(),
    }
    folder = create_run_folder(Path(checkpoint_dir or Path(runs[0]).parent), "Fusion", config["dataset"])
    return write_evaluation(folder, _settings(result, parts), result, table)


def _check(n_runs: int, method: str, weights: Sequence[float] | None) -> None:
    """Raise a ConfigError if runs, method and weights do not go together."""
    if n_runs < 2:
        raise ConfigError("a fusion needs at least two runs")
    if method not in (*METHODS, RERANK):
        raise ConfigError(unknown_name("method of fusion", method, (*METHODS, RERANK)))
    if method == RERANK and n_runs != 2:
        raise ConfigError(f"{RERANK} needs two runs: one for the candidates, one that puts them in order; not {n_runs}")
    if weights is not None and len(weights) != n_runs:
        raise ConfigError(f"{len(weights)} weights for {n_runs} runs: give one for each")
    if weights is not None and not (all(0 <= weight < math.inf for weight in weights) and any(weights)):
        raise ConfigError(f"weights must be finite and not negative, and one must be positive, not {list(weights)}")


def _open(runs: Sequence[str | os.PathLike[str]], method: str, settings: Mapping[str, Any]) -> list[RunScores]:
    """Load the runs, with items numbered as the first one numbers them."""
    parts: list[RunScores] = []
    for folder in runs:
        if parts and method == RERANK:  # it may have been tested among few candidates, because all items cost too much
            file = model_file(folder)
            with taking_from(file):
                own = {**read_trained(file).settings["eval_args"], "mode": "full"}
            settings = {"eval_args": own, **settings}
        part = RunScores(Path(folder), load_run(folder, **settings))
        if parts:
            part.follow(parts[0])
        if not parts or method != RERANK:
            check_full_ranking(part.run.model, part.run.test_data)
        parts.append(part)
    return parts


def _measure(model: _FusedModel, first: RunScores) -> tuple[dict[str, Any], pl.DataFrame | None]:
    """Evaluate the test rows, and tell the number of targets that are not ranked."""
    evaluation = Evaluation(first.run.config, model, first.run.train_data._dataset)
    result, table = evaluate_full_ranking(evaluation, _numbered(first.loader), first.run.context)
    if model.left_out_targets:
        logger.warning(
            "%d of %d targets are left out of the ranking by a run or by a rule, and count as not found",
            *(model.left_out_targets, result["n_test"] if table is None else table["n_targets"].sum()),
        )
    result["unreachable_targets"] = model.left_out_targets
    return result, table


def _settings(result: dict[str, Any], parts: Sequence[RunScores]) -> dict[str, Any]:
    """Return what the fusion depends on, for ``config.yaml``."""
    chosen = {key: value for key, value in result["fusion"].items() if key not in ("runs", "weights_tuned")}
    if result["fusion"]["weights_tuned"]:
        chosen["weights"] = "tuned"
    own = [plain_settings(part.run.config) for part in parts]
    return {**chosen, "model": "Fusion", "dataset": result["dataset"], "seed": result["seed"], "runs": own}


def _numbered(loader: Any) -> Any:
    """Return the loader with the number of each row in its batches."""
    table = loader._dataset.inter_feat if loader.is_sequential else loader.user_df
    table[_ROW] = torch.arange(len(table))
    return loader


# ---- fusing ---------------------------------------------------------------------------------------------------


class _FusedModel(nn.Module):
    """Scores of several runs as those of one model, of batches with the numbers of their rows."""

    def __init__(
        self, parts: Sequence[RunScores], method: str, weights: Sequence[float], depth: int, rules: LanguageRules
    ) -> None:
        super().__init__()
        self.parts, self.method, self.weights, self.depth, self.rules = parts, method, weights, depth, rules
        self.left_out_targets = 0

    def full_sort_predict(self, interaction: Interaction) -> Tensor:
        """Score all items, ``(B, n_items)``; minus infinity for those that a run does not rank."""
        first = self.parts[0]
        rows = interaction[_ROW].cpu().numpy()
        users = interaction[first.run.dataset.uid_field].cpu().numpy()
        fused = []
        for chunk in score_chunks(len(rows), first.run.dataset.item_num * (2 + len(self.parts))):
            scores = self._fused(rows[chunk])
            scores = self.rules(scores, users[chunk])
            of_row, targets = _targets(first, rows[chunk])
            self.left_out_targets += int(torch.isneginf(scores[of_row, targets]).sum())
            fused.append(scores)
        return torch.cat(fused)

    def _fused(self, rows: IntArray) -> Tensor:
        if self.method != RERANK:
            return fuse_scores([part(rows) for part in self.parts], self.method, self.weights, self.depth)
        first, second = self.parts
        return rerank(first(rows), partial(second.of_candidates, rows), self.weights, self.depth)


def _targets(first: RunScores, rows: IntArray) -> tuple[Tensor, Tensor]:
    """Return the row and the item of each target of some rows of the first run."""
    _, _, of_row, targets = first.loader.collate_fn(rows)
    return of_row, targets


def _tune(parts: Sequence[RunScores], k: int) -> list[float]:
    """Return the weights that suit the validation rows."""
    first = parts[0]
    for part in parts:
        part.rank("valid", first)
    numbers = np.arange(len(first.rows))
    if not len(numbers):
        raise ConfigError(
            "the split has nothing to validate on, so weights cannot be tuned: give them, or another method"
        )
    numbers = numbers[:: -(-len(numbers) // _TUNED_ROWS)]
    found = []
    with torch.no_grad():
        for chunk in score_chunks(len(numbers), first.run.dataset.item_num * (2 + 2 * len(parts))):
            rows = numbers[chunk]
            of_row, targets = _targets(first, rows)
            scores = [part(rows) for part in parts]
            found.append(candidates_of(scores, of_row.to(scores[0].device), targets.to(scores[0].device)))
    # runs that differ in nothing but their seed share a weight
    kinds = [json.dumps(kind_of(plain_settings(part.run.config)), sort_keys=True, default=str) for part in parts]
    weights = tuned_weights(found, k, kinds)
    names = [part.folder.name for part in parts]
    if len(set(names)) < len(names):  # stages of several runs
        names = [f"{part.folder.parent.name}/{part.folder.name}" for part in parts]
    told = ", ".join(f"{name} {weight:.3f}" for name, weight in zip(names, weights, strict=True))
    logger.info("Weights tuned on %d validation rows: %s", len(numbers), told)
    return weights
