"""AdaLoRA: ranks shrink to the target in the paper's time, and a resumed run goes on exactly."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import pytest
import torch

from recbole_xling.errors import CheckpointError, ConfigError
from recbole_xling.model.text_encoder.encoder import TextEncoder
from recbole_xling.trainer.checkpoint import trainable_state

_Build = Callable[..., TextEncoder]
_STEPS = 60
_TEXTS = ["the film about a shark", "love", "der pate am strand ein hai", "star war", "a matrix", "beach"]


def _ranks(encoder: TextEncoder) -> list[int]:
    """The rank left in each adapter: singular values that are not zero."""
    return [int((value != 0).sum()) for name, value in encoder.named_parameters() if "lora_E" in name]


def _train(encoder: TextEncoder, optimizer: torch.optim.Optimizer, steps: range) -> list[int]:
    """Pull the vectors of neighboring texts together; return the total rank after each step."""
    tokens = encoder.tokenize(_TEXTS)
    total = []
    for step in steps:
        vectors = encoder(tokens, tokens.text_of_row)
        logits = vectors @ vectors.roll(1, 0).T / 0.1
        loss = torch.nn.functional.cross_entropy(logits, torch.arange(len(_TEXTS)))
        (loss + 0.1 * encoder.regularization()).backward()
        optimizer.step()
        encoder.end_step(step)
        optimizer.zero_grad()
        total.append(sum(_ranks(encoder)))
    return total


def _start(build_encoder: _Build) -> tuple[TextEncoder, torch.optim.Optimizer]:
    encoder = build_encoder(peft="adalora", lora_rank=2)
    encoder.begin_training(_STEPS)
    trained = [parameter for parameter in encoder.parameters() if parameter.requires_grad]
    return encoder, torch.optim.AdamW(trained, lr=1e-2)


def test_ranks_shrink_to_the_target(build_encoder: _Build) -> None:
    encoder, optimizer = _start(build_encoder)
    total = _train(encoder, optimizer, range(_STEPS))
    n_adapters = 8  # query and value of four layers
    assert total[:6] == [3 * n_adapters] * 6, "full ranks in the first tenth"
    assert total[:30] == sorted(total[:30], reverse=True)
    assert total[29:] == [2 * n_adapters] * 31, "the final ranks in the last half"
    assert len(set(_ranks(encoder))) > 1, "ranks go where they are needed"


def test_the_regularization_is_the_papers(build_encoder: _Build) -> None:
    encoder = build_encoder(peft="adalora", lora_rank=2)
    gaps = []
    for name, parameter in encoder.named_parameters():
        factor = parameter.detach().double().numpy()
        if "lora_A" in name:
            gaps.append(np.linalg.norm(factor @ factor.T - np.eye(3)))
        if "lora_B" in name:
            gaps.append(np.linalg.norm(factor.T @ factor - np.eye(3)))
    assert len(gaps) == 16
    term = encoder.regularization()
    np.testing.assert_allclose(term.item(), 0.5 * np.mean(gaps), rtol=1e-5)  # peft's weight of the term is 0.5
    term.backward()
    assert all(p.grad.abs().sum() > 0 for name, p in encoder.named_parameters() if "lora_A" in name)


@pytest.mark.parametrize("cut", [3, 20, 45], ids=["first ranks", "shrinking", "final ranks"])
def test_a_resumed_run_ends_with_the_same_weights(build_encoder: _Build, cut: int) -> None:
    whole, optimizer = _start(build_encoder)
    _train(whole, optimizer, range(cut))
    file = io.BytesIO()
    state = {"weights": trainable_state(whole), "optimizer": optimizer.state_dict(), "adapters": whole.adapter_state()}
    torch.save(state, file)
    _train(whole, optimizer, range(cut, _STEPS))
    resumed, optimizer = _start(build_encoder)
    file.seek(0)
    state = torch.load(file, weights_only=True)
    resumed.load_state_dict(state["weights"], strict=False)
    optimizer.load_state_dict(state["optimizer"])
    resumed.load_adapter_state(state["adapters"])
    _train(resumed, optimizer, range(cut, _STEPS))
    assert all(torch.equal(weight, trainable_state(resumed)[name]) for name, weight in trainable_state(whole).items())


def test_a_step_with_overflown_gradients_leaves_importances_alone(build_encoder: _Build) -> None:
    encoder, optimizer = _start(build_encoder)
    _train(encoder, optimizer, range(4))
    before = {name: score.clone() for name, score in encoder.adapter_state()["scores"]["ipt"].items()}
    for parameter in encoder.parameters():
        if parameter.requires_grad:
            parameter.grad = torch.full_like(parameter, float("inf"))
    encoder.end_step(4)
    after = encoder.adapter_state()["scores"]["ipt"]
    assert before and all(torch.equal(after[name], score) for name, score in before.items())


def test_faults(build_encoder: _Build) -> None:
    encoder = build_encoder(peft="adalora")
    with pytest.raises(ConfigError, match="at least 10 optimizer steps, not 9"):
        encoder.begin_training(9)
    with pytest.raises(CheckpointError, match="another peft method"):
        encoder.load_adapter_state(build_encoder().adapter_state())
