"""UntunedVectors: each text is encoded once per encoder, whatever has been tuned since."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from recbole_xling.model.text_encoder.encoder import TextEncoder

_Build = Callable[..., TextEncoder]
_TEXTS = ["the film about a shark", "love", "", "der pate am strand ein hai", "love"]


def _count_runs(encoder: TextEncoder, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list that grows by the number of texts of each pass through the transformer."""
    seen: list[int] = []
    forward = encoder.transformer.forward

    def counting(*given: Any, **named: Any) -> Any:
        seen.append(len(named["input_ids"]))
        return forward(*given, **named)

    monkeypatch.setattr(encoder.transformer, "forward", counting)
    return seen


@pytest.mark.parametrize("settings", [{"peft": "frozen"}, {"peft": "lora", "adapter_layers": 2}])
def test_a_second_run_reads_what_the_first_one_encoded(
    build_encoder: _Build, stir: Any, settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = build_encoder(cache_dir=tmp_path, **settings)
    tokens = first.tokenize(_TEXTS)
    stir(first.adapted)
    ids = torch.tensor([3, 0, 3, 1])
    seen = _count_runs(first, monkeypatch)
    with torch.autocast("cpu"):
        want = first.untuned(tokens, ids)
    assert sum(seen) == tokens.n_texts == 4 and want.dtype == torch.float32
    torch.testing.assert_close(want, build_encoder(peft="frozen")(tokens, ids), atol=1e-6, rtol=0)
    second = build_encoder(cache_dir=tmp_path, **settings)
    again = _count_runs(second, monkeypatch)
    tokens = second.tokenize([*_TEXTS, "a new one"])
    assert second.untuned(tokens, ids).equal(want)
    assert again == [1]


def test_another_reading_of_the_texts_is_kept_apart(build_encoder: _Build, tmp_path: Path) -> None:
    ids = torch.arange(4)
    for changed in ({}, {"pooling": "cls"}, {"encoder_max_length": 4}, {"encoder_prompt": "query: "}):
        encoder, plain = (build_encoder(peft="frozen", cache_dir=folder, **changed) for folder in (tmp_path, None))
        tokens = encoder.tokenize(_TEXTS)
        torch.testing.assert_close(encoder(tokens, ids), plain(tokens, ids), atol=1e-6, rtol=0)


def test_training_goes_on_as_it_was(build_encoder: _Build) -> None:
    encoder = build_encoder(peft="lora").train()
    trained = [name for name, p in encoder.named_parameters() if p.requires_grad]
    encoder.untuned(encoder.tokenize(_TEXTS), torch.tensor([0]))
    assert encoder.training and encoder.transformer.training
    assert trained == [name for name, p in encoder.named_parameters() if p.requires_grad]
