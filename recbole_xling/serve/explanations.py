"""Why an item is where it is in a list: items of the history, words of its title, and what is like it elsewhere."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from recbole_xling.errors import ConfigError, unknown_name
from recbole_xling.language.tags import UNDETERMINED, covers
from recbole_xling.serve.added import intake_of
from recbole_xling.serve.answers import Recommendation, short_title
from recbole_xling.serve.catalog import Filters
from recbole_xling.serve.recommender import Recommender, Request
from recbole_xling.serve.scorer import Rows
from recbole_xling.text.template import TextTemplate

FloatArray = NDArray[np.float32]
_COMPARED = 1000  # items whose mean score is the average
_NAMED = 3  # items or words that a sentence names, and neighbors
_LONGEST_TITLE = 80
_MOST_WORDS = 64
# Letters of scripts without spaces between words are words of their own: kana, Han, Thai, Lao and Khmer.
_WITHOUT_SPACES = r"\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\u0e00-\u0eff\u1780-\u17ff"
_WORD = re.compile(rf"[{_WITHOUT_SPACES}]|[^\W_{_WITHOUT_SPACES}]+")


class _Words(NamedTuple):
    """How a language says it.

    Attributes:
        quoted: a title or a word in quotes.
        because: what speaks for an item.
        last: the last word of a list.
        nothing: nothing does.
        titled: the words of its title that do.
        alike: items that are like it in other languages.
    """

    quoted: str
    because: str
    last: str
    nothing: str
    titled: str
    alike: str


SENTENCES = {
    "da": _Words("“{}”", "{item} foreslås især på grund af {because}.", "og", "Intet i historikken taler for {item}.",
                 "Ord i titlen, der taler for: {words}.", "Lignende på andre sprog: {items}."),
    "de": _Words("„{}“", "{item} wird vor allem wegen {because} vorgeschlagen.", "und",
                 "Nichts im Verlauf spricht für {item}.",
                 "Wörter des Titels, die dafür sprechen: {words}.", "Ähnlich in anderen Sprachen: {items}."),
    "en": _Words("“{}”", "{item} is suggested above all because of {because}.", "and",
                 "Nothing in the history speaks for {item}.",
                 "Words of its title that speak for it: {words}.", "Alike in other languages: {items}."),
    "es": _Words("«{}»", "{item} se sugiere sobre todo por {because}.", "y",
                 "Nada en el historial habla a favor de {item}.",
                 "Palabras del título a favor: {words}.", "Parecido en otros idiomas: {items}."),
    "fr": _Words("« {} »", "{item} est proposé surtout en raison de {because}.", "et",
                 "Rien dans l’historique ne plaide pour {item}.",
                 "Mots du titre qui plaident pour : {words}.", "Semblable dans d’autres langues : {items}."),
    "it": _Words("«{}»", "{item} è suggerito soprattutto per via di {because}.", "e",
                 "Nulla nella cronologia parla a favore di {item}.",
                 "Parole del titolo a favore: {words}.", "Simile in altre lingue: {items}."),
    "nl": _Words("‘{}’", "{item} wordt vooral voorgesteld vanwege {because}.", "en",
                 "Niets in de geschiedenis pleit voor {item}.",
                 "Woorden in de titel die ervoor pleiten: {words}.", "Vergelijkbaar in andere talen: {items}."),
    "pt": _Words("«{}»", "{item} é sugerido sobretudo por causa de {because}.", "e",
                 "Nada no histórico fala a favor de {item}.",
                 "Palavras do título a favor: {words}.", "Semelhante noutras línguas: {items}."),
}  # fmt: skip


@dataclass(frozen=True)
class Part:
    """An item of a history, and what it is worth to another one.

    Attributes:
        item: external id.
        title: as the reader sees it.
        language: in which he sees it.
        worth: what the other item's lead loses without this one; below 0 where it speaks against it.
        attention: the share of the model's attention that it has, from 0 to 1; None if that is not known. It tells what
            the model reads the user from, whatever the other item is.
    """

    item: str
    title: str
    language: str
    worth: float
    attention: float | None = None


@dataclass(frozen=True)
class Word:
    """A word of a title.

    Attributes:
        word: as the title has it.
        worth: what the score of an item with the title loses without the word.
    """

    word: str
    worth: float


@dataclass(frozen=True)
class Explanation:
    """Why an item is where it is.

    Attributes:
        user: external id, or None.
        item: external id of what is explained.
        title: as the reader sees it.
        language: in which he sees it.
        lead: its score minus the mean score of the items of the catalog, of up to 1,000 of them.
        parts: the items of the history that the model reads, the one with the largest worth first.
        neighbors: the items that are most like it by their vectors among those in other languages, and the cosine.
        words: of the title, the one with the largest worth first; empty unless they were asked for.
        sentence: the same in words.
        notes: what is unknown.
    """

    user: str | None
    item: str
    title: str
    language: str
    lead: float
    parts: Sequence[Part]
    neighbors: Sequence[Recommendation]
    words: Sequence[Word]
    sentence: str
    notes: Sequence[str] = field(default_factory=tuple)

    def record(self) -> dict[str, Any]:
        """Return the explanation as plain data, as JSON has it."""
        lists = {"parts": self.parts, "neighbors": self.neighbors, "words": self.words}
        plain = {name: [dict(vars(part)) for part in parts] for name, parts in lists.items()}
        return {**vars(self), **plain, "notes": list(self.notes)}


def explain(
    recommender: Recommender,
    item: str,
    *,
    user: str | None = None,
    history: Sequence[str] | None = None,
    reader: str | None = None,
    language: str = "en",
    words: bool = False,
) -> Explanation:
    """Tell what carries the score of an item, by leaving out each item of the history in turn (occlusion).

    The lead is explained and not the score: what lifts all items alike explains no item. Worths need not add up to the
    lead, as items of a history may stand for each other, and popularity has a part in it (Zeiler and Fergus,
    "Visualizing and Understanding Convolutional Networks", ECCV 2014, leave out parts of images in this way).

    Args:
        recommender: whose model scores.
        item: external id.
        user: who is known by his history, unless that is given.
        history: external ids of items, the oldest first.
        reader: language of a user whose language nobody knows.
        language: of the sentence.
        words: whether to leave out each word of the item's title in turn as well. What counts is the score of an item
            that is known by this title alone, as a new one is.

    Raises:
        ConfigError: there is no such item, no history, no sentence in that language, or the model reads no histories,
            or no texts if words are asked for.
    """
    catalog, scorer = recommender.catalog, recommender.scorer
    if language not in SENTENCES:
        raise ConfigError(unknown_name("language of sentences", language, SENTENCES))
    if item not in catalog.number:
        raise ConfigError(f"no item '{item}'")
    request = _request(recommender, user, history, reader)
    read, number = request.history[-scorer.longest :], catalog.number[item]
    rests = {int(left_out): read[read != left_out] for left_out in read}
    rests = {left_out: rest for left_out, rest in rests.items() if len(rest) or scorer.without_history}
    histories = [read, *rests.values()]
    rows = Rows(np.full(len(histories), request.number), [request.language] * len(histories), histories)
    lead, *others = _leads(recommender, number, request.view, rows).tolist()
    titles, languages = catalog.titles[request.view], catalog.languages[request.view]
    attention = scorer.attention(request.view, Rows(rows.users[:1], rows.languages[:1], [read]))
    parts = []
    for left_out, other in zip(rests, others, strict=True):
        share = None if attention is None else float(attention[0, : len(read)][read == left_out].sum())
        named = str(catalog.tokens[left_out]), titles[left_out], str(languages[left_out])
        parts.append(Part(*named, lead - other, share))
    parts.sort(key=lambda part: -part.worth)
    neighbors = _neighbors(recommender, item, str(languages[number]), request.view)
    single = Rows(rows.users[:1], rows.languages[:1], [read])
    of_title = _words(recommender, titles[number], str(languages[number]), request.view, single) if words else []
    alone = [] if rests else [f"the history is one item, without which {scorer.name} cannot score"]
    sentence = _sentence(titles[number] or item, parts if rests else None, of_title, neighbors, language)
    found: dict[str, Any] = {"parts": parts, "neighbors": neighbors, "words": of_title, "sentence": sentence}
    notes = [*request.notes, *alone]
    return Explanation(user, item, titles[number], str(languages[number]), lead, **found, notes=notes)


def _neighbors(recommender: Recommender, item: str, language: str, view: int) -> Sequence[Recommendation]:
    """Return what is most like an item among the items that the same readers see in other languages."""
    # neither the language itself nor a variant of it, or what it is a variant of
    others = {
        name
        for name in recommender.catalog.language_names - {UNDETERMINED}
        if not covers(name, language) and not covers(language, name)
    }
    if not others or language == UNDETERMINED:
        return []
    try:
        return recommender.similar_items(item, _NAMED, filters=Filters(sorted(others)), view=view).items
    except ConfigError:  # the model has no vectors of items
        return []


def _words(recommender: Recommender, title: str, language: str, view: int, rows: Rows) -> list[Word]:
    """Return what each word of a title adds to the score of an item that is known by it alone."""
    intake, scorer = intake_of(recommender), recommender.scorer
    template = TextTemplate(intake.template)
    field_name = "title" if "title" in template.fields else template.fields[0]
    places = list(_WORD.finditer(title))[:_MOST_WORDS]
    texts = [title, *(title[: place.start()] + title[place.end() :] for place in places)]
    rendered = [template.render({field_name: text}) for text in texts]
    vectors = scorer.vectors_of_texts(rendered, [language] * len(texts)).copy()
    vectors[:, : intake.skipped] = 0
    vectors[[not text.strip() for text in rendered]] = 0
    scores = vectors @ scorer.user_vectors(view, rows)[0]
    found = [Word(place[0], float(scores[0] - score)) for place, score in zip(places, scores[1:], strict=True)]
    return sorted(found, key=lambda word: -word.worth)


def _request(recommender: Recommender, user: str | None, history: Sequence[str] | None, reader: str | None) -> Request:
    """Return what is known of somebody who has a history that the model reads.

    Raises:
        ConfigError: he has none, or the model reads none.
    """
    scorer = recommender.scorer
    if not scorer.by_history:
        raise ConfigError(f"{scorer.name} does not read histories, so that nothing of one can be left out")
    if history is None and recommender.users.missing:
        raise ConfigError(f"{recommender.users.missing}: give the history")
    request = recommender.request(user, history, reader)
    if (reason := recommender.unserved(request)) or not len(request.history):
        raise ConfigError(reason or "there is no history, of which something could be left out")
    return request


def _leads(recommender: Recommender, item: int, view: int, rows: Rows) -> FloatArray:
    """Return by how much the score of an item is above the mean of others, for each row."""
    exist = np.flatnonzero(recommender.catalog.exists)
    some = exist[np.linspace(0, len(exist) - 1, min(_COMPARED, len(exist))).astype(np.int64)]
    compared = np.union1d(some, [item])
    nothing = [np.empty(0, dtype=np.int64)] * len(rows.histories)
    best = recommender.scorer.best(view, rows, compared, nothing, len(compared))
    own: FloatArray = np.where(best.items == item, best.scores, 0).sum(axis=1)
    leads: FloatArray = own - best.scores.mean(axis=1)
    return leads


def _sentence(
    title: str, parts: Sequence[Part] | None, words: Sequence[Word], neighbors: Sequence[Recommendation], language: str
) -> str:
    """Return what there is to say; of the history nothing if it was not measured (None)."""
    said = SENTENCES[language]

    def listed(names: Sequence[str]) -> str:
        *others, last = (said.quoted.format(short_title(name, _LONGEST_TITLE)) for name in names[:_NAMED])
        return f"{', '.join(others)} {said.last} {last}" if others else last

    item = said.quoted.format(short_title(title, _LONGEST_TITLE))
    reasons = [part.title or part.item for part in parts or () if part.worth > 0]
    sentences = [said.because.format(item=item, because=listed(reasons))] if reasons else []
    sentences += [said.nothing.format(item=item)] if parts is not None and not reasons else []
    if for_it := [word.word for word in words if word.worth > 0]:
        sentences.append(said.titled.format(words=listed(for_it)))
    if neighbors:
        sentences.append(said.alike.format(items=listed([other.title or other.item for other in neighbors])))
    return " ".join(sentences)
