"""The contract of all models: a test class to inherit from."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from recbole.data.dataloader import FullSortEvalDataLoader
from recbole.utils import ModelType

from recbole_xling.config import XLingConfig
from recbole_xling.quick_start.build import Run, build, build_trainer, load_run
from recbole_xling.quick_start.train import run
from recbole_xling.testing.small_dataset import small_settings, write_small_dataset

_LEARNED = 0.85  # share of training interactions among the best items, by which a model that trains can be told


class _LearnedError(Exception):
    """Ends a training that has reached its aim."""


class ModelContract:
    """What every model that ranks items must do; a test class inherits it and names the model.

    ::

        class TestMyModel(recbole_xling.testing.ModelContract):
            model = MyModel
            settings = {"hidden_size": 16}

    All tests run on datasets of :func:`write_small_dataset` with :func:`small_settings`. Models that know users by
    their ids may return scores flat, as RecBole's own do, and leave the padding item to RecBole's evaluation.

    Attributes:
        model: name or class of a registered model.
        settings: settings of all tests, on top of :func:`small_settings`. Where they depend on fixtures, override the
            fixture ``base_settings``.
        variants: every test runs once with each of these settings; the keys are shown in the names of the tests.
        overfit: settings with which the model learns ``overfit_data`` by heart, usually without dropout.
        overfit_data: arguments of :func:`write_small_dataset`.
    """

    model: str | type
    settings: ClassVar[dict[str, Any]] = {}
    variants: ClassVar[dict[str, dict[str, Any]]] = {"default": {}}
    overfit: ClassVar[dict[str, Any]] = {}
    overfit_data: ClassVar[dict[str, Any]] = {"n_users": 30, "n_items": 12, "lengths": [8] * 30}

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Run each test once per variant."""
        if "variant" in metafunc.fixturenames:
            metafunc.parametrize("variant", self.variants.values(), ids=self.variants.keys())

    @pytest.fixture
    def base_settings(self, tmp_path: Path) -> dict[str, Any]:
        """Settings of all tests, without the variant's."""
        return {**small_settings(tmp_path), **self.settings}

    @pytest.fixture
    def parts(self, tmp_path: Path, base_settings: dict[str, Any], variant: dict[str, Any]) -> Run:
        """Data, loaders and the untrained model; users have histories of 0 to 11 items to rank the test item by."""
        lengths = [2, 3, 4, *np.random.default_rng(0).integers(5, 14, size=37)]
        write_small_dataset(tmp_path / "data", lengths=lengths)
        return build(XLingConfig(self.model, "small", config_dict={**base_settings, **variant}))

    def test_trains(self, parts: Run) -> None:
        """The loss is a finite number whose gradient reaches a parameter."""
        loss = parts.model.calculate_loss(next(iter(parts.train_data)).to(parts.config["device"]))
        assert loss.dim() == 0, f"the loss is a tensor of shape {tuple(loss.shape)}, not a number"
        assert torch.isfinite(loss), f"the loss is {loss.item()}"
        loss.backward()
        gradients = {name: p.grad for name, p in parts.model.named_parameters() if p.grad is not None}
        assert any(gradient.abs().sum() > 0 for gradient in gradients.values()), "no parameter gets a gradient"
        broken = [name for name, gradient in gradients.items() if not torch.isfinite(gradient).all()]
        assert not broken, f"gradients are not finite: {broken}"

    def test_predict_equals_full_sort_predict(self, parts: Run) -> None:
        """Both give the same score to the same row and item."""
        rows = _test_rows(parts)
        with torch.no_grad():
            every = _scores(parts, rows)  # (B, n_items)
            single = parts.model.predict(rows)  # (B,)
        wanted = (len(rows), parts.dataset.item_num)
        assert every.shape == wanted, f"full_sort_predict returns {tuple(every.shape)}, not {wanted}"
        torch.testing.assert_close(single, every.gather(1, rows["item_id"][:, None])[:, 0], rtol=1e-4, atol=1e-5)

    def test_padding_item_is_never_recommended(self, parts: Run) -> None:
        """Item 0 ranks last among all items, and ``predict`` gives it minus infinity."""
        if not _is_sequential(parts):
            pytest.skip("RecBole's evaluation takes care of it")
        rows = _test_rows(parts, np.arange(4))
        with torch.no_grad():
            lowest = _scores(parts, rows).argsort(dim=1)[:, 0]
            assert (lowest == 0).all(), "full_sort_predict ranks the padding item (0) above another item"
            rows["item_id"] = torch.zeros_like(rows["item_id"])
            assert (parts.model.predict(rows) == float("-inf")).all(), "predict scores the padding item (0)"

    def test_scores_do_not_depend_on_the_rest_of_the_batch(self, parts: Run) -> None:
        """The shortest history, or the first user, has the same scores alone as with others."""
        rows = _test_rows(parts)
        shortest = int(rows["item_length"].argmin()) if _is_sequential(parts) else 0
        with torch.no_grad():
            together = _scores(parts, rows)[shortest]
            alone = _scores(parts, _test_rows(parts, np.array([shortest])))[0]
        torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)

    def test_overfits_a_small_set(self, tmp_path: Path, base_settings: dict[str, Any], variant: dict[str, Any]) -> None:
        """Most of what the model was trained on is among its best five items, after all epochs at the latest."""
        write_small_dataset(tmp_path / "data", **self.overfit_data)
        changed = {"epochs": 60, "learning_rate": 0.01, **self.overfit}
        epochs = changed["epochs"]
        asked = {"metrics": ["Precision"], "topk": [5], "valid_metric": "Precision@5"}
        asked |= {"eval_step": max(1, epochs // 12), "stopping_step": epochs}
        parts = build(XLingConfig(self.model, "small", config_dict={**base_settings, **variant, **changed, **asked}))
        trainer = build_trainer(parts.config, parts.model)
        nothing = np.array([set[int]() for _ in range(parts.dataset.user_num)], dtype=object)
        nothing_met = SimpleNamespace(used_ids=nothing)
        rows = FullSortEvalDataLoader(parts.config, parts.train_data._dataset, nothing_met)
        # of five items one can be right in a row of a sequential model, and of a user of others all that he has
        users = parts.train_data._dataset.inter_feat[parts.dataset.uid_field].numpy()
        right = np.minimum(np.unique(users, return_counts=True)[1], 5).mean() if not _is_sequential(parts) else 1
        aim = _LEARNED * float(right) / 5
        found = []

        def stop_at_the_aim(epoch: int, score: float) -> None:
            found.append(score)
            if score >= aim:
                raise _LearnedError

        with suppress(_LearnedError):
            trainer.fit(parts.train_data, rows, saved=False, verbose=False, callback_fn=stop_at_the_aim)
            found.append(trainer.evaluate(rows, load_best_model=False)["precision@5"])
        last = f"precision@5 of the training interactions is {found[-1]} after {epochs} epochs, and not {aim}"
        assert found[-1] >= aim, last

    def test_saved_and_loaded_model_scores_the_same(
        self, tmp_path: Path, base_settings: dict[str, Any], variant: dict[str, Any]
    ) -> None:
        """A run's folder gives back the model: the test results are equal."""
        write_small_dataset(tmp_path / "data")
        result = run(self.model, "small", config_dict={**base_settings, **variant})
        loaded = load_run(result["run_dir"])
        again = build_trainer(loaded.config, loaded.model).evaluate(loaded.test_data, load_best_model=False)
        assert again == result["test"], f"the loaded model has {again}, the trained one had {result['test']}"

    def test_checkpoint_holds_trainable_weights_and_plain_data(
        self, tmp_path: Path, base_settings: dict[str, Any], variant: dict[str, Any]
    ) -> None:
        """``model.pt`` has all trained weights, little else, and loads without running code."""
        write_small_dataset(tmp_path / "data")
        result = run(self.model, "small", config_dict={**base_settings, **variant, "epochs": 1})
        path = Path(result["run_dir"]) / "model.pt"
        state = torch.load(path, weights_only=True)["state_dict"]
        model = load_run(result["run_dir"]).model
        trainable = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
        assert trainable <= set(state), f"not in the checkpoint: {sorted(trainable - set(state))}"
        most = 4 * sum(tensor.numel() for tensor in state.values()) + 100_000
        assert path.stat().st_size < most, f"{path.stat().st_size} bytes; the weights alone need less than {most}"


def _is_sequential(parts: Run) -> bool:
    return bool(parts.config["MODEL_TYPE"] == ModelType.SEQUENTIAL)


def _scores(parts: Run, rows: Any) -> torch.Tensor:
    """Return the scores of all items for some rows, ``(B, n_items)``, by the model in evaluation mode."""
    scores: torch.Tensor = parts.model.eval().full_sort_predict(rows)
    return scores if _is_sequential(parts) else scores.view(len(rows), -1)


def _test_rows(parts: Run, numbers: Any = None) -> Any:
    """Return some rows of the test part, all by default, on the model's device."""
    rows = parts.test_data._dataset
    return rows[np.arange(len(rows)) if numbers is None else numbers].to(parts.config["device"])
