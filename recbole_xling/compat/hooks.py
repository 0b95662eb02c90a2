"""Tools that fix a library in memory: act after an import, show a changed module, edit a function."""

from __future__ import annotations

import importlib.abc
import inspect
import logging
import sys
import textwrap
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec
from types import CodeType, FunctionType, ModuleType
from typing import Any

logger = logging.getLogger(__name__)

Action = Callable[[ModuleType], None]


class _AfterImport(importlib.abc.MetaPathFinder):
    """Finds nothing itself: lets the other finders find a module, and runs an action once the module is executed."""

    def __init__(self) -> None:
        self.actions: dict[str, list[Action]] = {}
        self.kept: dict[str, list[tuple[Callable[[], Any], Callable[[Any], Any]]]] = {}

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname not in self.actions and fullname not in self.kept:
            return None
        for finder in sys.meta_path:
            spec = None if finder is self else finder.find_spec(fullname, path, target)
            if spec is not None:
                break
        else:
            return None
        if spec.loader is not None:
            execute = spec.loader.exec_module

            def exec_module(module: ModuleType) -> None:
                before = [(write, read()) for read, write in self.kept.pop(fullname, ())]
                execute(module)
                for write, value in before:
                    write(value)
                for action in self.actions.pop(fullname, ()):
                    action(module)

            setattr(spec.loader, "exec_module", exec_module)  # noqa: B010  (mypy: a method may not be assigned to)
        return spec


_after_import = _AfterImport()


def when_imported(name: str, action: Action) -> None:
    """Run ``action(module)`` now if the module ``name`` is imported, or else right after its first import."""
    if name in sys.modules:
        action(sys.modules[name])
        return
    _after_import.actions.setdefault(name, []).append(action)
    _watch_imports()


def keep_during_import(name: str, read: Callable[[], Any], write: Callable[[Any], Any]) -> None:
    """Put back with ``write`` what ``read`` returned before the module ``name`` was imported for the first time."""
    if name not in sys.modules:
        _after_import.kept.setdefault(name, []).append((read, write))
        _watch_imports()


def _watch_imports() -> None:
    if _after_import not in sys.meta_path:
        sys.meta_path.insert(0, _after_import)


class ChangedModule(ModuleType):
    """A substitute for ``module`` in which a few names differ; every other name is looked up in ``module``.

    Put in place of ``import torch`` in one module of RecBole, it changes what that module calls and nothing else.
    """

    def __init__(self, module: ModuleType, **changed: Any) -> None:
        super().__init__(module.__name__, module.__doc__)
        self.__dict__.update(changed)
        self._module = module

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name)


def edit(function: FunctionType, changes: dict[str, str]) -> None:
    """Replace pieces of source text in a function of a library, in memory, wherever the function is in use.

    ``changes`` maps old text to new text. A change must not add or remove lines, so that tracebacks keep pointing at
    the right one. A function that lacks one of the old texts is another version than the one the change was written
    for: it is left alone as a whole, with a warning.
    """
    source = textwrap.dedent(inspect.getsource(function))
    for old, new in changes.items():
        if old not in source:
            where = f"{function.__module__}.{function.__qualname__}"
            logger.warning("%s does not contain %r, so it is left as it is; is this RecBole 1.2.1?", where, old)
            return
        source = source.replace(old, new)
    code = function.__code__
    module_code = compile("\n" * (code.co_firstlineno - 1) + source, code.co_filename, "exec", dont_inherit=True)
    function.__code__ = next(c for c in module_code.co_consts if isinstance(c, CodeType) and c.co_name == code.co_name)
