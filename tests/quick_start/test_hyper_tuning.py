"""RecBole's own HyperTuning searches settings of our models."""

from __future__ import annotations

import pytest
import yaml

pytest.importorskip("hyperopt")


def test_recboles_hyper_tuning_runs_our_models(small_dataset, settings, tmp_path):
    from recbole.quick_start import objective_function
    from recbole.trainer import HyperTuning

    import recbole_xling  # noqa: F401 - makes RecBole know our models

    small_dataset()
    (tmp_path / "fixed.yaml").write_text(yaml.safe_dump({**settings, "model": "LLMSASRec", "dataset": "small"}))
    (tmp_path / "params.txt").write_text("n_layers choice [1,2]\n")
    search = HyperTuning(
        objective_function,
        algo="random",
        max_evals=2,
        params_file=str(tmp_path / "params.txt"),
        fixed_config_file_list=[str(tmp_path / "fixed.yaml")],
    )
    search.run()
    assert search.best_params["n_layers"] in (1, 2)
    assert all(found["best_valid_score"] > 0 for found in search.params2result.values())
