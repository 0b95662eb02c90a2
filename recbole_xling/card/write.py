"""Writing a card beside its data."""

from __future__ import annotations

import json
from pathlib import Path

from recbole_xling.card.card import Card
from recbole_xling.card.page import card_page
from recbole_xling.convert.staging import staged
from recbole_xling.errors import XlingError

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
