"""What a model keeps outside its weights and changes as it trains, so that a resumed run has it as well."""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from recbole_xling.utils.plain_data import from_plain, to_plain


class PlainState:
    """The numbers, tensors and arrays among a model's attributes that are no longer what they were at the start.

    RecBole's models count steps for annealing (MultiVAE), keep histories of losses (DiffRec) or a shuffled list
    (LINE) in plain attributes, which no state dict contains, or copy weights to frozen ones (RecVAE), which
    checkpoints leave out.

    Args:
        model: newly built.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        attributes = self._attributes()
        self._before = {place: _mark(value) for place, value in attributes.items()}
        self._kept = [value for value in attributes.values() if isinstance(value, Tensor)]  # so no other gets its id

    def changed(self) -> dict[str, dict[str, Any]]:
        """Return module -> attribute -> value as plain data, of the attributes that changed."""
        found: dict[str, dict[str, Any]] = {}
        for (module, name), value in self._attributes().items():
            if (module, name) not in self._before or self._before[module, name] != _mark(value):
                value = value.detach() if isinstance(value, Tensor) else value
                found.setdefault(module, {})[name] = to_plain(value, f"{type(self._model).__name__}.{name}")
        return found

    def load(self, state: dict[str, dict[str, Any]]) -> None:
        """Set the attributes that :meth:`changed` returned."""
        for module, values in state.items():
            owner = self._model.get_submodule(module)
            for name, plain in values.items():
                value, now = from_plain(plain), getattr(owner, name, None)
                if isinstance(now, nn.Parameter):
                    with torch.no_grad():  # unlike .data, this counts as a change
                        now.copy_(value)
                else:
                    setattr(owner, name, value.to(now.device) if isinstance(now, Tensor) else value)

    def _attributes(self) -> dict[tuple[str, str], Any]:
        """Return (module, attribute) -> value of what may be stored; what is stored otherwise is left out."""
        stored = {"training", *self._model.other_parameter()}  # type: ignore[operator]
        return {
            (module, name): value
            for module, owner in self._model.named_modules()
            for name, value in (*vars(owner).items(), *owner.named_parameters(recurse=False))
            if not (isinstance(value, nn.Parameter) and value.requires_grad)
            if name not in stored and not name.startswith("_") and isinstance(value, int | float | Tensor | np.ndarray)
        }


def _mark(value: Any) -> Any:
    """Return what differs once a value has changed: tensors count their changes, arrays do not."""
    if isinstance(value, Tensor):
        return id(value), value._version
    if isinstance(value, np.ndarray):
        return value.shape, zlib.crc32(np.ascontiguousarray(value).tobytes())
    return value
