"""What has changed since a run was trained, as tables and as one HTML page."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from recbole_xling.pages.figures import COLORS, Plot, draw, listed
from recbole_xling.pages.page import Table, render_page

_MOST_LANGUAGES = 20
_POINTS = 200  # of a curve
_SIDES = ("then", "now")


def drift_tables(result: Mapping[str, Any]) -> list[Table]:
    """Return sizes, measures and languages of what :func:`recbole_xling.quick_start.drift.drift` returned."""
    sizes = result["sizes"]
    words = {"users": "users", "items": "items with interactions", "catalog": "items", "interactions": "interactions"}
    rows = [(name, *(f"{sizes[side][key]:,}" for side in _SIDES)) for key, name in words.items()]
    left_out = result["left_out"]
    for reason in dict.fromkeys(reason for side in _SIDES for reason in left_out[side]):
        rows.append((f"left out: {reason}", *(f"{left_out[side].get(reason, 0):,}" for side in _SIDES)))
    kept = f"Of the interactions of then, {sizes['of_then_still_there']:,} are among those of now as well."
    tables = [Table("sizes", "Size", ("", *_SIDES), tuple(rows), kept)]
    rows = [
        (
            measure["words"],
            _number(measure["value"]),
            _number(measure["chance"]),
            " / ".join(f"{limit:g}" for limit in measure["limits"]) if measure["limits"] else "",
            measure["level"] or "",
        )
        for measure in result["measures"]
    ]
    note = (
        "Languages: share that would have to move. New items, new users, who cannot be served: shares. Popularity: "
        "Jensen-Shannon divergence. Lengths of histories and scores: largest gap of the distributions. Chance: what a "
        "measure reaches in 5% of the cases (gaps: 1%; rank correlation: stays above in 95%) where nothing has changed."
    )
    headers = ("", "value", "chance", "some / large from", "change")
    tables.append(Table("measures", "What has changed", headers, tuple(rows), note))
    for kind, table in result["languages"].items():
        totals = [max(1, sum(pair[side] for pair in table.values())) for side in (0, 1)]
        rows = [
            (name, f"{pair[0] / totals[0]:.1%}", f"{pair[1] / totals[1]:.1%}", f"{pair[0]:,}", f"{pair[1]:,}")
            for name, pair in list(table.items())[:_MOST_LANGUAGES]
        ]
        headers = ("language", "share then", "share now", "number then", "number now")
        tables.append(Table(f"languages-{kind}", f"Languages of {kind}", headers, tuple(rows)))
    return tables


def drift_page(result: Mapping[str, Any]) -> str:
    """Return the page; every name and text in it is escaped."""
    levels = [measure["level"] for measure in result["measures"]]
    changed = sum(level in ("some", "large") for level in levels)
    return render_page(
        Path(__file__).with_name("drift.html.j2"),
        _plots(result),
        title=f"{result['dataset']} since {result['model']} was trained on {result['trained_on']}",
        headline=[
            ("interactions", f"{result['sizes']['now']['interactions']:,}"),
            ("measures that changed", f"{changed} of {sum(level is not None for level in levels)}"),
            ("much", str(levels.count("large"))),
        ],
        verdict=result["verdict"],
        tables=drift_tables(result),
    )


def _plots(result: Mapping[str, Any]) -> Iterator[Plot]:
    """Yield the measures beside their limits, and the distributions of lengths and scores."""
    from plotly import graph_objects

    shown = [measure for measure in result["measures"] if measure["limits"] and measure["value"] is not None]
    names = [measure["words"] for measure in shown]
    traces = [
        graph_objects.Bar(
            name="value", x=[m["value"] for m in shown], y=names, orientation="h", marker_color=COLORS[0], width=0.5
        )
    ]
    for place, (word, symbol) in enumerate((("some", "line-ns-open"), ("large", "line-ns-open"))):
        limits = [measure["limits"][place] for measure in shown]
        marker = {"symbol": symbol, "size": 16, "line_width": 2, "color": COLORS[4 - 3 * place]}
        traces.append(graph_objects.Scatter(name=word, x=limits, y=names, mode="markers", marker=marker))
    caption = "Measures and their limits"
    yield Plot("measures", caption, draw(traces, "value", "", xaxis_rangemode="tozero", **listed(names)))
    samples = result["samples"]
    lengths = {
        side: np.repeat(*np.array(samples["history_lengths"][side], dtype=np.int64).reshape(-1, 2).T) for side in _SIDES
    }
    scores = {side: np.array(samples["top_scores"][side], dtype=float) for side in _SIDES}
    for values, axis, words in (
        (lengths, "interactions of a user", "Share of users with at most so many interactions"),
        (scores, "highest score", "Share of users whose highest score is at most so large"),
    ):
        if all(len(values[side]) for side in _SIDES):
            yield Plot("measures", words, draw(_curves(values), axis, "share of users", yaxis_tickformat="~%"))


def _curves(values: Mapping[str, Any]) -> list[Any]:
    """Return the distribution functions of then and of now."""
    from plotly import graph_objects

    shares = np.linspace(0, 1, _POINTS)
    return [
        graph_objects.Scatter(
            name=side,
            x=np.quantile(values[side], shares, method="inverted_cdf").tolist(),
            y=shares.tolist(),
            mode="lines",
            line={"color": color, "shape": "hv"},
        )
        for side, color in zip(_SIDES, COLORS, strict=False)
    ]


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"
