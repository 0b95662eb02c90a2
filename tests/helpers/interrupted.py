"""The states of a folder in which a process can be killed."""

from __future__ import annotations

import builtins
import io
import os
import pathlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

State = dict[str, bytes | None]
"""Content of each file by its path in a folder; None for a folder."""

_PATHLIB = [vars(pathlib)["_normal_accessor"]] if "_normal_accessor" in vars(pathlib) else []
_CHANGES = ("replace", "rename", "link", "unlink", "rmdir", "mkdir", "fsync", "truncate")


def state(folder: Path) -> State:
    """Return what is in a folder."""
    return {
        str(path.relative_to(folder)): None if path.is_dir() else path.read_bytes()
        for path in sorted(folder.rglob("*"))
    }


def restore(folder: Path, wanted: State) -> None:
    """Make a folder with this content."""
    folder.mkdir(parents=True)
    for name, content in wanted.items():
        if content is None:
            (folder / name).mkdir()
        else:
            (folder / name).write_bytes(content)


def visible(found: State) -> State:
    """Return the files that are not hidden."""
    return {name: content for name, content in found.items() if not name.startswith(".")}


def replace_in_os(patch: pytest.MonkeyPatch, name: str, function: Callable[..., Any]) -> None:
    """Replace a function of ``os``, also where ``pathlib`` keeps one of its own, as in Python 3.10."""
    for module in (os, *_PATHLIB):
        if hasattr(module, name):
            patch.setattr(module, name, function)


def states_before_each_change(folder: Path, work: Callable[[], object]) -> list[State]:
    """Do some work; return the distinct states of a folder before each change to the disk, and the last one.

    A process that is killed leaves one of them: nothing is cleaned up after the copy was taken.
    """
    found: list[State] = []

    def look(function: Callable[..., Any], always: bool = True) -> Callable[..., Any]:
        def wrapped(*args: Any, **options: Any) -> Any:
            if always or set("wax+") & set(str(options.get("mode", args[1] if len(args) > 1 else "r"))):
                now = state(folder)
                if now not in found:
                    found.append(now)
            return function(*args, **options)

        return wrapped

    with pytest.MonkeyPatch.context() as patch:
        for name in _CHANGES:
            replace_in_os(patch, name, look(getattr(os, name)))
        for module in (io, builtins, *_PATHLIB):
            patch.setattr(module, "open", look(open, always=False))
        work()
    return [*found, state(folder)]
