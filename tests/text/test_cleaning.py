"""Cleaning: what is removed, what must stay, and that cleaning a clean text changes nothing."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recbole_xling.errors import ConfigError
from recbole_xling.text.cleaning import DEFAULT_STEPS, STEPS, TextCleaner
from recbole_xling.text.record import ItemText, check_text

REAL = """
M*A*S*H | I ♥ Huckabees | <3 | 3 < 4 | x > y | a <b and c> d | <Untitled> | Tom & Jerry | AT&T | Q&A | R&B; Soul
B&notes | C++ | $9.99 | $ | ? | !!! | if.... | ...And Justice for All | What the #$*! Do We Know!? | F**k | ★★★★★
[REC] | (500) Days of Summer | ¿Qué? | Amélie | naïve | Łódź | 8½ | Nike™ | E=mc² | H₂O | 1º de Mayo | L´amour | A—Z
’Tis “it” – | «Война и мир» | Э-э-э | Unknown | Untitled | NA | None of Us | No Country for Old Men | C:\\users\\me
AC/DC | 50% off | - The Best - | Wall·E | 你好，世界！ | 『七人の侍』 | 速度与激情：特别行动 | ㅋㅋㅋ | 한국 영화 | น้ำตก
ຄຳ | և | मेरा नाम | هذا فيلم | می\u200cخواهم | ന്\u200d | क्\u200dष | 👨\u200d👩\u200d👧 | ❤\ufe0f\u200d🔥 | 🇩🇪 | 👍🏽
"""
TITLES = [title.strip(" ") for line in REAL.strip().split("\n") for title in line.split(" | ")]

DIRTY = {
    "Tom &amp; Jerry": "Tom & Jerry",
    "Tom &amp;amp;amp; Jerry": "Tom & Jerry",
    "&lt;b&gt;Bold&lt;/b&gt; move": "Bold move",
    "one<br/>two<p class='x'>three</p>": "one two three",
    "H<sub>2</sub>O": "H2O",
    "<style>p {a: b}</style>seen<script>if (a < b) c()</script><!-- a > b -->": "seen",
    "<![CDATA[Titel]]>": "Titel",
    "&#x1F600; &eacute; &unknown;": "😀 é &unknown;",
    "CafÃ© â€œNoirâ€\x9d": "Café “Noir”",
    "&Atilde;&copy;t&Atilde;&copy;": "été",
    "ＡＢＣ　１２": "ABC 12",
    "ｶﾞﾝﾀﾞﾑ Ⅲ ﬁlm": "ガンダム III film",
    "a\x00b\ud800c\u200bd\u202ee\ufeff\xad": "abcde",
    "x\u200cy\u200dz": "xyz",
    "[[ASIN:B00005JKQV The Film]] and [[Berlin|the city]][[VIDEOID:ab12]]": "The Film and the city",
    "a& nbsp;b &nbsp c": "a b c",
    r"Caf\u00e9 \ud83d\ude00\u200b": "Café 😀",
    "They said that... [+1234 chars]": "They said that",
    "Wow!!!!!!! Oh......": "Wow!!! Oh...",
    " a\t\n\u2028 b\xa0": "a b",
}  # fmt: skip
EMPTY = [
    "No overview found.",
    "N/A",
    "none",
    "(None)",
    "-",
    " -- ",
    "--------",
    "NaN",
    "[null]",
    "",
    " \t",
    "Keine Angabe.",
    "暂无",
]

FRAGMENTS = st.sampled_from(
    [
        *("&", "amp;", "&amp;", "&lt;", "#38;", "&#", ";", "nbsp", "<", ">", "/", "<br>", "<!--", "-->", "script", "b"),
        *(
            "<![CDATA[",
            "[[",
            "]]",
            "|",
            "\\u",
            "0041",
            "d83d",
            "de00",
            "Ã",
            "©",
            "â€",
            "\x9d",
            "\xa0",
            "\u3000",
            "\n",
            " ",
        ),
        *("\u200d", "\u200c", "\u0301", "\ud800", "\0", "e", "क", "्", "👨", "½", "´", "ﷺ", "ㅋ", "ᄀ", "ำ", "！", "1"),
        *("...", "!", "none", "-", "n/a", "("),
    ]
)
ANY_TEXT = st.one_of(
    st.text(st.characters(), max_size=60),
    st.lists(st.one_of(FRAGMENTS, st.characters()), max_size=25).map("".join),
)


@pytest.mark.parametrize("title", TITLES)
def test_cleaning_leaves_real_titles_as_they_are(title: str) -> None:
    cleaner = TextCleaner()
    assert cleaner(title) == title
    assert not cleaner.changes


@pytest.mark.parametrize(("dirty", "expected"), DIRTY.items())
def test_cleaning_removes_markup_mojibake_and_odd_characters(dirty: str, expected: str) -> None:
    assert TextCleaner()(dirty) == expected


@pytest.mark.parametrize("text", EMPTY)
def test_cleaning_empties_a_placeholder_and_keeps_it_inside_a_text(text: str) -> None:
    assert TextCleaner()(text) == ""
    assert TextCleaner()(f"{text} Xylophone").endswith("Xylophone")


@settings(max_examples=400)
@given(text=ANY_TEXT, max_length=st.sampled_from([None, 1, 2, 7, 1000]))
def test_cleaning_twice_changes_nothing_and_every_result_can_be_stored(text: str, max_length: int | None) -> None:
    clean = TextCleaner(max_length=max_length)(text)
    again = TextCleaner(max_length=max_length)
    assert again(clean) == clean
    assert not again.changes
    check_text(ItemText("1", "und", {"title": clean}, "display"))
    assert max_length is None or len(clean) <= max_length
    assert unicodedata.is_normalized("NFC", clean)


@settings(max_examples=200)
@given(text=ANY_TEXT, steps=st.sets(st.sampled_from(DEFAULT_STEPS)))
def test_any_choice_of_steps_changes_nothing_the_second_time(text: str, steps: set[str]) -> None:
    clean = TextCleaner(sorted(steps))(text)
    assert TextCleaner(sorted(steps, reverse=True))(clean) == clean


def test_the_cleaner_takes_only_the_chosen_steps_in_their_own_order() -> None:
    dirty = "&lt;i&gt;N/A&lt;/i&gt;\x00 "
    assert TextCleaner(["whitespace", "control"])(dirty) == "&lt;i&gt;N/A&lt;/i&gt;"
    assert TextCleaner(["placeholder", "html"])(dirty) == "N/A\x00 "
    assert TextCleaner(["placeholder", "control", "html"])(dirty) == ""
    assert TextCleaner([])(dirty) == dirty


def test_each_step_counts_the_texts_it_changed() -> None:
    cleaner = TextCleaner(max_length=20)
    for text in ("clean", "a &amp;amp;  b", "<b>x</b>", "none", "word " * 10):
        cleaner(text)
    assert cleaner.changes == {"html": 2, "whitespace": 2, "placeholder": 1, "length": 1}


@pytest.mark.parametrize(
    ("text", "max_length", "expected"),
    [
        ("one two three", 13, "one two three"),
        ("one two three", 12, "one two"),
        ("one two three", 7, "one two"),
        ("a Donaudampfschifffahrtsgesellschaft", 12, "a Donaudampf"),
        ("七人の侍七人の侍", 5, "七人の侍七"),
        ("xe\u0308\u0323e\u0308\u0323", 4, "xẹ̈"),
        ("ab👨\u200d👩\u200d👧", 5, "ab"),
        ("🇩🇪🇫🇷", 3, "🇩🇪"),
        ("नमस्ते", 3, "नम"),
        ("👨\u200d👩\u200d👧", 2, ""),
    ],
)
def test_cutting_to_max_length_keeps_words_and_graphemes_whole(text: str, max_length: int, expected: str) -> None:
    assert TextCleaner(max_length=max_length)(text) == unicodedata.normalize("NFC", expected)


@pytest.mark.parametrize("nested", ["&amp;", "<script>", "<!--", "<a ", "[[", "<a =", "&#38;", "a\u0301", "Ã"])
def test_long_unclosed_markup_is_read_through(nested: str) -> None:
    clean = TextCleaner()(nested * 10_000)
    assert TextCleaner()(clean) == clean


def test_an_unknown_cleaning_step_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(ConfigError, match=r"unknown cleaning step 'htlm'\. Did you mean 'html'") as caught:
        TextCleaner(["htlm"])
    assert all(step in str(caught.value) for step in STEPS)
    with pytest.raises(ConfigError, match="max_length=0"):
        TextCleaner(max_length=0)


@pytest.mark.parametrize(
    ("damaged", "repaired"),
    [
        ("Ã?Â¼ber den Wolken", "über den Wolken"),
        ("Das Parfum. Die Geschichte eines MÃ?Â¶rders.", "Das Parfum. Die Geschichte eines Mörders."),
        ("FranÃ?Â§ois, ediciÃ?Â³n, aÃ?Â±o, crÃ?Â©Ã?Â©", "François, edición, año, créé"),
        ("Ã?Â¿QuÃ?Â© mÃ?Â¡s? Ã?Â¡Viva! Ã?Â¡rbol", "¿Qué más? ¡Viva! árbol"),
        ("CafÃ© und Ã?Â¤hnliches", "Café und ähnliches"),
        ("L'Ã©tÃ© Ã?Â\xa0 la mer", "L'été à la mer"),
    ],
)
def test_damaged_characters_that_tell_their_letter_are_repaired(damaged: str, repaired: str) -> None:
    cleaner = TextCleaner()
    assert cleaner(damaged) == repaired
    assert cleaner.figures() == {"changed": {"mojibake": 1}, "broken": 0}


@pytest.mark.parametrize(
    "damaged",
    [
        "Die StraÃ?Â?e",
        "L'Ã?Â?tranger",
        "Las cenizas de Ã?ngela",
        "GrüÃ?e",
        "Mï¿½ller",
        "M\ufffdller",
        "â€?Wortâ€? und mehr",
    ],
)
def test_damaged_characters_that_tell_no_letter_stay_and_are_counted(damaged: str) -> None:
    cleaner = TextCleaner()
    assert cleaner(damaged) == damaged
    assert (cleaner.changes, cleaner.broken) == ({}, 1)


def test_what_can_be_repaired_of_a_text_is_and_no_replacement_character_is_ever_made() -> None:
    cleaner = TextCleaner()
    assert cleaner("SchÃ?Â¶ne Ã?Â?ngste") == "Schöne Ã?Â?ngste"
    assert cleaner.figures() == {"changed": {"mojibake": 1}, "broken": 1}
    assert "\ufffd" not in cleaner("1Ã?Âª parte") and cleaner.broken == 2  # "1ª" or "1ê"


@pytest.mark.parametrize(
    "text", ["AMANHÃ?", "SÃO PAULO?", "Ã la carte", "El Ni?o", "Größe", "»Ärzte ohne Grenzen«", "Â?"]
)
def test_texts_that_only_look_damaged_are_not_counted(text: str) -> None:
    cleaner = TextCleaner(("mojibake",))
    cleaner(text)
    assert cleaner.broken == 0
