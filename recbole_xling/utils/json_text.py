"""JSON that somebody else may have written."""

from __future__ import annotations

import json
from typing import Any


def parse_json(text: str | bytes) -> Any:
    """Return what a JSON text says.

    Raises:
        ValueError: it is none, or nested so deeply that Python gives up, which ``json.loads`` raises as another error.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("values are nested too deeply") from None
