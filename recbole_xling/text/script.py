"""Scripts (ISO 15924): which ones a text is written in, and which ones a language uses."""

from __future__ import annotations

import unicodedata
from collections import Counter
from functools import lru_cache

LATIN = "Latn"
HAN = "Hani"
# first word of the Unicode name of a script's letters
_SCRIPT_OF_NAME = {
    "ADLAM": "Adlm", "ARABIC": "Arab", "ARMENIAN": "Armn", "BENGALI": "Beng", "CANADIAN": "Cans", "CHEROKEE": "Cher",
    "CJK": HAN, "COPTIC": "Copt", "CYRILLIC": "Cyrl", "DEVANAGARI": "Deva", "ETHIOPIC": "Ethi", "GEORGIAN": "Geor",
    "GREEK": "Grek", "GUJARATI": "Gujr", "GURMUKHI": "Guru", "HANGUL": "Hang", "HEBREW": "Hebr", "HIRAGANA": "Hira",
    "KANNADA": "Knda", "KATAKANA": "Kana", "KHMER": "Khmr", "LAO": "Laoo", "LATIN": LATIN, "MALAYALAM": "Mlym",
    "MEETEI": "Mtei", "MONGOLIAN": "Mong", "MYANMAR": "Mymr", "NKO": "Nkoo", "OL": "Olck", "ORIYA": "Orya",
    "SINHALA": "Sinh", "SYRIAC": "Syrc", "TAMIL": "Taml", "TELUGU": "Telu", "THAANA": "Thaa", "THAI": "Thai",
    "TIBETAN": "Tibt", "TIFINAGH": "Tfng", "VAI": "Vaii", "YI": "Yiii",
}  # fmt: skip
_WIDTHS = ("FULLWIDTH", "HALFWIDTH")
# scripts that are several in Unicode; Korean texts of Han characters alone are not met
_PARTS = {"Jpan": ("Hira", "Kana", HAN), "Kore": ("Hang",), "Hans": (HAN,), "Hant": (HAN,)}
# languages much written in a second script (Unicode CLDR, territory-language information)
_SECOND = {
    "az": "Cyrl", "bs": "Cyrl", "kk": "Latn", "ku": "Arab", "mn": "Mong", "ms": "Arab", "pa": "Arab", "sd": "Deva",
    "sr": "Latn", "tg": "Arab", "tk": "Cyrl", "tt": "Latn", "ug": "Cyrl", "uz": "Cyrl",
}  # fmt: skip


def script_sizes(text: str) -> Counter[str]:
    """Return how much of a text is in which script: UTF-8 bytes of its letters, by script.

    Bytes, as a Chinese character says about as much as three Latin letters. Digits, marks and letters of scripts not
    known here do not count.
    """
    if text.isascii():
        return +Counter({LATIN: sum(map(str.isalpha, text))})
    sizes: Counter[str] = Counter()
    for character in text:
        script = _script_of_letter(character)
        if script:
            sizes[script] += len(character.encode())
    return sizes


@lru_cache(maxsize=1 << 16)
def _script_of_letter(character: str) -> str:
    words = unicodedata.name(character, "").split() if character.isalpha() else []
    first = next((word for word in words if word not in _WIDTHS), "")
    return _SCRIPT_OF_NAME.get(first, "")


def main_script(language: str) -> str:
    """Return the script that a language tag names or implies, such as ``Latn`` for ``de`` and ``Jpan`` for ``ja``."""
    from langcodes import Language

    return Language.get(language).maximize().script or ""


def scripts_of_language(language: str) -> frozenset[str]:
    """Return the scripts in which letters of a language are found, as :func:`script_sizes` names them.

    A tag that names its script (``sr-Latn``) has that one only.
    """
    script = main_script(language)
    parts = _PARTS.get(script, (script,))
    second = _SECOND.get(language)
    return frozenset(parts if second is None else (*parts, second))


def han_variant(text: str) -> str:
    """Tell traditional (``Hant``) from simplified Chinese characters (``Hans``).

    By the character sets of the two: Big5 or GB 2312, whichever has more of the text's characters; ``Hans`` if alike.
    """
    simplified, traditional = (len(text.encode(charset, "ignore")) for charset in ("gb2312", "big5"))
    return "Hant" if traditional > simplified else "Hans"
