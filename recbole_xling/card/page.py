"""The card as one HTML page that needs nothing else, neither files nor network."""

from __future__ import annotations

import json
from pathlib import Path

from recbole_xling.card.plots import card_plots
from recbole_xling.card.schema import Card
from recbole_xling.card.tables import card_tables, headline
from recbole_xling.pages.page import render_page
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
    return render_page(
        Path(__file__).with_name("page.html.j2"),
        card_plots(card),
        card=card,
        headline=headline(card),
        tables=list(card_tables(card)),
    )
