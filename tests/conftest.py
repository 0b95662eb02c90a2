"""What all tests share: few threads, no arguments of pytest's own, small datasets."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import errno
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import hypothesis
import pytest
import torch

from recbole_xling.config import XLingConfig
from recbole_xling.quick_start.build import Run, build
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
def cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide a GPU from this test: it compares with, or feeds, tensors that it makes by hand."""
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)


@pytest.fixture
def small_dataset(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that writes a small dataset below ``tmp_path/data`` and returns its folder."""
    return lambda **kwargs: write_small_dataset(tmp_path / "data", **kwargs)


@pytest.fixture
def settings(tmp_path: Path) -> dict[str, Any]:
    """Settings of a fast run of a sequential model on the small dataset, everything written below ``tmp_path``."""
    model = {"hidden_size": 16, "inner_size": 32, "hidden_dropout_prob": 0.1, "attn_dropout_prob": 0.1}
    return {**small_settings(tmp_path), **model}


@pytest.fixture
def settings_without_layers(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings without those of layers, which RecBole's general models do not know."""
    return {key: value for key, value in settings.items() if not key.startswith(("hidden", "inner", "attn"))}


@pytest.fixture
def build_small(settings: dict[str, Any]) -> Callable[..., Run]:
    """Return a function that builds data and an untrained model with the settings and changed ones."""

    def build_model(model: str = "LLMSASRec", dataset: str = "small", **changed: Any) -> Run:
        return build(XLingConfig(model, dataset, config_dict={**settings, **changed}))

    return build_model


_TWO_PROCESSES = """
import json, sys
import recbole_xling
from recbole_xling.quick_start.processes import Group, run_processes
if __name__ == "__main__":
    model, settings = json.loads(sys.argv[1])
    kwargs = {"model": model, "dataset": "small", "config_dict": settings}
    print(json.dumps(run_processes(Group(nproc=2), kwargs)))
"""


@pytest.fixture
def run_two(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Return a function that runs a model on the small dataset in two processes; the result is its last line."""

    def run(model: str, settings: dict[str, Any]) -> subprocess.CompletedProcess[str]:
        script = tmp_path / "two.py"
        script.write_text(_TWO_PROCESSES)
        command = [sys.executable, "-W", "ignore", str(script)]
        command.append(json.dumps([model, {**settings, "use_gpu": False}]))  # a GPU would be needed for each
        return subprocess.run(command, capture_output=True, text=True, timeout=300)

    return run


@pytest.fixture
def full_disk() -> Callable[..., NoReturn]:
    """A function that fails as any function does that writes to a full disk."""

    def fail(*args: object, **options: object) -> NoReturn:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    return fail


@pytest.fixture
def through_file(tmp_path: Path) -> Callable[[object], object]:
    """Return a function that saves and loads a value as RecBole does, by plain torch.load."""

    def save_and_load(value: object) -> object:
        torch.save(value, tmp_path / "file.pth")
        return torch.load(tmp_path / "file.pth")

    return save_and_load
