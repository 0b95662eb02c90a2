"""Fusions: one item vector from an ID embedding and a text vector."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Fusion(nn.Module):
    """Joins the two parts of an item's vector.

    ``uses_id`` and ``uses_text`` tell which parts the fusion needs; a part it does not need is passed as None.
    ``id_shifts_text`` says that the ID part is what clicks add to the text: it starts at zero.
    ``default_projection`` names the text projection that suits the fusion: fixed vectors where the ID part can learn
    freely, else a trained one.
    """

    uses_id = True
    uses_text = True
    id_shifts_text = False
    default_projection = "pca"

    def __init__(self, hidden_size: int, *, delta_max_norm: float) -> None:
        super().__init__()

    def forward(self, id_part: Tensor, text_part: Tensor, keep_id: Tensor, has_text: Tensor) -> Tensor:
        """Return item vectors.

        Args:
            id_part: ``(N, H)``.
            text_part: ``(N, H)``.
            keep_id: ``(N, 1)``, 0 where the ID part must be left out, else 1.
            has_text: ``(N, 1)`` boolean.

        Returns:
            ``(N, H)``.
        """
        raise NotImplementedError


class NoText(Fusion):
    """``none`` and ``init``: the ID embedding alone."""

    uses_text = False

    def forward(self, id_part: Tensor, text_part: Tensor, keep_id: Tensor, has_text: Tensor) -> Tensor:
        """Return the ID part."""
        return id_part


class TextOnly(Fusion):
    """``text_only``: the projected text vector alone, which scores cold items as well."""

    uses_id = False
    default_projection = "linear"

    def forward(self, id_part: Tensor, text_part: Tensor, keep_id: Tensor, has_text: Tensor) -> Tensor:
        """Return the text part."""
        return text_part


class Add(Fusion):
    """``add``: the text vector plus a trainable shift."""

    id_shifts_text = True

    def forward(self, id_part: Tensor, text_part: Tensor, keep_id: Tensor, has_text: Tensor) -> Tensor:
        """Return ``text + id``."""
        return text_part + keep_id * id_part


class Concat(Fusion):
    """``concat``: a linear layer over both."""

    def __init__(self, hidden_size: int, *, delta_max_norm: float) -> None:
        super().__init__(hidden_size, delta_max_norm=delta_max_norm)
        self.dense = nn.Linear(2 * hidden_size, hidden_size)

    def forward(self, id_part: Tensor, text_part: Tensor, keep_id: Tensor, has_text: Tensor) -> Tensor:
        """Return ``W [id; text] + b``."""
        out: Tensor = self.dense(torch.cat([keep_id * id_part, text_part], dim=-1))
        return out


class Gate(Fusion):
    """``gate``: a convex mixture of both, weighed per item and dimension."""

    def __init__(self, hidden_size: int, *, delta_max_norm: float) -> None:
        super().__init__(hidden_size, delta_max_norm=delta_max_norm)
        self.dense = nn.Linear(2 * hidden_size, hidden_size)

    def forward(self, id_part: Tensor, text_part: Tensor, keep_id: Tensor, has_text: Tensor) -> Tensor:
        """Return ``g * id + (1 - g) * text`` with ``g = sigmoid(W [id; text] + b)``."""
        gate = keep_id * torch.sigmoid(self.dense(torch.cat([id_part, text_part], dim=-1)))
        return gate * id_part + (1 - gate) * text_part


class Delta(Fusion):
    """``delta``: the text vector plus a trainable shift no longer than ``delta_max_norm`` times its own length.

    A bounded shift lets an item learn from its clicks and keeps it near its text, so that items without clicks are
    ranked among the others (Let It Go, Pembek et al., RecSys 2025). Items without text are not bounded.
    """

    id_shifts_text = True
    default_projection = "linear"

    def __init__(self, hidden_size: int, *, delta_max_norm: float) -> None:
        super().__init__(hidden_size, delta_max_norm=delta_max_norm)
        self.delta_max_norm = delta_max_norm

    def forward(self, id_part: Tensor, text_part: Tensor, keep_id: Tensor, has_text: Tensor) -> Tensor:
        """Return ``text + shift``."""
        bound = self.delta_max_norm * text_part.detach().norm(dim=-1, keepdim=True)  # (N, 1)
        length = id_part.norm(dim=-1, keepdim=True).clamp_min(1e-12)
        return text_part + keep_id * id_part * torch.where(has_text, bound / length, 1.0).clamp_max(1.0)


FUSIONS: dict[str, type[Fusion]] = {
    "none": NoText,
    "init": NoText,
    "text_only": TextOnly,
    "add": Add,
    "concat": Concat,
    "gate": Gate,
    "delta": Delta,
}
