"""Languages: tags, identification, and how stated and identified ones agree."""

from __future__ import annotations

import json
import logging
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recbole_xling.errors import ConfigError, DataError, MissingExtraError
from recbole_xling.language.identification import Identified, LanguageAgreement, LanguageIdentifier
from recbole_xling.language.tags import (
    asked_language,
    cased_tag,
    is_language,
    normalize_language,
    reader_among,
    stated_language,
    tag_among,
)

SENTENCES = {
    "ar": "كان سامي يريد المال فقط منذ البداية",
    "de": "Der Junge, der den Wind einfing und nach Hause brachte",
    "en": "The boy who harnessed the wind and brought it home",
    "es": "El niño que domó el viento y lo trajo a casa",
    "fr": "Le garçon qui dompta le vent et le ramena à la maison",
    "ja": "校長先生は生徒が廊下を散らかしたときはきびしく叱りました",
    "ko": "나는 이번 겨울에 처음으로 스키를 타러 갔다",
    "ru": "Мальчик, который обуздал ветер и принёс его домой",
    "th": "เด็กชายผู้ควบคุมสายลม",
    "zh": "我该去睡觉了，明天还要早起上班",
}
IDENTIFIER = LanguageIdentifier(SENTENCES)


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ("en EN eng en_US en-GB English english Englisch", "en"),
        ("de ger deu DE Deutsch German allemand de-1996", "de"),
        ("zh zh-CN zh_Hans cmn Chinese 中文", "zh"),
        ("zh-Hant zh_TW zh-HK", "zh-Hant"),
        ("pt pt_br Portuguese", "pt"),
        ("he iw", "he"),
        ("no nb nob Norwegian", "no"),
        ("sr sr-Cyrl", "sr"),
        ("sr-Latn sh", "sr-Latn"),
        ("ja JA jpn 日本語 ja-JP", "ja"),
        ("th Thai", "th"),
        ("uk Ukrainian", "uk"),
        ("tl TGL fil Filipino Tagalog", "tl"),
        ("und und-Latn UND", "und"),
    ],
)
def test_all_tags_and_names_of_a_language_become_one_tag(tags: str, expected: str) -> None:
    assert {normalize_language(tag) for tag in tags.split()} == {expected}


def test_codes_of_three_letters_are_languages_unless_capitals_may_mean_another_country() -> None:
    assert [normalize_language(tag) for tag in ("usa", "ind", "DEU", "ENG", "SWE", "JPN")] == [
        *("usa", "id", "de", "en", "sv", "ja")
    ]


def test_an_empty_tag_becomes_und() -> None:
    assert normalize_language("") == normalize_language(" \n") == "und"
    assert normalize_language("Portuguese (Brazil)") == "pt"


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ("English (India)|English (United States)|anglais (Inde)|BRITISH ENGLISH", "en"),
        ("Chinese (Simplified)|Simplified Chinese|Chinese - Simplified|Chinese, Mandarin", "zh"),
        ("Chinese (Traditional)|Traditional Chinese|Chinese - Traditional|Chinese, Traditional", "zh-Hant"),
        ("Chinese (Taiwan)|Chinese (Traditional, Hong Kong)|traditional  chinese", "zh-Hant"),
        ("Brazilian Portuguese|Portuguese (Brazil)|português|Portugais (Brésil)", "pt"),
        ("Serbian (Latin)|Serbian (Latin, Serbia)", "sr-Latn"),
        ("Uzbek (Cyrillic)", "uz-Cyrl"),
        ("Greek, Modern (1453-)|Modern Greek (1453-)|Greek", "el"),
        ("Greek, Ancient (to 1453)|Ancient Greek|Ancient Greek (to 1453)", "grc"),
        ("English, Old (ca. 450-1100)|Old English", "ang"),
        ("Spanish; Castilian|Castilian|Spanish, Castilian", "es"),
        ("Dutch; Flemish|Dutch/Flemish|Flemish", "nl"),
        ("Norwegian Nynorsk; Nynorsk, Norwegian|Norwegian, Nynorsk|Noors - Nynorsk", "nn"),
        ("Hindi|HINDI", "hi"),
    ],
)
def test_names_are_understood_as_standards_and_people_write_them(names: str, expected: str) -> None:
    assert {name: normalize_language(name) for name in names.split("|")} == dict.fromkeys(names.split("|"), expected)


@pytest.mark.parametrize(
    "name",
    [
        *("Indian English", "Scottish English", "Irish English", "Englishman", "polish remover", "English (polite)"),
        *("English/German", "German and English", "French, English", "Spanish, Arabic", "Arabic, Spanish", "English/"),
        *("en,de", "da,no", "ar,he", "en(de", "de;en", "(en,de)"),
        *("Finland", "Turkey", "Russia", "Germany", "India", "Chinese (Taiwan, Traditional)"),
        *("a" + " " * 10_000 + "b", "(" + "1" * 10_000, "English (" * 1_000),
    ],
)
def test_what_is_no_name_in_full_or_several_is_not_taken_for_a_language(name: str) -> None:
    assert stated_language(name) == "und"
    with pytest.raises(DataError, match="names no language"):
        normalize_language(name)


@pytest.mark.parametrize(
    ("tag", "advice"),
    [
        ("USA", "United States.*'usa' for Usarufa or 'en'"),
        ("CAN", "Canada.*'can' for Chambri or 'en'"),
        ("BRA", "Brazil.*'pt'"),
        ("GBR", "United Kingdom.*'en'"),
        ("IND", "India.*'id' for Indonesian or 'hi'"),
        ("ESP", "Spain.*did you mean 'es'"),
        ("JP", "Japan.*'ja'"),
        ("us", "United States.*'en'"),
        ("UK", "United Kingdom.*'uk' for Ukrainian or 'en'"),
        ("SE", "Sweden.*'se' for Northern Sami or 'sv'"),
        ("Englsh", "'und'"),
        ("x-klingon", "private"),
        ("en-", "BCP 47"),
        ("unknown", "BCP 47"),
        ("12", "BCP 47"),
        ("e", "BCP 47"),
        ("\x00en", "BCP 47"),
    ],
)
def test_a_tag_that_names_no_language_is_refused_with_advice(tag: str, advice: str) -> None:
    with pytest.raises(DataError, match=advice) as caught:
        normalize_language(tag)
    assert repr(tag) in str(caught.value)


@pytest.mark.parametrize("value", ["", "und", "xx", "zxx", "mul", "mis", "SE", "?", "en-", "\x00", "7", "x" * 99])
def test_a_stated_value_that_does_not_name_one_language_becomes_und(value: str) -> None:
    assert stated_language(value) == "und"


def test_an_option_that_names_no_language_is_refused_with_advice() -> None:
    assert asked_language("English") == "en"
    with pytest.raises(ConfigError, match=r"Sweden.*'se' for Northern Sami or 'sv'"):
        asked_language("SE")


@pytest.mark.parametrize("tag", ["en", "en-GB", "zh-Hant-TW", "sl-rozaj-1994", "en-a-bb-x-us", "es-419"])
def test_letter_case_of_a_tag_is_that_of_rfc_5646(tag: str) -> None:
    assert cased_tag(tag) == cased_tag(tag.upper()) == cased_tag(tag.lower()) == tag


@pytest.mark.parametrize("value", ["en", "en-US", "English", "EN_au", "en-gb", "en-GB"])
def test_readers_of_a_language_are_served_by_its_variant_if_there_is_nothing_nearer(value: str) -> None:
    assert reader_among(value, {"de", "en-GB", "und"}) == "en-GB"
    assert reader_among("en", {"en-GB", "en"}) == "en"
    assert [reader_among(other, {"de", "en-GB"}) for other in ("fr", "und", "enm", "nonsense")] == [
        *("fr", "und", "enm", "und")
    ]
    nearest = {"en-AU": "en-GB", "en-PR": "en-US", "English": "en-US"}  # by the tables of Unicode CLDR
    assert {reader: reader_among(reader, {"en-GB", "en-US"}) for reader in nearest} == nearest


@pytest.mark.parametrize(("value", "known", "tag"), [
    ("zh", {"zh-Hant"}, "zh"),
    ("zh-CN", {"zh-Hans", "zh-Hant"}, "zh-Hans"),
    ("zh-TW", {"zh-Hans", "zh-Hant"}, "zh-Hant"),
    ("sr-Cyrl", {"sr-Latn"}, "sr"),
])  # fmt: skip
def test_another_script_is_no_variant_that_serves(value: str, known: set[str], tag: str) -> None:
    assert reader_among(value, known) == tag


def test_capitals_that_may_be_a_market_are_no_language() -> None:
    with pytest.raises(DataError, match="Sweden"):
        cased_tag("SE")
    known = {"se", "uk", "en", "en-GB"}
    assert [tag_among(value, known) for value in ("SE", "UK", "EN", "uk", "EN-gb", "en-US")] == [
        *("und", "und", "en", "uk", "en-GB", "en")
    ]


@pytest.mark.parametrize(
    ("value", "known", "tag"),
    [
        ("iw-IL", {"iw"}, "iw"),
        ("he", {"iw", "en"}, "iw"),
        ("nb-NO", {"nb"}, "nb"),
        ("nb-NO", {"nb", "no"}, "no"),
        ("fil-PH", {"fil"}, "fil"),
        ("zh-TW", {"zh-Hant", "zh"}, "zh-Hant"),
        ("zh-Hant", {"zh-TW", "zh"}, "zh-TW"),
        ("English", {"eng"}, "eng"),
        ("en", {"en-GB", "en-US"}, "en"),
        ("de", {"fr", "und"}, "de"),
        ("?", {"und"}, "und"),
        ("zh_TW", {"zh-HK", "zh-TW"}, "zh-TW"),
    ],
)
def test_another_tag_of_the_same_language_is_the_known_one(value: str, known: set[str], tag: str) -> None:
    assert tag_among(value, known) == tag


@pytest.mark.parametrize("name", ["Nauruan", "North Ndebele", "Min Nan Chinese"])
def test_a_language_whose_code_reads_as_no_value_is_written_so_that_it_reads_back(name: str) -> None:
    tag = normalize_language(name)
    assert tag != "und" and stated_language(tag) == normalize_language(tag) == tag
    assert stated_language(tag.partition("-")[0]) == "und"
    assert asked_language(tag.partition("-")[0]) == tag.partition("-")[0] and asked_language(tag) == tag


@pytest.mark.parametrize(
    ("value", "tag"),
    [
        ("en,", "en"),
        ("(en)", "en"),
        ("German,", "de"),
        ("Lao (Laos)", "lo"),
        ("IN,", "und"),
        ("(UK)", "und"),
        ("all,", "und"),
        ("(na)", "und"),
    ],
)
def test_punctuation_around_a_code_or_name_makes_no_other_language(value: str, tag: str) -> None:
    assert stated_language(value) == tag


@settings(max_examples=200)
@given(tag=st.one_of(st.text(max_size=12), st.from_regex(r"[A-Za-z]{2,3}([-_][A-Za-z0-9]{2,8}){0,2}", fullmatch=True)))
def test_normalizing_a_tag_twice_changes_nothing(tag: str) -> None:
    try:
        normal = normalize_language(tag)
    except DataError:
        return
    assert is_language(normal)
    assert normalize_language(normal) == normal


@pytest.mark.parametrize("language", SENTENCES)
def test_a_sentence_is_identified_with_high_confidence(language: str) -> None:
    found = IDENTIFIER.identify(SENTENCES[language])
    assert found.language == language
    assert 0.8 < found.confidence <= 1


def test_the_identifier_answers_with_given_languages_only() -> None:
    identifier = LanguageIdentifier(["EN", "fre", "en-GB", "und", "mul"])
    assert identifier.languages == ("en", "fr")
    german = identifier.identify(SENTENCES["de"])
    assert german.language in ("en", "fr")
    assert 0.5 <= german.confidence < 1
    assert identifier.identify(SENTENCES["ru"]) == ("und", 0)


def test_two_identifiers_do_not_disturb_each_other_nor_the_library() -> None:
    import py3langid

    LanguageIdentifier(["en", "fr"])
    assert IDENTIFIER.identify(SENTENCES["de"]).language == "de"
    assert py3langid.classify(SENTENCES["de"])[0] == "de"


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("ネコ", "ja"),
        ("の", "ja"),
        ("집", "ko"),
        ("น้ำ", "th"),
        ("Я", "ru"),
        ("Яндекс 3000", "ru"),
    ],
)
def test_a_script_of_a_single_language_identifies_a_short_text(text: str, language: str) -> None:
    assert IDENTIFIER.identify(text) == (language, 1.0)


@pytest.mark.parametrize("text", ["", " ", "1984", "$9.99", "?!", "😀", "Up", "M", "水", "Ψυχή"])
def test_a_text_with_too_few_letters_is_undetermined(text: str) -> None:
    assert IDENTIFIER.identify(text) == ("und", 0)


def test_a_short_text_is_identified_where_its_script_leaves_one_language() -> None:
    assert LanguageIdentifier(["en", "ja"]).identify("Up") == ("en", 1.0)
    assert LanguageIdentifier(["en", "zh"]).identify("水") == ("zh", 1.0)
    assert LanguageIdentifier(["ru", "uk"]).identify("Я") == ("und", 0)


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("iPhone 15 Pro Max ケース", "ja"),
        ("Samsung Galaxy S23 Ultra 케이스", "ko"),
        ("Apple iPhone 15 Pro 256GB смартфон", "ru"),
        ("Learn Русский язык: a course for beginners in English", "en"),
    ],
)
def test_brand_names_in_another_script_do_not_mislead_the_identifier(text: str, language: str) -> None:
    assert IDENTIFIER.identify(text).language == language


def test_confidence_falls_with_a_mixture_of_scripts() -> None:
    assert 0.5 < IDENTIFIER.identify("Война и мир Ψυχή").confidence < 1


def test_variants_of_one_language_are_told_apart_by_script() -> None:
    chinese = LanguageIdentifier(["zh-TW", "zh-CN", "ja"])
    assert chinese.identify("我們試試看這個電視節目").language == "zh-Hant"
    assert chinese.identify("我们试试看这个电视节目").language == "zh"
    serbian = LanguageIdentifier(["sr", "sr-Latn", "en"])
    assert serbian.identify("Дечак који је обуздао ветар").language == "sr"
    assert serbian.identify("Dečak koji je obuzdao vetar i doneo ga kući").language == "sr-Latn"
    assert LanguageIdentifier(["sr", "en"]).identify("Dečak koji je obuzdao vetar i doneo ga kući").language == "sr"


def test_a_language_unknown_to_the_model_is_found_by_script_and_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        identifier = LanguageIdentifier(["en", "dv", "mos"])
    assert [record.getMessage() for record in caplog.records] == [
        "py3langid does not know dv, mos: identified by script alone"
    ]
    assert identifier.identify("ދިވެހި") == ("dv", 1.0)
    assert identifier.identify(SENTENCES["en"]).language == "en"
    assert LanguageIdentifier(["mos", "bm"]).identify("Wind a roogo") == ("und", 0)


def test_identify_batch_equals_identify_text_by_text() -> None:
    texts = [*SENTENCES.values(), "", "Up", SENTENCES["de"]]
    assert IDENTIFIER.identify_batch(iter(texts)) == [IDENTIFIER.identify(text) for text in texts]


@settings(max_examples=200)
@given(text=st.text(st.characters(), max_size=40))
def test_any_text_gets_a_known_language_or_und(text: str) -> None:
    language, confidence = IDENTIFIER.identify(text)
    assert 0 <= confidence <= 1
    assert language in IDENTIFIER.languages if confidence else language == "und"


def test_an_identifier_without_valid_languages_is_refused() -> None:
    with pytest.raises(ConfigError, match="dataset"):
        LanguageIdentifier(["und", ""])
    with pytest.raises(DataError, match="Japan"):
        LanguageIdentifier(["en", "JP"])


def test_without_py3langid_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "py3langid.langid", None)
    with pytest.raises(MissingExtraError, match=r"py3langid.*recbole-xling\[text\]"):
        LanguageIdentifier(["en", "de"])


def test_agreement_counts_and_shows_what_differs() -> None:
    agreement = LanguageAgreement(min_confidence=0.8, n_examples=2)
    for number in range(3):
        agreement.add(f"Titel {number}", "en", Identified("de", 0.9))
    agreement.add("x" * 500, "fr", Identified("en", 0.8))
    agreement.add("same", "en", Identified("en", 1.0))
    agreement.add("variant", "zh-Hant", Identified("zh", 1.0))
    agreement.add("unsure", "en", Identified("de", 0.79))
    agreement.add("not stated", "und", Identified("de", 1.0))
    assert agreement.compared == 6
    assert agreement.disagreement == pytest.approx(4 / 6)
    summary = json.loads(json.dumps(agreement.summary()))
    assert summary["texts"] == 8
    assert summary["matrix"]["en"] == {"de": 3, "en": 1, "und": 1}
    assert [(row["stated"], row["identified"], row["count"]) for row in summary["examples"]] == [
        ("en", "de", 3),
        ("fr", "en", 1),
    ]
    assert summary["examples"][0]["texts"] == ["Titel 0", "Titel 1"]
    assert len(summary["examples"][1]["texts"][0]) == 80


def test_agreement_without_texts_has_disagreement_zero() -> None:
    assert LanguageAgreement().disagreement == 0
