"""RecBole's Config for any model."""

from __future__ import annotations

import sys

import pytest
from recbole.config import Config


@pytest.fixture
def config(monkeypatch, tmp_path):
    """A function that makes RecBole's Config for a model and a dataset below tmp_path."""
    monkeypatch.setattr(sys, "argv", ["test"])
    monkeypatch.chdir(tmp_path)

    def make(model: str = "BPR", dataset: str = "toy", config_class: type = Config, **settings: object) -> Config:
        settings = {"data_path": str(tmp_path), "load_col": None, "state": "ERROR"} | settings
        return config_class(model=model, dataset=dataset, config_dict=settings)

    return make
