"""Recommender: from users, histories or an item to lists, whatever scores the items."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from recbole_xling.errors import ConfigError
from recbole_xling.language.tags import UNDETERMINED, reader_among
from recbole_xling.serve.answers import Answer, Recommendation
from recbole_xling.serve.catalog import Catalog, Filters, IntArray, Users
from recbole_xling.serve.new_items import Intake
from recbole_xling.serve.scorer import Given, Rows, Scorer, unit

MOST_POPULAR = "these are the items that are chosen most"
_NAMED = 3  # ids that a note names
_AT_ONCE = 1 << 15  # items that are compared with another one


@dataclass
class Request:
    """Somebody to answer, as the model knows him.

    Attributes:
        user: external id, or None.
        number: of the user, of another one who states the same language where he is unknown, or 0.
        is_known: whether the number is his.
        language: that he reads, ``und`` where unknown.
        view: of the catalog.
        history: numbers of items, the oldest first.
        seen: numbers of all items that he is known to have chosen.
        notes: what is unknown.
    """

    user: str | None
    number: int
    is_known: bool
    language: str
    view: int
    history: IntArray
    seen: IntArray
    notes: list[str] = field(default_factory=list)


class Recommender:
    """Answers from items, users, and whatever scores items.

    Who a model cannot serve gets what is chosen most, and his answer's notes say so: a user it does not know, or a
    history without a known item.

    Args:
        catalog: the items.
        users: whom the model was trained with.
        scorer: the model.
        intake: how the model takes items that training did not have; None if it does not.
        trained: the same without such items, if there are some.
    """

    def __init__(
        self,
        catalog: Catalog,
        users: Users,
        scorer: Scorer,
        intake: Intake | None = None,
        trained: Recommender | None = None,
    ) -> None:
        self.catalog, self.users, self.scorer, self.intake = catalog, users, scorer, intake
        self.trained = trained or self

    # ---- lists ------------------------------------------------------------------------------------------------

    def recommend(
        self,
        users: Sequence[str],
        k: int = 10,
        *,
        reader: str | None = None,
        exclude_seen: bool = True,
        filters: Filters | None = None,
    ) -> list[Answer]:
        """Return a list for each user, by all that is known of him.

        Args:
            users: external ids.
            k: length of the lists.
            reader: the language that they read, of users whose language nobody knows.
            exclude_seen: leave out the items of a user's history.
            filters: which items may be in the lists.

        Raises:
            ConfigError: an argument is wrong, or histories of users are not known.
        """
        return self.answers(self.requests_of_users(users, reader), k, exclude_seen, filters)

    def recommend_histories(
        self,
        histories: Sequence[Sequence[str]],
        k: int = 10,
        *,
        users: Sequence[str | None] | None = None,
        reader: str | None = None,
        exclude_seen: bool = True,
        filters: Filters | None = None,
    ) -> list[Answer]:
        """Return a list for each history.

        Args:
            histories: external ids of items, the oldest of each first.
            k: length of the lists.
            users: whose histories they are, for models and views that depend on it.
            reader: the language that they read, of users whose language nobody knows.
            exclude_seen: leave out the items of the history.
            filters: which items may be in the lists.

        Raises:
            ConfigError: an argument is wrong.
        """
        return self.answers(self.requests_of_histories(histories, users, reader), k, exclude_seen, filters)

    def recommend_texts(
        self,
        texts: Sequence[str],
        k: int = 10,
        *,
        text_languages: Sequence[str] | None = None,
        reader: str | None = None,
        filters: Filters | None = None,
    ) -> list[Answer]:
        """Return a list for each text, as if it were that of the one item that somebody has chosen.

        Args:
            texts: what somebody likes.
            k: length of the lists.
            text_languages: of the texts, for models that ask for it; the reader's if not given.
            reader: language that they all read.
            filters: which items may be in the lists.

        Raises:
            ConfigError: an argument is wrong, or the model does not read texts.
        """
        _check_length(k)
        _check_list("texts", texts)
        read = [reader or UNDETERMINED] * len(texts)
        written = text_languages or read
        if len(written) != len(texts):
            raise ConfigError(f"{len(texts)} texts in {len(written)} languages: name one language for each")
        view = self.catalog.view_for(reader)
        candidates = self.catalog.candidates(filters or Filters(), view)
        given = Given(self.scorer.vectors_of_texts(texts, written), written, read)
        best = self.scorer.best(view, given, candidates, [np.empty(0, dtype=np.int64)] * len(texts), k)
        few = [] if len(candidates) >= k else [f"only {len(candidates)} items are left by the filters"]
        return [
            Answer(None, self._listed(items, scores, view), few)
            for items, scores in zip(best.items, best.scores, strict=True)
        ]

    def similar_items(
        self,
        item: str,
        k: int = 10,
        *,
        language: str | None = None,
        filters: Filters | None = None,
        view: int | None = None,
    ) -> Answer:
        """Return the items whose vectors have the largest cosine with that of an item.

        Args:
            item: external id.
            k: length of the list.
            language: in which the others are to be; those of all languages if not given.
            filters: which items may be in the list.
            view: of the catalog; that of the language's readers if not given.

        Raises:
            ConfigError: there is no such item, no item in that language, or the model has no vectors of items.
        """
        _check_length(k)
        if item not in self.catalog.number:
            raise ConfigError(f"no item '{item}'")
        filters = filters or Filters()
        if language is not None:
            filters = Filters([language], filters.items, filters.block, filters.where)
        number = self.catalog.number[item]
        view = self.catalog.view_for(language) if view is None else view
        others = self.catalog.candidates(filters, view)
        others = others[others != number]
        own = unit(self.scorer.vectors(view, np.array([number], dtype=np.int64)))[0]
        if not own.any():
            return Answer(None, [], [f"the model knows nothing of '{item}'"])
        found, cosines = others[:0], np.empty(0, dtype=np.float32)
        for at in range(0, len(others), _AT_ONCE):
            block = others[at : at + _AT_ONCE]
            found = np.concatenate([found, block])
            cosines = np.concatenate([cosines, unit(self.scorer.vectors(view, block)) @ own])
            order = np.argsort(-cosines, kind="stable")[:k]
            found, cosines = found[order], cosines[order]
        notes = [] if len(found) == k else [f"only {len(found)} items are left by the filters"]
        return Answer(None, self._listed(found, cosines, view), notes)

    def user_vectors(
        self,
        histories: Sequence[Sequence[str]],
        *,
        users: Sequence[str | None] | None = None,
        reader: str | None = None,
    ) -> NDArray[np.float32]:
        """Return the vectors of users by their histories, ``(B, D)``; a score is the inner product with an item's.

        Args:
            histories: external ids of items, the oldest of each first.
            users: whose histories they are.
            reader: the language that they read, of users whose language nobody knows.

        Raises:
            ConfigError: the model has no vectors of users, or cannot make one of a history.
        """
        names = users or [None] * len(histories)
        requests = [self.request(user, history, reader) for user, history in zip(names, histories, strict=True)]
        for request in requests:
            if reason := self.unserved(request):
                raise ConfigError(f"{self.scorer.name} has no vector of this user: {reason}")
        found: NDArray[np.float32] | None = None
        for view in sorted({request.view for request in requests}):
            places = [place for place, request in enumerate(requests) if request.view == view]
            vectors = self.scorer.user_vectors(view, _rows([requests[place] for place in places]))
            found = np.empty((len(requests), vectors.shape[1]), dtype=np.float32) if found is None else found
            found[places] = vectors
        return np.empty((0, 0), dtype=np.float32) if found is None else found

    def search_titles(self, text: str, k: int = 10, *, reader: str | None = None) -> list[Recommendation]:
        """Return items that are shown and whose title has all these words in it, or whose id it is.

        The first ones of the catalog are returned; their score is how often they were chosen in training.

        Args:
            text: words, in small or capital letters.
            k: how many items.
            reader: language that somebody reads.
        """
        view, catalog = self.catalog.view_for(reader), self.catalog
        found = [number] if catalog.shown[number := catalog.number.get(text.strip(), 0)] else []
        words, titles = text.casefold().split(), catalog.titles[view]
        for number in catalog.candidates(Filters(), view).tolist() if words else ():
            if len(found) == k:
                break
            title = titles[number].casefold()
            if number not in found[:1] and all(word in title for word in words):
                found.append(number)
        numbers = np.array(found, dtype=np.int64)
        return self._listed(numbers, catalog.counts[numbers], view)

    # ---- parts ------------------------------------------------------------------------------------------------

    def requests_of_users(self, users: Sequence[str], reader: str | None) -> list[Request]:
        """Return what is known of users (:meth:`recommend`)."""
        _check_list("users", users)
        if self.users.missing and self.scorer.by_history:
            raise ConfigError(f"{self.users.missing}: give histories (recommend_histories)")
        return [self.request(user, None, reader) for user in users]

    def requests_of_histories(
        self, histories: Sequence[Sequence[str]], users: Sequence[str | None] | None, reader: str | None
    ) -> list[Request]:
        """Return what is known of who has histories (:meth:`recommend_histories`)."""
        _check_list("histories", histories)
        for history in histories:
            _check_list("a history", history)
        if users is not None and len(users) != len(histories):
            raise ConfigError(f"{len(histories)} histories of {len(users)} users: name one user for each")
        names = users or [None] * len(histories)
        return [self.request(user, history, reader) for user, history in zip(names, histories, strict=True)]

    def request(self, user: str | None, history: Sequence[str] | None, reader: str | None) -> Request:
        """Return what is known of somebody, by his id, his history, or the language that he reads."""
        number = 0 if user is None else self.users.number.get(user, 0)
        notes = [] if number or user is None else [f"user '{user}' is unknown"]
        if reader and (found := reader_among(reader, self.users.spoken)) != UNDETERMINED:
            reader = found
        spoken = reader if reader in self.users.spoken else None  # the model knows no other languages of readers
        stated = self.users.languages[number] if number else UNDETERMINED
        language = stated if stated != UNDETERMINED else (spoken or UNDETERMINED)
        if reader and stated == UNDETERMINED and not spoken:
            notes.append(f"no user of the model states the language {reader}")
        elif number and self.scorer.by_user and language != stated:
            notes.append(f"{self.scorer.name} scores for user '{user}' as for one who states no language")
        known = self.users.history(number)
        if history is not None:
            own, unknown = self.catalog.known(history)
            if unknown:
                named = ", ".join(f"'{token}'" for token in unknown[:_NAMED]) + ", ..." * (len(unknown) > _NAMED)
                notes.append(f"{len(unknown)} of {len(history)} items of the history are unknown ({named})")
            if not self.scorer.by_history:
                notes.append(f"{self.scorer.name} does not read histories: this one only tells what has been seen")
        seen = known if history is None else np.union1d(known, own)
        own_row = number if stated == language or self.scorer.by_user else 0
        standing_in = own_row or self.users.example_of.get(language, 0) * (language != UNDETERMINED) or number
        view = self.catalog.view_of.get(language, 0)
        own = known if history is None else own
        return Request(user, standing_in, bool(number), language, view, own, seen, notes)

    def unserved(self, request: Request) -> str:
        """Return why the model cannot rank for somebody; empty if it can."""
        taught = self.users.taught
        if self.scorer.by_user and not (request.is_known and (taught is None or taught[request.number])):
            return f"{self.scorer.name} learns something of each user in training, and knows no others"
        if self.scorer.by_history and not len(request.history) and not self.scorer.without_history:
            return f"{self.scorer.name} needs a history with a known item"
        return ""

    def answers(self, requests: Sequence[Request], k: int, exclude_seen: bool, filters: Filters | None) -> list[Answer]:
        """Return the lists of some requests; arguments as for :meth:`recommend`."""
        _check_length(k)
        filters = filters or Filters()
        unknown = [] if filters.items is None else self.catalog.known(filters.items)[1]
        ignored = [f"{len(unknown)} of {len(filters.items or ())} items to choose from are unknown"] if unknown else []
        found: dict[int, Answer] = {}
        for view in sorted({request.view for request in requests}):
            candidates = self.catalog.candidates(filters, view)
            mine = [(place, request) for place, request in enumerate(requests) if request.view == view]
            served = [(place, request) for place, request in mine if not self.unserved(request)]
            for place, request in mine:
                if reason := self.unserved(request):
                    request.notes.append(f"{reason}: {MOST_POPULAR}")
                    items = candidates[~np.isin(candidates, request.seen)] if exclude_seen else candidates
                    items = items[np.argsort(-self.catalog.counts[items], kind="stable")][:k]
                    found[place] = self._answer(request, items, self.catalog.counts[items], k, ignored)
            if not served:
                continue
            nothing = np.empty(0, dtype=np.int64)
            left_out = [request.seen if exclude_seen else nothing for _, request in served]
            best = self.scorer.best(view, _rows([request for _, request in served]), candidates, left_out, k)
            for (place, request), items, scores in zip(served, best.items, best.scores, strict=True):
                ranked = scores > -np.inf
                found[place] = self._answer(request, items[ranked], scores[ranked], k, ignored)
        return [found[place] for place in range(len(requests))]

    def _answer(self, request: Request, items: IntArray, scores: NDArray, k: int, ignored: Sequence[str]) -> Answer:
        few = [] if len(items) == k else [f"only {len(items)} items are left by the filters and the history"]
        return Answer(request.user, self._listed(items, scores, request.view), [*request.notes, *ignored, *few])

    def _listed(self, items: IntArray, scores: NDArray, view: int) -> list[Recommendation]:
        tokens, titles, languages = self.catalog.tokens, self.catalog.titles[view], self.catalog.languages[view]
        return [
            Recommendation(str(tokens[item]), titles[item], str(languages[item]), float(score))
            for item, score in zip(items.tolist(), scores.tolist(), strict=True)
        ]


def _rows(requests: Sequence[Request]) -> Rows:
    users = np.array([request.number for request in requests], dtype=np.int64)
    return Rows(users, [request.language for request in requests], [request.history for request in requests])


def _check_list(what: str, given: Collection[object]) -> None:
    if isinstance(given, str):
        raise ConfigError(f"{what} must be a list of ids, not the text '{given}': write [{given!r}]")


def _check_length(k: int) -> None:
    if k < 1:
        raise ConfigError(f"k must be at least 1, not {k}")
