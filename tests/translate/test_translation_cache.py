"""A text is translated once, whatever happens to the process or the files in between."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
from pathlib import Path
from random import Random

import pytest

import recbole_xling.errors
from recbole_xling.errors import TranslationError, XlingError
from recbole_xling.translate import TranslationCache

TEXTS = [f"title {number}" for number in range(10)]
EXPECTED = {text: f"{text}>es" for text in TEXTS}


@pytest.fixture
def cache(tmp_path: Path) -> TranslationCache:
    return TranslationCache(tmp_path / "cache")


def asked(translator) -> list[str]:
    return [text for text, _, _ in translator.asked]


def stored_files(cache: TranslationCache) -> list[Path]:
    return sorted(cache.root.rglob("*.jsonl"))


def test_the_cache_has_each_text_translated_once(cache, counting_translator) -> None:
    first, second = counting_translator(), counting_translator()
    assert cache.translate(first, [*TEXTS, *TEXTS], "de", "es", chunk_size=3) == EXPECTED
    assert first.asked == [(text, "de", "es") for text in TEXTS]
    assert cache.translate(second, [*TEXTS[5:], "new"], "de", "es") == {
        **{text: EXPECTED[text] for text in TEXTS[5:]},
        "new": "new>es",
    }
    assert asked(second) == ["new"]
    assert cache.translate(second, [], "de", "es") == {}


def test_the_cache_keeps_translators_and_languages_apart(cache, counting_translator) -> None:
    for name, pair in [("a", ("de", "es")), ("a", ("de", "fr")), ("a", ("en", "es")), ("b", ("de", "es"))]:
        translator = counting_translator(name)
        assert cache.translate(translator, ["x"], *pair) == {"x": f"x>{pair[1]}"}
        assert asked(translator) == ["x"]


@pytest.mark.parametrize("text", ["two\nlines", "\u2028 \x85", '"{\\', "七人の侍", " "])
def test_the_cache_returns_any_text_unaltered(cache, counting_translator, text: str) -> None:
    for _ in range(2):
        translator = counting_translator()
        assert cache.translate(translator, [text, "x"], "de", "es") == {text: f"{text}>es", "x": "x>es"}
    assert translator.asked == []


def test_a_failing_translator_loses_the_chunk_it_works_on_only(cache, counting_translator) -> None:
    def fail(texts):
        if "title 6" in texts:
            raise TranslationError("out of memory")

    with pytest.raises(TranslationError, match="out of memory"):
        cache.translate(counting_translator(hook=fail), TEXTS, "de", "es", chunk_size=3)
    resumed = counting_translator()
    assert cache.translate(resumed, TEXTS, "de", "es") == EXPECTED
    assert asked(resumed) == TEXTS[6:]


_KILLED = """
import os, signal, sys, types
package = types.ModuleType("recbole_xling")
package.__path__ = [sys.argv[1]]
sys.modules["recbole_xling"] = package
from recbole_xling.translate.cache import TranslationCache

class Killed:
    name = "fake"
    identity = {"backend": "counting", "name": "fake"}

    def translate(self, texts, source, target):
        if "title 4" in texts:
            os.kill(os.getpid(), signal.SIGKILL)
        return [f"{text}>{target}" for text in texts]

TranslationCache(sys.argv[2]).translate(Killed(), [f"title {n}" for n in range(10)], "de", "es", chunk_size=2)
"""


def test_a_killed_process_loses_the_chunk_it_works_on_only(cache, counting_translator) -> None:
    package = str(Path(recbole_xling.errors.__file__).parent)
    ended = subprocess.run([sys.executable, "-c", _KILLED, package, str(cache.root)], capture_output=True, timeout=60)
    assert (ended.returncode, ended.stderr) == (-signal.SIGKILL, b"")
    resumed = counting_translator()
    assert cache.translate(resumed, TEXTS, "de", "es") == EXPECTED
    assert asked(resumed) == TEXTS[4:]


@pytest.mark.parametrize("cut", [1, 5, 30])
def test_an_incomplete_last_line_of_the_cache_is_translated_again(cache, counting_translator, caplog, cut: int) -> None:
    cache.translate(counting_translator(), TEXTS, "de", "es")
    (file,) = stored_files(cache)
    os.truncate(file, file.stat().st_size - cut)
    resumed = counting_translator()
    assert cache.translate(resumed, TEXTS, "de", "es") == EXPECTED
    if cut == 1:  # the line break only
        assert asked(resumed) == []
    else:
        assert asked(resumed) == TEXTS[-1:]
        assert f"{file}: 1 incomplete or damaged lines" in caplog.text


DAMAGED = {
    "empty": b"",
    "zeros": b"\0" * 40,
    "no UTF-8": b"\xff\xfe{",
    "list": b"[1]",
    "number": b"1",
    "no translation": b'{"text": "x"}',
    "no text": b'{"text": 1, "translation": ""}',
    "nested": b"[" * 99_999,
}


@pytest.mark.parametrize("line", DAMAGED.values(), ids=DAMAGED.keys())
def test_a_damaged_line_of_the_cache_is_translated_again(cache, counting_translator, caplog, line: bytes) -> None:
    cache.translate(counting_translator(), TEXTS, "de", "es")
    (file,) = stored_files(cache)
    lines = file.read_bytes().split(b"\n")
    file.write_bytes(b"\n".join([*lines[:3], line, *lines[4:]]))
    resumed = counting_translator()
    assert cache.translate(resumed, TEXTS, "de", "es") == EXPECTED
    assert asked(resumed) == ["title 3"]
    assert "1 incomplete or damaged lines" in caplog.text


def test_a_flipped_bit_never_gives_a_wrong_translation(cache, counting_translator, caplog) -> None:
    cache.translate(counting_translator(), TEXTS, "de", "es")
    (file,) = stored_files(cache)
    whole, draw, repaired = file.read_bytes(), Random(0), 0
    for _ in range(300):
        damaged = bytearray(whole)
        damaged[draw.randrange(len(damaged))] ^= 1 << draw.randrange(8)
        file.write_bytes(damaged)
        again = counting_translator()
        assert cache.translate(again, TEXTS, "de", "es") == EXPECTED
        repaired += bool(again.asked)
        for other in set(stored_files(cache)) - {file}:
            other.unlink()
    assert repaired > 250


def test_lines_of_older_releases_have_no_checksum(cache, counting_translator) -> None:
    cache.translate(counting_translator(), ["a"], "de", "es")
    stored_files(cache)[0].write_text('{"text": "a", "translation": "b"}\n')
    again = counting_translator()
    assert cache.translate(again, ["a"], "de", "es") == {"a": "b"}
    assert again.asked == []


def test_two_processes_share_the_translation_cache_unharmed(cache, counting_translator, caplog) -> None:
    other = counting_translator()

    def other_process(texts):
        TranslationCache(cache.root).translate(other, texts, "de", "es", chunk_size=1)

    with caplog.at_level(logging.WARNING):
        made = cache.translate(counting_translator(hook=other_process), TEXTS, "de", "es", chunk_size=4)
        late = counting_translator()
        assert made == cache.translate(late, TEXTS, "de", "es") == EXPECTED
    assert asked(other) == TEXTS and late.asked == [] and not caplog.text
    assert len(stored_files(cache)) == 4


def test_a_cache_folder_that_cannot_be_written_is_refused_before_anything_is_translated(
    tmp_path, counting_translator
) -> None:
    (tmp_path / "cache").write_text("a file")
    translator = counting_translator()
    with pytest.raises(XlingError, match="cannot write the translation cache"):
        TranslationCache(tmp_path / "cache").translate(translator, TEXTS, "de", "es")
    assert translator.asked == []


def test_a_full_disk_keeps_the_translations_stored_so_far(cache, counting_translator, monkeypatch) -> None:
    written: list[int] = []

    def fail_later(descriptor: int) -> None:
        written.append(descriptor)
        if len(written) > 2:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr("recbole_xling.translate.cache.fsync", fail_later)
    with pytest.raises(XlingError, match=r"No space left on device.*what is stored so far is kept"):
        cache.translate(counting_translator(), TEXTS, "de", "es", chunk_size=3)
    monkeypatch.undo()
    resumed = counting_translator()
    assert cache.translate(resumed, TEXTS, "de", "es") == EXPECTED
    assert set(asked(resumed)) <= set(TEXTS[6:])


@pytest.mark.parametrize("spoilt", ["a\0b", "\ud800"])
def test_an_invalid_translation_is_refused_and_not_stored(cache, counting_translator, spoilt: str) -> None:
    translator = counting_translator()
    translator.spoil["title 3"] = spoilt
    with pytest.raises(TranslationError, match=r"'title 3'.*not a valid text"):
        cache.translate(translator, TEXTS, "de", "es")
    translator.translate = lambda texts, source, target: ["one"]
    with pytest.raises(TranslationError, match="returned 1 translations of 10 texts"):
        cache.translate(translator, TEXTS, "de", "es")
    assert stored_files(cache) == []
