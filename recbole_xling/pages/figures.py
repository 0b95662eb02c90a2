"""What all plots have in common: colors, frames, and names from top to bottom."""

from __future__ import annotations

from typing import Any, NamedTuple

# Told apart by color-blind readers too, on light and dark pages (Okabe and Ito: Color Universal Design. 2008).
COLORS = ("#3b82b8", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c6bb1", "#a6761d")
SYMBOLS = ("circle", "diamond", "square", "triangle-up", "cross", "x", "triangle-down", "star")
SHADES = [[0, "#eff5fb"], [1, "#6baed6"]]
"""Scale of a heat map; black on the darkest is still easy to read."""

_HEIGHT = 360
_ROW = 34  # height of a name where they are listed from top to bottom
_FRAME = 110  # height of axes and legend


class Plot(NamedTuple):
    """A figure of plotly, the section of the page that it belongs to, and what it shows in words."""

    section: str
    caption: str
    figure: Any


def listed(names: list[str], lines: int = 1) -> dict[str, Any]:
    """Return the layout of a plot with names from top to bottom, each of which needs some lines."""
    axis = {"yaxis_type": "category", "yaxis_categoryorder": "array", "yaxis_categoryarray": names[::-1]}
    height = _FRAME + max(_ROW, 18 * lines) * len(names)
    return {**axis, "yaxis_range": [-0.6, len(names) - 0.4], "height": height}


def draw(traces: list[Any], x: str, y: str, **layout: Any) -> Any:
    """Return a figure of traces with the titles of its axes, and what else its layout has."""
    from plotly import graph_objects

    drawn = graph_objects.Figure(traces)
    settings = {
        "template": "plotly_white",
        "height": _HEIGHT,
        "margin": {"l": 10, "r": 20, "t": 30, "b": 10},  # the axes add the room that their labels need
        "font": {"family": "system-ui, sans-serif", "size": 13, "color": "#444"},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "dragmode": False,  # a finger on a plot scrolls the page
        "legend": {"orientation": "h", "x": 0, "y": 1, "yanchor": "bottom"},
        "xaxis_title": x,
        "yaxis_title": y,
    }
    drawn.update_layout({**settings, **layout})
    return drawn
