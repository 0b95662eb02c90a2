"""Which loss a model has for the next item, and the negatives that the positions of a batch share in it."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, model_validator
from torch import Tensor, nn

from recbole_xling.errors import ConfigError
from recbole_xling.model.loss.sampled_softmax import (
    calibrated_bce,
    gbce_beta,
    refined_softmax,
    sampled_logits,
    sampled_softmax,
)
from recbole_xling.utils.typed_config import TypedConfig

_POWER = 0.75  # of popularity: word2vec (Mikolov et al., NeurIPS 2013), GRU4Rec (Hidasi & Karatzoglou, CIKM 2018)


class NextItemLossConfig(TypedConfig):
    """How a model learns which item comes next."""

    section: ClassVar[str] = "loss"

    loss_type: Literal["CE", "sampled_softmax", "gBCE", "SCE"] = Field(
        "CE", description="Softmax over all items, over some, calibrated binary or scalable cross entropy."
    )
    negatives: Literal["in_batch", "uniform", "mixed", "popularity"] = Field(
        "in_batch", description="Negatives of `sampled_softmax`; `gBCE` needs `uniform`."
    )
    n_negatives: int = Field(
        1024, ge=1, description="Negatives shared by the positions of a batch; items of a bucket of `SCE`."
    )
    logq_correction: Literal[True, False, "refined"] = Field(
        True, description="Correct negatives by how often they are drawn, as Yi et al. do, or refined."
    )
    gbce_t: float = Field(0.75, ge=0, le=1, description="Calibration of `gBCE`: 0 for plain binary cross entropy.")

    @property
    def idle(self) -> list[str]:
        """Which of these settings change nothing beside the others."""
        draws = self.loss_type in ("sampled_softmax", "gBCE")
        reads = {
            "n_negatives": draws or self.loss_type == "SCE",
            # of even draws the plain correction is a constant
            "logq_correction": self.loss_type == "sampled_softmax"
            and (self.negatives != "uniform" or self.logq_correction == "refined"),
            "gbce_t": self.loss_type == "gBCE",
        }
        return [key for key, does in reads.items() if not does]

    @model_validator(mode="after")
    def _loss_uses_the_negatives(self) -> NextItemLossConfig:
        if self.loss_type in ("CE", "SCE") and self.negatives != "in_batch":
            raise ConfigError(
                f"negatives={self.negatives} is for a loss over drawn items, not for loss_type={self.loss_type}: set "
                "loss_type to sampled_softmax, or leave negatives out"
            )
        if self.loss_type == "gBCE" and self.negatives != "uniform":
            raise ConfigError(f"gBCE is calibrated for even draws, not negatives={self.negatives}: set uniform")
        return self


class SharedNegatives(nn.Module):
    """Items drawn for a batch, and the loss of its positions over them and their targets.

    - ``in_batch``: targets of the batch; their rate is that of the item in an epoch.
    - ``uniform``: even draws.
    - ``mixed``: half of each (Yang et al., "Mixed Negative Sampling", WWW 2020 Companion).
    - ``popularity``: by the number of training interactions to the power of 0.75.

    They are drawn from torch's generator, whose state checkpoints keep.

    Args:
        config: loss and negatives.
        counts: training interactions of each item, ``(n_items,)``.
        targets: returns how often an epoch has it as a target, ``(n_items,)``; asked where negatives are of the batch.
        candidates: the items that may be drawn.

    Attributes:
        rate: each item's share of the draws, ``(n_items,)``.
    """

    candidates: Tensor
    rate: Tensor
    cumulated: Tensor

    def __init__(
        self,
        config: NextItemLossConfig,
        counts: NDArray[np.int64],
        targets: Callable[[], NDArray[np.float64]],
        candidates: Tensor,
    ) -> None:
        super().__init__()
        self.kind, self.number = config.negatives, config.n_negatives
        self._n_targets = self.number // 2  # of `mixed`
        needed = config.loss_type == "sampled_softmax" and (
            self.kind != "uniform" or config.logq_correction == "refined"
        )
        self.correction = config.logq_correction if needed else False  # of even draws it is a constant
        self.beta = gbce_beta(self.number, len(candidates), config.gbce_t) if config.loss_type == "gBCE" else None
        even = np.zeros(len(counts))
        even[candidates.numpy()] = 1 / max(1, len(candidates))
        rate = even
        if self.kind in ("in_batch", "mixed"):
            rate = targets()
            rate = rate / max(1, rate.sum())
            if self.kind == "mixed":
                of_targets = self._n_targets / self.number  # an odd number has more even draws
                rate = of_targets * rate + (1 - of_targets) * even
        elif self.kind == "popularity":
            rate = np.where(even > 0, counts, 0) ** _POWER
            rate = rate / max(1, rate.sum())
        self.register_buffer("candidates", candidates, persistent=False)
        self.register_buffer("rate", torch.from_numpy(rate).float(), persistent=False)
        if self.kind == "popularity":
            cumulated = torch.from_numpy(np.cumsum(rate[candidates.numpy()]))
            self.register_buffer("cumulated", cumulated, persistent=False)

    def draw(self, target: Tensor) -> Tensor:
        """Draw the negatives of a batch, ``(K,)``, given its targets, ``(N,)``."""
        device = target.device
        if self.kind == "in_batch":
            return target[torch.randperm(len(target), device=device)[: self.number]]
        if self.kind == "popularity":
            drawn = torch.rand(self.number, device=device, dtype=torch.double) * self.cumulated[-1]
            place = torch.searchsorted(self.cumulated, drawn, right=True)
            return self.candidates[place.clamp_max(len(self.candidates) - 1)]
        n_targets = self._n_targets if self.kind == "mixed" and len(target) else 0
        even = torch.randint(len(self.candidates), (self.number - n_targets,), device=device)
        if not n_targets:
            return self.candidates[even]
        return torch.cat([target[torch.randint(len(target), (n_targets,), device=device)], self.candidates[even]])

    def forward(
        self,
        hidden: Tensor,
        positive: Tensor,
        negative: Tensor,
        *,
        target: Tensor,
        negative_id: Tensor,
        position_weight: Tensor,
        prior: Tensor,
    ) -> Tensor:
        """Return the loss of a batch, a scalar.

        Args:
            hidden: ``(N, H)`` user states.
            positive: ``(N, H)`` vectors of the targets.
            negative: ``(K, H)`` vectors of the negatives.
            target: ``(N,)`` item ids of the targets.
            negative_id: ``(K,)`` item ids of the negatives.
            position_weight: ``(N,)``; ``1 / N`` everywhere gives the mean.
            prior: ``(n_items,)`` what a score adds to the match of user and item.
        """
        of_target, of_negative = prior[target], prior[negative_id]
        if self.correction:
            of_negative = of_negative - self._log_rate(negative_id)
        if self.correction is True:
            of_target = of_target - self._log_rate(target)
        right, wrong = sampled_logits(hidden, positive, negative, target, negative_id, of_target, of_negative)
        if self.beta is not None:
            return calibrated_bce(right, wrong, self.beta, position_weight)
        if self.correction == "refined":
            return refined_softmax(right, wrong, self.rate[target], position_weight)
        return sampled_softmax(right, wrong, position_weight)

    def _log_rate(self, items: Tensor) -> Tensor:
        return self.rate[items].clamp_min(1e-30).log()
