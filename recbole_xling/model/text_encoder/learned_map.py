"""LearnedMap: from the encoder's vectors to item vectors, starting where what is alike is alike already."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from recbole_xling.errors import CheckpointError

_WHITENING_SHARE = 0.1  # of the mean variance, added to that of each axis: the smallest ones are noise
_LARGER_STD = 0.002  # of the weights of dimensions that the encoder lacks: at zero they would never leave it


class LearnedMap(nn.Linear):
    """A linear layer, and by choice a perceptron beside it, which adds nothing at the start.

    A linear layer that starts at random forgets what the encoder knows, and learns it again from clicks. With ``pca``
    inner products are those of the encoder's vectors at first: the weights are the identity, or, where the size is
    smaller, the principal axes of the catalog (without taking off the mean, so that lengths hardly change), which
    :meth:`start_at` finds when training begins. Until then they are the identity's first rows.

    Args:
        in_size: of the encoder's vectors.
        out_size: of item vectors.
        init: ``pca``; ``whitening``: axes of about like variance; ``random``: as :class:`torch.nn.Linear` starts.
        mlp_size: hidden units of the perceptron; 0 for none.
        l2_sp: how strongly :meth:`regularization` pulls weights back to the start.
    """

    def __init__(
        self, in_size: int, out_size: int, *, init: str = "random", mlp_size: int = 0, l2_sp: float = 0.0
    ) -> None:
        super().__init__(in_size, out_size)
        self.init, self.l2_sp = init, l2_sp
        if init != "random":
            nn.init.eye_(self.weight)
            nn.init.zeros_(self.bias)
            nn.init.normal_(self.weight[in_size:], std=_LARGER_STD)
        self.mlp: nn.Sequential | None = None
        if mlp_size:
            last = nn.Linear(mlp_size, out_size)
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)
            self.mlp = nn.Sequential(nn.Linear(in_size, mlp_size), nn.GELU(), last)
        self._start: tuple[Tensor, Tensor] | None = None  # weight and bias

    def forward(self, vectors: Tensor) -> Tensor:
        """Map ``(N, in_size)`` to ``(N, out_size)``."""
        mapped = super().forward(vectors)
        if self.mlp is None:
            return mapped
        length = vectors.norm(dim=-1, keepdim=True).clamp_min(1e-12)  # (N, 1)
        return mapped + length * self.mlp(vectors / length * self.in_features**0.5)

    def regularization(self) -> Tensor | float:
        """Return ``l2_sp / 2`` times the squared distance of the weights to those of the start, a scalar.

        What clicks teach about the items that they are on is no reason to move the others: of all maps that fit, the
        one nearest to the encoder is wanted (Li et al., "Explicit Inductive Bias for Transfer Learning with
        Convolutional Networks", ICML 2018). Of the perceptron the last layer counts, which starts at zero.
        """
        if not self.l2_sp or self._start is None:
            return 0.0
        parts = zip((self.weight, self.bias), self._start, strict=True)
        away = sum(((now - start.to(now)).square().sum() for now, start in parts), self.weight.new_zeros(()))
        if self.mlp is not None:
            away = away + sum(weight.square().sum() for weight in self.mlp[-1].parameters())
        return self.l2_sp / 2 * away

    @property
    def needs_start(self) -> bool:
        """Whether it is to start at axes of the catalog, and neither has done so nor has been loaded."""
        if self.init == "random" or (self.init == "pca" and self.out_features >= self.in_features):
            return False
        first_rows = torch.eye(*self.weight.shape, device=self.weight.device)
        n_axes = min(self.weight.shape)
        return bool((self.weight[:n_axes] == first_rows[:n_axes]).all()) and not bool(self.bias.any())

    @torch.no_grad()
    def start_at(self, vectors: Tensor) -> None:
        """Start at principal axes; where vectors do not differ there are none, and nothing changes.

        Args:
            vectors: of texts of the catalog, ``(N, in_size)``.
        """
        rows = vectors.double().cpu()
        mean = rows.mean(dim=0) if self.init == "whitening" else rows.new_zeros(rows.shape[1])
        values, axes = torch.linalg.eigh((rows - mean).T @ (rows - mean) / len(rows))  # ascending
        values, axes = values.flip(0).clamp_min(0), axes.flip(1).T  # (in_size,), (in_size, in_size)
        if values.sum() <= 1e-12 * rows.square().sum() / len(rows):
            return
        # an axis has two directions: the one in which its largest part is positive
        axes *= axes.gather(1, axes.abs().argmax(dim=1, keepdim=True)).sign()
        if self.init == "whitening":
            average = values.mean()
            axes *= (average / (values + _WHITENING_SHARE * average)).sqrt()[:, None]
        n_axes = min(self.weight.shape)
        self.weight[:n_axes] = axes[:n_axes].to(self.weight)
        self.bias[:n_axes] = -(axes @ mean)[:n_axes].to(self.bias)

    @torch.no_grad()
    def remember_start(self) -> None:
        """Take the weights of now for those of the start, unless these are known."""
        if self.l2_sp and self._start is None:
            self._start = self.weight.detach().clone(), self.bias.detach().clone()

    def start_state(self) -> dict[str, Tensor]:
        """Return what a checkpoint keeps of the start: nothing if weights are not pulled back to it."""
        return {} if self._start is None else dict(zip(("weight", "bias"), self._start, strict=True))

    def load_start(self, state: Mapping[str, Tensor]) -> None:
        """Restore what :meth:`start_state` returned.

        Raises:
            CheckpointError: it belongs to a map of another size.
        """
        if not state or not self.l2_sp:
            return
        found = state["weight"], state["bias"]
        if any(start.shape != now.shape for start, now in zip(found, (self.weight, self.bias), strict=True)):
            raise CheckpointError("the run's learned map has another size than this one (embedding_size)")
        self._start = found
