"""A run that is stopped and resumed, beside one that never stopped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from recbole_xling.quick_start.train import run
from recbole_xling.trainer.trainer import XLingTrainer


def resume_like_whole(
    model: str, dataset: str, settings: dict[str, Any], after: int
) -> tuple[dict[str, Any], dict[str, Any], dict[str, torch.Tensor]]:
    """Stop a run once the state after epoch ``after`` is written, resume it, and compare weights and test values.

    Args:
        model: to run.
        dataset: to run it on.
        settings: of both runs; the stopped one has a checkpoint folder of its own.
        after: epoch, from 0.

    Returns:
        Results of the whole run and of the resumed one, and the weights that both end with, bit by bit.
    """
    whole = run(model, dataset, config_dict=settings)
    killed = settings["checkpoint_dir"] + "-killed"
    save = XLingTrainer._save_resume_state

    def save_and_stop(self: XLingTrainer, epoch: int, *rest: Any) -> None:
        save(self, epoch, *rest)
        if epoch == after:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(XLingTrainer, "_save_resume_state", save_and_stop)
        with pytest.raises(KeyboardInterrupt):
            run(model, dataset, config_dict={**settings, "checkpoint_dir": killed})
    (folder,) = Path(killed).iterdir()
    resumed = run(config_dict={"resume": str(folder)})
    assert resumed["run_dir"] == str(folder) and resumed["test"] == whole["test"]
    want, got = (
        torch.load(Path(result["run_dir"]) / "last.pt", weights_only=True)["state_dict"] for result in (whole, resumed)
    )
    assert want.keys() == got.keys()
    for name, weight in want.items():
        assert torch.equal(got[name], weight), name
    return whole, resumed, got
