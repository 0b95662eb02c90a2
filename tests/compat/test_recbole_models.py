"""RecBole's own models train, save and reload."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

MATRIX = Path(__file__).parents[1] / "matrix" / "recbole_models.py"

pytestmark = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="RecBole's quick start needs ray")


def load_matrix_script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("recbole_models", MATRIX)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("model", list(load_matrix_script().MODELS))
def test_recbole_trains_saves_and_reloads_its_own_model(model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    load_matrix_script().check(model)
