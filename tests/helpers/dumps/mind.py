"""News and impressions in MIND's layout."""

from __future__ import annotations

from pathlib import Path

BEHAVIORS: list[tuple[str, ...]] = [  # not in order of time, as in MIND
    ("1", "U1", "11/11/2019 9:05:58 AM", "N1 N2 N3", "N4-0 N5-1 N6-0"),
    ("2", "U2", "11/11/2019 12:00:00 PM", "", "N1-1 N4-0 N2-1"),
    ("3", "U1", "11/10/2019 9:05:58 PM", "N1 N2 N3", "N7-1 N6-0"),
    ("4", "U3", "11/12/2019 12:30:00 AM", "N10 N11", "N1-0 N2-0"),
    ("5", "U2", "11/13/2019 1:00:00 AM", "", "N12-1"),
    ("6", "U4", "11/14/2019 1:00:00 AM", "N9", "N8-1 N12-0"),
]


def write_table(path: Path, rows: list[tuple[str, ...]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join("\t".join(row) + "\n" for row in rows), encoding="utf-8", newline="")


def news(numbers: range, title: str = 'Say "what', identifier: str = "N{}") -> list[tuple[str, ...]]:
    return [
        (identifier.format(i), "sports", f"club{i % 3}", f"{title} {i}", "" if i == 3 else f"Abstract {i}",
         f"https://news.example/{i}", "[]", '[{"Label": "x"}]')
        for i in numbers
    ]  # fmt: skip
