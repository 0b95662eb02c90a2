"""Filling the languages that the item texts of a dataset lack: what is missing, its translation, the new file."""

from __future__ import annotations

import logging
import os
import shutil
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from recbole_xling.errors import ConfigError, DataError, unknown_name
from recbole_xling.language.tags import UNDETERMINED, asked_language, covers, is_same_language
from recbole_xling.text.record import DISPLAY, PARALLEL, ItemText, check_text, format_text
from recbole_xling.text.store import ItemTextStore, itemtext_path
from recbole_xling.translate.base import Pair, Translator
from recbole_xling.translate.cache import TranslationCache
from recbole_xling.utils.paths import user_cache_folder
from recbole_xling.utils.staging import settle, staged

logger = logging.getLogger(__name__)

COPIED_FIELDS = frozenset(
    """
    artist asin author authors brand date director directors ean id isbn isbn10 isbn13 model price publisher sku url
    year
    """.split()
)
"""Fields that are copied unless they are named: names, numbers and codes."""

Translations: TypeAlias = dict[Pair, dict[str, str]]
"""By source and target language: the translation of each text."""


@dataclass(frozen=True, slots=True)
class TranslationReport:
    """What was done.

    Attributes:
        path: the itemtext file.
        added: records added by the language asked for.
        present: texts wanted that were there already.
        without_source: items that lack a text to translate from, in a known language or in the one asked for.
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

    An item that has a text of its own in the target language, or a translation by the same system, is left as it is.
    The file is replaced at once and at the end only; what was in it stays, byte by byte. A killed run goes on where it
    was, as translations are cached chunk by chunk.

    Args:
        folder: folder of the dataset.
        dataset: its name.
        translator: what to translate with.
        targets: tags or names of the languages wanted; ``pt_BR`` is ``pt``, ``zh-TW`` is ``zh-Hant``.
        fields: fields to translate, the others are copied; if not given, all but :data:`COPIED_FIELDS`. Values
            without a letter are copied in any case.
        source_language: translate from the item's own text in this language instead of its display text.
        back: back-translation: translate into each of ``targets`` and from there back, as another text in the language
            of the source, with the source ``translation:<name>:back:<target>``. Source: Sennrich et al., "Improving
            Neural Machine Translation Models with Monolingual Data" (ACL 2016).
        cache_dir: where translations are kept; the user's cache folder if not given.
        show_progress: show a bar with rate and remaining time, on a terminal only.

    Raises:
        ConfigError: a language or field does not exist.
        DataError: the itemtext file is missing or wrong, or another process is writing to the folder.
        TranslationError: the translator cannot translate between these languages, or failed.
        XlingError: the cache cannot be written.
    """
    targets = list(dict.fromkeys(map(asked_language, targets)))
    source_language = None if source_language is None else asked_language(source_language)
    path = itemtext_path(folder, dataset)
    cache = TranslationCache(cache_dir or user_cache_folder("translations"))
    while True:
        settle(path.parent)
        state = _state(path)
        store = ItemTextStore.load(path)
        _warn_of_others(store, translator, cache)
        chosen = _fields(store, fields)
        jobs, present, without_source = select_jobs(store, translator.name, targets, source_language, back)
        translations = _translate(translator, cache, jobs, chosen, show_progress)
        with staged(path.parent, [path.name]) as staging:
            if _state(path) != state:
                logger.info("%s has changed meanwhile; reading it again", path)
                continue
            if jobs:
                _append(path, staging.new / path.name, jobs, chosen, translations)
                staging.commit()
        if without_source:
            known = source_language or "a known language"
            logger.warning("%d items have no text in %s to translate from", without_source, known)
        added = dict(Counter(job.target for job in jobs).most_common())
        return TranslationReport(path, added, present, without_source)


def _warn_of_others(store: ItemTextStore, translator: Translator, cache: TranslationCache) -> None:
    """Warn if texts have the name of a system that has translated nothing yet: they may be another one's."""
    source = f"translation:{translator.name}"
    if not cache.folder(translator).is_dir() and any(
        text.source == source or text.source.startswith(f"{source}:back:") for text in store.texts()
    ):
        logger.warning(
            "texts by a system called '%s' are there, but this one has translated nothing yet. They are left as they "
            "are: if another program, model or version made them, give this one another name (--option name=...)",
            translator.name,
        )


def _state(path: Path) -> tuple[int, int, int]:
    """Return what changes with the file."""
    try:
        state = path.stat()
    except FileNotFoundError:
        raise DataError(
            f"item text {path} is missing: convert the dataset, or write the texts there (see docs/data-format.md)"
        ) from None
    return state.st_ino, state.st_size, state.st_mtime_ns


def _fields(store: ItemTextStore, asked: Collection[str] | None) -> Collection[str]:
    """Return the names of the fields to translate."""
    known = {name for text in store.texts() for name in text.fields}
    if asked is None:
        return {name for name in known if name.lower() not in COPIED_FIELDS}
    for name in asked:
        if name not in known:
            raise ConfigError(unknown_name("text field", name, known))
    return asked


# ---- what is missing ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Job:
    """One text to be made.

    Attributes:
        text: what is translated.
        steps: source and target language of each translation on the way: one, or there and back.
        language: of the new text. One that was translated back has its original's tag, whatever the translator calls
            that language: by another tag it would be a text in another language.
        source: source of the record to be made.
    """

    text: ItemText
    steps: tuple[Pair, ...]
    language: str
    source: str

    @property
    def target(self) -> str:
        """The language that was asked for: of the new text, or the pivot of a back-translation."""
        return self.steps[0][1]


def select_jobs(
    store: ItemTextStore, system: str, targets: Sequence[str], source_language: str | None, back: bool
) -> tuple[list[Job], int, int]:
    """Choose what the items lack; arguments as for :func:`translate_dataset`.

    Returns:
        The texts to be made, and two numbers of :class:`TranslationReport`: ``present`` and ``without_source``.
    """
    jobs: list[Job] = []
    present = without_source = 0
    for item_id in store:
        shown = store.display(item_id)
        known = [*([] if shown is None else [shown]), *store.parallel(item_id)]
        texts = [text for text in known if any(value.strip() for value in text.fields.values())]
        if source_language is None:
            sources = (text for text in texts if text.source == DISPLAY and text.language != UNDETERMINED)
        else:
            own = (text for text in texts if text.source in (DISPLAY, PARALLEL))
            covered = [text for text in own if _is_in(source_language, text.language)]
            # an exact tag goes before variants, as in a text view
            exact = (text for text in covered if text.language.lower() == source_language.lower())
            sources = (text for text in (*exact, *covered))
        text = next(sources, None)
        if text is None:
            without_source += 1
            continue
        # of two tags of one language the one that was asked for, which translators know
        spoken = text.language if covers(source_language or text.language, text.language) else str(source_language)
        for target in targets:
            source, steps, language = f"translation:{system}", [(spoken, target)], target
            if back:
                source, steps = f"{source}:back:{target}", [*steps, (target, spoken)]
                language = text.language
                done = any(other.source == source and other.language in (spoken, language) for other in known)
                done = done or _is_in(target, language)
            else:
                done = any(other.source in (DISPLAY, PARALLEL) and _is_in(target, other.language) for other in texts)
                # an empty one by the same system as well: no file has a second text of a language and a source
                done = done or any(other.source == source and _is_in(target, other.language) for other in known)
            if done:
                present += 1
            else:
                jobs.append(Job(text, tuple(steps), language, source))
    return jobs, present, without_source


def _is_in(language: str, tag: str) -> bool:
    return covers(language, tag) or is_same_language(language, tag)


# ---- the translations ---------------------------------------------------------------------------------------------


def _translate(
    translator: Translator, cache: TranslationCache, jobs: Sequence[Job], fields: Collection[str], show_progress: bool
) -> Translations:
    """Translate all texts of the jobs, the way back after the way there; a text with an empty translation stays."""
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
            gaps = [text for text, translation in found.items() if not translation.strip()]
            if gaps:
                message = "%s left %d texts empty (%r); they stay as they are"
                logger.warning(message, translator.name, len(gaps), gaps[0][:80])
            translations.setdefault((source, target), {}).update({**found, **{text: text for text in gaps}})
    return translations


def _through(value: str, steps: Iterable[Pair], translations: Translations) -> str:
    for pair in steps:
        value = translations[pair][value]
    return value


def _is_translated(name: str, value: str, fields: Collection[str]) -> bool:
    return name in fields and any(character.isalpha() for character in value)


def _append(path: Path, new: Path, jobs: Iterable[Job], fields: Collection[str], translations: Translations) -> None:
    """Write the bytes of ``path`` and then the records of the jobs."""
    with open(path, "rb") as old, open(new, "wb") as file:
        shutil.copyfileobj(old, file)
        if file.tell():
            old.seek(-1, os.SEEK_END)
            file.write(b"" if old.read() == b"\n" else b"\n")
        for job in jobs:
            values = {
                name: _through(value, job.steps, translations) if _is_translated(name, value, fields) else value
                for name, value in job.text.fields.items()
            }
            record = ItemText(job.text.item_id, job.language, values, job.source)
            check_text(record)
            file.write(f"{format_text(record)}\n".encode())
