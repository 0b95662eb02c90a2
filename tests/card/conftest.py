"""A dataset small enough to count by hand."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

Text = tuple[str, str, str, str] | tuple[str, str, str, str, float]  # item, language, title, source, confidence

INTERACTIONS = """u1 a 1|u1 b 2|u1 c 3|u1 d 4
u2 a 1|u2 a 2|u2 a 3
u3 c 5|u3 x 5
u4 d 9
u5 a 1|u5 b 7|u5 c 7|u5 unknown 8"""
TEXTS: Sequence[Text] = (
    ("a", "de", "Hund", "display"),
    ("a", "en", "dog", "parallel"),
    ("b", "de", "Katze", "display"),
    ("b", "en", "cat", "translation:x"),
    ("c", "fr", "chat", "display"),
    ("d", "fr", "chien", "display"),
    ("e", "en", "horse", "display"),
    ("stranger", "en", "cow", "display"),
)


def write_dataset(
    root: Path,
    name: str = "made",
    *,
    interactions: str = INTERACTIONS,
    items: str | None = "a b c d e x",
    users: str | None = "u1 u2 u3 u4 u5 u6",
    texts: Sequence[Text] | None = TEXTS,
    columns: str = "user_id:token item_id:token timestamp:float",
) -> Path:
    """Write a dataset; fields are separated by spaces, rows by ``|`` or line breaks."""
    folder = root / name
    folder.mkdir(parents=True)
    rows = [row.replace(" ", "\t") for row in interactions.replace("\n", "|").split("|")]
    (folder / f"{name}.inter").write_text("\n".join([columns.replace(" ", "\t"), *rows]) + "\n", encoding="utf-8")
    for suffix, ids in (("item", items), ("user", users)):
        if ids is not None:
            lines = [f"{suffix}_id:token", *ids.split()]
            (folder / f"{name}.{suffix}").write_text("\n".join(lines) + "\n", encoding="utf-8")
    if texts is not None:
        with open(folder / f"{name}.itemtext.jsonl", "w", encoding="utf-8") as file:
            for item, language, title, source, *confidence in texts:
                record = {"item_id": item, "language": language, "fields": {"title": title}, "source": source}
                record |= dict(zip(["language_confidence"], confidence, strict=False))
                file.write(json.dumps(record) + "\n")
    return folder


@pytest.fixture
def made(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that writes the dataset below ``tmp_path/data`` and returns its folder."""
    return lambda **changed: write_dataset(tmp_path / "data", **changed)
