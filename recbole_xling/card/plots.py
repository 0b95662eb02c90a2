"""The card's plots."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime, timezone
from math import floor, log10
from typing import Any

from recbole_xling.card.schema import Card
from recbole_xling.card.statistics import time_scale
from recbole_xling.pages.figures import COLORS, SHADES, SYMBOLS, Plot, draw, listed

_COLOR = COLORS[0]


def card_plots(card: Card) -> Iterator[Plot]:
    """Yield the plots of a card; what has no data has no plot."""
    yield from _language_plots(card)
    yield from _distribution_plots(card)


def _language_plots(card: Card) -> Iterator[Plot]:
    """Yield the shares of languages in the data and in the parts of the split, and who reads what."""
    from plotly import graph_objects

    names, mixing = [row.language for row in card.languages], card.mixing
    met = {
        "items": [row.items for row in card.languages],
        "interactions": [row.interactions for row in card.languages],
        "users": [row.users for row in card.languages],
    }
    title = "Share of each language in items, interactions and users (log axis)"
    yield Plot("languages", title, _shares(names, met))

    parts = {"training": card.splits.train, "validation": card.splits.valid, "test": card.splits.test}
    targets = {name: [part.of(language).interactions for language in names] for name, part in parts.items()}
    title = "Share of each language in training, validation and test (log axis)"
    yield Plot("parts", title, _shares(names, targets))

    rows = [(name, row) for name, row in zip(mixing.languages, mixing.targets, strict=True) if any(row)]
    if not rows:
        return
    columns = [place for place in range(len(mixing.languages)) if any(row[place] for _, row in rows)]
    trace = graph_objects.Heatmap(
        x=[mixing.languages[place] for place in columns],
        y=[name for name, _ in rows],
        z=[[row[place] / sum(row) for place in columns] for _, row in rows],
        text=[[f"{row[place]:,}" for place in columns] for _, row in rows],
        texttemplate="%{text}",
        hovertemplate="reader of %{y}, target in %{x}: %{text} (%{z:.1%} of the row)<extra></extra>",
        textfont_color="#1b1b1b",
        colorscale=SHADES,
        zmin=0,
        zmax=1,
        showscale=False,
        xgap=1,
        ygap=1,
    )
    layout = {**listed([name for name, _ in rows]), "xaxis_type": "category", "yaxis_range": [-0.5, len(rows) - 0.5]}
    figure = draw([trace], "language of the test target", "", **layout)
    yield Plot("mixing", "Test targets by language of the user; the darker, the larger the share", figure)


def _distribution_plots(card: Card) -> Iterator[Plot]:
    """Yield interactions per item, per user and over time, and the lengths of texts."""
    from plotly import graph_objects

    ranks, counts = zip(*card.distributions.popularity, strict=True)
    trace = graph_objects.Scatter(x=ranks, y=counts, mode="lines", line_color=_COLOR)
    axes = {f"{axis}axis_{key}": value for axis in "xy" for key, value in (("type", "log"), ("dtick", 1))}
    figure = draw([trace], "rank of the item", "interactions", **axes)
    yield Plot("counts", "Interactions of each item, from the most to the least popular one (log axes)", figure)

    lengths, users = zip(*card.distributions.history_lengths, strict=True)
    bars = graph_objects.Bar(x=lengths, y=users, marker_color=_COLOR)
    figure = draw([bars], "interactions", "users", xaxis_type="category")
    yield Plot("counts", "Users by their number of interactions", figure)

    timeline = card.distributions.timeline
    if card.time is not None and timeline:
        times, counts = zip(*timeline, (card.time.last, timeline[-1][1]), strict=True)
        scale, unit = time_scale(card.time.first, card.time.last), "time stamp"
        if scale is not None:
            times = tuple(datetime.fromtimestamp(time / scale, timezone.utc).isoformat() for time in times)
            unit = "date (UTC)"
        trace = graph_objects.Scatter(
            x=times, y=counts, mode="lines", line_color=_COLOR, line_shape="hv", fill="tozeroy", cliponaxis=False
        )
        title = f"Interactions over time, in {len(timeline)} periods of the same length"
        yield Plot("size", title, draw([trace], unit, "interactions"))

    rows = [row for row in card.texts.languages if row.display]
    if card.texts.languages:
        box = graph_objects.Box(
            y=[row.language for row in rows],
            lowerfence=[row.characters.p5 for row in rows],
            q1=[row.characters.p25 for row in rows],
            median=[row.characters.median for row in rows],
            q3=[row.characters.p75 for row in rows],
            upperfence=[row.characters.p95 for row in rows],
            marker_color=_COLOR,
            orientation="h",
        )
        figure = draw([box], "characters", "", xaxis_rangemode="tozero", **listed([row.language for row in rows]))
        yield Plot("lengths", "Length of display texts: quartiles (boxes), 5% and 95% quantiles (whiskers)", figure)


# ---- figures --------------------------------------------------------------------------------------------------


def _shares(names: list[str], columns: Mapping[str, list[int]]) -> Any:
    """Draw the share of each name in each column as a dot, so that small ones are seen; zeros have none."""
    from plotly import graph_objects

    shares = {column: [value / (sum(values) or 1) for value in values] for column, values in columns.items()}
    smallest = min((share for values in shares.values() for share in values if share), default=1.0)
    traces = [
        graph_objects.Scatter(
            name=column,
            x=[share or None for share in values],
            y=names,
            mode="markers",
            marker={"size": 11, "color": color, "symbol": symbol, "opacity": 0.85},
            hovertemplate="%{y}: %{x:.2%}",
        )
        for (column, values), color, symbol in zip(shares.items(), COLORS, SYMBOLS, strict=False)
    ]
    first = min(floor(log10(smallest)), -1)
    steps = (1, 2, 5) if first >= -2 else (1,)
    axis = {
        "xaxis_type": "log",
        "xaxis_range": [first - 0.1, 0.1],
        "xaxis_tickvals": [step * 10.0**power for power in range(first, 1) for step in steps],
        "xaxis_tickformat": "~%",
    }
    return draw(traces, "share", "", **axis, **listed(names))
