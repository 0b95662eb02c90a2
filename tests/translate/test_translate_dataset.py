"""Translations are added to a dataset's item texts, and nothing that was there is lost."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import pytest

from recbole_xling.cli import translate as command_line
from recbole_xling.errors import ConfigError, DataError, TranslationError
from recbole_xling.text.record import ItemText
from recbole_xling.text.store import ItemTextStore, write_itemtext
from recbole_xling.translate import translate_dataset
from recbole_xling.utils.staging import staged

TEXTS = [
    ItemText("1", "de", {"title": "Der Pate", "year": "1972", "brand": "Nord"}, "display"),
    ItemText("2", "en", {"title": "Heat"}, "display"),
    ItemText("2", "es-MX", {"title": "Fuego"}, "parallel"),
    ItemText("3", "de", {"title": "Der Pate", "genres": "Drama"}, "display"),
    ItemText("3", "es", {"title": "El jefe"}, "translation:other"),
    ItemText("4", "de", {"title": "1984"}, "display"),
    ItemText("5", "und", {"title": "???"}, "display"),
    ItemText("6", "de", {"title": "Heimat"}, "parallel"),
]
TO_SPANISH = [
    ItemText("1", "es", {"title": "Der Pate>es", "year": "1972", "brand": "Nord"}, "translation:fake"),
    ItemText("3", "es", {"title": "Der Pate>es", "genres": "Drama>es"}, "translation:fake"),
    ItemText("4", "es", {"title": "1984"}, "translation:fake"),
]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "d").mkdir()
    write_itemtext(tmp_path / "d" / "d.itemtext.jsonl", TEXTS)
    return tmp_path / "d" / "d.itemtext.jsonl"


@pytest.fixture
def fill(path: Path, tmp_path: Path):
    """Translate the dataset of these tests."""

    def fill(translator, *targets: str, **options):
        return translate_dataset(path.parent, "d", translator, targets, cache_dir=tmp_path / "cache", **options)

    return fill


def added(path: Path, before: bytes) -> list[ItemText]:
    """Return the texts behind what was there, which has to be there still."""
    content = path.read_bytes()
    assert content.startswith(before)
    ItemTextStore.load(path)
    records = [json.loads(line) for line in content[len(before) :].decode().splitlines()]
    return [ItemText(*(record[key] for key in ("item_id", "language", "fields", "source"))) for record in records]


def test_translation_adds_the_texts_that_items_lack(path, fill, counting_translator, caplog) -> None:
    before = path.read_bytes()
    translator = counting_translator()
    report = fill(translator, "es")
    assert added(path, before) == TO_SPANISH
    assert (report.path, report.added, report.present, report.without_source) == (path, {"es": 3}, 1, 2)
    assert translator.asked == [("Der Pate", "de", "es"), ("Drama", "de", "es")]
    assert "2 items have no text in a known language" in caplog.text
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_existing_translations_are_not_made_again(path, fill, counting_translator) -> None:
    fill(counting_translator(), "es")
    before, state = path.read_bytes(), path.stat()
    translator = counting_translator()
    assert fill(translator, "es", "es").added == {}
    assert translator.asked == [] and path.read_bytes() == before
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (state.st_ino, state.st_mtime_ns)
    assert fill(counting_translator("second"), "es").added == {"es": 3}


def test_texts_by_another_system_of_the_same_name_are_told(
    path, fill, counting_translator, caplog, monkeypatch
) -> None:
    fill(counting_translator(), "es")
    fill(counting_translator(), "es")
    assert "called 'fake'" not in caplog.text
    other = counting_translator()
    monkeypatch.setattr(type(other), "identity", {"backend": "another"})
    assert fill(other, "es").added == {}
    assert "texts by a system called 'fake' are there, but this one has translated nothing yet" in caplog.text


def test_an_empty_text_is_none(path, fill, counting_translator) -> None:
    texts = [
        ItemText("1", "de", {"title": "Heat"}, "display"),
        ItemText("1", "es", {"title": " "}, "parallel"),
        ItemText("2", "de", {"title": ""}, "display"),
    ]
    write_itemtext(path, texts)
    before = path.read_bytes()
    report = fill(counting_translator(), "es")
    assert added(path, before) == [ItemText("1", "es", {"title": "Heat>es"}, "translation:fake")]
    assert (report.present, report.without_source) == (0, 1)


def test_other_tags_of_the_same_language_are_texts_in_it(path, fill, counting_translator) -> None:
    texts = [ItemText("1", "en", {"title": "Heat"}, "display"), ItemText("1", "nb", {"title": "Hete"}, "parallel")]
    write_itemtext(path, texts)
    before = path.read_bytes()
    assert fill(counting_translator(), "nb").present == 1
    translator = counting_translator()
    fill(translator, "de", source_language="no")
    assert translator.asked == [("Hete", "no", "de")]
    assert added(path, before) == [ItemText("1", "de", {"title": "Hete>de"}, "translation:fake")]


def test_translation_into_several_languages_adds_what_each_item_lacks(path, fill, counting_translator) -> None:
    before = path.read_bytes()
    assert fill(counting_translator(), "en", "de").added == {"en": 3, "de": 1}
    texts = {(text.item_id, text.language): text.fields["title"] for text in added(path, before)}
    assert texts == {
        ("1", "en"): "Der Pate>en",
        ("2", "de"): "Heat>de",
        ("3", "en"): "Der Pate>en",
        ("4", "en"): "1984",
    }


def test_only_the_named_fields_are_translated(path, fill, counting_translator) -> None:
    before = path.read_bytes()
    fill(counting_translator(), "es", fields=["brand", "genres"])
    assert [dict(text.fields) for text in added(path, before)] == [
        {"title": "Der Pate", "year": "1972", "brand": "Nord>es"},
        {"title": "Der Pate", "genres": "Drama>es"},
        {"title": "1984"},
    ]
    with pytest.raises(ConfigError, match=r"unknown text field 'tittle'\. Did you mean 'title'"):
        fill(counting_translator(), "es", fields=["tittle"])


def test_source_language_chooses_the_texts_to_translate_from(path, fill, counting_translator, caplog) -> None:
    before = path.read_bytes()
    report = fill(counting_translator(), "fr", source_language="es")
    assert added(path, before) == [ItemText("2", "fr", {"title": "Fuego>fr"}, "translation:fake")]
    assert report.without_source == 5  # item 3 has a translation only
    assert "5 items have no text in es to translate from" in caplog.text


def test_languages_may_be_spelled_in_many_ways(path, fill, counting_translator) -> None:
    translator = counting_translator()
    report = fill(translator, "iw", "nb", "zh-TW", "zh-Hant", "pt_BR", source_language="EN")
    assert report.added == {"he": 1, "no": 1, "zh-Hant": 1, "pt": 1}
    assert {source for _, source, _ in translator.asked} == {"en"}


def test_the_exact_source_language_goes_before_its_variants(path, fill, counting_translator) -> None:
    texts = [("zh-Hant", "display"), ("zh", "parallel")]
    write_itemtext(path, [ItemText("1", tag, {"title": tag}, source) for tag, source in texts])
    translator = counting_translator()
    fill(translator, "de", source_language="zh")
    assert translator.asked == [("zh", "zh", "de")]


def test_back_translation_adds_texts_in_the_source_language_only(path, fill, counting_translator) -> None:
    before = path.read_bytes()
    assert fill(counting_translator(), "en", "fr", back=True).added == {"fr": 4, "en": 3}
    made = added(path, before)
    assert made[0] == ItemText(
        "1", "de", {"title": "Der Pate>en>de", "year": "1972", "brand": "Nord"}, "translation:fake:back:en"
    )
    assert [(text.item_id, text.language, text.source[-2:]) for text in made] == [
        ("1", "de", "en"), ("1", "de", "fr"), ("2", "en", "fr"), ("3", "de", "en"), ("3", "de", "fr"),
        ("4", "de", "en"), ("4", "de", "fr"),
    ]  # fmt: skip
    store = ItemTextStore.load(path)
    assert store.display("1") == store.text("1", "de") == TEXTS[0]
    assert fill(counting_translator(), "en", "fr", back=True).added == {}


def test_back_translation_may_use_the_same_pair_there_and_back(path, fill, counting_translator) -> None:
    before = path.read_bytes()
    fill(counting_translator(), "en", "de", back=True)
    titles = [text.fields["title"] for text in added(path, before)]
    assert titles == ["Der Pate>en>de", "Heat>de>en", "Der Pate>en>de", "1984"]


def test_a_text_translated_back_has_its_originals_tag_whatever_translators_call_the_language(
    path, fill, counting_translator
) -> None:
    write_itemtext(path, [ItemText("1", "nb", {"title": "Hete"}, "display")])
    before = path.read_bytes()
    fill(counting_translator(), "en", source_language="no", back=True)
    assert added(path, before) == [ItemText("1", "nb", {"title": "Hete>en>no"}, "translation:fake:back:en")]
    assert fill(counting_translator(), "en", source_language="no", back=True).present == 1


def test_an_empty_text_by_the_same_system_is_not_translated_a_second_time(path, fill, counting_translator) -> None:
    write_itemtext(
        path,
        [
            ItemText("1", "de", {"title": "Heat"}, "display"),
            ItemText("1", "es", {"title": ""}, "translation:fake"),
        ],
    )
    before = path.read_bytes()
    assert fill(counting_translator(), "es").present == 1
    assert added(path, before) == []


def test_adding_translations_keeps_further_keys_and_completes_the_last_line(path, fill, counting_translator) -> None:
    line = '{"item_id": "9", "language": "de",  "fields": {"title": "Ab"}, "source": "display", "note": 1}'
    path.write_bytes(b"\xef\xbb\xbf\r\n\n" + line.encode())
    before = path.read_bytes()
    fill(counting_translator(), "es")
    assert added(path, before + b"\n") == [ItemText("9", "es", {"title": "Ab>es"}, "translation:fake")]


def test_an_empty_translation_leaves_the_original_field(path, fill, counting_translator, caplog) -> None:
    before = path.read_bytes()
    translator = counting_translator()
    translator.spoil["Drama"] = " "
    fill(translator, "es")
    assert added(path, before)[1].fields == {"title": "Der Pate>es", "genres": "Drama"}
    assert "fake left 1 texts empty ('Drama')" in caplog.text


def test_a_failed_translation_leaves_the_file_and_a_second_run_goes_on(path, fill, counting_translator) -> None:
    before = path.read_bytes()

    def fail(texts):
        if "Heat" in texts:
            raise TranslationError("out of memory")

    with pytest.raises(TranslationError, match="out of memory"):
        fill(counting_translator(hook=fail), "fr")
    assert path.read_bytes() == before
    resumed = counting_translator()
    assert fill(resumed, "fr").added == {"fr": 4}
    assert resumed.asked == [("Heat", "en", "fr")]


def test_unknown_languages_are_refused_before_anything_is_translated(path, fill, counting_translator) -> None:
    translator = counting_translator()
    translator.unknown = {"en"}
    with pytest.raises(TranslationError, match="unknown language"):
        fill(translator, "es", "fr")
    assert translator.asked == []
    for languages, options in [(["no language"], {}), (["es"], {"source_language": "d"})]:
        with pytest.raises(ConfigError, match="names no language"):
            fill(translator, *languages, **options)


def test_a_text_file_that_changes_meanwhile_is_read_again(path, fill, counting_translator) -> None:
    def change(texts):
        if "Neu" not in texts:
            write_itemtext(path, [*TEXTS, ItemText("7", "de", {"title": "Neu"}, "display")])

    translator = counting_translator(hook=change)
    assert fill(translator, "es").added == {"es": 4}
    assert translator.asked == [("Der Pate", "de", "es"), ("Drama", "de", "es"), ("Neu", "de", "es")]
    store = ItemTextStore.load(path)
    assert store.display("7") is not None
    assert store.text("7", "es") == ItemText("7", "es", {"title": "Neu>es"}, "translation:fake")


def test_a_dataset_that_another_process_writes_to_is_left_alone(path, fill, counting_translator) -> None:
    before = path.read_bytes()
    with (
        staged(path.parent, [path.name]),
        pytest.raises(DataError, match="another process is writing"),
    ):
        fill(counting_translator(), "es")
    assert path.read_bytes() == before
    resumed = counting_translator()
    assert fill(resumed, "es").added == {"es": 3}
    assert resumed.asked == []


def test_a_dataset_without_item_text_is_refused(tmp_path, counting_translator) -> None:
    with pytest.raises(DataError, match=r"item text .*d\.itemtext\.jsonl is missing"):
        translate_dataset(tmp_path, "d", counting_translator(), ["es"])


# ---- the command line -----------------------------------------------------------------------------------------


UPPER = "import sys\nfor line in sys.stdin.buffer: sys.stdout.buffer.write(line.decode().upper().encode())"


@pytest.fixture
def typed(path: Path, tmp_path: Path):
    """Run the command with some words."""

    def run(*words: str) -> str:
        parser = argparse.ArgumentParser(exit_on_error=False)
        command_line.add_arguments(parser)
        places = [f"--data_path={tmp_path}", f"--cache_dir={tmp_path / 'cache'}"]
        return command_line.run(parser.parse_args(["d", *places, *words]))

    return run


def test_the_translate_command_translates_by_a_program_and_reports(typed, path) -> None:
    command = [sys.executable, "-c", UPPER, "{source}", "{target}"]
    before = path.read_bytes()
    words = ["--to", "es, fr", "--system=command", f"--option=command={command}", "--option=name=upper"]
    assert typed(*words, "--from=de", "--fields=title") == f"{path}: texts added: es 4, fr 4; there already: 0"
    assert added(path, before)[0] == ItemText(
        "1", "es", {"title": "DER PATE", "year": "1972", "brand": "Nord"}, "translation:upper"
    )
    assert typed(*words, "--from=de") == f"{path}: texts added: none; there already: 8"
    assert "added: en 3;" in typed("--to=en", "--back", *words[2:])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--to=,", "--system=command", "--option=command=cat"], "names nothing"),
        (["--to=es", "--system=command", "--option=command"], "written key=value"),
        (["--to=es", "--system=command", "--option=timeout=1", "--option=timeout=2"], "given twice"),
    ],
)
def test_malformed_options_of_the_translate_command_are_refused(typed, words: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        typed(*words)
