"""MIND's metrics of an impression: how well its candidates are ranked."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]

CUTOFFS = (5, 10)
METRICS = ("auc", "mrr", *(f"ndcg@{k}" for k in CUTOFFS))


def candidate_metrics(
    scores: NDArray[np.floating], clicked: NDArray[np.bool_], sizes: NDArray[np.int64]
) -> dict[str, FloatArray]:
    """Return AUC, MRR, nDCG@5 and nDCG@10 of each impression.

    The definitions are those of MIND's evaluation script (Wu et al., ACL 2020): MRR is the mean of the reciprocal
    ranks of all clicked candidates, not only of the first. Where candidates have equal scores, each metric is its
    expected value over all orders of them; for the AUC this is the usual half of a tie.

    Args:
        scores: of the candidates of all impressions, one impression after the other, ``(n,)``; no NaN.
        clicked: whether they were clicked, ``(n,)``.
        sizes: number of candidates of each impression, ``(m,)``; each has a clicked one and one that is not.

    Returns:
        One array ``(m,)`` for each name in :data:`METRICS`.
    """
    n_impressions = len(sizes)
    impression = np.repeat(np.arange(n_impressions), sizes)  # (n,)
    order = np.lexsort((-scores, impression))
    ranked, clicked = scores[order], clicked[order]
    # Candidates of an impression with equal scores form a block. Ranked as the file lists them, a model with many equal
    # scores would be judged by the order of the file; so each of them gets the mean gain of the places of its block.
    is_first = np.append(True, (ranked[1:] != ranked[:-1]) | (impression[1:] != impression[:-1]))[: len(ranked)]
    begin = np.flatnonzero(is_first)  # (n_blocks,), as all that follows
    block_size = np.diff(np.append(begin, len(ranked)))
    of_impression = impression[begin]
    before = begin - (np.cumsum(sizes) - sizes)[of_impression]  # places above the block
    clicks = np.bincount(np.cumsum(is_first) - 1, weights=clicked, minlength=len(begin))

    def expected(gain: FloatArray) -> FloatArray:
        """Return the expected sum of the gains of the clicked candidates' places, ``(m,)``."""
        total = np.append(0.0, np.cumsum(gain))
        mean = (total[before + block_size] - total[before]) / block_size
        return np.bincount(of_impression, weights=clicks * mean, minlength=n_impressions).astype(np.float64)

    place = np.arange(1, int(sizes.max(initial=0)) + 1, dtype=np.float64)
    n_clicked = np.bincount(impression, weights=clicked, minlength=n_impressions)
    above = expected(place) - n_clicked * (n_clicked + 1) / 2  # pairs in which the other one is ranked higher
    metrics = {"auc": 1 - above / (n_clicked * (sizes - n_clicked)), "mrr": expected(1 / place) / n_clicked}
    for k in CUTOFFS:
        gain = (place <= k) / np.log2(place + 1)
        ideal = np.append(0.0, np.cumsum(gain))[n_clicked.astype(np.int64)]
        metrics[f"ndcg@{k}"] = expected(gain) / ideal
    return metrics
