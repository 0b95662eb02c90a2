"""Fusions: one item vector from an ID embedding and a text vector."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from recbole_xling.errors import ConfigError


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

    @classmethod
    def sizes(cls, hidden_size: int, null_space_size: int | None) -> tuple[int, int]:
        """Return the sizes of the ID part and of the text part, given ``hidden_size`` and ``null_space_size``."""
        return hidden_size, hidden_size

    def forward(self, id_part: Tensor, text_part: Tensor, keep_id: Tensor, has_text: Tensor) -> Tensor:
        """Return item vectors.

        Args:
            id_part: ``(N, H)``, or as :meth:`sizes` says.
            text_part: ``(N, H)``, or as :meth:`sizes` says.
            keep_id: ``(N, 1)``, how much the ID part counts, from 0 (it must be left out) to 1.
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


class NullSpace(Fusion):
    """``null_space``: text in the first dimensions, the ID in the others, where no text vector has a component.

    So nothing that IDs learn changes what is known by text (AlphaFuse, Hu et al., SIGIR 2025).
    """

    id_shifts_text = True

    @classmethod
    def sizes(cls, hidden_size: int, null_space_size: int | None) -> tuple[int, int]:
        """Return the sizes of the ID part, by default half of all, and of the text part.

        Raises:
            ConfigError: nothing is left for one of them.
        """
        size = hidden_size // 2 if null_space_size is None else null_space_size
        if not 0 < size < hidden_size:
            raise ConfigError(
                f"null_space_size ({size}) must be smaller than hidden_size ({hidden_size}): the rest is for texts"
            )
        return size, hidden_size - size

    def forward(self, id_part: Tensor, text_part: Tensor, keep_id: Tensor, has_text: Tensor) -> Tensor:
        """Return ``[text; id]``."""
        return torch.cat([text_part, keep_id * id_part], dim=-1)


FUSIONS: dict[str, type[Fusion]] = {
    "none": NoText,
    "init": NoText,
    "text_only": TextOnly,
    "add": Add,
    "concat": Concat,
    "gate": Gate,
    "delta": Delta,
    "null_space": NullSpace,
}
