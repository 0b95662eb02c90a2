"""Why an item is where it is in a list: what its score loses without each item of the history."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from recbole_xling.errors import ConfigError, unknown_name
from recbole_xling.serve.recommender import Recommender, Request
from recbole_xling.serve.scorer import Rows

FloatArray = NDArray[np.float32]
_COMPARED = 1000  # items whose mean score is the average
_NAMED = 3  # items that a sentence names
_LONGEST_TITLE = 80


class _Words(NamedTuple):
    """How a language says it: a title in quotes, what speaks for an item, the last word of a list, and nothing does."""

    quoted: str
    because: str
    last: str
    nothing: str


SENTENCES = {
    "da": _Words("“{}”", "{item} foreslås især på grund af {because}.", "og", "Intet i historikken taler for {item}."),
    "de": _Words("„{}“", "{item} wird vor allem wegen {because} vorgeschlagen.", "und",
                 "Nichts im Verlauf spricht für {item}."),
    "en": _Words("“{}”", "{item} is suggested above all because of {because}.", "and",
                 "Nothing in the history speaks for {item}."),
    "es": _Words("«{}»", "{item} se sugiere sobre todo por {because}.", "y",
                 "Nada en el historial habla a favor de {item}."),
    "fr": _Words("« {} »", "{item} est proposé surtout en raison de {because}.", "et",
                 "Rien dans l’historique ne plaide pour {item}."),
    "it": _Words("«{}»", "{item} è suggerito soprattutto per via di {because}.", "e",
                 "Nulla nella cronologia parla a favore di {item}."),
    "nl": _Words("‘{}’", "{item} wordt vooral voorgesteld vanwege {because}.", "en",
                 "Niets in de geschiedenis pleit voor {item}."),
    "pt": _Words("«{}»", "{item} é sugerido sobretudo por causa de {because}.", "e",
                 "Nada no histórico fala a favor de {item}."),
}  # fmt: skip


@dataclass(frozen=True)
class Part:
    """An item of a history, and what it is worth to another one.

    Attributes:
        item: external id.
        title: as the reader sees it.
        language: in which he sees it.
        worth: what the other item's lead loses without this one; below 0 where it speaks against it.
    """

    item: str
    title: str
    language: str
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
        sentence: the same in words.
        notes: what is unknown.
    """

    user: str | None
    item: str
    title: str
    language: str
    lead: float
    parts: Sequence[Part]
    sentence: str
    notes: Sequence[str] = field(default_factory=tuple)

    def record(self) -> dict[str, Any]:
        """Return the explanation as plain data, as JSON has it."""
        return {**vars(self), "parts": [vars(part) for part in self.parts], "notes": list(self.notes)}


def explain(
    recommender: Recommender,
    item: str,
    *,
    user: str | None = None,
    history: Sequence[str] | None = None,
    reader: str | None = None,
    language: str = "en",
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
        reader: language of a user whom nobody knows.
        language: of the sentence.

    Raises:
        ConfigError: there is no such item, no history, no sentence in that language, or the model reads no histories.
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
    parts = [
        Part(str(catalog.tokens[left_out]), titles[left_out], str(languages[left_out]), lead - other)
        for left_out, other in zip(rests, others, strict=True)
    ]
    parts.sort(key=lambda part: -part.worth)
    alone = [] if rests else [f"the history is one item, without which {scorer.name} cannot score"]
    sentence, notes = _sentence(titles[number] or item, parts, language), [*request.notes, *alone]
    return Explanation(user, item, titles[number], str(languages[number]), lead, parts, sentence, notes)


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


def _sentence(title: str, parts: Sequence[Part], language: str) -> str:
    words = SENTENCES[language]
    named, *others = (words.quoted.format(_short(name)) for name in (title, *_reasons(parts)))
    if not others:
        return words.nothing.format(item=named)
    listed = others[0] if len(others) == 1 else f"{', '.join(others[:-1])} {words.last} {others[-1]}"
    return words.because.format(item=named, because=listed)


def _reasons(parts: Sequence[Part]) -> list[str]:
    return [part.title or part.item for part in parts if part.worth > 0][:_NAMED]


def _short(title: str) -> str:
    title = " ".join(title.split())
    return title if len(title) <= _LONGEST_TITLE else title[: _LONGEST_TITLE - 1] + "…"
