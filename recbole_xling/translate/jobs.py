"""Which items are to be translated from what into what."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from recbole_xling.text.record import DISPLAY, PARALLEL, UNDETERMINED, ItemText, covers
from recbole_xling.text.store import ItemTextStore
from recbole_xling.translate.base import Pair


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
