"""AdaLoRA's schedule: ranks are taken from the adapters that need them least while training goes on.

Source: Zhang et al., "Adaptive Budget Allocation for Parameter-Efficient Fine-Tuning" (ICLR 2023), in peft's
implementation, which leaves the calls at the right moments to the training loop.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from recbole_xling.errors import CheckpointError, ConfigError

_SCORES = ("ipt", "exp_avg_ipt", "exp_avg_unc")  # importance, its moving average, and that of its uncertainty
_MIN_STEPS = 10


class RankAllocation:
    """The rank allocator of an encoder with AdaLoRA adapters.

    The paper's proportions: full ranks for the first tenth of the steps, final ones for the last half, and between
    them the budget falls with the cube of the remaining part; ranks are re-allocated every 500th of the steps.

    Args:
        model: what peft made of the encoder.
    """

    def __init__(self, model: Any) -> None:
        self._tuner = model.base_model
        self._config = model.peft_config[self._tuner.trainable_adapter_name]
        self._allocator = self._tuner.rankallocator

    def begin_training(self, total_steps: int) -> None:
        """Lay the schedule out over the optimiser's steps.

        Raises:
            ConfigError: there are too few steps for one.
        """
        if total_steps < _MIN_STEPS:
            raise ConfigError(f"peft: adalora needs at least {_MIN_STEPS} optimiser steps, not {total_steps}; use lora")
        self._config.tinit, self._config.tfinal = total_steps // 10, total_steps // 2
        self._config.deltaT = max(1, total_steps // 500)
        self._allocator.set_total_step(total_steps)

    @torch.no_grad()
    def end_step(self, step: int) -> None:
        """Update importances and take ranks away: after the optimiser's step ``step``, counted from 0."""
        done = step + 1
        allocating = done < self._config.total_step - self._config.tfinal
        if allocating and not self._usable_gradients():  # a step that the gradient scaler left out
            return
        self._tuner.update_and_allocate(done)

    def regularisation(self) -> Tensor:
        """Return the term that keeps both factors of each update orthogonal, the paper's R, weighted and averaged."""
        gaps = []
        for name, factor in self._tuner.model.named_parameters():
            if "lora_A" in name or "lora_B" in name:
                gaps.append(_distance_from_orthogonal(factor if "lora_A" in name else factor.T))
        return self._config.orth_reg_weight * torch.stack(gaps).mean()

    def state(self) -> dict[str, Any]:
        """Return what an exact resume needs beside the weights, as plain data and tensors."""
        scores = {kind: dict(getattr(self._allocator, kind)) for kind in _SCORES}
        return {"scores": scores, "rank_pattern": self._config.rank_pattern}

    def load_state(self, state: dict[str, Any]) -> None:
        """Take over what :meth:`state` returned.

        Raises:
            CheckpointError: it was not made by AdaLoRA.
        """
        if state.keys() != {"scores", "rank_pattern"}:
            raise CheckpointError("the checkpoint holds no ranks: it was trained with another peft method than adalora")
        device = next(self._tuner.parameters()).device
        for kind in _SCORES:
            setattr(self._allocator, kind, {name: score.to(device) for name, score in state["scores"][kind].items()})
        self._config.rank_pattern = state["rank_pattern"]

    def _usable_gradients(self) -> bool:
        factors = [factor for name, factor in self._tuner.model.named_parameters() if "lora_" in name]
        return all(factor.grad is not None and bool(factor.grad.isfinite().all()) for factor in factors)


def _distance_from_orthogonal(factor: Tensor) -> Tensor:
    """Return the Frobenius norm of ``factor @ factor.T - I`` for ``(r, n)``."""
    with torch.autocast(factor.device.type, enabled=False):
        gram = factor @ factor.T  # (r, r)
        return torch.linalg.matrix_norm(gram - torch.eye(len(gram), device=gram.device))
