"""Answering many requests by several processes: each answers its share, and the first one puts them together."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from hashlib import sha256
from itertools import cycle, islice
from pathlib import Path
from typing import TypeVar

from recbole_xling.errors import ConfigError, XlingError
from recbole_xling.utils.files import replacing

_AT_ONCE = 1024  # requests that a process answers at once
_POLL = 0.2  # seconds
T = TypeVar("T")


@dataclass(frozen=True)
class Share:
    """Which of several processes this is, as ``torchrun`` and other launchers tell by ``RANK`` and ``WORLD_SIZE``.

    Attributes:
        rank: of this process, from 0.
        number: of processes.
    """

    rank: int = 0
    number: int = 1

    @classmethod
    def of_environment(cls) -> Share:
        """Return the share of this process; all of it where no launcher says otherwise.

        Raises:
            ConfigError: the launcher's variables are no numbers that fit.
        """
        words = os.environ.get("RANK", "0"), os.environ.get("WORLD_SIZE", "1")
        if not all(word.isdecimal() for word in words) or int(words[0]) >= int(words[1]):
            raise ConfigError(f"RANK={words[0]} and WORLD_SIZE={words[1]} are no place among processes")
        return cls(*map(int, words))


def identity_of(files: Iterable[Path], *options: object) -> str:
    """Return a hash of what answers depend on, by which a part of an earlier call is known."""
    found = sha256(repr(options).encode())
    for path in files:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                found.update(block)
    return found.hexdigest()[:16]


def answer_share(
    requests: Iterable[T],
    answer: Callable[[Sequence[T]], Sequence[str]],
    path: Path,
    identity: str,
    share: Share,
    patience: float,
) -> bool:
    """Answer every ``number``-th request, and let the first process write all answers in the order of the requests.

    All processes must see the folder of ``path``, where each leaves its part. Parts of an earlier call that was stopped
    are not made again.

    Args:
        requests: all of them, the same in each process.
        answer: returns a line for each of some requests.
        path: of the file.
        identity: of :func:`identity_of`.
        share: of this process.
        patience: seconds that the first process waits for the others once its own part is done.

    Returns:
        Whether this process has written the file.

    Raises:
        XlingError: the others have not ended in time.
    """
    parts = path.with_name(f".{path.name}.parts")
    parts.mkdir(parents=True, exist_ok=True)
    names = [parts / f"{identity}-{rank:05}-of-{share.number:05}.jsonl" for rank in range(share.number)]
    if not names[share.rank].is_file():
        mine = islice(requests, share.rank, None, share.number)
        with replacing(names[share.rank]) as new, new.open("w", encoding="utf-8", newline="\n") as file:
            while some := list(islice(mine, _AT_ONCE)):
                file.writelines(f"{line}\n" for line in answer(some))
    if share.rank:
        return False
    _wait(names, patience)
    with replacing(path) as new, new.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(_in_turn(names))
    shutil.rmtree(parts, ignore_errors=True)
    return True


def _wait(names: Sequence[Path], patience: float) -> None:
    until = time.monotonic() + patience
    while missing := [name for name in names if not name.is_file()]:
        if time.monotonic() > until:
            raise XlingError(
                f"{len(missing)} of {len(names)} parts have not come within {patience:g} seconds, the first of them "
                f"'{missing[0]}'. Is its process running, and does it write to the same disk? Run all of them again: "
                "parts that are there are kept"
            )
        time.sleep(_POLL)


def _in_turn(names: Sequence[Path]) -> Iterator[str]:
    """Yield the lines of files in turn until one has no more: request i is in part i modulo their number."""
    with ExitStack() as stack:
        files = [stack.enter_context(name.open(encoding="utf-8")) for name in names]
        for file in cycle(files):
            line = file.readline()
            if not line:
                return
            yield line
