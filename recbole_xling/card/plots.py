"""The card's plots."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timezone
from typing import Any, NamedTuple

from recbole_xling.card.card import Card
from recbole_xling.card.interactions import time_scale

_COLOUR = "#2f6f9f"
_HEIGHT = 380


class Plot(NamedTuple):
    """A figure of plotly, below which table it belongs, and what it shows in words."""

    table: str
    caption: str
    figure: Any


def card_plots(card: Card) -> Iterator[Plot]:
    """Yield the plots of a card; what has no data has no plot."""
    yield _languages(card)
    if card.splits.test.interactions:
        yield _mixing(card)
    yield _popularity(card)
    yield _history_lengths(card)
    if card.texts.languages:
        yield _text_lengths(card)
    if card.distributions.timeline:
        yield _timeline(card)


def _figure(traces: list[Any], x: str, y: str, **layout: Any) -> Any:
    from plotly import graph_objects

    figure = graph_objects.Figure(traces)
    figure.update_layout(
        template="plotly_white",
        height=_HEIGHT,
        margin={"l": 70, "r": 20, "t": 20, "b": 60},
        xaxis_title=x,
        yaxis_title=y,
        **layout,
    )
    return figure


def _languages(card: Card) -> Plot:
    from plotly import graph_objects

    names = [row.language for row in card.languages]
    columns = {
        "items": [row.items for row in card.languages],
        "interactions": [row.interactions for row in card.languages],
        "users": [row.users for row in card.languages],
        "test targets": [row.test for row in card.languages],
    }
    traces = [
        graph_objects.Bar(name=name, x=names, y=[value / (sum(values) or 1) for value in values])
        for name, values in columns.items()
    ]
    figure = _figure(traces, "language", "share", barmode="group", yaxis_tickformat=".0%", xaxis_type="category")
    return Plot("languages", "Share of each language in items, interactions, users and test targets.", figure)


def _mixing(card: Card) -> Plot:
    from plotly import graph_objects

    mixing = card.mixing
    rows = [(name, row) for name, row in zip(mixing.languages, mixing.targets, strict=True) if any(row)]
    columns = [place for place in range(len(mixing.languages)) if any(row[place] for _, row in rows)]
    trace = graph_objects.Heatmap(
        x=[mixing.languages[place] for place in columns],
        y=[name for name, _ in rows],
        z=[[row[place] / sum(row) for place in columns] for _, row in rows],
        text=[[f"{row[place]:,}" for place in columns] for _, row in rows],
        texttemplate="%{text}",
        hovertemplate="reader of %{y}, target in %{x}: %{text} (%{z:.1%} of the row)<extra></extra>",
        colorscale="Blues",
        zmin=0,
        zmax=1,
        colorbar={"tickformat": ".0%"},
    )
    axes = {"xaxis_type": "category", "yaxis_type": "category", "yaxis_autorange": "reversed"}
    figure = _figure([trace], "language of the test target", "main language of the user", **axes)
    return Plot("mixing", "Test targets; the colour is their share among those of users of a main language.", figure)


def _popularity(card: Card) -> Plot:
    from plotly import graph_objects

    ranks, counts = zip(*card.distributions.popularity, strict=True)
    trace = graph_objects.Scatter(x=ranks, y=counts, mode="lines", line_color=_COLOUR)
    figure = _figure([trace], "rank of the item", "interactions", xaxis_type="log", yaxis_type="log")
    return Plot(
        "counts", "Interactions of each item from the most to the least popular one; both axes in logs.", figure
    )


def _history_lengths(card: Card) -> Plot:
    from plotly import graph_objects

    lengths, users = zip(*card.distributions.history_lengths, strict=True)
    trace = graph_objects.Bar(x=lengths, y=users, marker_color=_COLOUR)
    figure = _figure([trace], "interactions", "users", xaxis_type="category")
    return Plot("counts", "Users by their number of interactions.", figure)


def _text_lengths(card: Card) -> Plot:
    from plotly import graph_objects

    rows = [row for row in card.texts.languages if row.display]
    trace = graph_objects.Box(
        x=[row.language for row in rows],
        lowerfence=[row.characters.p5 for row in rows],
        q1=[row.characters.p25 for row in rows],
        median=[row.characters.median for row in rows],
        q3=[row.characters.p75 for row in rows],
        upperfence=[row.characters.p95 for row in rows],
        marker_color=_COLOUR,
    )
    figure = _figure([trace], "language", "characters", xaxis_type="category", yaxis_rangemode="tozero")
    return Plot("lengths", "Length of display texts; boxes are quartiles, whiskers the 5% and 95% quantiles.", figure)


def _timeline(card: Card) -> Plot:
    from plotly import graph_objects

    times, counts = zip(*card.distributions.timeline, strict=True)
    scale = None if card.time is None else time_scale(card.time.first, card.time.last)
    unit = "time stamp"
    if scale is not None:
        times = tuple(datetime.fromtimestamp(time / scale, timezone.utc).isoformat() for time in times)
        unit = "date (UTC)"
    trace = graph_objects.Scatter(x=times, y=counts, mode="lines", line_color=_COLOUR, line_shape="hv")
    figure = _figure([trace], unit, "interactions")
    return Plot("size", f"Interactions over time, in {len(counts)} periods of the same length.", figure)
