"""Scalable cross entropy: the paper's steps one by one, the full softmax as a limit, gradients, and memory."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from recbole_xling.model.loss.linear_cross_entropy import linear_cross_entropy
from recbole_xling.model.loss.scalable_cross_entropy import scalable_cross_entropy


def inputs(n_states: int, n_items: int, size: int = 8, seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        "hidden": torch.randn(n_states, size, generator=generator).requires_grad_(),
        "weight": torch.randn(n_items, size, generator=generator).requires_grad_(),
        "target": torch.randint(n_items, (n_states,), generator=generator),
        "position_weight": torch.rand(n_states, generator=generator),
        "bias": torch.randn(n_items, generator=generator),
    }


def by_loops(given: dict[str, torch.Tensor], n_items: int) -> torch.Tensor:
    """Mezentsev et al. 2024, with the constants of items as a further dimension of their vectors."""
    states = torch.cat([given["hidden"], torch.ones(len(given["hidden"]), 1)], dim=1)
    table = torch.cat([given["weight"], given["bias"][:, None]], dim=1)
    target = given["target"]
    n_buckets = round(2 * len(states) ** 0.5)
    centers = torch.randn(len(states), n_buckets).T @ states
    losses: dict[int, list[torch.Tensor]] = {}
    for center in centers:
        near = (table @ center).topk(n_items).indices.tolist()
        for row in (states @ center).topk(n_buckets).indices.tolist():
            items = [int(target[row]), *(item for item in near if item != target[row])]
            loss = torch.nn.functional.cross_entropy((table[items] @ states[row])[None], torch.tensor([0]))
            losses.setdefault(row, []).append(loss)
    rows = list(losses)
    largest = torch.stack([torch.stack(losses[row]).max() for row in rows])
    weight = given["position_weight"]
    return (largest * weight[rows]).sum() / weight[rows].sum() * weight.sum()


def test_equals_the_papers_steps_and_their_gradients():
    given = inputs(60, 40)
    torch.manual_seed(5)
    got = scalable_cross_entropy(**given, n_items=12)
    torch.manual_seed(5)
    want = by_loops(given, 12)
    torch.testing.assert_close(got, want)
    parts = given["hidden"], given["weight"]
    for a, b in zip(torch.autograd.grad(got, parts), torch.autograd.grad(want, parts), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_buckets_of_all_items_are_the_full_softmax():
    given = inputs(4, 30)  # as many buckets, each with all states
    got = scalable_cross_entropy(**given, n_items=1000)
    logits = given["hidden"] @ given["weight"].T + given["bias"]
    want = torch.nn.functional.cross_entropy(logits, given["target"], reduction="none") @ given["position_weight"]
    torch.testing.assert_close(got, want)


def test_few_near_items_stand_for_most_of_the_softmax():
    """The same number of even draws, as a sampled softmax without correction has, is much further off."""
    given = inputs(256, 2000, 16)
    logits = given["hidden"] @ given["weight"].T + given["bias"]
    full = torch.nn.functional.cross_entropy(logits, given["target"], reduction="none") @ given["position_weight"]
    torch.manual_seed(0)
    near = scalable_cross_entropy(**given, n_items=100)
    kept = torch.zeros(2000, dtype=torch.bool).index_fill(0, torch.randperm(2000)[:100], True)
    even = logits.masked_fill(~kept & ~torch.nn.functional.one_hot(given["target"], 2000).bool(), float("-inf"))
    even = torch.nn.functional.cross_entropy(even, given["target"], reduction="none") @ given["position_weight"]
    assert 0 < full - near < (full - even) / 2


def test_a_batch_without_targets_has_no_loss():
    given = {name: tensor[:0] if len(tensor) == 4 else tensor for name, tensor in inputs(4, 9).items()}
    assert scalable_cross_entropy(**given, n_items=3) == 0


class Memory(TorchDispatchMode):
    """Counts the bytes of the tensors that operations make and of those that live on for the backward pass."""

    def __init__(self) -> None:
        super().__init__()
        self.largest = self.saved = 0
        self.hooks = torch.autograd.graph.saved_tensors_hooks(self.keep, lambda tensor: tensor)

    def keep(self, tensor: torch.Tensor) -> torch.Tensor:
        self.saved += tensor.untyped_storage().nbytes() if tensor.grad_fn is not None else 0
        return tensor

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if isinstance(out, torch.Tensor):
            self.largest = max(self.largest, out.untyped_storage().nbytes())
        return out


@pytest.mark.parametrize("loss", [partial(scalable_cross_entropy, n_items=256), linear_cross_entropy])
def test_takes_a_tenth_of_the_memory_of_a_softmax_over_all_logits_at_most(loss):
    n_positions, n_items = 2048, 50_000
    given = inputs(n_positions, n_items)
    found = []
    for by_name in (False, True):
        with Memory() as memory, memory.hooks:
            if by_name:
                loss(**given)
            else:
                logits = given["hidden"] @ given["weight"].T + given["bias"]
                torch.nn.functional.cross_entropy(logits, given["target"])
        found.append((memory.largest, memory.saved))
    full, other = found
    assert full[0] >= n_positions * n_items * 4
    for most, used in zip(full, other, strict=True):
        assert used < most / 10
