"""Acting after an import, showing a changed module, editing a function."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import traceback

import pytest
import torch

from recbole_xling.compat import hooks


@pytest.fixture
def library(monkeypatch, tmp_path):
    """The name of a module on disk that is not imported yet."""
    (tmp_path / "compat_library.py").write_text(
        "def half(x):\n    # a comment\n    return x / 2\n\n\ndef broken(x):\n    y = x.size()\n    return y / 0\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    yield "compat_library"
    sys.modules.pop("compat_library", None)


def test_action_waits_for_the_import_and_runs_once(library):
    seen = []
    hooks.when_imported(library, lambda module: seen.append(module.half(3)))
    assert importlib.util.find_spec(library) is not None  # looking a module up is not importing it
    assert seen == []
    module = importlib.import_module(library)
    assert seen == [1.5]
    importlib.reload(module)
    assert seen == [1.5]


def test_action_runs_at_once_on_an_imported_module(library):
    module, seen = importlib.import_module(library), []
    hooks.when_imported(library, seen.append)
    assert seen == [module]


def test_changed_module_differs_in_the_named_attributes_only():
    changed = hooks.ChangedModule(torch, save="other")
    assert changed.save == "other"
    assert changed.load is torch.load
    assert callable(torch.save)
    with pytest.raises(AttributeError):
        _ = changed.no_such_name


def test_edit_reaches_references_taken_before_and_keeps_line_numbers(library):
    module = importlib.import_module(library)
    half, broken = module.half, module.broken
    hooks.edit(module.half, {"x / 2": "x // 2"})
    hooks.edit(module.broken, {"x.size()": "len(x)"})
    assert half(3) == 1
    with pytest.raises(ZeroDivisionError) as error:
        broken("ab")
    assert traceback.extract_tb(error.tb)[-1].lineno == 8


def test_edit_leaves_an_unknown_version_alone_and_says_so(library, caplog):
    module = importlib.import_module(library)
    hooks.edit(module.half, {"x / 2": "x // 2", "x * 2": "x"})
    assert module.half(3) == 1.5
    assert "x * 2" in caplog.text
