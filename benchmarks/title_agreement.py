"""Compare the bundled film titles with another source's, on the films both have (same English title and year).

    python benchmarks/title_agreement.py --data path/to/data

Prints a table and writes benchmarks/results/title_agreement.json.
"""

from __future__ import annotations

import argparse
import csv
import difflib
import re
import unicodedata
from collections import defaultdict

from common import RESULTS, data_folder, show, write_json

from recbole_xling.convert.sources.ml100k import MovieLens100K, english_title

CLOSE = 0.8


def plain(title: str) -> str:
    """Lower case without accents, punctuation, bracketed additions and articles moved behind a comma."""
    title = re.sub(r"\([^)]*\)", " ", title)
    title = unicodedata.normalize("NFKD", english_title(title).casefold())
    letters = "".join(c for c in title if not unicodedata.combining(c))
    return " ".join(re.findall(r"\w+", letters))


def agreement(ours: str, theirs: str) -> str:
    """Return ``same``, ``close`` (one holds the other, or alike to 80%) or ``different``."""
    a, b = plain(ours), plain(theirs)
    if a == b:
        return "same"
    alike = difflib.SequenceMatcher(None, a, b).ratio() >= CLOSE
    return "close" if a and b and (a in b or b in a or alike) else "different"


def main() -> None:
    """Run the comparison."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="data", help="folder with movielens-small/")
    folder = data_folder(parser.parse_args().data, "movielens-small")
    by_name: dict[tuple[str, str], str] = {}
    with open(folder / "movies.csv", encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            match = re.match(r"(.*)\((\d{4})\)\s*$", row["title"])
            if match:
                by_name[plain(match[1].strip()), match[2]] = row["movieId"]
    theirs: dict[str, dict[str, str]] = defaultdict(dict)
    with open(folder / "parallel_titles.tsv", encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE):
            theirs[row["movieId"]][row["language"]] = row["title"]
    counts: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    different: list[list[str]] = []
    films = set()
    converter = MovieLens100K()
    texts = defaultdict(dict)
    years = {}
    for text in converter.texts():
        texts[text.item_id][text.language] = text.fields["title"]
        years[text.item_id] = text.fields.get("year", "")
    for item, titles in texts.items():
        movie = by_name.get((plain(titles.get("en", "")), years[item]))
        for language, title in titles.items():
            if language == "en" or movie is None or language not in theirs[movie]:
                continue
            verdict = agreement(title, theirs[movie][language])
            counts[language][verdict] += 1
            films.add(item)
            if verdict == "different":
                different.append([language, title, theirs[movie][language]])
    table = []
    for language in sorted(counts):
        row = counts[language]
        n = sum(row.values())
        table.append([language, n, row["same"], row["close"], row["different"], f"{(n - row['different']) / n:.1%}"])
    total = sum(row[1] for row in table)
    agreed = sum(row[2] + row[3] for row in table)
    table.append(["all", total, *(sum(row[i] for row in table) for i in (2, 3, 4)), f"{agreed / total:.1%}"])
    show(["language", "titles", "same", "close", "different", "agreement"], table)
    write_json(RESULTS / "title_agreement.json", {"films": len(films), "rows": table, "different": different})


if __name__ == "__main__":
    main()
