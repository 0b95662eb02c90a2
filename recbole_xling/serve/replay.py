"""Replaying interactions to a model that serves: what it would have recommended just before each of them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any

import numpy as np

from recbole_xling.errors import ConfigError, unknown_name
from recbole_xling.language.tags import UNDETERMINED
from recbole_xling.serve.asking import Asked, Asking, Listed
from recbole_xling.serve.catalog import Catalog, Users
from recbole_xling.serve.events import Events
from recbole_xling.serve.popularity import PopularitySoFar

PERIODS = {"hour": 3600.0, "day": 86_400.0}
ALL = "all"
_LONGEST = 500  # items of a history that are sent, the latest
_AT_ONCE = 256  # questions that are asked together
_MOSTLY = 0.5  # share of interactions that the export may know already


@dataclass
class Tally:
    """What is counted of the interactions of a period and a language.

    Attributes:
        interactions: that are measured.
        hits: of the model, and of what was chosen most until then.
        gains: sums of 1 / log2(1 + rank) of both.
        unknown: items that are not in the catalog; they count as missed.
        fallbacks: lists of what is chosen most, because the model could not rank for the reader.
        repeats: items that the reader had chosen before, which are not measured.
    """

    interactions: int = 0
    hits: list[int] = field(default_factory=lambda: [0, 0])
    gains: list[float] = field(default_factory=lambda: [0.0, 0.0])
    unknown: int = 0
    fallbacks: int = 0
    repeats: int = 0

    def row(self, period: str, language: str, k: int) -> dict[str, Any]:
        """Return it as a line of the output; rates of nothing are None."""

        def rate(value: float) -> float | None:
            return value / self.interactions if self.interactions else None

        return {
            "period": period,
            "language": language,
            "interactions": self.interactions,
            f"hit@{k}": rate(self.hits[0]),
            f"ndcg@{k}": rate(self.gains[0]),
            f"popularity_hit@{k}": rate(self.hits[1]),
            f"popularity_ndcg@{k}": rate(self.gains[1]),
            "unknown_items": self.unknown,
            "fallbacks": self.fallbacks,
            "repeats": self.repeats,
        }


class Replay:
    """Replays interactions in the order of time.

    The list for an interaction is made of what the reader had chosen before its time: interactions at the same time do
    not know of each other. Beside the model stands what was chosen most until then, in the training of the export (not
    with ``from_empty``) and in what was replayed.

    Args:
        catalog: of the export.
        users: of the export.
        ask: what answers.
        by_user: whether the model knows readers by their ids alone.
        k: length of the lists.
        per: ``hour`` or ``day``.
        exclude_seen: whether lists leave out what the reader has chosen; such interactions are not measured then.
        from_empty: whether histories begin empty; otherwise with what the export knows of its users.
        begin: time from which on interactions are measured; earlier ones only go into histories and counts.
        reads: the language of readers whom the export does not know, by external id.

    Raises:
        ConfigError: an argument is wrong.
    """

    def __init__(
        self,
        catalog: Catalog,
        users: Users,
        ask: Asking,
        *,
        by_user: bool,
        k: int = 10,
        per: str = "hour",
        exclude_seen: bool = True,
        from_empty: bool = False,
        begin: float | None = None,
        reads: Mapping[str, str] | None = None,
    ) -> None:
        if per not in PERIODS:
            raise ConfigError(unknown_name("period", per, PERIODS))
        if k < 1:
            raise ConfigError(f"k must be at least 1, not {k}")
        if begin is not None and not math.isfinite(begin):
            raise ConfigError(f"the time to begin at must be a number, not {begin}")
        if by_user and from_empty:
            raise ConfigError("the model knows readers by their ids, with all that it learned: histories are not empty")
        self._catalog, self._users, self._ask, self._by_user = catalog, users, ask, by_user
        self._k, self._per, self._exclude_seen, self._from_empty = k, per, exclude_seen, from_empty
        self._begin, self._reads = -math.inf if begin is None else begin, reads or {}
        self._histories: dict[int, list[str]] = {}  # by number of the event's user
        self._popular = PopularitySoFar(np.zeros_like(catalog.counts) if from_empty else catalog.counts)
        self.overall: dict[str, Tally] = {}
        self.twins = 0  # interactions whose user, item and time are those of another one, with which they count once
        self._now: dict[str, Tally] = {}

    def run(self, events: Events) -> Iterator[tuple[int, list[dict[str, Any]]]]:
        """Replay, and yield how many interactions are done and the lines that are ready: those of ended periods.

        The last lines are those of all periods.

        Raises:
            ConfigError: there is nothing to measure, or most of it is among the histories that the export has.
            XlingError: the server does not answer.
        """
        if events.times[-1] < self._begin:
            raise ConfigError(
                f"nothing to measure: the last interaction is at {events.times[-1]:.15g}, before the time to begin at, "
                f"{self._begin:.15g}"
            )
        self._refuse_known(events)
        step = PERIODS[self._per] * (events.scale or 1.0)
        period: float | None = None
        waiting: list[tuple[Asked, list[int], list[int], str]] = []
        for moment in events.moments():
            of_moment = math.floor(events.times[moment.start] / step)
            lines: list[dict[str, Any]] = []
            if of_moment != period and period is not None:
                self._answer(waiting)
                lines = self._close(self._name(period, step, events.scale))
            period = of_moment
            of_users: dict[int, dict[str, None]] = {}
            for user, item in zip(events.users[moment].tolist(), events.items[moment].tolist(), strict=True):
                of_users.setdefault(user, {})[str(events.item_tokens[item])] = None
            chosen = {user: list(items) for user, items in of_users.items()}
            self.twins += moment.stop - moment.start - sum(map(len, chosen.values()))
            for user, items in chosen.items() if events.times[moment.start] >= self._begin else ():
                waiting += self._question(str(events.user_tokens[user]), user, items)
                if len(waiting) >= _AT_ONCE:
                    self._answer(waiting)
            for user, items in chosen.items():
                self._happen(str(events.user_tokens[user]), user, items)
            yield moment.stop, lines
        assert period is not None
        self._answer(waiting)
        last = self._close(self._name(period, step, events.scale))
        yield len(events.times), [*last, *_rows(ALL, self.overall, self._k)]

    def _refuse_known(self, events: Events) -> None:
        """Raise a ConfigError where histories would hold what is to be predicted."""
        if self._from_empty or not len(self._users.items):
            return
        number = np.array([self._users.number.get(str(user), 0) for user in events.user_tokens], dtype=np.int64)
        items = np.array([self._catalog.number.get(str(item), 0) for item in events.item_tokens], dtype=np.int64)
        measured = events.times >= self._begin
        pairs = number[events.users[measured]] * len(self._catalog.tokens) + items[events.items[measured]]
        owners = np.repeat(np.arange(len(self._users.starts) - 1), np.diff(self._users.starts))
        known = int(np.isin(pairs, owners * len(self._catalog.tokens) + self._users.items).sum())
        if known > _MOSTLY * max(1, len(pairs)):
            raise ConfigError(
                f"the export knows {known:,} of the {len(pairs):,} interactions already, so they are no test of it: "
                "replay later ones, or begin with empty histories (--from-empty) and tell when to measure (--begin)"
            )

    # ---- questions --------------------------------------------------------------------------------------------

    def _happen(self, token: str, user: int, items: Sequence[str]) -> None:
        """Let a reader have chosen items."""
        history = self._history(token, user)
        history += items
        del history[:-_LONGEST]
        for item in items:
            if number := self._catalog.number.get(item):
                self._popular.add(number)

    def _history(self, token: str, user: int) -> list[str]:
        if user not in self._histories:
            known = () if self._from_empty else self._users.history(self._users.number.get(token, 0))
            self._histories[user] = [str(self._catalog.tokens[item]) for item in known[-_LONGEST:]]
        return self._histories[user]

    def _question(self, token: str, user: int, items: Sequence[str]) -> list[tuple[Asked, list[int], list[int], str]]:
        history = self._history(token, user)
        number = self._users.number.get(token, 0)
        stated = self._users.languages[number] if number else UNDETERMINED
        language = stated if stated != UNDETERMINED else self._reads.get(token, UNDETERMINED)
        view = self._catalog.view_for(language)
        seen = {self._catalog.number.get(item, 0) for item in history}
        if not self._from_empty:
            seen |= set(self._users.history(number).tolist())
        targets = []
        for item in items:
            place = self._catalog.number.get(item, 0)
            of_item = str(self._catalog.languages[view][place]) if place else UNDETERMINED
            tally = self._now.setdefault(of_item, Tally())
            if self._exclude_seen and place in seen and place:
                tally.repeats += 1
            else:
                tally.interactions += 1
                tally.unknown += not place
                targets.append(place)
        if not targets:
            return []
        popular = self._popular.best(self._k, seen if self._exclude_seen else (), self._catalog.shown)
        # a user who is named has the export's history beside the given one
        is_named = self._by_user or (bool(number) and not self._from_empty)
        is_said = language != UNDETERMINED and (stated == UNDETERMINED or not is_named)
        reader = language if is_said else None
        return [(Asked(token if is_named else None, reader, list(history)), targets, popular, language)]

    def _answer(self, waiting: list[tuple[Asked, list[int], list[int], str]]) -> None:
        """Ask, and count what was hit."""
        lists: list[Listed] = []
        for at in range(0, len(waiting), _AT_ONCE):
            asked = [one for one, *_ in waiting[at : at + _AT_ONCE]]
            lists += self._ask(asked, self._k, exclude_seen=self._exclude_seen)
        for (_, targets, popular, language), listed in zip(waiting, lists, strict=True):
            numbers = [self._catalog.number.get(item, 0) for item in listed.items]
            view = self._catalog.view_for(language)
            for target in targets:
                of_item = str(self._catalog.languages[view][target]) if target else UNDETERMINED
                tally = self._now[of_item]
                tally.fallbacks += listed.is_fallback
                for side, items in enumerate((numbers, popular)):
                    if target and target in items:
                        tally.hits[side] += 1
                        tally.gains[side] += 1 / math.log2(2 + items.index(target))
        waiting.clear()

    # ---- periods ----------------------------------------------------------------------------------------------

    def _close(self, period: str) -> list[dict[str, Any]]:
        """Return the lines of a period, and begin a new one."""
        lines = _rows(period, self._now, self._k)
        for language, tally in self._now.items():
            _add(self.overall.setdefault(language, Tally()), tally)
        self._now = {}
        return lines

    def _name(self, period: float, step: float, scale: float | None) -> str:
        if scale is None:
            return f"{period * step:.15g}"
        moment = datetime.fromtimestamp(period * step / scale, timezone.utc)
        return moment.strftime("%Y-%m-%dT%H:00Z" if self._per == "hour" else "%Y-%m-%d")


def _add(total: Tally, tally: Tally) -> None:
    total.interactions += tally.interactions
    total.hits = [one + other for one, other in zip(total.hits, tally.hits, strict=True)]
    total.gains = [one + other for one, other in zip(total.gains, tally.gains, strict=True)]
    total.unknown += tally.unknown
    total.fallbacks += tally.fallbacks
    total.repeats += tally.repeats


def _rows(period: str, tallies: Mapping[str, Tally], k: int) -> list[dict[str, Any]]:
    """Return the lines of a period: one for each language, and one for all of them."""
    if not tallies:
        return []
    total = Tally()
    for language in sorted(tallies):
        _add(total, tallies[language])
    return [*(tallies[language].row(period, language, k) for language in sorted(tallies)), total.row(period, ALL, k)]
