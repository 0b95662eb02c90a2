"""How often items are shown that nobody has chosen yet."""

from __future__ import annotations

from torch import Tensor

LIST_LENGTH = 10
"""Places of a list that count as shown."""

MAX_SHARE = 0.2
"""Items never trained on get no more of all places than this, however many they are."""


def cold_share(exposure: float, n_cold: int, n_items: int) -> float:
    """Return the share of all places that items never trained on are to get, from 0 to :data:`MAX_SHARE`.

    Args:
        exposure: how often such an item is shown, as a multiple of what an item is shown on average.
        n_cold: number of items never trained on.
        n_items: number of all items.
    """
    return min(MAX_SHARE, exposure * n_cold / max(1, n_items))


def entry_gaps(warm: Tensor, cold: Tensor) -> Tensor:
    """Return by how much cold items must be raised to take places among the first ``K``, ``(B, M)``.

    Raising all cold items of a list by ``b`` brings the ``m``-th best of them among the first ``K`` as soon as ``b``
    exceeds what it lacks to the ``(K + 1 - m)``-th best warm one: so many gaps of a list as lie below ``b``, so many
    places do cold items get.

    Args:
        warm: scores of the items trained on, ``(B, n_warm)``; minus infinity for items that are not to be shown.
        cold: scores of the others, ``(B, n_cold)``.
    """
    k = min(LIST_LENGTH, warm.shape[1])
    best_cold = cold.topk(min(k, cold.shape[1]), dim=1).values  # (B, M)
    best_warm = warm.topk(k, dim=1).values.flip(1)  # (B, K), the K-th best first
    return best_warm[:, : best_cold.shape[1]] - best_cold


def exposure_offset(gaps: Tensor, share: float) -> Tensor:
    """Return the offset of cold items with which they get a share of the places of lists, a scalar.

    Args:
        gaps: what :func:`entry_gaps` gives for some lists.
        share: from 0 to 1; at most what these lists have cold items for.
    """
    finite = gaps[gaps.isfinite()]
    if not len(finite):
        return gaps.new_zeros(())
    taken = round(share * LIST_LENGTH * len(gaps))
    return finite.kthvalue(min(max(taken, 1), len(finite))).values
