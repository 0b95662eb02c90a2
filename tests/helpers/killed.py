"""Conversions that are killed at one change to the disk after the other; prints what is left each time.

A program of its own: each conversion runs in a forked process, and a process in which polars has already computed
something cannot be forked.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from made import contents, write

from recbole_xling.convert.base import Item
from recbole_xling.errors import DataError


def forked(work: Callable[[], None]) -> int:
    """Return the exit code of a process that does the work."""
    child = os.fork()
    if not child:
        try:
            work()
        finally:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def write_old(root: Path) -> None:
    write(root, items=[Item("a", "en"), Item("b", "en")], texts=[])
    os._exit(0)


def write_new(root: Path) -> None:
    write(root, users=[])
    os._exit(0)


def write_new_and_die(root: Path, step: int) -> None:
    """Die at the ``step``-th change to the disk."""
    steps = 0

    def deadly(function: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            nonlocal steps
            steps += 1
            if steps == step:
                os._exit(9)
            return function(*args, **kwargs)

        return wrapped

    for name in ("replace", "fsync", "link", "unlink", "rmdir", "mkdir"):
        setattr(os, name, deadly(getattr(os, name)))
    Path.write_text = deadly(Path.write_text)  # type: ignore[method-assign]
    write_new(root)


def fail(root: Path) -> None:
    """What undoes a killed run: the next one, here one that fails."""
    try:
        write(root, items=[])
    except DataError:
        os._exit(0)


def main(root: Path) -> None:
    assert forked(lambda: write_old(root / "old")) == 0
    assert forked(lambda: write_new(root / "new")) == 0
    old, new = contents(root / "old" / "d"), contents(root / "new" / "d")
    outcomes = []
    for step in range(1, 300):
        shutil.copytree(root / "old" / "d", root / "d")
        died = forked(partial(write_new_and_die, root, step)) == 9
        visible = [path for path in (root / "d").iterdir() if not path.name.startswith(".")]
        whole = all(path.read_bytes() in (old.get(path.name), new.get(path.name)) for path in visible)
        assert forked(lambda: fail(root)) == 0
        after = contents(root / "d")
        outcomes.append({"whole": whole, "after": "old" if after == old else "new" if after == new else "mixed"})
        shutil.rmtree(root / "d")
        if not died:
            break
    print(json.dumps(outcomes))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
