"""The table of results at the end of a run, as text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tabulate import tabulate

from recbole_xling.language.tags import UNDETERMINED

_TITLES = {
    "target_language": "target in",
    "user_language": "reader of",
    "candidate_language": "candidates in",
    "cross_language": "other language than the reader's",
    "popularity": "item",
}


def result_table(result: Mapping[str, Any], metrics: Sequence[str], everything: str = "all users") -> str:
    """Return the overall results and those of the slices as text.

    Args:
        result: what :func:`recbole_xling.quick_start.train.run` returns and writes to ``result.json``.
        metrics: names of the metrics to show, such as ``ndcg@10``; the lines of slices leave out metrics without
            values per user.
        everything: name of the first line.
    """
    shown = [metric for metric in metrics if metric in result["test"]]
    overall = {**result["test"], "intervals": result.get("intervals", {})}
    lines = [[everything, result.get("n_test") or "", *_values(overall, shown)]]
    group = ""
    for name, values in result["slices"].items():
        column, _, value = name.partition("=")
        if value == UNDETERMINED:
            continue
        if column != group:
            lines.append([""] * (2 + len(shown)))
            group = column
        if name == "language_macro":
            label = "mean over languages"
        elif name == "language_worst":
            label = f"worst language: {values['language']}"
        else:
            label = f"{_TITLES[column]}: {value}"
        lines.append([label, values["n"], *_values(values, shown)])
    return tabulate(
        lines, headers=["", "n", *shown], disable_numparse=True, colalign=["left"] + ["right"] * (1 + len(shown))
    )


def _values(values: Mapping[str, Any], metrics: Sequence[str]) -> list[str]:
    """Return the cells of a line: each metric, with its interval if it has one."""
    cells = []
    for metric in metrics:
        cell = f"{values[metric]:.4f}" if metric in values else ""
        if interval := values.get("intervals", {}).get(metric):
            cell += f" ({interval[0]:.4f} to {interval[1]:.4f})"
        cells.append(cell)
    return cells
