"""Translations on disk, so that a text is translated once per system and pair of languages.

Layout: one folder per system, named after the hash of its identity. It contains ``system.json`` (the identity, for
people) and a folder per pair of languages (``de_es``) with files of JSON lines, ``{"text": ..., "translation": ...,
"crc32": ...}``; older releases wrote no checksum. Each run appends to a file of its own, chunk by chunk, so several
processes can fill one cache at once, and a killed run spoils the last line of its file at most.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator, Sequence
from os import fsync
from pathlib import Path
from time import perf_counter
from uuid import uuid4
from zlib import crc32

from tqdm.auto import tqdm

from recbole_xling.errors import TranslationError
from recbole_xling.translate.base import Translator
from recbole_xling.utils.files import clear_write_errors, identity_folder, write_identity
from recbole_xling.utils.json_text import parse_json
from recbole_xling.utils.terminal import on_screen

logger = logging.getLogger(__name__)

_CHECKSUM = "crc32"
_KEPT = "what is stored so far is kept and not translated again"


class TranslationCache:
    """A folder of translations, keyed by system, languages and text.

    Args:
        root: the folder of the systems' folders; made when the first translation is stored.
    """

    def __init__(self, root: Path | str) -> None:
        self.root = Path(root)

    def folder(self, translator: Translator) -> Path:
        """Return the folder of a system's translations; it need not exist yet."""
        return identity_folder(self.root, translator.identity)

    def translate(
        self,
        translator: Translator,
        texts: Iterable[str],
        source: str,
        target: str,
        *,
        show_progress: bool = True,
        chunk_size: int = 256,
    ) -> dict[str, str]:
        """Return the translation of every text, translating those that are not stored yet.

        Args:
            translator: what to translate with.
            texts: any order, duplicates allowed (they are translated once); none is empty.
            source: BCP 47 tag of the language of the texts.
            target: BCP 47 tag of the language wanted.
            show_progress: show a bar with rate and remaining time, on a terminal only.
            chunk_size: texts given to the translator at a time, that is, the most work that a killed run loses.

        Raises:
            TranslationError: the translator failed, or returned something else than one text per text.
            XlingError: the cache cannot be written; what was stored before is kept.
        """
        wanted = dict.fromkeys(texts)
        folder = self.folder(translator) / f"{source}_{target}"
        known = {text: translation for text, translation in _stored(folder) if text in wanted}
        missing = [text for text in wanted if text not in known]
        if not missing:
            return known
        with clear_write_errors(folder, "translation", _KEPT):  # before anything is translated
            folder.mkdir(parents=True, exist_ok=True)
            write_identity(folder.parent / "system.json", translator.identity)
        file = folder / f"{uuid4().hex}.jsonl"
        label = f"{translator.name} {source}-{target}"
        began = perf_counter()
        # None: on a terminal only
        with tqdm(total=len(missing), desc=label, unit="text", disable=not (show_progress and on_screen())) as bar:
            for start in range(0, len(missing), chunk_size):
                chunk = missing[start : start + chunk_size]
                translations = _checked(translator, chunk, translator.translate(chunk, source, target))
                made = dict(zip(chunk, translations, strict=True))
                lines = "".join(_line(text, translation) for text, translation in made.items())
                with clear_write_errors(folder, "translation", _KEPT), open(file, "ab") as stream:
                    stream.write(lines.encode())
                    stream.flush()
                    fsync(stream.fileno())
                known.update(made)
                bar.update(len(chunk))
        seconds = perf_counter() - began
        logger.info("%s: %d texts in %.1f s, %.1f a second", label, len(missing), seconds, len(missing) / seconds)
        return known


def _line(text: str, translation: str) -> str:
    record = {"text": text, "translation": translation, _CHECKSUM: _checksum(text, translation)}
    return json.dumps(record, ensure_ascii=False) + "\n"


def _checksum(text: str, translation: str) -> int:
    return crc32(f"{text}\0{translation}".encode("utf-8", "surrogatepass"))


def _stored(folder: Path) -> Iterator[tuple[str, str]]:
    """Yield texts and translations that are stored; damaged lines are left out with a warning."""
    for file in sorted(folder.glob("*.jsonl")):
        damaged = 0
        with open(file, "rb") as lines:
            for line in lines:
                try:
                    record = parse_json(line)
                    text, translation = record["text"], record["translation"]
                    if not isinstance(text, str) or not isinstance(translation, str):
                        raise TypeError
                    if record.keys() - {"text", "translation"} and record[_CHECKSUM] != _checksum(text, translation):
                        raise ValueError
                except (ValueError, KeyError, TypeError):
                    damaged += 1
                else:
                    yield text, translation
        if damaged:
            logger.warning("%s: %d incomplete or damaged lines are left out; they are translated again", file, damaged)


def _checked(translator: Translator, texts: Sequence[str], translations: Sequence[str]) -> Sequence[str]:
    """Return the translations unless they cannot be used as texts of items."""
    if len(translations) != len(texts):
        raise TranslationError(f"{translator.name} returned {len(translations)} translations of {len(texts)} texts")
    for text, translation in zip(texts, translations, strict=True):
        if "\0" in translation or any("\ud800" <= character <= "\udfff" for character in translation):
            raise TranslationError(
                f"{translator.name} translated {text[:80]!r} into {translation[:80]!r}, which is not a valid text"
            )
    return translations
