"""Filling the languages that the item texts of a dataset lack."""

from __future__ import annotations

import logging
import os
import shutil
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from recbole_xling.errors import ConfigError, DataError, unknown_name
from recbole_xling.language.tags import UNDETERMINED, covers, is_language
from recbole_xling.text.record import DISPLAY, PARALLEL, ItemText, check_text, format_text
from recbole_xling.text.store import ItemTextStore, itemtext_path
from recbole_xling.translate.base import Pair, Translator
from recbole_xling.translate.cache import TranslationCache
from recbole_xling.utils.files import staged
from recbole_xling.utils.paths import user_cache_folder


@dataclass(frozen=True, slots=True)
class Job:
    """One text to be made.

    Attributes:
        text: what is translated.
        steps: source and target language of each translation on the way: one, or there and back.
        source: source of the record to be made.
    """

    text: ItemText
    steps: tuple[Pair, ...]
    source: str

    @property
    def target(self) -> str:
        """The language that was asked for: of the new text, or the pivot of a back-translation."""
        return self.steps[0][1]

    @property
    def language(self) -> str:
        """The language of the new text."""
        return self.steps[-1][1]


@dataclass(frozen=True, slots=True)
class Selection:
    """What is to be done.

    Attributes:
        jobs: the texts to be made.
        present: texts wanted that are there already.
        without_source: items without a text in a known language, or in the one asked for, to translate from.
    """

    jobs: list[Job]
    present: int
    without_source: int


def select_jobs(
    store: ItemTextStore, system: str, targets: Iterable[str], source_language: str | None, back: bool
) -> Selection:
    """Choose what the items lack; see :func:`recbole_xling.translate.dataset.translate_dataset`."""
    jobs: list[Job] = []
    present = without_source = 0
    wanted = tuple(targets)
    for item_id in store:
        shown = store.display(item_id)
        texts = [*([] if shown is None else [shown]), *store.parallel(item_id)]
        source = _source(texts, source_language)
        if source is None:
            without_source += 1
            continue
        made = _back_translations if back else _translations
        missing = list(made(source, texts, system, wanted))
        present += len(wanted) - len(missing)
        jobs += missing
    return Selection(jobs, present, without_source)


def _source(texts: list[ItemText], language: str | None) -> ItemText | None:
    """Return the text to translate from; the display text comes first."""
    if language is None:
        return next((text for text in texts if text.source == DISPLAY and text.language != UNDETERMINED), None)
    return next((text for text in texts if _is_own(text) and covers(language, text.language)), None)


def _translations(source: ItemText, texts: list[ItemText], system: str, targets: tuple[str, ...]) -> Iterator[Job]:
    label = f"translation:{system}"
    for target in targets:
        there = [text for text in texts if covers(target, text.language)]
        if not any(_is_own(text) or text.source == label for text in there):
            yield Job(source, ((source.language, target),), label)


def _back_translations(source: ItemText, texts: list[ItemText], system: str, pivots: tuple[str, ...]) -> Iterator[Job]:
    for pivot in pivots:
        label = f"translation:{system}:back:{pivot}"
        if not covers(pivot, source.language) and not any(
            text.source == label and text.language == source.language for text in texts
        ):
            yield Job(source, ((source.language, pivot), (pivot, source.language)), label)


def _is_own(text: ItemText) -> bool:
    return text.source in (DISPLAY, PARALLEL)


logger = logging.getLogger(__name__)

Translations: TypeAlias = dict[Pair, dict[str, str]]
"""By source and target language: the translation of each text."""

COPIED_FIELDS = frozenset(
    """
    artist asin author authors brand date director directors ean id isbn isbn10 isbn13 model price publisher sku url
    year
    """.split()
)
"""Fields that are copied unless they are named: names, numbers and codes."""


@dataclass(frozen=True, slots=True)
class TranslationReport:
    """What was done.

    Attributes:
        path: the itemtext file.
        added: records added by the language asked for.
        present: texts wanted that were there already.
        without_source: items without a text in a known language, or in the one asked for, to translate from.
    """

    path: Path
    added: Mapping[str, int]
    present: int
    without_source: int


def translate_dataset(
    folder: str | Path,
    dataset: str,
    translator: Translator,
    targets: Sequence[str],
    *,
    fields: Collection[str] | None = None,
    source_language: str | None = None,
    back: bool = False,
    cache_dir: str | Path | None = None,
    show_progress: bool = True,
) -> TranslationReport:
    """Translate the items of a dataset and append the translations to its itemtext file.

    An item is left as it is where it has a text of its own in the target language, or a translation by the same
    system. The file is replaced at once and at the end only; what was in it stays, byte by byte. A killed run goes on
    where it was, as translations are cached one by one.

    Args:
        folder: folder of the dataset.
        dataset: its name.
        translator: what to translate with.
        targets: BCP 47 tags of the languages wanted.
        fields: fields to translate, the others are copied; where not given, all but :data:`COPIED_FIELDS`. Values
            without a letter are copied in any case.
        source_language: translate from the item's own text in this language instead of its display text.
        back: back-translation: translate into each of ``targets`` and from there back, as another text in the language
            of the source, with the source ``translation:<name>:back:<target>``. Source: Sennrich et al., "Improving
            Neural Machine Translation Models with Monolingual Data" (ACL 2016).
        cache_dir: where translations are kept; the user's cache folder where not given.
        show_progress: show a bar with rate and remaining time, where there is a terminal.

    Raises:
        ConfigError: a language or field does not exist.
        DataError: the itemtext file is missing or wrong, or another process is writing to the folder.
        TranslationError: the translator cannot translate between these languages, or failed.
        XlingError: the cache cannot be written.
    """
    for language in (*targets, *([] if source_language is None else [source_language])):
        if not is_language(language):
            raise ConfigError(f"language {language!r} is no BCP 47 tag; write it like 'de' or 'zh-Hant'")
    path = itemtext_path(folder, dataset)
    cache = TranslationCache(cache_dir or user_cache_folder("translations"))
    while True:
        state = _state(path)
        store = ItemTextStore.load(path)
        chosen = _fields(store, fields)
        selection = select_jobs(store, translator.name, dict.fromkeys(targets), source_language, back)
        translations = _translate(translator, cache, selection.jobs, chosen, show_progress)
        with staged(path.parent, dataset, [path.name]) as staging:
            if _state(path) != state:
                logger.info("%s has changed meanwhile; reading it again", path)
                continue
            if selection.jobs:
                _append(path, staging.new / path.name, (_record(job, chosen, translations) for job in selection.jobs))
                staging.commit()
        return _report(path, selection, source_language)


def _translate(
    translator: Translator, cache: TranslationCache, jobs: Sequence[Job], fields: Collection[str], show_progress: bool
) -> Translations:
    """Translate all texts of the jobs, the way back after the way there."""
    pairs = {step for job in jobs for step in job.steps}
    translator.check_pairs(sorted(pairs))
    translations: Translations = {}
    for step in range(max((len(job.steps) for job in jobs), default=0)):
        texts: dict[Pair, dict[str, None]] = {}
        for job in jobs:
            wanted = texts.setdefault(job.steps[step], {})
            for name, value in job.text.fields.items():
                if _is_translated(name, value, fields):
                    wanted[_through(value, job.steps[:step], translations)] = None
        for (source, target), wanted in texts.items():
            found = cache.translate(translator, wanted, source, target, show_progress=show_progress)
            translations.setdefault((source, target), {}).update(_without_gaps(found, translator.name))
    return translations


def _without_gaps(translations: dict[str, str], system: str) -> dict[str, str]:
    """Let a text stand where its translation is empty."""
    gaps = [text for text, translation in translations.items() if not translation.strip()]
    if gaps:
        logger.warning("%s left %d texts empty (%r); they stay as they are", system, len(gaps), gaps[0][:80])
    return {**translations, **{text: text for text in gaps}}


def _through(value: str, steps: Iterable[Pair], translations: Translations) -> str:
    for pair in steps:
        value = translations[pair][value]
    return value


def _is_translated(name: str, value: str, fields: Collection[str]) -> bool:
    return name in fields and any(character.isalpha() for character in value)


def _record(job: Job, fields: Collection[str], translations: Translations) -> ItemText:
    values = {
        name: _through(value, job.steps, translations) if _is_translated(name, value, fields) else value
        for name, value in job.text.fields.items()
    }
    return ItemText(job.text.item_id, job.language, values, job.source)


def _fields(store: ItemTextStore, asked: Collection[str] | None) -> Collection[str]:
    """Return the names of the fields to translate."""
    known = {name for text in store.texts() for name in text.fields}
    if asked is None:
        return {name for name in known if name.lower() not in COPIED_FIELDS}
    for name in asked:
        if name not in known:
            raise ConfigError(unknown_name("text field", name, known))
    return asked


def _append(path: Path, new: Path, records: Iterable[ItemText]) -> None:
    """Write the bytes of ``path`` and then the records."""
    with open(path, "rb") as old, open(new, "wb") as file:
        shutil.copyfileobj(old, file)
        if file.tell():
            old.seek(-1, os.SEEK_END)
            file.write(b"" if old.read() == b"\n" else b"\n")
        for record in records:
            check_text(record)
            file.write(f"{format_text(record)}\n".encode())


def _state(path: Path) -> tuple[int, int, int]:
    try:
        state = path.stat()
    except FileNotFoundError:
        raise DataError(
            f"there is no item text {path} to translate: convert the dataset, or write the texts there (see "
            "docs/data-format.md)"
        ) from None
    return state.st_ino, state.st_size, state.st_mtime_ns


def _report(path: Path, selection: Selection, source_language: str | None) -> TranslationReport:
    if selection.without_source:
        logger.warning(
            "%d items have no text in %s to translate from",
            selection.without_source,
            source_language or "a known language",
        )
    added = Counter(job.target for job in selection.jobs)
    return TranslationReport(path, dict(added.most_common()), selection.present, selection.without_source)
