"""The report's figures, each of one run or of several: the same on the page and in notebooks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from typing import Any

import numpy as np
import polars as pl

from recbole_xling.data.columns import MIXED
from recbole_xling.errors import ConfigError, unknown_name
from recbole_xling.language.tags import UNDETERMINED
from recbole_xling.pages.figures import COLORS, SHADES, SYMBOLS, Plot, draw, listed
from recbole_xling.report.content import RunContent

MOST_LANGUAGES = 20
"""Languages of a figure: those with most test rows."""

FEW_ROWS = 10
"""With fewer test rows a pair of languages has no shade, and a dot is hollow: its value is chance."""

_ROOMY = 10  # languages of targets up to which there is room for three digits

CURVES = ("loss", "validation")
_BANDS = ("cold", "rare", "medium", "popular")


def report_plots(runs: Sequence[RunContent], metric: str) -> Iterator[Plot]:
    """Yield the figures of a report; what has no data has no figure."""
    own = ", each model's own" if len(runs) > 1 else ""
    for kind, title in zip(CURVES, (f"Training loss by epoch{own}", "Validation score by epoch"), strict=True):
        if any(run.curves.get(kind) for run in runs):
            yield Plot("curves", title, plot_curves(runs, kind))
    shown = f"{metric}, mean and 95% interval over users (hollow: fewer than {FEW_ROWS} test rows)"
    for column, words in (("target_language", "language of the target"), ("user_language", "language of the reader")):
        if _columns_of(runs, metric, column):
            yield Plot("languages", f"By {words}: {shown}", plot_languages(runs, metric, column))
    if any(not set(run.rows["popularity"]) <= {MIXED} for run in runs if "popularity" in run.rows.columns):
        yield Plot("popularity", f"By popularity of the target in training: {shown}", plot_popularity(runs, metric))
    for number, run in enumerate(runs):
        if {"user_language", "target_language"} <= set(run.rows.columns):
            title = f"{metric} by reader's language and target's{_of(run, runs)}; below each value the test rows"
            yield Plot("pairs", title, plot_pairs(run, metric, _most_of_pairs(runs, metric)))
        if run.items is not None:
            yield Plot(f"map-{number}", f"Items by language: {run.items.method}", plot_items(run))


def plot_curves(runs: Sequence[RunContent], kind: str = "loss") -> Any:
    """Draw the training ``loss`` or the ``validation`` score of runs by epoch.

    Raises:
        ConfigError: there is no curve of that name.
    """
    from plotly import graph_objects

    if kind not in CURVES:
        raise ConfigError(unknown_name("curve", kind, CURVES))
    traces = [
        graph_objects.Scatter(
            name=escape(run.name),
            x=[epoch for epoch, _ in run.curves[kind]],
            y=[value for _, value in run.curves[kind]],
            mode="lines+markers",
            line_color=COLORS[place % len(COLORS)],
            marker={"symbol": SYMBOLS[place % len(SYMBOLS)], "size": 6},
            hovertemplate="epoch %{x}: %{y:.4g}",
        )
        for place, run in enumerate(runs)
        if run.curves.get(kind)
    ]
    last = max((epoch for run in runs for epoch, _ in run.curves.get(kind, ())), default=1)
    layout: dict[str, Any] = {"xaxis_range": [0.5, last + 0.5], "xaxis_tickformat": "d"}
    layout |= {"xaxis_dtick": 1} if last <= 10 else {"xaxis_nticks": 10}
    return draw(traces, "epoch", "loss" if kind == "loss" else "score", showlegend=len(runs) > 1, **layout)


def plot_languages(runs: Sequence[RunContent], metric: str, column: str = "target_language") -> Any:
    """Draw a metric by the language of the target, or by ``user_language``, with 95% intervals over users."""
    return _dots(runs, metric, column, _columns_of(runs, metric, column)[:MOST_LANGUAGES])


def plot_popularity(runs: Sequence[RunContent], metric: str) -> Any:
    """Draw a metric by how often the target occurs in training, with 95% intervals over users."""
    found = _columns_of(runs, metric, "popularity")
    return _dots(runs, metric, "popularity", [band for band in _BANDS if band in found])


def plot_pairs(run: RunContent, metric: str, darkest: float | None = None) -> Any:
    """Draw a metric by the reader's language (rows) and the target's (columns) as a heat map.

    Args:
        run: whose values are drawn.
        metric: the metric.
        darkest: value of the darkest shade, so that several figures can be compared; the run's largest if not given.
    """
    from plotly import graph_objects

    known = _of_known_languages(run)
    sides = [
        known[column].value_counts().sort("count", column, descending=[True, False])[column].to_list()[:MOST_LANGUAGES]
        for column in ("user_language", "target_language")
    ]
    readers, targets = sides
    means = known.group_by("user_language", "target_language").agg(pl.len(), pl.col(metric).mean())
    cells = {(reader, target): (n, mean) for reader, target, n, mean in means.iter_rows()}
    table = [[cells.get((reader, target), (0, None)) for target in targets] for reader in readers]
    shades = [[mean if n >= FEW_ROWS else None for n, mean in row] for row in table]
    trace = graph_objects.Heatmap(
        x=[escape(name) for name in targets],
        y=[escape(name) for name in readers],
        z=[[value if value is not None else float("nan") for value in row] for row in shades],
        customdata=[[f"{mean:.4f} ({n:,} rows)" if n else "no rows" for n, mean in row] for row in table],
        hovertemplate="reader of %{y}, target in %{x}: %{customdata}<extra></extra>",
        hoverongaps=True,
        colorscale=SHADES,
        zmin=0,
        zmax=darkest or _most_of_pairs([run], metric),
        showscale=False,
        xgap=2,
        ygap=2,
    )
    digits = 3 if len(targets) <= _ROOMY else 2  # a phone has less than 40 pixels for each of ten
    notes = [
        {
            "x": escape(target),
            "y": escape(reader),
            "text": f"{_short(mean, digits)}<br><span style='font-size:9px'>{_count(n)}</span>",
            "showarrow": False,
            "font": {"size": 11, "color": "#1b1b1b" if n >= FEW_ROWS else "#8a8a8a"},
        }
        for reader, row in zip(readers, table, strict=True)
        for target, (n, mean) in zip(targets, row, strict=True)
        if n
    ]
    layout = {**listed([escape(name) for name in readers], lines=2), "xaxis_type": "category"}
    layout |= {"yaxis_range": [-0.5, len(readers) - 0.5], "xaxis_showgrid": False, "yaxis_showgrid": False}
    return draw([trace], "language of the target", "reader", annotations=notes, **layout)


def _short(value: float, digits: int) -> str:
    """Return a number without the zero before its point: ``.043``."""
    shown = f"{value:.{digits}f}"
    return shown.replace("0.", ".", 1) if shown.startswith(("0.", "-0.")) else shown


def _count(n: int) -> str:
    """Return a number of rows in at most four letters: ``1.2k``."""
    return str(n) if n < 1000 else f"{n / 1000:.1f}k" if n < 9950 else f"{n / 1000:.0f}k"


def plot_items(run: RunContent) -> Any:
    """Draw the items of a run in the plane, colored by language.

    Raises:
        ConfigError: the run has no map of items.
    """
    from plotly import graph_objects

    if run.items is None:
        raise ConfigError(f"there is no map of items: {run.missing}")
    names = [item.language for item in run.items.items]
    languages = sorted(set(names), key=lambda name: (-names.count(name), name))
    own = languages if len(languages) <= len(COLORS) else languages[: len(COLORS) - 1]
    groups = [(name, [name]) for name in own] + ([("others", languages[len(own) :])] if own != languages else [])
    traces = []
    for place, (title, members) in enumerate(groups):
        chosen = [number for number, name in enumerate(names) if name in members]
        traces.append(
            graph_objects.Scatter(
                name=f"{escape(title)} ({len(chosen):,})",
                x=run.items.points[chosen, 0],
                y=run.items.points[chosen, 1],
                text=[escape(run.items.items[number].text or run.items.items[number].item_id) for number in chosen],
                mode="markers",
                marker={"size": 6, "color": COLORS[place], "symbol": SYMBOLS[place], "opacity": 0.7},
                hovertemplate="%{text}<extra>" + escape(title) + "</extra>",
            )
        )
    axis = {"showticklabels": False, "zeroline": False, "showgrid": False}
    low, high = np.quantile(run.items.points, [0.0, 1.0], axis=0)
    room = 0.05 * np.maximum(high - low, 1e-9)
    ranges = {f"{name}axis": {**axis, "range": [float(a), float(b)]}
              for name, a, b in zip("xy", low - room, high + room, strict=True)}  # fmt: skip
    return draw(traces, "", "", height=480, **ranges)


def _of_known_languages(run: RunContent) -> pl.DataFrame:
    """Return the rows whose reader and target have a language each."""
    unknown = [MIXED, UNDETERMINED]
    return run.rows.filter(~pl.col("user_language").is_in(unknown) & ~pl.col("target_language").is_in(unknown))


def _most_of_pairs(runs: Sequence[RunContent], metric: str) -> float:
    """Return the largest value of a pair of languages with enough rows, 1 if there is none above 0."""
    known = [_of_known_languages(run) for run in runs if {"user_language", "target_language"} <= set(run.rows.columns)]
    pairs = [rows.group_by("user_language", "target_language").agg(pl.len(), pl.col(metric).mean()) for rows in known]
    return max((mean for part in pairs for _, _, n, mean in part.iter_rows() if n >= FEW_ROWS), default=1.0) or 1.0


def _columns_of(runs: Sequence[RunContent], metric: str, column: str) -> list[str]:
    """Return the values of a column, those with most rows in any run first."""
    sizes: dict[str, int] = {}
    for run in runs:
        if metric in run.rows.columns and column in run.rows.columns:
            for name, n in run.rows[column].drop_nulls().value_counts().iter_rows():
                sizes[name] = max(n, sizes.get(name, 0))
    return sorted(sizes, key=lambda name: (-sizes[name], name))


def _dots(runs: Sequence[RunContent], metric: str, column: str, names: list[str]) -> Any:
    """Draw the values of a metric as dots with intervals, from top to bottom; runs beside each other."""
    from plotly import graph_objects

    traces, sizes = [], dict.fromkeys(names, 0)
    for place, run in enumerate(runs):
        values = [value for value in run.values(metric, column) if value.name in sizes]
        for value in values:
            sizes[value.name] = max(sizes[value.name], value.n)
        symbols = [SYMBOLS[place % len(SYMBOLS)] + ("" if value.n >= FEW_ROWS else "-open") for value in values]
        shift = (place - (len(runs) - 1) / 2) * min(0.22, 0.7 / len(runs))
        traces.append(
            graph_objects.Scatter(
                name=escape(run.name),
                x=[value.mean for value in values],
                y=[len(names) - 1 - names.index(value.name) - shift for value in values],
                error_x={
                    "type": "data",
                    "array": [value.high - value.mean for value in values],
                    "arrayminus": [value.mean - value.low for value in values],
                    "thickness": 1.5,
                    "width": 3,
                },
                customdata=[
                    f"{escape(value.name)}: {value.mean:.4f} ({value.low:.4f} to {value.high:.4f}), {value.n:,} rows"
                    for value in values
                ],
                mode="markers",
                marker={"size": 9, "color": COLORS[place % len(COLORS)], "symbol": symbols},
                cliponaxis=False,  # a value of 0 is seen as a whole
                hovertemplate="%{customdata}",
            )
        )
    ticks = [f"{escape(name)} ({sizes[name]:,})" for name in names]
    layout = {**listed(names, lines=len(runs)), "yaxis_type": "linear", "xaxis_rangemode": "tozero"}
    layout |= {"yaxis_ticks": "outside", "yaxis_ticklen": 8, "yaxis_tickcolor": "rgba(0,0,0,0)"}
    layout |= {"yaxis_tickvals": list(range(len(names))), "yaxis_ticktext": ticks[::-1], "yaxis_zeroline": False}
    layout = {key: value for key, value in layout.items() if not key.startswith("yaxis_category")}
    return draw(traces, escape(metric), "", showlegend=len(runs) > 1, **layout)


def _of(run: RunContent, runs: Sequence[RunContent]) -> str:
    return f" ({run.name})" if len(runs) > 1 else ""
