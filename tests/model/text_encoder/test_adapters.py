"""Adapters: what is trained under each method, and that they change nothing until they are trained."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch

from recbole_xling.errors import ConfigError
from recbole_xling.model.text_encoder.encoder import TextEncoder

_Build = Callable[..., TextEncoder]
_TEXTS = ["the film about a shark", "love", "der pate am strand ein hai"]


def _trained(encoder: TextEncoder) -> set[str]:
    """Names of trained weights within the transformer, without peft's own parts."""
    names = [name for name, parameter in encoder.transformer.named_parameters() if parameter.requires_grad]
    return {re.sub(r"\.(lora_|ia3_).*", "", name) for name in names}


@pytest.mark.parametrize("method", ["lora", "adalora", "ia3", "full", "frozen"])
def test_new_adapters_change_nothing(build_encoder: _Build, method: str) -> None:
    encoder = build_encoder(peft=method).eval()
    plain = build_encoder(peft="frozen").eval()
    tokens = encoder.tokenize(_TEXTS)
    torch.testing.assert_close(encoder.encode_all(tokens), plain.encode_all(tokens), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("method", ["lora", "adalora", "ia3"])
def test_default_targets_are_those_of_the_papers_in_the_top_layers_only(build_encoder: _Build, method: str) -> None:
    kinds = ["attention.self.query", "attention.self.value"]
    if method == "ia3":
        kinds = ["attention.self.key", "attention.self.value", "output.dense"]
    for layers, chosen in ((None, range(4)), (1, [3]), (3, [1, 2, 3])):
        encoder = build_encoder(peft=method, adapter_layers=layers)
        assert _trained(encoder) == {f"encoder.layer.{i}.{kind}" for i in chosen for kind in kinds}


def test_named_targets(build_encoder: _Build) -> None:
    encoder = build_encoder(adapter_layers=1, target_modules=["intermediate.dense", "key"])
    expected = {"encoder.layer.3.intermediate.dense", "encoder.layer.3.attention.self.key"}
    assert _trained(encoder) == expected


def test_rank_and_alpha(build_encoder: _Build) -> None:
    layer: Any = build_encoder(lora_rank=6, lora_alpha=12).transformer.encoder.layer[0].attention.self.query
    assert layer.lora_A["default"].weight.shape == (6, 32)
    assert layer.scaling["default"] == 2.0


def test_full_tuning_of_everything_and_of_the_top_layers(build_encoder: _Build) -> None:
    everything = build_encoder(peft="full")
    assert all(parameter.requires_grad for parameter in everything.parameters())
    for layers in (2, 4):
        names = _trained(build_encoder(peft="full", adapter_layers=layers))
        assert {name.split(".")[2] for name in names} == {str(i) for i in range(4 - layers, 4)}
        assert all(name.startswith("encoder.layer.") for name in names), "embeddings stay frozen"
    assert not any(parameter.requires_grad for parameter in build_encoder(peft="frozen").parameters())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"peft": "lara"}, "peft must be one of frozen, lora, .*, not 'lara'. Did you mean 'lora'"),
        ({"target_modules": ["querry"]}, "unknown linear layer .*'querry'.*attention.self.query.*output.dense"),
        ({"adapter_layers": 5}, "between 1 and the encoder's 4, not 5"),
        ({"adapter_layers": 0}, "adapter_layers must be at least 1, not 0"),
        ({"lora_rank": 0}, "lora_rank"),
        ({"lora_dropout": 1.0}, "lora_dropout"),
        ({"pooling": "max"}, "pooling must be one of auto, mean, cls, last, not 'max'"),
        ({"mini_batch_size": 0}, "mini_batch_size"),
        ({"encoder_max_length": 65}, "65.*takes 64 tokens at most"),
        ({"lower_layer_cache_gb": -1.0}, "lower_layer_cache_gb"),
    ],
)
def test_a_wrong_setting_is_refused(build_encoder: _Build, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build_encoder(**settings)
