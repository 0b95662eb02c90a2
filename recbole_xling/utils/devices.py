"""Moving what the host made to the device that computes."""

from __future__ import annotations

import torch
from recbole.data.interaction import Interaction
from torch import Tensor


def to_device(values: Tensor, device: torch.device) -> Tensor:
    """Return values on a device; they go to a GPU from pinned memory, so that the host does not wait for the copy.

    A copy from other memory would begin, and return, only when the GPU has done all that it was asked before.
    """
    if device.type != "cuda" or values.device.type != "cpu":
        return values.to(device)
    return values.pin_memory().to(device, non_blocking=True)


def on_device(batch: Interaction, device: torch.device) -> Interaction:
    """Return a batch on a device, see :func:`to_device`."""
    return Interaction({name: to_device(values, device) for name, values in batch.interaction.items()})
