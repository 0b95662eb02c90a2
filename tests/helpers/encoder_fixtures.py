"""A tiny encoder for all tests of models."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from recbole_xling.encode.hub import find_model
from recbole_xling.model.text_encoder.encoder import TextEncoder, TextEncoderConfig
from recbole_xling.testing import make_tiny_encoder

_SETTINGS: dict[str, Any] = {
    "peft": "lora",
    "lora_rank": 4,
    "lora_alpha": 8,
    "lora_dropout": 0.0,
    "target_modules": None,
    "adapter_layers": None,
    "embedding_size": None,
    "embedding_init": "random",
    "encoder_prompt": None,
    "encoder_max_length": 32,
    "encoder_batch_size": 16,
    "mini_batch_size": 64,
    "gradient_checkpointing": False,
    "lower_layer_cache_gb": 0.0,
}


@pytest.fixture(scope="session")
def tiny_encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny XLM-R."""
    return make_tiny_encoder(tmp_path_factory.mktemp("encoder") / "tiny")


@pytest.fixture
def build_encoder(tiny_encoder: Path) -> Callable[..., TextEncoder]:
    """A function that builds the item tower with some settings; the same ones give the same weights."""

    def build(folder: Path = tiny_encoder, cache_dir: Path | None = None, **settings: Any) -> TextEncoder:
        torch.manual_seed(0)
        return TextEncoder(find_model(folder), TextEncoderConfig(**{**_SETTINGS, **settings}), cache_dir)

    return build


@pytest.fixture
def stir() -> Callable[[torch.nn.Module], None]:
    """A function that changes all trainable weights, as training would: new adapters change nothing yet."""

    def change(module: torch.nn.Module) -> None:
        torch.manual_seed(7)
        with torch.no_grad():
            for parameter in module.parameters():
                if parameter.requires_grad:
                    parameter.add_(0.1 * torch.randn_like(parameter))

    return change
