"""A comparison of runs as text, Markdown, LaTeX or CSV."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import pandas as pd
from tabulate import tabulate

from recbole_xling.errors import ConfigError, unknown_name

SIGNIFICANT = 0.05
EVERYTHING = "all"
"""Name of the slice with all test rows."""


class _Format(NamedTuple):
    """How tabulate calls a format, and how the best value and a significant one are marked in it."""

    name: str
    best: Callable[[str], str]
    significant: str
    plus_minus: str
    escape: Callable[[str], str]


def _latex(text: str) -> str:
    marks = {letter: f"\\{letter}" for letter in "_&%#${}"}
    words = {"\\": "backslash", "^": "asciicircum", "~": "asciitilde", "<": "less", ">": "greater", "|": "bar"}
    marks |= {letter: f"\\text{word}{{}}" for letter, word in words.items()}
    return "".join(marks.get(letter, letter) for letter in text)


_FORMATS = {
    "text": _Format("simple", lambda cell: f"{cell} *", " †", " ±", str),
    "markdown": _Format("github", lambda cell: f"**{cell}**", " †", " ± ", lambda text: text.replace("|", "\\|")),
    "latex": _Format("latex", lambda cell: rf"\textbf{{{cell}}}", r"$^\dagger$", r" $\pm$ ", _latex),
}
FORMATS = (*_FORMATS, "csv")


def check_format(fmt: str) -> None:
    """Raise a ConfigError if there is no such format."""
    if fmt not in FORMATS:
        raise ConfigError(unknown_name("format", fmt, FORMATS))


def comparison_text(frame: pd.DataFrame, fmt: str = "text") -> str:
    """Return the tables of a comparison: values of all slices, then the differences over all rows.

    Args:
        frame: what :func:`recbole_xling.quick_start.compare.compare` returns.
        fmt: one of :data:`FORMATS`; ``csv`` is the whole frame.

    Raises:
        ConfigError: there is no such format.
    """
    check_format(fmt)
    if fmt == "csv":
        return str(frame.to_csv(index=False)).removesuffix("\n")
    style = _FORMATS[fmt]
    columns = list(dict.fromkeys(frame["slice"].str.partition("=")[0]))
    parts = [_values(frame[frame["slice"].str.partition("=")[0] == column], column, style) for column in columns]
    parts.append(_differences(frame[frame["slice"] == columns[0]], style))
    baseline = style.escape(frame["model"].iloc[0])
    told = {
        "text": "*: best.  †: differs from {} (paired t-test over users, Holm, p < {}).",
        "markdown": "Bold: best. †: differs from {} (paired t-test over users, Holm, p < {}).",
        "latex": "% bold: best; dagger: differs from {} (paired t-test over users, Holm, p < {})",
    }[fmt]
    return "\n\n".join([*parts, told.format(baseline, SIGNIFICANT)])


def _values(part: pd.DataFrame, column: str, style: _Format) -> str:
    """Return a table with a line per group, and a column per value of a slice and metric."""
    several = part["metric"].nunique() > 1
    heads: dict[str, None] = {}
    cells: dict[str, dict[str, str]] = {}
    for line in part.to_dict("records"):
        value = line["slice"].partition("=")[2]
        head = f"{value} (n={line['n']:,})" if value else f"n={line['n']:,}"
        head += f" {line['metric']}" if several or not value else ""
        heads[head] = None
        cells.setdefault(line["model"], {})[head] = _cell(line, style)
    title = column if several or column == EVERYTHING else f"{column}, {part['metric'].iloc[0]}"
    rows = [[style.escape(model), *(own.get(head, "") for head in heads)] for model, own in cells.items()]
    return _table(rows, [style.escape(head) for head in (title, *heads)], style)


def _cell(line: dict[Any, Any], style: _Format) -> str:
    cell = f"{line['mean']:.4f}"
    if not math.isnan(line["std"]):
        cell += f"{style.plus_minus}{line['std']:.4f}"
    if line["best"]:
        cell = style.best(cell)
    return cell + (style.significant if line["p_ttest_holm"] < SIGNIFICANT else "")


def _differences(part: pd.DataFrame, style: _Format) -> str:
    """Return the table of differences from the baseline, with intervals and corrected p-values."""
    rows = [
        [
            style.escape(line["model"]),
            style.escape(line["metric"]),
            f"{line['difference']:+.4f} ({line['low']:+.4f} to {line['high']:+.4f})",
            *(f"{line[name]:.2g}" for name in ("p_ttest_holm", "p_ttest_bh", "p_wilcoxon_holm")),
        ]
        for line in part.to_dict("records")
        if not math.isnan(line["difference"])
    ]
    title = f"difference from {part['model'].iloc[0]}"
    return _table(rows, [style.escape(title), "metric", "interval", "t, Holm", "t, BH", "Wilcoxon, Holm"], style)


def _table(rows: list[list[str]], headers: list[str], style: _Format) -> str:
    if style.name != "latex":
        return tabulate(rows, headers=headers, tablefmt=style.name, disable_numparse=True)
    first, *rest = (" & ".join(row) + r" \\" for row in (headers, *rows))
    begin = [rf"\begin{{tabular}}{{l{'r' * (len(headers) - 1)}}}", r"\toprule", first, r"\midrule"]
    return "\n".join([*begin, *rest, r"\bottomrule", r"\end{tabular}"])
