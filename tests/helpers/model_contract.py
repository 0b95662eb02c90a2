"""What every model of recbole-xling must do; a model's tests inherit this class and name the model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from recbole.data.dataloader import FullSortEvalDataLoader

from recbole_xling.config import XLingConfig
from recbole_xling.quick_start.build import build, build_trainer, load_run
from recbole_xling.quick_start.train import run


class ModelContract:
    """Set :attr:`model`; ``variants`` are settings under which every test runs, ``overfit`` those that overfit
    ``overfit_data``."""

    model: str
    variants: dict[str, dict[str, Any]] = {"default": {}}
    overfit: dict[str, Any] = {}
    overfit_data: dict[str, Any] = {"n_users": 30, "n_items": 12, "lengths": [8] * 30}

    def pytest_generate_tests(self, metafunc: Any) -> None:
        if "variant" in metafunc.fixturenames:
            metafunc.parametrize("variant", self.variants.values(), ids=self.variants.keys())

    @pytest.fixture
    def parts(self, small_dataset, settings, variant):
        small_dataset(lengths=[2, 3, 4, *np.random.default_rng(0).integers(5, 14, size=37)])
        return build(XLingConfig(self.model, "small", config_dict={**settings, **variant}))

    def test_trains(self, parts):
        loss = parts.model.calculate_loss(next(iter(parts.train_data)))
        assert loss.dim() == 0 and torch.isfinite(loss)
        loss.backward()
        reached = [name for name, p in parts.model.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0]
        assert reached, "no parameter gets a gradient"
        assert all(torch.isfinite(p.grad).all() for p in parts.model.parameters() if p.grad is not None)

    def test_predict_equals_full_sort_predict(self, parts):
        parts.model.eval()
        rows = parts.test_data._dataset[np.arange(len(parts.test_data._dataset))]
        with torch.no_grad():
            every = parts.model.full_sort_predict(rows)
            single = parts.model.predict(rows)
        assert every.shape == (len(rows), parts.dataset.item_num)
        torch.testing.assert_close(single, every.gather(1, rows["item_id"][:, None])[:, 0], rtol=1e-4, atol=1e-5)

    def test_padding_item_is_never_recommended(self, parts):
        parts.model.eval()
        rows = parts.test_data._dataset[np.arange(4)]
        with torch.no_grad():
            assert (parts.model.full_sort_predict(rows).argsort(dim=1)[:, 0] == 0).all()
            rows["item_id"] = torch.zeros(4, dtype=torch.long)
            assert (parts.model.predict(rows) == float("-inf")).all()

    def test_scores_do_not_depend_on_the_rest_of_the_batch(self, parts):
        parts.model.eval()
        rows = parts.test_data._dataset[np.arange(len(parts.test_data._dataset))]
        shortest = int(rows["item_length"].argmin())
        alone = parts.test_data._dataset[np.array([shortest])]
        with torch.no_grad():
            together = parts.model.full_sort_predict(rows)[shortest]
            single = parts.model.full_sort_predict(alone)[0]
        torch.testing.assert_close(together, single, rtol=1e-4, atol=1e-5)

    def test_overfits_a_small_set(self, small_dataset, settings, variant):
        small_dataset(**self.overfit_data)
        changed = {"epochs": 60, "learning_rate": 0.01, "hidden_dropout_prob": 0.0, "attn_dropout_prob": 0.0}
        changed |= self.overfit
        parts = build(XLingConfig(self.model, "small", config_dict={**settings, **variant, **changed}))
        trainer = build_trainer(parts.config, parts.model)
        trainer.fit(parts.train_data, saved=False, verbose=False)
        rows = FullSortEvalDataLoader(parts.config, parts.train_data._dataset, None)
        result = trainer.evaluate(rows, load_best_model=False)
        assert result["recall@5"] > 0.9

    def test_saved_and_loaded_model_scores_the_same(self, small_dataset, settings, variant):
        small_dataset()
        result = run(self.model, "small", config_dict={**settings, **variant})
        loaded = load_run(result["run_dir"])
        trainer = build_trainer(loaded.config, loaded.model)
        assert trainer.evaluate(loaded.test_data, load_best_model=False) == result["test"]

    def test_checkpoint_holds_trainable_weights_and_plain_data(self, small_dataset, settings, variant):
        small_dataset()
        result = run(self.model, "small", config_dict={**settings, **variant, "epochs": 1})
        path = Path(result["run_dir"]) / "model.pt"
        state = torch.load(path, weights_only=True)["state_dict"]
        model = load_run(result["run_dir"]).model
        trainable = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
        assert trainable <= set(state)
        assert path.stat().st_size < 4 * sum(t.numel() for t in state.values()) + 100_000
