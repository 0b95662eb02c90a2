"""Asking for lists by histories: an export in this process, or a server."""

from __future__ import annotations

import json
from collections.abc import Sequence
from http.client import HTTPException
from typing import Any, NamedTuple, Protocol
from urllib import error, request

from recbole_xling.errors import ConfigError, XlingError
from recbole_xling.serve.recommender import MOST_POPULAR, Recommender
from recbole_xling.utils.json_text import parse_json

MOST_BYTES = 1 << 20  # of a request, which the server allows
_TIMEOUT = 60.0  # seconds
_AT_ONCE = 32  # histories in a request


class Asked(NamedTuple):
    """Somebody to recommend to.

    Attributes:
        user: external id; None for nobody's history.
        reader: the language that he reads, where the model does not know him.
        history: external ids of items, the oldest first.
    """

    user: str | None
    reader: str | None
    history: Sequence[str]


class Listed(NamedTuple):
    """A list.

    Attributes:
        items: external ids, the best first.
        is_fallback: whether it is what is chosen most, because the model cannot rank for him.
    """

    items: Sequence[str]
    is_fallback: bool


class Asking(Protocol):
    """What answers."""

    def __call__(self, asked: Sequence[Asked], k: int, *, exclude_seen: bool) -> list[Listed]:
        """Return a list for each, of at most ``k`` items."""


def _grouped(asked: Sequence[Asked], at_once: int) -> list[list[int]]:
    """Return the places of those who can be asked for together: all named or none, with one language."""
    groups: dict[tuple[bool, str], list[int]] = {}
    for place, one in enumerate(asked):
        groups.setdefault((one.user is None, one.reader or ""), []).append(place)
    return [places[at : at + at_once] for places in groups.values() for at in range(0, len(places), at_once)]


class AskExport:
    """Asks an export in this process.

    Args:
        recommender: of :func:`~recbole_xling.serve.load_export`.
    """

    def __init__(self, recommender: Recommender) -> None:
        self._recommender = recommender

    def __call__(self, asked: Sequence[Asked], k: int, *, exclude_seen: bool) -> list[Listed]:
        """Return a list for each."""
        found: dict[int, Listed] = {}
        for places in _grouped(asked, len(asked) or 1):
            answers = self._recommender.recommend_histories(
                [asked[place].history for place in places],
                k,
                users=[asked[place].user for place in places],
                reader=asked[places[0]].reader,
                exclude_seen=exclude_seen,
            )
            for place, answer in zip(places, answers, strict=True):
                fallback = any(MOST_POPULAR in note for note in answer.notes)
                found[place] = Listed([item.item for item in answer.items], fallback)
        return [found[place] for place in range(len(asked))]


class AskServer:
    """Asks a server, ``recbole-xling serve``.

    Args:
        url: such as ``http://127.0.0.1:8000``.

    Raises:
        ConfigError: the address is none of HTTP.
    """

    def __init__(self, url: str) -> None:
        if not url.startswith(("http://", "https://")):
            raise ConfigError(f"the address '{url}' must begin with http:// or https://")
        self._url = url.rstrip("/")

    def __call__(self, asked: Sequence[Asked], k: int, *, exclude_seen: bool) -> list[Listed]:
        """Return a list for each.

        Raises:
            XlingError: the server does not answer, or refuses.
        """
        found: dict[int, Listed] = {}
        waiting = _grouped(asked, _AT_ONCE)
        while waiting:
            places = waiting.pop()
            first = asked[places[0]]
            body: dict[str, Any] = {"histories": [list(asked[place].history) for place in places]}
            body |= {"k": k, "exclude_seen": exclude_seen}
            body |= {"reader": first.reader} if first.reader else {}
            body |= {} if first.user is None else {"users": [asked[place].user for place in places]}
            data, half = json.dumps(body, ensure_ascii=False).encode(), len(places) // 2
            if half and len(data) > MOST_BYTES:
                waiting += [places[:half], places[half:]]
                continue
            for place, answer in zip(places, self._post("/recommend", data)["answers"], strict=True):
                fallback = any(MOST_POPULAR in note for note in answer["notes"])
                found[place] = Listed([item["item"] for item in answer["items"]], fallback)
        return [found[place] for place in range(len(asked))]

    def _post(self, path: str, data: bytes) -> Any:
        wanted = request.Request(f"{self._url}{path}", data, {"Content-Type": "application/json"})
        try:
            with request.urlopen(wanted, timeout=_TIMEOUT) as response:
                return parse_json(response.read())
        except error.HTTPError as refused:
            told = refused.read(2000).decode("utf-8", "replace")
            raise XlingError(f"the server {self._url} refuses a request ({refused.code}): {told}") from refused
        except (OSError, HTTPException, ValueError) as problem:
            reason = getattr(problem, "reason", problem)
            raise XlingError(f"the server {self._url} does not answer: {reason}. Is it running?") from problem
