"""Weights that do not fit into memory are an error before they are written there."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from recbole_xling.errors import ConfigError
from recbole_xling.utils.memory import weights_in_memory


def test_a_model_stops_at_the_module_with_which_it_is_larger_than_memory(monkeypatch, build_small, small_dataset):
    small_dataset()
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(total=2**20))
    assert build_small(hidden_size=16).model is not None
    with pytest.raises(ConfigError, match=r"LLMSASRec: the weights alone need more than this machine's memory"):
        build_small(hidden_size=256)
    torch.nn.Linear(1024, 1024)  # outside of a model nothing is counted


def test_what_the_system_refuses_at_once_is_the_same_error():
    with pytest.raises(ConfigError, match="the weights alone need more"), weights_in_memory("A"):
        torch.nn.Linear(2**24, 2**24)


def test_all_modules_count_together(monkeypatch):
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(total=1000))
    with weights_in_memory("A"), torch.no_grad():
        torch.nn.Linear(10, 20, bias=False)  # 800 bytes
        with pytest.raises(ConfigError, match=r"by 'weight' of \(10, 10\)"):
            torch.nn.Linear(10, 10, bias=False)
