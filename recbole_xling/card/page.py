"""The card as one HTML page that needs nothing else, neither files nor network."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from recbole_xling.card.plots import card_plots
from recbole_xling.card.schema import Card
from recbole_xling.card.tables import card_tables, headline
from recbole_xling.utils.run_folder import versions
from recbole_xling.utils.staging import staged

JSON_FILE = "card.json"
PAGE_FILE = "card.html"


def write_card(card: Card, folder: str | Path) -> tuple[Path, Path]:
    """Write ``card.json`` and ``card.html``, both or none; a failure leaves the previous ones.

    Args:
        card: the card.
        folder: where to write; created if it does not exist.

    Returns:
        The two files.

    Raises:
        DataError: another process is writing to the folder.
        OSError: the folder cannot be written to.
    """
    folder = Path(folder)
    contents = {
        JSON_FILE: json.dumps(card.to_dict(), indent=1, ensure_ascii=False, allow_nan=False) + "\n",
        PAGE_FILE: card_page(card),
    }
    with staged(folder, list(contents)) as staging:
        for name, content in contents.items():
            (staging.new / name).write_text(content, encoding="utf-8", newline="\n")
        staging.commit()
    return folder / JSON_FILE, folder / PAGE_FILE


def card_page(card: Card) -> str:
    """Return the page; every name and text in it is escaped."""
    from plotly.offline import get_plotlyjs

    drawings: dict[str, list[tuple[str, str]]] = {}  # by table: captions and HTML
    for plot in card_plots(card):
        of_table = drawings.setdefault(plot.table, [])
        drawing = plot.figure.to_html(
            full_html=False,
            include_plotlyjs=False,
            include_mathjax=False,
            div_id=f"plot-{plot.table}-{len(of_table)}",
            config={"displayModeBar": False, "responsive": True},
        )
        of_table.append((plot.caption, drawing))
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        keep_trailing_newline=True,
    )
    return environment.get_template("page.html.j2").render(
        card=card,
        headline=headline(card),
        tables=list(card_tables(card)),
        drawings=drawings,
        plotly=get_plotlyjs(),
        date=date.today().isoformat(),
        versions=" and ".join(f"{name} {versions()[name]}" for name in ("recbole-xling", "recbole")),
    )
