"""State that models keep outside their weights."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from recbole_xling.trainer.plain_state import PlainState


class Counting(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(2, 2)
        self.frozen = nn.Parameter(torch.zeros(2), requires_grad=False)
        self.steps, self.rate, self.name = 0, 0.5, "model"
        self.history = torch.zeros(3)
        self.order = np.arange(4)
        self.large = torch.zeros(5)
        self.inner.seen = 0
        self.restored = None

    def other_parameter(self):
        return {"restored": self.restored}

    def train_a_little(self):
        self.steps += 3
        self.history[1] += 2
        self.order[:] = self.order[::-1].copy()
        with torch.no_grad():
            self.frozen.copy_(torch.ones(2))
        self.inner.seen = 7
        self.inner.weight.data += 1
        self.restored = torch.ones(1)
        self.late = torch.tensor([1.0], requires_grad=True) * 2
        self.eval()


def test_a_tensor_that_takes_the_place_of_another_in_memory_has_changed():
    model = Counting()
    model.history = torch.ones(3)
    state = PlainState(model)
    for step in range(1, 21):
        model.history = model.history * 0.9
        assert "history" in state.changed()[""], step


def test_only_what_changed_is_kept_and_comes_back_in_another_model():
    one, other = Counting(), Counting()
    state = PlainState(one)
    assert state.changed() == {}
    one.train_a_little()
    changed = state.changed()
    assert set(changed[""]) == {"steps", "history", "order", "frozen", "late"} and set(changed["inner"]) == {"seen"}
    resumed = PlainState(other)
    resumed.load(changed)
    assert resumed.changed()[""].keys() == changed[""].keys()  # so a second interruption loses nothing
    assert (other.steps, other.inner.seen, other.restored) == (3, 7, None)
    assert other.history.tolist() == [0, 2, 0] and other.order.tolist() == [3, 2, 1, 0]
    assert other.frozen.tolist() == [1, 1] and isinstance(other.frozen, nn.Parameter)
    assert other.late.tolist() == [2] and not other.late.requires_grad
    assert not torch.equal(one.inner.weight, other.inner.weight)  # weights are the state dict's
