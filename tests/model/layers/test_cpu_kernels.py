"""Attention and dropout of other libraries' layers: the same values and gradients as torch's."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recbole_xling.model.layers.cpu_kernels import CpuTraining

MASKS = {
    "none": None,
    "boolean": torch.ones(3, 1, 5, 5, dtype=torch.bool).index_fill(3, torch.tensor([4]), False),
    "added": torch.zeros(3, 1, 5, 5).index_fill(3, torch.tensor([4]), float("-inf")),
}


def inputs() -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(3, 2, 5, 4, generator=generator, requires_grad=True) for _ in range(3)]


@pytest.mark.parametrize(
    ("mask", "options"),
    [*((mask, options) for mask in MASKS for options in ({}, {"scale": 0.3})), ("none", {"is_causal": True})],
)
def test_attention_and_its_gradients_are_those_of_torch(mask: str, options: dict[str, float]) -> None:
    results = []
    for mode in (CpuTraining(), torch.enable_grad()):
        tensors = inputs()
        with mode:
            mixed = F.scaled_dot_product_attention(*tensors, attn_mask=MASKS[mask], **options)
        mixed.square().sum().backward()
        results.append([mixed, *(tensor.grad for tensor in tensors)])
    torch.testing.assert_close(*results)


def test_dropout_of_attention_weights_has_their_share_and_mean() -> None:
    query, key, value = (tensor.detach().expand(500, *tensor.shape).flatten(0, 1) for tensor in inputs())
    value = torch.eye(5).expand(len(query), 2, 5, 5)  # so that the result is the weights themselves
    torch.manual_seed(0)
    with CpuTraining():
        weights = F.scaled_dot_product_attention(query, key, value, dropout_p=0.25)
    plain = F.scaled_dot_product_attention(query, key, value)
    assert (weights == 0).float().mean() == pytest.approx(0.25, abs=0.01)
    torch.testing.assert_close(weights[weights > 0], (plain / 0.75)[weights > 0])


def test_dropout_modules_drop_their_share_in_training_only() -> None:
    layer, ones = nn.Dropout(0.1), torch.ones(100_000)
    torch.manual_seed(0)
    with CpuTraining():
        dropped = layer(ones)
        kept = layer.eval()(ones)
    assert (dropped == 0).float().mean() == pytest.approx(0.1, abs=0.01)
    assert dropped.max().item() == pytest.approx(1 / 0.9, rel=1e-4)
    assert torch.equal(kept, ones)


def test_nothing_is_changed_without_gradients() -> None:
    tensors = [tensor.detach() for tensor in inputs()]
    with CpuTraining():
        mixed = F.scaled_dot_product_attention(*tensors)
    assert torch.equal(mixed, F.scaled_dot_product_attention(*tensors))
