"""The mean of the weights of several epochs."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from recbole_xling.trainer.checkpoint import trainable_state


class CheckpointAverage:
    """Keeps the weights of the last epochs, and puts their mean into the model for validation and saving.

    Training itself goes on with the weights as they are. Averages transfer better to languages that training did not
    have, without a choice of an epoch by their validation data (Schmidt et al., "Free Lunch: Robust Cross-Lingual
    Transfer via Model Checkpoint Averaging", ACL 2023, arXiv:2305.16834).

    Args:
        model: the model.
        number: epochs; 1 for no average.
    """

    def __init__(self, model: nn.Module, number: int) -> None:
        self._model, self.number = model, number
        self._epochs: deque[dict[str, Tensor]] = deque(maxlen=number)

    def add(self) -> None:
        """Keep the weights of an epoch that has just been trained."""
        if self.number > 1:
            self._epochs.append({name: tensor.clone() for name, tensor in trainable_state(self._model).items()})

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Let the model have the mean of the epochs' weights meanwhile."""
        is_mean = self.load_mean()
        try:
            yield
        finally:
            if is_mean:
                self._model.load_state_dict(self._epochs[-1], strict=False)

    def load_mean(self) -> bool:
        """Give the model the mean of the epochs' weights; what is not a number with a fraction stays the last one.

        Returns:
            Whether there are several epochs; else the model keeps the weights that it has.
        """
        if len(self._epochs) < 2:
            return False
        mean = {
            name: torch.stack([epoch[name] for epoch in self._epochs]).mean(dim=0)
            for name, last in self._epochs[-1].items()
            if last.is_floating_point()
        }
        self._model.load_state_dict(mean, strict=False)
        return True

    def state(self) -> list[dict[str, Tensor]]:
        """Return what an exact resume needs: the weights of all epochs but the last, which are the model's."""
        return list(self._epochs)[:-1]

    def load_state(self, epochs: Sequence[Mapping[str, Tensor]]) -> None:
        """Restore what :meth:`state` returned, where the model has the last epoch's weights already."""
        if self.number > 1:
            device = {name: tensor.device for name, tensor in trainable_state(self._model).items()}
            for epoch in epochs:
                self._epochs.append({name: tensor.to(device[name]) for name, tensor in epoch.items()})
            self.add()
