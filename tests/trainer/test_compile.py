"""torch.compile by option: the same numbers, under the same names."""

from __future__ import annotations

import pytest
import torch

from recbole_xling.errors import ConfigError
from recbole_xling.quick_start.build import build_trainer


@pytest.fixture
def trainer(small_dataset, build_small):
    """Return a function that builds model, data and trainer."""
    small_dataset()

    def build(model="LLMSASRec", **changed):
        run = build_small(model, hidden_dropout_prob=0.0, attn_dropout_prob=0.0, **changed)
        return build_trainer(run.config, run.model), next(iter(run.train_data)), run.model

    return build


@pytest.mark.slow
def test_compiled_layers_give_the_loss_and_the_gradients_of_plain_ones(trainer):
    found = []
    for backend in (None, "aot_eager"):
        _, batch, model = trainer(torch_compile=backend, id_dropout_prob=0.0)
        loss = model.calculate_loss(batch)
        loss.backward()
        found.append((loss.detach(), {name: p.grad for name, p in model.named_parameters() if p.grad is not None}))
    torch.testing.assert_close(found[1][0], found[0][0])
    assert found[1][1].keys() == found[0][1].keys()
    for name, gradient in found[1][1].items():
        torch.testing.assert_close(gradient, found[0][1][name], rtol=1e-4, atol=1e-6)


def test_a_backend_that_torch_does_not_have_is_refused(trainer):
    with pytest.raises(ConfigError, match=r"unknown backend of torch_compile 'inducter'.*inductor"):
        trainer(torch_compile="inducter")


def test_a_model_that_does_not_say_what_to_compile_is_told(trainer, caplog):
    trainer("SASRec", torch_compile="eager")
    assert "torch_compile has no effect: SASRec does not say what to compile" in caplog.text
