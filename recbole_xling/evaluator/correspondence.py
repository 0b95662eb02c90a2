"""How well texts find their translations by vectors: retrieval, matching at a threshold, and the spaces' shape."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from tabulate import tabulate
from torch import Tensor

from recbole_xling.errors import DataError
from recbole_xling.evaluator.bootstrap import bootstrap_intervals

RECALL_AT = (1, 5, 10)
NEIGHBORS = 10
"""Length of the lists whose hubs are counted."""
MIN_PAIRS = 10
"""Fewest pairs of two languages that are measured."""

_ROWS, _COLUMNS = 1 << 10, 1 << 14  # similarities that are in memory at a time: 64 MiB
_EQUAL = 1e-6  # similarities that differ by less are equal: rounding depends on where in a block a pair stands
_EIGENVECTORS = 64  # along which isotropy is measured


class Side(NamedTuple):
    """The texts of one language: its name and a vector for each text, ``(n, D)``."""

    language: str
    vectors: NDArray[np.float32]


class _Found(NamedTuple):
    """What a search of all texts of one side among all of the other gives.

    Attributes:
        higher, equal: how many texts are more similar than the translation, and how many equally similar (it is one of
            them), ``(n,)``.
        best: the highest similarity, ``(n,)``.
        times: in how many lists of neighbors each text of the other side is, ``(n,)``.
    """

    higher: NDArray[np.int64]
    equal: NDArray[np.int64]
    best: NDArray[np.float64]
    times: NDArray[np.int64]

    def within(self, k: int) -> NDArray[np.float64]:
        """Return how likely each translation is among the first ``k``, if chance orders equal ones, ``(n,)``."""
        return np.clip((k - self.higher) / self.equal, 0.0, 1.0)


def correspondence(
    left: Side, right: Side, asked: NDArray[np.bool_] | None = None, *, seed: int = 0
) -> list[dict[str, Any]]:
    """Return how well each of two languages finds its translations in the other, by cosine, in both directions.

    - ``accuracy`` and ``recall@k``: how often the translation is the most similar of all texts of the other language,
      or among the k most similar (Artetxe & Schwenk, "Massively Multilingual Sentence Embeddings", TACL 2019). Equal
      ones count as if chance ordered them.
    - ``precision``, ``recall`` and ``f1``: a text and the most similar one count as a pair if their cosine reaches a
      threshold, as in mining parallel texts (Zweigenbaum et al., BUCC 2017). The threshold has the best F1 on one half
      of the texts, drawn by ``seed``; these are the values on the other half.
    - ``cosine_pairs``, ``cosine_others``: means over translations and over all other pairs; ``separation`` is their
      difference in standard deviations of the others.
    - ``hubness``: skewness of how often a text is among the 10 most similar of one in the other language (Radovanović
      et al., JMLR 2010); 0 is even, and some texts, the hubs, are near to everything where it is large.
      ``never_found``: share of texts that are in no such list.
    - ``mean_cosine`` of two different texts of one language: 0 is even, near 1 all lie in a narrow cone (Ethayarajh,
      EMNLP 2019). ``isotropy``: the smallest share of the largest value of the partition function, over principal
      directions (Mu & Viswanath, "All-but-the-Top", ICLR 2018); 1 is even.

    Memory is bounded, whatever the number of texts.

    Args:
        left: texts of one language.
        right: texts of the other; those with the same row number are translations of each other.
        asked: texts whose translations are asked for, ``(n,)``; the others only are candidates. All if not given.
        seed: of the halves and of the bootstrap.

    Returns:
        One line for each direction, with ``from``, ``to``, ``n`` (texts asked for), ``candidates``, ``threshold`` and
        ``intervals`` (95%, bootstrap over texts) of accuracy and recall@k; hubness and shape are those of ``to``.

    Raises:
        DataError: fewer than 10 texts are asked for, or a vector is zero or not finite.
    """
    asked = np.ones(len(left.vectors), dtype=bool) if asked is None else asked
    if asked.sum() < MIN_PAIRS:
        raise DataError(f"{left.language} and {right.language} have {int(asked.sum())} pairs, not {MIN_PAIRS}")
    sides = [_unit(side) for side in (left, right)]
    own = (sides[0] * sides[1]).sum(dim=1)  # (n,)
    cosines = _cosines(sides[0], sides[1], own)
    lines = []
    for (source, texts), (target, others) in (
        ((left, sides[0]), (right, sides[1])),
        ((right, sides[1]), (left, sides[0])),
    ):
        found = _search(texts, others, own)
        hits = np.stack([found.within(k)[asked] for k in RECALL_AT], axis=1)  # (n_asked, k)
        intervals = bootstrap_intervals(hits, np.arange(len(hits)), seed)
        names = ["accuracy" if k == 1 else f"recall@{k}" for k in RECALL_AT]
        lines.append(
            {
                "from": source.language,
                "to": target.language,
                "n": len(hits),
                "candidates": len(others),
                **dict(zip(names, hits.mean(axis=0).tolist(), strict=True)),
                **_matched(found.best[asked], hits[:, 0], seed),
                **cosines,
                "hubness": skewness(found.times),
                "never_found": float((found.times == 0).mean()),
                **_shape(others),
                "intervals": dict(zip(names, intervals.tolist(), strict=True)),
            }
        )
    return lines


def _shape(units: Tensor) -> dict[str, float]:
    """Return how evenly the vectors of a language fill the space."""
    n = len(units)
    mean_cosine = (float(units.sum(dim=0, dtype=torch.float64).square().sum()) - n) / (n * (n - 1))
    _, vectors = torch.linalg.eigh(_gram(units))
    along = units @ vectors[:, -_EIGENVECTORS:].float()  # (n, <= 64)
    function = torch.cat([sign.exp().sum(dim=0, dtype=torch.float64) for sign in (along, -along)])
    return {"mean_cosine": mean_cosine, "isotropy": float(function.min() / function.max())}


def skewness(values: NDArray[np.integer[Any]]) -> float:
    """Return the third standardized moment; 0 if all are equal."""
    centered = values - values.mean()
    deviation = float(np.sqrt((centered**2).mean()))
    return float((centered**3).mean() / deviation**3) if deviation else 0.0


def _unit(side: Side) -> Tensor:
    vectors = torch.from_numpy(np.ascontiguousarray(side.vectors, dtype=np.float32))
    norms = vectors.norm(dim=1)
    if not bool((norms.isfinite() & (norms > 0)).all()):
        place = int(torch.nonzero(~(norms.isfinite() & (norms > 0)))[0])
        raise DataError(f"the vector of text {place + 1} in {side.language} is zero or not finite: it has no cosine")
    return F.normalize(vectors, dim=1)


def _cosines(left: Tensor, right: Tensor, own: Tensor) -> dict[str, float]:
    """Return mean cosines of pairs and others; of all pairs at once, by sums and Gram matrices."""
    n_others = len(own) * (len(own) - 1)
    sums = [side.sum(dim=0, dtype=torch.float64) for side in (left, right)]
    mean = (float(sums[0] @ sums[1]) - float(own.double().sum())) / n_others
    square = (float((_gram(left) * _gram(right)).sum()) - float(own.double().square().sum())) / n_others
    deviation = max(square - mean**2, 0.0) ** 0.5
    pairs = float(own.double().mean())
    separation = (pairs - mean) / deviation if deviation > _EQUAL else 0.0  # vectors are all the same
    return {"cosine_pairs": pairs, "cosine_others": mean, "separation": separation}


def _gram(vectors: Tensor) -> Tensor:
    """Return the sum of the vectors' outer products, ``(D, D)`` in double precision."""
    gram = torch.zeros(vectors.shape[1], vectors.shape[1], dtype=torch.float64)
    for block in vectors.split(_COLUMNS):
        gram += block.double().T @ block.double()
    return gram


def _search(texts: Tensor, others: Tensor, own: Tensor) -> _Found:
    """Search all texts among all others, block by block; ``own`` is the similarity of translations, ``(n,)``."""
    k = min(NEIGHBORS, len(others))
    higher, equal = (torch.zeros(len(texts), dtype=torch.long) for _ in range(2))
    best, times = torch.empty(len(texts)), torch.zeros(len(others), dtype=torch.long)
    for row in range(0, len(texts), _ROWS):
        here = slice(row, row + _ROWS)
        mine = own[here, None]
        values, places = torch.empty(len(mine), 0), torch.empty(len(mine), 0, dtype=torch.long)
        for column in range(0, len(others), _COLUMNS):
            cosines = texts[here] @ others[column : column + _COLUMNS].T  # (rows, columns)
            higher[here] += (cosines > mine + _EQUAL).sum(dim=1)
            equal[here] += ((cosines - mine).abs() <= _EQUAL).sum(dim=1)
            top = cosines.topk(min(k, cosines.shape[1]), dim=1)
            values = torch.cat([values, top.values], dim=1)
            places = torch.cat([places, top.indices + column], dim=1)
        nearest = values.topk(k, dim=1)
        best[here] = nearest.values[:, 0]
        times += torch.bincount(places.gather(1, nearest.indices).flatten(), minlength=len(others))
    return _Found(higher.numpy(), equal.clamp_min(1).numpy(), best.double().numpy(), times.numpy())


def _matched(best: NDArray[np.float64], right: NDArray[np.float64], seed: int) -> dict[str, float]:
    """Return precision, recall and F1 on one half of the texts, at the threshold that is best on the other half.

    Args:
        best: similarity of each text and the one most similar to it, ``(n,)``.
        right: how likely that is its translation, ``(n,)``.
        seed: of the halves.
    """
    order = np.random.default_rng(seed).permutation(len(best))
    chosen_on, rest = order[: len(order) // 2], order[len(order) // 2 :]
    ranked = chosen_on[np.argsort(-best[chosen_on], kind="stable")]
    f1 = 2 * np.cumsum(right[ranked]) / (np.arange(1, len(ranked) + 1) + len(ranked))
    nexts = np.append(best[ranked][1:], -1.0)
    f1[best[ranked] == nexts] = -1.0  # no threshold lies between equal ones
    place = int(f1.argmax())
    threshold = (best[ranked[place]] + nexts[place]) / 2 if place + 1 < len(ranked) else best[ranked[place]]
    kept = best[rest] >= threshold
    hits = float(right[rest][kept].sum())
    return {
        "threshold": float(threshold),
        "precision": hits / kept.sum() if kept.any() else 0.0,
        "recall": hits / len(rest),
        "f1": 2 * hits / (kept.sum() + len(rest)),
    }


_FOUND = ["accuracy", *(f"recall@{k}" for k in RECALL_AT[1:]), "precision", "recall", "f1", "threshold"]
_SPACE = ["cosine_pairs", "cosine_others", "separation", "mean_cosine", "isotropy", "hubness", "never_found"]


def correspondence_table(result: Mapping[str, Any]) -> str:
    """Return what :func:`recbole_xling.quick_start.align.align` found as text."""
    blocks = []
    for name, lines in result["vectors"].items():
        blocks += [name.replace("_", " "), _table(lines, _FOUND), _table(lines, _SPACE)]
    if few := result["left_out"]:
        pairs = ", ".join(f"{pair} {n}" for pair, n in few.items())
        blocks.append(f"left out, with fewer than {MIN_PAIRS} pairs of different texts: {pairs}")
    return "\n\n".join(blocks)


def _table(lines: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> str:
    rows = []
    for line in lines:
        cells = [f"{line[column]:.3f}" for column in columns]
        if columns[0] == "accuracy":
            cells[0] += " ({:.3f} to {:.3f})".format(*line["intervals"]["accuracy"])
        rows.append([f"{line['from']} to {line['to']}", f"{line['n']:,}", *cells])
    headers = ["", "n", *(column.replace("_", " ") for column in columns)]
    return tabulate(rows, headers, disable_numparse=True, colalign=["left"] + ["right"] * (1 + len(columns)))
