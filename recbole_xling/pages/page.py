"""Pages as one HTML file that needs nothing else, neither files nor network."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from recbole_xling.pages.figures import Plot
from recbole_xling.utils.run_folder import versions


@dataclass(frozen=True, slots=True)
class Table:
    """A table of ready texts; the first column names the row, the first ``words`` columns are not numbers."""

    name: str
    title: str
    headers: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""
    words: int = 1


def render_page(template: Path, plots: Iterable[Plot], **content: Any) -> str:
    """Return a page; every name and text in it is escaped.

    Args:
        template: one that extends ``base.html.j2`` of this folder; it gets ``drawings``: captions and HTML of the
            plots of each section.
        plots: the figures of plotly.
        content: what else the template names.
    """
    from plotly.offline import get_plotlyjs

    drawings: dict[str, list[tuple[str, Markup]]] = {}
    for plot in plots:
        of_section = drawings.setdefault(plot.section, [])
        drawing = plot.figure.to_html(
            full_html=False,
            include_plotlyjs=False,
            include_mathjax=False,
            div_id=f"plot-{plot.section}-{len(of_section)}",
            config={"displayModeBar": False, "responsive": True},
        )
        of_section.append((plot.caption, Markup(drawing)))
    environment = Environment(
        loader=FileSystemLoader([template.parent, Path(__file__).parent]),
        autoescape=True,
        undefined=StrictUndefined,
        keep_trailing_newline=True,
    )
    return environment.get_template(template.name).render(
        drawings=drawings,
        plotly=Markup(get_plotlyjs()),
        date=date.today().isoformat(),
        versions=" and ".join(f"{name} {versions()[name]}" for name in ("recbole-xling", "recbole")),
        **content,
    )
