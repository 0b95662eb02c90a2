"""Whether a difference between two results is more than chance: paired tests over users, and many of them at once."""

from __future__ import annotations

import numpy as np
import scipy.stats
from numpy.typing import NDArray

from recbole_xling.evaluator.bootstrap import Groups

FloatArray = NDArray[np.float64]


def paired_p_values(difference: FloatArray, users: Groups) -> tuple[float, float]:
    """Return the p-values of the paired t-test and of Wilcoxon's signed-rank test, both two-sided, over users.

    Rows of one user are alike, so each user counts once, with the mean of his rows (Urbano et al., *Statistical
    Significance Testing in Information Retrieval*, SIGIR 2019, compare the tests).

    Args:
        difference: of two models on the same rows, ``(n,)``.
        users: of the rows, ``(n,)``.

    Returns:
        1 where no user differs; NaN where there are fewer than two users. Where all users differ alike, t has no
        denominator, and in its place is the p-value of the permutation test: that all signs are the same.
    """
    _, user = np.unique(np.asarray(users), return_inverse=True)
    # rounded: of equal differences none is larger, and what is nothing but rounding is no difference
    means = np.round(np.bincount(user, weights=difference) / np.bincount(user), 12)
    if len(means) < 2:
        return float("nan"), float("nan")
    if not means.any():
        return 1.0, 1.0
    if np.ptp(means) == 0:
        return 2 * 0.5 ** len(means), float(scipy.stats.wilcoxon(means).pvalue)
    return float(scipy.stats.ttest_1samp(means, 0.0).pvalue), float(scipy.stats.wilcoxon(means).pvalue)


def holm(p_values: FloatArray) -> FloatArray:
    """Return p-values corrected so that the chance of any false finding is bounded (Holm, 1979); NaN stays NaN."""
    corrected = np.full(len(p_values), np.nan)
    known = np.flatnonzero(~np.isnan(p_values))
    order = known[np.argsort(p_values[known], kind="stable")]
    factor = np.arange(len(order), 0, -1)
    corrected[order] = np.minimum(1, np.maximum.accumulate(p_values[order] * factor))
    return corrected


def benjamini_hochberg(p_values: FloatArray) -> FloatArray:
    """Return p-values corrected so that the share of false findings is bounded (Benjamini, Hochberg, 1995)."""
    corrected = np.full(len(p_values), np.nan)
    known = ~np.isnan(p_values)
    if known.any():
        corrected[known] = scipy.stats.false_discovery_control(p_values[known], method="bh")
    return corrected
