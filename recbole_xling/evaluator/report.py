"""The table a run ends with."""

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
        result: what :func:`recbole_xling.quick_start.train.run` returns (and ``result.json`` holds).
        metrics: names of the metrics to show, such as ``ndcg@10``; metrics without values per user are left out of
            the slices' lines.
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
        lines.append([_label(name, values), values["n"], *_values(values, shown)])
    return tabulate(
        lines, headers=["", "n", *shown], disable_numparse=True, colalign=["left"] + ["right"] * (1 + len(shown))
    )


def _label(name: str, values: Mapping[str, Any]) -> str:
    column, _, value = name.partition("=")
    if name == "language_macro":
        return "mean over languages"
    if name == "language_worst":
        return f"worst language: {values['language']}"
    return f"{_TITLES[column]}: {value}"


def _values(values: Mapping[str, Any], metrics: Sequence[str]) -> list[str]:
    intervals = values.get("intervals", {})
    return [_value(values[metric], intervals.get(metric)) if metric in values else "" for metric in metrics]


def _value(value: float, interval: Sequence[float] | None) -> str:
    return f"{value:.4f}" + (f" ({interval[0]:.4f} to {interval[1]:.4f})" if interval else "")
