"""LearnedMap: what is alike for the encoder is alike at the start, and earlier runs' maps stay as they are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from recbole_xling.errors import CheckpointError
from recbole_xling.model.text_encoder.encoder import TextEncoder
from recbole_xling.model.text_encoder.learned_map import LearnedMap

_TEXTS = [f"the film about {animal} and {place} {n}" for animal in "shark matrix love".split()
          for place in "beach strand".split() for n in range(8)]  # fmt: skip


def _vectors(n: int = 200, size: int = 8) -> Tensor:
    """Return vectors in a narrow cone whose axes have variances from large to small, ``(n, size)``."""
    generator = torch.Generator().manual_seed(0)
    mixed = torch.linalg.qr(torch.randn(size, size, generator=generator)).Q
    return (torch.randn(n, size, generator=generator) * 0.5 ** torch.arange(size) + 2) @ mixed


@pytest.mark.parametrize("mlp_size", [0, 16])
def test_a_map_of_the_same_size_changes_nothing_at_first(mlp_size: int) -> None:
    mapped = LearnedMap(8, 8, init="pca", mlp_size=mlp_size)
    assert not mapped.needs_start
    assert mapped(_vectors()).equal(_vectors())


def test_a_larger_map_hardly_changes_inner_products_and_trains_all_its_dimensions() -> None:
    mapped, vectors = LearnedMap(8, 12, init="pca"), _vectors()
    assert not mapped.needs_start
    torch.testing.assert_close(mapped(vectors) @ mapped(vectors).T, vectors @ vectors.T, atol=0.01, rtol=0)
    (mapped(vectors) @ mapped(vectors).T).square().sum().backward()
    assert (mapped.weight.grad.abs().sum(dim=1) > 0).all()


def test_a_smaller_map_starts_at_the_best_approximation_of_that_rank() -> None:
    """No other map of this size keeps inner products better (Eckart & Young 1936)."""
    mapped, vectors = LearnedMap(8, 3, init="pca"), _vectors()
    assert mapped.needs_start
    mapped.start_at(vectors)
    assert not mapped.needs_start
    left, values, right = torch.linalg.svd(vectors, full_matrices=False)
    best = left[:, :3] * values[:3] @ right[:3]
    torch.testing.assert_close(mapped(vectors) @ mapped(vectors).T, best @ best.T, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("size", [3, 8])
def test_whitening_gives_large_axes_about_the_same_variance(size: int) -> None:
    mapped, vectors = LearnedMap(8, size, init="whitening"), _vectors()
    assert mapped.needs_start
    mapped.start_at(vectors)
    variance = torch.linalg.eigvalsh(torch.cov(vectors.T)).flip(0)
    share = variance / (variance + 0.1 * variance.mean()) * variance.mean()
    out = mapped(vectors)
    torch.testing.assert_close(torch.cov(out.T), torch.diag(share[:size]), atol=0.01, rtol=0.01)
    torch.testing.assert_close(out.mean(dim=0), torch.zeros(size), atol=1e-5, rtol=0)


def test_vectors_without_differences_leave_the_map_as_it_is() -> None:
    mapped = LearnedMap(8, 8, init="whitening")
    before = mapped.weight.clone()
    mapped.start_at(torch.ones(5, 8))
    assert mapped.weight.equal(before)


def test_the_perceptron_beside_the_map_is_learned_and_scales_with_the_vector() -> None:
    torch.manual_seed(0)
    mapped, vectors = LearnedMap(8, 8, init="pca", mlp_size=16), _vectors()
    mapped(vectors).square().sum().backward()
    assert mapped.mlp is not None and mapped.mlp[2].weight.grad.abs().sum() > 0
    with torch.no_grad():
        mapped.mlp[2].weight.normal_()
    length = vectors.norm(dim=1, keepdim=True)
    hidden = torch.nn.functional.gelu(vectors / length * 8**0.5 @ mapped.mlp[0].weight.T + mapped.mlp[0].bias)
    torch.testing.assert_close(mapped(vectors), vectors + length * (hidden @ mapped.mlp[2].weight.T), atol=1e-3, rtol=0)
    torch.testing.assert_close(mapped(3 * vectors), 3 * mapped(vectors), atol=1e-3, rtol=0)


@pytest.mark.parametrize("settings", [{}, {"peft": "frozen"}, {"adapter_layers": 2}])
def test_an_encoder_with_a_map_starts_as_the_encoder_without(
    build_encoder: Callable[..., TextEncoder], settings: dict[str, Any]
) -> None:
    plain = build_encoder(**settings)
    tokens = plain.tokenize(_TEXTS)
    want = plain.encode_all(tokens)
    same = build_encoder(**settings, embedding_size=plain.size, embedding_init="pca")
    same.start_projection(tokens)
    assert same.encode_all(tokens).equal(want)
    smaller = build_encoder(**settings, embedding_size=plain.size // 2, embedding_init="pca")
    smaller.start_projection(tokens)
    got = smaller.encode_all(tokens)
    assert got.shape[1] == plain.size // 2
    torch.testing.assert_close(got @ got.T, want @ want.T, atol=0.01, rtol=0)


def test_a_map_that_was_loaded_is_not_started_again(build_encoder: Callable[..., TextEncoder]) -> None:
    encoder = build_encoder(embedding_size=6, embedding_init="pca")
    tokens = encoder.tokenize(_TEXTS)
    old = torch.nn.Linear(encoder.hidden_size, 6)  # of a run whose map started at random
    encoder.projection.load_state_dict(old.state_dict())
    encoder.start_projection(tokens)
    assert encoder.projection.weight.equal(old.weight) and encoder.projection.bias.equal(old.bias)


def test_a_map_is_pulled_back_to_its_start(build_encoder: Callable[..., TextEncoder]) -> None:
    encoder = build_encoder(embedding_size=6, embedding_l2_sp=0.5, embedding_mlp_size=4, embedding_init="whitening")
    encoder.start_projection(encoder.tokenize(_TEXTS))
    mapped = encoder.projection
    assert mapped is not None and mapped.mlp is not None
    assert float(encoder.regularization()) == 0
    start = mapped.weight.detach().clone()
    with torch.no_grad():
        mapped.weight += 0.1
        mapped.bias += 0.2
        mapped.mlp[2].weight += 0.3
    encoder.regularization().backward()
    torch.testing.assert_close(mapped.weight.grad, 0.5 * (mapped.weight.detach() - start))
    torch.testing.assert_close(mapped.bias.grad, torch.full((6,), 0.1))
    torch.testing.assert_close(mapped.mlp[2].weight.grad, torch.full((6, 4), 0.15))
    again = build_encoder(embedding_size=6, embedding_l2_sp=0.5, embedding_mlp_size=4, embedding_init="whitening")
    again.load_state_dict(encoder.state_dict())  # a run that is resumed
    again.load_adapter_state(encoder.adapter_state())
    again.start_projection(again.tokenize(_TEXTS))
    assert float(again.regularization()) == pytest.approx(float(encoder.regularization()))


@pytest.mark.parametrize("init", ["random", "whitening"])
def test_a_map_of_an_earlier_run_is_pulled_back_to_what_that_one_learned(
    build_encoder: Callable[..., TextEncoder], init: str
) -> None:
    free = build_encoder(embedding_size=6, embedding_init=init)  # which knows no start
    free.start_projection(free.tokenize(_TEXTS))
    assert free.projection is not None and not free.adapter_state()
    with torch.no_grad():
        free.projection.weight += 0.1
    pulled = build_encoder(embedding_size=6, embedding_init=init, embedding_l2_sp=0.5)
    pulled.load_state_dict(free.state_dict())
    pulled.start_projection(pulled.tokenize(_TEXTS))
    assert float(pulled.regularization()) == 0
    free.load_state_dict(pulled.state_dict())  # and the other way round
    with pytest.raises(CheckpointError, match="another size"):
        build_encoder(embedding_size=5, embedding_l2_sp=0.5).load_adapter_state(pulled.adapter_state())
