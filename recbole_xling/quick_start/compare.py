"""Comparing finished runs on the same test rows: means over seeds, paired intervals and tests, slice by slice."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
from recbole.evaluator.register import smaller_metrics
from recbole.utils import ModelType, get_model

from recbole_xling.errors import CheckpointError, ConfigError, DataError, unknown_name
from recbole_xling.evaluator.beyond_accuracy import MISCALIBRATION
from recbole_xling.evaluator.bootstrap import LEVEL, N_RESAMPLES, Resamples, intervals_of
from recbole_xling.evaluator.comparison_table import EVERYTHING
from recbole_xling.evaluator.measure import Measured, mean_over
from recbole_xling.evaluator.significance import benjamini_hochberg, holm, paired_p_values
from recbole_xling.evaluator.slices import (
    LANGUAGE_PAIR,
    ROW_KEY,
    counted_languages,
    row_difference,
    slice_rows,
    with_language_pairs,
    with_row_keys,
)
from recbole_xling.utils.run_folder import CONFIG_FILE, USERS_FILE, read_result, read_users, taking_from
from recbole_xling.utils.yaml_text import read_yaml_settings

logger = logging.getLogger(__name__)

Folder = str | os.PathLike[str]

_ROUNDING = 1e-12  # of a mean
_NO_SLICES = (*ROW_KEY, "n_targets", "score", "label")
# Settings that change neither a model nor what it is measured by.
_ELSEWHERE = frozenset(
    "seed data_path checkpoint_dir embedding_cache_dir encoder_batch_size eval_batch_size show_progress state worker "
    "gpu_id use_gpu log_wandb wandb_project log_mlflow energy_country allow_unknown_keys metric_decimal_place "
    "beyond_accuracy".split()
)


@dataclass(frozen=True)
class FinishedRun:
    """A finished run: its folder, result, settings, and values per test row, sorted by row."""

    folder: Path
    result: Mapping[str, Any]
    settings: Mapping[str, Any]
    rows: pl.DataFrame

    @property
    def metrics(self) -> list[str]:
        """The metrics of which each row has a value."""
        return [metric for metric in self.result["test"] if metric in self.rows.columns]


def compare(
    runs: Sequence[Folder] | Mapping[str, Sequence[Folder]],
    *,
    metrics: Sequence[str] | None = None,
    slices: Sequence[str] | None = None,
    level: float = LEVEL,
    n_resamples: int = N_RESAMPLES,
    seed: int = 0,
) -> pd.DataFrame:
    """Compare runs, each with the first one.

    Runs with equal settings but for the seed form a group: its mean and standard deviation over the seeds are
    reported, and it is compared by the mean of its seeds' values of each test row. Tests and intervals are over users;
    the p-values are corrected over all comparisons of the table.

    Args:
        runs: run folders, or several of them by a name of the group; the first group is the baseline.
        metrics: names such as ``ndcg@10``; all that the runs have in common if not given.
        slices: columns of ``users.parquet`` whose values are compared one by one, such as ``target_language``; all if
            not given, none if empty. ``language_pair`` has to be named. With ``target_language`` goes
            ``language_macro``, the mean over these languages, which has an interval but no p-values.
        level: of the intervals.
        n_resamples: of the bootstrap.
        seed: of the bootstrap.

    Returns:
        A line for each slice, metric and group: ``model``, ``slice``, ``metric``, ``n`` (rows), ``runs`` (seeds),
        ``mean``, ``std``, ``best``; and, but for the baseline, ``difference`` with ``low`` and ``high``,
        ``p_ttest`` and ``p_wilcoxon``, each with its correction ``_holm`` and ``_bh``.

    Raises:
        CheckpointError: a folder is not that of a finished run with values per row.
        ConfigError: a metric or a column is unknown, or no metric has values per row.
        DataError: the test rows of the runs differ, or what is ranked for them.
    """
    groups = _groups(runs)
    first, *others = everyone = [run for group in groups.values() for run in group]
    for other in others:
        problem, differences = what_differs(first, other)
        if problem:
            raise DataError(problem)
        for difference in differences:
            logger.warning("%s", difference)
    common = [metric for metric in first.metrics if all(metric in run.metrics for run in everyone)]
    if not common:
        raise ConfigError("the runs have no metric in common of which each test row has a value, such as ndcg@10")
    columns = [name for name in first.rows.columns if name not in (*_NO_SLICES, *first.result["test"])]
    by_default = [name for name in columns if name != LANGUAGE_PAIR]  # there may be hundreds
    chosen = {
        "metric": list(common if metrics is None else metrics),
        "column to slice by": list(by_default if slices is None else slices),
    }
    for (kind, names), known in zip(chosen.items(), (common, columns), strict=True):
        for name in names:
            if name not in known:
                raise ConfigError(unknown_name(kind, name, known))
    lines = []
    found = slice_rows(first.rows, chosen["column to slice by"])
    parts = {EVERYTHING: [np.arange(first.rows.height)], **{name: [rows] for name, rows in found.items()}}
    if languages := counted_languages(found):
        parts["language_macro"] = [found[name] for name in languages]
    for name, part in parts.items():
        lines += _compare_slice(name, part, groups, chosen["metric"], level, n_resamples, seed)
    frame = pd.DataFrame(lines)
    for test in ("p_ttest", "p_wilcoxon"):
        p_values = frame[test].to_numpy(dtype=np.float64)
        frame[f"{test}_holm"], frame[f"{test}_bh"] = holm(p_values), benjamini_hochberg(p_values)
    return frame


def _compare_slice(
    name: str,
    parts: Sequence[np.ndarray[Any, Any]],
    groups: Mapping[str, Sequence[FinishedRun]],
    metrics: Sequence[str],
    level: float,
    n_resamples: int,
    seed: int,
) -> list[dict[str, Any]]:
    """Return the lines of a slice: of its rows, or of several parts of rows that count the same each."""
    labels, rows = list(groups), np.concatenate(parts)
    places = np.split(np.arange(len(rows)), np.cumsum([len(part) for part in parts])[:-1])
    users = next(iter(groups.values()))[0].rows["user_id"].to_numpy()[rows]
    resamples = Resamples(users, seed, n_resamples=n_resamples)
    lines = []
    for metric in metrics:
        values = [np.stack([run.rows[metric].to_numpy()[rows] for run in groups[label]]) for label in labels]
        by_row = np.stack([part.mean(axis=0) for part in values], axis=1)  # (n, n_groups)
        means = np.mean([by_row[place].mean(axis=0) for place in places], axis=0)
        smaller = metric.partition("@")[0] in (*smaller_metrics, MISCALIBRATION)
        best = means.min() if smaller else means.max()
        differences = by_row - by_row[:, :1]
        differences[np.abs(differences) < _ROUNDING] = 0  # means of other numbers of seeds round in other ways
        of_parts = [Measured(differences[p].mean(axis=0), resamples.means(differences, p)) for p in places]
        difference = mean_over(of_parts)
        intervals = intervals_of(difference.resampled, level)
        for number, label in enumerate(labels):
            of_runs = np.mean([values[number][:, place].mean(axis=1) for place in places], axis=0)
            line: dict[str, Any] = {
                "model": label,
                "slice": name,
                "metric": metric,
                "n": len(rows),
                "runs": len(of_runs),
                "mean": float(means[number]),
                "std": float(of_runs.std(ddof=1)) if len(of_runs) > 1 else float("nan"),
                "best": bool(np.isclose(means[number], best, rtol=0, atol=_ROUNDING)),
            }
            compared = dict.fromkeys(("difference", "low", "high", "p_ttest", "p_wilcoxon"), float("nan"))
            if number:
                low, high = intervals[number]
                p_values = (float("nan"),) * 2  # a user's mean is no share of a mean over languages
                if len(parts) == 1:
                    p_values = paired_p_values(differences[:, number], users)
                found = (float(difference.values[number]), float(low), float(high), *p_values)
                compared = dict(zip(compared, found, strict=True))
            lines.append({**line, **compared})
    return lines


# ---- reading --------------------------------------------------------------------------------------------------


def _groups(runs: Sequence[Folder] | Mapping[str, Sequence[Folder]]) -> dict[str, list[FinishedRun]]:
    """Read the runs and put those together that differ in their seeds only."""
    folders = [folder for group in runs.values() for folder in group] if isinstance(runs, Mapping) else list(runs)
    resolved = [Path(folder).resolve() for folder in folders]
    if len(resolved) < 2 or len(set(resolved)) < len(resolved):
        raise ConfigError("a comparison needs at least two runs, each of them once")
    if isinstance(runs, Mapping):
        return {label: [read_finished(Path(folder)) for folder in group] for label, group in runs.items() if len(group)}
    by_settings: dict[str, list[FinishedRun]] = {}
    for run in map(read_finished, map(Path, folders)):
        by_settings.setdefault(json.dumps(_without_place(_described(run)), sort_keys=True, default=str), []).append(run)
    groups = list(by_settings.values())
    for group in groups:
        seeds = [run.settings.get("seed") for run in group]
        if len(set(seeds)) < len(seeds):
            logger.warning("%s: several runs have the same seed and settings", ", ".join(str(r.folder) for r in group))
    return dict(zip(labels_of([_described(group[0]) for group in groups]), groups, strict=True))


def _described(run: FinishedRun) -> dict[str, Any]:
    """Return a run's settings, what it was trained on where it was evaluated elsewhere, and from which files."""
    told = {"trained_on": run.result.get("trained_on")} if run.result.get("zero_shot") else {}
    data = run.result.get("data", {})
    files = data.get("files_of_training", None if "run" in run.result else data.get("files"))  # once not kept
    digest = sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()[:8]
    return {**run.settings, **told, **({"training_data": digest} if files else {})}


def read_finished(folder: Path) -> FinishedRun:
    """Read the folder of a finished run.

    Raises:
        CheckpointError: it is not that of a finished run with values per row.
    """
    result = read_result(folder)
    if not isinstance(result.get("test"), dict):
        raise CheckpointError(f"the result.json of '{folder}' has no test results: it is not that of a run, or damaged")
    for name in (USERS_FILE, CONFIG_FILE):
        if not (folder / name).is_file():
            raise CheckpointError(f"'{folder}' has no {name}: only runs that rank items per user have these values")
    settings = read_yaml_settings(folder / CONFIG_FILE)
    with taking_from(folder / CONFIG_FILE):
        for part in settings.get("runs", [settings]):  # those of a fusion
            for key, kind in (("model", str), ("eval_args", dict), ("exclude_history", bool)):
                if not isinstance(part[key], kind):
                    raise TypeError(f"{key} is {part[key]!r}")
    try:
        rows = read_users(folder)
        values = [pl.col(metric).cast(pl.Float64) for metric in result.get("test", ()) if metric in rows.columns]
        numbers = all(kind.is_numeric() for kind in rows.select(values or []).schema.values())
        if not numbers or {rows.schema.get(name) for name in ("user_id", "target_item")} != {pl.String}:
            raise CheckpointError(f"'{folder / USERS_FILE}' is damaged: a column has another type")
        # of several targets, models list them in different orders
        rows = rows.with_columns(pl.col("target_item").str.split(" ").list.sort().list.join(" "), *values)
        rows = with_row_keys(rows).sort(ROW_KEY)
        if {"user_language", "target_language", "cross_language"} <= set(rows.columns):
            rows = with_language_pairs(rows)
    except pl.exceptions.PolarsError as error:
        raise CheckpointError(f"'{folder / USERS_FILE}' is damaged: {' '.join(str(error).split())[:200]}") from error
    return FinishedRun(folder, result, settings, rows)


def what_differs(one: FinishedRun, other: FinishedRun) -> tuple[str, list[str]]:
    """Return why results of two runs cannot be compared, empty if they can, and what differs beside that.

    They cannot where they were not measured on the same rows, or not by the same candidates.
    """
    if not one.rows.select(ROW_KEY).equals(other.rows.select(ROW_KEY)):
        told = row_difference("test", {str(run.folder): run.rows for run in (one, other)})
        if len({_is_sequential(run.settings) for run in (one, other)} - {None}) > 1:
            told += (
                ". A sequential model has no row of a user with two interactions: take HistoryEASE or HistoryItemKNN "
                "in place of EASE and ItemKNN, or set user_inter_num_interval: '[3,inf)' in all runs"
            )
        return told, []
    modes = [mode_of(run.settings) for run in (one, other)]
    if modes[0] != modes[1]:
        return (
            f"'{one.folder}' ranks candidates of mode {modes[0]}, '{other.folder}' of mode {modes[1]}: such results "
            "cannot be compared. Repeat one of them with the same eval_args"
        ), []
    items = [run.result.get("ranked_items") for run in (one, other)]  # once not kept
    if items[0] and items[1] and items[0] != items[1]:
        return (
            f"'{one.folder}' ranks {items[0]['number']:,} items, '{other.folder}' {items[1]['number']:,} items or "
            "others: such results cannot be compared. Repeat one of them with the same files and load_col: the items "
            "are those of .inter, and with 'item' in load_col those of .item as well"
        ), []
    differences: list[str] = []
    known = [leaves_out_history(run.settings) for run in (one, other)]
    if known[0] != known[1]:
        differences.append(
            f"'{(one, other)[known.index(False)].folder}' ranks what its users know already, and others do not (nor do "
            "general models of RecBole): set exclude_history: True for a fair comparison"
        )
    files = [run.result.get("data", {}).get("files") for run in (one, other)]
    if files[0] and files[1] and files[0] != files[1]:
        changed = sorted(name for name in {*files[0], *files[1]} if files[0].get(name) != files[1].get(name))
        differences.append(f"'{one.folder}' and '{other.folder}' read different files: .{', .'.join(changed)}")
    return "", differences


def mode_of(settings: Mapping[str, Any]) -> Any:
    """Return which candidates are ranked for a test row; of a fusion, what its first run does."""
    mode = settings.get("runs", [settings])[0]["eval_args"].get("mode", "full")
    return mode.get("test") if isinstance(mode, dict) else mode


def leaves_out_history(settings: Mapping[str, Any]) -> bool:
    """Tell whether what a user knows is not ranked; RecBole's general models do not rank it, unless ``repeatable``."""
    if "runs" in settings:
        return any(map(leaves_out_history, settings["runs"]))
    return bool(settings.get("exclude_history")) or (
        _is_sequential(settings) is False and not settings.get("repeatable")
    )


def _is_sequential(settings: Mapping[str, Any]) -> bool | None:
    """Tell whether a model reads histories; None for a fusion, or a model of the user's own that is not imported."""
    try:
        return None if "runs" in settings else bool(get_model(settings["model"]).type == ModelType.SEQUENTIAL)
    except ConfigError:
        return None


# ---- names ----------------------------------------------------------------------------------------------------


def _without_place(settings: Any) -> Any:
    """Return settings without what a machine or a seed decides."""
    if isinstance(settings, Mapping):
        return {key: _without_place(value) for key, value in settings.items() if key not in _ELSEWHERE}
    return [_without_place(value) for value in settings] if isinstance(settings, list) else settings


def labels_of(groups: Sequence[Mapping[str, Any]]) -> list[str]:
    """Name groups by their model, and by the settings in which groups of a model differ."""
    labels = []
    for settings in groups:
        name = str(settings["model"])
        if "runs" in settings:
            name += f" ({settings['method']}: {' + '.join(str(part['model']) for part in settings['runs'])})"
        same = [other for other in groups if other["model"] == settings["model"]]
        keys = {key for other in same for key in other if key not in (*_ELSEWHERE, "runs")}
        differing = [key for key in sorted(keys) if len({str(other.get(key)) for other in same}) > 1]
        told = ", ".join(f"{key}={settings.get(key)}" for key in differing[:4])
        labels.append(f"{name} {told}" if told else name)
    return [label if labels.count(label) == 1 else f"{label} #{place + 1}" for place, label in enumerate(labels)]
