"""Identifying the language of a text among given ones, by script and py3langid, and comparing it with a stated one."""

from __future__ import annotations

import logging
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable
from functools import lru_cache
from typing import Any, NamedTuple, TypeAlias

from recbole_xling.errors import ConfigError, MissingExtraError
from recbole_xling.language.tags import NOT_ONE_LANGUAGE, UNDETERMINED, normalize_language

logger = logging.getLogger(__name__)

# ---- scripts --------------------------------------------------------------------------------------------------

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
# scripts that are several in Unicode; Korean texts of Han characters alone are not expected
_PARTS = {"Jpan": ("Hira", "Kana", HAN), "Kore": ("Hang",), "Hans": (HAN,), "Hant": (HAN,)}
# languages much written in a second script (Unicode CLDR, territory-language information)
_SECOND = {
    "az": "Cyrl", "bs": "Cyrl", "kk": "Latn", "ku": "Arab", "mn": "Mong", "ms": "Arab", "pa": "Arab", "sd": "Deva",
    "sr": "Latn", "tg": "Arab", "tk": "Cyrl", "tt": "Latn", "ug": "Cyrl", "uz": "Cyrl",
}  # fmt: skip


def script_sizes(text: str) -> Counter[str]:
    """Return how much of a text is in which script: the number of UTF-8 bytes of its letters, by script.

    Bytes, because a Chinese character says about as much as three Latin letters. Digits, marks and letters of scripts
    that are not listed here do not count.
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
    """Return the scripts that a language is written in, as :func:`script_sizes` names them.

    A tag that names its script (``sr-Latn``) has only that one.
    """
    script = main_script(language)
    parts = _PARTS.get(script, (script,))
    second = _SECOND.get(language)
    return frozenset(parts if second is None else (*parts, second))


def han_variant(text: str) -> str:
    """Tell traditional (``Hant``) from simplified Chinese characters (``Hans``).

    The character set that has more of the text's characters decides, Big5 or GB 2312; ``Hans`` if both have as many.
    """
    simplified, traditional = (len(text.encode(charset, "ignore")) for charset in ("gb2312", "big5"))
    return "Hant" if traditional > simplified else "Hans"


# ---- confidence -----------------------------------------------------------------------------------------------

MIN_CONFIDENCE = 0.8
"""A language identified with less confidence is not believed, unless the user says otherwise."""

_BANDS = ((0.99, "0.99 to 1"), (0.95, "0.95 to 0.99"), (0.9, "0.9 to 0.95"), (0.8, "0.8 to 0.9"), (0.5, "0.5 to 0.8"))
_LEAST = "under 0.5"


def count_confidence(confidences: Iterable[float]) -> dict[str, int]:
    """Return the number of confidences in each band, the highest first."""
    counts = Counter(next((band for least, band in _BANDS if value >= least), _LEAST) for value in confidences)
    return {band: counts[band] for band in (*dict(_BANDS).values(), _LEAST)}


# ---- identification -------------------------------------------------------------------------------------------

# The model knows nothing about texts of fewer bytes ("Up", "Ran", one Chinese character); their script may decide.
_MIN_BYTES = 4
_Groups: TypeAlias = dict[str, list[str]]  # languages by the model's label, which zh and zh-Hant share


class Identified(NamedTuple):
    """The language of a text, and the confidence in it from 0 to 1, given that it is one of the languages asked for."""

    language: str
    confidence: float


NOTHING = Identified(UNDETERMINED, 0.0)


class LanguageIdentifier:
    """Tells which of a dataset's languages a text is in.

    py3langid decides (naive Bayes over byte n-grams: Lui and Baldwin, "langid.py: An Off-the-shelf Language
    Identification Tool", ACL 2012) among the languages that are written in a script of the text, its probabilities
    normalized over these. If the script leaves only one language, that is the answer, however short the text, with the
    share of the text that is in its script as confidence: kana is Japanese, and Cyrillic is Russian if no other
    language of the dataset uses it. Otherwise texts of under 4 bytes of letters are ``und`` with confidence 0, like
    texts without letters. Simplified and traditional Chinese are told apart by their characters if both are asked for.

    Args:
        languages: the candidates; ``und``, ``mul`` and the like are ignored. A language that py3langid does not know
            is found by script alone, which is logged as a warning.

    Attributes:
        languages: the candidates as BCP 47 tags.

    Raises:
        ConfigError: no language is left.
        DataError: one of them cannot be read.
        MissingExtraError: py3langid is not installed.
    """

    def __init__(self, languages: Iterable[str]) -> None:
        tags = dict.fromkeys(map(normalize_language, languages))
        self.languages = tuple(tag for tag in tags if tag not in NOT_ONE_LANGUAGE)
        if not self.languages:
            raise ConfigError("no languages to choose from; name those of the dataset, such as ['de', 'en']")
        self._scripts = {tag: scripts_of_language(tag) for tag in self.languages}
        self._main_script = {tag: main_script(tag) for tag in self.languages}
        self._groups: dict[frozenset[str], _Groups] = {}
        try:
            from py3langid.langid import MODEL_FILE
            from py3langid.langid import LanguageIdentifier as Py3LangId
        except ImportError:
            raise MissingExtraError("py3langid", "text") from None
        # a model of our own: set_languages would change the library's global one for all its users
        self._model: Any = Py3LangId.from_model_file(MODEL_FILE, norm_probs=True)
        known = {normalize_language(label): label for label in reversed(self._model.labels)}
        self._label = {tag: known[tag.split("-")[0]] for tag in self.languages if tag.split("-")[0] in known}
        self._known = frozenset(self._label.values())
        unknown = [tag for tag in self.languages if tag not in self._label]
        if unknown:
            logger.warning("py3langid does not know %s: identified by script alone", ", ".join(unknown))
        self._model.set_languages(self._known)

    def identify(self, text: str) -> Identified:
        """Return the language of a text and the confidence, ``und`` and 0 if nothing can be told."""
        sizes = script_sizes(text)
        candidates = self._written_in(frozenset(sizes))
        if candidates.keys() - self._known:
            # keep those that the model knows, or those it does not if these alone cover most of the text
            own = {label: max(self._own(tag, sizes) for tag in group) for label, group in candidates.items()}
            leaders = {label for label, size in own.items() if size == max(own.values())}
            kept = self._known & candidates.keys() if leaders & self._known else leaders
            candidates = {label: group for label, group in candidates.items() if label in kept}
        if len(candidates) == 1:
            tag = self._variant(next(iter(candidates.values())), sizes, text)
            return Identified(tag, self._own(tag, sizes) / sizes.total())
        if sizes.total() < _MIN_BYTES or self._known.isdisjoint(candidates):
            return NOTHING
        scores = [(score, label) for label, score in self._model.rank(text) if label in candidates]
        best, label = max(scores)
        return Identified(self._variant(candidates[label], sizes, text), best / sum(score for score, _ in scores))

    def identify_batch(self, texts: Iterable[str]) -> list[Identified]:
        """Return what :meth:`identify` gives for each text; equal texts are identified once."""
        texts = list(texts)
        found = {text: self.identify(text) for text in dict.fromkeys(texts)}
        return [found[text] for text in texts]

    def _written_in(self, scripts: frozenset[str]) -> _Groups:
        """Return the languages that use one of the scripts."""
        if scripts not in self._groups:
            groups: _Groups = defaultdict(list)
            for tag in self.languages:
                if self._scripts[tag] & scripts:
                    groups[self._label.get(tag, tag)].append(tag)
            self._groups[scripts] = groups
        return self._groups[scripts]

    def _own(self, tag: str, sizes: Counter[str]) -> int:
        """Return the bytes of a text that are in a script of a language."""
        return sum(sizes[script] for script in self._scripts[tag])

    def _variant(self, group: list[str], sizes: Counter[str], text: str) -> str:
        """Return the tag among those of one language whose main script most of the text is in."""
        if len(group) > 1:
            for script, _ in sizes.most_common():
                wanted = han_variant(text) if script == HAN else script
                for tag in group:
                    if self._main_script[tag] == wanted:
                        return tag
        return group[0]


# ---- agreement with stated languages --------------------------------------------------------------------------

_EXAMPLE_LENGTH = 80


class LanguageAgreement:
    """Counts how often stated languages agree with identified ones, for a report.

    Two tags agree if their language is the same, whatever the script. Only texts with a stated language that are
    identified with enough confidence are compared.

    Args:
        min_confidence: a language identified with less confidence counts as ``und``.
        n_examples: number of texts to keep for each pair of languages that disagree, the first ones.

    Attributes:
        counts: number of texts by stated and identified language.
        examples: texts by stated and identified language, if these disagree.
    """

    def __init__(self, min_confidence: float = MIN_CONFIDENCE, n_examples: int = 3) -> None:
        self.counts: Counter[tuple[str, str]] = Counter()
        self.examples: dict[tuple[str, str], list[str]] = defaultdict(list)
        self._min_confidence = min_confidence
        self._n_examples = n_examples

    def add(self, text: str, stated: str, identified: Identified) -> None:
        """Count one text."""
        sure = identified.confidence >= self._min_confidence
        pair = (stated, identified.language if sure else UNDETERMINED)
        self.counts[pair] += 1
        if _disagree(pair) and len(self.examples[pair]) < self._n_examples:
            self.examples[pair].append(text[:_EXAMPLE_LENGTH])

    @property
    def compared(self) -> int:
        """Number of texts whose stated and identified languages are known."""
        return sum(count for pair, count in self.counts.items() if UNDETERMINED not in pair)

    @property
    def disagreement(self) -> float:
        """Share of the compared texts whose languages differ, 0 if none is compared."""
        return sum(count for pair, count in self.counts.items() if _disagree(pair)) / max(self.compared, 1)

    def summary(self) -> dict[str, Any]:
        """Return the figures as plain values for a report: counts by stated, then identified language, and examples."""
        matrix: dict[str, dict[str, int]] = defaultdict(dict)
        for (stated, identified), count in sorted(self.counts.items()):
            matrix[stated][identified] = count
        pairs = sorted(self.examples, key=lambda pair: (-self.counts[pair], pair))
        return {
            "texts": self.counts.total(),
            "compared": self.compared,
            "disagreement": self.disagreement,
            "matrix": dict(matrix),
            "examples": [
                {"stated": pair[0], "identified": pair[1], "count": self.counts[pair], "texts": self.examples[pair]}
                for pair in pairs
            ],
        }


def _disagree(pair: tuple[str, str]) -> bool:
    stated, identified = (tag.split("-")[0] for tag in pair)
    return UNDETERMINED not in pair and stated != identified
