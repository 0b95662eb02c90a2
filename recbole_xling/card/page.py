"""The card as one HTML page that needs nothing else, neither files nor network."""

from __future__ import annotations

import json
from html import escape
from pathlib import Path

from recbole_xling.card.plots import Plot, card_plots
from recbole_xling.card.schema import Card
from recbole_xling.card.tables import CardTable, card_tables, headline
from recbole_xling.errors import XlingError
from recbole_xling.utils.files import staged

JSON_FILE = "card.json"
PAGE_FILE = "card.html"


def write_card(card: Card, folder: str | Path) -> tuple[Path, Path]:
    """Write ``card.json`` and ``card.html``, both or none; a failure leaves the previous ones.

    Args:
        card: the card.
        folder: where to write; created where it does not exist.

    Returns:
        The two files.

    Raises:
        XlingError: the folder cannot be written to.
    """
    folder = Path(folder)
    contents = {
        JSON_FILE: json.dumps(card.to_dict(), indent=1, ensure_ascii=False, allow_nan=False) + "\n",
        PAGE_FILE: card_page(card),
    }
    try:
        with staged(folder, "card", list(contents)) as staging:
            for name, content in contents.items():
                (staging.new / name).write_text(content, encoding="utf-8", newline="\n")
            staging.commit()
    except OSError as error:
        raise XlingError(f"cannot write the data card to '{folder}': {error}; choose another --output") from error
    return folder / JSON_FILE, folder / PAGE_FILE


_STYLE = """
:root { color-scheme: light dark; --page: #fff; --ink: #1b1b1b; --quiet: #555; --line: #ddd; --warn: #fff6ec; }
@media (prefers-color-scheme: dark) {
  :root { --page: #16181b; --ink: #e6e6e6; --quiet: #a8a8a8; --line: #3a3d42; --warn: #33261a; }
}
body { font: 16px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--page); max-width: 62rem;
  margin: 0 auto; padding: 1.5rem; overflow-wrap: break-word; }
h1, h2 { line-height: 1.2; } h2 { margin-top: 2.5rem; }
.headline { display: flex; flex-wrap: wrap; gap: 1rem 2rem; margin: 1.5rem 0; }
.headline div { display: flex; flex-direction: column-reverse; } .headline dt { color: var(--quiet); }
.headline dd { margin: 0; font-size: 1.6rem; font-weight: 600; }
.warnings { border-left: 4px solid #c76a00; background: var(--warn); padding: .5rem 1rem; }
.warnings h2 { margin: .5rem 0; font-size: 1.1rem; } .warnings ul { padding-left: 1.2rem; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; }
th, td { padding: .25rem .6rem; border-bottom: 1px solid var(--line); text-align: right; white-space: pre;
  vertical-align: bottom; }
td.words { min-width: 12rem; white-space: normal; overflow-wrap: anywhere; vertical-align: top; }
.words { text-align: left; } tbody th { font-weight: 400; }
figure { margin: 1.5rem 0; } figcaption { font-weight: 600; } .note { color: var(--quiet); }
figure .xtick text, figure .ytick text, figure .xtitle, figure .ytitle, figure .legendtext
  { fill: var(--quiet) !important; }
figure .gridlayer path, figure .zerolinelayer path { stroke: var(--line) !important; }
@media (max-width: 40rem) {
  body { padding: 1rem; } th, td { padding: .25rem .5rem; } h1 { font-size: 1.5rem; }
  th:first-child { position: sticky; left: 0; background: var(--page); }
  tbody th { min-width: 4rem; white-space: normal; }
}
"""

# nothing may be fetched from anywhere, whatever stands in the data or in plotly
_POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:"
_WORDS = ' class="words"'


def card_page(card: Card) -> str:
    """Return the page; every name and text in it is escaped."""
    from plotly.offline import get_plotlyjs

    plots = list(card_plots(card))
    sections = [_section(table, [plot for plot in plots if plot.table == table.name]) for table in card_tables(card)]
    title = f"Data card of {escape(card.dataset)}"
    return "\n".join(
        [
            "<!DOCTYPE html>",
            f'<html lang="en"><head><meta charset="utf-8"><title>{title}</title>',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
            f"<style>{_STYLE}</style>",
            f"<script>{get_plotlyjs()}</script></head><body><main>",
            f"<h1>{title}</h1>",
            _warnings(card),
            _headline(card),
            *sections,
            "</main></body></html>\n",
        ]
    )


def _headline(card: Card) -> str:
    numbers = (f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in headline(card))
    return f'<dl class="headline">{"".join(numbers)}</dl>'


def _warnings(card: Card) -> str:
    if not card.warnings:
        return "<p>No warnings.</p>"
    items = "".join(f"<li>{escape(warning.message)}</li>" for warning in card.warnings)
    return f'<section class="warnings"><h2>Warnings</h2><ul>{items}</ul></section>'


def _section(table: CardTable, plots: list[Plot]) -> str:
    head = "".join(
        f'<th scope="col"{_WORDS if place < table.words else ""}>{escape(name)}</th>'
        for place, name in enumerate(table.headers)
    )
    body = "".join(_row(row, table.words) for row in table.rows)
    name = f"heading-{table.name}"
    note = f'<p class="note">{escape(table.note)}</p>' if table.note else ""
    return (
        f'<section><h2 id="{name}">{escape(table.title)}</h2>'
        f'<div class="scroll"><table aria-labelledby="{name}"><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>{note}"
        + "".join(_figure(plot, f"plot-{table.name}-{number}") for number, plot in enumerate(plots))
        + "</section>"
    )


def _row(cells: tuple[str, ...], words: int) -> str:
    first, *rest = (escape(cell) for cell in cells)
    others = (f"<td{_WORDS if place < words else ''}>{cell}</td>" for place, cell in enumerate(rest, start=1))
    return f'<tr><th scope="row"{_WORDS}>{first}</th>{"".join(others)}</tr>'


def _figure(plot: Plot, name: str) -> str:
    drawn = plot.figure.to_html(
        full_html=False,
        include_plotlyjs=False,
        include_mathjax=False,
        div_id=name,
        config={"displayModeBar": False, "responsive": True},
    )
    caption = escape(plot.caption)
    return f'<figure role="group" aria-label="{caption}"><figcaption>{caption}</figcaption>{drawn}</figure>'
