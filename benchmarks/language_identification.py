"""Accuracy and speed of language identification on the Tatoeba sentences: ours, py3langid without limits, script alone.

    OMP_NUM_THREADS=1 python benchmarks/language_identification.py --data path/to/data
    OMP_NUM_THREADS=1 python benchmarks/language_identification.py --words 3

Every language has 1,000 sentences, as have the English ones, which are drawn evenly from all pairs. Titles are shorter
than sentences: the same is measured on the first words of each (of a text without spaces: its first characters, two
for a word). "py3langid" chooses among all languages it knows, "restricted" among those of the data whatever the
script, "script" by the script alone. Original titles of films (MovieLens latest-small, in five languages) are
identified among these languages. Prints tables and writes benchmarks/results/language_identification.json.
"""

from __future__ import annotations

import argparse
import csv
import statistics
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from common import RESULTS, data_folder, show, write_json

from recbole_xling.language.identification import NOTHING, Identified, LanguageIdentifier, script_sizes
from recbole_xling.language.tags import normalize_language

PER_LANGUAGE = 1000
TITLES = ("de", "en", "es", "fr", "it")
BOUNDS = (0.5, 0.8, 0.9)
Sentences = list[tuple[str, str]]
Answer = tuple[str, float]


class ScriptOnly(LanguageIdentifier):
    """Takes the language whose script covers most of the text, and leaves it open where several do."""

    def identify(self, text: str) -> Identified:
        """Return the language, ``und`` where the script does not tell it."""
        sizes = script_sizes(text)
        own = {tag: self._own(tag, sizes) for tag in self.languages}
        leaders = [tag for tag, size in own.items() if size == max(own.values())]
        return Identified(leaders[0], 1.0) if len(leaders) == 1 else NOTHING


def read_sentences(folder: Path) -> Sentences:
    """Return ``(language, sentence)``, an equal number of each language."""
    foreign: Sentences = []
    english: Sentences = []
    for path in sorted(folder.glob("tatoeba.*-eng.*")):
        language = normalize_language(path.suffix[1:])
        lines = path.read_text(encoding="utf-8").splitlines()
        (english if language == "en" else foreign).extend((language, line) for line in lines if line.strip())
    step = max(1, len(english) // PER_LANGUAGE)
    return foreign + english[::step][:PER_LANGUAGE]


def read_titles(folder: Path) -> Sentences:
    """Return ``(language, title)`` of films' original titles."""
    with open(folder / "parallel_titles.tsv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    own = (row for row in rows if row["is_original_language"] == "1" and row["language"] in TITLES)
    return [(row["language"], row["title"]) for row in own]


def shorten(sentence: str, words: int) -> str:
    """Return the first words of a sentence, or twice as many characters where it has no spaces."""
    parts = sentence.split()
    return " ".join(parts[:words]) if len(parts) > 1 else sentence[: 2 * words]


def classifiers(languages: Sequence[str]) -> dict[str, Callable[[str], Answer]]:
    """Return what is compared, by name; each gives language and confidence."""
    from py3langid.langid import MODEL_FILE
    from py3langid.langid import LanguageIdentifier as Py3LangId

    free = Py3LangId.from_model_file(MODEL_FILE, norm_probs=True)
    restricted = Py3LangId.from_model_file(MODEL_FILE, norm_probs=True)
    restricted.set_languages(languages)
    return {
        "ours": LanguageIdentifier(languages).identify,
        "restricted": restricted.classify,
        "py3langid": free.classify,
        "script": ScriptOnly(languages).identify,
    }


def measure(
    compared: dict[str, Callable[[str], Answer]], sentences: Sentences, repeats: int
) -> dict[str, dict[str, Any]]:
    """Return figures by name; the repeats take turns, and the fastest counts, so that other load spoils it least."""
    seconds: dict[str, float] = {}
    answers: dict[str, list[Answer]] = {}
    for _ in range(repeats):
        for name, identify in compared.items():
            start = time.perf_counter()
            answers[name] = [identify(sentence) for _, sentence in sentences]
            seconds[name] = min(seconds.get(name, float("inf")), time.perf_counter() - start)
    return {
        name: {**figures(answers[name], sentences), "texts_per_second": len(sentences) / seconds[name]}
        for name in compared
    }


def figures(answers: list[Answer], sentences: Sentences) -> dict[str, Any]:
    """Return accuracy in all and per language, and share and accuracy of the confident answers and of the others."""
    right = [answer[0] == language for answer, (language, _) in zip(answers, sentences, strict=True)]
    correct: Counter[str] = Counter()
    for (language, _), hit in zip(sentences, right, strict=True):
        correct[language] += hit
    totals = Counter(language for language, _ in sentences)
    confident = {}
    for bound in BOUNDS:
        kept = [hit for hit, answer in zip(right, answers, strict=True) if answer[1] >= bound]
        others = [hit for hit, answer in zip(right, answers, strict=True) if answer[1] < bound]
        confident[str(bound)] = {
            "share": len(kept) / len(right),
            "accuracy": statistics.fmean(kept or [0]),
            "accuracy_below": statistics.fmean(others or [0]),
        }
    return {
        "accuracy": statistics.fmean(right),
        "per_language": {language: correct[language] / totals[language] for language in sorted(totals)},
        "confident": confident,
    }


def report(title: str, results: dict[str, dict[str, Any]]) -> None:
    """Print accuracy per language, in all, and the rate."""
    print(f"\n{title}")
    first = next(iter(results.values()))
    rows = [[name, *(f"{r['per_language'][name]:.3f}" for r in results.values())] for name in first["per_language"]]
    rows.append(["all", *(f"{r['accuracy']:.4f}" for r in results.values())])
    for bound in first["confident"]:
        for what in ("share", "accuracy", "accuracy_below"):
            rows.append(
                [f"{what}, confidence >= {bound}", *(f"{r['confident'][bound][what]:.4f}" for r in results.values())]
            )
    rows.append(["texts/s", *(f"{r['texts_per_second']:.0f}" for r in results.values())])
    show(["language", *results], rows)


def main() -> None:
    """Measure all on whole sentences and on their beginnings, and on titles."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="data", help="folder that holds tatoeba and movielens-small")
    parser.add_argument("--words", type=int, default=3, help="length of the beginnings")
    parser.add_argument("--repeats", type=int, default=5, help="times each is measured; the fastest counts")
    options = parser.parse_args()
    sentences = read_sentences(data_folder(options.data, "tatoeba"))
    short = [(language, shorten(sentence, options.words)) for language, sentence in sentences]
    compared = classifiers(sorted({language for language, _ in sentences}))
    content: dict[str, Any] = {"words": options.words}
    for name, texts in (("sentences", sentences), ("beginnings", short)):
        results = measure(compared, texts, options.repeats)
        length = statistics.fmean(len(text) for _, text in texts)
        content[name] = {"texts": len(texts), "mean_length": length, "results": results}
        report(f"{name} ({len(texts)}, {length:.0f} characters)", results)
    titles = read_titles(data_folder(options.data, "movielens-small"))
    identify = LanguageIdentifier(TITLES).identify
    found = figures([identify(title) for _, title in titles], titles)
    content["titles"] = {"texts": len(titles), "languages": TITLES, "results": {"ours": found}}
    print(f"\ntitles ({len(titles)}): {found['accuracy']:.4f} right")
    show(
        ["confidence", *next(iter(found["confident"].values()))],
        [[b, *r.values()] for b, r in found["confident"].items()],
    )
    write_json(RESULTS / "language_identification.json", content)


if __name__ == "__main__":
    main()
