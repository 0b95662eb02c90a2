"""Several finished runs fused into one result: the same rows, the same items, one ranking."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from recbole.data.dataloader import FullSortEvalDataLoader
from recbole.data.interaction import Interaction
from torch import Tensor, nn

from recbole_xling.config import plain_settings
from recbole_xling.errors import ConfigError, DataError, unknown_name
from recbole_xling.evaluator.bootstrap import bootstrap_interval
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
from recbole_xling.evaluator.slices import ROW_KEY, with_row_keys
from recbole_xling.model.base import hooks_of
from recbole_xling.quick_start.build import Run, check_full_ranking, load_run
from recbole_xling.quick_start.trained import read_trained
from recbole_xling.trainer.mixin import Evaluation
from recbole_xling.utils.chunks import score_chunks
from recbole_xling.utils.run_folder import create_run_folder, model_file, versions, write_evaluation

logger = logging.getLogger(__name__)

IntArray = NDArray[np.int64]

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
        weights: of the runs. If not given, those of ``log_softmax`` are tuned on the validation rows, those of
            ``rerank`` are 0 and 1, and all others are equal.
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
    parts: list[_Scores] = []
    for folder in runs:
        if parts and method == RERANK:  # it may have been tested among few candidates, because all items cost too much
            own = read_trained(model_file(folder)).settings["eval_args"]
            settings = {"eval_args": {**own, "mode": "full"}, **settings}
        parts.append(_Scores(Path(folder), load_run(folder, **settings)))
    first = parts[0]
    config, longest = first.run.config, max(first.run.config["topk"])
    if depth is None:
        depth = RERANK_DEPTH if method == RERANK else DEPTH
    if depth < longest:
        raise ConfigError(f"depth {depth} is less than the length of the evaluated lists (topk {longest})")
    rules = LanguageRules(first.run.context, longest, tuple(only_languages), dict(quotas or {}), calibration)
    for part in parts[1:]:
        part.follow(first)
        if method != RERANK:
            check_full_ranking(part.run.model, part.run.test_data)
    check_full_ranking(first.run.model, first.run.test_data)
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
    if weights is not None and (min(weights) < 0 or not sum(weights)):
        raise ConfigError(f"weights must not be negative, and one must be positive, not {list(weights)}")


def _measure(model: _FusedModel, first: _Scores) -> tuple[dict[str, Any], pl.DataFrame | None]:
    """Evaluate the test rows, with intervals and the number of targets that are not ranked."""
    evaluation = Evaluation(first.run.config, model, first.run.train_data._dataset)
    result, table = evaluate_full_ranking(evaluation, _numbered(first.loader), first.run.context)
    if model.left_out_targets:
        logger.warning(
            "%d of %d targets are left out of the ranking by a run or by a rule, and count as not found",
            *(model.left_out_targets, result["n_test"]),
        )
    result["unreachable_targets"] = model.left_out_targets
    if table is not None:
        users = table["user_id"].to_numpy()
        values = {metric: table[metric].to_numpy() for metric in result["test"] if metric in table.columns}
        result["intervals"] = {name: bootstrap_interval(value, users) for name, value in values.items()}
    return result, table


def _settings(result: dict[str, Any], parts: Sequence[_Scores]) -> dict[str, Any]:
    """Return what the fusion depends on, for ``config.yaml``."""
    chosen = {key: value for key, value in result["fusion"].items() if key not in ("runs", "weights_tuned")}
    if result["fusion"]["weights_tuned"]:
        chosen["weights"] = "tuned"
    own = [plain_settings(part.run.config) for part in parts]
    return {**chosen, "model": "Fusion", "dataset": result["dataset"], "seed": result["seed"], "runs": own}


# ---- runs whose rows and items are numbered alike -------------------------------------------------------------


class _Scores:
    """The scores of a run, whose rows and items are numbered as those of the first run."""

    def __init__(self, folder: Path, run: Run) -> None:
        self.folder, self.run = folder, run
        self.loader = run.test_data
        self._evaluation = Evaluation(run.config, run.model, run.train_data._dataset)
        self._evaluation.tot_item_num = run.dataset.item_num
        self._evaluation.item_tensor = run.dataset.get_item_feature().to(run.config["device"])
        self._row: IntArray | None = None  # this run's number of each row of the first run
        self._item: Tensor | None = None
        absent = getattr(run.dataset, "absent", {}).get(run.dataset.iid_field, ())
        self._absent = torch.as_tensor(np.asarray(absent, dtype=np.int64))

    @property
    def item_tokens(self) -> list[str]:
        """External ids in the order of this run's ids."""
        return [str(token) for token in self.run.dataset.field2id_token[self.run.dataset.iid_field]]

    def follow(self, first: _Scores) -> None:
        """Number items as the first run does.

        Raises:
            DataError: the items are others.
        """
        own, wanted = ({token: item for item, token in enumerate(part.item_tokens)} for part in (self, first))
        if own.keys() != wanted.keys():
            more, less = (sorted(a.keys() - b.keys()) for a, b in ((own, wanted), (wanted, own)))
            differ = [f"{len(names)} only in '{part.folder}', such as '{names[0]}'"
                      for part, names in ((self, more), (first, less)) if names]  # fmt: skip
            raise DataError(f"the items of '{first.folder}' and '{self.folder}' differ: {'; '.join(differ)}")
        self._item = torch.tensor([own[token] for token in wanted])

    def rank(self, phase: str, first: _Scores) -> None:
        """Take up validation or test, with rows numbered as the first run's.

        Raises:
            ConfigError: the run ranks drawn candidates, or its labels.
            DataError: the rows are others.
        """
        self.loader = self.run.valid_data if phase == "valid" else self.run.test_data
        if not isinstance(self.loader, FullSortEvalDataLoader):
            raise ConfigError(f"'{self.folder}' does not rank all items: a fusion needs eval_args: {{mode: full}}")
        own, wanted = (part.rows.with_row_index("row") for part in (self, first))
        joined = wanted.join(own, on=ROW_KEY, how="left")
        if len(own) != len(wanted) or joined["row_right"].null_count():
            raise DataError(_difference(phase, first.folder, wanted, self.folder, own))
        self._row = joined.sort("row")["row_right"].to_numpy().astype(np.int64)

    @property
    def rows(self) -> pl.DataFrame:
        """The rows in order: the user, the targets, and which one it is of several equal ones."""
        dataset = self.loader._dataset
        users, items = (np.asarray(dataset.field2id_token[field]) for field in (dataset.uid_field, dataset.iid_field))
        if self.loader.is_sequential:
            of_row = dataset.inter_feat[dataset.uid_field].numpy()
            targets = [str(token) for token in items[dataset.inter_feat[dataset.iid_field].numpy()]]
        else:
            of_row = self.loader.uid_list.numpy()
            found = (self.loader.uid2positive_item[user].tolist() for user in of_row)
            targets = [" ".join(sorted(str(items[item]) for item in chosen)) for chosen in found]
        table = pl.DataFrame({"user_id": [str(token) for token in users[of_row]], "target_item": targets})
        return with_row_keys(table)

    def __call__(self, rows: IntArray) -> Tensor:
        """Return the scores of rows of the first run, ``(B, n_items)``; minus infinity for what is not ranked."""
        assert self._row is not None
        interaction, scores, _, _ = self._evaluation._full_sort_batch_eval(self.loader.collate_fn(self._row[rows]))
        if (known := self._excluded(interaction)) is not None:
            scores.scatter_(1, known.to(scores.device), -torch.inf)
        scores[:, self._absent] = -torch.inf
        return scores.float() if self._item is None else scores[:, self._item].float()

    def of_candidates(self, rows: IntArray, items: Tensor) -> Tensor:
        """Return the scores of some items for each row, ``(B, K)``, as :meth:`__call__` does of all.

        Args:
            rows: of the first run.
            items: ``(B, K)``, by the first run's numbers.
        """
        assert self._row is not None
        if not hooks_of(self.run.model).scores_pairs:
            return self(rows).gather(1, items)
        own = items.cpu() if self._item is None else self._item[items.cpu()]
        interaction = self.loader.collate_fn(self._row[rows])[0]
        pairs = interaction[torch.arange(len(rows)).repeat_interleave(own.shape[1])]
        pairs.update(Interaction({self.run.dataset.iid_field: own.flatten()}))
        scores = self.run.model.predict(pairs.to(self.run.config["device"])).view(own.shape).float()
        left_out = torch.isin(own, self._absent)
        if (known := self._excluded(interaction)) is not None:
            left_out |= (own[:, :, None] == known[:, None, :]).any(dim=2)
        return scores.masked_fill(left_out.to(scores.device), -torch.inf).to(items.device)

    def _excluded(self, interaction: Interaction) -> Tensor | None:
        """Return the items of the histories of rows if they are not to be ranked, ``(B, L)``."""
        history = self.run.config["ITEM_ID_FIELD"] + self.run.config["LIST_SUFFIX"]
        excluded = self.run.config["exclude_history"] and history in interaction.columns
        return interaction[history] if excluded else None


def _difference(phase: str, folder: Path, rows: pl.DataFrame, other: Path, others: pl.DataFrame) -> str:
    """Say where the rows of two runs differ."""
    lines = []
    for name, own, than in ((folder, rows, others), (other, others, rows)):
        only = own.join(than, on=ROW_KEY, how="anti")
        example = ""
        if len(only):
            example = ": user '{}' with target '{}'".format(*only.select("user_id", "target_item").row(0))
        lines.append(f"'{name}' has {len(own)}, {len(only)} of which the other lacks{example[:200]}")
    where = "test" if phase == "test" else "validation"
    return f"the {where} rows of the runs differ: " + "; ".join(lines)


def _numbered(loader: Any) -> Any:
    """Return the loader with the number of each row in its batches."""
    table = loader._dataset.inter_feat if loader.is_sequential else loader.user_df
    table[_ROW] = torch.arange(len(table))
    return loader


# ---- fusing ---------------------------------------------------------------------------------------------------


class _FusedModel(nn.Module):
    """Scores of several runs as those of one model, of batches with the numbers of their rows."""

    def __init__(
        self, parts: Sequence[_Scores], method: str, weights: Sequence[float], depth: int, rules: LanguageRules
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


def _targets(first: _Scores, rows: IntArray) -> tuple[Tensor, Tensor]:
    """Return the row and the item of each target of some rows of the first run."""
    _, _, of_row, targets = first.loader.collate_fn(rows)
    return of_row, targets


def _tune(parts: Sequence[_Scores], k: int) -> list[float]:
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
    weights = tuned_weights(found, k)
    told = ", ".join(f"{part.folder.name} {weight:.3f}" for part, weight in zip(parts, weights, strict=True))
    logger.info("Weights tuned on %d validation rows: %s", len(numbers), told)
    return weights
