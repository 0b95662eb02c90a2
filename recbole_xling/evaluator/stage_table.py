"""What joint training and fine-tuning have brought to each language, on the same rows."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl
from tabulate import tabulate

from recbole_xling.evaluator.bootstrap import paired_difference
from recbole_xling.evaluator.slices import ROW_KEY, metric_of_rows, with_row_keys

logger = logging.getLogger(__name__)

_PER_LANGUAGE = ("finetune", "alone")
_COMPARED = (("finetune", "joint"), ("joint", "alone"))
ALL = "all"
"""Name of the line of all languages together."""


def language_table(rows: Mapping[str, pl.DataFrame], metrics: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return each language's results of joint training, fine-tuned and alone, and their paired differences.

    Args:
        rows: table of test rows (:func:`~recbole_xling.evaluator.slices.user_table`) of each stage by its name:
            ``joint``, ``finetune:<language>`` or ``alone:<language>``.
        metrics: columns to compare.

    Returns:
        By language, and ``all`` for the rows of all of them: ``n``; by kind of stage the mean of each metric; and by
        ``finetune - joint`` and ``joint - alone`` the difference of each metric with its interval, ``[mean, low,
        high]``.

    Stages of a language that were tested on other rows than its first one are left out, with a warning.
    """
    found: dict[str, dict[str, pl.DataFrame]] = {}
    for name, tested in rows.items():
        kind, _, language = name.partition(":")
        if language:
            found.setdefault(language, {})[kind] = with_row_keys(tested).sort(ROW_KEY)
    if "joint" in rows:
        joint = with_row_keys(rows["joint"]).sort(ROW_KEY)
        for tables in found.values():
            one = next(iter(tables.values())).select(ROW_KEY)
            tables["joint"] = one.join(joint, on=ROW_KEY, how="inner", maintain_order="left")
    for language, tables in found.items():
        first, *others = tables
        for kind in others:
            if not tables[first].select(ROW_KEY).equals(tables[kind].select(ROW_KEY)):
                logger.warning(
                    "%s was not tested on the rows of %s:%s, and is not compared with it", kind, first, language
                )
                del tables[kind]
    table = {language: _line(tables, metrics) for language, tables in found.items()}
    common = set.intersection(*map(set, found.values())) if found else set()
    if len(found) > 1 and common:
        table[ALL] = _line({kind: pl.concat([t[kind].select(*ROW_KEY, *metrics) for t in found.values()])
                            for kind in ("joint", *_PER_LANGUAGE) if kind in common}, metrics)  # fmt: skip
    return table


def _line(tables: Mapping[str, pl.DataFrame], metrics: Sequence[str]) -> dict[str, Any]:
    line: dict[str, Any] = {"n": next(iter(tables.values())).height}
    for kind, table in tables.items():
        line[kind] = {metric: float(table[metric].to_numpy().mean()) for metric in metrics}
    for first, second in _COMPARED:
        if first in tables and second in tables:
            users = tables[first]["user_id"].to_numpy()
            line[f"{first} - {second}"] = {}
            for metric in metrics:
                a, b = (np.asarray(tables[kind][metric].to_numpy(), dtype=np.float64) for kind in (first, second))
                found = paired_difference(a, b, users)
                line[f"{first} - {second}"][metric] = [found.difference, found.low, found.high]
    return line


def stage_text(result: Mapping[str, Any]) -> str:
    """Return the results of all stages, and those per language, as text.

    Args:
        result: the content of ``stages.json``.
    """
    metric = result["metric"]
    stages = [
        [stage["name"], stage.get("n_test", ""), _cell(stage.get("test", {}).get(metric))] for stage in result["stages"]
    ]
    parts = [_text(["stage", "n", metric], stages)]
    if result["languages"]:
        metric = metric_of_rows(metric)
        kinds = ("joint", *_PER_LANGUAGE, *(f"{first} - {second}" for first, second in _COMPARED))
        shown = [kind for kind in kinds if any(kind in line for line in result["languages"].values())]
        lines = []
        for language, line in result["languages"].items():
            values = [line.get(kind, {}).get(metric) for kind in shown]
            lines.append([language, line["n"], *(_cell(value) for value in values)])
        parts.append(_text(["language", "n", *shown], lines))
    return "\n\n".join(parts)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, list):
        return "{:+.4f} ({:+.4f} to {:+.4f})".format(*value)
    return f"{value:.4f}"


def _text(headers: list[str], lines: list[list[Any]]) -> str:
    align = ["left"] + ["right"] * (len(headers) - 1)
    return tabulate(lines, headers=headers, disable_numparse=True, colalign=align)
