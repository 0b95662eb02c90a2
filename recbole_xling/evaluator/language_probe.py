"""How well a linear classifier tells the language of an item from its vector."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tabulate import tabulate

from recbole_xling.errors import DataError

N_FOLDS = 5


def tell_languages(
    vectors: Mapping[str, NDArray[np.floating[Any]]], languages: NDArray[np.str_], items: NDArray[np.int64], seed: int
) -> dict[str, Any]:
    """Return how often a linear classifier names the language of vectors of items that it has not seen.

    The classifier is a multinomial logistic regression on standardized vectors, cross-validated over items: all vectors
    of an item, in whatever languages, are in one fold, so that what the item is about does not give the language away.
    Whether a linear classifier finds a property is the probing of Alain & Bengio, "Understanding intermediate layers
    using linear classifier probes" (ICLR 2017 Workshop).

    Args:
        vectors: ``(N, D)`` by name; each is probed in the same folds.
        languages: ``(N,)`` tags. Those that fewer than five items have are left out.
        items: ``(N,)`` number of the item of each vector.
        seed: of the folds.

    Returns:
        ``n`` and ``items``, numbers of vectors and items; ``languages``, the number of vectors of each; ``majority``,
        what naming the most frequent language always gives; and by name of vectors what the classifier gives:
        ``accuracy`` and ``macro_f1`` each.

    Raises:
        DataError: there are fewer than two languages.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import accuracy_score, f1_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    names, counts = np.unique(languages, return_counts=True)
    kept = np.isin(languages, names[counts >= N_FOLDS])
    if (counts >= N_FOLDS).sum() < 2:
        found = ", ".join(f"{name} {count}" for name, count in zip(names, counts, strict=True)) or "none"
        raise DataError(
            f"a probe needs items in two languages, at least {N_FOLDS} in each; found: {found}. Where items have texts "
            "in several languages, --text_view=reader --reader_vectors=reader shows them in each of them"
        )
    languages, items = languages[kept], items[kept]
    names, counts = np.unique(languages, return_counts=True)
    distinct, item = np.unique(items, return_inverse=True)
    fold = np.random.default_rng(seed).permutation(len(distinct))[item] % N_FOLDS  # (N,)

    def scores(named: NDArray[np.str_]) -> dict[str, float]:
        f1 = f1_score(languages, named, average="macro", zero_division=0.0)
        return {"accuracy": float(accuracy_score(languages, named)), "macro_f1": float(f1)}

    result: dict[str, Any] = {"n": len(items), "items": len(distinct)}
    result["languages"] = dict(zip(names.tolist(), counts.tolist(), strict=True))
    result["majority"] = scores(np.full_like(languages, names[counts.argmax()]))
    for name, rows in vectors.items():
        known, guessed = rows[kept], np.empty_like(languages)
        for number in range(N_FOLDS):
            inside = fold == number
            taught = languages[~inside]
            if (taught == taught[0]).all():  # all items of a small language are in one fold
                guessed[inside] = taught[0]
                continue
            classifier = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
            guessed[inside] = classifier.fit(known[~inside], taught).predict(known[inside])
        result[name] = scores(guessed)
    return result


def probe_table(result: Mapping[str, Any]) -> str:
    """Return what :func:`tell_languages` found as text."""
    lines = [
        [name.replace("_", " "), f"{scores['accuracy']:.4f}", f"{scores['macro_f1']:.4f}"]
        for name, scores in result.items()
        if isinstance(scores, dict) and "accuracy" in scores
    ]
    table = tabulate(lines, ["language told by", "accuracy", "macro F1"], disable_numparse=True, colalign=("left",))
    counts = ", ".join(f"{name} {count:,}" for name, count in result["languages"].items())
    return f"{table}\n\n{result['n']:,} vectors of {result['items']:,} items: {counts}"
