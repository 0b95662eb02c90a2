"""What all tests share: few threads, no arguments of pytest's own, small datasets."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from collections.abc import Callable
from pathlib import Path

import hypothesis
import pytest
import torch

from recbole_xling.testing import small_settings, write_small_dataset

torch.set_num_threads(1)
# An example takes as long as the machine lets it: no deadline where other programs run as well.
hypothesis.settings.register_profile("shared machine", deadline=None)
hypothesis.settings.load_profile("shared machine")

pytest_plugins = ["encoder_fixtures"]


@pytest.fixture(autouse=True)
def own_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    """RecBole's plain Config reads sys.argv; pytest's arguments are not meant for it."""
    monkeypatch.setattr("sys.argv", ["test"])


@pytest.fixture
def small_dataset(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that writes a small dataset below ``tmp_path/data`` and returns its folder."""
    return lambda **kwargs: write_small_dataset(tmp_path / "data", **kwargs)


@pytest.fixture
def settings(tmp_path: Path) -> dict[str, object]:
    """Settings of a fast run on the small dataset, everything written below ``tmp_path``."""
    model = {"hidden_size": 16, "inner_size": 32, "hidden_dropout_prob": 0.1, "attn_dropout_prob": 0.1}
    return {**small_settings(tmp_path), **model}


@pytest.fixture
def through_file(tmp_path: Path) -> Callable[[object], object]:
    """Return a function that saves and loads a value as RecBole does, by plain torch.load."""

    def save_and_load(value: object) -> object:
        torch.save(value, tmp_path / "file.pth")
        return torch.load(tmp_path / "file.pth")

    return save_and_load
