"""The table of results at the end of a run, as text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tabulate import tabulate

from recbole_xling.evaluator.beyond_accuracy import beyond_accuracy_table

_TITLES = {
    "target_language": "target in",
    "user_language": "reader of",
    "candidate_language": "candidates in",
    "cross_language": "other language than the reader's",
    "bilingual": "bilingual reader",
    "popularity": "item",
    "language_gap": "gap of readers of",
}
_NOT_SHOWN = ("language_pair",)  # too many: they are in result.json, and the report has their map


MOST_VALUES = 20
"""Lines of the table for a column of ``slice_by``: its largest values."""


def reader_text(readers: Mapping[str, Any]) -> str:
    """Return the sentence about users' languages, given ``readers`` of ``result.json``."""
    return (
        f"text_view {readers['text_view']}; users' languages: {readers['stated']:,} stated, {readers['derived']:,} "
        f"derived from the history, {readers['unknown']:,} unknown"
    )


def result_table(result: Mapping[str, Any], metrics: Sequence[str], everything: str = "all users") -> str:
    """Return the overall results and those of the slices as text.

    Args:
        result: what :func:`recbole_xling.quick_start.train.run` returns and writes to ``result.json``.
        metrics: names of the metrics to show, such as ``ndcg@10``; the lines of slices leave out metrics without
            values per user.
        everything: name of the first line.
    """
    if not result["test"]:
        return "The split leaves nothing to test on."
    shown = [metric for metric in metrics if metric in result["test"]]
    lines = [[everything, result.get("n_test") or "", *_values(result["test"], shown)]]
    lines += _interval(result.get("intervals", {}), shown)
    groups: dict[str, dict[str, Any]] = {}
    for name, values in result["slices"].items():
        column, _, value = name.partition("=")
        if column not in _NOT_SHOWN:
            groups.setdefault(column, {})[value] = values
    for column, slices in groups.items():
        lines.append([""] * (2 + len(shown)))
        largest = sorted(slices, key=lambda value: -slices[value]["n"])
        printed = slices if column in _TITLES else largest[:MOST_VALUES]
        for value in (value for value in slices if value in printed):
            values = slices[value]
            lines.append([_label(column, value, values), values["n"], *_values(values, shown)])
            if column == "language_gap" and not value:
                lines += _interval(values["intervals"], shown)
        if len(printed) < len(slices):
            rest = f"{column}: {len(slices) - len(printed):,} more in result.json"
            lines.append([rest, *[""] * (1 + len(shown))])
    table = tabulate(
        lines, headers=["", "n", *shown], disable_numparse=True, colalign=["left"] + ["right"] * (1 + len(shown))
    )
    if "beyond_accuracy" in result:
        table += f"\n\n{beyond_accuracy_table(result['beyond_accuracy'])}"
    readers = result.get("readers")
    return f"{table}\n\n{reader_text(readers)}" if readers and readers["stated"] else table


def _label(column: str, value: str, values: Mapping[str, Any]) -> str:
    if column == "language_macro":
        return "mean over languages"
    if column == "language_worst":
        return f"worst language: {values['language']}"
    if column == "language_gap" and not value:
        return "gap: other language minus same"
    transfer = f" ({values['transfer']})" if "transfer" in values else ""
    return f"{_TITLES.get(column, column)}: {value}{transfer}"


def _values(values: Mapping[str, Any], metrics: Sequence[str]) -> list[str]:
    return [f"{values[metric]:.4f}" if metric in values else "" for metric in metrics]


def _interval(intervals: Mapping[str, Any], metrics: Sequence[str]) -> list[list[str]]:
    """Return two lines with the ends of intervals, below the values: beside them they would make the table too wide."""
    ends = [_values({metric: ends[place] for metric, ends in intervals.items()}, metrics) for place in (0, 1)]
    names = ("95% interval from", "95% interval to")
    return [[name, "", *cells] for name, cells in zip(names, ends, strict=True) if any(cells)]
